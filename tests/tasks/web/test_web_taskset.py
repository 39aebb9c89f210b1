"""The taskset `web` on the episodes that ship: what it promises, what recordings accept, and bad options."""

from __future__ import annotations

import random
import re
import shutil
from importlib.util import find_spec

import pytest
from conftest import Listening

from forethought.core.errors import RecipeError
from forethought.core.types import Turn
from forethought.envs.pool import play
from forethought.envs.web.browser import PROGRAMS
from forethought.recipe.schema import TreeSpec, WorkflowSpec
from forethought.tasks.conformance import conformance
from forethought.tasks.web.splits import FIRST, layout
from forethought.tasks.web.taskset import Web
from forethought.tasks.web.words import shipped
from forethought.workflows.rollout import Rollouts

SMALL = ("click-button", "login-user", "click-tab-2")
SPLITS = ("train", "eval")


@pytest.fixture(scope="module")
def web():
    return Web(tasks=SMALL, pages="recorded")


def draw(web, task, split="eval"):
    rng = random.Random(0)
    while True:
        for level in web.levels:
            [found] = web.family(rng, [level], split)
            if web.origin(found) == task:
                return found


def test_it_keeps_what_a_taskset_promises(web):
    assert [finding for finding in conformance(web) if finding.wrong] == []


def test_splits_are_seeds_and_prompts_are_drawn_anew(web):
    drawn = [web.family(random.Random(i), [1], split)[0] for i in range(20) for split in ("train", "eval")]
    assert all((task.state.shown.seed >= FIRST) == (i % 2 == 0) for i, task in enumerate(drawn))
    one = draw(web, "login-user")
    assert len({Web(tasks=SMALL, pages="recorded").oracle_plan(one), web.oracle_plan(one)}) == 1
    assert "e" in one.prompt and one.prompt.count("@ask") == 1


def shown(web, split):
    return [task.state.shown for level in web.levels for task in web.pool(level, split)]


def test_layouts_are_held_out_whole():
    web = Web(tasks=("click-button", "login-user"), pages="recorded", splits="layout")
    train, held = ({(x.task, layout(x, shipped())) for x in shown(web, split)} for split in ("train", "eval"))
    assert held and not train & held and {task for task, _ in held} == {"click-button"}
    assert web.notes[-1] == "of one layout, so they train and are not measured: login-user"


def test_tasks_are_held_out_whole():
    web = Web(tasks=SMALL, pages="recorded", splits="task", held_out=("click-button",))
    assert {x.task for x in shown(web, "eval")} == {"click-button"}
    assert {x.task for x in shown(web, "train")} == {"login-user", "click-tab-2"}


def test_an_evaluation_takes_each_episode_once_and_imitation_the_first_few():
    web = Web(tasks=SMALL, pages="recorded", demonstrations=2)
    ids = [task.id for level in web.levels for task in web.pool(level, "eval")]
    assert len(set(ids)) == len(ids) == len(shown(web, "eval"))
    rng = random.Random(0)
    drawn = [web.demonstrable(rng, [1])[0].state.shown for _ in range(50)]
    assert len({(x.task, x.seed) for x in drawn}) == 4  # two of click-button, two of click-tab-2
    assert len({web.family(rng, [1], "train")[0].state.shown.seed for _ in range(50)}) > 20


def test_a_task_can_be_trained_more_often_and_is_measured_as_the_others():
    web = Web(tasks=SMALL, pages="recorded", often={"click-button": 9, "click-link": 2})  # not of this run
    assert "task.often changes nothing for click-link: not among task.tasks" in web.notes
    drawn = {split: [web.family(random.Random(i), [1], split)[0] for i in range(200)] for split in SPLITS}
    share = {split: sum(web.origin(x) == "click-button" for x in some) / 200 for split, some in drawn.items()}
    assert 0.8 < share["train"] < 0.97 and 0.4 < share["eval"] < 0.6  # of click-button and click-tab-2
    plain = Web(tasks=SMALL, pages="recorded")
    same = [plain.family(random.Random(i), [1], "eval")[0].id for i in range(200)]
    assert [x.id for x in drawn["eval"]] == same


