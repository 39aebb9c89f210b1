"""How many tokens a stage samples, reads and trains on: an upper bound from the budgets, and what is expected
of it.

Prompts and plans are shared: a prompt is computed once for all its plans, a plan once for all its executions,
in sampling and in training.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace

from forethought.core.errors import UserError, unknown
from forethought.recipe.schema import Recipe, StageSpec
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
    """Tokens of a prompt, and the most of a plan and of all acting turns of one execution."""

    prompt: int
    plan: int
    act: int
    vocabulary: int = 0  # words of the domain; 0: free text

    @property
    def path(self) -> int:
        return self.prompt + self.plan + self.act


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
    plans: int = 0  # sequences decoded
    acts: int = 0


def lengths_of(recipe: Recipe, assume: Assumptions) -> Lengths:
    """From the task's options for free text; from a look at the tasks where they are generated."""
    if recipe.task.name == "math":
        budgets = BUDGETS | dict(recipe.task.options.get("budgets", {}))
        return Lengths(prompt=assume.prompt, plan=budgets["plan"], act=budgets["act"])
    domain, each = families.build(recipe.task, limits=recipe.limits), WORD if recipe.model.path else 1
    drawn = domain.family(random.Random(0), [max(domain.levels)] * 8, "train")
    prompt = max(len(f"{task.context} {task.prompt}".split()) for task in drawn)
    return Lengths(
        prompt=prompt * each,
        plan=domain.budgets["plan"] * each,
        act=domain.turns * domain.budgets["act"] * each,
        vocabulary=len(dict.fromkeys(domain.vocabulary())),
    )


def of_stage(stage: StageSpec, lengths: Lengths) -> Lengths:
    """With the stage's own budgets."""
    return replace(
        lengths, plan=stage.tree.plan_tokens or lengths.plan, act=stage.tree.act_tokens or lengths.act
    )


def work_of(stage: StageSpec, recipe: Recipe, lengths: Lengths, assume: Assumptions) -> Work:
    """Of one step; of one problem where the stage distils with a model at hand."""
    used, n = assume.used, of_stage(stage, lengths)
    if stage.kind == "distill":
        if stage.distill.summariser not in ("policy", "model"):
            return Work(steps=0)
        chain, plan = used * n.act, stage.distill.plan_tokens
        return Work(
            steps=problems_of(stage, recipe),
            prefilled=n.prompt + chain,
            sampled=used * plan,
            sampled_most=plan,
            plans=1,
        )
    if stage.kind == "imitate":
        said = n.plan + n.act
        return Work(
            steps=stage.steps,
            trained=stage.batch * (n.prompt + used * said),
            trained_most=stage.batch * (n.prompt + said),
        )
    plans, acts = (0 if stage.tree.oracle_plan else stage.tree.plans), stage.tree.acts
    branches = plans or 1
    said = plans * n.plan + branches * acts * n.act
    shown = 0 if plans else used * n.plan  # the oracle's plan is read, not sampled
    # executions begin from the prompt anew
    read = n.prompt + (n.prompt + branches * used * n.plan if acts else 0)
    return Work(
        steps=stage.steps,
        prefilled=stage.batch * read,
        sampled=stage.batch * used * said,
        sampled_most=stage.batch * said,
        trained=stage.updates * stage.batch * (n.prompt + shown + used * said),
        trained_most=stage.updates * stage.batch * (n.prompt + n.plan * (not plans) + said),
        plans=stage.batch * plans,
        acts=stage.batch * branches * acts,
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
    """Of all evaluations: every task once with its own plan; where plans are known (generated tasks), acting
    under the oracle's too."""
    levels = len(recipe.eval.levels or recipe.task.levels) or 1
    each, acts = recipe.eval.tasks * levels, 2 if lengths.vocabulary else 1
    said, read = lengths.plan + acts * lengths.act, 2 * lengths.prompt + acts * assume.used * lengths.plan
    return Work(
        steps=evaluations(recipe),
        prefilled=each * read,
        sampled=each * assume.used * said,
        sampled_most=each * said,
        plans=each,
        acts=each * acts,
    )
