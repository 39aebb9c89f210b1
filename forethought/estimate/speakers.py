"""Who speaks when: the policy of each role while a run goes on, as its stages give the roles weights of their
own."""

from __future__ import annotations

from collections.abc import Iterator

from forethought.recipe.layout import BASE, policy_of, weights_of
from forethought.recipe.schema import Recipe, TrainingSpec
from forethought.recipe.speaking import roles_of

Speakers = dict[str, str]  # role -> the policy that speaks it


def at_first(recipe: Recipe) -> Speakers:
    """Before the first stage: the base, in every role."""
    return dict.fromkeys(roles_of(recipe), BASE)


def by_stage(recipe: Recipe) -> Iterator[tuple[TrainingSpec, Speakers]]:
    """Every stage that trains, with who speaks in it. A role that names the policy of one that trains speaks
    through it too."""
    now = at_first(recipe)
    for stage in recipe.stage:
        if not isinstance(stage, TrainingSpec):
            continue
        if weights_of(recipe, stage) != "base":
            for policy in {policy_of(recipe, role) for role in stage.roles}:
                now |= {role: policy for role in now if policy_of(recipe, role) == policy}
        yield stage, dict(now)
