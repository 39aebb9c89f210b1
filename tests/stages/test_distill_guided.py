"""Distillation where tasks are drawn and plans have an exact executor; what tries a plan; another model that
is asked."""

from __future__ import annotations

import gc
import json
import random
import sys
import weakref
from dataclasses import replace

import pytest
from conftest import ACT, HAND, PLAN, RIGHT, desk_choices, desk_recipe, fake_desk, lines_of, nothing, scripted

from forethought.core.errors import RecipeError, UserError
from forethought.core.types import Completion
from forethought.engines.fake.engine import FakeEngine
from forethought.learn.batches import demonstration_segments
from forethought.recipe.kinds.distill import DistillSpec
from forethought.recipe.schema import ModelSpec, WorkflowSpec
from forethought.runs import run
from forethought.stages.distill import files, rules
from forethought.stages.distill.pipeline import distill
from forethought.stages.distill.policy import Policy
from forethought.stages.distill.prompts import Prompt, with_examples
from forethought.stages.distill.records import Item, Usage
from forethought.stages.distill.solvers import Acting, Exact
from forethought.stages.distill.stage import Tools, account, guide, item_of
from forethought.tasks.blocksworld.taskset import Blocksworld
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts

# the families -----------------------------------------------------------------------------------------------

FAMILIES = {
    "words": lambda: Desk((1, 2), widgets=4),
    "json": lambda: Desk((1, 3), widgets=5, plans="json", tags={"plan": "steps", "act": "do"}),
    "stepwise": lambda: Desk((2,), widgets=6, parents=2, stepwise=True),
    "blocksworld": lambda: Blocksworld((2, 4), blocks=(4,)),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]()


def test_the_oracle_is_the_rule_and_none_of_its_plans_leaks(family):
    items = [item_of(worked) for worked in family.worked(12)]
    assert [i.level for i in items] == [family.levels[n % len(family.levels)] for n in range(12)]
    assert len({i.question for i in items}) == 12 and [w.id for w in type(family).worked(family, 12)] == [
        i.id for i in items
    ]
    rows, provenance = distill(items, rules.oracle(family), solver=Exact(family))
    assert (provenance.kept, provenance.drops, provenance.settings["solver"]) == (12, {}, "exact")
    for row, item in zip(rows, items, strict=True):
        plan, *rest = family.demonstrate(item.task)
        assert (f"{row.plan} {family.stops['plan']}", row.chain) == (
            plan.text,
            " ".join(turn.text for turn in rest),
        )
        assert f"{row.answer} {family.stops['act']}" == rest[-1].text


def test_a_family_shows_what_it_showed_before_until_it_is_guided(family):
    level = family.levels[0]
    drawn = lambda draw: draw(random.Random(5), [level, level])  # noqa: E731
    assert drawn(family.demonstrable) == drawn(lambda rng, levels: family.family(rng, levels, "train"))
    worked = family.worked(4)
    plans = {w.id: (family.oracle_plan(w.task).removesuffix(family.stops["plan"]), w.chain) for w in worked}
    before = [family.demonstrate(w.task) for w in worked]
    family.guide(plans)
    # the oracle's own plans change nothing of a task
    assert [family.demonstrate(w.task) for w in worked] == before
    rng = random.Random(0)
    assert {t.id for _ in range(40) for t in drawn_levels(family, rng)} == set(plans)


def drawn_levels(family, rng):
    return family.demonstrable(rng, list(family.levels))


def test_imitation_shows_the_plan_that_was_distilled_and_the_acts_of_the_oracle():
    desk = Desk((1, 2), widgets=4)
    worked = desk.worked(2)
    deep = worked[1]
    goal = deep.task.state.goal
    desk.guide({worked[0].id: (goal, ""), deep.id: (f"  {goal}\n{goal}", "")})  # wrong, but a sentence
    plan, act = desk.demonstrate(deep.task)
    assert plan.text == f"{goal} {goal} </plan>" and act.text == deep.chain
    assert desk.oracle_plan(deep.task) != plan.text  # the oracle knows better, and evaluation asks the oracle
    rollouts = Rollouts(FakeEngine(desk.vocabulary(), desk.stops), desk)
    assert [s.role for s in demonstration_segments(rollouts, [deep.task], [{"plan", "act"}])] == [
        None,
        None,
        "plan",
        "act",
    ]


