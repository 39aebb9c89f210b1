"""`desk`: what the generator promises over many seeds, and what the judges say to each kind of right and
wrong, by hand."""

from __future__ import annotations

import random
from itertools import product

import pytest
from conftest import opened

from forethought.core.errors import RecipeError
from forethought.core.types import Task
from forethought.recipe.schema import TaskSpec
from forethought.tasks.desk.screens import ROOT, VOID, Goal, depths
from forethought.tasks.desk.taskset import Desk
from forethought.tasks.families import build

KINDS = {
    "plain": {},
    "forks": {"parents": 2},
    "stepwise": {"stepwise": True},
    "both": {"parents": 2, "stepwise": True, "widgets": 12, "dead": 3},
}
LEVELS = (1, 2, 3, 4, 5)
NAME = "expected a widget's name or '</plan>'"


def tasks_of(desk: Desk, seeds: range, split: str = "train", levels: list[int] | None = None) -> list[Task]:
    return [
        task
        for seed in seeds
        for task in desk.family(random.Random(seed), levels or list(desk.levels), split)
    ]


# the generator ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_task_is_what_its_level_and_its_screen_say(kind):
    desk = Desk(LEVELS, **KINDS[kind])
    vocabulary = set(desk.vocabulary())
    assert len(vocabulary) == len(desk.vocabulary())
    for task in tasks_of(desk, range(60)):
        state = task.state
        assert depths(state.parents)[state.goal] == task.level
        # no two widgets on one cell
        assert len(set(state.cells.values())) == len(state.cells) == desk.widgets
        words = task.context.split()
        size = 3 + desk.parents
        listed = {words[i]: tuple(words[i + 1 : i + size]) for i in range(0, len(words), size)}
        # the text is the state
        assert listed == {name: (*state.parents[name], *state.cells[name]) for name in state.cells}
        assert task.prompt == f"GOAL {state.goal} {state.value}"
        assert {*words, *task.prompt.split()} <= vocabulary
        assert all(
            {parent} <= {ROOT, VOID, *state.cells} - {name}
            for name, ps in state.parents.items()
            for parent in ps
        )


def test_a_family_shares_its_screen_and_keeps_the_order_of_levels():
    levels = [5, 1, 3, 3]
    tasks = Desk(LEVELS).family(random.Random(3), levels, "train")
    assert len({task.context for task in tasks}) == 1 and [task.level for task in tasks] == levels
    assert (
        tasks
        == Desk(LEVELS).family(random.Random(3), levels, "train")
        != Desk(LEVELS).family(random.Random(4), levels, "train")
    )


def test_the_splits_share_no_screen_whatever_the_seeds():
    desk = Desk((1,), widgets=2)
    screens = {
        split: {task.context for task in tasks_of(desk, range(1500), split)} for split in ("train", "eval")
    }
    assert len(screens["train"]) > 1400 and len(screens["eval"]) > 1400  # else there is nothing to see
    assert screens["train"] & screens["eval"] == set()
    assert {task.id for task in tasks_of(desk, range(200), "train")} & {
        task.id for task in tasks_of(desk, range(200), "eval")
    } == set()


def test_dead_widgets_are_on_the_screen_and_never_open():
    desk = Desk(LEVELS, parents=2, dead=3)
    for task in tasks_of(desk, range(20)):
        dead = set(task.state.parents) - set(depths(task.state.parents))
        assert len(dead) == 3 and all(set(task.state.parents[name]) <= dead | {VOID} for name in dead)


def test_forks_really_offer_other_ways_and_dead_ends():
    tasks = tasks_of(Desk(LEVELS, parents=2), range(40), levels=[4])
    ways = [paths(task.state, task.state.goal) for task in tasks]
    assert any(len(found) > 1 for found in ways) and all(len(path) == 4 for found in ways for path in found)
    assert any(
        p not in depths(t.state.parents) and p != ROOT
        for t in tasks
        for n in t.state.parents
        for p in t.state.parents[n]
        if n in depths(t.state.parents)
    )


