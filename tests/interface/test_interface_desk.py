"""`desk` with plans as JSON steps: the same plans, judged alike, from the oracle to the rollouts."""

from __future__ import annotations

import json
import random
from itertools import product

import pytest
from conftest import HAND, Listening, opened

from forethought.core.errors import RecipeError
from forethought.interface.result import Parsed, Refusal
from forethought.recipe.convert import from_dict, to_dict
from forethought.recipe.schema import TreeSpec
from forethought.tasks.desk.taskset import Desk
from forethought.tasks.families import build
from forethought.workflows.rollout import Rollouts

LEVELS = (1, 2, 3)
PLAN = (
    '[{"op": "open", "target": "widget e in the desk area"}, {"op": "open", "target": "widget s in the e '
    'area"}, '
    '{"op": "set", "target": "widget c in the s area", "value": "v3"}] </plan>'
)
ACT = "e x8 y9 s x5 y7 c x3 y4 v3 </act>"


def desk(**options) -> Desk:
    return Desk(LEVELS, widgets=4, **({"plans": "json"} | options))


def said(*steps: tuple[str, ...]) -> str:
    """A JSON plan of (op, widget, area[, value]) steps."""
    objects = [
        {"op": op, "target": f"widget {name} in the {area} area"} | ({"value": value[0]} if value else {})
        for op, name, area, *value in steps
    ]
    return f"{json.dumps(objects)} </plan>"


def test_the_oracle_speaks_json_and_acts_as_before():
    assert (
        desk().oracle_plan(HAND)
        == PLAN
        == said(("open", "e", "desk"), ("open", "s", "e"), ("set", "c", "s", "v3"))
    )
    plan, act = desk().demonstrate(HAND)
    assert (plan.text, act.text) == (PLAN, ACT) and desk(plans="words").demonstrate(HAND)[1] == act
    assert desk().judge_plan(HAND, PLAN).score == desk().follows(HAND, PLAN, [ACT]).score == 1.0
    # three steps that open, one that sets, the closing tag
    assert desk().budgets == {"plan": 3 * 9 + 11 + 1, "act": 12}


@pytest.mark.parametrize("options", [{}, {"parents": 2, "dead": 1}, {"stepwise": True}])
def test_tasks_do_not_depend_on_the_language_and_every_word_is_known(options):
    spoken, words = desk(**options), desk(plans="words", **options)
    vocabulary = spoken.vocabulary()
    assert (
        len(set(vocabulary)) == len(vocabulary)
        and vocabulary[: len(words.vocabulary())] == words.vocabulary()
    )
    for seed in range(40):
        tasks = spoken.family(random.Random(seed), list(LEVELS), "train")
        assert tasks == words.family(random.Random(seed), list(LEVELS), "train")
        for task in tasks:
            plan, *acts = spoken.demonstrate(task)
            assert acts == words.demonstrate(task)[1:]
            assert (
                set(plan.text.split()) <= set(vocabulary) and len(plan.text.split()) <= spoken.budgets["plan"]
            )
            assert spoken.judge_plan(task, plan.text).score == 1.0
            assert spoken.follows(task, plan.text, [t.text for t in acts if t.role]).score == 1.0


def test_both_languages_say_the_same_plans_and_judge_them_alike():
    """All paths of one to three of the screen's widgets, right and wrong: read back, scored alike, and
    followed by the same acts."""
    spoken, words = desk(), desk(plans="words")
    scores = []
    for n in (1, 2, 3):
        for path in product("esco", repeat=n):
            a, b = spoken.language.render(path, "v3"), words.language.render(path, "v3")
            assert spoken.language.parse(a).value.path == words.language.parse(b).value.path == path
            scores.append(spoken.judge_plan(HAND, a).score)
            assert scores[-1] == words.judge_plan(HAND, b).score
            acts = [" ".join(" ".join((x, *HAND.state.cells[x])) for x in reversed(path)) + " v3 </act>"]
            assert spoken.follows(HAND, a, acts) == words.follows(HAND, b, acts)
    assert sum(scores) == 1 and len(scores) == 4 + 16 + 64


