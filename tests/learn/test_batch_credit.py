"""Credit that sees a step's trees together and remembers earlier ones; rows of one's own; strict coverage."""

from __future__ import annotations

import json
from math import sqrt

import pytest
from conftest import TASK, desk_recipe, fake_desk, lines_of, node, nothing, tree_of

from forethought.core import watchdog
from forethought.core.errors import RecipeError, UserError
from forethought.core.types import Node, Tree
from forethought.learn.credit import score, watch
from forethought.learn.rewards import reward
from forethought.recipe.schema import CreditSpec
from forethought.runs import run
from forethought.store import Store

EPS = 1e-4
OUTCOME = {"act": {"outcome": 1.0}}
TREES = [reward(tree_of([[1, 0]]), OUTCOME), reward(tree_of([[1, 1]]), OUTCOME)]


def first(rows) -> list[dict[int, float]]:
    return [{i: row[0] for i, row in given.items()} for given in rows]


def test_rae_subtracts_the_running_baseline_of_the_role_and_then_updates_it():
    """decay = 1/2. Acts 1, 0 | 1, 1: baselines 0, .5, .25, .625 and .8125 at the end. Plans have no
    reward."""
    state: dict = {}
    found = first(score(TREES, CreditSpec(name="rae", decay=0.5), state))
    assert found == [{1: 0.0, 2: 1.0, 3: -0.5}, {1: 0.0, 2: 0.75, 3: 0.375}]
    assert state == {"baselines": {"made/act": 0.8125}}


def test_rae_has_a_baseline_for_each_role_and_family_and_needs_no_peers():
    both = {"plan": {"valid": 1.0}, "act": {"outcome": 1.0}}
    state: dict = {}
    found = first(score([reward(tree_of([[1]]), both)] * 2, CreditSpec(name="rae"), state))
    assert found == [{1: 1.0, 2: 1.0}, {1: pytest.approx(0.95), 2: pytest.approx(0.95)}]
    assert state["baselines"].keys() == {"made/plan", "made/act"}


def test_rae_goes_on_from_a_state_that_was_in_a_file():
    whole: dict = {}
    straight = [score(TREES, CreditSpec(name="rae"), whole) for _ in range(2)]
    state: dict = {}
    again = [score(TREES, CreditSpec(name="rae"), state)]
    state = json.loads(json.dumps(state))
    again.append(score(TREES, CreditSpec(name="rae"), state))
    assert again == straight and state == whole and straight[0] != straight[1]


def test_reinforce_pp_normalises_over_the_responses_of_the_step():
    """1, 0 | 1, 1: mean 3/4, std sqrt(3)/4."""
    good, bad = 0.25 / (sqrt(3) / 4 + EPS), -0.75 / (sqrt(3) / 4 + EPS)
    found = first(score(TREES, CreditSpec(name="reinforce_pp"), {}))
    assert found[0] == pytest.approx({1: (good + bad) / 2, 2: good, 3: bad})
    assert found[1] == pytest.approx({1: good, 2: good, 3: good})


def test_reinforce_pp_baseline_takes_off_the_mean_of_the_task_first():
    """.5, -.5 | 0, 0: mean 0, std sqrt(1/8)."""
    a = 0.5 / (sqrt(1 / 8) + EPS)
    found = first(score(TREES, CreditSpec(name="reinforce_pp_baseline"), {}))
    assert found[0] == pytest.approx({1: 0.0, 2: a, 3: -a}) and found[1] == {1: 0.0, 2: 0.0, 3: 0.0}


@pytest.mark.parametrize("name", ["reinforce_pp", "reinforce_pp_baseline"])
def test_a_step_without_spread_has_advantage_zero_exactly(name):
    trees = [reward(tree_of([[0.7], [0.7]]), OUTCOME), reward(tree_of([[0.7]]), OUTCOME)]
    rows = score(trees, CreditSpec(name=name), {})
    assert {a for given in rows for row in given.values() for a in row} == {0.0}


def test_a_step_whose_every_trajectory_failed_trains_on_nothing():
    gone = Tree(task=TASK, nodes=(TREES[0].nodes[0], node(1, 0, "act", 2, status="failed")))
    for name in ("rae", "reinforce_pp", "reinforce_pp_baseline"):
        assert score([gone], CreditSpec(name=name), {}) == [{}]


