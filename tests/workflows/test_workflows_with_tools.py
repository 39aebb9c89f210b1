"""ReWOO and Chain-of-Abstraction on `tools`: trees node for node, what goes at the same time, what a tool
that refuses or breaks does to what needs it, and what is shown."""

from __future__ import annotations

import asyncio
import random

import pytest
from test_workflows import policies, rollouts_on

from forethought.core.errors import UserError
from forethought.core.types import Outcome, Task
from forethought.envs.base import Environment
from forethought.recipe.schema import LimitSpec, TaskSpec, TreeSpec
from forethought.tasks.desk.taskset import Desk
from forethought.tasks.families import build
from forethought.tasks.tools.problem import Has, Problem
from forethought.tasks.tools.taskset import Tools
from forethought.workflows.table import WORKFLOWS

# c = a + b; a has 4 and b has 5
PROBLEM = Problem(
    goal="c", value=9, rules={"c": Has(rule="plus", who="a", other="b")}, numbers={"a": 4, "b": 5}
)
HAND = Task(id="hand", taskset="tools", level=1, context="c has a plus b ;", prompt="ASK c", state=PROBLEM)
REWOO = (
    "Plan : c a b #E1 = Look [ b ] Plan : a #E2 = Look [ a ] "
    "Plan : c has a plus b #E3 = Calc [ #E2 + #E1 ] </plan>"
)
CHAIN = "c a b [ b -Look-> y1 ] a [ a -Look-> y2 ] c has a plus b [ y2 + y1 = y3 ] </plan>"
MOVED = Task(
    id="moved", taskset="tools", level=1, context="c has a plus b ;", prompt="ASK c",
    state=Problem(goal="c", value=9, rules=PROBLEM.rules, numbers=PROBLEM.numbers, book=frozenset("b")),
)  # fmt: skip


def grown(name: str, taskset, script, task: Task = HAND, **counts: int):
    rollouts = rollouts_on(taskset, name, script)
    rollouts.tasks = [task]
    [tree] = rollouts.grow([task], TreeSpec(counts=counts), policies(name), 1)
    return tree, rollouts


def rows(tree) -> list[tuple]:
    return [(n.id, n.parent, n.branch, n.role, n.text, n.status) for n in tree.nodes]


def say(plan: str, *solutions: str):
    return lambda policy, text, i, seed: plan if text.endswith("<plan>") else solutions[i]


# ReWOO ------------------------------------------------------------------------------------------------------


def test_a_tree_of_rewoo_node_for_node():
    script = say(REWOO, "9 </conclude>", "8 </conclude>")
    tree, rollouts = grown("rewoo", Tools((1,)), script, plan=1, conclude=2)
    assert rows(tree) == [
        (0, None, 0, None, "c has a plus b ; ASK c <plan>", "given"),
        (1, 0, 1, "plan", REWOO, "finished"),
        (2, 1, 1, None, "#E1 = 5 #E2 = 4 #E3 = 9 <conclude>", "given"),
        (3, 2, 3, "conclude", "9 </conclude>", "finished"),
        (4, 2, 4, "conclude", "8 </conclude>", "finished"),
    ]
    assert [dict(n.reward_parts) for n in tree.nodes] == [
        {},
        {"format": 1.0, "valid": 1.0, "tools": 3.0, "waves": 2.0, "refused": 0.0},
        {},
        {"format": 1.0, "outcome": 1.0},
        {"format": 1.0, "outcome": 0.0},
    ]
    assert [n.policy for n in tree.nodes] == [None, "base", None, "base", "base"]
    # the planner is asked once, and the solver once for both solutions: nobody between the tools
    assert [request.n for request in rollouts.engine.asked] == [1, 2]
    assert rollouts.taskset.episodes.opened == rollouts.taskset.episodes.closed == 3 + 2


def test_without_solutions_no_tool_is_asked():
    tree, rollouts = grown("rewoo", Tools((1,)), say(REWOO), plan=2, conclude=0)
    assert [n.role for n in tree.nodes] == [None, "plan", "plan"] and rollouts.taskset.episodes.opened == 0
    assert tree.nodes[1].reward_parts == {"format": 1.0, "valid": 1.0}