@pytest.mark.parametrize(
    ("plan", "parses", "reason"),
    [
        (said(("set", "c", "desk", "v3")), 1, "step 1: c does not hang from desk"),
        (
            said(("open", "o", "desk"), ("open", "s", "o"), ("set", "c", "s", "v3")),
            1,
            "step 2: s does not hang from o",
        ),
        (said(("open", "e", "desk"), ("set", "s", "e", "v3")), 1, "step 2: the plan is for s, the goal is c"),
        (PLAN.replace("v3", "v4"), 1, "step 3: the plan sets v4, the goal's value is v3"),
        (
            said(("open", "e", "desk"), ("set", "c", "s", "v3")),
            0,
            "step 2: c is described in the s area, but the step before it opens e",
        ),
        (
            said(("open", "s", "e"), ("set", "c", "s", "v3")),
            0,
            "step 1: s is described in the e area, but the first step is in the desk area",
        ),
        (
            said(("open", "e", "desk")),
            0,
            "step 1: found 'open', expected 'set': the last step sets the value, those before it open",
        ),
        (
            said(("set", "e", "desk", "v3"), ("set", "s", "e", "v3")),
            0,
            "step 1: found 'set', expected 'open': the last step sets the value, those before it open",
        ),
        (
            said(("set", "c", "desk", "v8")),
            0,
            "step 1: found the value 'v8', expected one of v0, v1, v2, v3, v4, v5, v6, v7",
        ),
        (
            said(("set", "C", "desk", "v3")),
            0,
            "step 1: its target, word 2: found 'C', expected a widget's name",
        ),
        (
            said(("set", "c", "void", "v3")),
            0,
            "step 1: its target, word 5: found 'void', expected 'desk' or a widget's name",
        ),
        (
            PLAN.replace("widget e in the desk area", "the top left"),
            0,
            "step 1: its target, word 1: found 'the', expected 'widget'",
        ),
        (
            PLAN.replace("widget e", "x8 y9"),
            0,
            "character 27: step 1: the target 'x8 y9 in the desk area' gives "
            "coordinates ('8 y9'); "
            "describe the element in words",
        ),
        (said(("set", "c", "desk")), 0, "character 2: step 1: 'set' needs a 'value'"),
        (
            said(*[("open", "e", "desk")] * 5),
            0,
            "character 222: step 5 begins here, and a plan has at most 4",
        ),
        ("[] </plan>", 0, "character 1: 0 steps, at least 1 are needed"),
        (PLAN[:-8], 0, f"character {len(PLAN) - 7}: found the end of the text, expected '</plan>'"),
        (PLAN + " </plan>", 0, f"character {len(PLAN) + 2}: nothing may follow '</plan>', found '</plan>'"),
        ("c s e </plan>", 0, "character 1: found 'c', expected '['"),
        ("", 0, "character 1: found the end of the text, expected '</plan>'"),
    ],
)
def test_a_plan_is_judged_with_position_and_reason(plan, parses, reason):
    parsed, judged = desk().parse_plan(HAND, plan), desk().judge_plan(HAND, plan)
    assert (parsed.score, judged.score, judged.reason) == (parses, 0.0, reason)
    assert parsed.reason == ("" if parses else reason)
    if not parses:
        assert desk().follows(HAND, plan, [ACT]).reason == reason


def test_any_white_space_and_order_of_keys_is_json():
    compact = (
        PLAN.replace('", "', '","')
        .replace('": "', '":"')
        .replace("}, {", "},\n{")
        .replace(" </plan>", "</plan>")
    )
    assert compact != PLAN and desk().judge_plan(HAND, compact).score == 1.0
    assert (
        desk().meaning(HAND, compact)
        == desk().meaning(HAND, PLAN)
        != desk().meaning(HAND, PLAN.replace("v3", "v4"))
    )
    assert desk().judge_plan(
        HAND, '[{"value": "v3", "target": "widget c in the desk area", "op": "set"}]</plan>'
    ).reason == ("step 1: c does not hang from desk")


def test_a_plan_with_another_value_is_followed_by_setting_that_value():
    wrong = PLAN.replace("v3", "v4")
    assert desk().follows(HAND, wrong, [ACT.replace("v3", "v4")]).score == 1.0
    assert desk().follows(HAND, wrong, [ACT]).score == 0.0