def paths(state: Goal, name: str) -> list[list[str]]:
    """Every way from a widget up to the desk, by exhaustion."""
    return [
        [name] if parent == ROOT else [name, *rest]
        for parent in dict.fromkeys(state.parents.get(name, ()))
        for rest in ([[]] if parent == ROOT else paths(state, parent))
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_the_oracle_is_right_and_within_its_budgets(kind):
    desk = Desk(LEVELS, **KINDS[kind])
    for task in tasks_of(desk, range(30), "eval"):
        plan = desk.oracle_plan(task)
        assert desk.judge_plan(task, plan).score == 1.0
        assert plan.split()[:-1] in paths(task.state, task.state.goal)
        first, *turns = desk.demonstrate(task)
        assert (first.role, first.text) == ("plan", plan)
        acts = [turn.text for turn in turns if turn.role == "act"]
        assert (
            len(plan.split()) <= desk.budgets["plan"]
            and max(len(a.split()) for a in acts) <= desk.budgets["act"]
        )
        assert len(acts) <= desk.turns and desk.follows(task, plan, acts).score == 1.0
        assert {word for turn in turns for word in turn.text.split()} <= set(desk.vocabulary())
        episode = opened(desk, task, 0, noise=True)
        for i, act in enumerate(acts):
            outcome = episode.step(act)
            if i + 1 < len(acts):  # what the demonstration shows is what the simulator says
                assert (
                    not outcome.done
                    and turns[2 * i + 1].role is None
                    and turns[2 * i + 1].text == outcome.observation
                )
        assert (outcome.done, outcome.success, outcome.reason) == (True, True, "")


@pytest.mark.parametrize("kind", ["plain", "forks"])
def test_the_judge_agrees_with_exhaustion(kind):
    """All plans of up to three of the screen's widgets: valid exactly where the exhaustive walk finds
    them."""
    desk = Desk((1, 2, 3), widgets=5, **(KINDS[kind] | ({"dead": 1} if kind == "forks" else {})))
    for task in tasks_of(desk, range(4)):
        names = sorted(task.state.cells)
        valid = paths(task.state, task.state.goal)
        for n in (1, 2, 3):
            for body in product(names, repeat=n):
                assert desk.judge_plan(task, f"{' '.join(body)} </plan>").score == float(list(body) in valid)


# judges, on one screen made by hand -------------------------------------------------------------------------
#
#   desk - e - s - c      e x8 y9   s x5 y7   c x3 y4   o x1 y3
#        - o

TREE = Goal(
    parents={"e": ("desk",), "s": ("e",), "c": ("s",), "o": ("desk",)},
    cells={"e": ("x8", "y9"), "s": ("x5", "y7"), "c": ("x3", "y4"), "o": ("x1", "y3")},
    goal="c",
    value="v3",
)
FORK = Goal(
    parents={
        "e": ("desk", "void"),
        "o": ("desk", "k"),
        "s": ("e", "k"),
        "t": ("e", "o"),
        "c": ("s", "t"),
        "k": ("void", "void"),
    },
    cells={n: (f"x{i}", "y0") for i, n in enumerate("eostck")},
    goal="c",
    value="v3",
)


def made(state: Goal) -> Task:
    return Task(id="t", taskset="desk", level=3, context="", prompt="GOAL c v3", state=state)


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ("c s e </plan>", ""),
        ("s e </plan>", "word 1: the plan is for s, the goal is c"),
        ("e s c </plan>", "word 1: the plan is for e, the goal is c"),
        ("c e </plan>", "word 1: c does not hang from e"),
        ("c s </plan>", "word 2: s does not hang from desk"),
        ("c s e o </plan>", "word 3: e does not hang from o"),
        ("c s s e </plan>", "word 2: s does not hang from s"),
        ("c w </plan>", "word 1: c does not hang from w"),  # a name that is not on the screen
        ("c s e", f"word 4: found the end of the text, {NAME}"),
        ("", "word 1: found the end of the text, expected a widget's name"),
        ("</plan>", "word 1: found '</plan>', expected a widget's name"),
        ("c s desk </plan>", f"word 3: found 'desk', {NAME}"),
        ("c x3 y4 </plan>", f"word 2: found 'x3', {NAME}"),
        ("c s e </plan> </plan>", "word 5: found '</plan>', expected the end of the text"),
        ("c s e a b d f </plan>", "word 7: found 'f', one more than the 6 that may stand in a row"),
    ],
)
def test_a_plan_is_judged_with_the_reason(plan, reason):
    judged = Desk(LEVELS).judge_plan(made(TREE), plan)
    assert (judged.score, judged.reason) == (float(not reason), reason)


