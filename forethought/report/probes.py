"""What the probes of a run show: whose change is interference, the two phases, formats, and what the
measuring cost.

Empty where a run has no probes; steps that lack a value are skipped, never read as zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from forethought.recipe.kinds import learns_from
from forethought.recipe.roles import roles_in
from forethought.report.load import Run, finite
from forethought.report.words import percent, signed

PHASES = {
    1: "{last} consolidates",
    2: "{first} is the bottleneck",
    0: "neither",
}  # of the first and the last role
PREFIXES = (
    "probe/",
    "probe_rel/",
    "interference/",
    "conflict/",
    "meaning/",
    "format/",
    "phase/",
    "seconds_probe/",
)
COST = "seconds_probe/"


def summary(run: Run) -> dict[str, Any]:
    """{"watched", "phases", "sentences", "seconds"}: everything but the curves. Empty for a run without
    probes."""
    if not any(key.startswith(PREFIXES) for line in run.lines for key in line):
        return {}
    said = [harm(run), phases_sentence(run), collapse(run)]
    return {
        "watched": [watched(spec, roles_in(run.recipe)) for spec in run.recipe.get("stage", [])],
        "phases": phases(run),
        "sentences": [sentence for sentence in said if sentence],
        "seconds": seconds(run),
    }


def watched(spec: Mapping[str, Any], roles: Sequence[str]) -> dict[str, list[str]]:
    """Of a stage's roles: `others`, whose change is interference, and `own`, whose change is the stage's aim.
    If all roles train, RL and adaptive isolation watch all; a stage that imitates all roles has nothing to
    watch."""
    trained = [role for role in roles if role in spec.get("roles", roles)]
    others = [role for role in roles if role not in trained]
    if others:
        return {"others": others, "own": trained}
    together = (
        learns_from(str(spec.get("kind"))) == "trees" or spec.get("adaptive", {}).get("to", "off") != "off"
    )
    return {"others": trained if together else [], "own": []}


def harm(run: Run) -> str:
    """The largest loss of a role caused by a stage that trains others, if its interval excludes zero; "" if
    nothing was watched."""
    specs, found, roles = run.recipe.get("stage", []), [], roles_in(run.recipe)
    for line in run.lines:
        for role in watched(specs[line["stage"]], roles)["others"] if line["stage"] < len(specs) else ():
            change = tuple(
                line.get(f"{name}/{role}")
                for name in ("interference", "interference_low", "interference_high")
            )
            if all(map(finite, change)):
                found.append((change, role, line["step"], line["stage"]))
    if not found:
        return ""
    worst = [item for item in found if item[0][2] < 0]
    if not worst:
        return "No stage clearly harmed a role that it watched."
    (value, low, high), role, step, stage = min(worst)
    return (
        f"The largest harm: by step {step:,}, stage {stage + 1} had changed {role} by {signed(value)} points "
        f"[{signed(low)}, {signed(high)}] since its start."
    )


def phases(run: Run) -> list[dict[str, Any]]:
    """The phases in order, as [{"phase", "label", "from", "to"}] in steps; each lasts until the next is said,
    the last one to the end."""
    seen = [(line["step"], int(line["phase/now"])) for line in run.lines if finite(line.get("phase/now"))]
    starts = [(next(group)[0], phase) for phase, group in groupby(seen, key=lambda item: item[1])]
    ends = [step for step, _ in starts[1:]] + [run.lines[-1]["step"]] if run.lines else []
    return [
        {"phase": phase, "label": _named(PHASES.get(phase, str(phase)), run), "from": start, "to": end}
        for (start, phase), end in zip(starts, ends, strict=False)
    ]


def phases_sentence(run: Run) -> str:
    """When the last role (execution) consolidated and the first (planning) became the bottleneck (arXiv
    2509.03646); "" if not measured."""
    line = next((line for line in reversed(run.lines) if finite(line.get("phase/now"))), None)
    if line is None:
        return ""
    consolidated, bottleneck = line.get("phase/consolidated_at"), line.get("phase/bottleneck_at")
    if not finite(consolidated):
        return _named(f"{{last}} had not consolidated by step {line['step']:,}.", run)
    text = f"{{last}} had consolidated at step {int(consolidated):,}; "
    if not finite(bottleneck):
        return _named(f"{text}{{first}} was never the bottleneck after that.", run)
    since = "from then on" if bottleneck == consolidated else f"from step {int(bottleneck):,} on"
    until = (
        "is the bottleneck."
        if line["phase/now"] == 2
        else f"was the bottleneck until step {phases(run)[-1]['from']:,}."
    )
    return _named(f"{text}{since} {{first}} {until}", run)


def _named(text: str, run: Run) -> str:
    roles = roles_in(run.recipe)
    return text.format(first=roles[0], last=roles[-1])


def collapse(run: Run) -> str:
    """Whether the rollouts ended in one format, and since when; "" if no formats were declared."""
    told = [line for line in run.lines if finite(line.get("format/collapsed"))]
    if not told or not told[-1]["format/collapsed"]:
        return ""
    since = next(
        (
            before["step"]
            for line, before in zip(told[-2::-1], told[:0:-1], strict=True)
            if not line["format/collapsed"]
        ),
        told[0]["step"],
    )
    shares = {
        key.removeprefix("format/share_"): value
        for key, value in told[-1].items()
        if key.startswith("format/share_")
    }
    name = max(shares, key=shares.__getitem__, default="")
    return (
        f"The formats have collapsed since step {since:,}: {percent(shares[name])} of the rollouts are "
        f"{name}."
        if shares
        else ""
    )


def seconds(run: Run) -> dict[str, float]:
    """Probe -> seconds over the whole run, the dearest first."""
    total: dict[str, float] = {}
    for line in run.lines:
        for key, value in line.items():
            if key.startswith(COST) and key != f"{COST}share" and finite(value):
                name = key.removeprefix(COST)
                total[name] = total.get(name, 0.0) + value
    return dict(sorted(total.items(), key=lambda item: -item[1]))
