"""Reward functions with TRL's signature: what they are called with, what their answers become, and what a
function does wrong."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from conftest import TASK, desk_recipe, fake_desk, lines_of, node, nothing, tree_of

from forethought.core.errors import FaultStop, RecipeError
from forethought.core.metrics import reduce
from forethought.core.types import Node, Tree
from forethought.envs.guard import Guard
from forethought.learn.batch_functions import (
    TrainerState,
    check_signature,
    is_batch_function,
    with_batch_parts,
)
from forethought.learn.rewards import paid, reward
from forethought.recipe.check import check
from forethought.recipe.schema import LimitSpec
from forethought.runs import run
from forethought.traces.files import read_trees, saved_steps

STATE = TrainerState(global_step=7, max_steps=20)
ROLES = ("plan", "act")


class Rows:
    """Two columns for the task; its prompt is text, or messages."""

    def __init__(self, messages: bool = False):
        self.messages = messages

    def columns(self, task):
        return {"answer": 18, "prompt": "not handed on", "source": "made"}

    def asked_as(self, task):
        return [{"role": "user", "content": task.prompt}] if self.messages else task.prompt

    def stop(self, role):
        return f"</{role}>"


def scored(trees, functions, weights, data=None, seconds=5.0, guard=None):
    guard = guard or Guard("made", LimitSpec(episode_seconds=seconds))
    found, metrics = with_batch_parts(trees, functions, weights, guard, data or Rows(), ROLES, STATE)
    return [reward(tree, weights, optional=functions) for tree in found], reduce(metrics)


def act(values, **fields):
    """A tree of one plan with one act for each value; the function `f` gives the values."""
    trees = [tree_of([[0.0] * len(values)])]
    [tree], metrics = scored(trees, {"f": lambda **_: values}, {"act": {"f": 2.0}}, **fields)
    return [n for n in tree.nodes if n.role == "act"], metrics


def test_one_call_for_all_trees_with_what_trl_gives():
    calls = []

    def short(prompts, completions, completion_ids, answer, source, trainer_state, plans, **others):
        calls.append((prompts, completions, completion_ids, answer, source, trainer_state, plans, others))
        return [float(len(text)) for text in completions]

    trees = [tree_of([[1, 0], [1]]), tree_of([[0]])]
    found, metrics = scored(trees, {"short": short}, {"act": {"short": 0.5, "outcome": 1.0}})
    [(prompts, completions, ids, answer, source, state, plans, others)] = calls
    assert prompts == ["GOAL"] * 4 and answer == [18] * 4 and source == ["made"] * 4
    assert completions == ["act2", "act3", "act5", "act2"] and ids == [[0, 1, 2]] * 4
    assert plans == ["plan1", "plan1", "plan4", "plan1"] and state is STATE
    assert sorted(others) == ["log_extra", "log_metric"]
    assert [n.reward for n in found[0].nodes if n.role == "act"] == [3.0, 2.0, 3.0]
    assert metrics == {"reward_std/act.short": 0.0}


def test_conversations_are_given_as_messages_and_a_plan_reward_has_its_plans():
    turns = (
        Node(id=0, parent=None, role=None, text="GOAL", token_ids=(9,)),
        replace(node(1, 0, "plan", 2, branch=1), text="look first </plan>"),
        node(2, 1, "act", 3, branch=2),
        Node(id=3, parent=2, role=None, text="you see a cup", token_ids=(8,), branch=2),
        node(4, 3, "act", 2, branch=2),
    )
    seen = {}

    def f(completions, plans, completion_ids):
        seen[len(seen)] = (completions, plans, completion_ids)
        return [1]

    weights = {"plan": {"f": 1.0}, "act": {"f": 1.0}}
    [tree], _ = scored([Tree(task=TASK, nodes=turns)], {"f": f}, weights, Rows(messages=True))
    assert seen[0] == ([[{"role": "assistant", "content": "look first </plan>"}]], ["look first"], [[0, 1]])
    said, plans, ids = seen[1]
    assert said == [
        [
            {"role": "assistant", "content": "act2"},
            {"role": "user", "content": "you see a cup"},
            {"role": "assistant", "content": "act4"},
        ]
    ]
    assert plans == ["look first"] and ids == [[0, 1, 2, 0, 1]]
    assert [n.reward for n in tree.nodes] == [None, 1.0, None, None, 1.0]


def test_none_is_left_out_and_none_from_all_is_no_reward():
    """Weights 1 and 10: where one function says nothing the other counts alone; where both, nothing does."""
    functions = {"a": lambda **_: [1.0, None, None, True], "b": lambda **_: [2.0, 3.0, None, None]}
    [tree], metrics = scored([tree_of([[1, 1, 1, 1]])], functions, {"act": {"a": 1.0, "b": 10.0}})
    assert [n.reward for n in tree.nodes if n.role == "act"] == [21.0, 30.0, None, 1.0]
    assert metrics["reward_none/act.a"] == 0.5 and metrics["reward_std/act.b"] == 0.5
    # beside the environment's outcome, which every branch has
    [tree], _ = scored(
        [tree_of([[1, 0]])], {"a": lambda **_: [None, 2.0]}, {"act": {"a": 1.0, "outcome": 4.0}}
    )
    assert [n.reward for n in tree.nodes if n.role == "act"] == [4.0, 2.0]


def test_asynchronous_functions_wait_together():
    """The first one waits for the second, which would never begin if they were called in turn."""
    begun: list[asyncio.Event] = []

    async def first(completions, **_):
        begun.append(asyncio.Event())
        await begun[0].wait()
        return [1.0] * len(completions)

    class Judge:
        async def __call__(self, completions, **_):
            begun[0].set()
            return [0.0] * len(completions)

    functions = {"a": first, "b": Judge(), "c": lambda completions, **_: [5.0] * len(completions)}
    [tree], _ = scored([tree_of([[1, 1]])], functions, {"act": dict.fromkeys("abc", 1.0)})
    assert [n.reward for n in tree.nodes if n.role == "act"] == [6.0, 6.0]


def test_metrics_and_notes_of_a_function():
    def f(completions, log_metric, log_extra, **_):
        log_metric("judge/words", 3)
        log_metric("judge/words", 5.0)
        log_extra("words", [len(text) for text in completions])
        return [0.5] * len(completions)

    [tree], metrics = scored([tree_of([[1, 1]])], {"f": f}, {"act": {"f": 1.0}})
    assert metrics == {"log/judge/words": 4.0, "reward_std/act.f": 0.0}
    assert [dict(n.extra) for n in tree.nodes if n.role == "act"] == [{"words": 4}, {"words": 4}]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["good", 1.0], "must give a finite number for each completion or None, gave 'good'"),
        ([float("nan"), 1.0], "gave nan"),
        ([float("inf"), 1.0], "gave inf"),
        ([10**5000, 1.0], "gave a number beyond 1e+100"),
        ([1e200, 1.0], "gave a number beyond 1e+100 for one completion"),
        ([[1.0], 1.0], "gave [1.0]"),
    ],
)
def test_a_value_that_is_no_number_fails_its_own_branch(values, said):
    (lost, kept), _ = act(values)
    assert (lost.status, lost.reward, lost.reward_parts) == ("failed", None, {}) and said in lost.reason
    assert kept.status == "finished" and kept.reward == 2.0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0], "gave 1 number for 2 completions"),
        ("ab", "gave a str, 'ab', not a list with a number for each completion"),
        (None, "gave None, not a list"),
        (1.0, "gave a float, 1.0, not a list"),
    ],
)
def test_an_answer_that_is_no_list_of_that_length_fails_every_branch(values, said):
    trees = [tree_of([[0.0, 0.0]])]
    [tree], metrics = scored(trees, {"f": lambda **_: values}, {"act": {"f": 2.0}})
    lost = [n for n in tree.nodes if n.role == "act"]
    assert all(n.status == "failed" and n.reward is None and said in n.reason for n in lost)
    assert metrics == {}


def test_what_a_function_raises_and_what_never_ends_fails_every_branch():
    async def hangs(**_):
        await asyncio.sleep(60)

    async def raises(completions, **_):
        raise KeyError("no such row")

    def sleeps(**_):
        time.sleep(60)

    def divides(**_):
        return 1 / 0

    said = {hangs: "Timeout: no end after 0.2 s", raises: "KeyError: 'no such row'", sleeps: "Timeout"}
    for function, reason in (said | {divides: "ZeroDivisionError"}).items():
        guard = Guard("made", LimitSpec(episode_seconds=0.2))
        [tree], _ = scored([tree_of([[1, 1]])], {"f": function}, {"act": {"f": 1.0}}, guard=guard)
        lost = [n for n in tree.nodes if n.role == "act"]
        assert all(n.status == "failed" and n.reason.startswith("reward: ") for n in lost)
        assert reason in lost[0].reason and guard.total == 1


def test_a_row_that_the_taskset_cannot_give_fails_its_branches():
    class Broken(Rows):
        guard = Guard("made")

        def columns(self, task):
            return self.guard.call("task", "columns", lambda: 1 / 0)

    trees = [tree_of([[1, 1]])]
    [tree], _ = scored(trees, {"f": lambda completions: [1.0] * 2}, {"act": {"f": 1.0}}, Broken())
    assert [n.status for n in tree.nodes if n.role == "act"] == ["failed", "failed"]


def test_both_signatures_are_told_apart():
    assert is_batch_function(lambda completions, **_: []) and is_batch_function(lambda **_: [])
    assert not is_batch_function(lambda task, path: 1.0)


def test_a_function_that_asks_for_what_is_not_there_is_refused():
    check_signature("r", "f.py:f", lambda prompts, answer, plans, best=3, **_: [], ["answer"], ROLES)
    with pytest.raises(RecipeError, match=r"^r: f\.py:f asks for .*unknown argument 'answers'.*'?answer"):
        check_signature("r", "f.py:f", lambda answers: [], ["answer"], ROLES)
    with pytest.raises(RecipeError, match="takes 'prompts' by position alone"):
        check_signature("r", "f.py:f", eval("lambda prompts, /: []"), [], ROLES)


def test_the_outcome_of_an_episode_that_nobody_judges_is_what_its_acts_are_paid():
    """Two plans with acts of 1 and 0, and of 1 and 1: the plans are worth 1/2 and 1."""
    weights = {"plan": {"outcome": 1.0}, "act": {"f": 3.0}}
    tree = tree_of([[0, 0], [0, 0]])
    bare = [
        replace(n, reward_parts={"f": float(n.id != 3)} if n.role == "act" else {"format": 1.0})
        if n.role
        else n
        for n in tree.nodes
    ]
    found = reward(paid(Tree(task=TASK, nodes=tuple(bare)), weights, "act"), weights, optional={"f"})
    assert [n.reward for n in found.nodes if n.role == "plan"] == [1.5, 3.0]
    assert [n.reward for n in found.nodes if n.role == "act"] == [3.0, 0.0, 3.0, 3.0]


# ---- in a run

REWARDS = """
def short(completions, log_metric, log_extra, **kwargs):
    words = [len(text.split()) for text in completions]
    log_metric("words", sum(words) / len(words))
    log_extra("words", words)
    return [1.0 / n for n in words]