class Slow(Environment):
    """Counts how many of its steps are under way at the same time. The first waits for another, for a
    while."""

    under_way, most = 0, 0

    async def step(self, action):
        Slow.under_way += 1
        Slow.most = max(Slow.most, Slow.under_way)
        for _ in range(500):
            if Slow.most > 1:
                break
            await asyncio.sleep(0.01)
        Slow.under_way -= 1
        return Tools((1,)).environment(HAND, False).step(action)


@pytest.mark.parametrize("free", [False, True])
def test_uses_that_wait_for_nothing_go_at_the_same_time(free):
    Slow.under_way = Slow.most = 0
    tools = Tools((1,))
    tools.environment = lambda task, noise: Slow()
    rollouts = rollouts_on(tools, "rewoo", say(REWOO, "9 </conclude>"))
    rollouts.free, rollouts.taskset.guard.limits = free, LimitSpec(at_once=8)
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 1, "conclude": 1}), policies("rewoo"), 1)
    assert Slow.most == 2 and tree.nodes[-1].reward_parts["outcome"] == 1.0
    assert tree.nodes[1].reward_parts["waves"] == 2.0


def test_a_wave_is_what_has_all_that_it_needs():
    """Three look-ups at once, then two sums that need them, then one of both."""
    plan = (
        "Plan : a #E1 = Look [ a ] Plan : b #E2 = Look [ b ] Plan : a #E3 = Calc [ #E1 + #E2 ] "
        "Plan : b #E4 = Calc [ #E1 * 2 ] Plan : c #E5 = Calc [ #E3 - #E4 ] Plan : c #E6 = Look [ a ] </plan>"
    )
    tree, _ = grown("rewoo", Tools((2,)), say(plan, "1 </conclude>"), plan=1, conclude=1)
    parts = tree.nodes[1].reward_parts
    assert (parts["tools"], parts["waves"], parts["refused"]) == (6.0, 3.0, 0.0)
    assert tree.nodes[2].text == "#E1 = 4 #E2 = 5 #E3 = 9 #E4 = 8 #E5 = 1 #E6 = 4 <conclude>"


def test_what_needs_a_value_that_there_is_not_is_not_carried_out():
    plan = (
        "Plan : a #E1 = Look [ c ] Plan : b #E2 = Look [ b ] Plan : c #E3 = Calc [ #E1 + #E2 ] "
        "Plan : c #E4 = Calc [ #E3 + 1 ] Plan : c #E5 = Calc [ #E2 - ] </plan>"
    )
    tree, rollouts = grown("rewoo", Tools((2,)), say(plan, "none </conclude>"), plan=1, conclude=1)
    assert tree.nodes[2].text == "#E1 = none #E2 = 5 #E3 = none #E4 = none #E5 = none <conclude>"
    parts = tree.nodes[1].reward_parts
    assert (parts["tools"], parts["waves"], parts["refused"], parts["valid"]) == (3.0, 2.0, 4.0, 0.0)
    assert rollouts.guard.total == 0  # nothing broke
    assert tree.nodes[-1].reward_parts["outcome"] == 0.0


@pytest.mark.parametrize(
    ("plan", "status", "reason"),
    [
        (REWOO.replace("#E2 + #E1", "#E3 + #E1"), "refused", "#E3 refers to itself"),
        (REWOO.replace("Look [ b ]", "Look [ #E2 ]"), "refused", "#E1 refers forward to #E2"),
        ("Plan : a " * 400, "truncated", "found the end of the text"),  # it never ends
        ("Plan : c #E1 = Finish [ 9 ] </plan>", "refused", "there is no tool 'Finish'"),
    ],
)
@pytest.mark.parametrize("name", ["rewoo", "abstraction"])
def test_a_plan_that_cannot_be_carried_out_asks_no_tool(name, plan, status, reason):
    tree, rollouts = grown(name, Tools((1,)), say(plan, "9 </conclude>"), plan=1, conclude=1)
    assert (tree.nodes[-1].role, tree.nodes[-1].status) == ("plan", status)
    assert reason in tree.nodes[-1].reason and rollouts.taskset.episodes.opened == 0


