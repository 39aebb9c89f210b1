"""From tasks to trees, with a script for a model: what is asked, what is kept, what is never executed."""

from __future__ import annotations

from collections import Counter

import pytest
from conftest import ACT, HAND, PLAN, Listening, desk_choices, scripted

from forethought.core.errors import UserError
from forethought.core.seeds import seed_of
from forethought.core.types import Outcome
from forethought.envs.base import Environment
from forethought.envs.guarded import guarded
from forethought.recipe.schema import LimitSpec, TreeSpec
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts

SAME = {"plan": "base", "act": "base"}


def say(*plans: str, act=ACT):
    """Sample i of a plan request says plans[i]; every act is `act`."""
    return lambda policy, text, i, seed: (
        plans[i] if text.endswith("<plan>") else act(text, i) if callable(act) else act
    )


def rows(tree) -> list[tuple]:
    return [(n.id, n.parent, n.role, n.text, n.status) for n in tree.nodes]


# plan, then act ---------------------------------------------------------------------------------------------


def test_a_tree_of_m_plans_and_z_executions():
    rollouts = scripted(say(PLAN, "c e </plan>", act=lambda text, i: ACT if i == 0 else "o x1 y3 v3 </act>"))
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 2, "act": 2}), SAME, seed=1)
    wrong = "o x1 y3 v3 </act>"
    assert rows(tree) == [
        (0, None, None, f"{HAND.context} {HAND.prompt} <plan>", "given"),
        # it is wrong, but it is a plan
        (1, 0, "plan", PLAN, "finished"),
        (2, 0, "plan", "c e </plan>", "finished"),
        (3, 1, "act", ACT, "finished"),
        (4, 1, "act", wrong, "finished"),
        (5, 2, "act", ACT, "finished"),
        (6, 2, "act", wrong, "finished"),
    ]
    assert [dict(n.reward_parts) for n in tree.nodes] == [
        {},
        {"format": 1.0, "valid": 1.0},
        {"format": 1.0, "valid": 0.0},
        {"format": 1.0, "outcome": 1.0, "follows": 1.0},
        {"format": 1.0, "outcome": 0.0, "follows": 0.0},
        {"format": 1.0, "outcome": 1.0, "follows": 0.0},
        {"format": 1.0, "outcome": 0.0, "follows": 0.0},
    ]
    assert [n.reason for n in tree.nodes] == [
        "",
        "",
        "word 1: c does not hang from e",
        "",
        "the last click was on o, the goal is c",
        "",
        "the last click was on o, the goal is c",
    ]
    encode = rollouts.engine.encode
    assert all(n.token_ids == encode(n.text) for n in tree.nodes)
    assert [n.policy for n in tree.nodes] == [None] + ["base"] * 6
    assert all(len(n.logprobs) == (len(n.token_ids) if n.policy else 0) for n in tree.nodes)


def test_what_each_policy_is_asked():
    rollouts = scripted(say(PLAN, PLAN))
    rollouts.engine.fork("base", "planner")
    rollouts.engine.publish("planner")
    spec = TreeSpec(counts={"plan": 2, "act": 3}, temperature=0.7, top_p=0.9, top_k=7, min_p=0.1)
    [tree] = rollouts.grow([HAND], spec, {"plan": "planner", "act": "base"}, seed=1)
    plan, *acts = rollouts.engine.asked
    screen = f"{HAND.context} {HAND.prompt} <plan>"
    assert (plan.policy, rollouts.engine.decode(plan.context), plan.n, plan.stops, plan.max_tokens) == (
        "planner",
        screen,
        2,
        ("</plan>",),
        5,
    )
    assert [(r.policy, rollouts.engine.decode(r.context), r.n, r.stops, r.max_tokens) for r in acts] == [
        ("base", f"{screen} {PLAN}", 3, ("</act>",), 12)
    ] * 2
    asked = {(r.temperature, r.top_p, r.top_k, r.min_p) for r in rollouts.engine.asked}
    assert asked == {(0.7, 0.9, 7, 0.1)}
    # two executions of equal plans are not the same draw
    assert len({r.seed for r in rollouts.engine.asked}) == 3
    assert {(n.policy, n.version) for n in tree.nodes if n.role} == {("planner", 1), ("base", 0)}