def test_a_plan_is_shown_in_the_familys_own_spelling():
    desk = Desk((1,), widgets=4, plans="json")
    [worked] = desk.worked(1)
    own = desk.oracle_plan(worked.task)
    squeezed = json.dumps(json.loads(own.removesuffix("</plan>")), separators=(",", ":"), indent=1)
    assert desk.with_plan(worked.task, squeezed, "")[0].text == own


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ({"desk-0": ("a", "")}, "'desk-0' is none of the 2 tasks that desk draws here; distil again"),
        ({0: ("GOAL", "")}, "desk cannot show the plan: word 1"),
        ({0: ("Open the menu first.", "")}, "desk cannot show the plan: word 1"),
        ({0: ("a", "")}, r"no task of level 2 got a plan; distil more tasks \(distill.problems\)"),
    ],
)
def test_what_cannot_be_shown_is_said(plans, message):
    desk = Desk((1, 2), widgets=4)
    ids = [w.id for w in desk.worked(2)]
    with pytest.raises(UserError, match=message):
        desk.guide({ids[key] if isinstance(key, int) else key: value for key, value in plans.items()})


def test_a_family_that_has_no_more_tasks_gives_those_it_has():
    tiny = Desk((3,), widgets=4)
    tiny.family = lambda rng, levels, split: [
        replace(HAND, id=rng.choice("ab"), prompt=f"GOAL {rng.choice('eo')} v0")
    ]
    assert len(tiny.worked(9)) == 2


# what tries a plan ------------------------------------------------------------------------------------------

# c can be reached through o too
BOTH = replace(HAND, state=replace(HAND.state, parents=HAND.state.parents | {"c": ("s", "o")}))


def hand(task=HAND) -> Item:
    return Item(
        id=task.id,
        question=f"{task.context} {task.prompt}",
        chain=ACT,
        answer=ACT.removesuffix(" </act>"),
        task=task,
    )


def test_the_executor_wants_the_goal_by_the_acts_that_are_shown():
    two = Desk((1, 2, 3), widgets=4, parents=2, dead=0)
    assert two.judge_plan(BOTH, "c o </plan>").score == 1.0  # a right plan, but not of these acts
    solver = Exact(two)
    plans = [two.oracle_plan(BOTH).removesuffix(" </plan>"), "c s e", "s e", "c e"]
    item = replace(hand(BOTH), chain=two.demonstrate(BOTH)[1].text)
    assert plans[0] == "c o" and solver([(item, plan) for plan in plans]) == [True, False, False, False]
    assert solver.estimate(9) == solver.spent == Usage()


def trying(*right: int, **fields) -> tuple[Acting, Rollouts]:
    """The acting policy reaches the goal in the tries `right`, under the right plan."""

    def say(policy, text, i, seed):
        return ACT if i in right and "<plan> c s e </plan>" in text else "v3 </act>"

    rollouts = scripted(say)
    return Acting(rollouts, "base", **fields), rollouts


@pytest.mark.parametrize(
    ("right", "share", "kept"),
    [
        ((), 0.0, False),
        ((2,), 0.0, True),
        ((2,), 0.25, True),
        ((2,), 0.3, False),
        ((0, 1, 2, 3), 1.0, True),
        ((0, 1, 2), 1.0, False),
    ],
)
def test_a_plan_is_kept_where_enough_tries_succeed(right, share, kept):
    solver, rollouts = trying(*right, share=share)
    assert solver([(hand(), "c s e")]) == [kept]
    assert rollouts.taskset.oracle_plan(HAND) == PLAN and {r.temperature for r in rollouts.engine.asked} == {
        1.0
    }


def test_tries_and_what_they_took():
    solver, rollouts = trying(0, tries=2, temperature=0.7, batch=1)
    asked = [
        (replace(hand(), id=f"{n}", task=replace(HAND, id=f"{n}")), plan)
        for n, plan in enumerate(["s e", "c s e"])
    ]
    assert solver.estimate(2) == Usage(requests=4, completion_tokens=4 * 12)  # 12 words are an act's budget
    assert solver(asked) == [False, True]
    prompt = len(f"{HAND.context} {HAND.prompt} <plan>".split())  # 16 + 4
    assert (prompt, [(r.n, r.temperature, len(r.context)) for r in rollouts.engine.asked]) == (
        20,
        [(2, 0.7, 23), (2, 0.7, 24)],
    )
    assert solver.spent == Usage(requests=4, prompt_tokens=23 + 24, completion_tokens=2 + 2 + 11 + 2)
    rollouts.engine.context = 23 + 12  # room to act under the shorter plan alone
    rollouts.engine.asked.clear()
    assert solver(asked) == [False, False] and len(rollouts.engine.asked) == 1
    rollouts.engine.context = 10
    assert solver(asked) == [False, False] and len(rollouts.engine.asked) == 1


