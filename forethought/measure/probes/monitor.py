"""Runs the probes of a run when they are due, and counts what each of them costs."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence

from forethought.core.types import Tree
from forethought.measure.probes.held_out import HeldOut, Probed, since
from forethought.measure.probes.phases import Phases
from forethought.measure.probes.plans import format_share, meaning_entropy
from forethought.recipe.schema import ProbeSpec
from forethought.workflows.rollout import Rollouts

References = Mapping[str, Mapping[str, str]]  # start | base -> policy -> frozen copy


class Monitor:
    """`now` is the newest held-out probe and `start` the one at the stage's start; adaptive isolation reads
    both."""

    def __init__(self, rollouts: Rollouts, spec: ProbeSpec, levels: Sequence[int], seed: int):
        self.taskset, self.spec = rollouts.taskset, spec
        held_out = (
            HeldOut(rollouts, levels, spec.tasks, seed) if spec.every and self.taskset.has_plans else None
        )
        self.held_out = held_out if held_out and held_out.there else None
        self.formats = {name: re.compile(pattern) for name, pattern in spec.formats.items()}
        self.phases = Phases(spec.phase_window)
        self.start: Probed | None = None
        self.now: Probed | None = None
        self.seconds = 0.0  # of the whole run

    def begin(self, step: int, policies: Mapping[str, str], references: References) -> dict[str, float]:
        """At a stage's start: what the stage's changes are measured from."""
        self.start = self.now = None
        return self._held_out(step, policies, references)

    def due(self, stage_step: int) -> bool:
        """Whether the probes on held-out demonstrations run at this step of the stage."""
        return bool(self.held_out and stage_step % self.spec.every == 0)

    def conflict_due(self, stage_step: int) -> bool:
        """Whether the gradients of the roles are compared at this step."""
        return bool(self.spec.conflict_every and stage_step % self.spec.conflict_every == 0)

    def after(
        self,
        step: int,
        stage_step: int,
        trees: Sequence[Tree],
        policies: Mapping[str, str],
        references: References,
        said: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """After step `stage_step` (from 1) of a stage, with the trees that it grew and the metrics that it
        has (`said`)."""
        line = self._plans(trees, next(iter(policies))) if trees else {}
        # the step's own tokens instead
        if not self.held_out and said and {"hicra/ppl_plan", "hicra/ppl_exec"} <= said.keys():
            line |= self.phases.observe(
                step, math.log(said["hicra/ppl_exec"]), math.log(said["hicra/ppl_plan"])
            )
        if self.due(stage_step):
            line |= self._held_out(step, policies, references)
        return line

    def ask(self, policies: Mapping[str, str]) -> Probed:
        """The held-out probe under another assignment of roles to policies; nothing is remembered. Only where
        there is one (`due`)."""
        assert self.held_out is not None
        started = time.perf_counter()
        found = self.held_out.measure(policies)
        self.seconds += time.perf_counter() - started
        return found

    def _held_out(self, step: int, policies: Mapping[str, str], references: References) -> dict[str, float]:
        if not self.held_out:
            return {}
        started = time.perf_counter()
        found = self.held_out.measure(policies, references)
        line = dict(found.metrics)
        self.now = found
        if self.start is None:
            self.start = found
        else:
            line |= since(self.start, found)
        *prepare, acts = (math.log(found.metrics[f"probe/ppl_{role}"]) for role in found.scores)
        if prepare:
            line |= self.phases.observe(step, acts, max(prepare))
        return line | self._cost("held_out", started)

    def _plans(self, trees: Sequence[Tree], role: str) -> dict[str, float]:
        started = time.perf_counter()
        line = meaning_entropy(trees, lambda tree, text: self.taskset.meaning(tree.task, text), role)
        if self.formats:
            line |= format_share(trees, self.formats, self.spec.collapse)
        return line | self._cost("plans", started)

    def _cost(self, name: str, started: float) -> dict[str, float]:
        seconds = time.perf_counter() - started
        self.seconds += seconds
        return {f"seconds_probe/{name}": seconds}

    def state_dict(self) -> dict:
        """What a resumed run needs: phases, and what was found at the stage's start and last."""
        pair = lambda f: None if f is None else [f.metrics, f.scores]  # noqa: E731
        return {
            "phases": self.phases.state_dict(),
            "start": pair(self.start),
            "now": pair(self.now),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping) -> None:
        """Take up the state that `state_dict` gave."""
        self.phases.load_state_dict(state["phases"])
        self.start, self.now = (None if state[k] is None else Probed(*state[k]) for k in ("start", "now"))
        self.seconds = state["seconds"]