def test_plans_of_all_tasks_are_sampled_together_then_all_executions():
    rollouts = scripted(say(PLAN, PLAN))
    rollouts.grow([HAND] * 5, TreeSpec(counts={"plan": 2, "act": 2}), SAME, seed=1)
    assert rollouts.engine.waves == 2 and len(rollouts.engine.asked) == 5 + 10


def test_a_recipes_budgets_win_over_the_domains():
    rollouts = scripted(say(PLAN))
    rollouts.grow([HAND], TreeSpec(counts={"plan": 1, "act": 1}, tokens={"plan": 7, "act": 11}), SAME, seed=1)
    assert [r.max_tokens for r in rollouts.engine.asked] == [7, 11]


def test_a_budget_in_words_is_as_many_tokens_as_its_longest_word_needs():
    class Letters(Listening):
        def encode(self, text):
            return tuple(ord(c) for c in text.strip())

    desk = Desk((1, 2, 3))
    rollouts = Rollouts(Letters(desk.vocabulary(), desk.stops), desk)
    assert rollouts.words.budgets == {"plan": 5 * len("</plan>"), "act": 12 * len("</plan>")}


# what the interface refuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        ("c desk </plan>", "word 2: found 'desk', expected a widget's name or '</plan>'"),
        ("</plan>", "word 1: found '</plan>', expected a widget's name"),
        ("c s e o c </plan>", "word 5: found 'c', one more than the 4 that may stand in a row"),
    ],
)
def test_a_refused_plan_is_kept_with_its_reason_and_never_executed(refused, reason):
    rollouts = scripted(say(refused, PLAN, refused))
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 3, "act": 2}, tokens={"plan": 9}), SAME, seed=1)
    assert [(n.status, n.reason, dict(n.reward_parts)) for n in tree.nodes[1:4]] == [
        ("refused", reason, {"format": 0.0, "valid": 0.0}),
        ("finished", "", {"format": 1.0, "valid": 1.0}),
        ("refused", reason, {"format": 0.0, "valid": 0.0}),
    ]
    assert [(n.id, n.parent) for n in tree.nodes[4:]] == [(4, 2), (5, 2)]
    assert [rollouts.engine.decode(r.context).endswith(PLAN) for r in rollouts.engine.asked[1:]] == [True]


def test_a_plan_that_runs_out_of_budget_is_truncated_and_never_executed():
    rollouts = scripted(say("c s e c s e c s e", PLAN))
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 2, "act": 1}), SAME, seed=1)
    assert (tree.nodes[1].status, tree.nodes[1].text, len(tree.nodes[1].token_ids)) == (
        "truncated",
        "c s e c s",
        5,
    )
    assert tree.nodes[1].reason == "word 5: found 's', one more than the 4 that may stand in a row"
    assert dict(tree.nodes[1].reward_parts) == {"format": 0.0, "valid": 0.0}
    assert [(n.id, n.parent) for n in tree.nodes[3:]] == [(3, 2)]


def test_when_all_plans_are_refused_nothing_is_asked_of_the_actor():
    rollouts = scripted(say("GOAL </plan>", "GOAL </plan>"))
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 2, "act": 2}), SAME, seed=1)
    assert len(tree.nodes) == 3 and [r.stops for r in rollouts.engine.asked] == [("</plan>",)]


def test_an_act_that_runs_out_of_budget_fails_with_its_reason():
    rollouts = scripted(say(PLAN, act="e x8 y9 " * 6))
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 1, "act": 1}), SAME, seed=1)
    act = tree.nodes[2]
    assert (act.status, act.reason, act.reward_parts["format"], act.reward_parts["outcome"]) == (
        "truncated",
        "the acting does not end with </act>",
        0.0,
        0.0,
    )


def test_plans_alone():
    rollouts = scripted(say(PLAN, "c e </plan>"))
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 2, "act": 0}), SAME, seed=1)
    assert [n.role for n in tree.nodes] == [None, "plan", "plan"] and rollouts.engine.waves == 1


