"""An account as lines of text, every assumption among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from forethought.estimate.account import Account, StageCost
from forethought.estimate.timed import SHOWN, SHOWN_TRAINED
from forethought.recipe.layout import weights_of
from forethought.recipe.schema import TrainingSpec

GB = 1e9


def lines(account: Account) -> list[str]:
    """For people; no line is longer than a wide terminal."""
    hardware = account.hardware
    size = (
        f"{hardware.memory / GB:.0f} GB"
        if hardware.memory
        else ("whose numbers are not known: name one with --hardware")
    )
    said = [f"estimate for {hardware.name}, {size}"]
    said += _model(account)
    for stage in account.stages:
        said += _stage(stage) if account.timed is None else _stage(replace_times(account, stage))
    if account.shape is None:
        return [*said, *_assumed(account)]
    return [*said, *_whole(account), *_parts_of(account), *_memory(account), *_assumed(account)]


def as_json(account: Account) -> dict[str, object]:
    """One object: seconds and bytes by part; `timed`: whether this machine's speed was measured. Where the
    model's shape is not known there are no seconds, and `why` says what to do."""
    return {
        "recipe": account.recipe.name,
        "model": account.recipe.model.path or "from scratch",
        "hardware": account.hardware.name,
        "timed": account.timed is not None,
        "parameters": account.shape.parameters if account.shape else None,
        "seconds": {**account.seconds, "total": sum(account.seconds.values())} if account.seconds else {},
        "bytes": account.bytes,
        "stages": [
            {"name": stage.name, "steps": stage.work.steps, "sampling": sampling, "training": training}
            for stage, (sampling, training) in zip(account.stages, _of_stages(account), strict=True)
        ],
        **({"why": account.why} if account.why else {}),
    }


def _of_stages(account: Account) -> list[tuple[float | None, float | None]]:
    if account.timed:
        return list(account.timed.stages)
    return [(stage.sampling, stage.training) for stage in account.stages]


def _parts_of(account: Account) -> list[str]:
    """The seconds by part, where this machine was timed."""
    if account.timed is None:
        return []
    parts = account.timed.parts.items()
    said = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts if seconds >= 0.5)
    whole = duration(account.timed.whole) if account.timed.whole >= 0.5 else "less than a second"
    return [f"by the speed that was timed here: {whole}{f' ({said})' if said else ''}"]


def _model(account: Account) -> list[str]:
    recipe, shape = account.recipe, account.shape
    if shape is None:
        return [f"model: {account.why}", "tokens alone:"]
    name = recipe.model.path or "from scratch"
    text = [
        f"model {name}: {count(shape.parameters)} parameters ({shape.parameters:,}), "
        f"KV cache {shape.kv_bytes(account.number.computed):,} bytes per token"
    ]
    if any(
        weights_of(recipe, stage) == "adapter" for stage in recipe.stage if isinstance(stage, TrainingSpec)
    ):
        own = shape.adapter(recipe.adapter.rank, recipe.adapter.targets)
        text.append(f"an adapter of rank {recipe.adapter.rank}: {count(own)} parameters ({own:,})")
    if shape.context and account.lengths.path > shape.context:
        text.append(
            f"does not fit: the prompt and all roles take {account.lengths.path:,} tokens, the model's "
            f"context is {shape.context:,}"
        )
    return text


def _stage(stage: StageCost) -> list[str]:
    work = stage.work
    if not work.steps:
        return [f"{stage.name}: nothing is sampled or trained here, or only the problem files know how much"]
    unit = "problems" if stage.memory is None and not work.trained else "steps"
    text = f"{stage.name}: {work.steps:,} {unit}; a {unit[:-1]} "
    parts = []
    if work.sampled:
        parts.append(
            f"samples {count(work.sampled)} tokens (at most {count(work.sampled_most)}), reads "
            f"{count(work.prefilled)}"
        )
    if work.trained:
        parts.append(f"trains on {count(work.trained)} (at most {count(work.trained_most)})")
    in_all = [
        f"{count(work.steps * n)} {what}"
        for n, what in ((work.sampled, "sampled"), (work.trained, "trained"))
        if n
    ]
    return [text + ", ".join(parts), f"  in all {', '.join(in_all)}{_costs(stage)}"]


