"""Where a run's time and memory went, as the table at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forethought.core.parts import OTHER, totals
from forethought.display.pace import clock_text
from forethought.display.seen import thousands

NAMES = {OTHER: "tasks, credit, waiting"}  # and what is loaded on the way
TOKENS = {"sampling": "tokens/sampled", "training": "tokens/forward"}  # what a part works on
LEAST = 0.005  # share of the time below which a part is not worth a line


def spent(lines: Sequence[Mapping[str, object]]) -> list[str]:
    """The parts of a run by their metric lines, the longest first, and the whole; [] for a run that has
    none."""
    parts = totals(lines)
    whole = sum(row["seconds"] for row in parts.values())
    if not whole:
        return []
    rows = [f"{'where the time went':<24} {'time':>8} {'share':>6} {'peak memory':>12}"]
    for name, row in parts.items():
        if row["seconds"] >= LEAST * whole:
            worked = _worked(lines, TOKENS.get(name, ""), row["seconds"])
            rows.append(_row(NAMES.get(name, name), row["seconds"], whole, row["peak_bytes"]) + worked)
    return [*rows, _row("the whole", whole, whole, max(row["peak_bytes"] for row in parts.values()))]


def _row(name: str, seconds: float, whole: float, peak: float) -> str:
    said = clock_text(seconds) if seconds >= 60 else f"{seconds:.1f} s"
    return f"  {name:<22} {said:>8} {seconds / whole:>6.0%} {f'{peak / 1e9:.2f} GB' if peak else '-':>12}"


def _worked(lines: Sequence[Mapping[str, object]], key: str, seconds: float) -> str:
    """How many tokens that was, and how many a second; "" where nothing counted them."""
    tokens = sum(n for line in lines if isinstance(n := line.get(key), int | float))
    return f"  {thousands(tokens)} tokens, {thousands(tokens / seconds)}/s" if tokens else ""
