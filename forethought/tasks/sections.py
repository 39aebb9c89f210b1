"""The sections of free text that the shipped families and a distillation write: a plan, thinking, and the
act."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from forethought.core.errors import RecipeError, UserError, unknown
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


TAGS = tags_of()  # those of a recipe that names none


def named(said: Mapping[str, str], known: Sequence[str], make: Callable[..., Tags] = tags_of) -> Tags:
    """The tags with the names that a recipe gives some of them. RecipeError at task.tags for a section that
    is not `known`, and for a name that cannot be had."""
    for section in said:
        if section not in known:
            raise RecipeError(f"task.tags.{section}", unknown("tag", section, known))
    try:
        return make(**said)
    except UserError as error:
        raise RecipeError("task.tags", str(error)) from None
