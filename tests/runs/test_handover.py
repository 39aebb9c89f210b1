"""Who holds which weights in a run: layouts, isolation that switches itself on, what a gate does after a roll
back, and runs that go on from a common beginning. On `desk` with the fake engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import desk_choices, desk_recipe, fake_desk, lines_of, nothing

from forethought import report
from forethought.core.errors import GateStop, RecipeError, UserError
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict, to_dict
from forethought.runs import run
from forethought.store import Store
from forethought.store import files as store_files

SGD = {"lr": 0.5, "warmup": 0, "betas": [0.5, 0.9]}
IMITATE = {"kind": "imitate", "until": {"steps": 3}, "batch": 2, "optim": SGD}
PLAN = {
    "kind": "reinforce",
    "name": "learn to plan",
    "roles": ["plan"],
    "until": {"steps": 4},
    "batch": 2,
    "tree": {"plan": 3, "act": 0},
    "reward": {"plan": {"valid": 1}},
    "optim": SGD,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(store_files, "sync", lambda path: None)
    monkeypatch.setattr(report, "write", lambda out: out / "report.html")


class Harmed(FakeEngine):
    """Whenever a role of `policy` learns from rollouts, the other role's first choice in the same weights
    becomes certain: the wrong one."""

    def optim_step(self, policy, lr_scale=1.0):
        found = super().optim_step(policy, lr_scale)
        if any(s.stream == "pg" for s in self.last.segments):
            self.weights[policy]["act"] = [9.0, 0.0, 0.0]
        return found

    def forward_backward(self, batch, objective):
        self.last = batch
        return super().forward_backward(batch, objective)


def harmed_desk(recipe, taskset):
    return Harmed(taskset.vocabulary(), taskset.stops, choices=desk_choices)


def shared(*stages, **fields):
    return desk_recipe(
        *stages, layout="shared", probes={"tasks": 4, "every": 1, "conflict_every": 2}, **fields
    )


def go(recipe, out: Path, engine_of=None) -> list[dict]:
    run.train(recipe, out, nothing, engine_of or fake_desk())
    return decisions(out)


def decisions(out: Path) -> list[dict]:
    return [d for d in lines_of(out / "decisions.jsonl") if d["kind"] != "run"]


def weights(out: Path) -> dict:
    folder, _ = Store.open(out).latest()
    return json.loads((folder / "engine" / "fake.json").read_text())["weights"]


def state(out: Path) -> dict:
    return Store.open(out).latest()[1]["progress"]


def metrics(out: Path) -> list[dict]:
    return lines_of(out / "metrics.jsonl")


def learned(steps: int = 20) -> dict:
    """Acting is certain, planning has never been seen."""
    return IMITATE | {"roles": ["act"], "until": {"steps": steps}, "optim": SGD | {"lr": 5.0}}


# layouts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "kind"), [("adapters", "an adapter"), ("models", "a model"), ("mixed", "an adapter")]
)
def test_a_planner_of_its_own_leaves_the_base_alone(tmp_path, layout, kind):
    said = go(desk_recipe(IMITATE, PLAN, layout=layout), tmp_path / "own")
    assert [d["reason"] for d in said if d["outcome"] == "fork"] == [
        f"plan speaks through {kind} of its own from here on"
    ]
    go(desk_recipe(IMITATE, layout=layout), tmp_path / "before")
    assert weights(tmp_path / "own")["base"] == weights(tmp_path / "before")["base"]
    assert weights(tmp_path / "own")["plan"] != weights(tmp_path / "own")["base"]
    assert state(tmp_path / "own")["policies"] == {"plan": "plan", "act": "base"}


def test_one_adapter_holds_both(tmp_path):
    said = go(desk_recipe(IMITATE, PLAN, layout="adapter"), tmp_path / "run")
    assert [d["reason"] for d in said if d["outcome"] == "fork"] == [
        "plan and act speak through an adapter that they share from here on"
    ]
    assert state(tmp_path / "run")["policies"] == {"plan": "all", "act": "all"}


def test_shared_weights_hold_both(tmp_path):
    assert not [d for d in go(shared(IMITATE, PLAN), tmp_path / "run") if d["outcome"] == "fork"]
    assert set(weights(tmp_path / "run")) == {"base"}


@pytest.mark.parametrize(
    ("fields", "stages", "where"),
    [
        ({"layout": "shared"}, [IMITATE, PLAN | {"weights": "model"}], "stage.1.weights"),
        ({"layout": "models"}, [IMITATE, PLAN | {"weights": "adapter"}], "stage.1.weights"),
        ({"layout": "adapters"}, [IMITATE, PLAN | {"weights": "model"}], "stage.1.weights"),
        (
            {"layout": "mixed"},
            [IMITATE, PLAN | {"roles": ["act"], "tree": {"plan": 2, "act": 2}, "reward": {}}],
            "stage.1.weights",
        ),
        ({"layout": "models"}, [IMITATE, PLAN, IMITATE], "stage.2.weights"),
        ({"layout": "adapter"}, [IMITATE, PLAN | {"weights": "model"}], "stage.1.weights"),
        ({"layout": "adapter", "roles": {"plan": {"policy": "mind"}}}, [IMITATE, PLAN], "roles.plan.policy"),
        ({"layout": "adapters", "planner": {"layers": 2}}, [IMITATE, PLAN], "planner"),
        ({"layout": "models", "planner": {"path": "somewhere"}}, [IMITATE, PLAN], "planner"),
        ({"layout": "models", "planner": {"width": 30, "heads": 4}}, [IMITATE, PLAN], "planner.width"),
        (
            {"layout": "models", "planner": {"layers": 2}},
            [IMITATE, PLAN | {"weights": "base"}],
            "stage.1.weights",
        ),
    ],
)
def test_layouts_that_cannot_work_are_refused(fields, stages, where):
    with pytest.raises(RecipeError) as e:
        check(desk_recipe(*stages, **fields))
    assert e.value.where == where


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (
            {
                "isolation": {"replay": 0.1},
                "roles": ["plan", "act"],
                "tree": {"plan": 2, "act": 2},
                "reward": {},
            },
            "stage.1.isolation.replay",
        ),
        ({"isolation": {"surgery": "pcgrad"}}, "stage.1.isolation.surgery"),
        ({"isolation": {"transplant": True}}, "stage.1.isolation.transplant"),
        ({"isolation": {"core": "random", "slerp": 0.5}}, "stage.1.isolation.slerp"),
        ({"isolation": {"core": "core", "core_share": 1.5}}, "stage.1.isolation.core_share"),
        ({"isolation": {"replay": -1}}, "stage.1.isolation.replay"),
        ({"adaptive": {"to": "replay"}, "isolation": {"replay": 0.1}}, "stage.1.adaptive.to"),
        ({"adaptive": {"to": "model"}, "isolation": {"keep_kl": 0.1}}, "stage.1.adaptive.to"),
        ({"adaptive": {"to": "model", "confidence": 1.0}}, "stage.1.adaptive.confidence"),
        ({"gates": [{"max_drop": 0.1, "then": "isolate"}]}, "stage.1.gates.0.then"),
        ({"gates": [{"max_drop": 0.1, "on_fail": "roll_back", "retries": 0}]}, "stage.1.gates.0.retries"),
    ],
)
def test_isolation_that_cannot_work_is_refused(change, where):
    with pytest.raises(RecipeError) as e:
        check(shared(IMITATE, PLAN | change))
    assert e.value.where == where


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"adaptive": {"to": "model"}}, "stage.1.adaptive.to"),
        ({"isolation": {"core": "core"}}, "stage.1.isolation.core"),
        (
            {"gates": [{"max_drop": 0.1, "on_fail": "roll_back", "then": "isolate", "isolate": "model"}]},
            "stage.1.gates.0.isolate",
        ),
    ],
)
def test_what_needs_whole_weights_is_refused_where_roles_share_an_adapter(change, where):
    with pytest.raises(RecipeError) as e:
        check(desk_recipe(IMITATE, PLAN | change, layout="adapter"))
    assert e.value.where == where


def test_isolation_where_nothing_is_shared_is_refused():
    for change in ({"isolation": {"replay": 0.1}}, {"adaptive": {"to": "model"}}):
        with pytest.raises(RecipeError, match="shared"):
            check(desk_recipe(IMITATE, PLAN | change, layout="adapters"))


def test_adaptive_isolation_needs_the_probes_that_it_reads():
    with pytest.raises(RecipeError, match="probes.every"):
        check(
            desk_recipe(IMITATE, PLAN | {"adaptive": {"to": "model"}}, layout="shared", probes={"every": 0})
        )
    with pytest.raises(RecipeError, match="probes.conflict_every"):
        check(
            desk_recipe(
                IMITATE,
                PLAN | {"adaptive": {"to": "model", "min_cosine": 0.0}},
                layout="shared",
                probes={"conflict_every": 0},
            )
        )


# isolation that switches itself on --------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["model", "adapter"])
def test_when_acting_is_harmed_it_gets_its_start_back_and_planning_goes_on_by_itself(tmp_path, to):
    said = go(shared(learned(), PLAN | {"adaptive": {"to": to}}), tmp_path / "run", harmed_desk)
    [move] = [d for d in said if d["name"] == "isolation"]
    assert move["outcome"] == "isolate" and move["step"] == 21 and move["numbers"]["change"] == -1.0
    assert "act has the weights of the stage's start" in move["reason"]
    go(shared(learned()), tmp_path / "before", harmed_desk)
    assert weights(tmp_path / "run")["base"] == weights(tmp_path / "before")["base"]
    assert state(tmp_path / "run")["policies"] == {"plan": "plan", "act": "base"}
    line = metrics(tmp_path / "run")[-1]
    assert line["eval/act"] == 1.0 and line["interference/act"] == 0.0
    assert weights(tmp_path / "run")["plan"] != weights(tmp_path / "run")["base"]


def one_adapter(*stages):
    return desk_recipe(*stages, layout="adapter", probes={"tasks": 4, "every": 1, "conflict_every": 2})


def test_a_shared_adapter_becomes_two_when_acting_is_harmed(tmp_path):
    said = go(one_adapter(learned(), PLAN | {"adaptive": {"to": "adapter"}}), tmp_path / "run", harmed_desk)
    [move] = [d for d in said if d["name"] == "isolation"]
    assert "plan goes on as it is; act has the weights of the stage's start" in move["reason"]
    go(one_adapter(learned()), tmp_path / "before", harmed_desk)
    assert state(tmp_path / "run")["policies"] == {"plan": "all", "act": "act"}
    assert weights(tmp_path / "run")["act"] == weights(tmp_path / "before")["all"]
    assert metrics(tmp_path / "run")[-1]["eval/act"] == 1.0


@pytest.mark.parametrize("to", ["replay", "keep_kl"])
def test_a_method_is_switched_on_in_a_shared_adapter(tmp_path, to):
    said = go(one_adapter(learned(), PLAN | {"adaptive": {"to": to}}), tmp_path / "run", harmed_desk)
    assert f"{to} of act is on" in next(d["reason"] for d in said if d["name"] == "isolation")


def test_shared_without_it_loses_acting(tmp_path):
    go(shared(learned(), PLAN), tmp_path / "run", harmed_desk)
    line = metrics(tmp_path / "run")[-1]
    assert line["eval/act"] == 0.0 and line["interference/act"] == -1.0


def test_without_harm_nothing_is_separated(tmp_path):
    said = go(shared(learned(), PLAN | {"adaptive": {"to": "model"}}), tmp_path / "run")
    assert not [d for d in said if d["name"] == "isolation" and d["outcome"] == "isolate"]
    assert state(tmp_path / "run")["policies"] == {"plan": "base", "act": "base"}


@pytest.mark.parametrize("to", ["replay", "keep_kl"])
def test_a_method_is_switched_on_in_shared_weights(tmp_path, to):
    said = go(
        shared(learned(), PLAN | {"adaptive": {"to": to, "weight": 0.3}}), tmp_path / "run", harmed_desk
    )
    [move] = [d for d in said if d["name"] == "isolation"]
    assert f"{to} of act is on with weight 0.3" in move["reason"]
    lines = [line for line in metrics(tmp_path / "run") if line["stage"] == 1]
    key = {"replay": "loss/sft", "keep_kl": "kl/keep"}[to]
    # start, harm, and every step after it
    assert [key in line for line in lines] == [False, False, True, True, True]


def test_a_stopped_adaptive_run_goes_on_as_the_straight_one(tmp_path):
    recipe = shared(learned(), PLAN | {"adaptive": {"to": "model"}})
    go(recipe, tmp_path / "straight", harmed_desk)

    class Stop(BaseException):
        pass

    def watch(event):
        if event.kind == "step" and event.step == 23:
            raise Stop

    with pytest.raises(Stop):
        run.train(recipe, tmp_path / "stopped", watch, harmed_desk)
    run.resume(tmp_path / "stopped", nothing, harmed_desk)
    assert weights(tmp_path / "stopped") == weights(tmp_path / "straight")
    assert decisions(tmp_path / "stopped") == decisions(tmp_path / "straight")


def test_roles_share_again_when_nothing_would_be_lost(tmp_path):
    class Once(Harmed):
        """The harm comes from the first step of the stage alone, and is mended by the next."""

        def optim_step(self, policy, lr_scale=1.0):
            found = super().optim_step(policy, lr_scale)
            if any(s.stream == "pg" for s in self.last.segments) and policy != "base":
                self.weights[policy]["act"] = [0.0, 9.0, 0.0]
            return found

    def engine_of(recipe, taskset):
        return Once(taskset.vocabulary(), taskset.stops, choices=desk_choices)

    said = go(
        shared(learned(), PLAN | {"adaptive": {"to": "model", "rejoin": 2}, "until": {"steps": 5}}),
        tmp_path / "run",
        engine_of,
    )
    assert [d["outcome"] for d in said if d["name"] == "isolation"] == ["isolate", "share"]
    assert state(tmp_path / "run")["policies"] == {"plan": "plan", "act": "plan"}


# after a roll back ------------------------------------------------------------------------------------------


def gated(**after) -> dict:
    return PLAN | {
        "gates": [{"metric": "eval/act", "max_drop": 0.1, "confidence": 0.0, "on_fail": "roll_back"} | after]
    }


def test_skip_goes_on_with_the_next_stage(tmp_path):
    said = go(shared(learned(), gated()), tmp_path / "run", harmed_desk)
    assert [d["outcome"] for d in said if d["stage"] == 1] == ["roll_back", "advance"]


def test_retry_isolated_keeps_what_the_first_attempt_lost(tmp_path):
    said = go(shared(learned(), gated(then="isolate", isolate="model")), tmp_path / "run", harmed_desk)
    assert [d["outcome"] for d in said if d["stage"] == 1] == [
        "roll_back",
        "retry",
        "fork",
        "pass",
        "pass",
        "advance",
    ]
    assert "a model of its own" in next(d["reason"] for d in said if d["outcome"] == "retry")
    assert metrics(tmp_path / "run")[-1]["eval/act"] == 1.0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["stages"][1]["attempts"] == 2


def test_retry_isolated_takes_a_shared_adapter_apart(tmp_path):
    recipe = one_adapter(learned(), gated(then="isolate", isolate="adapter"))
    said = go(recipe, tmp_path / "run", harmed_desk)
    assert [d["reason"] for d in said if d["stage"] == 1 and d["outcome"] == "fork"] == [
        "plan speaks through an adapter of its own"
    ]
    assert state(tmp_path / "run")["policies"] == {"plan": "plan", "act": "all"}
    go(one_adapter(learned()), tmp_path / "before", harmed_desk)
    assert weights(tmp_path / "run")["all"] == weights(tmp_path / "before")["all"]


def test_retry_with_a_lower_rate_uses_up_its_retries_and_goes_on(tmp_path):
    said = go(shared(learned(), gated(then="lower_rate", rate=0.5, retries=2)), tmp_path / "run", harmed_desk)
    assert [d["outcome"] for d in said if d["stage"] == 1] == [
        "roll_back",
        "retry",
        "roll_back",
        "retry",
        "roll_back",
        "advance",
    ]
    assert [d["reason"] for d in said if d["outcome"] == "retry"] == [
        "once more, with 0.5 of its learning rate",
        "once more, with 0.25 of its learning rate",
    ]
    rates = [line["lr"] for line in metrics(tmp_path / "run") if line["stage"] == 1 and "lr" in line]
    assert list(dict.fromkeys(rates)) == [0.5, 0.25, 0.125]
    assert "2 more times were allowed" in said[-1]["reason"]


def test_stop_after_the_roll_back_keeps_the_start(tmp_path):
    with pytest.raises(GateStop, match="rolled its stage back and stopped"):
        go(shared(learned(), gated(then="stop")), tmp_path / "run", harmed_desk)
    go(shared(learned()), tmp_path / "before", harmed_desk)
    assert weights(tmp_path / "run")["base"] == weights(tmp_path / "before")["base"]


def test_the_stage_after_a_retried_one_has_its_own_settings_again(tmp_path):
    go(shared(learned(), gated(then="lower_rate", retries=1), PLAN), tmp_path / "run", harmed_desk)
    assert {line["lr"] for line in metrics(tmp_path / "run") if line["stage"] == 2 and "lr" in line} == {0.5}


# core regions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("core", "said"), [("core", "the region of act is held"), ("random", "as many random weights are held")]
)
def test_a_core_region_is_found_and_held_while_the_other_role_trains(tmp_path, core, said):
    isolation = {"core": core, "core_share": 0.2, "core_steps": 2, "core_lr": 0.5, "group_above": 1.1}
    found = go(shared(learned(3), PLAN | {"isolation": isolation}), tmp_path / "run")
    [decision] = [d for d in found if d["name"] == "core"]
    assert said in decision["reason"] and decision["numbers"]["jaccard_by_chance"] == pytest.approx(0.2 / 1.8)
    assert set(weights(tmp_path / "run")) == {"base"}  # what showed the regions is gone
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["stages"]
    assert summary[1]["tokens_trained"] > 0


def test_roles_of_one_group_are_not_held_apart(tmp_path):
    isolation = {"core": "core", "core_share": 1.0, "core_steps": 1, "group_above": 0.5}
    found = go(shared(learned(3), PLAN | {"isolation": isolation}), tmp_path / "run")
    assert "one group and nothing is held" in next(d["reason"] for d in found if d["name"] == "core")


def test_transplant_and_slerp_end_the_stage_and_are_measured(tmp_path):
    isolation = {
        "core": "core",
        "core_share": 0.3,
        "core_steps": 2,
        "core_lr": 0.5,
        "group_above": 1.1,
        "transplant": True,
        "slerp": 0.5,
    }
    found = go(shared(learned(3), PLAN | {"isolation": isolation}), tmp_path / "run")
    assert [d["outcome"] for d in found if d["name"] == "core"] == ["core", "fuse"]
    assert metrics(tmp_path / "run")[-1]["step"] == 8  # 3 + 4 steps, and the fused model measured
    assert set(weights(tmp_path / "run")) == {"base"}


# probes in a run --------------------------------------------------------------------------------------------


def test_a_run_shows_its_probes_and_what_they_cost(tmp_path):
    go(shared(IMITATE, PLAN), tmp_path / "run")
    lines = [line for line in metrics(tmp_path / "run") if line["stage"] == 1]
    assert {
        "probe/entropy_plan",
        "probe/ppl_act",
        "probe/kl_start_plan",
        "interference/act",
        "phase/now",
    } <= lines[-1].keys()
    assert lines[0]["probe/kl_start_plan"] == lines[0]["probe/kl_start_act"] == 0.0
    assert ["conflict/all" in line for line in lines] == [False, False, True, False, True]
    assert all(0 < line["seconds_probe/share"] < 1 for line in lines[1:])


def test_kl_to_the_model_as_it_was_found(tmp_path):
    recipe = desk_recipe(
        IMITATE, PLAN, PLAN, layout="shared", probes={"tasks": 2, "every": 1, "kl_base": True}
    )
    go(recipe, tmp_path / "run")
    first, second = ([line for line in metrics(tmp_path / "run") if line["stage"] == k] for k in (1, 2))
    assert (
        first[0]["probe/kl_base_plan"] == 0.0
        and first[-1]["probe/kl_base_plan"] == first[-1]["probe/kl_start_plan"] > 0
    )
    assert (
        second[0]["probe/kl_start_plan"] == 0.0
        and second[0]["probe/kl_base_plan"] == first[-1]["probe/kl_base_plan"]
    )


# from a common beginning ------------------------------------------------------------------------------------


def test_a_run_that_extends_another_is_the_straight_run(tmp_path):
    recipe = shared(IMITATE, PLAN)
    go(recipe, tmp_path / "straight")
    first = from_dict(to_dict(recipe) | {"stage": to_dict(recipe)["stage"][:1]})
    go(first, tmp_path / "first")
    run.extend(recipe, tmp_path / "first", tmp_path / "whole", nothing, fake_desk())
    assert weights(tmp_path / "whole") == weights(tmp_path / "straight")
    clock = lambda line: {
        k: v for k, v in line.items() if not k.startswith(("seconds", "tokens_per_second", "memory/"))
    }  # noqa: E731
    assert list(map(clock, metrics(tmp_path / "whole"))) == list(map(clock, metrics(tmp_path / "straight")))
    assert json.loads((tmp_path / "first" / "summary.json").read_text())["status"] == "done"  # as it was


def test_extending_with_another_layout(tmp_path):
    go(shared(IMITATE), tmp_path / "first")
    own = from_dict(to_dict(shared(IMITATE, PLAN)) | {"layout": "models"})
    run.extend(own, tmp_path / "first", tmp_path / "models", nothing, fake_desk())
    go(own, tmp_path / "straight")
    assert weights(tmp_path / "models") == weights(tmp_path / "straight")


def test_what_does_not_fit_is_not_extended(tmp_path):
    go(shared(IMITATE), tmp_path / "first")
    for recipe, why in [
        (shared(IMITATE, PLAN, seed=3), "seed differs"),
        (shared(IMITATE), "not the first of the 1"),
        (shared(IMITATE | {"batch": 4}, PLAN), "not the first of the 2"),
    ]:
        with pytest.raises(UserError, match=why):
            run.extend(recipe, tmp_path / "first", tmp_path / "out", nothing, fake_desk())
    assert not (tmp_path / "out").exists()