# resumed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("credit", ["rae", "reinforce_pp"])
def test_a_resumed_run_gives_the_advantages_of_the_straight_one(tmp_path, credit):
    def recipe(steps: int):
        stage = {"kind": "reinforce", "batch": 4, "tree": {"plans": 2, "acts": 2}, "until": {"steps": steps}}
        return desk_recipe(stage | {"credit": {"name": credit, "decay": 0.8}}, layout="shared")

    straight, broken = tmp_path / "straight", tmp_path / "broken"
    run.train(recipe(5), out=straight, engine_of=fake_desk(), observe=nothing)

    def leave(event):
        if event.kind == "step" and event.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(recipe(5), out=broken, engine_of=fake_desk(), observe=leave)
    run.resume(broken, engine_of=fake_desk(), observe=nothing)

    def left(out):
        """Every line, without what clocks and the memory say, and what credit remembers within the stage."""
        lines = [
            {k: v for k, v in x.items() if "second" not in k and "memory" not in k}
            for x in lines_of(out / "metrics.jsonl")
        ]
        return lines, json.loads((Store(out).folder(4) / "state.json").read_text())["progress"]["credit"]

    assert left(straight) == left(broken)
    assert bool(left(straight)[1]["row"]) == (credit == "rae")


# a row of one's own -----------------------------------------------------------------------------------------

ROW = """
def best(trees, spec, state):
    state["steps"] = state.get("steps", 0) + 1
    return [{n.id: float(n.reward) for n in tree.nodes if n.reward is not None} for tree in trees]

def broken(trees, spec, state):
    return [tree.nope for tree in trees]

def short(trees, spec, state):
    return [{}]

def nothing(trees, spec, state):
    return None

def stranger(trees, spec, state):
    return [{99: 1.0} for _ in trees]

def wrong_length(trees, spec, state):
    return [{2: [1.0]} for _ in trees]

def nan(trees, spec, state):
    return [{2: float("nan")} for _ in trees]

constant = 3
"""


def test_a_row_of_ones_own_gives_a_number_a_node(tmp_path):
    (tmp_path / "rows.py").write_text(ROW)
    state: dict = {}
    found = score(TREES, CreditSpec(name=f"{tmp_path / 'rows.py'}:best"), state)
    assert found[0] == {1: (0.0, 0.0), 2: (1.0,) * 3, 3: (0.0,) * 3} and state == {"steps": 1}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", r"raised AttributeError: .*nope.* \(.*rows\.py:7\)"),
        ("short", "must give one table for each of 2 trees, gave 1 entries"),
        ("nothing", "must give one table for each of 2 trees, gave None"),
        ("stranger", "tree t, node 99: no policy wrote such a node"),
        ("wrong_length", "tree t, node 2: 1 advantages for 3 tokens"),
        ("nan", "tree t, node 2: an advantage must be a finite number, found nan.*rows\\.py:21"),
    ],
)
def test_what_a_row_of_ones_own_does_wrong_is_the_users_to_mend(tmp_path, name, said):
    (tmp_path / "rows.py").write_text(ROW)
    with pytest.raises(UserError, match=said):
        score(TREES, CreditSpec(name=f"{tmp_path / 'rows.py'}:{name}"), {})


def test_a_row_of_ones_own_without_an_end_is_stopped_and_named(tmp_path):
    file = tmp_path / "rows.py"
    file.write_text("def row(trees, spec, state):\n    while True:\n        pass\n")
    with pytest.raises(
        UserError, match=r"has no end after 0\.05 s, limits\.episode_seconds \(.*rows\.py:[23]\)"
    ):
        score(TREES, CreditSpec(name=f"{file}:row"), {}, 0.05)


class Ended(BaseException):
    """The last resort, which would end the process."""


