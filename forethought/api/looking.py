"""`ft.evaluate`, `ft.sample`, `ft.swap`, `ft.compare`: runs and models, looked at."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forethought.api.given import Located, Overrides, Source, beside_a_loop, path_of, written
from forethought.core.consent import trusting

if TYPE_CHECKING:
    from forethought.exports import Exported
    from forethought.runs.run import EngineOf


def evaluate(
    source: Source,
    *,
    task: str | None = None,
    step: int | None = None,
    overrides: Overrides = (),
    levels: Sequence[int] | None = None,
    tasks: int | None = None,
    problems: str | PathLike[str] | None = None,
    samples: int = 1,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    trust_code: bool = False,
    engine_of: EngineOf | None = None,
) -> dict[str, Any]:
    """Measure each role and all together on held-out tasks: {"plan": {"value", "low", "high", "n",
    "by_level"}, "act": ..., "e2e": ...}, with 95 % intervals. As `forethought eval --json`; `look.evaluate`
    has every key. UserError for what is neither a run nor a model, or does not fit. `trust_code`: run the
    code that somebody else's run names."""
    from forethought import look
    from forethought.recipe.sampling import measured_with

    with trusting(trust_code):
        return beside_a_loop(
            lambda: look.evaluate(
                look.find(path_of(source), task, written(overrides), step),
                problems=None if problems is None else Path(problems),
                tasks=tasks,
                levels=levels,
                tree=measured_with(samples, temperature, top_p, top_k, min_p),
                samples=samples,
                **_engine(engine_of),
            )
        )


def sample(
    source: Source,
    *,
    n: int = 4,
    task: str | None = None,
    step: int | None = None,
    overrides: Overrides = (),
    level: int | None = None,
    problems: str | PathLike[str] | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    seed: int = 0,
    trust_code: bool = False,
    engine_of: EngineOf | None = None,
) -> list[dict[str, Any]]:
    """`n` held-out tasks, each with what every role says and the verdicts. As `forethought sample --json`."""
    from forethought import look
    from forethought.recipe.sampling import drawn_with, refuse_idle

    tree = drawn_with(temperature, top_p, top_k, min_p)
    refuse_idle(
        temperature, {"top_p": top_p if top_p < 1 else None, "top_k": top_k or None, "min_p": min_p or None}
    )
    with trusting(trust_code):
        return beside_a_loop(
            lambda: look.sample(
                look.find(path_of(source), task, written(overrides), step),
                n=n,
                level=level,
                tree=tree,
                seed=seed,
                problems=None if problems is None else Path(problems),
                **_engine(engine_of),
            )
        )


def swap(
    *sources: Source,
    task: str | None = None,
    tasks: int | None = None,
    overrides: Overrides = (),
    trust_code: bool = False,
    engine_of: EngineOf | None = None,
) -> list[dict[str, Any]]:
    """Every planner with every actor, a table for the tasks of each. As `forethought swap --json`."""
    from forethought import look

    paths = [path_of(source) for source in sources]
    with trusting(trust_code):
        return beside_a_loop(
            lambda: look.swap(
                look.find_all(paths, task, written(overrides)), tasks=tasks, **_engine(engine_of)
            )
        )


def export(
    source: Source,
    *,
    to: str | PathLike[str] | None = None,
    step: int | None = None,
    role: str | None = None,
    merge: bool = False,
    gguf: Literal["f16", "f32"] | None = None,
    trust_code: bool = False,
) -> Exported:
    """Write the models of a run as folders that transformers, vLLM and llama.cpp open, each with a model
    card. As `forethought export`."""
    from forethought.exports import export as write

    where = None if to is None else Path(to)
    with trusting(trust_code):
        return write(path_of(source), to=where, step=step, role=role, merge=merge, gguf=gguf)


def compare(*runs: str | PathLike[str] | Located, out: str | PathLike[str] = "compare.html") -> Path:
    """One page with several runs side by side; returns its path."""
    from forethought import report

    return report.compare([path_of(one) for one in runs], Path(out))


def _engine(engine_of: EngineOf | None) -> dict[str, Any]:
    return {} if engine_of is None else {"engine_of": engine_of}