def test_a_plan_of_a_later_page_is_read_with_its_words(web):
    task = draw(web, "click-tab-2")
    said = web.oracle_plan(task).replace("</plan>", "click :link w7 @; </plan>")
    assert web.parse_plan(task, said).score == 1 and web.judge_plan(task, said).score <= 1


def test_acts_that_are_not_the_oracles_end_the_episode(web):
    task = draw(web, "login-user")
    plan, act = web.demonstrate(task)
    assert (plan.role, act.role) == ("plan", "act")
    [_, good] = play(web.environment(task, False), task, [act.text])
    assert good.done and good.success
    *acts, last = re.split(r"(?<= e\d\d\d) |(?<= e\d\d) |(?<= e\d) ", act.text)
    assert len(acts) == 3 and last == "</act>"
    for wrong, said in (
        (f"{acts[2]} {acts[1]} {acts[0]} </act>", "act 1: click on another element"),
        (f"{acts[0]} </act>", "1 acts where 3 are needed"),
        ("click e1", "does not end with </act>"),
    ):
        [_, bad] = play(web.environment(task, False), task, [wrong])
        assert bad.done and not bad.success and said in bad.reason


def test_a_longer_path_goes_on_with_the_next_page(web):
    task = next(
        t
        for i in range(200)
        if len((t := web.family(random.Random(i), [2], "train")[0]).state.shown.pages) > 1
    )
    turns = web.demonstrate(task)
    assert [turn.role for turn in turns[:4]] == ["plan", "act", None, "plan"]
    acts = [turn.text for turn in turns if turn.role == "act"]
    _, *seen = play(web.environment(task, False), task, acts)
    assert [outcome.done for outcome in seen] == [False] * (len(acts) - 1) + [True] and seen[-1].success
    assert turns[2] == Turn(role=None, text=seen[0].observation) and seen[0].replan


def test_plans_are_judged_by_what_they_do(web):
    task = draw(web, "login-user")
    plan = web.oracle_plan(task)
    assert web.judge_plan(task, plan).score == 1
    assert web.follows(task, plan, [web.demonstrate(task)[1].text]).score == 1
    other = plan.replace(":button Login", ":button #1")
    assert other != plan and web.judge_plan(task, other).score == 1  # other words, the same element
    assert web.meaning(task, other) != web.meaning(task, plan)
    steps = plan.removesuffix(" @; </plan>").split(" @; ")
    swapped = " @; ".join([*reversed(steps), "</plan>"])
    assert "act 1" in web.judge_plan(task, swapped).reason
    nothing = web.judge_plan(task, "click :link @; </plan>")
    assert nothing.score == 0 and "no such element" in nothing.reason