def replace_times(account: Account, stage: StageCost) -> StageCost:
    """The stage with the seconds that were timed."""
    sampling, training = account.timed.stages[account.stages.index(stage)] if account.timed else (None, None)
    return replace(stage, sampling=sampling, training=training)


def _costs(stage: StageCost) -> str:
    if not stage.flops:
        return ""
    times = [
        f"{name} {duration(s)}"
        for name, s in (("sampling", stage.sampling), ("training", stage.training))
        if s
    ]
    return f"; {stage.flops:.2g} FLOPs{'; ' + ', '.join(times) if times else ''}"


def _whole(account: Account) -> list[str]:
    every, work = [*account.stages, account.evaluations], account.evaluations.work
    measured = (
        f"evaluations: {work.steps}, in all {count(work.steps * work.sampled)} "
        f"sampled{_costs(account.evaluations)}"
    )
    flops = sum(s.flops for s in every)
    if not account.hardware.flops:
        return [measured, f"the whole: {flops:.2g} FLOPs"]
    if account.timed:
        return [
            f"evaluations: {work.steps}, {account.timed.evaluation:.0f} s",
            f"the whole: {flops:.2g} FLOPs",
        ]
    seconds = sum((s.sampling or 0) + (s.training or 0) for s in every)
    return [measured, f"the whole: {flops:.2g} FLOPs, about {duration(seconds)} on {account.hardware.name}"]


def _memory(account: Account) -> list[str]:
    training = [s for s in account.stages if s.memory]
    if not training:
        return []
    top = max(training, key=lambda s: s.memory.peak)
    memory = top.memory
    text = [f"memory at its highest, in {top.name}: {memory.peak / GB:.1f} GB"]
    if account.timed:
        text[0] += f" where turns fill their budgets, {account.bytes['peak'] / GB:.1f} GB where they are as"
        text[0] += " long as demonstrations"
    text += [
        f"  {name}: {_parts(parts)}"
        for name, parts in (
            ("always", memory.stays),
            ("while sampling", memory.sampling),
            ("while training", memory.training),
        )
        if parts
    ]
    if not account.hardware.memory:
        return text
    if account.peak <= account.room:
        return [*text, f"fits: {account.room / GB:.0f} GB can be filled"]
    text.append(
        f"does not fit: {account.room / GB:.0f} GB can be filled. What takes less, each line all of "
        f"its settings together:"
    )
    for remedy in account.remedies:
        verdict = "fits" if remedy.peak <= account.room else "still too much"
        text.append(f"  {' '.join(f'--set {s}' for s in remedy.sets)}: {remedy.peak / GB:.1f} GB, {verdict}")
    if not account.remedies or account.remedies[-1].peak > account.room:
        text.append("  and then a smaller model, smaller budgets, or a larger machine")
    return text


def _parts(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {size / GB:.1f}" for name, size in parts.items() if size >= GB / 20) or "little"


def _assumed(account: Account) -> list[str]:
    a = account.assume
    text = [f"assumed (change with --assume NAME=VALUE): turns use {a.used:g} of their budget (used)"]
    if not account.lengths.vocabulary:
        text.append(f"  prompts have {a.prompt} tokens (prompt)")
    if account.shape is None:
        return text
    cuda = (
        f"; a captured step takes {a.layer_ms:g} ms a layer (layer_ms) and {a.step_ms:g} more (step_ms)"
        if account.hardware.kind == "cuda"
        else ""
    )
    if account.timed:
        return [
            *text,
            "  this machine was timed at layers of this model (FORETHOUGHT_CALIBRATE=0: its peak numbers "
            "instead);",
            "  turns go to the end of their budgets until a model has been shown "
            f"{SHOWN_TRAINED if account.recipe.model.path else SHOWN:,} demonstrations;",
            f"  every group has a gradient; {a.free:g} of the memory can be filled",
        ]
    return [
        *text,
        f"  training reaches {a.mfu:g} of the peak's operations (mfu), decoding {a.read:g} of the "
        f"bandwidth (read){cuda}",
        f"  {a.free:g} of the memory can be filled (free); every group has a gradient; grading, probes "
        f"and files cost nothing",
    ]


def count(n: float) -> str:
    """1234 -> 1.2k, 7.6e9 -> 7.6B."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return f"{n:.0f}"


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would use."""
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.1f} days"
    if seconds >= 2 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
