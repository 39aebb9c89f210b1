"""Who knows how each page is done: from what is asked, what is seen and what was done, the next steps.

An oracle is a function of a `View`. It sees what the model sees and no more: the utterance, the snapshot, and
the steps of this episode so far. It plans what the page shows; when that is done and the episode goes on, it
is asked again, on the new page. Two read tables out of the source of their page, which no model sees: the
synonyms of click-checkboxes-soft and the wordings of the mail tasks in free language.

    steps(task, view)        the next steps, [] where it knows none
"""

from __future__ import annotations

from forethought.core.errors import UserError, unknown
from forethought.interface.gui import Step
from forethought.tasks.web.oracles import dates, forms, games, lists, mail, pages, shapes, social
from forethought.tasks.web.oracles.view import Oracle, View

_ROOMS = (dates, forms, games, lists, mail, pages, shapes, social)
ORACLES: dict[str, Oracle] = {task: oracle for room in _ROOMS for task, oracle in room.ORACLES.items()}


def steps(task: str, view: View) -> list[Step]:
    """What to do next. UserError for a task without an oracle."""
    if task not in ORACLES:
        raise UserError(f"{unknown('task with an oracle', task, ORACLES)}")
    try:
        return ORACLES[task](view)
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError):
        return []  # the page shows something that the oracle does not know
