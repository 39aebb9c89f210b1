"""What happened in a saved tree: a verdict on each node, and the signs by which the report and the command
line find trees again.

Roles have no names here: `signs_of` puts a run's own into the labels. A branch leads where other branches
hang from it or from a peer of it, or where an executor judged it (`valid`): a plan, a look, whatever comes
before the end of a trajectory. What hangs below a leading branch are its executions: the ends of
trajectories, at any depth.

The quality of a leading branch is what the run knows of it, each a number from 0 to 1: `valid` (the exact
executor; of free text, whether the interface accepted it), `outcome` (the share of its executions that
succeed) and `analytic` (its share of the reward of its peers, PTA-GRPO, arXiv 2510.01833). It disagrees with
its executions where these tell different stories.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forethought.core.branches import branch_of
from forethought.core.scores import success_of

SIGNS = {  # name -> (label, what it says of a tree); LEAD: the roles that lead, LAST: the one that executes
    "disagree": (
        "disagreement",
        "what a LEAD is worth and what came of it differ, in any of the next four ways",
    ),
    "valid_failed": (
        "LEAD right, each LAST failed",
        "the executor says that a LEAD is right, and no execution of it succeeded",
    ),
    "invalid_solved": (
        "LEAD wrong, yet solved",
        "the executor says that a LEAD is wrong, and an execution of it succeeded",
    ),
    "split": ("executions of a LEAD differ", "some executions of a LEAD succeeded and some did not"),
    "lone": (
        "one LEAD works",
        "at least half of the executions of one LEAD succeeded, and of its peers' none",
    ),
    "wrong": ("LEAD wrong", "the executor says that a LEAD is wrong"),
    "execution_failed": ("LEAD right, a LAST failed", "an execution of a LEAD that is right went wrong"),
    "refused": ("refused", "the interface did not accept a LEAD"),
    "truncated": ("truncated", "a turn ran out of its budget of tokens"),
    "overlong": (
        "no room",
        "what stands before a turn left it no room in the model's context; such a rollout is not counted",
    ),
    "broke": ("broke", "the engine or the environment failed; such a rollout is not counted"),
}


def signs_of(roles: Sequence[str]) -> dict[str, tuple[str, str]]:
    """`SIGNS` in the words of a run whose workflow speaks `roles`, in their order; without any, of turns and
    executions."""
    lead, last = " or ".join(roles[:-1] or roles) or "turn", roles[-1] if len(roles) > 1 else "execution"
    words = {"a LEAD": _one(lead), "a LAST": _one(last), "LEAD": lead, "LAST": last}

    def said(text: str) -> str:
        for place, word in words.items():
            text = text.replace(place, word)
        return text

    return {name: (said(label), said(about)) for name, (label, about) in SIGNS.items()}


def _one(role: str) -> str:
    return f"{'an' if role[0] in 'aeiou' else 'a'} {role}"


DISAGREEMENTS = ("valid_failed", "invalid_solved", "split", "lone")
MEASURES = ("outcome", "valid", "analytic")
WORKS = 0.5  # share of executions that must succeed, for `lone`


@dataclass(slots=True)
class _Branch:
    """A branch of a saved tree; `at` is its last turn, where its verdict and its parts stand."""

    role: str | None
    above: _Branch | None
    depth: int  # 0: directly under the prompt
    number: int  # its place among its peers, from 1
    nodes: list[dict[str, Any]] = field(default_factory=list)
    below: list[_Branch] = field(default_factory=list)
    peers: list[_Branch] = field(default_factory=list)

    @property
    def at(self) -> dict[str, Any]:
        return next(n for n in reversed(self.nodes) if n.get("role") is not None)

    @property
    def leads(self) -> bool:
        return any(peer.below or "valid" in _parts(peer.at) or _given(peer.at) for peer in self.peers)

    @property
    def executes(self) -> bool:
        """Whether it is the end of a trajectory, and not one that was to be executed."""
        return not self.below and not ("valid" in _parts(self.at) or _given(self.at) or self._stopped)

    @property
    def _stopped(self) -> bool:
        """It was refused, or broke, where its peers went on."""
        own = self.at.get("status") == "finished" and "outcome" in _parts(self.at)
        return any(peer.below for peer in self.peers) and not own

    def ancestors(self) -> Iterator[_Branch]:
        above = self.above
        while above is not None:
            yield above
            above = above.above


def judge(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with what can be seen in it.

    Each node gets a `verdict` (right | wrong | accepted | execution_failed | refused | failed | overlong |
    unjudged | ""), the `depth` of its branch (0 directly under the prompt) and the branch's `number` among
    its peers.
    A turn that an executor judged has its part `valid` for its verdict, another its part `outcome`; a leading
    one is `execution_failed` when it is right and an execution under it went wrong, `refused` when the
    interface did not accept it, cut off ones included, `accepted` when it did and nothing can execute it
    (free text). `failed` is the engine's or the environment's failure, which is nobody's mistake, and nor is
    an `overlong` turn, which the model's context left no room.

    The last turn of a leading branch also gets its `quality` (measure -> number, where known), `executions`
    ([succeeded, judged]) and `disagrees` (signs). The tree gets `signs`, `disagreements` (how many, over its
    leading branches), `solved` (whether an execution succeeded; None where nothing was executed), `sampled`
    (tokens) and `reasons` (as `reason_group` says them).
    """
    nodes = [dict(node) for node in tree["nodes"]]
    branches = _branches(nodes)
    for branch in branches:
        for node in branch.nodes:
            node["verdict"] = _verdict(node, node is branch.at, branch, bool(tree.get("free_text")))
    done = [(branch, ok) for branch in branches if (ok := _succeeded(branch)) is not None]
    leading = [branch for branch in branches if branch.leads and not branch.executes]
    _count(leading, done)
    for peers in {id(b.peers): [p for p in b.peers if p in leading] for b in leading}.values():
        if alone := _lone([branch.at for branch in peers]):
            alone["disagrees"].append("lone")
    ends = [branch.at for branch in leading]
    signs = _signs(nodes, ends)
    return dict(tree) | {
        "nodes": nodes,
        "signs": [sign for sign in SIGNS if sign in signs],
        "disagreements": sum(len(end["disagrees"]) for end in ends),
        "solved": _solved([b.at for b in leading if b.above is None], [ok for _, ok in done]),
        "sampled": sum(node.get("tokens") or 0 for node in nodes if node.get("policy") is not None),
        "reasons": list(dict.fromkeys(reason_group(node["reason"]) for node in nodes if node.get("reason"))),
    }


