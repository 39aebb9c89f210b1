"""A tree in the making, and the executions of its plans: where what breaks behind the boundary becomes a node
that failed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from forethought.core.types import Completion, Node, Task, Undrawn
from forethought.envs.guard import Fault
from forethought.tasks.base import Domain, Split

Rollouts = Any  # `rollout.Rollouts`, which imports this


def drawn(domain: Domain, rng: random.Random, levels: list[int], split: Split) -> list[Task]:
    """Tasks of a family, one per level; where it breaks, `Undrawn` ones."""
    try:
        return domain.family(rng, levels, split)
    except Fault as fault:
        return undrawn(domain, levels, fault)


def undrawn(domain: Domain, levels: Sequence[int], fault: Fault) -> list[Task]:
    return [
        Task(
            id="undrawn", domain=domain.name, level=level, context="", prompt="", state=Undrawn(fault.reason)
        )
        for level in levels
    ]


class Execution:
    """One execution of a plan in the making."""

    def __init__(self, rollouts: Rollouts, tree: Growing, plan: Node, seed: int, noise: bool):
        self.rollouts, self.tree, self.plan, self.texts = rollouts, tree, plan, []
        make = partial(rollouts.domain.environment, tree.task, noise)
        self.episode = rollouts.domain.episodes.episode(make, tree.task, seed)
        self.broken: Fault | None = None

    async def begin(self) -> None:
        try:
            await self.episode.reset()
        except Fault as fault:
            self.broken = fault

    async def step(self, node: Node, out: Completion, last: bool) -> Node | None:
        """What the environment answers to a turn: the node of its observation, or None where the execution is
        over and judged. Raises Fault."""
        if self.broken:
            raise self.broken
        rollouts, tree = self.rollouts, self.tree
        self.texts.append(node.text)
        outcome = await self.episode.step(node.text)
        if outcome.done or last:
            follows = rollouts.domain.follows(tree.task, self.plan.text, list(self.texts)).score
            parts = {
                **outcome.parts,
                "format": float(out.status == "finished"),
                "outcome": float(outcome.success),
                "follows": follows,
            }
            if outcome.timed_out:
                parts["timed_out"] = 1.0
            tree.nodes[node.id] = replace(node, reward_parts=parts, reason=outcome.reason)
            return None
        if outcome.parts:
            tree.nodes[node.id] = replace(node, reward_parts=outcome.parts)
        said = outcome.observation or ""
        return tree.add(
            parent=node.id,
            role=None,
            text=said,
            images=self.rollouts.domain.episodes.images.keep(outcome.images),
            token_ids=rollouts.encoded("environment", "step", rollouts.piece, said),
        )


class Growing:
    """A tree in the making. `broken`: why nothing can grow on it, or ""."""

    def __init__(self, rollouts: Rollouts, task: Task, seed: int):
        self.rollouts, self.task, self.seed, ids = rollouts, task, seed, ()
        self.broken = task.state.reason if isinstance(task.state, Undrawn) else ""
        try:
            ids = (
                rollouts.root_ids(task)
                if self.broken
                else rollouts.encoded("task", "family", rollouts.root_ids, task)
            )
        except Fault as fault:
            self.broken = fault.reason
        self.nodes = [
            Node(id=0, parent=None, role=None, text=f"{task.context} {task.prompt}".strip(), token_ids=ids)
        ]

    def add(self, **fields) -> Node:
        node = Node(id=len(self.nodes), **fields)
        self.nodes.append(node)
        return node

    def failed(self, node: Node, fault: Fault) -> None:
        """What answers a node or judges it broke: it has no reward, and nothing follows it."""
        self.nodes[node.id] = replace(node, status="failed", reason=fault.reason)

    def said(self, parent: int, role: str, policy: str, out: Completion) -> Node:
        engine, ids = self.rollouts.engine, out.token_ids
        # the model's own end is no text
        shown = ids[:-1] if not self.rollouts.spaced and engine.ends.issuperset(ids[-1:]) else ids
        text, stop = engine.decode(shown).strip(), self.rollouts.domain.stops.get(role)
        if stop and (at := text.rfind(stop)) >= 0 and out.status == "finished":
            # the last token may go on behind the stop that it ends: `><` in `</plan><think>`
            text = text[: at + len(stop)]
        reason = ""
        if out.status == "overlong":
            reason = (
                f"{len(self.ids_to(self.nodes[parent])):,} tokens before it leave no room in the "
                f"model's context of {engine.context:,}"
            )
        return self.add(
            parent=parent,
            role=role,
            text=text,
            token_ids=ids,
            status=out.status,
            reason=reason,
            policy=policy,
            version=out.version,
            logprobs=out.logprobs,
        )

    def ids_to(self, node: Node) -> tuple[int, ...]:
        ids: tuple[int, ...] = ()
        at: int | None = node.id
        while at is not None:
            ids = self.nodes[at].token_ids + ids
            at = self.nodes[at].parent
        return ids