def test_what_trying_may_take_is_told_before_and_what_it_took_after():
    told, (solver, _) = [], trying(0)
    item = hand()
    other = replace(item, id="2", task=replace(HAND, id="2"))
    rows, provenance = distill(
        [item, other],
        rules.Rules("rules", "made", lambda item: "c s e" if item.id == "hand" else "s"),
        solver=solver,
        tell=told.append,
    )
    assert [row.id for row in rows] == ["hand"] and provenance.drops == {"unsolved": 1}
    assert provenance.settings == {
        "most_chars": 1500,
        "most_numbers": 2,
        "solver": "policy",
        "tries": 4,
        "solved": 0.0,
        "try_temperature": 1.0,
    }
    assert told == [
        "2 of 2 demonstrations to summarise with made, without a request; the plans to be "
        "tried (policy), at most "
        "8 requests, 0 + 96 tokens",
        "1 kept; dropped: unsolved 1; spent no requests; tries: 8 requests, 46 + 25 tokens",
    ]
    assert account(provenance) == (
        "1 of 2 demonstrations have a plan now, by rules (made); dropped: unsolved 1",
        {
            "kept": 1.0,
            "items": 2.0,
            "dropped: unsolved": 1.0,
            "requests": 8.0,
            "prompt_tokens": 46.0,
            "completion_tokens": 25.0,
            "cost": 0.0,
        },
    )


# runs -------------------------------------------------------------------------------------------------------

IMITATE = {"kind": "imitate", "batch": 2, "until": {"steps": 2}}


def distilling(**distill) -> dict:
    return {"kind": "distill", "distill": {"problems": 6} | distill}


@pytest.mark.parametrize("solver", ["none", "exact"])
def test_a_run_on_desk(tmp_path, solver):
    run.train(
        desk_recipe(distilling(solver=solver), IMITATE), tmp_path / "run", nothing, engine_of=fake_desk()
    )
    rows, provenance = files.read(tmp_path / "run" / "guided" / "stage-0")
    assert (len(rows), provenance.summariser, provenance.model, provenance.settings["solver"]) == (
        6,
        "oracle",
        "desk-oracle/1",
        solver,
    )
    [said] = [
        d
        for d in lines_of(tmp_path / "run" / "decisions.jsonl")
        if d["name"] == "distill" and d["outcome"] == "data"
    ]
    assert said["reason"] == "6 of 6 demonstrations have a plan now, by oracle (desk-oracle/1)"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "done" and summary["stages"][0]["distill"] == said["numbers"] == {
        "kept": 6.0,
        "items": 6.0,
    }


def test_a_plan_that_the_policy_cannot_act_under_is_dropped_and_counted(tmp_path):
    """The fake that has not learned acts with the wrong value, whatever the plan."""
    with pytest.raises(UserError, match=r"all 6 plans were dropped \(unsolved 6\)"):
        run.train(
            desk_recipe(distilling(solver="policy", try_temperature=0), IMITATE),
            tmp_path / "run",
            nothing,
            engine_of=fake_desk(),
        )


def test_a_stage_that_kept_nothing_is_tried_again(tmp_path):
    """As after an endpoint that was down all along: its failures are asked again, in the same folder."""
    rollouts = scripted(lambda *_: "v3 </act>")
    tools = Tools(rollouts=rollouts, policies={"act": "base"}, model="")
    with pytest.raises(UserError, match=r"all 3 plans were dropped \(unsolved 3\)"):
        guide(DistillSpec(problems=3, solver="policy"), tools, tmp_path)
    assert guide(DistillSpec(problems=3), tools, tmp_path).kept == 3
    before = (tmp_path / "guided.jsonl").read_bytes()
    # what is there is not made again
    assert guide(DistillSpec(problems=3, solver="policy"), tools, tmp_path).kept == 3
    assert (tmp_path / "guided.jsonl").read_bytes() == before


