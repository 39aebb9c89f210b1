"""What a stage works with: everything that its steps read, in one record."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forethought.core.seeds import seed_of
from forethought.core.types import Task
from forethought.engines.base import Engine, Surgery, surgery_of
from forethought.grams.planning import Planning
from forethought.learn.curriculum import LevelSampler
from forethought.workflows.drawing import drawn
from forethought.workflows.rollout import Rollouts


@dataclass(slots=True)
class Setting:
    """`policies` maps every role, in the order of the workflow, to the policy that speaks for it; those of
    `spec.roles` train."""

    engine: Engine
    rollouts: Rollouts
    spec: Any  # a recipe.schema.TrainingSpec, whose own keys only the step of its kind reads
    policies: Mapping[str, str]
    curriculum: LevelSampler
    seed: int  # of the run and the stage; every step derives its own from it
    # policy -> frozen copy from the stage's start
    references: Mapping[str, str] = field(default_factory=dict)
    planning: Planning | None = None  # finds the planning tokens, where the credit names a list of grams
    # what credit keeps between steps; saved with the checkpoint
    remembered: dict = field(default_factory=dict)

    @property
    def surgery(self) -> Surgery:
        """The engine's optional face; a recipe that asks for it where the engine lacks it was refused."""
        return surgery_of(self.engine)

    @property
    def roles(self) -> tuple[str, ...]:
        """All of the workflow, in the order in which they first speak."""
        return tuple(self.policies)

    def trained(self) -> list[str]:
        """Names of the policies that this stage moves, sorted."""
        return sorted({self.policies[role] for role in self.spec.roles})

    def others(self) -> list[str]:
        """Roles that do not train but speak through weights that do: what interference can reach."""
        return [
            role
            for role in self.policies
            if role not in self.spec.roles and self.policies[role] in self.trained()
        ]

    def sharing(self) -> list[str]:
        """The roles that training can harm: those that do not train, else those that train in weights they
        share."""
        return self.others() or [
            role for role in self.spec.roles if len(self.speakers(self.policies[role])) > 1
        ]

    def partner(self, role: str) -> str:
        """The role whose weights `role` shared before it was isolated: one that trains, where there is
        another."""
        return next(other for other in (*self.spec.roles, *self.roles) if other != role)

    def speakers(self, policy: str) -> list[str]:
        """The roles that speak through a policy."""
        return [role for role in self.roles if self.policies[role] == policy]

    def rng(self, k: int, *names: object) -> random.Random:
        """The draws of step `k`, those of one purpose (`names`) apart from the others."""
        return random.Random(seed_of(self.seed, k, *names))

    def tasks(self, rng: random.Random, n: int, k: int) -> list[Task]:
        """`n` tasks of step `k`; those of a share stand on one context. Of a stage that imitates they are
        demonstrated."""
        shows, share = self.spec.learns_from == "demonstrations", self.spec.share
        levels = self.curriculum.draw(rng, n, k)

        def draw(some: list[int]) -> list[Task]:
            if shows:
                return self.rollouts.demonstrable(rng, some)
            return drawn(self.rollouts.taskset, rng, some, "train")

        return [t for i in range(0, len(levels), share) for t in draw(levels[i : i + share])]