@pytest.mark.parametrize("name", ["rewoo", "abstraction"])
def test_a_tool_that_breaks_fails_the_branch(name):
    class Broken(Environment):
        def step(self, action):
            raise OSError("the register is closed")

    tools = Tools((1,), plans="chain")
    tools.environment = lambda task, noise: Broken()
    tree, rollouts = grown(name, tools, say(CHAIN, "9 </conclude>"), plan=1, conclude=1)
    last = tree.nodes[-1]
    assert (last.status, last.reason) == ("failed", "environment: OSError: the register is closed")
    assert last.reward_parts == {} and rollouts.guard.total == 1  # the other one of its wave is not asked
    assert rollouts.taskset.episodes.opened == rollouts.taskset.episodes.closed == 1


def test_a_tool_that_ends_its_episode_gives_no_value():
    class Over(Environment):
        def step(self, action):
            return Outcome(done=True, success=True)

    tools = Tools((1,))
    tools.environment = lambda task, noise: Over()
    tree, _ = grown("rewoo", tools, say(REWOO, "9 </conclude>"), plan=1, conclude=1)
    assert tree.nodes[2].text == "#E1 = none #E2 = none #E3 = none <conclude>"


def test_answers_that_are_too_long_to_be_read_are_no_values(monkeypatch):
    """One by one they may be as long as an observation; a plan multiplies them."""
    monkeypatch.setattr("forethought.workflows.tooling.MOST_TEXT", 100)

    class Long(Environment):
        def step(self, action):
            asked.append(action)
            return Outcome(done=False, observation="4" + " 4" * (29 if "[ b ]" in action else 14))

    asked: list[str] = []
    tools = Tools((1,))
    tools.environment = lambda task, noise: Long()
    plan = (
        "Plan : a #E1 = Look [ b ] Plan : a #E2 = Look [ a ] Plan : b #E3 = Look [ b ] "
        "Plan : c #E4 = Calc [ #E1 + #E2 + #E2 ] Plan : c #E5 = Calc [ #E2 + 1 ] </plan>"
    )
    tree, rollouts = grown("rewoo", tools, say(plan, "9 </conclude>"), plan=1, conclude=1)
    four = "4" + " 4" * 14
    seen = f"#E1 = {four} {four} #E2 = {four} #E3 = none #E4 = none #E5 = none <conclude>"
    assert tree.nodes[2].text == seen and rollouts.guard.total == 0
    assert [one.split()[0] for one in asked] == ["Look", "Look", "Look", "Calc", "9"]
    assert tree.nodes[1].reward_parts["refused"] == 3.0


def test_a_taskset_whose_uses_wait_for_each_other_fails_the_branch():
    """The parsers refuse such plans; code of one's own may not."""
    tools = Tools((1,))
    made = tools.uses
    tools.uses = lambda task, plan: made(task, plan)[2:]
    tree, rollouts = grown("rewoo", tools, say(REWOO, "9 </conclude>"), plan=1, conclude=1)
    assert tree.nodes[-1].status == "failed" and rollouts.guard.total == 1
    assert tree.nodes[-1].reason == "parse: WorkflowError: #E3 waits for #E2, #E1, which never come"


@pytest.mark.parametrize("name", ["rewoo", "abstraction"])
def test_a_taskset_without_tools_is_refused_by_name(name):
    with pytest.raises(UserError, match=r"asks for a taskset with \w+ \(tasks.base.\w+\); desk has none"):
        WORKFLOWS[name].demonstration(Desk((1,)), Desk((1,)).family(random.Random(0), [1], "train")[0])


# Chain-of-Abstraction ---------------------------------------------------------------------------------------


def test_a_tree_of_chains_node_for_node():
    chains = [CHAIN, CHAIN.replace("y2 + y1", "y2 - y1")]
    script = lambda policy, text, i, seed: chains[i]
    tree, rollouts = grown("abstraction", Tools((1,), plans="chain"), script, plan=2)
    assert rows(tree) == [
        (0, None, 0, None, "c has a plus b ; ASK c <plan>", "given"),
        (1, 0, 1, "plan", chains[0], "finished"),
        (2, 0, 2, "plan", chains[1], "finished"),
    ]
    used = {"tools": 3.0, "waves": 2.0, "refused": 0.0}
    assert [dict(n.reward_parts) for n in tree.nodes[1:]] == [
        {"format": 1.0, "valid": 1.0, **used, "outcome": 1.0},
        {"format": 1.0, "valid": 0.0, **used, "outcome": 0.0},
    ]
    assert tree.nodes[2].reason == "the answer was '- 1', c has 9"
    assert len(rollouts.engine.asked) == 1  # nothing waits for a tool while chains are written


