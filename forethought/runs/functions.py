"""The reward functions that a stage names, looked at before anything trains."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from forethought.core.errors import RecipeError, UserError, unknown
from forethought.core.named import hold_here
from forethought.learn.batch_functions import check_signature, is_batch_function
from forethought.learn.functions import loaded
from forethought.recipe.kinds.reinforce import Reinforce, judge_name
from forethought.recipe.measurements import END_TO_END
from forethought.rewards import SETTINGS, Judge
from forethought.tasks.base import Pool, Taskset, face


def check_functions(stage: Reinforce, where: str, taskset: Taskset, roles: Sequence[str]) -> None:
    """RecipeError for code that is not there or is no function, for a function that asks for what it cannot
    be given, and where nothing says what is good."""
    at = {text: f"{where}.parts.{part}" for part, text in stage.parts.items()}
    at |= hold_judges(stage, where)
    for role, counted in stage.reward.items():
        at = {key: f"{where}.reward.{role}" for key in counted} | at  # the message names the file
    columns: list[str] | None = None
    for part, text in stage.functions.items():
        function = loaded({part: text}, at[text], again=True)[part]
        if is_batch_function(function):
            columns = _columns(taskset) if columns is None else columns
            check_signature(at[text], text.rpartition("/")[2], function, columns, roles)
    measured = {END_TO_END, roles[-1]}
    for i, gate in enumerate(stage.gates):
        if not taskset.judges and gate.metric.removeprefix("eval/").partition("@")[0] in measured:
            raise RecipeError(
                f"{where}.gates.{i}.metric", f"{gate.metric} is never measured: the task has no grader"
            )
    if not taskset.judges and not stage.functions:
        raise RecipeError(
            f"{where}.reward",
            "nothing says what is good: give the task a grader (task.grader, with task.answer), or name a "
            f'function of your own: reward = {{ {roles[-1]} = {{ "rewards.py:FUNCTION" = 1.0 }} }}',
        )


def hold_judges(stage: Reinforce, where: str) -> dict[str, str]:
    """Makes the judges that the stage says, so that they are found by name; name of each -> its address.
    RecipeError for a setting that it lacks or that cannot work, for a key that is not in the environment, and
    where httpx is not installed."""
    at = {}
    for name, table in stage.judges.items():
        here, text = f"{where}.judges.{name}", judge_name(name, table)
        for key in table:
            if key not in SETTINGS:
                raise RecipeError(f"{here}.{key}", unknown("setting of a judge", key, SETTINGS))
        for key in ("endpoint", "model"):
            if not isinstance(table.get(key), str):
                raise RecipeError(
                    f"{here}.{key}", "missing; a judge needs an endpoint and a model, two texts"
                )
        try:
            hold_here(text.partition(":")[2], Judge(**table))
        except (UserError, TypeError, ValueError) as error:
            raise RecipeError(here, str(error)) from None
        if find_spec("httpx") is None:
            raise RecipeError(
                here, "a judge behind an endpoint needs httpx: pip install 'forethought[distill]'"
            )
        at[text] = here
    return at


def _columns(taskset: Taskset) -> list[str]:
    """Of some tasks of the taskset, where it has a pool."""
    given = face(taskset, Pool)
    tasks = given.pool(taskset.levels[0], "train")[:1] if given else []
    return list(taskset.columns(tasks[0])) if tasks else []
