"""Where a run stands: all that a checkpoint keeps beside the engine's files."""

from __future__ import annotations

from dataclasses import dataclass, field

from forethought.engines.base import BASE


@dataclass(slots=True)
class Progress:
    step: int = 0  # finished steps of the run; never goes back
    stage: int = 0
    stage_step: int = 0  # finished steps of the stage
    begun: bool = False  # whether the stage's start has been measured and saved
    anchor: int = 0  # checkpoint of the stage's start, which a gate rolls back to
    attempts: int = 0  # how often a gate has sent the stage back to its start, to be run again
    changed: dict = field(default_factory=dict)  # what a gate or the controller has changed in the stage's settings
    seconds: float = 0.0
    bad_updates: int = 0
    policies: dict[str, str] = field(default_factory=lambda: {"plan": BASE, "act": BASE})
    used: list[str] = field(default_factory=list)  # names of policies that were ever forked
    adapters: list[str] = field(default_factory=list)  # those of them that lie on the base
    references: dict[str, str] = field(default_factory=dict)  # policy -> frozen copy of it at the stage's start
    found: dict[str, str] = field(default_factory=dict)  # policy -> the model as the run found it
    evaluations: list[dict] = field(default_factory=list)  # of this stage, its start first
    curriculum: dict = field(default_factory=dict)
    probes: dict = field(default_factory=dict)
    adaptive: dict = field(default_factory=dict)
    records: list[dict] = field(default_factory=list)  # one per begun stage, for the summary
    failures: list[list[int]] = field(default_factory=list)  # [failed, tried] trajectories of the newest steps
    faults: list[str] = field(default_factory=list)  # kinds of faults that were told
    unmeasured: dict | None = None  # the line of a step whose evaluation failed: it is made again by who resumes
    finished: bool = False

    def count(self, seconds: float, sampled: float, trained: float) -> None:
        """One more step of the stage at work, with its tokens."""
        added = {"steps": 1, "seconds": seconds, "tokens_sampled": int(sampled), "tokens_trained": int(trained)}
        self.records[-1] |= {name: self.records[-1][name] + value for name, value in added.items()}
