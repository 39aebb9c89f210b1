"""A tree in the making: nodes are added as they come, and numbered in one order in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from forethought.core.types import NO_EVIDENCE, Completion, Node, Status, Task, Tree, Undrawn
from forethought.envs.guard import Boundary, Fault
from forethought.envs.guarded import Guarded
from forethought.workflows.words import Words

ENDS: frozenset[Status] = NO_EVIDENCE | {"refused"}
"""After a turn that ended so, nothing follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A turn that no policy wrote: the oracle's, or one from elsewhere. `fault`: why there is none, or ""."""

    text: str
    ids: tuple[int, ...]
    fault: str = ""
    then: Given | None = None  # what is given after it, in the role that speaks next


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """What all trees of one growth have in common."""

    words: Words
    taskset: Guarded
    workflow: str  # its name
    policies: Mapping[str, str]  # role -> who speaks for it
    counts: Mapping[str, int]  # role -> branches at a fork
    budgets: Mapping[str, int]  # role -> most tokens of a turn
    options: Mapping[str, Any]  # of the workflow
    settings: Mapping[str, Any]  # of sampling, as a request has them
    noise: bool
    turns: int  # most answers of the environment in one episode
    max_turns: int  # of one path
    max_tokens: int  # sampled on one path; 0: no limit but the model's context
    oracle: Callable[[Task, str, int], Given]  # (task, role, number of the turn) -> what the oracle says
    oracles: frozenset[str] = frozenset()  # roles that the oracle speaks, and no policy
    with_oracle: bool = False  # the oracle's first turn is the last branch under the prompt
    update: int | None = None  # number of the step whose update learns from the trees

    @property
    def leaves(self) -> int:
        """Episodes of one tree, where every turn is accepted and every role is asked once."""
        first, *rest = (1 if role in self.oracles else max(1, n) for role, n in self.counts.items())
        return (first + self.with_oracle) * prod(rest)


@dataclass(slots=True, kw_only=True)
class Draft:
    """A node that may still change."""

    parent: int | None
    role: str | None
    text: str
    token_ids: tuple[int, ...]
    branch: int
    status: Status = "given"
    reason: str = ""
    policy: str | None = None
    version: int = 0
    logprobs: tuple[float, ...] = ()
    reward_parts: dict[str, float] = field(default_factory=dict)
    images: tuple[str, ...] = ()  # names

    @property
    def accepted(self) -> bool:
        """Whether a branch may go on here: nothing was refused, cut off, overlong or failed."""
        return self.status in ("given", "finished")

    @property
    def ended(self) -> bool:
        """Nothing may follow it."""
        return self.status in ENDS


