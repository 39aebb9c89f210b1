"""The account of a recipe: shape, tokens, operations, memory and time by stage, and what to change where it
does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from forethought.core.errors import RecipeError, UserError
from forethought.estimate.hardware import Hardware
from forethought.estimate.memory import Memory, Numbers, chunk_logits, memory_of, micro_batch, numbers_of
from forethought.estimate.shapes import Shape, from_scratch, shape_of
from forethought.estimate.speed import Speed, speed_of
from forethought.estimate.timed import Timed, timed
from forethought.estimate.tokens import (
    Assumptions,
    evaluation_work,
    lengths_of,
    work_of,
)
from forethought.recipe.check import check
from forethought.recipe.layout import has_planner, weights_of
from forethought.recipe.schema import Recipe, StageSpec, TrainingSpec
from forethought.recipe.work import Lengths, Work

SPECIAL = 3  # tokens that a model from scratch has beside the words of its taskset


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """`work`: of one step; the other numbers of the whole stage. Seconds are None where the hardware's
    numbers are not known."""

    name: str
    work: Work
    flops: float
    sampling: float | None
    training: float | None
    memory: Memory | None  # None: nothing trains


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """Changes to the recipe, on top of those before, and the peak with them."""

    sets: tuple[str, ...]
    peak: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    recipe: Recipe
    hardware: Hardware
    assume: Assumptions
    shape: Shape | None  # None: not known, `why` says what to do
    why: str = ""
    lengths: Lengths
    stages: tuple[StageCost, ...] = ()
    evaluations: StageCost | None = None
    number: Numbers | None = None
    remedies: tuple[Remedy, ...] = ()
    speed: Speed | None = None  # what this machine was timed at; None: `hardware` has its peak numbers
    timed: Timed | None = None

    @property
    def held(self) -> float:
        """Bytes that a process holds beside the model and its work, where that was measured."""
        return self.speed.held if self.speed else 0.0

    @property
    def peak(self) -> float:
        """Bytes: the largest peak of any stage whose memory is known, else 0, where turns fill their
        budgets: it has to fit."""
        return self.held + max((s.memory.peak for s in self.stages if s.memory), default=0.0)

    @property
    def seconds(self) -> dict[str, float]:
        """By part; {} where the hardware's numbers are not known."""
        if self.timed:
            return self.timed.parts
        if not self.hardware.flops or self.evaluations is None:
            return {}
        return {
            "sampling": sum(stage.sampling or 0.0 for stage in self.stages),
            "training": sum(stage.training or 0.0 for stage in self.stages),
            "evaluation": self.evaluations.sampling or 0.0,
        }

    @property
    def bytes(self) -> dict[str, float]:
        """By part, and the peak, at the highest of any stage: where this machine was timed with turns as long
        as demonstrations, else with turns that fill their budgets. {} where nothing trains or the shape is
        not known."""
        known = self.timed.memories if self.timed else [one.memory for one in self.stages]
        memories = [memory for memory in known if memory]
        if not memories:
            return {}
        return {
            "sampling": max(
                sum(memory.stays.values()) + sum(memory.sampling.values()) for memory in memories
            ),
            "training": max(
                sum(memory.stays.values()) + sum(memory.training.values()) for memory in memories
            ),
            "peak": max(memory.peak for memory in memories),
        }

    @property
    def room(self) -> float:
        """Bytes of device memory that the recipe may use."""
        return self.assume.free * self.hardware.memory