def test_a_chain_is_mended_where_a_tool_has_no_answer():
    mended = CHAIN.replace("b -Look->", "b -Book->")
    script = lambda policy, text, i, seed: mended if "none" in text else CHAIN
    tree, _ = grown("abstraction", Tools((1,), plans="chain", book=0.5), script, MOVED, plan=1)
    assert rows(tree)[1:] == [
        (1, 0, 1, "plan", CHAIN, "finished"),
        (2, 1, 1, None, "y1 = none <plan>", "given"),
        (3, 2, 1, "plan", mended, "finished"),
    ]
    assert tree.nodes[1].reason == "y1: Look has no answer"
    assert tree.nodes[1].reward_parts == {
        "format": 1.0, "valid": 0.0, "tools": 2.0, "waves": 1.0, "refused": 2.0,
    }  # fmt: skip
    assert tree.nodes[3].reward_parts["outcome"] == 1.0


def test_a_chain_that_is_never_mended_has_no_answer():
    script = lambda policy, text, i, seed: CHAIN
    rollouts = rollouts_on(Tools((1,), plans="chain", book=0.5), "abstraction", script, rounds=3)
    [tree] = rollouts.grow([MOVED], TreeSpec(counts={"plan": 1}), policies("abstraction"), 1)
    assert [n.role for n in tree.nodes] == [None, "plan", None, "plan", None, "plan"]
    assert tree.nodes[-1].reason == "the answer was 'none', c has 9"
    assert [n.reward_parts.get("outcome") for n in tree.nodes if n.role] == [None, None, 0.0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rewoo", {}), ("rewoo", {"numbers": "given"}), ("abstraction", {"plans": "chain"}),
        ("abstraction", {"plans": "chain", "book": 0.5}), ("react", {"book": 0.5}),
        ("plan_then_act", {"book": 0.5}), ("plan_steps", {}), ("act_only", {}),
    ],
)  # fmt: skip
def test_who_says_what_is_shown_is_right_with_the_same_tokens(name, options):
    taskset = build(TaskSpec(name="tools", levels=(1, 2, 3), options=options))
    rollouts = rollouts_on(taskset, name)
    rollouts.tasks = taskset.family(random.Random(3), [1, 2, 3, 3], "train")
    tree = TreeSpec(counts=dict.fromkeys(rollouts.roles, 1))
    for grown in rollouts.grow(rollouts.tasks, tree, policies(name), 1):
        [last] = grown.leaves()
        assert last.reward_parts["outcome"] == 1.0, last
        path, shown = grown.path(last), rollouts.turns(grown.task)
        assert [(n.role, n.text, n.token_ids) for n in path[1:]] == [
            (t.role, t.text, ids) for t, ids in shown
        ]
        # nothing that is read is trained on: no policy wrote it
        assert all(n.policy is None for n in path if n.role is None)
    rollouts.check_room(rollouts.tasks)


def test_a_solver_is_shown_that_there_is_no_answer():
    """ReWOO cannot go around what its plan did not know."""
    shown = [turn.text for turn in WORKFLOWS["rewoo"].demonstration(Tools((1,), book=0.5), MOVED)]
    assert shown == [REWOO, "#E1 = none #E2 = 4 #E3 = none", "none </conclude>"]


def test_the_luck_of_a_tool_is_that_of_the_branch_and_the_act():
    seeds: dict[str, list[int]] = {}

    class Lucky(Environment):
        def reset(self, task, seed):
            self.seed = seed

        def step(self, action):
            seeds.setdefault(action, []).append(self.seed)
            return Outcome(done=False, observation="4")

    tools = Tools((1,), plans="chain")
    tools.environment = lambda task, noise: Lucky()
    chains = [CHAIN, CHAIN.replace("[ y2 + y1 = y3 ]", "[ y2 + 1 = y3 ]")]
    for _ in range(2):
        grown("abstraction", tools, lambda policy, text, i, seed: chains[i], plan=2)
    looks = seeds["Look [ a ] </act>"], seeds["Look [ b ] </act>"]
    for found in looks:  # two branches, each of them twice the same
        assert len(set(found)) == 2 and found[:2] == found[2:]
    assert not set(looks[0]) & set(looks[1])