def _branches(nodes: list[dict[str, Any]]) -> list[_Branch]:
    """The branches on which somebody speaks, those above first; every node gets its depth and number. What
    nobody says (the prompt) lies on none."""
    on = branch_of((n["id"], n.get("parent"), n.get("role"), n.get("branch")) for n in nodes)
    speaks = {on[n["id"]] for n in nodes if n.get("role") is not None}
    found: dict[int, _Branch] = {}
    peers: dict[tuple[str | None, int | None], list[_Branch]] = {}
    for node in nodes:
        id = on[node["id"]]
        node |= {"verdict": "", "depth": 0, "number": 1}
        if id not in speaks:
            continue
        if id not in found:
            origin = on.get(node.get("parent"))
            above = found.get(origin)
            group = peers.setdefault((node.get("role"), origin), [])
            depth = above.depth + 1 if above else 0
            found[id] = branch = _Branch(node.get("role"), above, depth, len(group) + 1, peers=group)
            group.append(branch)
            if above:
                above.below.append(branch)
        found[id].nodes.append(node)
        node |= {"depth": found[id].depth, "number": found[id].number}
    return list(found.values())


def _parts(node: Mapping[str, Any]) -> Mapping[str, float]:
    return node.get("reward_parts") or {}


def _given(node: Mapping[str, Any]) -> bool:
    """A turn that an oracle wrote."""
    return node.get("status") == "given" and node.get("role") is not None and not _parts(node)


def reason_group(reason: str) -> str:
    """A reason without place, names and numbers, so that those of one kind read alike: "nothing is at x3 y4"
    -> "nothing is at … …"."""
    text = re.sub(r"^(?:word|character|step) \d+: ", "", " ".join(reason.split()))
    text = re.sub(r"^expected .+, found .+$", "expected …, found …", text)
    text = re.sub(r"(?<!\w)(['\"]).*?\1(?!\w)", "…", text)
    # numbers, cells and values, names of one letter
    text = re.sub(r"\b\w*\d[\w.]*|(?<!['\w])[b-zB-Z](?!['\w])", "…", text)
    return text if len(text) <= 100 else text[:99] + "…"