class Growing:
    """`broken`: why nothing can grow on it, or "". `given`: turns that stand where the first role would be
    sampled under the prompt."""

    def __init__(self, play: Play, task: Task, seed: int, given: Sequence[Given] = ()):
        self.play, self.task, self.seed, self.given = play, task, seed, given
        self.broken = task.state.reason if isinstance(task.state, Undrawn) else ""
        self.nodes: list[Draft] = []
        self.asked: set[int] = set()  # nodes under which something was sampled: their tokens are settled
        self.first = ""  # what the environment shows before anything is said, at the end of the prompt
        self.opened: dict[int, str] = {}  # node -> the role whose opening it ends with
        self.driver: Any = None  # brings its requests to the sampler
        self.misuses = 0  # times that the workflow went on where a branch had ended
        words = play.words
        ids: tuple[int, ...] = ()
        try:
            if not self.broken:
                ids = words.encoded("task", "family", words.root_ids, task)
        except Fault as fault:
            self.broken = fault.reason
        # of a task that could not be drawn there is nothing to open
        text = words.root_text(task) if not isinstance(task.state, Undrawn) else ""
        self.add(parent=None, role=None, text=text, token_ids=ids, branch=0)
        self.opened[0] = words.roles[0]

    def add(self, *, branch: int | None = None, **fields: Any) -> int:
        """A new node's number; without `branch` it begins one."""
        at = len(self.nodes)
        self.nodes.append(Draft(branch=at if branch is None else branch, **fields))
        return at

    def read(
        self, parent: int, branch: int, text: str, token_ids: tuple[int, ...], images: tuple[str, ...]
    ) -> int:
        """The node of an observation."""
        self.nodes.append(
            Draft(parent=parent, role=None, text=text, token_ids=token_ids, branch=branch, images=images)
        )
        return len(self.nodes) - 1

    def open(self, at: int, branch: int, role: str) -> int:
        """The node under which `role` is to speak: `at`, with the opening of the role's turn at its end.

        A prompt or an observation takes the opening into itself while nothing has been said under it; else it
        is a node of its own.
        """
        node, words, current = self.nodes[at], self.play.words, self.opened.get(at)
        opening, settled = words.opening(role), at in self.asked
        self.asked.add(at)
        if current == role:
            return at
        if at == 0 and not settled:
            self._prompt(role)
        elif node.role is None and not settled and current is None:
            if opening:
                node.token_ids += words.piece(opening)
                node.text = words.after(node.text, opening)
        else:
            said = node.token_ids if node.role else ()
            ids = words.observation(None, said) + (words.piece(opening) if opening else ())
            if not ids:
                return at
            at = self.add(parent=at, role=None, text=opening, token_ids=ids, branch=branch)
            self.asked.add(at)
        self.opened[at] = role
        return at

    def show_first(
        self, text: str, images: tuple[str, ...], boundary: Boundary = "environment", name: str = "reset"
    ) -> None:
        """Something is shown before anything was said: it stands at the end of the prompt."""
        if self.play.words.spaced:  # else the prompt's own encoding takes any text
            self.play.words.encoded(boundary, name, self.play.words.piece, text)
        self.first = self.play.words.observed(self.first, text)
        self._prompt(self.opened[0])
        self.nodes[0].images += images

    def _prompt(self, role: str) -> None:
        words, first = self.play.words, self.first
        root_ids = lambda task: words.root_ids(task, role, first)  # noqa: E731
        self.nodes[0].token_ids = words.encoded("task", "family", root_ids, self.task)
        self.nodes[0].text = words.root_text(self.task, role, first)

    def say(self, parent: int, branch: int | None, role: str, out: Completion, before: int) -> int:
        """The node of a sampled turn, with `before` tokens above it."""
        words, reason = self.play.words, ""
        if out.status == "overlong":
            reason = (
                f"{before:,} tokens before it leave no room in the model's context of "
                f"{words.engine.context:,}"
            )
        at = len(self.nodes)
        self.nodes.append(
            Draft(
                parent=parent,
                role=role,
                text=words.said(role, out.token_ids, out.status == "finished"),
                token_ids=out.token_ids,
                branch=at if branch is None else branch,
                status=out.status,
                reason=reason,
                policy=self.play.policies[role],
                version=out.version,
                logprobs=out.logprobs,
            )
        )
        return at

    def lose(self, reason: str) -> None:
        """The workflow broke: what had not come to an end has failed."""
        parents = {node.parent for node in self.nodes}
        for at in range(len(self.nodes)):
            if at in parents or self.nodes[at].ended:
                continue
            if self.nodes[at].role is None:
                self.empty(at, self.play.words.roles[0], reason)
            elif not self.nodes[at].reward_parts:
                self.nodes[at].status, self.nodes[at].reason = "failed", reason

    def empty(self, parent: int, role: str, reason: str, policy: str | None = None) -> int:
        """A turn that failed before it was said."""
        branch = self.nodes[parent].branch if parent else None
        return self.add(
            parent=parent,
            role=role,
            text="",
            token_ids=(),
            branch=branch,
            status="failed",
            reason=reason,
            policy=policy,
        )

    def tree(self) -> Tree:
        """Numbered round by round, whatever came first: all first turns, then all second ones, each with what
        was observed after it."""
        children: list[list[int]] = [[] for _ in self.nodes]
        for at, node in enumerate(self.nodes):
            if node.parent is not None:
                children[node.parent].append(at)
        order, turns = [], [0]
        while turns:
            later: list[int] = []
            for at in turns:
                chain = [at]  # a turn, and the observations that follow it
                for link in chain:
                    for child in children[link]:
                        (chain if self.nodes[child].role is None else later).append(child)
                order += chain
            turns = later
        number = [0] * len(order)
        for i, at in enumerate(order):
            number[at] = i
        return Tree(task=self.task, nodes=tuple([self._node(at, number) for at in order]))

    def _node(self, at: int, number: Sequence[int]) -> Node:
        draft = self.nodes[at]
        return Node(
            id=number[at],
            parent=None if draft.parent is None else number[draft.parent],
            role=draft.role,
            text=draft.text,
            token_ids=draft.token_ids,
            status=draft.status,
            reason=draft.reason,
            branch=number[draft.branch],
            policy=draft.policy,
            version=draft.version,
            logprobs=draft.logprobs,
            reward_parts=draft.reward_parts,
            images=draft.images,
        )
