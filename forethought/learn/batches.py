"""From demonstrations and rewarded trees to segments: what is shared is stored once, what trains carries its
targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any

from forethought.core.types import Advantages, Batch, Node, Segment, Task, Tree
from forethought.workflows.rollout import Rollouts


def demonstration_segments(
    rollouts: Rollouts,
    tasks: Sequence[Task],
    loss_roles: Sequence[set[str]] | None,
    stream: str = "sft",
    failed: list[int] | None = None,
) -> list[Segment]:
    """Context -> prompt -> plan -> act (-> observation -> act ...) of each task; tasks with the same context
    share it. The tokens of a task's `loss_roles` (None: of all roles) go into `stream`. Tasks that the family
    cannot draw or show are left out, their places added to `failed`."""
    segments: list[Segment] = []
    contexts: dict[str, int] = {}
    with rollouts.guard.watch():
        shown = [rollouts.turns(task) for task in tasks]
    for i, (task, roles) in enumerate(zip(tasks, loss_roles or repeat(None, len(tasks)), strict=True)):
        if not shown[i]:
            if failed is not None:
                failed.append(i)
            continue
        above = _context(segments, contexts, rollouts, task)
        prompt = _own_prompt(rollouts, task)
        above = _add(segments, Segment(parent=above, token_ids=prompt))
        for turn, ids in shown[i]:
            trains = turn.role is not None and (roles is None or turn.role in roles)
            loss: dict[str, Any] = {"stream": stream, "weight": (1.0,) * len(ids)} if trains else {}
            above = _add(segments, Segment(parent=above, token_ids=ids, role=turn.role, **loss))
    return segments


def tree_segments(
    rollouts: Rollouts,
    trees: Sequence[Tree],
    advantages: Sequence[Advantages],
    norm: str,
    places: list[Mapping[int, int]] | None = None,
) -> list[Segment]:
    """Every node that has tokens, once (an overlong turn has none). With `norm` "sequences" each turn has a
    total weight of 1, otherwise each token weighs 1. The turns of a branch form one sequence. `places` is
    given, of each tree, node -> the segment with which its path ends."""
    segments: list[Segment] = []
    contexts: dict[str, int] = {}
    sequences = 0
    for tree, given in zip(trees, advantages, strict=True):
        at: dict[int, int] = {}
        if places is not None:
            places.append(at)
        if not any(node.token_ids for node in tree.nodes):
            continue  # of a task that could not be drawn
        numbers = {n.id: i for i, b in enumerate(tree.branches().values(), sequences) for n in b.nodes}
        sequences += len(tree.nodes)
        for node in tree.nodes:
            if node.parent is None:
                above = _context(segments, contexts, rollouts, tree.task)
                shared = sum(len(ids) for _, ids in rollouts.words.shared(tree.task)) if above >= 0 else 0
                at[node.id] = _add(segments, Segment(parent=above, token_ids=node.token_ids[shared:]))
            elif not node.token_ids:
                at[node.id] = at[node.parent]
            else:
                at[node.id] = _add(
                    segments,
                    _trained(node, at[node.parent], given.get(node.id, ()), norm, numbers[node.id]),
                )
    return segments


def _trained(node: Node, parent: int, advantage: tuple[float, ...], norm: str, sequence: int) -> Segment:
    if not advantage:
        return Segment(parent=parent, token_ids=node.token_ids, role=node.role)
    weight = 1.0 / len(advantage) if norm == "sequences" else 1.0
    return Segment(
        parent=parent,
        token_ids=node.token_ids,
        role=node.role,
        stream="pg",
        weight=(weight,) * len(advantage),
        advantage=advantage,
        old_logprobs=node.logprobs,
        sequence=sequence,
    )


def for_policy(segments: Sequence[Segment], policy: str, policies: Mapping[str, str]) -> Batch:
    """The same forest with targets only where `policy` speaks; other roles' tokens are context."""
    return Batch(
        policy=policy,
        segments=tuple(
            s if s.stream is None or policies[s.role or ""] == policy else _context_only(s) for s in segments
        ),
    )


def for_role(batch: Batch, role: str) -> Batch:
    """The same forest with targets only on one role's tokens."""
    return replace(batch, segments=tuple(s if s.role == role else _context_only(s) for s in batch.segments))


def joined(first: Sequence[Segment], second: Sequence[Segment]) -> list[Segment]:
    """Two forests as one."""
    return [*first, *(replace(s, parent=s.parent + len(first)) if s.parent >= 0 else s for s in second)]


def targets(segments: Sequence[Segment], stream: str) -> float:
    """Total weight of a stream's tokens."""
    return sum(sum(s.weight) for s in segments if s.stream == stream)


def _context_only(s: Segment) -> Segment:
    return replace(s, stream=None, weight=(), advantage=(), old_logprobs=(), ref_logprobs=(), sequence=-1)


def _own_prompt(rollouts: Rollouts, task: Task) -> tuple[int, ...]:
    """What no other task shares of a prompt."""
    words = rollouts.words
    if task.context:
        return words.prompt_ids(task)
    return words.root_ids(task)[sum(len(ids) for _, ids in words.shared(task)) :]


def _context(segments: list[Segment], contexts: dict[str, int], rollouts: Rollouts, task: Task) -> int:
    """The segment under which the task's own prompt lies, -1 for none; what tasks share is there once."""
    above = -1
    for key, ids in rollouts.words.shared(task):
        if key not in contexts:
            contexts[key] = _add(segments, Segment(parent=above, token_ids=ids))
        above = contexts[key]
    return above


def _add(segments: list[Segment], segment: Segment) -> int:
    segments.append(segment)
    return len(segments) - 1
