"""Saved trees in the terminal: the task, every turn under the one that it follows, what each was judged and
what credit it got."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

from rich.console import Console
from rich.text import Text

from forethought.core.jsonl import dumps
from forethought.display.show import printable
from forethought.traces.judged import signs_of

VERDICTS = {
    "right": ("right", "green"),
    "wrong": ("wrong", "red"),
    "accepted": ("accepted", "cyan"),
    "refused": ("refused", "magenta"),
    "execution_failed": ("right, an execution failed", "yellow"),
    "failed": ("broke", "yellow"),
    "overlong": ("no room", "yellow"),
    "unjudged": ("not judged", "dim"),
}
# characters of a long text that are shown without `full`; its end is where an answer says its result
HEAD, TAIL = 400, 300


def print_found(
    found: Iterable[tuple[Mapping[str, Any], bool]],
    most: int,
    stream: IO[str],
    *,
    full: bool,
    as_json: bool,
    roles: Sequence[str] = (),
) -> None:
    """The first `most` (0: all) judged trees that pass, then how many there are and what happened in them, in
    the words of the run's `roles`. As JSON: one line per tree, no more than that, and no tree beyond the last
    is looked at."""
    printer, passed, total = TreePrinter(stream, full, roles), 0, 0
    signs: Counter[str] = Counter()
    for tree, passes in found:
        total += 1
        if not passes:
            continue
        passed += 1
        signs.update(tree["signs"])
        if not most or passed <= most:
            print(dumps(tree), file=stream) if as_json else printer.show(tree)
        if as_json and passed == most:
            return
    if not as_json:
        shown = min(most or passed, passed)
        told = " · ".join(f"{printer.signs[sign][0]} {n:,}" for sign, n in signs.most_common())
        more = f"; the first {shown:,} are shown, --n 0 shows all" if shown < passed else ""
        print(f"{passed:,} of {total:,} trees{f': {told}' if told else ''}{more}", file=stream)


def _answers(nodes: Sequence[Mapping[str, Any]]) -> str:
    """What came of a tree in which nobody executes a plan: the outcomes of its ends."""
    above = {node.get("parent") for node in nodes}
    parts = [node.get("reward_parts") or {} for node in nodes if node.get("id") not in above]
    outcomes = [part["outcome"] for part in parts if "outcome" in part]
    if not outcomes:
        return "nothing was executed" if any(node.get("verdict") for node in nodes) else "nobody judged it"
    return f"{len(outcomes)} answers, mean outcome {sum(outcomes) / len(outcomes):.2f}"


class TreePrinter:
    """Writes judged trees (traces/judged.py) as text; colour only on a terminal. `full`: long texts whole,
    and the context too."""

    def __init__(self, stream: IO[str], full: bool, roles: Sequence[str] = ()):
        self.signs = signs_of([printable(role) for role in roles])
        self._console, self._full = Console(file=stream, highlight=False, soft_wrap=True), full

    def show(self, tree: Mapping[str, Any]) -> None:
        """Print one judged tree (a record of `traces.judged`): head line, prompt, and every turn."""
        where = [
            f"step {tree['step']}",
            f"stage {tree.get('stage', 0) + 1}",
            f"level {tree.get('level', '-')}",
        ]
        self._console.print(Text(printable(f"{tree.get('task', '')}  {'  '.join(where)}"), style="bold"))
        done = [n["executions"] for n in tree["nodes"] if "executions" in n and not n["depth"]]
        hits, n = sum(row[0] for row in done), sum(row[1] for row in done)
        said = [
            f"{hits} of {n} executions succeeded" if n else _answers(tree["nodes"]),
            f"{tree['sampled']:,} tokens sampled",
        ]
        signs = [self.signs[sign][0] for sign in tree["signs"] if sign != "disagree"]
        self._console.print(Text("  " + " · ".join(said + signs), style="dim"))
        for name, key in (("context", "context"), ("task", "prompt"), ("oracle", "oracle_plan")):
            if tree.get(key) and (self._full or key != "context"):
                self._block(name, 2, tree[key], "dim")
        for node, depth, number in walk(tree["nodes"]):
            self._node(node, depth, number)
        self._console.print()

    def _node(self, node: Mapping[str, Any], depth: int, number: int) -> None:
        margin = 2 + 2 * depth
        if node.get("role") is None:
            self._block("seen", margin, node.get("text", ""), "dim")
            if node.get("images"):
                self._block("images", margin, " ".join(node["images"]), "dim")
            return
        word, style = VERDICTS.get(node["verdict"], ("", ""))
        line = Text(" " * margin).append(printable(f"{node['role']} {number}"), style="bold")
        if word:
            line.append("  [").append(word, style=style).append(
                f": {printable(node['reason'])}]" if node.get("reason") else "]"
            )
        if node.get("status") == "truncated":
            line.append("  cut off", style="yellow")
        hits, n = node.get("executions", (0, 0))
        facts = [f"{hits} of {n} succeeded" if n else "", *_numbers(node)]
        self._console.print(line.append(printable("  " + "  ".join(filter(None, facts))), style="dim"))
        self._block("", margin, node.get("text", ""))

    def _block(self, name: str, margin: int, text: str, style: str = "") -> None:
        """A text that may have many lines, all at the same margin."""
        cut = len(text) - HEAD - TAIL
        if cut > TAIL and not self._full:
            text = f"{text[:HEAD]}\n… {cut:,} more characters (--full shows them) …\n{text[-TAIL:]}"
        head = " " * margin + (f"{name:8}" if name else "  ")
        for line in printable(text.strip("\n"), keep="\n").split("\n"):
            self._console.print(Text(head, style="dim").append(line, style=style))
            head = " " * len(head)


def walk(nodes: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], int, int]]:
    """(node, depth, number) of all but the root, each before what lies under it. Depth and number are those
    of its branch: 0 for what hangs from the prompt, 1 for what hangs from one of these, all turns of
    it; the number, from 1, counts peers."""
    children: dict[Any, list[dict[str, Any]]] = {}
    for node in nodes:
        children.setdefault(node.get("parent"), []).append(node)
    todo = [child for root in children.get(None, []) for child in children.get(root["id"], [])][::-1]
    while todo:
        node = todo.pop()
        yield node, node["depth"], node["number"]
        todo += children.get(node["id"], [])[::-1]


def _numbers(node: Mapping[str, Any]) -> list[str]:
    parts = " ".join(f"{name} {value:.3g}" for name, value in (node.get("reward_parts") or {}).items())
    reward, credit, policy = node.get("reward"), node.get("advantage"), node.get("policy")
    return [
        f"reward {reward:.3g}" if reward is not None else "not rewarded",
        f"({parts})" if parts else "",
        f"advantage {credit:+.3f}" if credit is not None else "",
        f"{node.get('tokens') or 0:,} tokens",
        f"{policy}@{node.get('version', 0)}" if policy else "",
    ]
