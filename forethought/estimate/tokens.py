"""How long prompts and turns are, and how many tokens a run's evaluations take. What a step of a stage takes
says its kind (`recipe/kinds/`)."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields

from forethought.core.errors import UserError, unknown
from forethought.recipe.kinds import mended_by_user
from forethought.recipe.options import defaults
from forethought.recipe.options.texts import Math
from forethought.recipe.schema import Recipe, StageSpec, TrainingSpec
from forethought.recipe.speaking import roles_of
from forethought.recipe.work import Lengths, Work, wave_of
from forethought.tasks import families

WORD = 3  # tokens of a subword tokenizer for one word of a compact taskset


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What no recipe says. Shares are between 0 and 1."""

    prompt: int = 300  # tokens of a problem in free text with its system message and template
    used: float = 0.4  # share of its budget that a turn takes on average; 1: the upper bound
    # model FLOP utilisation of training: operations counted here per second / the hardware's peak
    mfu: float = 0.35
    read: float = 0.6  # share of the memory bandwidth that decoding reaches
    # milliseconds that one layer of one decoding step costs at least on a GPU: the step is a captured graph,
    # whose kernels (about 12 a layer) begin 1.5 microseconds after each other
    layer_ms: float = 0.02
    # milliseconds of a step beside its layers: the choice of the tokens, and starting the graph
    step_ms: float = 0.3
    free: float = 0.92  # share of the memory that can be filled before fragmentation ends it

    @classmethod
    def said(cls, changes: list[str]) -> Assumptions:
        """From `used=0.6` and the like. UserError for an unknown name or a value that cannot be."""
        known, values = {f.name: type(f.default) for f in fields(cls)}, {}
        for change in changes:
            name, _, value = change.partition("=")
            if name not in known:
                raise UserError(f"--assume {change}: {unknown('assumption', name, known)}")
            try:
                values[name] = known[name](value)
            except ValueError:
                raise UserError(f"--assume {change}: {value!r} is not a number") from None
            if not 0 < values[name] <= (1 if name in ("used", "mfu", "read", "free") else 1e6):
                raise UserError(
                    f"--assume {change}: must be greater than "
                    f"0{' and at most 1' if known[name] is float else ''}"
                )
        return cls(**values)


def lengths_of(recipe: Recipe, assume: Assumptions) -> Lengths:
    """From the task's options for free text; from a look at the tasks where they are generated."""
    roles = roles_of(recipe)
    own = {role: row.budget for role, row in recipe.roles.items() if row.budget}
    if recipe.task.name == "math":
        budgets = defaults(Math)["budgets"] | dict(recipe.task.options.get("budgets", {})) | own
        return Lengths(prompt=assume.prompt, said={role: budgets.get(role, 0) for role in roles})
    taskset, each = families.build(recipe.task, limits=recipe.limits), WORD if recipe.model.path else 1
    drawn = taskset.family(random.Random(0), [max(taskset.levels)] * 8, "train")
    opening = taskset.opening(roles[0])
    prompt = max(len(f"{task.context} {task.prompt} {opening}".split()) for task in drawn)
    # free text says its budgets in tokens
    most = {role: taskset.budget(role) * (each if taskset.spaced else 1) for role in roles} | own
    return Lengths(
        prompt=prompt * each,
        said={role: most[role] * (taskset.turns if role == roles[-1] else 1) for role in roles},
        vocabulary=len(dict.fromkeys(taskset.vocabulary())),
    )


def work_of(stage: StageSpec, recipe: Recipe, lengths: Lengths, assume: Assumptions) -> Work:
    """Of one step; of one problem where the stage distils with a model at hand."""
    where = f"stage.{recipe.stage.index(stage)}" if stage in recipe.stage else "stage"
    with mended_by_user(stage, where):
        return stage.work(stage.lengths(lengths), assume.used, recipe)


def evaluations(recipe: Recipe) -> int:
    """How often a run measures: at its start, and in its stages."""
    return 1 + sum(evaluations_of(recipe, stage) for stage in recipe.stage if isinstance(stage, TrainingSpec))


def evaluations_of(recipe: Recipe, stage: TrainingSpec) -> int:
    """How often in a stage: every `eval.every` steps, and at its end."""
    every = recipe.eval.every
    return -(-stage.steps // every) if every else 1


def evaluation_work(recipe: Recipe, lengths: Lengths, assume: Assumptions) -> Work:
    """Of all evaluations: every task once with its own turns; where the oracle's are known (generated tasks),
    each role but the first under those too."""
    levels, used = len(recipe.eval.levels or recipe.task.levels) or 1, assume.used
    each, roles = recipe.eval.tasks * levels, list(lengths.said)
    times = {role: 2 if i and lengths.vocabulary else 1 for i, role in enumerate(roles)}
    said = sum(times[role] * most for role, most in lengths.said.items())
    read = sum(
        lengths.prompt + times[role] * used * sum(lengths.said[above] for above in lengths.above(role))
        for role in roles
    )
    return Work(
        steps=evaluations(recipe),
        prefilled=each * read,
        sampled=each * used * said,
        sampled_most=each * said,
        waves={role: wave_of(lengths, role, each * times[role], 1, used) for role in roles},
    )