def estimate(
    recipe: Recipe,
    hardware: Hardware,
    assume: Assumptions = Assumptions(),
    timing: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Account:
    """RecipeError where the task cannot be built; a model whose shape is not known leaves tokens alone.
    `timing`: where `hardware` is this machine, its speed at this model is timed (once), and seconds follow
    from that; `tell` hears where that takes a while."""
    lengths = lengths_of(recipe, assume)
    try:
        shape = _shape(recipe, lengths)
    except RecipeError:
        raise
    except UserError as error:
        return Account(
            recipe=recipe,
            hardware=hardware,
            assume=assume,
            shape=None,
            why=str(error),
            lengths=lengths,
            stages=tuple(
                _tokens_alone(stage, work_of(stage, recipe, lengths, assume)) for stage in recipe.stage
            ),
        )
    number = numbers_of(recipe, hardware)
    stages = tuple(_cost(recipe, stage, shape, lengths, hardware, assume) for stage in recipe.stage)
    account = Account(
        recipe=recipe,
        hardware=hardware,
        assume=assume,
        shape=shape,
        lengths=lengths,
        stages=stages,
        number=number,
        evaluations=_evaluations(recipe, shape, lengths, hardware, assume),
    )
    if timing and (speed := speed_of(shape, recipe, hardware, tell=tell)):
        account = replace(account, speed=speed, timed=timed(recipe, shape, speed, assume, hardware))
    if not hardware.memory or account.peak <= account.room:
        return account
    return replace(account, remedies=tuple(_remedies(recipe, shape, lengths, hardware, assume)))


def _shape(recipe: Recipe, lengths: Lengths) -> Shape:
    if has_planner(recipe):
        raise UserError(
            "the planner is another model than the actor here; estimate each alone, with --set layout=shared"
        )
    if recipe.model.path:
        return shape_of(recipe.model.path)
    # In free text the words are made from the problems, which are not read here: at most as many as asked
    # for.
    return from_scratch(
        recipe.model, lengths.vocabulary + SPECIAL if lengths.vocabulary else recipe.model.vocabulary
    )


def _tokens_alone(stage: StageSpec, work: Work) -> StageCost:
    return StageCost(name=stage.title, work=work, flops=0, sampling=None, training=None, memory=None)


# --- operations and time ---


def forward_flops(shape: Shape, tokens: float, context: float) -> float:
    """2 for each parameter a token is multiplied with, and 4 x heads x head size for each token it attends
    to, in each layer."""
    return tokens * (2 * shape.multiplied + 4 * shape.layers * shape.heads * shape.head * context)


def training_flops(
    recipe: Recipe, stage: TrainingSpec, shape: Shape, tokens: float, context: float, head_again: bool
) -> float:
    """Forward, and twice that backward (6 N a token); an adapter needs no gradients of the base's matrices (4
    N). Gradient checkpointing computes the layers once more, the losses their head where `head_again`; the KL
    to a reference is one more forward."""
    forward, head = forward_flops(shape, tokens, context), tokens * 2 * shape.vocabulary * shape.width
    again = (forward - head if recipe.engine.gradient_checkpointing is True else 0) + (
        head if head_again else 0
    )
    backward = 1 if weights_of(recipe, stage) == "adapter" else 2
    return (1 + backward + bool(stage.ref_kl)) * forward + again


def computes_head_again(
    recipe: Recipe, stage: TrainingSpec, shape: Shape, lengths: Lengths, work: Work, hardware: Hardware
) -> bool:
    """Whether the backward pass needs every token's logits a second time: where the head trains, and the
    tokens are more than one chunk."""
    trains = weights_of(recipe, stage) != "adapter" or "lm_head" in recipe.adapter.targets
    return trains and micro_batch(recipe, lengths, work) * shape.vocabulary > chunk_logits(hardware)


def _cost(
    recipe: Recipe, stage: StageSpec, shape: Shape, lengths: Lengths, hardware: Hardware, assume: Assumptions
) -> StageCost:
    n = stage.lengths(lengths)
    work = work_of(stage, recipe, lengths, assume)
    # a token sees its path so far: half of what is said, on average
    context = n.prompt + assume.used * sum(n.said.values()) / 2
    trained = 0.0
    if isinstance(stage, TrainingSpec) and work.trained:
        again = computes_head_again(recipe, stage, shape, n, work, hardware)
        trained = training_flops(recipe, stage, shape, work.trained, context, again)
    sampled = forward_flops(shape, work.prefilled + work.sampled, context)
    memory = None
    if isinstance(stage, TrainingSpec):
        memory = memory_of(recipe, stage, shape, lengths, work, hardware)
    return StageCost(
        name=stage.title,
        work=work,
        flops=work.steps * (trained + sampled),
        sampling=_sampling_seconds(recipe, work, shape, n, hardware, assume),
        training=work.steps * trained / (hardware.flops * assume.mfu) if hardware.flops else None,
        memory=memory,
    )


def _sampling_seconds(
    recipe: Recipe, work: Work, shape: Shape, n: Lengths, hardware: Hardware, assume: Assumptions
) -> float | None:
    """A wave decodes until its longest row ends (counted as its whole budget); each step reads all weights
    and the live rows' cache."""
    if not hardware.bandwidth:
        return None
    number, rows = numbers_of(recipe, hardware), recipe.engine.rows
    weights = shape.parameters * number.computed
    total = work.steps * forward_flops(shape, work.prefilled, n.prompt) / (hardware.flops * assume.mfu)
    for wave in work.waves.values():
        sequences = wave.rows * work.steps
        if not sequences:
            continue
        # rows of one context stay together
        together = min(sequences, max(1, rows // wave.group) * wave.group)
        # rows that are done leave
        cache = together * assume.used * (wave.above + wave.budget / 2) * shape.kv_bytes(number.computed)
        launches, beside = 0.0, 0.0
        if hardware.kind == "cuda":
            launches, beside = assume.layer_ms / 1000 * shape.layers, assume.step_ms / 1000
        products = together * 2.0 * shape.multiplied / (hardware.flops * assume.mfu)
        read = (weights + cache) / (hardware.bandwidth * assume.read)
        total += sequences / together * wave.budget * (max(read, products, launches) + beside)
    return total


def _evaluations(
    recipe: Recipe, shape: Shape, lengths: Lengths, hardware: Hardware, assume: Assumptions
) -> StageCost:
    work = evaluation_work(recipe, lengths, assume)
    read = lengths.prompt + sum(list(lengths.said.values())[:-1])  # before the last role speaks
    return StageCost(
        name="evaluations",
        work=work,
        memory=None,
        training=0.0,
        flops=work.steps * forward_flops(shape, work.prefilled + work.sampled, read),
        sampling=_sampling_seconds(recipe, work, shape, lengths, hardware, assume),
    )


# --- what to change ---


Change = Callable[[Recipe], Recipe]


def _remedies(
    recipe: Recipe, shape: Shape, lengths: Lengths, hardware: Hardware, assume: Assumptions
) -> list[Remedy]:
    """Settings that take less memory, in the order of what they cost, each on top of those before, until it
    fits."""
    found: list[Remedy] = []
    sets: tuple[str, ...] = ()
    peak = peak_of(recipe, shape, lengths, hardware, assume)
    for said, change in _trials(lengths):
        changed = change(recipe)
        try:
            check(changed)
        except RecipeError:  # another setting stands against it
            continue
        less = peak_of(changed, shape, lengths, hardware, assume)
        if less >= peak:
            continue
        key = said.partition("=")[0]
        recipe, peak, sets = changed, less, (*(s for s in sets if s.partition("=")[0] != key), said)
        found.append(Remedy(sets=sets, peak=peak))
        if peak <= assume.free * hardware.memory:
            break
    return found


def _trials(lengths: Lengths) -> list[tuple[str, Change]]:
    """(a setting as --set takes it, the recipe with it). Rows are tried again at the end, where sampling may
    have become the peak."""
    rows = [(f"engine.sample_rows={n}", _engine("sample_rows", n)) for n in (64, 16)]
    return [
        (
            "engine.gradient_checkpointing=true",
            lambda r: replace(r, engine=replace(r.engine, gradient_checkpointing=True)),
        ),
        ("probes.kl_start=false", lambda r: replace(r, probes=replace(r.probes, kl_start=False))),
        *rows,
        (f"engine.pack_tokens={lengths.path}", _engine("pack_tokens", lengths.path)),
        (
            "layout=adapters",
            lambda r: replace(r, layout="adapters", stage=tuple(map(_auto, r.stage))),
        ),
        *rows,
    ]


def _auto(stage: StageSpec) -> StageSpec:
    return replace(stage, weights="auto") if isinstance(stage, TrainingSpec) else stage


def _engine(key: str, most: int) -> Change:
    """At most so many; one that has less keeps it."""
    of = {"pack_tokens": lambda engine: engine.tokens, "sample_rows": lambda engine: engine.rows}[key]
    return lambda r: replace(r, engine=replace(r.engine, **{key: min(most, of(r.engine))}))


def peak_of(recipe: Recipe, shape: Shape, lengths: Lengths, hardware: Hardware, assume: Assumptions) -> float:
    """Of all stages."""
    return max(
        memory_of(recipe, stage, shape, lengths, work_of(stage, recipe, lengths, assume), hardware).peak
        for stage in recipe.stage
        if isinstance(stage, TrainingSpec)
    )