def test_what_the_grammar_accepts_and_the_executor_does_not_is_told_apart():
    desk = Desk(LEVELS)
    assert desk.parse_plan(made(TREE), "c e </plan>").score == 1.0
    assert desk.parse_plan(made(TREE), "c desk </plan>").score == 0.0


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("e x8 y9 s x5 y7 c x3 y4 v3 </act>", ""),
        ("o x8 y9 a x5 y7 v1 x3 y4 v3 </act>", ""),  # the name is a comment, only coordinates count
        ("o x1 y3 e x8 y9 s x5 y7 c x3 y4 v3 </act>", ""),  # a click too many does no harm
        ("e x8 y9 s x5 y7 c x3 y4 v4 </act>", "the value set was 'v4', the goal's is 'v3'"),
        ("e x8 y9 s x5 y7 c x3 y4 </act>", "the value set was '', the goal's is 'v3'"),
        ("e x8 y9 s x5 y7 c x3 y4 v3 v3 </act>", "the value set was 'v3 v3', the goal's is 'v3'"),
        ("e x8 y9 s x5 y7 c x3 y4 v3", "the acting does not end with </act>"),
        ("", "the acting does not end with </act>"),
        ("e x8 y9 s x5 y7 v3 </act>", "the last click was on s, the goal is c"),
        ("v3 </act>", "nothing was clicked, the goal is c"),
        ("</act>", "nothing was clicked, the goal is c"),
        ("s x5 y7 c x3 y4 v3 </act>", "s was clicked before e was open"),
        ("e x8 y9 c x3 y4 v3 </act>", "c was clicked before s was open"),
        ("e x9 y9 s x5 y7 c x3 y4 v3 </act>", "nothing is at x9 y9"),
        ("e y9 x8 s x5 y7 c x3 y4 v3 </act>", "nothing is at y9 x8"),
        ("e x8 y9 s x5 y7 c x3 y4 c x3 y4 v3 </act>", ""),
    ],
)
def test_an_act_is_judged_with_the_reason(act, reason):
    outcome = opened(Desk(LEVELS), made(TREE), 0, noise=True).step(act)
    assert (outcome.done, outcome.success, outcome.reason) == (True, not reason, reason)


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ("c s e </plan>", ""),
        ("c t e </plan>", ""),
        ("c t o </plan>", ""),  # three ways
        ("c s o </plan>", "word 2: s does not hang from o"),
        ("c s k </plan>", "word 3: k does not hang from desk"),  # k hangs from void: a dead end
        ("c t o k </plan>", "word 4: k does not hang from desk"),
        ("c s e void </plan>", f"word 4: found 'void', {NAME}"),
    ],
)
def test_with_forks_every_way_is_right_and_a_dead_end_is_not(plan, reason):
    judged = Desk(LEVELS, parents=2).judge_plan(made(FORK), plan)
    assert (judged.score, judged.reason) == (float(not reason), reason)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("e x0 y0 t x3 y0 c x4 y0 v3 </act>", ""),
        ("o x1 y0 t x3 y0 c x4 y0 v3 </act>", ""),
        ("o x1 y0 s x2 y0 c x4 y0 v3 </act>", "s was clicked before e or k was open"),
        ("k x5 y0 s x2 y0 c x4 y0 v3 </act>", "k was clicked before void or void was open"),
    ],
)
def test_with_forks_either_parent_opens_and_a_dead_one_never_does(act, reason):
    outcome = opened(Desk(LEVELS, parents=2), made(FORK), 0, noise=True).step(act)
    assert (outcome.success, outcome.reason) == (not reason, reason)


# one click a turn -------------------------------------------------------------------------------------------


def steps(*acts: str) -> list[tuple[bool, bool, str | None, str]]:
    episode = opened(Desk(LEVELS, stepwise=True), made(TREE), 0, noise=True)
    return [(o.done, o.success, o.observation, o.reason) for o in map(episode.step, acts)]


def test_stepwise_shows_what_a_click_opened():
    assert steps("e x8 y9 </act>", "s x5 y7 </act>", "c x3 y4 v3 </act>") == [
        (False, False, "<obs> s x5 y7 </obs>", ""),
        (False, False, "<obs> c x3 y4 </obs>", ""),
        (True, True, None, ""),
    ]
    assert steps("o x1 y3 </act>") == [(False, False, "<obs> </obs>", "")]