def _verdict(node: Mapping[str, Any], last: bool, branch: _Branch, free_text: bool) -> str:
    parts = _parts(node)
    if node.get("role") is None:
        return ""
    if node.get("status") in ("refused", "failed", "overlong"):
        return node["status"]
    if _given(node):
        return "right"  # the oracle's
    if "valid" in parts:
        if parts.get("format") == 0:
            return "refused"
        if free_text:
            return "accepted" if parts["valid"] >= 1 else "refused"
        return "right" if parts["valid"] >= 1 else "wrong"
    # what hangs below a branch is counted, and a turn in the middle of one is not judged by itself
    if not last or branch.below:
        return ""
    if "outcome" not in parts:
        return "unjudged"
    return "right" if (success_of(parts) or 0.0) >= 1 else "wrong"


def _succeeded(branch: _Branch) -> bool | None:
    """Whether an execution succeeded; None where it is none, or nothing is known of it."""
    known = branch.executes and branch.at["verdict"] in ("right", "wrong", "refused")
    return branch.at["verdict"] == "right" if known else None


def _count(leading: list[_Branch], done: list[tuple[_Branch, bool]]) -> None:
    """Gives leading branches their executions, and marks a right one under which one went wrong."""
    counts: dict[int, list[bool]] = {id(branch): [] for branch in leading}
    for branch, ok in done:
        for above in branch.ancestors():
            counts.setdefault(id(above), []).append(ok)
            if not ok and above.at["verdict"] == "right":
                above.at["verdict"] = "execution_failed"
    for branch in leading:
        oks = counts[id(branch)]
        branch.at["executions"] = [sum(oks), len(oks)]
        branch.at["quality"] = _quality(branch.at)
        branch.at["disagrees"] = _disagreements(branch.at)


def _quality(end: Mapping[str, Any]) -> dict[str, float]:
    """Of the last turn of a leading branch. The outcome of what was executed is counted here; the reward
    gives one to what was refused too, 0."""
    parts, (hits, n) = _parts(end), end["executions"]
    known = {measure: parts[measure] for measure in MEASURES if measure in parts}
    return known | ({"outcome": hits / n} if n else {})


def _disagreements(end: Mapping[str, Any]) -> list[str]:
    hits, n = end["executions"]
    found = {
        "valid_failed": n > 0 and hits == 0 and end["verdict"] in ("right", "execution_failed"),
        "invalid_solved": hits > 0 and end["verdict"] == "wrong",
        "split": 0 < hits < n,
    }
    return [sign for sign, is_so in found.items() if is_so]


def _lone(ends: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The one of these peers that works where the others never do; a refused one never does."""
    known = [
        (end["quality"].get("outcome", 0.0 if end["verdict"] == "refused" else None), end) for end in ends
    ]
    shares = [(share, end) for share, end in known if share is not None]
    working = [(share, end) for share, end in shares if share > 0]
    return working[0][1] if len(shares) > 1 and len(working) == 1 and working[0][0] >= WORKS else None


def _solved(first: list[dict[str, Any]], done: list[bool]) -> bool | None:
    """Where every first branch was refused there was nothing to execute, and the task is not solved
    either."""
    if done:
        return any(done)
    return False if first and all(end["verdict"] == "refused" for end in first) else None


def _signs(nodes: list[dict[str, Any]], leading: list[dict[str, Any]]) -> set[str]:
    found = {sign for end in leading for sign in end["disagrees"]}
    found |= {"disagree"} if found else set()
    verdicts = {node["verdict"] for node in nodes}
    verdict_of = {"broke": "failed"} | {sign: sign for sign in ("refused", "overlong", "execution_failed")}
    found |= {sign for sign, verdict in verdict_of.items() if verdict in verdicts}
    found |= {"wrong" for n in nodes if n["verdict"] == "wrong" and "valid" in _parts(n)}
    return found | {"truncated" for node in nodes if node.get("status") == "truncated"}
