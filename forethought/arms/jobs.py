"""From declared arms to jobs: one run each, and the first stages that several arms of a seed share, trained
once.

Two runs share their first k stages when everything that these stages read is equal. The layout may differ as
long as they train nothing but the base: an adapter or a model of one role exists only from the first stage
that trains it.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from forethought.arms.declare import Recipes
from forethought.recipe.convert import to_dict
from forethought.recipe.layout import weights_of
from forethought.recipe.roles import trains_all
from forethought.recipe.schema import Recipe, TrainingSpec
from forethought.recipe.speaking import roles_of

UNREAD = ("name", "about")  # no stage reads these


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run. `after`: the run directory that it continues from, whose `shared` stages are its first; None:
    from scratch."""

    name: str  # group/arm, or prefix/<identity>
    recipe: Recipe
    out: Path
    after: Path | None = None
    shared: int = 0

    @property
    def seed(self) -> int:
        """Seed of the job's recipe."""
        return self.recipe.seed

    @property
    def is_prefix(self) -> bool:
        """Whether it trains first stages that several arms share; such a job is not a row of the results."""
        return self.name.startswith("prefix/")

    def work(self) -> int:
        """Rollouts and demonstrations that its own stages ask for: a scale for which job is longer, no
        measure of time."""
        roles = roles_of(self.recipe)
        own = [s for s in self.recipe.stage[self.shared :] if isinstance(s, TrainingSpec)]
        return sum(s.steps * s.batch * s.per_task(roles) for s in own)


def jobs_of(recipes: Recipes, out: Path) -> list[Job]:
    """The jobs of all runs below `out`. A shared prefix comes before what continues from it."""
    chains = {
        key: [identity(recipe, k) for k in range(1, len(recipe.stage))] for key, recipe in recipes.items()
    }
    kept = _worth_sharing(chains.values())
    prefixes: dict[str, Job] = {}
    runs = []
    for key, recipe in recipes.items():
        group, arm, seed = key
        after, shared = None, 0
        for k, name in enumerate(chains[key], start=1):
            if name not in kept:
                continue
            if name not in prefixes:
                first = replace(recipe, stage=recipe.stage[:k])
                prefixes[name] = Job(
                    name=f"prefix/{name}",
                    recipe=first,
                    out=out / "prefix" / f"{name}-seed-{seed}",
                    after=after,
                    shared=shared,
                )
            after, shared = prefixes[name].out, k
        runs.append(
            Job(
                name=f"{group}/{arm}",
                recipe=recipe,
                out=out / group / arm / f"seed-{seed}",
                after=after,
                shared=shared,
            )
        )
    return sorted(prefixes.values(), key=lambda job: len(job.recipe.stage)) + runs


def identity(recipe: Recipe, k: int) -> str:
    """A digest of all that the first `k` stages of a run read. Equal digests: equal weights after these
    stages."""
    data = {key: value for key, value in to_dict(recipe).items() if key not in UNREAD}
    data["stage"] = data["stage"][:k]
    if all(weights_of(recipe, stage) == "base" and trains_all(recipe, stage) for stage in recipe.stage[:k]):
        data["layout"] = "any"
    return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=6).hexdigest()


def _worth_sharing(chains: Iterable[list[str]]) -> set[str]:
    """Prefixes of at least two runs, without those that all their runs leave together (the longer one then
    does)."""
    # prefix -> what comes next: a longer prefix, or a run of its own
    followers: dict[str, set[str]] = defaultdict(set)
    for number, chain in enumerate(chains):
        for name, following in zip(chain, [*chain[1:], f"run {number}"], strict=True):
            followers[name].add(following)
    return {name for name, following in followers.items() if len(following) > 1}