def test_random_text_is_a_plan_or_refused():
    rng, language, counts = random.Random("plan"), desk().language, {Parsed: 0, Refusal: 0}
    pieces = [*language.words(), *"escx", "desk", "</plan>", "{", "\x00", "\ud800"]
    for _ in range(3000):
        words = PLAN.split()
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(words) + 1)
            words[at : at + rng.randrange(3)] = [rng.choice(pieces)]
        answer = language.parse(" ".join(words))
        counts[type(answer)] += 1
        if isinstance(answer, Parsed):
            assert language.parse(language.render(answer.value.path, answer.value.value)) == answer
    assert min(counts.values()) > 300


def test_rollouts_keep_a_refused_plan_and_execute_the_others():
    refused = "c s e </plan>"
    texts = iter([PLAN, refused])
    taskset = desk()

    def say(policy, text, i, seed):
        return ACT if "</plan>" in text else next(texts)

    rollouts = Rollouts(Listening(taskset.vocabulary(), taskset.stops, script=say), taskset)
    [tree] = rollouts.grow(
        [HAND], TreeSpec(counts={"plan": 2, "act": 1}), {"plan": "base", "act": "base"}, seed=1
    )
    assert [(n.status, n.reason, dict(n.reward_parts)) for n in tree.nodes[1:3]] == [
        ("finished", "", {"format": 1.0, "valid": 1.0}),
        ("refused", "character 1: found 'c', expected '['", {"format": 0.0, "valid": 0.0}),
    ]
    assert [(n.parent, dict(n.reward_parts)) for n in tree.nodes[3:]] == [
        (1, {"format": 1.0, "outcome": 1.0, "follows": 1.0})
    ]


# tags -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plans", ["words", "json"])
def test_other_tags_are_other_words_and_nothing_else(plans):
    plain, named = desk(plans=plans), desk(plans=plans, tags={"plan": "steps", "act": "do"})
    swap = lambda text: text.replace("plan>", "steps>").replace("</act>", "</do>")  # noqa: E731
    assert named.stops == {"plan": "</steps>", "act": "</do>"} and named.budgets == plain.budgets
    assert named.vocabulary() == [swap(word) for word in plain.vocabulary()]
    for a, b in zip(*(d.family(random.Random(5), list(LEVELS), "eval") for d in (plain, named)), strict=True):
        shown = [t.text for t in named.demonstrate(b)]
        assert (b.prompt, shown) == (swap(a.prompt), [swap(t.text) for t in plain.demonstrate(a)])
        assert named.judge_plan(b, shown[0]).score == named.follows(b, shown[0], shown[1:]).score == 1.0
        assert opened(named, b, 0, noise=True).step(shown[1]).success
        assert not named.parse_plan(b, plain.oracle_plan(a)).score
        old = opened(named, b, 0, noise=True).step(shown[1].replace("</do>", "</act>"))
        assert old.reason == "the acting does not end with </do>"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plans": "yaml"}, "task.plans: unknown choice 'yaml' (known: json, path, words)"),
        ({"plans": 1}, "task.plans: expected one of 'words', 'path', 'json', found the whole number 1"),
        ({"tags": "steps"}, "task.tags: expected a table, found the text 'steps'"),
        ({"tags": {"pan": "steps"}}, "task.tags.pan: unknown tag 'pan'; did you mean 'plan'?"),
        (
            {"tags": {"plan": "my plan"}},
            "task.tags: the tag of plan is a name of letters, digits, _ and -, such "
            "as 'plan'; found 'my plan'",
        ),
        ({"tags": {"plan": 3}}, "task.tags.plan: expected text, found the whole number 3"),
        ({"tags": {"plan": "act"}}, "task.tags: two sections share a tag"),
        (
            {"tags": {"act": "obs"}},
            "task.tags: 'obs' is the tag of observations; give plan and act other names",
        ),
    ],
)
def test_a_bad_option_is_named(options, message):
    with pytest.raises(RecipeError) as caught:
        desk(**options)
    assert str(caught.value).startswith(message)


def test_a_recipe_holds_the_options():
    table = {"name": "desk", "levels": [1, 2], "plans": "json", "tags": {"plan": "steps"}}
    recipe = from_dict({"task": table})
    assert from_dict(to_dict(recipe)) == recipe
    assert build(recipe.task).stops == {"plan": "</steps>", "act": "</act>"}