def test_where_no_plan_is_spoken_the_solutions_are_shown_alone(tmp_path):
    """The baseline of a recipe that distils: the same problems and steps, under a workflow without plans."""
    desk = Desk((1, 2, 3), widgets=4)
    engine = FakeEngine(desk.vocabulary(), desk.stops)
    rollouts = Rollouts(engine, desk, WorkflowSpec(name="act_only"))
    tools = Tools(rollouts=rollouts, policies={"act": "base"}, model="")
    assert guide(DistillSpec(problems=3), tools, tmp_path).kept == 3
    [task] = rollouts.demonstrable(random.Random(0), [1])
    assert {turn.role for turn, _ in rollouts.turns(task)} == {"act"}


def test_a_stopped_run_draws_the_same_tasks_and_reads_its_plans_again(tmp_path):
    class Stop(BaseException):
        pass

    def watch(event):
        if event.kind == "step" and event.step == 1:
            raise Stop

    straight = desk_recipe(distilling(), IMITATE, save={"every": 1})
    run.train(straight, tmp_path / "a", nothing, engine_of=fake_desk())
    with pytest.raises(Stop):
        run.train(straight, tmp_path / "b", watch, engine_of=fake_desk())
    run.resume(tmp_path / "b", nothing, engine_of=fake_desk())
    lines = [lines_of(tmp_path / name / "metrics.jsonl") for name in "ab"]
    clockless = [
        [
            {k: v for k, v in line.items() if not k.startswith(("seconds", "tokens_per_second", "memory/"))}
            for line in run
        ]
        for run in lines
    ]
    assert clockless[0] == clockless[1] and files.read(tmp_path / "a/guided/stage-0") == files.read(
        tmp_path / "b/guided/stage-0"
    )


class Reads(FakeEngine):
    """Another model: it reads any words, and plans rightly what it is asked about, or badly where the goal is
    `bad`."""

    def __init__(self, desk, bad=()):
        super().__init__([*desk.vocabulary(), "Problem:"], desk.stops, script=self.say)
        self.bad, self.heard = bad, []

    def encode(self, text):
        for word in text.split():
            if word not in self.ids:
                self.ids[word] = len(self.words)
                self.words.append(word)
        return super().encode(text)

    def say(self, policy, text, i, seed):
        self.heard.append(text)
        problem = text.rpartition("Problem: ")[2].partition(" Solution:")[0]
        plan = desk_choices(problem, "plan")[RIGHT]
        return "Open it. </plan>" if plan.split()[0] in self.bad else plan


def test_another_model_is_loaded_for_the_plans_alone_and_let_go(tmp_path):
    loaded, alive = [], []
    own = fake_desk()

    def engine_of(recipe, taskset):
        if not recipe.model.path:
            return own(recipe, taskset)
        loaded.append(recipe)
        other = Reads(taskset, bad=worst)
        alive.append(weakref.ref(other))
        heard.append(other.heard)
        return other

    def watch(event):
        if event.kind == "step":
            gone.append(alive[0]() is None)

    heard, gone = [], []
    worst = {Desk((1, 2), widgets=4).worked(6)[3].task.state.goal}
    recipe = desk_recipe(distilling(summariser="model", model={"path": "other"}), IMITATE)
    gc.disable()  # nothing but the stage itself collects
    try:
        run.train(recipe, tmp_path / "run", watch, engine_of=engine_of)
    finally:
        gc.enable()
    assert [r.model.path for r in loaded] == ["other"] and loaded[0].stage == () and gone == [True]
    rows, provenance = files.read(tmp_path / "run" / "guided" / "stage-0")
    lost = provenance.drops["refused"]
    assert (provenance.summariser, provenance.model, len(rows)) == (
        "model",
        "other@0",
        6 - lost,
    ) and lost >= 1
    assert (
        provenance.examples[0].detail
        == "desk cannot show the plan: word 1: found 'Open', expected a widget's name"
    )
    # three worked examples before the question
    assert [text.count("Problem: ") for text in heard[0]] == [1 + 3] * 6
    [said] = [
        d
        for d in lines_of(tmp_path / "run" / "decisions.jsonl")
        if d["name"] == "distill" and d["outcome"] == "data"
    ]
    assert (
        said["reason"].endswith(f"by model (other@0); dropped: refused {lost}")
        and said["numbers"]["requests"] == 6.0
    )


def test_examples_stand_before_the_question():
    item = Item(id="1", question="Q {chain}", chain="C", answer="")
    prompt = with_examples(Prompt("S", "{question}|{chain}"), [(item, "p q")])
    assert prompt.messages(replace(item, question="next")) == [
        {
            "role": "system",
            "content": "S\n\nThe plan is written as in these examples, in the same words and "
            "in no other form.\n\n"
            "Q {chain}|C\n<plan>p q</plan>",
        },
        {"role": "user", "content": "next|C"},
    ]


