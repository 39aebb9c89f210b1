"""Worked problems that distillation and imitation read, where they are another set than the one reinforced
on.

PTA-GRPO (arXiv 2510.01833) is cold-started on 10,000 solutions of OpenThoughts and reinforced on
DeepMath-103K. Public sets of worked solutions hold other domains too, rows without a checkable answer, and
chains longer than any budget: what is taken is said here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from forethought.core.errors import RecipeError, UserError, unknown
from forethought.tasks.math.files import Record, read

KEYS = ("source", "fields", "only", "skip", "longest", "most")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demos:
    """`source`: a file or a split of the hub. `fields`: as in the task's own, for this source. `only`: field
    -> the value that a row must have. `skip`: leave out the problems that cannot be read (no answer, no text)
    instead of refusing the file; a line that is not JSON, and an id that is there twice, are damage to the
    file and refused all the same. `longest`: most characters of problem and chain together, 0: no bound.
    `most`: problems to take, in order, 0: all."""

    source: str
    fields: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, object] = field(default_factory=dict)
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


def read_demos(value: object, fields: Mapping[str, str]) -> Demos | None:
    """The task option `demos`: None where it is absent, a source (with the task's own `fields`), or a table.
    RecipeError with the address of what cannot be had."""
    if value is None:
        return None
    if isinstance(value, str) and value:
        return Demos(source=value, fields=fields)
    if not isinstance(value, Mapping):
        raise RecipeError(
            "task.demos", f"{value!r}; expected a file, a split of the hub, or a table with a source"
        )
    for key in value:
        if key not in KEYS:
            raise RecipeError(f"task.demos.{key}", unknown("setting of demos", key, KEYS))
    for key, kind, expected in (
        ("source", str, "a file or a split of the hub"),
        ("fields", Mapping, "a table of names"),
        ("only", Mapping, "a table of values"),
        ("skip", bool, "true or false"),
    ):
        if key in value and (not isinstance(value[key], kind) or value[key] == ""):
            raise RecipeError(f"task.demos.{key}", f"{value[key]!r}; expected {expected}")
    if "source" not in value:
        raise RecipeError("task.demos.source", "missing; expected a file or a split of the hub")
    for key in ("longest", "most"):
        if type(value.get(key, 0)) is not int or value.get(key, 0) < 0:
            raise RecipeError(f"task.demos.{key}", f"{value[key]!r} is not a number of at least 0")
    return Demos(**value)
