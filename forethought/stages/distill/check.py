"""What a stage that distils cannot do is said before a model is loaded or anything is paid for."""

from __future__ import annotations

from dataclasses import fields, replace
from importlib.util import find_spec
from typing import get_type_hints

from forethought.core.errors import RecipeError, UserError
from forethought.recipe.convert import to_record
from forethought.recipe.kinds.distill import Distill, DistillSpec
from forethought.recipe.schema import ModelSpec, Recipe
from forethought.stages.distill.endpoint_spec import EndpointSpec
from forethought.stages.distill.filter import FilterSpec
from forethought.tasks.base import Guidable, Taskset, face


def check_distill(where: str, spec: DistillSpec, taskset: Taskset, scratch: bool = False) -> None:
    """RecipeError, with the address of the value. `scratch`: the recipe's model is trained from nothing, so
    it knows the words of the task and no others."""
    if not face(taskset, Guidable):
        raise RecipeError(
            f"{where}.kind",
            f"{taskset.name} has no worked solutions to distil plans from; take the stage out",
        )
    where = f"{where}.distill"
    for key, least in (("problems", 0), ("plan_tokens", 1), ("tries", 1)):
        if getattr(spec, key) < least:
            raise RecipeError(f"{where}.{key}", f"must be at least {least}, found {getattr(spec, key)}")
    if taskset.drawn and not spec.problems:
        raise RecipeError(
            f"{where}.problems",
            f"{taskset.name} draws its tasks without end; say how many are to get plans, such as 1000",
        )
    if not 0 <= spec.solved <= 1:
        raise RecipeError(f"{where}.solved", f"a share from 0 to 1 is needed, found {spec.solved}")
    if spec.try_temperature < 0:
        raise RecipeError(f"{where}.try_temperature", f"must be at least 0, found {spec.try_temperature}")
    if spec.solver == "exact" and not taskset.drawn:
        raise RecipeError(
            f"{where}.solver", f'nothing executes a plan of {taskset.name} exactly; take "policy" or "none"'
        )
    try:
        FilterSpec(most_chars=spec.most_chars, most_numbers=spec.most_numbers)
    except UserError as error:
        raise RecipeError(where, str(error)) from error
    _check_summariser(where, spec, taskset, scratch)
    if spec.format == "parquet" and find_spec("datasets") is None:
        raise RecipeError(
            f"{where}.format",
            "Parquet files need datasets; install it with: pip install 'forethought[data]', or take "
            '"jsonl", which needs nothing',
        )


def _check_summariser(where: str, spec: DistillSpec, taskset: Taskset, scratch: bool) -> None:
    unread: tuple[tuple[str, str, object], ...] = (
        ("endpoint", "endpoint", {}),
        ("model", "model", ModelSpec(init="")),
    )
    for key, summariser, default in unread:
        if getattr(spec, key) != default and spec.summariser != summariser:
            raise RecipeError(
                f"{where}.{key}", f'is not read with summariser = "{spec.summariser}"; take it out'
            )
    if spec.summariser == "policy" and scratch and taskset.spaced:
        raise RecipeError(
            f"{where}.summariser",
            f"a model from scratch knows the words of {taskset.name} alone and cannot be asked for a "
            'plan; take "rules" or "model", or give --model PATH',
        )
    if spec.summariser == "model":
        if not spec.model.path:
            raise RecipeError(
                f"{where}.model",
                'give the model that summarises: model = { path = "a model on disk or on the hub" }',
            )
        if replace(spec.model, path="", init="", trust_remote_code=False) != ModelSpec(init=""):
            raise RecipeError(
                f"{where}.model", "has sizes, which a model from a path has of its own; give path alone"
            )
    if spec.summariser == "endpoint":
        endpoint_of(f"{where}.endpoint", spec).key()
        if find_spec("httpx") is None:
            raise RecipeError(
                f"{where}.summariser",
                "summaries from an endpoint need httpx; install it with: pip install 'forethought[distill]'",
            )


def check_endpoints(recipe: Recipe) -> None:
    """The endpoints of all stages, as far as a recipe shows them: no key is looked for. RecipeError as
    `endpoint_of` raises it."""
    for i, stage in enumerate(recipe.stage):
        if isinstance(stage, Distill) and stage.distill.summariser == "endpoint":
            endpoint_of(f"stage.{i}.distill.endpoint", stage.distill)


def endpoint_of(where: str, spec: DistillSpec) -> EndpointSpec:
    """The endpoint's settings. RecipeError for one that it does not have, or that cannot work."""
    known = [f.name for f in fields(EndpointSpec)]
    for key in spec.endpoint:
        if key not in known:
            raise RecipeError(f"{where}.{key}", f"unknown setting of an endpoint (known: {', '.join(known)})")
    kinds = get_type_hints(EndpointSpec)
    for key, value in spec.endpoint.items():
        # looked at alone: what is sent stays as it was written
        to_record(kinds[key], value, f"{where}.{key}")
    try:
        return EndpointSpec(**spec.endpoint)
    except (TypeError, ValueError, UserError) as error:  # ValueError: an address that is none
        raise RecipeError(where, str(error).removeprefix("EndpointSpec.__init__() ")) from error
