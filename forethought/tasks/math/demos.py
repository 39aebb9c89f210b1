"""Worked problems that distillation and imitation read, where they are another set than the one reinforced
on.

PTA-GRPO (arXiv 2510.01833) is cold-started on 10,000 solutions of OpenThoughts and reinforced on
DeepMath-103K. Public sets of worked solutions hold other domains too, rows without a checkable answer, and
chains longer than any budget: what is taken is said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from forethought.core.errors import UserError
from forethought.recipe.options.reading import read as read_table
from forethought.recipe.ranges import at_least
from forethought.tasks.math.files import Record, read
from forethought.tasks.text.options import need_sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Demos:
    """`source`: a file or a split of the hub. `fields`: as in the task's own, for this source. `only`: field
    -> the value that a row must have. `skip`: leave out the problems that cannot be read (no answer, no text)
    instead of refusing the file; a line that is not JSON, and an id that is there twice, are damage to the
    file and refused all the same. `longest`: most characters of problem and chain together, 0: no bound.
    `most`: problems to take, in order, 0: all."""

    source: str
    fields: dict[str, str] = field(default_factory=dict)
    only: dict[str, Any] = field(default_factory=dict)
    skip: bool = False
    longest: int = 0
    most: int = 0

    def records(self) -> tuple[list[Record], str]:
        """What is taken, and a sentence that says how much was left out ("" for nothing). UserError as
        `math_files.read` raises it, and where nothing is left."""
        skipped: list[str] = []
        found = read(self.source, self.fields, only=self.only, skipped=skipped if self.skip else None)
        short = [
            r
            for r in found
            if not self.longest or len(r.problem) + len(r.chain or r.solution) <= self.longest
        ]
        if not short:
            raise UserError(
                f"{self.source}: all {len(found)} problems are longer than {self.longest} "
                f"characters with their chains"
            )
        taken = short[: self.most or None]
        if len(taken) == len(found) + len(skipped):
            return taken, ""
        first = f" (such as {skipped[0]})" if skipped else ""
        return taken, (
            f"{self.source}: {len(taken)} demonstrations; left out: {len(skipped)} that cannot be "
            f"read{first}, {len(found) - len(short)} longer than {self.longest} characters, "
            f"{len(short) - len(taken)} beyond the first {self.most}"
        )


def read_demos(value: str | Mapping[str, Any] | None, fields: dict[str, str]) -> Demos | None:
    """The task option `demos`: None where it is absent, a source (with the task's own `fields`), or a table.
    RecipeError with the address of what cannot be had."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        said = read_table(Demos, value, "task.demos")
    else:
        said = Demos(source=value, fields=fields)
    need_sources(demos=[said.source])
    at_least("task.demos.longest", said.longest, 0)
    at_least("task.demos.most", said.most, 0)
    return said