def test_what_does_not_fit_the_model_is_dropped(tmp_path):
    """A task that the model cannot hold with its plan and acts is no demonstration."""
    rollouts = scripted(lambda *_: "")
    items = [item_of(w) for w in rollouts.taskset.worked(3)]
    tokens = [
        len(f"{i.question} <plan> {rollouts.taskset.oracle_plan(i.task)} {i.chain}".split()) for i in items
    ]
    rollouts.engine.context = tokens[1]
    assert tokens[0] < tokens[1] < tokens[2]
    with pytest.raises(UserError, match="no task of level 3 got a plan"):
        guide(DistillSpec(problems=3), Tools(rollouts=rollouts, policies={}, model=""), tmp_path)
    _, provenance = files.read(tmp_path)
    assert provenance.drops == {"refused": 1}
    [lost] = provenance.examples
    assert (
        lost.detail
        == f"{tokens[2]} tokens with question, plan and chain, more than the model's context of {tokens[1]}"
    )


def test_a_summary_is_read_up_to_its_end():
    """A tokenizer may have one token for the end of the tag and what follows: the plan is not refused for
    it."""

    class Odd(FakeEngine):
        def sample(self, requests):
            return [
                [Completion(token_ids=(0, 1), logprobs=(), status="finished", version=0)] for _ in requests
            ]

    said = Policy(
        Odd(["a", "p</plan><", "<plan>"], {}), "m", prompt=Prompt("", "{question} {chain}"), max_tokens=3
    )
    assert said.summarise([Item(id="1", question="a", chain="a", answer="")])[0].text == "<plan>a p</plan>"


# settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distill", "where", "what"),
    [
        ({"problems": 0}, "problems", "desk draws its tasks without end; say how many are to get plans"),
        ({"tries": 0}, "tries", "must be at least 1"),
        ({"solved": 1.5}, "solved", "a share from 0 to 1 is needed, found 1.5"),
        ({"try_temperature": -1}, "try_temperature", "must be at least 0"),
        ({"summariser": "policy"}, "summariser", "a model from scratch knows the words of desk alone"),
        ({"summariser": "model"}, "model", "give the model that summarises"),
        ({"summariser": "model", "model": {"path": "x", "layers": 9}}, "model", "has sizes"),
        ({"model": {"path": "x"}}, "model", 'is not read with summariser = "rules"'),
    ],
)
def test_settings_that_cannot_work(distill, where, what):
    with pytest.raises(RecipeError, match=what) as error:
        run.build(
            desk_recipe(distilling(**distill), IMITATE),
            engine_of=lambda recipe, taskset: pytest.fail("a model was loaded"),
        )
    assert error.value.where == f"stage.0.distill.{where}"


@pytest.mark.parametrize(
    ("missing", "distill", "where", "extra"),
    [
        ("datasets", {"format": "parquet"}, "format", "data"),
        (
            "httpx",
            {"summariser": "endpoint", "endpoint": {"base_url": "http://a/v1", "model": "m", "key_env": ""}},
            "summariser",
            "distill",
        ),
    ],
)
def test_an_extra_that_is_missing_is_named_before_anything_is_paid(
    monkeypatch, missing, distill, where, extra
):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RecipeError, match=rf"pip install 'forethought\[{extra}\]'") as error:
        run.build(
            desk_recipe(distilling(**distill), IMITATE),
            engine_of=lambda recipe, taskset: pytest.fail("a model was loaded"),
        )
    assert error.value.where == f"stage.0.distill.{where}"


def test_parquet_where_its_extra_is_there(tmp_path):
    pytest.importorskip("datasets", reason="the extra `data` is not installed")
    run.train(
        desk_recipe(distilling(format="parquet"), IMITATE), tmp_path / "run", nothing, engine_of=fake_desk()
    )
    assert sorted(p.name for p in (tmp_path / "run/guided/stage-0").glob("[gp]*")) == [
        "guided.parquet",
        "provenance.json",
    ]
    assert len(files.read(tmp_path / "run/guided/stage-0")[0]) == 6


def test_a_model_to_ask_needs_someone_to_load_it(tmp_path):
    spec = DistillSpec(problems=2, summariser="model", model=ModelSpec(init="", path="x"))
    with pytest.raises(ValueError, match="needs Tools.load"):
        guide(spec, Tools(rollouts=scripted(lambda *_: ""), policies={}, model=""), tmp_path)
