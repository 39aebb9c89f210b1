"""Tasks that a model behind an endpoint writes anew: one that failed goes in, one of the same kind comes out
with its answer, and only those are kept that the model also solves so, each time that it is asked without
having seen the answer. The client is that of the distillation: retries, a limit of requests, a cache."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from forethought.core.errors import RecipeError, UserError, unknown
from forethought.core.types import Task
from forethought.envs.guard import Fault
from forethought.recipe.kinds.webrl import WebRL
from forethought.recipe.schema import Recipe
from forethought.stages.distill.cache import Cached
from forethought.stages.distill.endpoint import Endpoint
from forethought.stages.distill.endpoint_spec import EndpointSpec
from forethought.stages.distill.prompts import Prompt
from forethought.stages.distill.records import Failure, Item
from forethought.stages.distill.transport import Post
from forethought.stages.setting import Setting
from forethought.stages.webrl.lineage import WHY, Lineage, task_of
from forethought.tasks import families
from forethought.tasks.base import Mutable, Rewritten, Taskset, face, needed

WRITE = (
    "You write problems for a student to practise on. You are given one that the student has failed. Write "
    "another one of the same kind, with other objects and numbers, about as hard or a little easier, that "
    "has exactly one right answer and needs nothing that it does not say. Answer with two lines and nothing "
    "else:\nProblem: the whole problem on this line\nAnswer: the answer alone"
)
SOLVE = "Solve the problem. Think briefly, and end with the answer alone on the last line."
NEVER = 10**9  # items in a row without an answer after which the client would give up
SETTINGS = (
    *("endpoint", "model", "votes", "cache", "write", "solve"),
    *(field.name for field in fields(EndpointSpec) if field.name not in ("base_url", "model", "give_up")),
)
"""What can be said of the endpoint in a recipe."""
_WRITTEN = re.compile(r"Problem:\s*(.+?)\s*\nAnswer:\s*(.+?)\s*\Z", re.S)


class Writer:
    """`writer(taskset, tasks)`: of each task the (question, answer) of another one, or None where the model
    gave none that can stand there, or none that it solves `votes` times as it says.

    `settings`: those of `EndpointSpec`. UserError for a setting that cannot work. `post` is for tests."""

    def __init__(
        self,
        endpoint: str,
        model: str,
        *,
        votes: int = 2,
        cache: str | Path = "evolve-cache.jsonl",
        write: str = WRITE,
        solve: str = SOLVE,
        post: Post | None = None,
        sleep: Callable[[float], object] | None = None,
        **settings: Any,
    ):
        if not isinstance(votes, int) or votes < 0:
            raise UserError(f"votes is how often a new task is solved to be kept, from 0; found {votes!r}")
        self.votes, self.cache = votes, Path(cache)
        spec = EndpointSpec(base_url=endpoint, model=model, give_up=NEVER, **{"temperature": 1.0} | settings)

        def client(system: str) -> Endpoint:
            # the whole text is ours; the client fills in two parts
            said = Prompt(system, "{question}{chain}")
            return Endpoint(spec, said, judge=lambda item, result: "", post=post, sleep=sleep, hang_up=True)

        self._write, self._solve = client(write), client(solve)

    def __call__(self, taskset: Taskset, tasks: Sequence[Task]) -> list[tuple[str, str] | None]:
        """One pair, or None, for each task."""
        able = needed(taskset, Rewritten, WHY)
        asked = [_text(taskset.asked_as(task)) for task in tasks]
        times: dict[str, int] = {}
        for i, text in enumerate(asked):  # the same task again asks for another one
            times[text] = times.get(text, 0) + 1
            asked[i] = text + _mark(times[text], "Problem")
        pairs = [_read(text) for text in self._ask(self._write, asked)]
        new: list[Task | None] = [_made(able, task, pair) for task, pair in zip(tasks, pairs, strict=True)]
        questions = [
            (i, pair[0] + _mark(vote + 1, "Attempt"))
            for i, pair in enumerate(pairs)
            if pair is not None and new[i] is not None
            for vote in range(self.votes)
        ]
        for (i, _), said in zip(questions, self._ask(self._solve, [q for _, q in questions]), strict=True):
            task = new[i]
            if task is not None and not _solved(able, task, said):
                new[i] = None
        return [pair if task is not None else None for pair, task in zip(pairs, new, strict=True)]

    def _ask(self, client: Endpoint, texts: Sequence[str]) -> list[str | None]:
        items = [Item(id=str(i), question=text, chain="", answer="") for i, text in enumerate(texts)]
        with Cached(client, self.cache) as cached:
            return [None if isinstance(r, Failure) else r.text for r in cached.summarise(items)]

    @property
    def silence(self) -> str:
        """What to say of an endpoint that answered nothing when it was last asked; "" of another."""
        dead = self._write.dead or self._solve.dead
        return (
            f"the endpoint that writes tasks at {self._write.spec.url} did not answer: {dead}" if dead else ""
        )


def writer_of(table: Mapping[str, Any], where: str) -> Writer:
    """RecipeError, at its key, for a setting that there is not or that cannot work."""
    for key in table:
        if key not in SETTINGS:
            raise RecipeError(f"{where}.{key}", unknown("setting of the endpoint", key, SETTINGS))
    for key in ("endpoint", "model"):
        if not isinstance(table.get(key), str):
            raise RecipeError(f"{where}.{key}", "missing; it takes an endpoint and a model, two texts")
    try:
        return Writer(**table)
    except (UserError, TypeError, ValueError) as error:
        raise RecipeError(where, str(error)) from None


def check_webrl(recipe: Recipe) -> None:
    """`check_evolving` for each stage of a recipe whose taskset ships: before anything is loaded, and in a
    dry run too. RecipeError as that raises it."""
    if recipe.task.name not in families.TASKSETS:
        return
    with closing(families.build(recipe.task, to_measure=True, limits=recipe.limits)) as taskset:
        for i, stage in enumerate(recipe.stage):
            if isinstance(stage, WebRL):
                check_evolving(stage, f"stage.{i}", taskset)


def check_evolving(stage: WebRL, where: str, taskset: Taskset) -> None:
    """RecipeError where nobody can make tasks of this taskset into others, or not with these settings."""
    spec, here = stage.curriculum, f"{where}.curriculum"
    if spec.tasks != "evolve":
        return
    kind = Rewritten if spec.endpoint else Mutable
    if face(taskset, kind) is None:
        lacks = "rewritten" if spec.endpoint else "mutate"
        raise RecipeError(
            f"{here}.{'endpoint' if spec.endpoint else 'tasks'}",
            f"{taskset.name} has no {lacks} (tasks.base.{kind.__name__}), so its tasks cannot evolve; use "
            '"band" or "uniform", or give the taskset one',
        )
    if spec.endpoint:
        writer_of(spec.endpoint, f"{here}.endpoint")
        if find_spec("httpx") is None:
            raise RecipeError(f"{here}.endpoint", "it is asked by httpx: pip install 'forethought[distill]'")


def written(s: Setting, table: Mapping[str, Any], parents: Sequence[Lineage]) -> list[Lineage]:
    """What the endpoint makes of these tasks: the lineages of those that it has made into others. UserError
    where it did not answer at all: a phase without tasks would be another experiment."""
    writer = writer_of(table, "curriculum.endpoint")
    tasks = [task_of(s.rollouts.taskset, lineage) for lineage in parents]
    pairs = writer(s.rollouts.taskset, tasks)
    if writer.silence:
        raise UserError(writer.silence)
    return [[*lineage, list(pair)] for lineage, pair in zip(parents, pairs, strict=True) if pair is not None]


def _mark(number: int, what: str) -> str:
    """Makes another request of the second and every later one."""
    return "" if number == 1 else f"\n\n({what} {number}.)"


def _text(said: str | Sequence[Mapping[str, str]]) -> str:
    """Of messages, what was said, a line each."""
    return said if isinstance(said, str) else "\n".join(str(message["content"]) for message in said)


def _read(text: str | None) -> tuple[str, str] | None:
    found = _WRITTEN.search(text.strip()) if text else None
    return (found[1], found[2]) if found else None


def _made(able: Rewritten, task: Task, pair: tuple[str, str] | None) -> Task | None:
    """None for words that cannot stand there."""
    try:
        return able.rewritten(task, *pair) if pair is not None else None
    except (Fault, UserError):
        return None


def _solved(able: Rewritten, task: Task, said: str | None) -> bool:
    try:
        return bool(said) and able.graded(task, said or "").success is True
    except (Fault, UserError):
        return False