def test_the_oracles_plan_is_given_and_no_policy_wrote_it():
    rollouts = scripted(say(act=lambda text, i: ACT if i else "v3 </act>"))
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"act": 2}, oracle=("plan",)), SAME, seed=1)
    plan = tree.nodes[1]
    assert rows(tree)[1:] == [
        (1, 0, "plan", PLAN, "given"),
        (2, 1, "act", "v3 </act>", "finished"),
        (3, 1, "act", ACT, "finished"),
    ]
    assert (plan.policy, plan.logprobs, dict(plan.reward_parts)) == (None, (), {})
    assert [n.reward_parts["outcome"] for n in tree.nodes[2:]] == [0.0, 1.0]
    assert [r.stops for r in rollouts.engine.asked] == [("</act>",)]


def test_the_context_of_the_model_cuts_the_budget():
    rollouts = scripted(say(PLAN))
    rollouts.engine.context = len(rollouts.words.root_ids(HAND)) + 3
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 1}), SAME, seed=1)
    assert [(n.status, n.text) for n in tree.nodes[1:]] == [("truncated", "c s e")]


def test_a_model_that_the_deepest_level_does_not_fit_is_refused_before_anything_runs():
    rollouts = scripted(say(PLAN))
    rollouts.engine.context = 4 * 4 + 4 + 5 + 12  # the screen, the task, the longest plan, the longest act
    rollouts.check_room()
    rollouts.engine.context -= 1
    with pytest.raises(UserError) as caught:
        rollouts.check_room()
    assert str(caught.value) == (
        "desk at level 3 takes prompts of 20 tokens and 17 for plan and acts; the "
        "model's context is 36. "
        "Take lower levels or a model with a longer context"
    )


# turn by turn -----------------------------------------------------------------------------------------------


def turn_by_turn(policy: str, text: str, i: int, seed: int) -> str:
    """Execution 0 clicks e, s, c; execution 1 clicks o and then the goal, which is not open."""
    if text.endswith("<plan>"):
        return PLAN
    said = text.partition("</plan>")[2].split("</obs>")
    if len(said) == 1:
        return ["e x8 y9 </act>", "o x1 y3 </act>"][i]
    if "o x1 y3 </act>" in said[0]:
        return "c x3 y4 v3 </act>"
    return {2: "s x5 y7 </act>", 3: "c x3 y4 v3 </act>"}[len(said)]


def test_observations_stand_between_turns_and_have_no_role():
    rollouts = scripted(turn_by_turn, stepwise=True)
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 1, "act": 2}), SAME, seed=1)
    assert rows(tree)[2:] == [
        (2, 1, "act", "e x8 y9 </act>", "finished"),
        (3, 2, None, "<obs> s x5 y7 </obs>", "given"),
        (4, 1, "act", "o x1 y3 </act>", "finished"),
        (5, 4, None, "<obs> </obs>", "given"),
        (6, 3, "act", "s x5 y7 </act>", "finished"),
        (7, 6, None, "<obs> c x3 y4 </obs>", "given"),
        (8, 5, "act", "c x3 y4 v3 </act>", "finished"),
        (9, 7, "act", "c x3 y4 v3 </act>", "finished"),
    ]
    assert all(
        (n.policy, n.logprobs, dict(n.reward_parts)) == (None, (), {}) for n in tree.nodes if n.role is None
    )
    assert {n.id: dict(n.reward_parts) for n in tree.nodes if n.role == "act" and n.reward_parts} == {
        8: {"format": 1.0, "outcome": 0.0, "follows": 0.0},
        9: {"format": 1.0, "outcome": 1.0, "follows": 1.0},
    }
    assert tree.nodes[8].reason == "c was clicked before s was open"
    whole = " ".join(n.text for n in tree.path(tree.nodes[7]))
    # the last turn reads everything before it
    assert rollouts.engine.decode(rollouts.engine.asked[-1].context) == whole
    assert rollouts.engine.waves == 4  # plans, then three turns, each for all that are still going


def test_the_last_turn_ends_an_episode_that_would_go_on():
    rollouts = scripted(say(PLAN, act="e x8 y9 </act>"), stepwise=True)
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 1, "act": 1}), SAME, seed=1)
    acts = [n for n in tree.nodes if n.role == "act"]
    assert len(acts) == rollouts.taskset.turns == 3
    assert (
        acts[-1].reason == "the last click was on e, the goal is c"
        and acts[-1].reward_parts["outcome"] == 0.0
    )
    assert tree.leaves() == [acts[-1]]


