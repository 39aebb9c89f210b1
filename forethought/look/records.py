"""What a model said to each task, with the verdicts: responses without their token ids, so that many samples
of many problems fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from forethought.core.films import Film
from forethought.core.grounding import Pair
from forethought.core.scores import success_of
from forethought.core.types import Node, Status, Task, Tree
from forethought.envs.guard import Fault
from forethought.measure.costs import Cost, cost
from forethought.measure.evaluate import success, valid
from forethought.recipe.roles import counts_of
from forethought.recipe.schema import TreeSpec
from forethought.tasks.base import Taskset, Watched, face
from forethought.workflows.rollout import Rollouts

Tell = Callable[[int, int], None]
"""(tasks done, tasks in all): called as the work goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A turn of a role."""

    role: str
    text: str
    status: Status
    reason: str
    tokens: int
    valid: float | None  # the verdict of the exact executor; None where nobody judged it


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What was said on one path, by whatever roles, and what came of it. The last role has no turn where one
    before it was refused or had no room."""

    turns: tuple[Said, ...]
    success: float
    reason: str
    vote: str | None  # what it votes for when samples vote; None: for nothing
    failed: bool = False  # the family, its environment, grader or parser broke: it is in no measure
    cost: Cost | None = None

    @property
    def refused(self) -> bool:
        """Whether the interface refused one of its turns."""
        return any(turn.status == "refused" for turn in self.turns)

    @property
    def overlong(self) -> bool:
        """A turn had no room in the model's context."""
        return any(turn.status == "overlong" for turn in self.turns)

    @property
    def valid(self) -> float:
        """Of the role that speaks first."""
        return self.turns[0].valid or 0.0

    def of(self, role: str) -> list[Said]:
        """The turns of a role for which there was room."""
        return [turn for turn in self.turns if turn.role == role and turn.status != "overlong"]

    def texts(self, role: str) -> tuple[str, ...]:
        """What `role` said, turn by turn."""
        return tuple(turn.text for turn in self.of(role))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All responses to a task. `alone`: role -> its score where the oracle speaks the roles before it (None:
    something failed); empty where that was not tried. Where the taskset can be watched: `steps` of the last
    role under the oracle's turns, and a `film` of the first response."""

    task: Task
    responses: tuple[Response, ...]
    alone: Mapping[str, float | None]
    steps: tuple[Pair, ...] = ()
    film: Film | None = None

    def judged(self) -> list[Response]:
        """Without those that failed."""
        return [response for response in self.responses if not response.failed]


def play(
    rollouts: Rollouts,
    tasks: Sequence[Task],
    policies: Mapping[str, str],
    tree: TreeSpec,
    *,
    seed: int,
    noise: bool,
    oracle: bool,
    rows: int,
    tell: Tell = lambda done, n: None,
) -> Iterator[Record]:
    """One record per task, in order: as many responses as `tree` samples, and where `oracle` one of each role
    after the first under the oracle's turns.

    About `rows` sequences are sampled at a time; the numbers do not depend on it.
    """
    roles = rollouts.roles
    oracle = oracle and len(roles) > 1
    if watched := face(rollouts.taskset, Watched):
        watched.watch(tasks)
    size = max(1, rows // next(iter(counts_of(tree, roles).values())))
    for start in range(0, len(tasks), size):
        part = tasks[start : start + size]

        def grown(tree: TreeSpec, with_oracle: bool = False, part=part, start=start) -> list[Tree]:
            return rollouts.grow(
                part, tree, policies, seed, noise=noise, with_oracle=with_oracle, first=start
            )

        trees = grown(tree, oracle)
        told = {
            role: grown(replace(tree, counts=dict.fromkeys(roles, 1), oracle=tuple(roles[:i]), tokens={}))
            for i, role in enumerate(roles)
            if i > 1 and oracle
        }
        for i, whole in enumerate(trees):
            own = whole.children(0)
            alone: dict[str, float | None] = {}
            steps: list[Pair] = []
            if oracle:
                given = whole.below(own.pop())  # the oracle's is the last one
                under = {roles[1]: given, **{role: found[i] for role, found in told.items()}}
                alone = {role: _score(tree, role, roles[-1]) for role, tree in under.items()}
                steps = watched.groundings(under[roles[-1]]) if watched else []
            responses = tuple(response(rollouts.taskset, whole, first, roles[-1]) for first in own)
            film = watched.film(whole.below(own[0])) if watched and own else None
            yield Record(task=whole.task, responses=responses, alone=alone, steps=tuple(steps), film=film)
        tell(start + len(part), len(tasks))


def _score(tree: Tree, role: str, last: str) -> float | None:
    return success(tree) if role == last else valid(tree, role)


def response(taskset: Taskset, tree: Tree, first: Node, acts_as: str) -> Response:
    """What was said on one first branch of a tree, with one turn at every place."""
    branch = tree.below(first)
    nodes = [node for node in branch.nodes if node.role is not None]
    turns = tuple(map(_said, nodes))
    acted = [node for node in nodes if node.role == acts_as]
    broken = next((node.reason for node in nodes if node.status == "failed"), None)
    good = max((success_of(node.reward_parts) or 0.0 for node in acted), default=0.0)
    vote, texts = None, [turn.text for turn in turns if turn.role == acts_as and turn.status != "overlong"]
    if texts and broken is None and all(turn.status != "overlong" for turn in turns):
        try:
            # a family whose answers can be written in several ways says what one votes for
            vote = taskset.vote(tree.task, texts, bool(good))
        except Fault as fault:
            broken = fault.reason
    return Response(
        turns=turns,
        success=good,
        vote=vote,
        reason=broken if broken is not None else acted[-1].reason if acted else _why_not(turns[-1]),
        failed=broken is not None,
        cost=cost(branch, acts_as),
    )


def _said(node: Node) -> Said:
    return Said(
        role=node.role or "",
        text=node.text,
        status=node.status,
        reason=node.reason,
        tokens=len(node.token_ids),
        valid=node.reward_parts.get("valid"),
    )


def _why_not(last: Said) -> str:
    stopped = {"truncated": "ran out of its tokens", "overlong": "had no room"}
    return f"the {last.role} {stopped.get(last.status, 'was refused')}, nothing was executed"
