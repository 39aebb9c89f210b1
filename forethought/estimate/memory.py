"""What lies on the device: what stays for a stage, and what each phase of a step adds to it. Bytes."""

from __future__ import annotations

from dataclasses import dataclass

from forethought.estimate.hardware import Hardware
from forethought.estimate.reuse import left
from forethought.estimate.shapes import Shape
from forethought.recipe.layout import compares, policy_of, trains_whole, weights_of
from forethought.recipe.schema import Recipe, TrainingSpec
from forethought.recipe.work import Lengths, Work

CHUNK_LOGITS = 1 << 24  # most logits that the losses hold at once,
GPU_CHUNKS = 4  # and as many times more on a GPU
NF4 = 0.53  # bytes of a weight in four bits, its share of the scales among them
MERGE_BELOW = 200_000_000  # parameters below which an adapter samples from a second copy of its base

ACTIVATIONS = "activations of a micro-batch"

Parts = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """`stays` lies there all the time; each of the phases comes on top of it, one at a time."""

    stays: Parts
    sampling: Parts
    training: Parts

    @property
    def peak(self) -> float:
        """Bytes: what stays, and the larger of sampling and training; the two are never there at once."""
        return sum(self.stays.values()) + max(sum(self.sampling.values()), sum(self.training.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Bytes of one number: as it is stored, as it is computed with."""

    stored: float
    computed: int


def numbers_of(recipe: Recipe, hardware: Hardware) -> Numbers:
    """Bytes of a stored and of a computed number under this recipe on this hardware."""
    bf16 = recipe.engine.precision == "bf16" or (
        recipe.engine.precision == "auto" and hardware.kind == "cuda"
    )
    if recipe.engine.weights != "auto":
        stored = {"fp32": 4, "bf16": 2, "nf4": NF4}[recipe.engine.weights]
    else:
        stored = 4 if trains_whole(recipe) or hardware.kind == "cpu" else 2
    return Numbers(stored=stored, computed=2 if bf16 else 4)


def memory_of(
    recipe: Recipe, stage: TrainingSpec, shape: Shape, lengths: Lengths, work: Work, hardware: Hardware
) -> Memory:
    """Of a stage that trains; lengths at their upper bound: it has to fit."""
    number, lengths = numbers_of(recipe, hardware), stage.lengths(lengths)
    kept = left(recipe, stage, shape, lengths, work, hardware)
    training = _training(recipe, stage, shape, lengths, work, number, hardware)
    if kept:  # one layer of it at a time is laid out, but where an update computes its own
        layer = training[ACTIVATIONS] / shape.layers
        training[ACTIVATIONS] = max(training[ACTIVATIONS], kept + layer)
    return Memory(
        stays=_stays(recipe, stage, shape, number),
        sampling=_sampling(recipe, stage, shape, lengths, work, number)
        | ({"activations left for the update": kept} if kept else {}),
        training=training,
    )


def _stays(recipe: Recipe, stage: TrainingSpec, shape: Shape, number: Numbers) -> Parts:
    n, own, adapter = (
        shape.parameters,
        weights_of(recipe, stage),
        shape.adapter(recipe.adapter.rank, recipe.adapter.targets),
    )
    roles = _policies(recipe, stage)
    trained = {"base": n, "model": roles * n, "adapter": roles * adapter}[own]
    # one moment on the matrices inside the layers, two on the rest
    muon = stage.optim.name == "muon" and own != "adapter"
    inside = (
        shape.layers * sum(i * o for i, o in shape.linear.values()) * (roles if own == "model" else 1)
        if muon
        else 0
    )
    parts = {"weights": float(n * number.stored), "moments of the optimizer": 8.0 * trained - 4.0 * inside}
    if own == "model":
        parts["models of the roles"] = float(roles * n * number.stored)
    if own == "adapter":
        parts["adapters"] = 4.0 * trained
        if n < MERGE_BELOW:
            parts["copies that sample, adapter added in"] = float(roles * n * number.stored)
    references = (1 if compares(recipe, stage) else 0) + (1 if recipe.probes.kl_base else 0)
    if references:
        parts["frozen copies to compare with"] = references * (
            4.0 * adapter * roles if own == "adapter" else trained * number.stored
        )
    return parts


def _policies(recipe: Recipe, stage: TrainingSpec) -> int:
    """How many a stage trains: roles may share one."""
    return len({policy_of(recipe, role) for role in stage.roles})


def _cast(shape: Shape, number: Numbers) -> Parts:
    """Under autocast, fp32 weights are kept once more as they are computed with."""
    return (
        {"weights in bf16, to compute with": 2.0 * shape.parameters}
        if number.computed < number.stored
        else {}
    )


def _sampling(
    recipe: Recipe, stage: TrainingSpec, shape: Shape, lengths: Lengths, work: Work, number: Numbers
) -> Parts:
    """The largest of the roles' waves: each context once, and for each of its rows a room
    of the whole budget."""
    if not work.waves:
        return {}
    waves = []
    for wave in work.waves.values():
        contexts = min(wave.rows // wave.group, max(1, recipe.engine.rows // wave.group))
        held = contexts * wave.most_above + contexts * wave.group * wave.budget
        waves.append(
            (held * shape.kv_bytes(number.computed), contexts * wave.group, contexts * wave.most_above)
        )
    kv, live, read = max(waves)
    # fp32 and, to draw, fp64
    return {
        **_cast(shape, number),
        "KV cache": float(kv),
        "logits of a step": 28.0 * live * shape.vocabulary,
        "reading the contexts": float(read * number.computed * (2 * shape.mlp + 4 * shape.width)),
    }


def micro_batch(recipe: Recipe, lengths: Lengths, work: Work) -> float:
    """Most tokens of one forward and backward: a path is never split."""
    return min(max(recipe.engine.tokens, lengths.path), work.trained_most)


def chunk_logits(hardware: Hardware) -> int:
    """Most logits of a chunk of tokens."""
    return CHUNK_LOGITS * (GPU_CHUNKS if hardware.kind == "cuda" else 1)


def _training(
    recipe: Recipe,
    stage: TrainingSpec,
    shape: Shape,
    lengths: Lengths,
    work: Work,
    number: Numbers,
    hardware: Hardware,
) -> Parts:
    own = weights_of(recipe, stage)
    policies = _policies(recipe, stage)
    trained = {"base": 1, "model": policies}.get(own, 0) * shape.parameters
    if own == "adapter":
        trained = policies * shape.adapter(recipe.adapter.rank, recipe.adapter.targets)
    tokens = micro_batch(recipe, lengths, work)
    layer = activations(shape, number)
    between = shape.width * max(number.stored, 2)
    kept = (
        shape.layers * between + layer
        if recipe.engine.gradient_checkpointing is True
        else shape.layers * layer
    )
    # which query sees which key, in fp32 and as it is computed with
    blocks = tokens * lengths.path * (4 + number.computed)
    cast = _cast(shape, number)
    if cast and recipe.engine.gradient_checkpointing is True:  # a layer or the head at a time
        cast = {name: 2.0 * max(shape.layer, shape.vocabulary * shape.width) for name in cast}
    return {
        **cast,
        "gradients": 4.0 * trained,
        ACTIVATIONS: float(tokens * kept),
        "attention of a layer": float(blocks),
        # a chunk's logits and their gradient; that of the head's weights, which is made beside the one
        # that it is added to
        "logits of a chunk": 8.0 * min(chunk_logits(hardware), tokens * shape.vocabulary),
        **({} if own == "adapter" else {"gradient of the head": 4.0 * shape.vocabulary * shape.width}),
    }


def activations(shape: Shape, number: Numbers) -> int:
    """Bytes that one layer keeps of one token for its backward pass, without the attention matrix (counted as
    in arXiv 2205.05198, for a gated MLP): inputs of its matrices, queries, keys and values before and after
    turning, gate and up with their product, two norms."""
    q, kv = shape.heads * shape.head, shape.kv_heads * shape.head
    return number.computed * (4 * shape.mlp + 4 * q + 4 * kv + 2 * shape.width) + 4 * 4 * shape.width