def test_turns_are_counted_for_an_environment_that_never_ends(monkeypatch):
    class Endless(Environment):
        def step(self, action):
            return Outcome(done=False, observation="<obs> </obs>")

    rollouts = scripted(say(PLAN), stepwise=True)
    monkeypatch.setattr(rollouts.taskset, "environment", lambda task, noise: Endless())
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 1, "act": 1}, tokens={"act": 12}), SAME, seed=1)
    assert [n.role for n in tree.nodes] == [None, "plan", "act", None, "act", None, "act"]
    assert tree.nodes[-1].reward_parts == {"format": 1.0, "outcome": 0.0, "follows": 0.0}


# chance -----------------------------------------------------------------------------------------------------


def desk_rollouts(**options) -> tuple[Rollouts, list]:
    import random

    desk = Desk((1, 2), widgets=4, **options)
    rollouts = Rollouts(Listening(desk.vocabulary(), desk.stops, choices=desk_choices), desk)
    return rollouts, [desk.family(random.Random(i), [1 + i % 2], "train")[0] for i in range(6)]


def test_the_same_seed_gives_the_same_trees():
    rollouts, tasks = desk_rollouts(slip=0.3)
    spec = TreeSpec(counts={"plan": 3, "act": 2})
    once, again, other = (rollouts.grow(tasks, spec, SAME, seed) for seed in (1, 1, 2))
    assert once == again != other


def test_a_tree_does_not_depend_on_its_neighbours():
    rollouts, tasks = desk_rollouts(slip=0.3)
    spec = TreeSpec(counts={"plan": 3, "act": 2})
    assert rollouts.grow(tasks[:2], spec, SAME, 1) == rollouts.grow(tasks, spec, SAME, 1)[:2]


def test_equal_tasks_in_one_batch_are_drawn_apart():
    rollouts, tasks = desk_rollouts()
    trees = rollouts.grow([tasks[0]] * 8, TreeSpec(counts={"plan": 4, "act": 0}), SAME, 1)
    assert len({tuple(n.text for n in tree.nodes) for tree in trees}) > 4


def test_samples_come_at_their_probabilities():
    rollouts, tasks = desk_rollouts()
    rollouts.engine.served["base"]["plan"] = [0.0, 1.0, -1.0]
    trees = rollouts.grow(tasks[:1], TreeSpec(counts={"plan": 3000, "act": 0}), SAME, 1)
    seen = Counter(n.logprobs[0] for n in trees[0].nodes[1:])
    assert sorted(round(logp, 4) for logp in seen) == [-2.4076, -1.4076, -0.4076]  # log softmax of -1, 0, 1
    for logp, n in seen.items():
        p = 2.718281828**logp
        assert n == pytest.approx(3000 * p, abs=4 * (3000 * p * (1 - p)) ** 0.5)


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ({"top_p": 0.5}, 1),
        ({"top_p": 0.9}, 2),
        ({}, 3),
        ({"top_p": 0.5, "temperature": 5.0}, 2),
        ({"temperature": 0.0}, 1),
        ({"top_k": 2}, 2),
        ({"top_k": 2, "top_p": 0.72}, 1),
        ({"top_k": 2, "top_p": 0.74}, 2),
        ({"min_p": 0.3}, 2),
        ({"min_p": 0.4}, 1),
    ],
)
def test_settings_narrow_what_is_said(settings, kinds):
    """Probabilities 0.245, 0.665, 0.090; at temperature 5 they are 0.331, 0.404, 0.271 (and a half needs two
    of them)."""
    rollouts, tasks = desk_rollouts()
    rollouts.engine.served["base"]["plan"] = [0.0, 1.0, -1.0]
    [tree] = rollouts.grow(tasks[:1], TreeSpec(counts={"plan": 200, "act": 0}, **settings), SAME, 1)
    assert len({n.text for n in tree.nodes[1:]}) == kinds
    # at temperature 1, always
    assert all(n.logprobs[0] == pytest.approx(-0.4076, abs=1e-4) for n in tree.nodes[1:] if kinds == 1)


