"""How many tokens a stage samples, reads and trains on: an upper bound from the budgets, and what is expected
of it.

What several continue is shared: a prompt is computed once for all its plans, a plan once for all its executions,
in sampling and in training.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from forethought.core.errors import UserError, unknown
from forethought.recipe.roles import counts_of
from forethought.recipe.schema import Recipe, StageSpec
from forethought.recipe.speaking import roles_of
from forethought.tasks import families
from forethought.tasks.math.options import BUDGETS

WORD = 3  # tokens of a subword tokenizer for one word of a compact domain


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What no recipe says. Shares are between 0 and 1."""

    prompt: int = 300  # tokens of a problem in free text with its system message and template
    used: float = 0.4  # share of its budget that a turn takes on average; 1: the upper bound
    # model FLOP utilisation of training: operations counted here per second / the hardware's peak
    mfu: float = 0.35
    read: float = 0.6  # share of the memory bandwidth that decoding reaches
    # milliseconds that one layer of one decoding step costs at least on a GPU (PyTorch starting its kernels)
    layer_ms: float = 1.0
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of a prompt, and the most that each role says on one path, all its turns together."""

    prompt: int
    said: Mapping[str, int]
    vocabulary: int = 0  # words of the domain; 0: free text

    @property
    def path(self) -> int:
        """Most tokens of a path from prompt to leaf."""
        return self.prompt + sum(self.said.values())

    def above(self, role: str) -> list[str]:
        """The roles that speak before this one."""
        roles = list(self.said)
        return roles[: roles.index(role)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """The turns of one role, which are decoded together."""

    rows: int  # sequences, of one step (an evaluation: of one of its tasks)
    group: int  # of them on one context
    above: float  # tokens of that context, as expected
    most_above: int
    budget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One step of a stage (an evaluation: one of its tasks). Every number of tokens as expected; `most`:
    times the share that is used."""

    steps: int
    prefilled: float = 0  # read before sampling
    sampled: float = 0
    trained: float = 0  # forward and backward, context among them
    sampled_most: float = 0
    trained_most: float = 0
    waves: Mapping[str, Wave] = field(default_factory=dict)  # role -> its turns


def lengths_of(recipe: Recipe, assume: Assumptions) -> Lengths:
    """From the task's options for free text; from a look at the tasks where they are generated."""
    roles = roles_of(recipe)
    own = {role: row.budget for role, row in recipe.roles.items() if row.budget}
    if recipe.task.name == "math":
        budgets = BUDGETS | dict(recipe.task.options.get("budgets", {})) | own
        return Lengths(prompt=assume.prompt, said={role: budgets.get(role, 0) for role in roles})
    domain, each = families.build(recipe.task, limits=recipe.limits), WORD if recipe.model.path else 1
    drawn = domain.family(random.Random(0), [max(domain.levels)] * 8, "train")
    opening = domain.opening(roles[0])
    prompt = max(len(f"{task.context} {task.prompt} {opening}".split()) for task in drawn)
    most = {role: domain.budget(role) * each for role in roles} | own
    return Lengths(
        prompt=prompt * each,
        said={role: most[role] * (domain.turns if role == roles[-1] else 1) for role in roles},
        vocabulary=len(dict.fromkeys(domain.vocabulary())),
    )


def of_stage(stage: StageSpec, lengths: Lengths) -> Lengths:
    """With the stage's own budgets."""
    said = {role: stage.tree.tokens.get(role) or most for role, most in lengths.said.items()}
    return replace(lengths, said=said)


def work_of(stage: StageSpec, recipe: Recipe, lengths: Lengths, assume: Assumptions) -> Work:
    """Of one step; of one problem where the stage distils with a model at hand."""
    used, n = assume.used, of_stage(stage, lengths)
    first, last = list(n.said)[0], list(n.said)[-1]
    if stage.kind == "distill":
        if stage.distill.summariser not in ("policy", "model"):
            return Work(steps=0)
        chain, plan = used * n.said[last], stage.distill.plan_tokens
        wave = Wave(rows=1, group=1, above=n.prompt + chain, most_above=n.prompt + n.said[last], budget=plan)
        return Work(
            steps=problems_of(stage, recipe),
            prefilled=wave.above,
            sampled=used * plan,
            sampled_most=plan,
            waves={first: wave},
        )
    if stage.kind == "imitate":
        return Work(
            steps=stage.steps,
            trained=stage.batch * (n.prompt + used * sum(n.said.values())),
            trained_most=stage.batch * n.path,
        )
    return _of_trees(stage, n, assume)


def _of_trees(stage: StageSpec, n: Lengths, assume: Assumptions) -> Work:
    tree, used, each = stage.tree, assume.used, {}
    counts, rows, read = counts_of(tree, list(n.said)), 1, 0.0
    waves: dict[str, Wave] = {}
    for role, count in counts.items():
        if not count:
            break  # the tree ends before it
        read += n.prompt + sum(each[above] * used * n.said[above] for above in n.above(role))
        group = 1 if role in tree.oracle else count
        each[role] = rows = rows * group
        if role not in tree.oracle:
            waves[role] = wave_of(n, role, stage.batch * rows, group, used)
    said = sum(each[role] * n.said[role] for role in waves)
    shown = sum(
        n.said[role] for role in each if role not in waves
    )  # the oracle's turns are read, not sampled
    return Work(
        steps=stage.steps,
        prefilled=stage.batch * read,
        sampled=stage.batch * used * said,
        sampled_most=stage.batch * (1 + stage.dynamic_sampling) * said,
        trained=stage.updates * stage.batch * (n.prompt + used * (shown + said)),
        trained_most=stage.updates * stage.batch * (n.prompt + shown + said),
        waves=waves,
    )


def wave_of(n: Lengths, role: str, rows: int, group: int, used: float) -> Wave:
    """One sampler call for `role`: rows, group size, and tokens above (expected, and at most). `used`: share
    of a budget that turns are expected to fill."""
    most = sum(n.said[above] for above in n.above(role))
    return Wave(
        rows=rows, group=group, above=n.prompt + used * most, most_above=n.prompt + most, budget=n.said[role]
    )


def problems_of(stage: StageSpec, recipe: Recipe) -> int:
    """Problems that a stage distils; 0 where only the files know."""
    demos = recipe.task.options.get("demos")
    return stage.distill.problems or (demos.get("most", 0) if isinstance(demos, dict) else 0)


def evaluations(recipe: Recipe) -> int:
    """How often a run measures: at its start and each stage's end, and every `eval.every` steps between."""
    every = recipe.eval.every
    return 1 + sum(
        -(-stage.steps // every) if every else 1 for stage in recipe.stage if stage.kind != "distill"
    )


def evaluation_work(recipe: Recipe, lengths: Lengths, assume: Assumptions) -> Work:
    """Of all evaluations: every task once with its own turns; where the oracle's are known (generated tasks), each
    role but the first under those too."""
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