def test_the_oracle_s_next_plan_is_for_the_page_that_an_act_has_led_to(web):
    """A page that asks for more is no failed step: under the oracle's plans perfect acting succeeds."""
    task = next(task for task in web.pool(max(web.levels), "eval") if len(task.state.shown.pages) == 3)
    acts = [turn.text for turn in web.demonstrate(task) if turn.role == "act"]
    script = lambda policy, text, i, seed: acts[text.count("</act>")]
    engine = Listening(web.vocabulary(), web.stops, script=script)
    rollouts = Rollouts(engine, web, WorkflowSpec(name="plan_then_act", options={"replan_after": 1}))
    spec = TreeSpec(counts={"plan": 1, "act": 1}, oracle=("plan",))
    [tree] = rollouts.grow([task], spec, {"plan": "base", "act": "base"}, seed=1)
    plans = [node.text for node in tree.nodes if node.role == "plan"]
    assert plans == [turn.text for turn in web.demonstrate(task) if turn.role == "plan"]
    assert tree.nodes[-1].reward_parts["outcome"] == 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": ["click-button"]}, "task.task: unknown option of web"),
        ({"tasks": "web-13"}, "unknown list or task 'web-13'; did you mean 'web-12'"),
        ({"tasks": ["click-buton"]}, "unknown task of MiniWoB++ 'click-buton'"),
        ({"tasks": ["click-button", "click-button"]}, "named twice"),
        ({"tasks": []}, "names no task"),
        ({"tasks": ["ascending-numbers"]}, "ascending-numbers"),
        ({"pages": "some"}, "task.pages: unknown choice 'some'"),
        ({"events": "touch"}, "task.events"),
        ({"limit": "short"}, "task.limit"),
        ({"attempts": 0}, "task.attempts"),
        ({"levels": [99]}, "web has no level 99"),
        ({"splits": "page"}, "task.splits"),
        ({"splits": "task", "held_out": ("click-tab",)}, "held_out: unknown task of this run 'click-tab'"),
        ({"splits": "task", "held_out": ()}, "some tasks are held out, and others train"),
        ({"held_out": ("click-button",)}, "holds tasks out where task.splits = .task., found 'seed'"),
        ({"splits": "layout", "tasks": ("login-user",)}, "leaves nothing to train on and to measure"),
        ({"demonstrations": -1}, "task.demonstrations"),
        ({"often": {"click-button": 0}}, "task.often.click-button: must be greater than 0, found 0"),
        ({"often": {"click-button": 1e9}}, "task.often.click-button: must be between 0 and 1000"),
        ({"often": {"click-buton": 2}}, "task.often.click-buton: unknown task 'click-buton'; did you mean"),
        ({"often": {"click-button": "x"}}, "task.often.click-button"),
    ],
)
def test_a_bad_option_is_named(options, said):
    with pytest.raises(RecipeError, match=said.replace("+", r"\+")):
        Web(**{"pages": "recorded", "tasks": SMALL, **options})


@pytest.mark.skipif(
    find_spec("playwright") is None or not any(map(shutil.which, PROGRAMS)), reason="needs a Chromium"
)
def test_the_page_itself_judges_what_the_oracle_does():
    web = Web(tasks=SMALL, pages="eval")
    try:
        for name in SMALL:
            task = draw(web, name)
            acts = [turn.text for turn in web.demonstrate(task) if turn.role == "act"]
            _, *seen = play(web.environment(task, False), task, acts)
            assert seen[-1].done and seen[-1].success, (name, seen[-1].reason)
        task = draw(web, "login-user")
        first = " ".join(re.match(r".*? e\d+ ", web.demonstrate(task)[1].text)[0].split()) + " </act>"
        _, *seen = play(web.environment(task, False), task, [first, "click :button e999 </act>"])
        assert [x.done for x in seen] == [False, False] and ":button Login" in seen[0].observation
        assert seen[0].reason == "the page asks for more" and "an id of the page" in seen[1].reason
        assert not web.environment(draw(web, "login-user", "train"), False).step.__qualname__.startswith(
            "Live"
        )
    finally:
        web.close()


def test_a_reader_is_told_the_words_that_slots_stand_for(web):
    task = draw(web, "login-user")
    plan, act = (turn.text for turn in web.demonstrate(task))
    asked, said, done = web.in_words(task, task.prompt, [plan, act])
    assert asked.endswith(f"@ask {task.state.shown.utterance}")
    name = task.state.shown.pages[0].steps[0].value
    assert said.startswith(f"type {name} :textbox Username @;") and name in done
    assert not re.search(r"\bw\d+\b", plan) or not re.search(r"(?<!\S)w\d+(?!\S)", said)
    # of a page that came later where the episode was watched
    longer = next(task for task in web.pool(max(web.levels), "eval") if len(task.state.shown.pages) > 1)
    turns = [turn.text for turn in web.demonstrate(longer) if turn.role]
    web.watch([longer])
    play(web.environment(longer, False), longer, [text for text in turns if "</act>" in text])
    assert not any(re.search(r"(?<!\S)w\d+(?!\S)", text) for text in web.in_words(longer, "", turns))
    web.watch([])