@pytest.mark.parametrize(("noise", "success"), [(True, 0.0), (False, 1.0)])
def test_noise_is_the_domains_own_and_can_be_switched_off(noise, success):
    rollouts = scripted(say(PLAN), slip=1.0)
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 1, "act": 1}), SAME, seed=1, noise=noise)
    assert tree.nodes[-1].reward_parts["outcome"] == success
    assert tree.nodes[-1].reward_parts["follows"] == 1.0  # the words were right all the same


def test_every_execution_has_luck_of_its_own():
    rollouts = scripted(say(*[PLAN] * 20), slip=0.5)
    trees = rollouts.grow([HAND] * 2, TreeSpec(counts={"plan": 20, "act": 3}), SAME, seed=1)
    lucks = [
        [n.reason for n in tree.nodes if n.role == "act" and n.parent == plan.id]
        for tree in trees
        for plan in tree.nodes
        if plan.role == "plan"
    ]
    for k in range(3):  # neither the k-th of every plan alike, nor all of one plan, nor both trees
        assert len({luck[k] for luck in lucks}) > 1
    assert any(len(set(luck)) > 1 for luck in lucks) and lucks[:20] != lucks[20:]


def test_seeds_depend_on_all_parts_and_on_nothing_else():
    assert seed_of(1, "plan", 2) == 2184059887440619930  # a resumed run of an older version draws the same
    assert len({seed_of(1, 2), seed_of(12), seed_of(2, 1), seed_of("1", 2), seed_of((1, 2))}) == 5
    assert all(0 <= seed_of(i) < 2**63 for i in range(1000))


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"threads/kernels": 2, "kernels": "c"}, "threads: 1 (one core here), 2 for the kernels; kernels: c"),
        (
            {"kernels": "torch: the model is on cuda"},
            "threads: 1 (one core here); kernels: torch (the model is on cuda)",
        ),
        ({}, "threads: 1 (one core here)"),
    ],
)
def test_a_run_says_at_its_start_what_computes_it(monkeypatch, facts, line):
    rollouts = scripted(say(PLAN))
    assert rollouts.notes() == []  # a script has no threads
    monkeypatch.setattr(
        rollouts.engine, "facts", lambda: {"threads": 1, "threads/why": "one core here", **facts}
    )
    assert rollouts.notes() == [line]


def test_pieces_are_joined_as_ids():
    rollouts = scripted(say(PLAN))
    engine = rollouts.engine
    assert rollouts.words.root_ids(HAND) == engine.encode(HAND.context) + engine.encode(
        f"{HAND.prompt} <plan>"
    )


# episodes open at the same time -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "parts"), [(0, [5]), (8, [2, 2, 1]), (9, [2, 2, 1]), (3, [1] * 5), (100, [5])]
)
def test_episodes_open_at_the_same_time_have_a_limit_and_trees_do_not_change(limit, parts, monkeypatch):
    spec = TreeSpec(counts={"plan": 2, "act": 2})  # four episodes a tree
    free, bound = scripted(say(PLAN, PLAN)), scripted(say(PLAN, PLAN))
    bound.taskset.open_episodes = limit
    drive, driven = bound._drive, []
    monkeypatch.setattr(bound, "_drive", lambda some: (driven.append(len(some)), drive(some)))
    trees = [rows(tree) for tree in bound.grow([HAND] * 5, spec, SAME, seed=1)]
    assert driven == parts
    assert trees == [rows(tree) for tree in free.grow([HAND] * 5, spec, SAME, seed=1)]


def test_the_recipe_s_limit_of_open_episodes_is_the_one_that_counts():
    desk = Desk((1, 2, 3), widgets=4)
    desk.open_episodes = 100
    engine = Listening(desk.vocabulary(), desk.stops, script=say(PLAN, PLAN))
    bound = Rollouts(engine, guarded(desk, LimitSpec(open_episodes=1)))
    driven = []
    bound._drive = driven.append
    bound.grow([HAND] * 3, TreeSpec(counts={"plan": 1, "act": 1}), SAME, seed=1)
    assert list(map(len, driven)) == [1, 1, 1]