def nothing(completions, **kwargs):
    return [None] * len(completions)

def breaks(completions, **kwargs):
    return [1 / 0 for _ in completions]

def asks(completions, nswer):
    return [1.0 for _ in completions]

three = 3
"""


def stage(**fields) -> dict:
    tree = {"plan": 2, "act": 2}
    return {"kind": "reinforce", "batch": 3, "tree": tree, "until": {"steps": 2}} | fields


@pytest.fixture
def rewards(tmp_path):
    (tmp_path / "rewards.py").write_text(REWARDS)
    return tmp_path / "rewards.py"


def trained(tmp_path, *stages, **fields):
    out = tmp_path / "run"
    run.train(desk_recipe(*stages, layout="shared", **fields), out, nothing, fake_desk())
    return lines_of(out / "metrics.jsonl")


def test_a_run_pays_for_a_function_that_its_reward_names(tmp_path, rewards):
    paid_for = {"plan": {"outcome": 1.0}, "act": {f"{rewards}:short": 1.0, "outcome": 1.0}}
    _, line, *_ = trained(tmp_path, stage(reward=paid_for))
    assert 0 < line["reward/act.short"] < 1 and line["log/words"] > 1 and line["failed/act"] == 0
    assert line["reward_std/act.short"] >= 0
    [first, *_] = read_trees(saved_steps(tmp_path / "run")[1], [])
    assert {"words"} == {k for n in first["nodes"] for k in n.get("extra", {})}


def test_a_run_in_which_nothing_has_evidence_trains_nothing(tmp_path, rewards):
    _, line, *_ = trained(tmp_path, stage(reward={"act": {f"{rewards}:nothing": 1.0}}, roles=["act"]))
    assert line["reward_none/act.nothing"] == 1.0 and "reward/act" not in line
    assert line["groups/zero"] == 1.0


def test_a_function_that_breaks_ends_the_run_with_its_line(tmp_path, rewards):
    with pytest.raises(FaultStop, match=r"reward: ZeroDivisionError.*rewards\.py:12"):
        trained(tmp_path, stage(reward={"act": {f"{rewards}:breaks": 1.0}}, until={"steps": 9}))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("asks", "asks for something unknown: unknown argument 'nswer'"),
        ("three", "is no function, but 3"),
        ("absent", "has no absent"),
    ],
)
def test_functions_that_cannot_be_called_are_refused_before_anything_trains(tmp_path, rewards, name, said):
    with pytest.raises(RecipeError, match=rf"^stage\.0\.reward\.act: .*{said}"):
        trained(tmp_path, stage(reward={"act": {f"{rewards}:{name}": 1.0}}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ({"act": {"a.py:f": 1.0, "b.py:f": 1.0}}, "its part is called 'f', and so is"),
        ({"act": {"a.py:outcome": 1.0}}, "'outcome', and so is a part that exists"),
        ({"act": {"a.py:1": 1.0}}, "names no code"),
        (
            {"act": {"a.py": 1.0}},
            r"""^stage\.0\.reward\.act: 'a\.py' is a file; name the function in it: "a\.py:NAME"$""",
        ),
        ({"act": {"short": 1.0}}, "unknown part of the act reward 'short'"),
    ],
)
def test_names_that_say_two_things_are_refused(reward, said):
    with pytest.raises(RecipeError, match=said):
        check(desk_recipe(stage(reward=reward)))


def test_a_function_that_takes_nothing_is_refused_before_anything_trains():
    with pytest.raises(RecipeError, match=r"takes no arguments; write def f\(completions"):
        check_signature("stage.0.reward.act", "rewards.py:f", lambda: [1.0], (), ("act",))
