"""Strategic grams in a run: metrics by class, the list that a run keeps, and what a recipe may say."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import desk_recipe, fake_desk, lines_of, nothing, tree_of

from forethought.core.errors import RecipeError, UserError
from forethought.core.metrics import reduce
from forethought.grams.lists import check_lists, copy_lists, planning_of
from forethought.grams.sources import solutions
from forethought.learn.credit import class_metrics, preparing_mask
from forethought.measure.probes.monitor import Monitor
from forethought.recipe.check import check
from forethought.recipe.schema import ProbeSpec
from forethought.runs import run
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts

# metrics ----------------------------------------------------------------------------------------------------


def test_uncertainty_by_class_by_hand():
    """Plans of 2 tokens at -1, acts of 3 at -2; with exact entropies these count, and log-probs remain the
    perplexity's."""
    tree = tree_of([[1], [0]])
    tree = replace(
        tree, nodes=tuple(replace(n, logprobs=(-2.0,) * 3) if n.role == "act" else n for n in tree.nodes)
    )
    found = reduce(class_metrics([tree], [preparing_mask(tree, "act")], [None]))
    assert found == pytest.approx(
        {
            "hicra/share_plan": 0.4,
            "hicra/ppl_plan": math.e,
            "hicra/ppl_exec": math.e**2,
            "hicra/entropy_plan": 1,
            "hicra/entropy_exec": 2,
        }
    )
    rows = {1: (0.5, 0.7), 3: (0.1, 0.1), 2: (0.3,) * 3, 4: (0.9,) * 3}
    exact = reduce(class_metrics([tree], [preparing_mask(tree, "act")], [rows]))
    assert exact == pytest.approx(found | {"hicra/entropy_plan": 0.35, "hicra/entropy_exec": 0.6})


def test_what_failed_is_in_no_class_and_a_class_without_tokens_has_no_numbers():
    tree = tree_of([[1]])
    tree = replace(
        tree, nodes=tuple(replace(n, status="failed") if n.role == "act" else n for n in tree.nodes)
    )
    found = reduce(class_metrics([tree], [preparing_mask(tree, "act")], [None]))
    assert found == pytest.approx({"hicra/share_plan": 1, "hicra/ppl_plan": math.e, "hicra/entropy_plan": 1})


def test_the_phase_detector_reads_the_classes_where_there_are_no_demonstrations():
    desk = Desk((1, 2), widgets=4)
    rollouts = Rollouts(fake_desk()(None, desk), desk)
    said = lambda act, plan: {"hicra/ppl_exec": math.exp(act), "hicra/ppl_plan": math.exp(plan)}  # noqa: E731
    monitor = Monitor(rollouts, ProbeSpec(every=0, phase_window=2), [1], 0)
    phases = [
        monitor.after(k, k, [], {}, {}, said(act, 0.5)).get("phase/now")
        for k, act in enumerate([1.0, 0.5, 0.2, 0.2])
    ]
    assert phases == [1.0, 1.0, 1.0, 2.0]
    assert "phase/now" not in monitor.after(9, 9, [], {}, {}, {"loss/pg": 1.0})
    held_out = Monitor(rollouts, ProbeSpec(every=5, tasks=1, phase_window=2), [1], 0)
    assert "phase/now" not in held_out.after(1, 1, [], {"plan": "base", "act": "base"}, {}, said(1.0, 0.5))


# runs -------------------------------------------------------------------------------------------------------


def stage(grams: Path | str = "", **credit) -> dict:
    credit = (
        {"name": "dr_grpo", "alpha": 0.2, "mask": "grams"} | ({"grams": str(grams)} if grams else {}) | credit
    )
    return {
        "kind": "reinforce",
        "until": {"steps": 2},
        "batch": 2,
        "tree": {"plan": 3, "act": 2},
        "credit": credit,
        "optim": {"lr": 0.5, "warmup": 0},
    }


@pytest.fixture
def grams(tmp_path) -> Path:
    path = tmp_path / "grams.txt"
    path.write_text("\n".join("abcdefghijklmnopqrstuvwxyz"))  # names of widgets: in plans and in acts
    return path


@pytest.mark.parametrize(
    "credit",
    [{}, {"mask": "released"}, {"mask": "placebo"}, {"mask": "entropy"}, {"alpha": 0.0, "mask": "preparing"}],
)
def test_a_stage_with_a_list_trains_and_tells_the_classes_apart(tmp_path, grams, credit):
    run.train(desk_recipe(stage(grams, **credit), layout="shared"), tmp_path / "run", nothing, fake_desk())
    line = lines_of(tmp_path / "run" / "metrics.jsonl")[-1]
    names = {
        "share_plan",
        "ppl_plan",
        "ppl_exec",
        "entropy_plan",
        "entropy_exec",
        "semantic_entropy",
        "grams",
    }
    assert {f"hicra/{name}" for name in names} == {key for key in line if key.startswith("hicra/")}
    assert 0 < line["hicra/share_plan"] < 1 and line["hicra/semantic_entropy"] > 0
    assert (tmp_path / "run" / "grams" / "stage-0.txt").read_text() == grams.read_text()


