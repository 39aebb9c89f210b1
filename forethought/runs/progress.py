"""Where a run stands: all that a checkpoint keeps beside the engine's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


@dataclass(slots=True)
class Progress:
    step: int = 0  # finished steps of the run; never goes back
    stage: int = 0
    stage_step: int = 0  # finished steps of the stage
    begun: bool = False  # whether the stage's start has been measured and saved
    anchor: int = 0  # checkpoint of the stage's start, which a gate rolls back to
    attempts: int = 0  # how often a gate has sent the stage back to its start, to be run again
    # what a gate or the controller has changed in the stage's settings
    changed: dict = field(default_factory=dict)
    seconds: float = 0.0
    bad_updates: int = 0
    policies: dict[str, str] = field(
        default_factory=dict
    )  # role -> who speaks for it, in the order of the workflow
    used: list[str] = field(default_factory=list)  # names of policies that were ever forked
    adapters: list[str] = field(default_factory=list)  # those of them that lie on the base
    # policy -> frozen copy of it at the stage's start
    references: dict[str, str] = field(default_factory=dict)
    found: dict[str, str] = field(default_factory=dict)  # policy -> the model as the run found it
    evaluations: list[dict] = field(default_factory=list)  # of this stage, its start first
    curriculum: dict = field(default_factory=dict)
    credit: dict = field(default_factory=dict)  # what the stage's credit remembers
    probes: dict = field(default_factory=dict)
    adaptive: dict = field(default_factory=dict)
    records: list[dict] = field(default_factory=list)  # one per begun stage, for the summary
    # [failed, tried] trajectories of the newest steps
    failures: list[list[int]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # kinds of faults that were told
    unmeasured: dict | None = None
    # the line of a step whose evaluation failed: it is made again on resume
    # what the run has computed on, each with the step from which on
    machines: list[dict] = field(default_factory=list)
    finished: bool = False

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Progress:
        """What a checkpoint says, back. ValueError, in a clause, where it is something else than a run of
        this version writes."""
        kinds = get_type_hints(cls)
        known = [f.name for f in fields(cls)]
        if strange := [name for name in said if name not in known]:
            raise ValueError(f"says {strange[0][:40]!r}, which this version of forethought does not know")
        for name, value in said.items():
            if not _fits(kinds[name], value):
                raise ValueError(f"has something else than it should in {name!r}")
        for one in said.get("evaluations", ()):
            if not (
                _fits(dict[str, float], one.get("metrics"))
                and _fits(dict[str, list[float | None]], one.get("scores"))
                and len(one) == 2
            ):
                raise ValueError("has an evaluation without metrics and scores")
        return cls(**said)


def _fits(kind: Any, value: Any) -> bool:
    """Whether a value from JSON is of an annotated kind; whole numbers are floats, truth values are no
    numbers, no count is negative."""
    origin, inside = get_origin(kind) or kind, get_args(kind)
    if origin is UnionType:
        return any(_fits(one, value) for one in inside)
    if origin is dict:
        return isinstance(value, dict) and (
            not inside or all(_fits(inside[1], item) for item in value.values())
        )
    if origin is list:
        return isinstance(value, list) and all(_fits(inside[0], item) for item in value)
    if isinstance(value, bool) or origin is bool:
        return origin is bool and isinstance(value, bool)
    if origin is float:
        return isinstance(value, int | float)
    return isinstance(value, origin) and (origin is not int or value >= 0)
