"""What a model said to each task, with the verdicts: responses without their token ids, so that many samples
of many problems fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from forethought.core.types import Node, Task, Tree
from forethought.envs.guard import Fault
from forethought.recipe.roles import counts_of
from forethought.recipe.schema import TreeSpec
from forethought.tasks.base import Taskset
from forethought.workflows.rollout import Rollouts

Tell = Callable[[int, int], None]
"""(tasks done, tasks in all): called as the work goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A plan and its execution. `acts` is empty and `act_tokens` 0 where the plan was refused or had no
    room."""

    plan: str
    plan_reason: str
    refused: bool
    valid: float  # the domain's verdict on the plan
    acts: tuple[str, ...]
    success: float
    reason: str
    vote: str | None  # what it votes for when samples vote; None: for nothing
    plan_tokens: int
    act_tokens: int
    plan_truncated: bool
    act_truncated: bool
    overlong: bool = False  # a turn had no room in the model's context
    failed: bool = False  # the family, its environment, grader or parser broke: it is in no measure


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All responses to a task, and its success under the oracle's plan (None where that was not tried, or
    failed)."""

    task: Task
    responses: tuple[Response, ...]
    under_oracle: float | None = None
    oracle_failed: bool = False

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
    """One record per task, in order: as many responses as `tree` samples, and one under the oracle's plan where
    `oracle`.

    About `rows` sequences are sampled at a time; the numbers do not depend on it.
    """
    size = max(1, rows // next(iter(counts_of(tree, tuple(policies)).values())))
    for start in range(0, len(tasks), size):
        part = tasks[start : start + size]
        for grown in rollouts.grow(part, tree, policies, seed, noise=noise, beside=oracle, first=start):
            yield _record(rollouts.domain, grown, oracle, rollouts.roles[-1])
        tell(start + len(part), len(tasks))


def response(domain: Taskset, tree: Tree, plan: Node, acts_as: str) -> Response:
    """What follows one first branch of a tree, a plan (with one execution), by the role that acts."""
    turns = _below(tree, plan)
    said = tuple(node for node in turns if node.role == acts_as)
    success = max((node.reward_parts.get("outcome", 0.0) for node in said), default=0.0)
    stopped = {"truncated": "ran out of its tokens", "overlong": "had no room"}.get(
        plan.status, "was refused"
    )
    acts = tuple(node.text for node in said if node.status != "overlong")
    overlong = any(node.status == "overlong" for node in (plan, *said))
    broken = next((node for node in (plan, *said) if node.status == "failed"), None)
    vote = None
    try:
        vote = None if overlong or broken else _vote(domain, tree.task, acts, bool(success))
    except Fault as fault:
        broken = replace(plan, reason=fault.reason)
    return Response(
        plan=plan.text,
        plan_reason=plan.reason,
        refused=plan.status == "refused",
        valid=plan.reward_parts.get("valid", 0.0),
        acts=acts,
        success=success,
        vote=vote,
        plan_tokens=len(plan.token_ids),
        reason=broken.reason
        if broken
        else said[-1].reason
        if said
        else f"the plan {stopped}, nothing was executed",
        act_tokens=sum(len(node.token_ids) for node in said),
        plan_truncated=plan.status == "truncated",
        act_truncated=any(node.status == "truncated" for node in said),
        overlong=overlong,
        failed=broken is not None,
    )


def _record(domain: Taskset, tree: Tree, oracle: bool, acts_as: str) -> Record:
    plans = tree.children(0)
    given = response(domain, tree, plans.pop(), acts_as) if oracle else None  # the oracle's is the last one
    return Record(
        task=tree.task,
        responses=tuple(response(domain, tree, plan, acts_as) for plan in plans),
        under_oracle=given.success if given and not given.failed else None,
        oracle_failed=bool(given and given.failed),
    )


def _below(tree: Tree, plan: Node) -> list[Node]:
    inside, found = {plan.id}, []
    for node in tree.nodes:  # parents precede children
        if node.parent in inside:
            inside.add(node.id)
            found.append(node)
    return found


def _vote(domain: Taskset, task: Task, acts: tuple[str, ...], success: bool) -> str | None:
    """A family whose answers can be written in several ways says what one votes for (`vote`); elsewhere the
    acts themselves do."""
    if not acts:
        return None
    return domain.vote(task, acts, success)
