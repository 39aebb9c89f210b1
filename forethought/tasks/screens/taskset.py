"""`screens`: places on pictures of pages. A planner says what is to be clicked, in words; a grounder that
sees the picture says where.

    prompt   @picture:click-color/17/0/0 @ask Click on the red colored box +.
    plan     click red </plan>
    act      click red x12 y30 </act>      the middle of a square of 4 x 4 pixels; or `click red m3`, a mark

An act is the plan, said again, and then the place: so the last word before the place is what is looked for.
The pictures and what is right on them come from a file (`collect.py`): training and evaluation need no
browser. An act is right where its place lies in a box that is right. A picture is one word of the prompt
(`core.sight`); a training picture is moved by some pixels each time it is drawn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forethought.core.errors import RecipeError, UserError, unknown
from forethought.core.films import Film, Frame, Mark
from forethought.core.grounding import Box, Did, Pair, Point, Wanted, centre, inside
from forethought.core.scores import success_of
from forethought.core.sight import MARK, Seen, Shown, Sight
from forethought.core.types import Outcome, Task, Tree, Turn, Verdict
from forethought.envs.base import Environment
from forethought.envs.images import name_of
from forethought.envs.screen.marks import drawn
from forethought.envs.screen.patches import components, cut, of_graph, random_patches
from forethought.envs.screen.png import write
from forethought.recipe.options.reading import read as read_options
from forethought.recipe.options.screens import Screens as Options
from forethought.recipe.ranges import at_least
from forethought.tasks.base import Split, Taskset
from forethought.tasks.screens.shots import SIDE, Shot, read
from forethought.tasks.web.splits import FIRST
from forethought.tasks.web.words import GLUE, MARKS, marks, pieces

FILE = "shots.xz"
STEP = 4  # pixels of a place
CELLS = SIDE // STEP
NUMBERS = 40  # most marks of a picture
ASK, OTHER = "@ask", "@other"
STOPS = {"plan": "</plan>", "act": "</act>"}
SIZES = (8, 10, 16, 20, 32)


@dataclass(frozen=True, slots=True)
class Drawn:
    """The `state` of a task: the screen, and by how much its picture is moved."""

    shot: Shot
    moved: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """Of the picture."""
        return f"{self.shot.task}/{self.shot.seed}/{self.moved[0]}/{self.moved[1]}"

    @property
    def boxes(self) -> list[Box]:
        """Of all elements, where they lie now."""
        x, y = self.moved
        return [(left + x, top + y, width, height) for left, top, width, height in self.shot.boxes]

    @property
    def good(self) -> list[Box]:
        """Those that are right."""
        return [self.boxes[i] for i in self.shot.good]


@lru_cache(2)
def shots_of(path: Path) -> tuple[Shot, ...]:
    """All of a file."""
    return tuple(read(path))


class Screens(Taskset):
    """See the module; `recipe.options.screens` says what the options are."""

    name = "screens"
    drawn = True
    stops, opens = STOPS, {"plan": "<plan>"}
    origins = "task"
    levels = (1,)
    paths = ("shots",)

    def __init__(self, levels: Sequence[int] = (), **options: Any):
        said = read_options(Options, options)
        for key in ("shift", "pictures"):
            at_least(f"task.{key}", getattr(said, key), 0)
        if said.patch not in SIZES:
            raise RecipeError("task.patch", f"{said.patch} is none of {', '.join(map(str, SIZES))}")
        if not 0 < said.share <= 1:
            raise RecipeError("task.share", f"{said.share} is no share above 0, at most 1")
        if said.shift > SIDE // 4:
            raise RecipeError(
                "task.shift", f"{said.shift} is more than {SIDE // 4}, a quarter of the picture"
            )
        self.said = said
        path = Path(said.shots) if said.shots else Path(str(files("forethought.tasks.screens"))) / FILE
        try:
            every = shots_of(path)
        except UserError as error:
            raise RecipeError("task.shots", str(error)) from None
        known = sorted({shot.task for shot in every})
        if strange := [task for task in said.tasks if task not in known]:
            raise RecipeError("task.tasks", unknown("task of the file of screens", strange[0], known))
        if not said.tasks:
            raise RecipeError("task.tasks", "names no task")
        if twice := [task for i, task in enumerate(said.tasks) if task in said.tasks[:i]]:
            raise RecipeError("task.tasks", f"{twice[0]} is named twice")
        self._shots: dict[Split, dict[str, list[Shot]]] = {"train": {}, "eval": {}}
        self._by_name: dict[tuple[str, int], Shot] = {}
        for shot in every:
            if shot.task in said.tasks:
                split: Split = "train" if shot.seed >= FIRST else "eval"
                self._shots[split].setdefault(shot.task, []).append(shot)
                self._by_name[shot.task, shot.seed] = shot
        for split, there in self._shots.items():
            if missing := sorted(set(said.tasks) - set(there)):
                raise RecipeError("task.tasks", f"the file has no screen of {missing[0]} for {split}")
        super().__init__(levels)
        self._filmed: set[str] = set()
        asked = [
            len(self._words(shot.what))
            for there in self._shots.values()
            for s in there.values()
            for shot in s
        ]
        self.budgets = {"plan": max(asked) + 4, "act": max(asked) + 6}
        self.notes = [self._kept()]

    def _kept(self) -> str:
        some = [shots[i] for shots in self._shots["eval"].values() for i in range(min(4, len(shots)))]
        share = np.mean([len(self.picture(Drawn(s).name).patches) for s in some]) / self._places
        patches = f"{share:.0%} of the {self._places} patches of a picture"
        return f"a model from scratch reads {patches} ({self.said.select}), others cut it themselves"

    # ---- words

    def vocabulary(self) -> list[str]:
        """Words of training questions, marks of punctuation, places."""
        return [
            *(ASK, OTHER, GLUE, "click"),
            *marks(),
            *sorted(self._known),
            *(f"{axis}{i}" for axis in "xy" for i in range(CELLS)),
            *(f"m{i}" for i in range(1, NUMBERS + 1)),
            *self.opens.values(),
            *self.stops.values(),
        ]

    @cached_property
    def _known(self) -> set[str]:
        asked = {shot.asked for there in self._shots["train"].values() for shot in there}
        return {piece for text in asked for piece, _ in pieces(text) if piece not in MARKS}

    def _words(self, text: str) -> list[str]:
        """A text in words: marks stand alone, and what training questions never said is one word."""
        return [piece if piece in MARKS or piece in self._known else OTHER for piece, _ in pieces(text)]

    # ---- tasks

    def family(self, rng: random.Random, levels: list[int], split: Split) -> list[Task]:
        """Each task of the list as often; training pictures are moved."""
        there, most = self._shots[split], self.said.shift if split == "train" else 0
        tasks = []
        for _ in levels:
            shot = rng.choice(there[rng.choice(self.said.tasks)])
            moved = rng.randint(-most, most), rng.randint(-most, most)
            tasks.append(self._task(_in_sight(Drawn(shot, moved))))
        return tasks

    def pool(self, level: int, split: Split) -> list[Task]:
        """Each screen once, as it is."""
        return [self._task(Drawn(shot)) for there in self._shots[split].values() for shot in there]

    def longest(self, n: int) -> list[Task]:
        """Those with the longest question."""
        every = [task for split in ("train", "eval") for task in self.pool(1, split)]  # type: ignore[arg-type]
        return sorted(every, key=lambda task: -len(task.prompt.split()))[:n]

    def _task(self, state: Drawn) -> Task:
        prompt = " ".join([MARK + state.name, ASK, *self._words(state.shot.asked)])
        return Task(id=state.name, taskset=self.name, level=1, context="", prompt=prompt, state=state)

    def origin(self, task: Task) -> str:
        """The name of the page."""
        return task.state.shot.task

    # ---- pictures

    @property
    def _places(self) -> int:
        return (SIDE // self.said.patch) ** 2

    def sight(self) -> Sight:
        """Square pictures; how many patches the graph leaves differs."""
        side = self.said.patch
        n = SIDE // side
        cells = [range(-(-i * side // STEP), -(-(i + 1) * side // STEP)) for i in range(n)]
        rows, columns = (tuple(tuple(f"{axis}{i}" for i in some) for some in cells) for axis in "yx")
        if self.said.answer == "mark":
            rows = columns = ()
        return Sight(side=side, rows=n, columns=n, most=n * n, row_words=rows, column_words=columns)

    def picture(self, name: str) -> Seen:
        """The patches that are read of a picture."""
        state = self._state(name)
        patches = cut(self.pixels(state), self.said.patch)
        kept = self._selected(patches, state)
        whole = (patches[kept] * 255).round().astype(np.uint8)
        return Seen(whole, np.argwhere(kept))

    def shown(self, name: str) -> Shown:
        """The picture; a vision-language model's own patches are selected as ours are."""
        state = self._state(name)
        return Shown(self.pixels(state), partial(self._selected, state=state))

    def _state(self, name: str) -> Drawn:
        task, seed, x, y = name.split("/")
        return Drawn(self._by_name[task, int(seed)], (int(x), int(y)))

    def _selected(self, patches: NDArray[np.float32], state: Drawn) -> NDArray[np.bool_]:
        if self.said.select == "all":
            return np.ones(patches.shape[:2], bool)
        seed = state.shot.seed
        kept = of_graph(components(patches), self.said.share, seed)
        return kept if self.said.select == "graph" else random_patches(kept.shape, int(kept.sum()), seed)

    def pixels(self, state: Drawn) -> NDArray[np.uint8]:
        """[side, side, 3], as the model sees it: moved, with marks, or white."""
        if self.said.blind:
            return np.full((SIDE, SIDE, 3), 255, np.uint8)
        x, y = state.moved
        picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
        own = state.shot.picture
        picture[max(y, 0) : SIDE + min(y, 0), max(x, 0) : SIDE + min(x, 0)] = own[
            max(-y, 0) : SIDE - max(y, 0), max(-x, 0) : SIDE - max(x, 0)
        ]
        return drawn(picture, state.boxes[:NUMBERS]) if self.said.answer == "mark" else picture

    # ---- oracle

    def oracle_plan(self, task: Task) -> str:
        """What the question asks for."""
        return " ".join(["click", *self._words(task.state.shot.what), self.stops["plan"]])

    def demonstrate(self, task: Task) -> list[Turn]:
        """The plan, and the middle of the first element that is right."""
        return [Turn(role="plan", text=self.oracle_plan(task)), Turn(role="act", text=self.oracle_act(task))]

    def oracle_act(self, task: Task) -> str:
        """A click into the first element that is right and still lies on the picture."""
        state: Drawn = task.state
        said = " ".join(["click", *self._words(state.shot.what)])
        fits = [i for i in state.shot.good if _on(centre(state.boxes[i]))] or list(state.shot.good)
        if self.said.answer == "mark":
            return f"{said} m{min(fits[0], NUMBERS - 1) + 1} {self.stops['act']}"
        x, y = (min(max(int(at) // STEP, 0), CELLS - 1) for at in centre(state.boxes[fits[0]]))
        return f"{said} x{x} y{y} {self.stops['act']}"

    # ---- verdicts

    def parse_plan(self, task: Task, text: str) -> Verdict:
        """`click` and what."""
        words = text.split()
        if len(words) < 3 or words[0] != "click" or words[-1] != self.stops["plan"]:
            return Verdict(score=0.0, reason=f"a plan is: click WHAT {self.stops['plan']}")
        return Verdict(score=1.0)

    def judge_plan(self, task: Task, text: str) -> Verdict:
        """The words of the question."""
        wanted = self.oracle_plan(task)
        good = text.split() == wanted.split()
        return Verdict(score=float(good), reason="" if good else f"found {text}, needed {wanted}")

    def place(self, state: Drawn, text: str) -> Point | str:
        """Where an act clicks, or why nobody can tell."""
        words = text.split()
        if not words or words[-1] != self.stops["act"] or words[0] != "click":
            return f"an act is: click WHAT WHERE {self.stops['act']}"
        at = words[1:-1][-2:]
        if self.said.answer == "mark":
            if not at or at[-1][:1] != "m" or not at[-1][1:].isdecimal():
                return "a place is the number of a mark"
            n = int(at[-1][1:])
            return centre(state.boxes[n - 1]) if 1 <= n <= len(state.boxes) else f"there is no mark {n}"
        if (
            len(at) != 2
            or [one[:1] for one in at] != ["x", "y"]
            or not all(one[1:].isdecimal() for one in at)
        ):
            return "a place is an x and a y"
        return tuple(STEP * int(one[1:]) + STEP / 2 for one in at)  # type: ignore[return-value]

    def environment(self, task: Task, noise: bool) -> Environment:
        """One click."""
        return Click(self, task.state)

    # ---- what was watched

    def watch(self, tasks: Sequence[Task]) -> None:
        """Keep pictures of the first of them, each of another page while there are some."""
        seen = [task for task in tasks if isinstance(task.state, Drawn)]
        first = {self.origin(task): task.id for task in reversed(seen)}
        order = dict.fromkeys([*first.values(), *(task.id for task in seen)])
        self._filmed = set(list(order)[: self.said.pictures])

    def groundings(self, tree: Tree) -> list[Pair]:
        """Where was clicked, and where should have been."""
        said = [node.text for node in tree.nodes if node.role == "act" and node.status != "overlong"]
        return [self._pair(tree.task.state, text) for text in said[:1]]

    def _pair(self, state: Drawn, text: str) -> Pair:
        at = self.place(state, text)
        hit = next((box for box in state.good if not isinstance(at, str) and inside(at, box)), state.good[0])
        same = not isinstance(at, str) and inside(at, hit)
        did = None if isinstance(at, str) else Did(op="click", element="right" if same else "", point=at)
        return did, Wanted(op="click", element="right", box=hit)

    def film(self, tree: Tree) -> Film | None:
        """The picture, what the planner's words mean on it, and the place that was chosen."""
        if tree.task.id not in self._filmed:
            return None
        state: Drawn = tree.task.state
        said = {node.role: node for node in tree.nodes if node.role is not None}
        at = self.place(state, said["act"].text) if "act" in said else "nothing was clicked"
        success = any(success_of(node.reward_parts) == 1 for node in said.values())
        image = write(self.pixels(state))
        dot = None if isinstance(at, str) else (at[0] - STEP / 2, at[1] - STEP / 2, float(STEP), float(STEP))
        wrong = "" if success else "words" if "act" not in said else "element"
        reason = "" if success else (at if isinstance(at, str) else "another place than was meant")
        frame = Frame(
            image=name_of(image),
            width=SIDE,
            height=SIDE,
            planned=self._planned(tree.task, said["plan"].text) if "plan" in said else (),
            chosen=(Mark(said=said["act"].text, box=dot, note=reason, good=success),)
            if "act" in said
            else (),
            wrong=wrong,  # type: ignore[arg-type]
            reason=reason,
        )
        return Film(
            task=tree.task.id,
            name=f"{state.shot.task}, seed {state.shot.seed}",
            asked=state.shot.asked,
            success=success,
            wrong=wrong,  # type: ignore[arg-type]
            reason=reason,
            frames=(frame,),
            pictures={frame.image: image},
        )

    def _planned(self, task: Task, text: str) -> tuple[Mark, ...]:
        """The planner's words, on all that is right where they are those of the question."""
        words = text.removesuffix(self.stops["plan"]).strip()
        if not (verdict := self.judge_plan(task, text)).score:
            return (Mark(said=words, box=None, note=verdict.reason, good=False),)
        return tuple(Mark(said=words, box=box) for box in task.state.good)


class Click(Environment):
    """One click on a picture."""

    def __init__(self, taskset: Screens, state: Drawn):
        self.taskset, self.state = taskset, state

    def step(self, action: str) -> Outcome:
        """Whether it hits what is right."""
        at = self.taskset.place(self.state, action)
        if isinstance(at, str):
            return Outcome(done=True, reason=at)
        hit = any(inside(at, box) for box in self.state.good)
        return Outcome(done=True, success=hit, reason="" if hit else f"{at} lies in nothing that is right")


def _in_sight(state: Drawn) -> Drawn:
    """Moved less far where nothing that is right would lie on the picture: nobody could see or click it."""
    middles = [centre(box) for box in state.good]
    if any(map(_on, middles)):
        return state
    pixels = map(math.floor, middles[0])
    back = (min(max(at, 0), SIDE - 1) - at for at in pixels)
    return replace(state, moved=tuple(by + less for by, less in zip(state.moved, back, strict=True)))


def _on(at: Point) -> bool:
    return all(0 <= x < SIDE for x in at)