@pytest.mark.parametrize(
    ("acts", "reason"),
    [
        (["e x8 y9 </act>", "c x3 y4 v3 </act>"], "c was clicked before s was open"),
        (["e x8 y9 v3 </act>"], "the last click was on e, the goal is c"),
        (
            ["e x8 y9 </act>", "s x5 y7 </act>", "c x3 y4 v0 </act>"],
            "the value set was 'v0', the goal's is 'v3'",
        ),
        (["e x8 y9 </act>", "</act>"], "nothing was clicked, the goal is c"),
        (["e x8 y9"], "the acting does not end with </act>"),
        (["e x8 y9 </act>"] * 5, "the last click was on e, the goal is c"),  # five turns are all it has
        (
            ["e x8 y9 </act>", "s x5 y7 </act>", *["c x3 y4 </act>"] * 3],
            "the value set was '', the goal's is 'v3'",
        ),
    ],
)
def test_stepwise_ends_with_the_first_mistake(acts, reason):
    found = steps(*acts)
    assert [done for done, *_ in found] == [False] * (len(acts) - 1) + [True]
    assert found[-1] == (True, False, None, reason)


# follows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "acts", "reason"),
    [
        ("c s e </plan>", ["e x8 y9 s x5 y7 c x3 y4 v3 </act>"], ""),
        ("c e </plan>", ["e x8 y9 c x3 y4 v3 </act>"], ""),  # a wrong plan, executed faithfully
        (
            "c s e </plan>",
            ["e x8 y9 c x3 y4 v3 </act>"],
            "turn 1: expected 'e x8 y9 s x5 y7 c x3 y4 v3 </act>', found 'e x8 y9 c x3 y4 v3 </act>'",
        ),
        (
            "c s e </plan>",
            ["o x8 y9 s x5 y7 c x3 y4 v3 </act>"],  # it succeeds, but the comment is not the plan's
            "turn 1: expected 'e x8 y9 s x5 y7 c x3 y4 v3 </act>', found 'o x8 y9 s x5 y7 c x3 y4 v3 </act>'",
        ),
        ("c s e </plan>", [], "0 turns where the plan needs 1"),
        ("c s e </plan>", ["e x8 y9 s x5 y7 c x3 y4 v3 </act>", "</act>"], "2 turns where the plan needs 1"),
        (
            "c w </plan>",
            ["w x1 y1 c x3 y4 v3 </act>"],
            "turn 1: expected 'w ? ? c x3 y4 v3 </act>', found 'w x1 y1 c x3 y4 v3 </act>'",
        ),
        ("c desk </plan>", ["c x3 y4 v3 </act>"], f"word 2: found 'desk', {NAME}"),
    ],
)
def test_follows_judges_the_execution_and_not_the_plan(plan, acts, reason):
    judged = Desk(LEVELS).follows(made(TREE), plan, acts)
    assert (judged.score, judged.reason) == (float(not reason), reason)


def test_follows_turn_by_turn():
    desk, task, plan = Desk(LEVELS, stepwise=True), made(TREE), "c s e </plan>"
    acts = ["e x8 y9 </act>", "s x5 y7 </act>", "c x3 y4 v3 </act>"]
    assert desk.follows(task, plan, acts).score == 1.0
    assert desk.follows(task, plan, acts[:2]).reason == "2 turns where the plan needs 3"
    assert (
        desk.follows(task, plan, ["e x8 y9 </act>", "o x1 y3 </act>"]).reason
        == "turn 2: expected 's x5 y7 </act>', found 'o x1 y3 </act>'"
    )


# noise ------------------------------------------------------------------------------------------------------

N = 4000
ACT = "e x8 y9 s x5 y7 c x3 y4 v3 </act>"


def rate(act: str, noise: bool, **options) -> float:
    desk = Desk(LEVELS, **options)
    return sum(opened(desk, made(TREE), f"noise/{i}", noise=noise).step(act).success for i in range(N)) / N


def within(p: float) -> float:
    return 4 * (p * (1 - p) / N) ** 0.5  # four standard deviations of a binomial


