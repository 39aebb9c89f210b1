"""A stage that distils: the training problems of a task family, their worked solutions summarised to plans, and the family told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Protocol

from forethought.distill import files, rules
from forethought.distill.cache import Cached
from forethought.distill.endpoint import Endpoint
from forethought.distill.endpoint_spec import EndpointSpec
from forethought.distill.filter import FilterSpec
from forethought.distill.pipeline import distill
from forethought.distill.policy import Policy
from forethought.distill.records import Guided, Item, Provenance, Summariser
from forethought.errors import RecipeError, UserError
from forethought.recipe.schema import DistillSpec
from forethought.rollout import Rollouts
from forethought.tasks.base import Worked


class Guidable(Protocol):
    """A task family whose training problems can be given plans."""

    def worked(self) -> list[Worked]:
        """Every training problem that has a worked solution."""

    def guide(self, plans: Mapping[str, tuple[str, str]]) -> None:
        """Task id -> (plan, chain): from now on these are the problems that imitation shows."""


def check_distill(where: str, spec: DistillSpec, domain: object) -> None:
    """RecipeError, with the address of the value, for what cannot work; before a model is loaded."""
    if not hasattr(domain, "guide"):
        raise RecipeError(f"{where}.kind", f"{domain.name} shows plans of its own, so there is nothing to distil; take the stage out")
    if spec.problems < 0:
        raise RecipeError(f"{where}.distill.problems", f"must be at least 0, found {spec.problems}")
    if spec.plan_tokens < 1:
        raise RecipeError(f"{where}.distill.plan_tokens", f"must be at least 1, found {spec.plan_tokens}")
    if spec.endpoint and spec.summariser != "endpoint":
        raise RecipeError(f"{where}.distill.endpoint", f'is not read with summariser = "{spec.summariser}"; take it out')
    try:
        FilterSpec(most_chars=spec.most_chars, most_numbers=spec.most_numbers)
    except UserError as error:
        raise RecipeError(f"{where}.distill", str(error)) from error
    if spec.summariser == "endpoint":
        _endpoint(f"{where}.distill.endpoint", spec).key()


def guide(spec: DistillSpec, rollouts: Rollouts, policies: Mapping[str, str], model: str, folder: Path,
          tell: Callable[[str], None] = lambda text: None) -> tuple[list[Guided], Provenance]:
    """The data set in `folder`, made if it is not there, and given to the domain. What was paid for is kept in `folder`'s cache, so an
    interrupted stage pays nothing twice. UserError where nothing is left to show."""
    domain = rollouts.domain
    if (folder / files.PROVENANCE).is_file():
        rows, provenance = files.read(folder)
    else:
        items = [Item(**asdict(worked)) for worked in domain.worked()[: spec.problems or None]]
        if not items:
            raise UserError(f"no training problem of {domain.name} has a worked solution to distil a plan from")
        with Cached(_summariser(spec, rollouts, policies, model), folder / "cache.jsonl") as summariser:
            rows, provenance = distill(items, summariser, FilterSpec(most_chars=spec.most_chars, most_numbers=spec.most_numbers), tell=tell)
        files.write(folder, rows, provenance, "jsonl")
    if not rows:
        dropped = ", ".join(f"{reason} {n}" for reason, n in provenance.drops.items())
        raise UserError(f"all {provenance.items} plans were dropped ({dropped}); examples stand in {folder / files.PROVENANCE}")
    domain.guide({row.id: (row.plan, row.chain) for row in rows})
    return rows, provenance


def _summariser(spec: DistillSpec, rollouts: Rollouts, policies: Mapping[str, str], model: str) -> Summariser:
    if spec.summariser == "rules":
        return rules.gsm8k()
    if spec.summariser == "policy":
        return Policy(rollouts.engine, model or "small", policy=policies["plan"], max_tokens=spec.plan_tokens)
    return Endpoint(_endpoint("distill.endpoint", spec))


def _endpoint(where: str, spec: DistillSpec) -> EndpointSpec:
    known = [f.name for f in fields(EndpointSpec)]
    for key in spec.endpoint:
        if key not in known:
            raise RecipeError(f"{where}.{key}", f"unknown setting of an endpoint (known: {', '.join(known)})")
    try:
        return EndpointSpec(**spec.endpoint)
    except (TypeError, UserError) as error:
        raise RecipeError(where, str(error).removeprefix("EndpointSpec.__init__() ")) from error
