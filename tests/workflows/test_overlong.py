"""A prompt that leaves no room in the model's context: a status of its own, which trains nothing, is no
failure, and is counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import ACT, HAND, PLAN, RIGHT, desk_choices, desk_recipe, fake_desk, lines_of, nothing, scripted
from test_stage import ONE, reinforce, stage_of

from forethought.core.errors import UserError
from forethought.core.metrics import reduce
from forethought.core.types import Request
from forethought.display.trees import VERDICTS
from forethought.engines.base import overlong, room_of
from forethought.grams.sources import _executions
from forethought.learn.batches import tree_segments
from forethought.learn.credit import CREDITS, assign, preparing_mask
from forethought.learn.curriculum import admit
from forethought.learn.rewards import reward
from forethought.look.records import play
from forethought.measure.evaluate import evaluate
from forethought.measure.probes.plans import format_share
from forethought.recipe.schema import CreditSpec, TreeSpec
from forethought.report.words import no_room
from forethought.runs import run
from forethought.stages.outcome import tree_metrics
from forethought.traces.find import Filter, find
from forethought.traces.judged import judge
from forethought.workflows.rollout import Rollouts

SAME = {"plan": "base", "act": "base"}
PROMPT = 20  # tokens of HAND: a screen of 16, the task of 4
PAID = {"plan": {"outcome": 1.0}, "act": {"outcome": 1.0}}


def right(policy, text, i, seed):
    return PLAN if text.endswith("<plan>") else ACT


def grown(context: int, tree: TreeSpec = TreeSpec(counts={"plan": 2, "act": 2}), say=right, **options):
    rollouts = scripted(say, **options)
    rollouts.engine.context = context
    [tree] = rollouts.grow([HAND], tree, SAME, seed=1)
    return rollouts, tree


def some_long(policy, text, i, seed):
    """Plan 0 is right; plan 1 is as long as its budget and leaves no room."""
    return ["c s e </plan>", "c s e c </plan>"][i] if text.endswith("<plan>") else "v3 </act>"


def partly():
    """Plan 0 is executed, plan 1 leaves no room for its executions."""
    rollouts, tree = grown(PROMPT + 5, say=some_long)
    return rollouts, tree


# Rollouts ---------------------------------------------------------------------------------------------------


def test_room_is_the_budget_or_what_the_context_leaves():
    ask = Request(policy="base", context=(1,) * 10, n=1, stops=(), max_tokens=5)
    assert [room_of(ask, context) for context in (20, 15, 14, 11, 10, 9)] == [5, 5, 4, 1, 0, 0]
    with pytest.raises(UserError, match="a prompt of 0 tokens cannot be continued"):
        room_of(replace(ask, context=()), 20)
    assert (overlong(3).token_ids, overlong(3).logprobs, overlong(3).status, overlong(3).version) == (
        (),
        (),
        "overlong",
        3,
    )


def test_plans_without_room_have_no_verdict_and_are_not_executed():
    rollouts, tree = grown(PROMPT)
    assert [(n.role, n.status, n.token_ids, dict(n.reward_parts)) for n in tree.nodes[1:]] == [
        ("plan", "overlong", (), {})
    ] * 2
    assert tree.nodes[1].reason == "20 tokens before it leave no room in the model's context of 20"
    assert rollouts.engine.waves == 1 and len(rollouts.engine.asked) == 1  # the actor is asked nothing


def test_an_execution_without_room_is_no_failure_of_its_plan():
    _, tree = partly()
    assert [(n.id, n.parent, n.role, n.status) for n in tree.nodes[1:]] == [
        (1, 0, "plan", "finished"),
        (2, 0, "plan", "finished"),
        (3, 1, "act", "truncated"),
        (4, 1, "act", "truncated"),
        (5, 2, "act", "overlong"),
        (6, 2, "act", "overlong"),
    ]
    paid = reward(tree, PAID)
    assert [n.reward for n in paid.nodes[1:]] == [0.0, None, 0.0, 0.0, None, None]
    assert "outcome" not in paid.nodes[2].reward_parts


def test_an_episode_that_runs_out_of_room_has_no_outcome():
    def say(policy, text, i, seed):
        return PLAN if text.endswith("<plan>") else "e x8 y9 </act>"

    _, tree = grown(PROMPT + 4 + 4 + 4, TreeSpec(counts={"plan": 1, "act": 1}), say, stepwise=True)
    assert [(n.role, n.status) for n in tree.nodes[2:]] == [
        ("act", "finished"),
        (None, "given"),
        ("act", "overlong"),
    ]
    assert not any("outcome" in n.reward_parts for n in tree.nodes)


# What learns from them --------------------------------------------------------------------------------------


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_no_credit_reaches_them_and_they_move_nobody_elses(credit, alpha):
    """The tree without the turns that had no room gets the same credit."""
    _, tree = grown(
        PROMPT + 4 + 4,
        TreeSpec(counts={"plan": 3, "act": 2}),
        lambda policy, text, i, seed: (
            ["c s e </plan>", "c s </plan>", "c s e c </plan>"][i]
            if text.endswith("<plan>")
            else ["v3 </act>", "v2 e e e e e e </act>"][i]
        ),
    )
    nodes = [
        replace(n, status="overlong", token_ids=(), logprobs=(), reward_parts={}) if n.id in (5, 9) else n
        for n in tree.nodes
    ]
    nodes = [
        replace(n, reward_parts=n.reward_parts | {"outcome": float(n.id in (6, 7))})
        if n.role == "act" and n.reward_parts
        else n
        for n in nodes
    ]
    spec = CreditSpec(name=credit, alpha=alpha)
    whole = reward(replace(tree, nodes=tuple(nodes)), PAID)
    without = reward(replace(tree, nodes=tuple(n for n in nodes if n.status != "overlong")), PAID)
    found, known = (
        assign(one, spec, ("plan", "act"), planning=preparing_mask(one, "act")) for one in (whole, without)
    )
    assert {i: row for i, row in found.items() if row} == known
    assert any(x for row in known.values() for x in row)


def test_a_batch_has_no_segment_for_what_has_no_tokens():
    rollouts, tree = partly()
    given = assign(reward(tree, PAID), CreditSpec(name="role_baseline"), ("plan", "act"))
    segments = tree_segments(rollouts, [tree], [given], "tokens")
    assert len(segments) == 2 + 4 and all(s.token_ids for s in segments)  # screen, task, two plans, two acts


def test_a_step_in_which_nothing_has_room_moves_nothing_and_counts():
    stage = stage_of(
        reinforce(
            tree=TreeSpec(counts={"plan": 2, "act": 1}),
            ref_kl=0.1,
            credit=CreditSpec(alpha=0.2, mask="entropy"),
        )
    )
    stage.engine.context = 20
    line = reduce(stage.step(0).metrics)
    assert (
        line["overlong/plan"],
        line["groups/overlong"],
        line["groups/all_failed"],
        line["tokens/sampled"],
    ) == (1.0, 2, 0, 0)
    assert stage.engine.weights == {"base": {}} and "reward/plan" not in line


@pytest.mark.parametrize("mask", ["preparing", "entropy", "released", "placebo"])
def test_a_step_learns_from_the_rest(mask):
    def say(policy, text, i, seed):
        if text.endswith("<plan>"):
            return desk_choices(text, "plan")[[RIGHT, 0][i % 2]]
        return desk_choices(text, "act")[RIGHT]

    stage = stage_of(
        reinforce(
            roles=("plan", "act"),
            tree=TreeSpec(counts={"plan": 2, "act": 2}),
            reward={"plan": {"valid": 1.0}},
            credit=CreditSpec(name="role_baseline", alpha=0.2, mask=mask),
            levels=(2,),
        ),
        script=say,
    )
    # the right plan of level 2 has 3 tokens, the wrong one 2, so only that is executed, for a token
    stage.engine.context = 20 + 3
    line = reduce(stage.step(0).metrics)
    assert line["overlong/act"] == 0.5 and line["overlong/plan"] == 0.0 and line["groups/overlong"] == 0
    assert line["loss/pg"] and any(x for x in stage.engine.weights["base"]["plan"])


def test_groups_and_rates_by_hand():
    _, none = grown(PROMPT)
    _, some = partly()
    assert reduce(admit([none], [{}])[1]) == {
        "groups/zero": 1.0,
        "groups/all_solved": 0,
        "groups/all_failed": 0,
        "groups/no_spread": 0,
        "groups/overlong": 1,
    }
    line = reduce(tree_metrics([none, some], ("plan",)))
    assert (line["overlong/plan"], line["overlong/act"], line["truncated/act"], line["refused/plan"]) == (
        0.5,
        0.5,
        0.5,
        0.0,
    )
    assert format_share([none], {}, 0.9) == {}


# What is measured -------------------------------------------------------------------------------------------


def test_an_evaluation_counts_them_as_not_solved_and_says_how_many():
    rollouts = scripted(right)
    easy = replace(HAND, id="easy", level=1, context="c desk x3 y4")  # 8 tokens of prompt leave room for all
    rollouts.engine.context = PROMPT
    found = evaluate(rollouts, [HAND, easy, easy], ONE).metrics
    assert (found["eval_overlong/plan"], found["eval_overlong/act"], found["eval_overlong/e2e"]) == (
        1.0,
        1.0,
        1.0,
    )
    assert (
        found["eval/plan@3"] == found["eval/e2e@3"] == found["eval/act@3"] == 0.0
        and found["eval_n/plan"] == 3
    )
    rollouts.engine.context = 4096
    assert not any(name.startswith("eval_overlong") for name in evaluate(rollouts, [HAND], ONE).metrics)


def test_a_look_at_single_responses_tells_them():
    rollouts = scripted(right)
    rollouts.engine.context = PROMPT
    [record] = play(
        rollouts,
        [HAND],
        SAME,
        TreeSpec(counts={"plan": 1, "act": 1}),
        seed=0,
        noise=False,
        oracle=False,
        rows=8,
    )
    (said,) = record.responses
    assert (said.overlong, said.refused, said.success, said.reason) == (
        True,
        False,
        0.0,
        "the plan had no room, nothing was executed",
    )
    rollouts.engine.context = PROMPT + 4
    [record] = play(
        rollouts,
        [HAND],
        SAME,
        TreeSpec(counts={"plan": 1, "act": 1}),
        seed=0,
        noise=False,
        oracle=False,
        rows=8,
    )
    (said,) = record.responses
    # an act without room votes for nothing
    assert (said.overlong, said.turns[0].tokens, said.texts("act"), said.vote) == (True, 4, (), None)


def test_saved_trees_show_them_as_nobodys_mistake():
    nodes = [
        {"id": 0, "parent": None, "role": None, "text": "", "status": "given"},
        {
            "id": 1,
            "parent": 0,
            "role": "plan",
            "text": "",
            "status": "overlong",
            "reason": "20 tokens before it",
            "reward_parts": {},
        },
        {
            "id": 2,
            "parent": 0,
            "role": "plan",
            "text": "p",
            "status": "finished",
            "reward_parts": {"valid": 1.0},
        },
        {
            "id": 3,
            "parent": 2,
            "role": "act",
            "text": "",
            "status": "overlong",
            "reason": "",
            "reward_parts": {},
        },
    ]
    judged = judge({"step": 1, "nodes": nodes})
    assert [n["verdict"] for n in judged["nodes"]] == ["", "overlong", "right", "overlong"]
    assert (
        judged["signs"] == ["overlong"]
        and judged["solved"] is None
        and judged["nodes"][2]["executions"] == [0, 0]
    )
    assert VERDICTS["overlong"][0] == "no room" and list(_executions(nodes)) == []


def test_the_report_says_it_in_sentences():
    lines = [
        {"eval/e2e": 0.5, "eval_n/plan": 8, "eval_overlong/plan": 3.0},
        {"overlong/plan": 0.0, "overlong/act": 0.1},
        {"overlong/act": 0.2},
        {
            "eval/e2e": 0.5,
            "eval_n/plan": 8,
            "eval_n/e2e": 8,
            "eval_overlong/plan": 1.0,
            "eval_overlong/e2e": 2.0,
        },
    ]
    assert no_room(lines) == [
        "At the last evaluation the model's context had no room for plan in 1 of 8 and e2e in 2 of 8 "
        "held-out tasks, which count as not "
        "solved.",
        "In 2 steps the model's context had no room for some turns; they trained nothing and were not "
        "counted.",
    ]
    assert no_room([*lines[:1], {"eval/e2e": 1.0}]) == no_room([]) == []


# Before and through a run -----------------------------------------------------------------------------------


class Given(Rollouts):
    """Problems that somebody gave: `sizes` tokens of prompt each."""

    def __init__(self, sizes, context):
        base = scripted(right)
        super().__init__(base.engine, base.taskset)
        self.engine.context = context
        self.tasks = [
            replace(HAND, id=str(i), context=" ".join(["e"] * (size - 4))) for i, size in enumerate(sizes)
        ]
        self.taskset.pool = lambda level, split: self.tasks if (level, split) == (3, "train") else []
        self.taskset.longest = lambda n: sorted(self.tasks, key=lambda task: len(task.context))[-n:]


def test_given_problems_may_be_too_long_but_not_all_of_them():
    rollouts = Given([10, 20, 40, 60], context=40)  # a plan takes 5 tokens and acts 12
    rollouts.check_room()
    assert rollouts.notes() == [
        "2 of 4 problems leave less than the 17 tokens that plan and acts may take in the model's context of "
        "40, and 2 of them none at all "
        "(the longest prompt has 60); what has no room is counted as overlong, not as wrong"
    ]
    fits = Given([10, 20], context=40)
    fits.check_room()
    assert fits.notes() == []
    rollouts.check_room(rollouts.tasks[1:3])
    assert rollouts.words.tight.startswith("1 of 2 problems")
    refusal = "desk at level 3 takes prompts of 60 tokens and 17 for plan and acts; the model's context is 40"
    # none fits; none may fail that are demonstrated
    for every in ({"tasks": rollouts.tasks[2:]}, {"demonstrated": True}):
        with pytest.raises(UserError, match=refusal):
            rollouts.check_room(**every)
    with pytest.raises(UserError, match=refusal):
        Given([41, 60], context=40).check_room()


def test_a_run_goes_on_counts_them_and_shows_them(tmp_path, monkeypatch):
    """Plans of level 1 fit in two tokens, and then the context is full."""
    monkeypatch.setattr(Rollouts, "check_room", lambda self, **asked: None)
    stage = {
        "kind": "reinforce",
        "roles": ["act"],
        "until": {"steps": 2},
        "batch": 2,
        "tree": {"plan": 2, "act": 2},
        "reward": {"act": {"outcome": 1.0}},
    }
    recipe = desk_recipe(
        stage, task={"name": "desk", "levels": [1], "widgets": 4}, probes={"every": 0, "conflict_every": 0}
    )
    assert run.train(recipe, tmp_path / "run", nothing, fake_desk(context=22)).status == "done"
    lines = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert (
        lines[0]["eval_overlong/e2e"] == lines[0]["eval_overlong/act"] == 2.0 and lines[0]["eval/e2e"] == 0.0
    )
    assert (lines[1]["overlong/act"], lines[1]["groups/overlong"]) == (1.0, 2) and "tokens/act" not in lines[
        1
    ]
    assert {
        n["status"]
        for tree in find(tmp_path / "run", Filter(signs=("overlong",)), [])
        if tree[1]
        for n in tree[0]["nodes"]
        if n["role"] == "act"
    } == {"overlong"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert (
        "had no room for act in 2 of 2 and e2e in 2 of 2 held-out tasks" in page
        and "In 2 steps the model" in page
    )
