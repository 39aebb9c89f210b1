"""`examples/reward_function.py` and `examples/credit_row.py`: runs that name them, and what a function does
wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import TASK, desk_recipe, fake_desk, lines_of, node, nothing, tree_of

from forethought.core.errors import RecipeError
from forethought.core.types import Node, Tree
from forethought.envs.guard import Guard
from forethought.learn.credit import score
from forethought.learn.functions import loaded, with_parts
from forethought.learn.rewards import reward
from forethought.recipe.check import check
from forethought.recipe.schema import CreditSpec
from forethought.runs import run
from forethought.store import Store

EXAMPLES = Path(__file__).parents[2] / "examples"
FUNCTIONS, ROW = EXAMPLES / "reward_function.py", EXAMPLES / "credit_row.py"
PAID = {"act": {"outcome": 1.0, "brevity": 0.2, "steady": 0.1}}
PARTS = {part: f"{FUNCTIONS}:{part}" for part in ("brevity", "steady")}


def stage(**fields) -> dict:
    tree = {"plan": 2, "act": 2}
    return {"kind": "reinforce", "batch": 3, "tree": tree, "until": {"steps": 2}} | fields


def rewarded(tree: Tree, functions, weights=PAID) -> Tree:
    return reward(with_parts(tree, functions, weights, Guard("made")), weights)


def test_the_examples_are_short():
    for path in (FUNCTIONS, ROW):
        assert len(path.read_text().splitlines()) <= 40


def test_a_branch_is_paid_by_one_number_and_its_turns_by_a_list():
    """Three tokens of acting: 1 - 3/12. Two turns of three: 1 - 6/12, and steady at the second alone."""
    one = rewarded(tree_of([[1]]), loaded(PARTS, "parts"))
    assert one.nodes[2].reward == pytest.approx(1 + 0.2 * 0.75 + 0.1)
    turns = (
        Node(id=0, parent=None, role=None, text="", token_ids=(9,)),
        node(1, 0, "act", 3, branch=1, status="truncated"),
        node(2, 1, "act", 3, branch=1, reward_parts={"outcome": 0.0}),
    )
    two = rewarded(Tree(task=TASK, nodes=turns), loaded(PARTS, "parts"))
    assert [n.reward_parts for n in two.nodes] == [
        {},
        {"steady": 0.0},
        {"outcome": 0.0, "brevity": 0.5, "steady": 1.0},
    ]
    assert [n.reward for n in two.nodes] == [None, 0.0, pytest.approx(0.2)]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda task, path: None, "gave None"),
        (lambda task, path: float("nan"), "gave nan"),
        (lambda task, path: "1", "gave '1'"),
        (lambda task, path: True, "gave True"),
        (lambda task, path: [1.0, 2.0], "gave 2 numbers for 1 turn"),
        (lambda task, path: 1 / 0, "reward: ZeroDivisionError"),
    ],
)
def test_what_a_function_does_wrong_is_a_failed_branch_with_its_reason(function, said):
    """The first execution is asked wrongly; the second one's reward stands."""
    first = lambda task, path: function(task, path) if path[-1].id == 2 else 0.5
    tree = rewarded(tree_of([[1, 0]]), {"brevity": first, "steady": lambda task, path: [1.0]})
    lost, kept = tree.nodes[2], tree.nodes[3]
    assert (lost.status, lost.reward, lost.reward_parts) == ("failed", None, {})
    assert lost.reason.startswith("reward: ") and said in lost.reason
    assert kept.status == "finished" and kept.reward == pytest.approx(0.2)


def test_a_run_pays_for_them_and_counts_what_breaks(tmp_path):
    broken = tmp_path / "broken.py"
    says = "None if path[-1].text.endswith('</act>') else 0.0"
    broken.write_text(f"def brevity(task, path):\n    return {says}\n")
    whole = desk_recipe(stage(parts=PARTS, reward=PAID), layout="shared")
    run.train(whole, out=tmp_path / "whole", engine_of=fake_desk(), observe=nothing)
    [_, line, *_] = lines_of(tmp_path / "whole" / "metrics.jsonl")
    assert 0 < line["reward/act.brevity"] < 1 and line["failed/act"] == 0
    parts = {"brevity": f"{broken}:brevity"}
    fields = {"layout": "shared", "limits": {"max_failed": 1.0}}
    some = desk_recipe(stage(parts=parts, reward={"act": {"outcome": 1.0, "brevity": 0.1}}), **fields)
    run.train(some, out=tmp_path / "some", engine_of=fake_desk(), observe=nothing)
    [_, line, *_] = lines_of(tmp_path / "some" / "metrics.jsonl")
    assert 0 < line["failed/act"] < 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"parts": {"brevity": "brevity"}}, r"stage\.0\.parts\.brevity: 'brevity' names no code"),
        ({"parts": PARTS, "reward": {"act": {"outcome": 1}}}, r"parts\.brevity: no role is paid for it"),
        ({"reward": {"act": {"brevity": 1}}}, "unknown part of the act reward 'brevity'"),
    ],
)
def test_parts_that_cannot_count_are_refused(fields, said):
    with pytest.raises(RecipeError, match=said):
        check(desk_recipe(stage(**fields)))


def test_the_credit_row_by_hand_and_in_a_run(tmp_path):
    """Rewards 1, 0 in the first step: the best mean is then 1/2."""
    name, state = f"{ROW}:better_than_before", {}
    tree = reward(tree_of([[1, 0]]), {"act": {"outcome": 1.0}})
    for good, bad in ((1.0, 0.0), (0.5, -0.5)):
        [found] = score([tree], CreditSpec(name=name), state)
        assert (found[2][0], found[3][0]) == (good, bad)
    out = tmp_path / "run"
    longer = stage(credit={"name": name}, until={"steps": 3})
    run.train(desk_recipe(longer, layout="shared"), out, nothing, fake_desk())
    kept = json.loads((Store(out).folder(2) / "state.json").read_text())["progress"]["credit"]
    assert kept["row"]["best"] > 0


def test_code_that_is_not_there_is_refused_before_anything_trains(tmp_path):
    for fields in (
        {"parts": {"brevity": f"{FUNCTIONS}:absent"}, "reward": PAID},
        {"credit": {"name": f"{ROW}:no"}},
    ):
        fields = (
            {"reward": {"act": {"outcome": 1.0, "brevity": 1.0}}} | fields if "parts" in fields else fields
        )
        where = "parts.brevity" if "parts" in fields else "credit.name"
        last = stage(**(fields | ({"reward": {"act": {"brevity": 1.0}}} if "parts" in fields else {})))
        with pytest.raises(RecipeError, match=rf"^stage\.1\.{where}: .*has no "):
            run.train(desk_recipe(stage(), last, layout="shared"), tmp_path / "run", nothing, fake_desk())
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_part_that_is_no_function_is_refused_before_anything_trains(tmp_path):
    file = tmp_path / "part.py"
    file.write_text("three = 3\n")
    last = stage(parts={"mine": f"{file}:three"}, reward={"act": {"mine": 1.0}})
    with pytest.raises(RecipeError, match=r"^stage\.0\.parts\.mine: .*part\.py:three is no function, but 3"):
        run.train(desk_recipe(last, layout="shared"), tmp_path / "run", nothing, fake_desk())
