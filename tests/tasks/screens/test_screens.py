"""Screens: the file, what is read of a picture, and what an act hits."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from torch_kit import bpe_of
from vlm_kit import MARKS, vlm_on_disk

from forethought.core.errors import RecipeError, UserError
from forethought.core.sight import MARK
from forethought.core.types import Task
from forethought.envs.screen.patches import cut
from forethought.estimate import lengths
from forethought.exports import export
from forethought.exports.checkpoint import find
from forethought.look import samples, source
from forethought.recipe.load import load
from forethought.runs import run
from forethought.tasks.screens import shots
from forethought.tasks.screens.shots import SIDE, Shot, coloured, read, reduced, write
from forethought.tasks.screens.taskset import STEP, Drawn, Screens
from forethought.tasks.web.splits import FIRST

RED, BLUE = (255, 0, 0), (0, 0, 255)


def shot(seed: int, task: str = "click-color", word: str = "red") -> Shot:
    """Two boxes, red and blue; one of them is asked for."""
    rng = random.Random(seed)
    boxes = [
        (float(rng.randrange(0, 60)), 20.0, 30.0, 30.0),
        (float(rng.randrange(90, 125)), 80.0, 30.0, 30.0),
    ]
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for (x, y, w, h), colour in zip(boxes, (RED, BLUE), strict=True):
        picture[int(y) : int(y + h), int(x) : int(x + w)] = colour
    good = 0 if word == "red" else 1
    return Shot(
        task=task,
        seed=seed,
        asked=f"Click on the {word} box.",
        what=word,
        boxes=tuple(boxes),  # type: ignore[arg-type]
        good=(good,),
        pixels=reduced(picture),
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    where = tmp_path_factory.mktemp("screens") / "shots.xz"
    write(where, [shot(seed, word="red" if seed % 2 else "blue") for seed in (0, 1, FIRST, FIRST + 1)])
    return where


def screens(path, **options) -> Screens:
    return Screens(shots=str(path), tasks=("click-color",), **options)


def eval_tasks(taskset: Screens) -> list[Task]:
    return taskset.pool(1, "eval")


def test_the_file_is_read_as_it_was_written(path):
    found = read(path)
    assert [one.seed for one in found] == [0, 1, FIRST, FIRST + 1]
    want = shot(1)
    assert (found[1].asked, found[1].boxes, found[1].good) == (want.asked, want.boxes, want.good)
    assert (found[1].picture == want.picture).all()


def test_colours_of_six_steps_come_back():
    steps = np.arange(6, dtype=np.uint8) * 51
    every = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1)
    assert (coloured(reduced(every)) == every).all()
    assert coloured(reduced(np.array([[130, 24, 26]], np.uint8))).tolist() == [[153, 0, 51]]


@pytest.mark.parametrize("data", [b"", b"\xfd7zXZ\x00", None])
def test_what_is_no_file_of_screens_says_so(tmp_path, data, path):
    broken = tmp_path / "broken.xz"
    broken.write_bytes(shots.lzma.compress(b"[]\n") if data is None else data)
    with pytest.raises(UserError, match=f"{broken} is no file of screens"):
        read(broken)
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "nowhere.xz")


def test_a_prompt_names_its_picture_and_the_oracle_hits(path):
    taskset = screens(path)
    for task in eval_tasks(taskset):
        assert task.prompt.startswith(f"{MARK}click-color/{task.state.shot.seed}/0/0 @ask Click on the ")
        plan, act = (turn.text for turn in taskset.demonstrate(task))
        assert plan == f"click {task.state.shot.what} </plan>" and taskset.judge_plan(task, plan).score == 1
        outcome = taskset.environment(task, noise=False).step(act)
        assert outcome.done and outcome.success


def test_a_picture_that_is_moved_takes_its_boxes_along(path):
    taskset = screens(path, shift=12)
    for task in taskset.family(random.Random(3), [1] * 8, "train"):
        state: Drawn = task.state
        colour = RED if state.shot.what == "red" else BLUE
        x, y, w, h = (int(v) for v in state.good[0])
        inside = taskset.pixels(state)[max(y, 0) : y + h, max(x, 0) : x + w]
        assert (inside == colour).all() and abs(state.moved[0]) <= 12
        assert taskset.environment(task, noise=False).step(taskset.oracle_act(task)).success


def test_what_is_right_stays_on_a_picture_that_is_moved_far(path):
    """Every demonstration is right, however far from the border its element lies."""
    taskset = screens(path, shift=40)
    for task in taskset.family(random.Random(3), [1] * 200, "train"):
        assert max(map(abs, task.state.moved)) <= 40
        assert taskset.environment(task, noise=False).step(taskset.oracle_act(task)).success


def test_graph_and_random_read_as_many_patches(path):
    read_by = {name: screens(path, select=name) for name in ("graph", "random", "all")}
    assert len(read_by["all"].picture("click-color/0/0/0").patches) == 100
    graph, other = (read_by[name].picture("click-color/0/0/0") for name in ("graph", "random"))
    assert len(graph.patches) == len(other.patches) < 100
    assert graph.places.tolist() != other.places.tolist()
    # each component has one: the white around, and what is not
    assert {tuple(p.reshape(-1, 3)[0]) for p in graph.patches} >= {(255, 255, 255)}
    assert "patches of a picture" in read_by["graph"].notes[0]


def test_the_same_name_is_the_same_picture(path):
    a, b = (screens(path).picture("click-color/1/3/-2") for _ in range(2))
    assert (a.patches == b.patches).all() and (a.places == b.places).all()


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("", "an act is"),
        ("click x1 y1", "an act is"),
        ("type x1 y1 </act>", "an act is"),
        ("click y1 x1 </act>", "an x and a y"),
        ("click x1 </act>", "an x and a y"),
        ("click x39 y39 </act>", "lies in nothing that is right"),
    ],
)
def test_acts_that_hit_nothing_say_why(path, act, reason):
    taskset = screens(path)
    outcome = taskset.environment(eval_tasks(taskset)[0], noise=False).step(act)
    assert outcome.done and not outcome.success and reason in outcome.reason


def test_marks_are_named_instead_of_places(path):
    taskset = screens(path, answer="mark")
    task = eval_tasks(taskset)[1]  # red, the first box
    assert taskset.oracle_act(task) == "click red m1 </act>"
    steps = taskset.environment(task, noise=False).step
    assert steps("click red m1 </act>").success and not steps("click m2 </act>").success
    assert "there is no mark 3" in steps("click m3 </act>").reason
    assert "number of a mark" in steps("click x1 y1 </act>").reason
    plain = screens(path)
    assert not (taskset.pixels(task.state) == plain.pixels(task.state)).all()


def test_blind_sees_nothing(path):
    taskset = screens(path, blind=True)
    assert (taskset.picture("click-color/0/0/0").patches == 255).all()


def test_words_that_training_never_asked_are_one_word(path):
    taskset = screens(path)
    assert taskset._words("Click on the zebra box.") == ["Click", "on", "the", "@other", "box", "."]
    assert "@other" in taskset.vocabulary() and "zebra" not in taskset.vocabulary()


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({"tasks": ("click-colour",)}, "task.tasks"),
        ({"tasks": ()}, "task.tasks"),
        ({"tasks": ("click-color", "click-color")}, "task.tasks"),
        ({"shots": "/nowhere.xz"}, "task.shots"),
        ({"patch": 15}, "task.patch"),
        ({"share": 0.0}, "task.share"),
        ({"shift": 41}, "task.shift"),
        ({"shift": -1}, "task.shift"),
        ({"select": "best"}, "task.select"),
    ],
)
def test_bad_options_are_named(path, options, address):
    with pytest.raises(RecipeError, match=address):
        Screens(**({"shots": str(path), "tasks": ("click-color",)} | options))


def test_the_middle_of_a_place_is_what_is_clicked(path):
    taskset = screens(path)
    assert taskset.place(eval_tasks(taskset)[0].state, "click x0 y3 </act>") == (
        STEP / 2,
        3 * STEP + STEP / 2,
    )


def recipe(path, *settings):
    return load("web-vision", [f"task.shots={path}", 'task.tasks=["click-color"]', *settings])


def test_a_vision_language_model_trains_and_speaks(path, tmp_path):
    words = " ".join(screens(path).vocabulary())
    tokenizer = bpe_of([words], 400, ("<pad>", "<eos>", *MARKS))
    model = vlm_on_disk(tmp_path / "model", tokenizer=tokenizer, max_position_embeddings=512)
    whole = ["layout=shared", "stage.0.until.steps=1", "stage.0.batch=2", "engine.precision=fp32"]
    run.train(recipe(path, f"model.path={model}", *whole), tmp_path / "run", lambda *seen: None)
    last = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][-1]
    assert last["eval_n/act"] == 2 and "eval_grounding/inside" in last
    base = find(tmp_path / "run").folder / "engine" / "base"
    assert (base / "preprocessor_config.json").is_file()  # it opens elsewhere as it opens here
    out = export(tmp_path / "run", to=tmp_path / "out").to / "plan-act"
    assert "AutoModelForImageTextToText.from_pretrained" in (out / "README.md").read_text()
    assert (out / "preprocessor_config.json").is_file()
    films = samples.watch(source.find(tmp_path / "run"), n=1)
    assert len(films) == 1 and films[0].pictures


def test_a_taskset_without_whole_pictures_is_for_models_from_scratch(path, monkeypatch):
    monkeypatch.delattr(Screens, "shown")
    with pytest.raises(RecipeError, match="model.path: screens gives no whole pictures"):
        run.build(recipe(path, "model.path=somewhere"), run.torch_engine)


def test_what_a_taskset_selects_of_a_models_own_patches(path):
    taskset = screens(path, share=0.1)
    shown = taskset.shown(f"click-color/{FIRST}/0/0")
    kept = shown.kept(cut(shown.pixels, 40))
    assert kept.shape == (4, 4) and 0 < kept.sum() < 16
    assert screens(path, select="all").shown(f"click-color/{FIRST}/0/0").kept(cut(shown.pixels, 40)).all()


def test_an_estimate_counts_patches(path):
    found = lengths.seen(recipe(path, "task.select=all", "task.shift=0"), 0.5)
    assert found.prompt == 100 + 7  # @ask and six words


def test_it_trains_speaks_is_watched_and_is_not_exported(path, tmp_path, monkeypatch):
    small = ["model.width=32", "model.mlp=32", "model.layers=2", "stage.0.until.steps=2", "stage.0.batch=4"]
    made = recipe(path, *small, "task.pictures=1")
    run.train(made, tmp_path / "run", lambda *seen: None)
    last = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][-1]
    assert last["eval_n/act"] == 2 and "eval/act@click-color" in last and "eval_grounding/inside" in last
    assert len(list((tmp_path / "run" / "images").iterdir())) >= 1
    with pytest.raises(UserError, match="was trained on pictures"):
        find(tmp_path / "run")
    monkeypatch.chdir(tmp_path)  # where a run is named by a path that is not whole
    films = samples.watch(source.find(Path("run"), None, ["task.pictures=0"]), n=2)
    assert len(films) == 2 and all(film.pictures for film in films)


def test_a_film_shows_the_planners_words_and_not_the_oracles(path):
    taskset = screens(path)
    [task, *_] = eval_tasks(taskset)
    right = f"click {task.state.shot.what}"
    assert [(m.said, m.box) for m in taskset._planned(task, f"{right} </plan>")] == [
        (right, task.state.good[0])
    ]
    [wrong] = taskset._planned(task, "click the </plan>")
    assert (wrong.said, wrong.box, wrong.good) == ("click the", None, False) and right in wrong.note