def test_the_trees_that_a_run_saves_are_solutions_to_mine(tmp_path, grams):
    run.train(desk_recipe(stage(grams), layout="shared"), tmp_path / "run", nothing, fake_desk())
    right, everything = (solutions(tmp_path / "run", correct) for correct in (True, False))
    assert right.wrong and right.read == everything.read and set(right.texts) < set(everything.texts)
    assert all(text.split("\n\n")[0].endswith("</plan>") and text.endswith("</act>") for text in right.texts)


def test_a_mask_without_a_list_tells_plans_from_the_rest_and_no_mask_nothing(tmp_path):
    for name, alpha in (("with", 0.2), ("without", 0.0)):
        run.train(
            desk_recipe(stage(alpha=alpha, mask="preparing"), layout="shared"),
            tmp_path / name,
            nothing,
            fake_desk(),
        )
    of = lambda name: {
        key for line in lines_of(tmp_path / name / "metrics.jsonl") for key in line if key[:6] == "hicra/"
    }  # noqa: E731
    assert "hicra/ppl_plan" in of("with") and "hicra/semantic_entropy" not in of("with") and not of("without")


def test_a_run_keeps_its_list_and_goes_on_with_it_whatever_becomes_of_the_file(tmp_path, grams):
    recipe = desk_recipe(stage(grams), layout="shared")
    run.train(recipe, tmp_path / "run", nothing, fake_desk())
    grams.unlink()
    longer = desk_recipe(stage(grams), stage(mask="preparing"), layout="shared")
    run.extend(longer, tmp_path / "run", tmp_path / "longer", nothing, fake_desk())
    assert len(planning_of(tmp_path / "longer", 0, recipe.stage[0].grams, str).matcher.grams) == 26
    assert planning_of(tmp_path / "longer", 1, longer.stage[1].grams, str) is None
    grams.write_text("zz\n")
    copy_lists(recipe, tmp_path / "longer")
    assert (tmp_path / "longer" / "grams" / "stage-0.txt").read_text().startswith("a\nb\n")


@pytest.mark.parametrize(
    ("text", "says"), [(None, "no such file"), ("# nothing\n", "no grams in it"), ("a\n...\n", "grams.txt:2")]
)
def test_a_list_that_cannot_be_used_stops_the_run_before_it_begins(tmp_path, grams, text, says):
    grams.unlink() if text is None else grams.write_text(text)
    recipe = desk_recipe({"kind": "imitate", "until": {"steps": 1}}, stage(grams), layout="shared")
    for begin in (
        lambda: check_lists(recipe),
        lambda: run.train(recipe, tmp_path / "run", nothing, fake_desk()),
    ):
        with pytest.raises(RecipeError, match=says) as e:
            begin()
        assert e.value.where == "stage.1.credit.grams"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("credit", "where"),
    [
        ({"alpha": 0.2, "mask": "grams"}, "stage.0.credit.grams"),
        ({"alpha": 0.0, "mask": "grams", "grams": "g.txt"}, "stage.0.credit.mask"),
        ({"alpha": 0.0, "mask": "released"}, "stage.0.credit.mask"),
        ({"alpha": 0.2, "mask": "preparing", "grams": "g.txt"}, "stage.0.credit.mask"),
        ({"alpha": 0.2, "mask": "released", "mask_share": 0}, "stage.0.credit.mask_share"),
    ],
)
def test_credit_that_cannot_work_is_refused(credit, where):
    with pytest.raises(RecipeError) as e:
        check(desk_recipe({"kind": "reinforce", "credit": credit}, layout="shared"))
    assert e.value.where == where


def test_a_gate_may_read_a_class():
    gate = {"metric": "hicra/entropy_plan", "at_least": 0.01}
    check(desk_recipe({"kind": "reinforce", "credit": {"alpha": 0.2}, "gates": [gate]}, layout="shared"))


class Killed(BaseException):
    pass


def at_first_step(event) -> None:
    if event.kind == "step":
        raise Killed


@pytest.mark.parametrize("damage", ["x\n", "", None])
@pytest.mark.parametrize("saved", [True, False])
def test_a_kept_list_that_is_not_what_was_kept_stops_a_resume(tmp_path, grams, damage, saved):
    """It decides which tokens are paid more. Before the first checkpoint, too."""
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run.train(
            desk_recipe(stage(grams), save={"every": 1}),
            out,
            at_first_step if saved else lambda e: e.kind == "eval" and at_first_step(replace(e, kind="step")),
            fake_desk(),
        )
    kept = out / "grams" / "stage-0.txt"
    whole = kept.read_bytes()
    kept.write_text(damage) if damage is not None else kept.unlink()
    with pytest.raises(UserError, match="grams/stage-0.txt"):
        run.resume(out, nothing, fake_desk())
    kept.write_bytes(whole)
    assert run.resume(out, nothing, fake_desk()).status == "done"