@pytest.mark.parametrize(
    ("options", "act", "p"),
    [
        ({"slip": 0.2}, ACT, 0.8**3),  # each of three clicks
        ({"slip": 0.2}, ACT.replace("v3", "v4"), 0.0),
        ({"flip": 0.3}, ACT, 0.7),
        ({"flip": 0.3}, "v3 </act>", 0.3),
        ({"slip": 0.2, "flip": 0.1}, ACT, 0.8**3 * 0.9 + (1 - 0.8**3) * 0.1),
    ],
)
def test_slips_and_flips_come_at_their_rates_and_only_with_noise(options, act, p):
    assert rate(act, True, **options) == pytest.approx(p, abs=within(p))
    assert rate(act, False, **options) == float(act == ACT)


def test_noise_says_so():
    assert (
        opened(Desk(LEVELS, slip=1.0), made(TREE), 0, noise=True).step(ACT).reason == "the click on e slipped"
    )
    flipped = Desk(LEVELS, flip=1.0)
    assert opened(flipped, made(TREE), 0, noise=True).step(ACT).reason == "flipped verdict (success)"
    lucky = opened(flipped, made(TREE), 0, noise=True).step("v3 </act>")
    assert (lucky.success, lucky.reason) == (True, "flipped verdict (nothing was clicked, the goal is c)")


def test_noise_comes_from_the_episodes_own_generator():
    desk = Desk(LEVELS, slip=0.5)
    outcomes = [[opened(desk, made(TREE), i, noise=True).step(ACT) for i in range(30)] for _ in range(2)]
    assert outcomes[0] == outcomes[1] and {o.success for o in outcomes[0]} == {True, False}


# bad options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "options", "message"),
    [
        ((9,), {}, "task.levels: desk has levels 1 to 7 and needs a widget for each; found 9"),
        ((0, 1), {}, "task.levels: desk has levels 1 to 7 and needs a widget for each; found 0"),
        (
            (7,),
            {"stepwise": True},
            "task.levels: desk has levels 1 to 6 and needs a widget for each; found 7",
        ),
        ((5,), {"widgets": 4}, "task.levels: desk has levels 1 to 7 and needs a widget for each; found 5"),
        (
            (4,),
            {"widgets": 5, "parents": 2},
            "task.levels: desk has levels 1 to 7 and needs a widget for each; found 4",
        ),
        ((), {"widgets": 4}, "task.levels: desk has levels 1 to 7 and needs a widget for each; found 5"),
        ((1,), {"widget": 4}, "task.widget: unknown option of desk 'widget'; did you mean 'widgets'?"),
        ((1,), {"widgets": 25}, "task.widgets: 2 to 24 widgets have names, found 25"),
        ((1,), {"widgets": 1}, "task.widgets: 2 to 24 widgets have names, found 1"),
        ((1,), {"widgets": "ten"}, "task.widgets: expected a whole number, found the text 'ten'"),
        ((1,), {"widgets": True}, "task.widgets: expected a whole number, found the truth value true"),
        ((1,), {"stepwise": 1}, "task.stepwise: expected true or false, found the whole number 1"),
        ((1,), {"parents": 3}, "task.parents: a widget lists 1 or 2 parents, found 3"),
        ((1,), {"parents": 2, "dead": 10}, "task.dead: 0 to 9 widgets can hang from void, found 10"),
        ((1,), {"slip": 1.5}, "task.slip: must be between 0 and 1, found 1.5"),
        ((1,), {"flip": -0.1}, "task.flip: must be between 0 and 1, found -0.1"),
        ((1,), {"bushiness": float("nan")}, "task.bushiness: expected a finite number, found nan"),
    ],
)
def test_a_bad_option_is_named(levels, options, message):
    with pytest.raises(RecipeError) as caught:
        Desk(levels, **options)
    assert str(caught.value).startswith(message)


def test_a_whole_number_is_a_probability_too():
    assert Desk((1,), slip=1).slip == 1


def test_a_level_that_was_not_set_up_is_refused():
    with pytest.raises(RecipeError, match=r"levels: desk was set up for levels \[1, 2\], found 3"):
        Desk((1, 2)).family(random.Random(0), [1, 3], "train")


def test_an_unknown_family_names_the_nearest():
    with pytest.raises(RecipeError, match="task.name: unknown task 'dsk'; did you mean 'desk'?"):
        build(TaskSpec(name="dsk"))
    assert build(TaskSpec(name="desk", levels=(2, 4), options={"widgets": 6})).levels == (2, 4)
