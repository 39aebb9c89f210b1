"""What episodes cost, counted by hand; and ReWOO's formulas against what its trees read."""

from __future__ import annotations

import random

import pytest
from conftest import node, tree_of

from forethought.core.types import Node, Task, Tree
from forethought.engines.fake.engine import FakeEngine
from forethought.measure.costs import Cost, cost, costs, interleaved_reads, rewoo_reads, rounds
from forethought.measure.evaluate import evaluate, valid
from forethought.recipe.schema import TreeSpec, WorkflowSpec
from forethought.tasks.tools.taskset import Tools
from forethought.workflows.rollout import Rollouts
from forethought.workflows.table import WORKFLOWS

ROOT = Node(id=0, parent=None, role=None, text="GOAL", token_ids=(1, 2, 3, 4))


def read(id: int, parent: int, tokens: int) -> Node:
    return Node(id=id, parent=parent, role=None, text="", token_ids=tuple(range(tokens)))


def tree(*nodes: Node) -> Tree:
    return Tree(task=Task(id="t", taskset="made", level=1, context="", prompt=""), nodes=(ROOT, *nodes))


def test_thoughts_and_acts_in_turn():
    """think 2, act 3, read 5, think 2, act 3: they read 4, 6, 14 and 16."""
    made = tree(
        node(1, 0, "think", 2),
        node(2, 1, "act", 3),
        read(3, 2, 5),
        node(4, 3, "think", 2),
        node(5, 4, "act", 3),
    )
    assert cost(made, "act") == Cost(calls=4, read=40, said=10, tools=2, serial=6)


def test_a_plan_whose_tools_go_in_waves():
    """plan 10, evidence 6, conclude 2: they read 4 and 20; 3 tools in 2 waves, and the answer."""
    plan = node(1, 0, "plan", 10, reward_parts={"tools": 3.0, "waves": 2.0, "refused": 0.0})
    made = tree(plan, read(2, 1, 6), node(3, 2, "conclude", 2))
    assert cost(made, "conclude") == Cost(calls=2, read=24, said=12, tools=4, serial=5)


def test_branches_side_by_side_wait_for_nothing():
    """Two executions of one plan: 3 calls, and 2 of them in a row."""
    assert cost(tree_of([[1.0, 0.0]]), "act").serial == 3
    assert cost(tree_of([[1.0, 0.0]]), "act").calls == 3


def test_what_was_given_or_failed_is_no_call():
    given = node(1, 0, "plan", 10, status="given", policy=None, logprobs=())
    lost = node(2, 1, "act", 3, status="overlong")
    assert cost(tree(given, lost), "act") == Cost(calls=0, read=0, said=0, tools=0, serial=0)
    failed = tree(node(1, 0, "act", 3, status="failed"))
    assert costs([failed], "act") == {}
    means = costs([failed, tree(node(1, 0, "act", 3))], "act")
    wanted = {"calls": 1, "read": 4, "said": 3, "tools": 1, "serial": 2}
    assert means == {f"eval_{name}/e2e": value for name, value in wanted.items()}


def test_success_by_round():
    def proposals(*found: float) -> Tree:
        return tree(*(node(i + 1, i, "plan", 1, reward_parts={"valid": v}) for i, v in enumerate(found)))

    trees = [proposals(1.0), proposals(0.0, 1.0), proposals(0.0, 0.0, 0.0), tree()]
    assert rounds(trees, "plan") == {
        "eval_round/plan.1": 1 / 3, "eval_round/plan.2": 2 / 3, "eval_round/plan.3": 2 / 3,
    }  # fmt: skip
    assert rounds([proposals(1.0)], "plan") == {}
    assert [valid(one, "plan") for one in trees] == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(("k", "ratio"), [(1, 0.66), (2, 1.29), (3, 1.89), (5, 3.04), (8, 4.70), (12, 6.84)])
def test_the_published_formulas(k, ratio):
    """Q 50, C 300, S 800; a plan, its #E and its evidence 30 + 10 + 200, a thought, an act and an observation
    30 + 15 + 200: one step costs ReWOO more, five times as much is saved from about nine on."""
    thinking, planning = interleaved_reads(50, 300, 800, [245] * k), rewoo_reads(50, 300, 800, [240] * k)
    assert round(thinking / planning, 2) == ratio


@pytest.mark.parametrize("level", [1, 2, 4])
def test_what_a_tree_of_rewoo_reads_is_what_the_formula_says_to_the_token(level):
    """Q: the prompt, which both read; C, S: nothing; a step: a plan, its #E and its evidence, the last with
    the end of the planner's turn and the opening of the solver's."""
    tools = Tools((level,))
    [task] = tools.family(random.Random(level), [level], "train")
    grown = {}
    for name in ("rewoo", "react"):
        roles = WORKFLOWS[name].roles
        engine = FakeEngine(tools.words(roles), {role: tools.stop(role) for role in roles})
        rollouts = Rollouts(engine, tools, WorkflowSpec(name=name))
        shown = iter([turn.text for turn, _ in rollouts.turns(task) if turn.role])
        engine.script = lambda policy, text, i, seed, shown=shown: next(shown)
        [grown[name]] = rollouts.grow(
            [task], TreeSpec(counts=dict.fromkeys(roles, 1)), dict.fromkeys(roles, "base"), 1
        )
    root, plan, evidence, _ = grown["rewoo"].nodes
    steps = [
        len(f"Plan : {text}".split()) for text in plan.text.removesuffix(" </plan>").split("Plan : ")[1:]
    ]
    shown = [len(text.split()) for text in evidence.text.removesuffix(" <conclude>").split(" #E")]
    steps[-1] += 2
    both = [plan + brought for plan, brought in zip(steps, shown, strict=True)]
    assert cost(grown["rewoo"], "conclude").read == rewoo_reads(len(root.token_ids), 0, 0, both)
    # thinking before every act: a thought and its act are one call there, two here
    path = grown["react"].nodes
    lengths = [len(n.token_ids) for n in path[1:]] + [0]
    calls = [sum(lengths[i : i + 3]) for i in range(0, len(lengths), 3)]
    thoughts = sum(len(n.token_ids) for n in path if n.role == "think")
    one_call = cost(grown["react"], "act").read - sum(
        sum(len(n.token_ids) for n in path[: n.id]) for n in path if n.role == "act"
    )
    assert one_call == interleaved_reads(len(path[0].token_ids), 0, 0, calls)
    assert thoughts and cost(grown["react"], "act").serial > cost(grown["rewoo"], "conclude").serial


def test_an_evaluation_says_what_its_episodes_cost():
    tools, roles = Tools((1, 2)), ("plan", "conclude")
    engine = FakeEngine(tools.words(roles), {role: tools.stop(role) for role in roles})
    rollouts = Rollouts(engine, tools, WorkflowSpec(name="rewoo"))
    tasks = tools.family(random.Random(1), [1, 2], "eval")
    found = evaluate(rollouts, tasks, dict.fromkeys(roles, "base")).metrics
    assert found["eval_calls/e2e"] == 1.0 and found["eval_tools/e2e"] == 0.0  # its plans are refused
    assert found["eval_read/e2e"] > 0 and found["eval_serial/e2e"] == 1.0
