"""Judges behind endpoints that answer nothing: told in the step in which it begins, and kept as the cause
where the stage trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from forethought.learn.functions import loaded
from forethought.rewards import Judge

Decide = Callable[..., None]  # (kind, name, outcome, reason, numbers)


class Silence:
    """Of one run. `decide(kind, name, outcome, reason, numbers)` records what a reader should know."""

    def __init__(self, decide: Decide) -> None:
        self.decide, self._told = decide, set[str]()

    def hear(self, record: dict[str, Any], functions: Mapping[str, str]) -> None:
        """After a step of the stage with this record and these reward functions."""
        silent = ""
        for part, judge in loaded(functions, "stage.reward").items() if functions else ():
            if not isinstance(judge, Judge):
                continue
            if not judge.silence:
                self._told.discard(part)
                continue
            silent = silent or judge.silence
            if part not in self._told:
                self._told.add(part)
                said = (
                    f"{judge.silence}; all {judge.failed} completions that it was asked about have no reward "
                    "from it (None), and the next steps try it again"
                )
                numbers = {"asked": judge.asked, "failed": judge.failed}
                self.decide("guard", part, "no answer", said, numbers)
        record.pop("silence", None)
        if silent:
            record["silence"] = silent
