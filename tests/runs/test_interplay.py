"""Who may hold which weights when isolation, gates and several stages meet. On `desk`, with the fake engine
where its weights show it and with a small real model where only an adapter on a moving base does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import desk_choices, desk_recipe, fake_desk, lines_of, nothing

from forethought import report
from forethought.core.errors import RecipeError
from forethought.engines.fake.engine import FakeEngine
from forethought.measure.probes.phases import Phases
from forethought.recipe.check import check
from forethought.recipe.load import load
from forethought.runs import run
from forethought.store import Store
from forethought.store import files as store_files

SGD = {"lr": 0.5, "warmup": 0, "betas": [0.5, 0.9]}
ACT = {"kind": "imitate", "roles": ["act"], "until": {"steps": 20}, "batch": 2, "optim": SGD | {"lr": 5.0}}
PLAN = {
    "kind": "reinforce",
    "name": "learn to plan",
    "roles": ["plan"],
    "until": {"steps": 4},
    "batch": 2,
    "tree": {"plan": 3, "act": 0},
    "reward": {"plan": {"valid": 1}},
    "skip_zero": False,
    "optim": SGD,
}
AT_ONCE = {"max_drop": 0.0, "confidence": 0.0}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(store_files, "sync", lambda path: None)
    monkeypatch.setattr(report, "write", lambda out: out / "report.html")


class Told(FakeEngine):
    """`told`: (updates of any policy so far, policy) -> rows of logits that it has after the update, whatever
    it learned."""

    told: dict = {}

    def optim_step(self, policy, lr_scale=1.0):
        found = super().optim_step(policy, lr_scale)
        for role, row in self.told.get((self.steps, policy), {}).items():
            self.weights[policy][role] = list(row)
        return found


RIGHT, WRONG = [0.0, 9.0, 0.0], [9.0, 0.0, 0.0]


def told(**steps):
    """Named rows at updates: told(s21_base={"act": WRONG})."""
    table = {(int(k.split("_")[0][1:]), k.split("_", 1)[1]): v for k, v in steps.items()}

    def engine_of(recipe, taskset):
        engine = Told(taskset.vocabulary(), taskset.stops, choices=desk_choices)
        engine.told = table
        return engine

    return engine_of


def shared(*stages, **fields):
    return desk_recipe(
        *stages, layout="shared", probes={"tasks": 4, "every": 1, "conflict_every": 0}, **fields
    )


def weights(out: Path) -> dict:
    folder, _ = Store.open(out).latest()
    return json.loads((folder / "engine" / "fake.json").read_text())["weights"]


def policies(out: Path) -> dict:
    return Store.open(out).latest()[1]["progress"]["policies"]


def moves(out: Path) -> list[tuple]:
    return [(d["stage"], d["outcome"]) for d in lines_of(out / "decisions.jsonl") if d["name"] == "isolation"]


# a stage that finds the roles apart -------------------------------------------------------------------------


def test_a_later_adaptive_stage_leaves_roles_that_are_apart_alone(tmp_path):
    adaptive = PLAN | {"adaptive": {"to": "model"} | AT_ONCE}
    # harm; then planning itself falls
    engine_of = told(s21_base={"act": WRONG}, s24_plan={"plan": RIGHT}, s25_plan={"plan": WRONG})
    run.train(shared(ACT, adaptive, adaptive), tmp_path / "run", nothing, engine_of)
    assert moves(tmp_path / "run") == [(1, "isolate")]
    assert policies(tmp_path / "run") == {"plan": "plan", "act": "base"}


def test_roles_that_share_again_are_isolated_from_the_start_of_the_newer_stage(tmp_path):
    """They share the weights `plan` when stage 2 begins; the base is as old as stage 1."""
    first = PLAN | {"adaptive": {"to": "model", "rejoin": 1} | AT_ONCE}
    engine_of = told(s21_base={"act": WRONG}, s22_plan={"act": RIGHT}, s25_plan={"act": WRONG})
    run.train(
        shared(ACT, first, PLAN | {"adaptive": {"to": "model"} | AT_ONCE}),
        tmp_path / "run",
        nothing,
        engine_of,
    )
    assert moves(tmp_path / "run") == [(1, "isolate"), (1, "share"), (2, "isolate")]
    assert weights(tmp_path / "run")[policies(tmp_path / "run")["act"]]["act"] == RIGHT


def test_a_retry_that_is_isolated_is_not_isolated_once_more(tmp_path):
    gate = {
        "metric": "eval/plan",
        "max_drop": 0.1,
        "confidence": 0.0,
        "on_fail": "roll_back",
        "then": "isolate",
        "isolate": "model",
    }
    stage = PLAN | {"adaptive": {"to": "model"} | AT_ONCE, "gates": [gate]}
    # both attempts lose planning
    engine_of = told(s20_base={"plan": RIGHT}, s22_base={"plan": WRONG}, s23_plan={"plan": WRONG})
    run.train(shared(ACT, stage), tmp_path / "run", nothing, engine_of)
    assert moves(tmp_path / "run") == []


SMALL = {
    "layout": "shared",
    "model": {"layers": 2, "width": 64, "mlp": 32},
    "eval": {"tasks": 1, "every": 9},
    "probes": {"tasks": 2, "every": 1, "conflict_every": 1},
    "engine": {"threads": 1, "device": "cpu"},
}
FAST = {"kind": "imitate", "until": {"steps": 2}, "batch": 2, "optim": {"lr": 0.01}}
# after its first step
INTO_AN_ADAPTER = FAST | {
    "until": {"steps": 3},
    "adaptive": {"to": "adapter", "min_cosine": 1.0, "window": 1},
}


def test_a_later_stage_does_not_move_the_base_under_the_adapter_of_a_frozen_role(tmp_path):
    """Stage 0 leaves planning in an adapter; what stage 1 does to acting must not reach it."""
    run.train(
        desk_recipe(INTO_AN_ADAPTER | {"roles": ["plan"]}, FAST | {"roles": ["act"]}, **SMALL),
        tmp_path / "run",
        nothing,
    )
    assert moves(tmp_path / "run") == [(0, "isolate")]
    seen = {
        line["probe/ppl_plan"] for line in lines_of(tmp_path / "run" / "metrics.jsonl") if line["stage"] == 1
    }
    assert len(seen) == 1


def test_where_both_roles_train_neither_moves_the_weights_of_the_other_after_the_switch(tmp_path):
    recipe = desk_recipe(INTO_AN_ADAPTER, **SMALL | {"save": {"every": 1, "keep": 9}})
    try:
        check(recipe)
    except RecipeError:
        return  # refused before anything starts is as good
    run.train(recipe, tmp_path / "run", nothing)
    folder = tmp_path / "run" / "checkpoints" / "step-000002" / "engine"
    on_the_base = [path.name for path in (folder / "adapters").glob("*")]
    trained = json.loads((folder / "engine.json").read_text())["optimizers"]
    assert not on_the_base or "base" not in trained


# after a roll back ------------------------------------------------------------------------------------------


def rolled_back(**fields) -> dict:
    return PLAN | {"gates": [{"metric": "eval/act", "at_most": 0.0, "on_fail": "roll_back"}]} | fields


def test_a_stage_that_was_rolled_back_leaves_its_start_without_fusing(tmp_path):
    isolation = {
        "core": "core",
        "core_share": 0.3,
        "core_steps": 2,
        "core_lr": 0.5,
        "group_above": 1.1,
        "transplant": True,
        "slerp": 0.5,
    }
    run.train(shared(ACT, rolled_back(isolation=isolation)), tmp_path / "run", nothing, fake_desk())
    run.train(shared(ACT), tmp_path / "before", nothing, fake_desk())
    assert weights(tmp_path / "run")["base"] == weights(tmp_path / "before")["base"]


def test_a_retry_with_an_adapter_needs_no_core_region(tmp_path):
    gate = {"metric": "eval/plan", "at_least": 1.0, "on_fail": "roll_back", "then": "isolate"}
    stage = FAST | {"roles": ["plan"], "isolation": {"core": "core", "core_steps": 1}, "gates": [gate]}
    recipe = desk_recipe(FAST | {"until": {"steps": 1}}, stage, **SMALL)
    try:
        check(recipe)
    except RecipeError:
        return  # refused before anything starts is as good
    run.train(recipe, tmp_path / "run", nothing)
    assert policies(tmp_path / "run") == {"plan": "plan", "act": "base"}


def test_a_gate_on_a_probe_compares_with_the_start_of_the_first_stage(tmp_path):
    gate = {"metric": "probe/entropy_plan", "max_drop": 0.3, "confidence": 0.0, "on_fail": "warn"}
    # 0.44 nats a token at the start
    run.train(shared(PLAN | {"gates": [gate]}), tmp_path / "run", nothing, told(s1_base={"plan": RIGHT}))
    judged = [d["outcome"] for d in lines_of(tmp_path / "run" / "decisions.jsonl") if d["kind"] == "gate"]
    assert judged == ["warn", "warn"]


@pytest.mark.parametrize(
    ("gate", "where"),
    [
        ({"then": "lower_rate", "rate": 2.0}, "stage.1.gates.0.rate"),  # raises it
        # the same seeds and settings: the same run once more
        ({"then": "isolate", "retries": 2}, "stage.1.gates.0.retries"),
        ({"then": "skip", "rate": 0.1}, "stage.1.gates.0.rate"),  # not read
        ({"then": "lower_rate", "isolate": "model"}, "stage.1.gates.0.isolate"),  # not read
    ],
)
def test_a_follow_up_that_says_something_else_is_refused(gate, where):
    with pytest.raises(RecipeError) as e:
        check(
            shared(
                ACT,
                rolled_back(gates=[{"metric": "eval/act", "max_drop": 0.1, "on_fail": "roll_back"} | gate]),
            )
        )
    assert e.value.where == where


def test_a_gate_cannot_switch_on_what_is_on():
    """It would set the weight 0.5 of the recipe to adaptive.weight, 0.1: less isolation, not more."""
    gate = {
        "metric": "eval/act",
        "max_drop": 0.1,
        "on_fail": "roll_back",
        "then": "isolate",
        "isolate": "replay",
    }
    with pytest.raises(RecipeError):
        check(shared(ACT, rolled_back(gates=[gate], isolation={"replay": 0.5})))


# what is read, and what is said -----------------------------------------------------------------------------


def test_every_conflict_probe_is_read_whatever_the_held_out_probes_period(tmp_path):
    """Cosines of 0 at steps 3 and 6 are two probes below 1; a held-out probe falls on 6."""
    stage = PLAN | {"until": {"steps": 8}, "adaptive": {"to": "model", "min_cosine": 1.0, "window": 2}}
    recipe = desk_recipe(ACT, stage, layout="shared", probes={"tasks": 4, "every": 2, "conflict_every": 3})
    run.train(recipe, tmp_path / "run", nothing, fake_desk())
    assert (1, "isolate") in moves(tmp_path / "run")


def test_the_conflict_probe_finds_the_cosine_from_before_the_surgery(tmp_path):
    """With replay both roles have an objective, and PCGrad reports the cosine of the very same two
    gradients."""
    stage = FAST | {
        "roles": ["plan"],
        "until": {"steps": 6},
        "isolation": {"replay": 0.5, "surgery": "pcgrad"},
    }
    run.train(desk_recipe(stage, **SMALL), tmp_path / "run", nothing)
    lines = [line for line in lines_of(tmp_path / "run" / "metrics.jsonl") if "surgery/cosine" in line]
    # else nothing was projected, and this test would show nothing
    assert min(line["surgery/cosine"] for line in lines) < -1e-3
    assert [line["conflict/all"] for line in lines] == pytest.approx(
        [line["surgery/cosine"] for line in lines], rel=1e-2
    )


def test_execution_that_gets_worse_has_not_consolidated():
    phases = Phases(3)
    said = [phases.observe(step, act, 3.0) for step, act in enumerate([1.0, 1.5, 2.0, 2.5])]
    assert [line["phase/now"] for line in said] == [1.0] * 4


def test_what_the_search_for_core_regions_trains_on_is_in_the_log(tmp_path):
    """`forethought arms` adds up the log's tokens."""
    run.train(
        shared(ACT, PLAN | {"isolation": {"core": "core", "core_steps": 2}}),
        tmp_path / "run",
        nothing,
        fake_desk(),
    )
    logged = sum(
        line.get("tokens/trained", 0)
        for line in lines_of(tmp_path / "run" / "metrics.jsonl")
        if line["stage"] == 1
    )
    assert (
        logged == json.loads((tmp_path / "run" / "summary.json").read_text())["stages"][1]["tokens_trained"]
    )