def test_a_row_of_ones_own_that_swallows_its_end_comes_to_the_last_resort(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "PATIENCE", 1)
    monkeypatch.setattr(watchdog, "AGAIN", 0.01)
    file = tmp_path / "rows.py"
    file.write_text(
        "def row(trees, spec, state):\n"
        "    while True:\n"
        "        try:\n"
        "            while True:\n"
        "                pass\n"
        "        except BaseException as error:\n"
        "            if type(error).__name__ == 'Ended':\n"
        "                raise\n"
    )

    def end() -> None:
        raise Ended

    with pytest.raises(Ended):
        score(TREES, CreditSpec(name=f"{file}:row"), {}, 0.05, watchdog.Watchdog(end))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("object()", "not JSON serializable"),
        ("float('nan')", "not JSON compliant"),
        ("{1: 2.0}", "a number that is a key as text"),
        ("(1.0, 2.0)", "a tuple as a list"),
    ],
)
def test_a_state_that_no_checkpoint_gives_back_is_refused_at_once(tmp_path, value, said):
    file = tmp_path / "keeps.py"
    file.write_text(
        f"def row(trees, spec, state):\n    state['kept'] = {value}\n    return [{{}} for _ in trees]\n"
    )
    with pytest.raises(UserError, match=f"its state .*{said}"):
        score(TREES, CreditSpec(name=f"{file}:row"), {})


@pytest.mark.parametrize("name", ["rows.py:absent", "absent.py:best", "no.such.module:row"])
def test_a_row_that_is_not_there_is_refused_at_its_key(tmp_path, name):
    (tmp_path / "rows.py").write_text(ROW)
    where = name if name.startswith("no.") else f"{tmp_path}/{name}"
    with pytest.raises(RecipeError, match=r"^credit\.name: "):
        score(TREES, CreditSpec(name=where), {})


# strict coverage --------------------------------------------------------------------------------------------


def linked(links: int) -> Tree:
    """Two plans, each with one think, and under that `links` links, of which the last fails."""
    nodes = [Node(id=0, parent=None, role=None, text="", token_ids=(9,))]
    add = lambda parent, role, **fields: nodes.append(
        node(len(nodes), parent, role, 2, branch=len(nodes), **fields)
    )
    for _ in range(2):
        add(0, "plan")
        plan = nodes[-1].id
        add(plan, "think")
        think = nodes[-1].id
        for i in range(links):
            add(think, "link", reward_parts={"outcome": float(i < links - 1)})
    return Tree(task=TASK, nodes=tuple(nodes))


ROLES = ("plan", "think", "link")
EACH = {role: {"outcome": 1.0} for role in ROLES}


@pytest.mark.parametrize(
    ("credit", "links", "left_out"),
    [
        (
            "role_baseline",
            2,
            "think",
        ),  # one think a plan: it has no peers, and would have advantage 0 for ever
        ("role_baseline", 1, "link"),
        ("turn_level", 2, "think"),
        ("grpo", 1, ""),  # by path the two trajectories are a group
        ("rae", 1, ""),
        ("reinforce_pp", 1, ""),
    ],
)
def test_a_trained_role_that_is_never_compared_is_named(credit, links, left_out):
    trees, waiting = [reward(linked(links), EACH)] * 2, {}
    for _ in range(4):
        watch(trees, credit, ROLES, waiting)
    if not left_out:
        watch(trees, credit, ROLES, waiting)
        return
    with pytest.raises(
        UserError, match=rf"role '({left_out}|think)' trains, but in 5 steps credit '{credit}'"
    ):
        watch(trees, credit, ROLES, waiting)


def test_a_role_that_does_not_train_may_be_alone_and_once_compared_is_enough():
    trees, waiting = [reward(linked(2), EACH)], {}
    for _ in range(9):
        watch(trees, "role_baseline", ("plan", "link"), waiting)
    assert waiting == {"plan": -1, "link": -1}


def test_a_role_without_a_reward_is_named_and_steps_in_which_something_failed_do_not_count():
    plain = reward(linked(2), {"link": {"outcome": 1.0}})
    lost = Tree(task=TASK, nodes=(*plain.nodes, node(99, 0, "plan", 2, branch=99, status="failed")))
    waiting: dict = {}
    for _ in range(9):
        watch([lost], "role_baseline", ("plan",), waiting)
    for _ in range(4):
        watch([plain], "role_baseline", ("plan",), waiting)
    with pytest.raises(UserError, match="role 'plan' trains.*give it a reward of its own"):
        watch([plain], "role_baseline", ("plan",), json.loads(json.dumps(waiting)))
