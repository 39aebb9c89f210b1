"""The sections of free text that the shipped families and a distillation write: a plan, thinking, and the
act."""

from __future__ import annotations

from forethought.interface.tags import Tags

SECTIONS = ("plan", "think", "act")
PLAN = SECTIONS[0]  # what a distillation asks for


def tags_of(
    order: tuple[str, ...] = SECTIONS,
    required: tuple[str, ...] = (PLAN,),
    strict: bool = True,
    **names: str,
) -> Tags:
    """Tags with the names of their sections, but for those that `names` gives others."""
    return Tags({section: names.get(section, section) for section in order}, required=required, strict=strict)