@pytest.mark.parametrize("override", ["planner.layers=3", "planner.width=64"])
def test_a_planner_that_is_only_half_said_is_not_dropped(override):
    """In a file, planner = { layers = 3 } is a planner of its own; on the command line it must be one too, or
    be refused."""
    try:
        recipe = load("desk", ["layout=models", "stage.1.weights=model", "stage.0.weights=auto", override])
        check(recipe)
    except RecipeError:
        return
    assert recipe.planner.init or recipe.planner.path


@pytest.mark.parametrize(
    "adaptive", [{"to": "model", "lr": 1e-3}, {"to": "adapter", "weight": 0.5}, {"to": "off", "rejoin": 2}]
)
def test_adaptive_settings_that_nothing_reads_are_refused(adaptive):
    with pytest.raises(RecipeError):
        check(shared(ACT, PLAN | {"adaptive": adaptive}))


def test_harm_that_only_an_evaluation_sees_isolates_too(tmp_path):
    """Held-out probes are never due in this stage; its evaluation at step 2 sees that acting is lost, and the
    next one that it is back."""
    stage = PLAN | {"adaptive": {"to": "model"} | AT_ONCE}
    recipe = desk_recipe(ACT, stage, layout="shared", probes={"tasks": 4, "every": 99, "conflict_every": 0})
    run.train(recipe, tmp_path / "run", nothing, told(s21_base={"act": WRONG}))
    assert moves(tmp_path / "run") == [(1, "isolate")]
    seen = [
        (line["step"], line["eval/act"])
        for line in lines_of(tmp_path / "run" / "metrics.jsonl")
        if line["stage"] == 1 and "eval/act" in line
    ]
    assert seen == [(20, 1.0), (22, 0.0), (23, 1.0), (25, 1.0)]
    assert policies(tmp_path / "run") == {"plan": "plan", "act": "base"}
