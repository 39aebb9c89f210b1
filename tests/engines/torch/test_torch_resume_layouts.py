"""Resumed at a checkpoint, a run ends with the same bits: every layout, in both precisions, with the kernels
and without them; gates, switches, several updates a batch, stages of every kind. What is compared is every
byte of the last checkpoint, of the trees and of the logs (but for clocks), and that gradients flowed after
the resume."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from resume_kit import ACT, BOTH, IMITATE, MUON, PLAN, goes_on, lively, recipe, saved, some, straight

from forethought.engines.torch.forest.native.library import library, why_not

PLANNER = {"init": "small", "layers": 2, "width": 128, "mlp": 32}
LAYOUTS = {
    "shared": recipe(IMITATE, PLAN | MUON, layout="shared"),
    "adapters": recipe(IMITATE, PLAN | {"updates": 2}, ACT),
    "mixed": recipe(IMITATE, PLAN, layout="mixed"),
    "models": recipe(IMITATE, PLAN | MUON, layout="models"),
    "planner": recipe(
        BOTH | {"until": {"steps": 2}}, PLAN | {"updates": 2}, layout="models", planner=PLANNER
    ),
}


@pytest.fixture
def kernels(request, monkeypatch):
    """On or off, for everything that the test computes."""
    if request.param == "off":
        monkeypatch.setenv("FORETHOUGHT_KERNELS", "0")
    library.cache_clear()
    if request.param == "on" and library() is None:
        pytest.skip(why_not())
    yield request.param
    monkeypatch.undo()
    library.cache_clear()


@pytest.mark.parametrize("kernels", ["on", "off"], indirect=True)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_resumed_between_two_updates(layout, precision, kernels, tmp_path, monkeypatch):
    """In the reinforce stage: the first resume samples from weights that have moved."""
    lively(monkeypatch)
    chosen = LAYOUTS[layout]
    chosen = replace(
        chosen, engine=replace(chosen.engine, precision=precision), save=replace(chosen.save, every=4)
    )
    wanted, (moment, *_) = straight(chosen, tmp_path, saved(4))
    assert goes_on(moment, wanted)
    facts = json.loads((moment.folder / "summary.json").read_text())["machine"]
    assert facts["precision"] == precision and (facts["kernels"] == "c") == (kernels == "on")


# What changes hands while a stage runs ----------------------------------------------------------------------

NEVER = {"metric": "eval/plan", "at_least": 1.0, "on_fail": "roll_back"}
PROBED = {"probes": {"tasks": 1, "every": 1, "conflict_every": 1}, "layout": "shared"}
AT_ONCE = {"min_cosine": 1.0, "window": 1}
CORE = {
    "core": "core",
    "core_share": 0.2,
    "core_steps": 2,
    "group_above": 1.0,
    "transplant": True,
    "slerp": 0.3,
}


def rolled_back(layout: str = "shared", **gate):
    return recipe(IMITATE, PLAN | {"gates": [NEVER | gate]}, ACT, layout=layout)


def adaptive(to: str, stage: dict = PLAN, **fields):
    return recipe(
        IMITATE, stage | {"until": {"steps": 6}, "adaptive": {"to": to} | AT_ONCE | fields}, **PROBED
    )


CHANGES = {  # name -> the recipe, and an outcome that its decisions must have
    "skip": (rolled_back(then="skip"), "roll_back"),
    "skip, adapters": (rolled_back("adapters", then="skip"), "roll_back"),
    "isolate, adapter": (rolled_back(then="isolate", isolate="adapter", retries=1), "retry"),
    "isolate, model": (rolled_back(then="isolate", isolate="model", retries=1), "retry"),
    "isolate, keep_kl": (rolled_back(then="isolate", isolate="keep_kl", retries=1), "retry"),
    "lower_rate": (rolled_back("adapters", then="lower_rate", retries=2), "retry"),
    "to a model": (adaptive("model", PLAN | MUON), "isolate"),
    "to a model and back": (adaptive("model", rejoin=1), "share"),
    "to an adapter": (adaptive("adapter", BOTH), "isolate"),
    "to replay and back": (adaptive("replay", rejoin=1), "share"),
    "to keep_kl": (adaptive("keep_kl", PLAN | MUON), "isolate"),
    "core": (recipe(IMITATE, PLAN | {"isolation": CORE}, ACT, layout="shared"), "fuse"),
    "random core": (
        recipe(
            IMITATE,
            PLAN | MUON | {"isolation": {"core": "random", "core_steps": 2, "group_above": 1.0}},
            layout="shared",
        ),
        "random",
    ),
    "surgery": (
        recipe(IMITATE, PLAN | {"isolation": {"surgery": "pcgrad", "replay": 0.5}}, **PROBED),
        "advance",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_resumed_where_weights_change_hands(change, tmp_path, monkeypatch):
    """At two checkpoints of the stage, drawn with a seed; the first one may be before the change, the second
    after it."""
    lively(monkeypatch)
    chosen, outcome = CHANGES[change]
    wanted, moments = straight(
        chosen, tmp_path, lambda moment: any(saved(step)(moment) for step in range(2, 12))
    )
    assert outcome in {d["outcome"] for d in wanted["decisions"]}
    moments = list({moment.newest: moment for moment in reversed(moments)}.values())
    assert [u for moment in some(len(change), 2)(moments[:-1]) for u in goes_on(moment, wanted)]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [*LAYOUTS, *CHANGES])
def test_killed_at_many_moments_of_every_kind_of_run(name, precision, tmp_path, monkeypatch):
    """Twelve moments between two operations on its files, drawn with a seed."""
    lively(monkeypatch)
    chosen = LAYOUTS[name] if name in LAYOUTS else CHANGES[name][0]
    chosen = replace(chosen, engine=replace(chosen.engine, precision=precision))
    wanted, moments = straight(chosen, tmp_path, lambda moment: "tensorboard" not in moment.path)
    for moment in some(len(name), 12)(moments):
        goes_on(moment, wanted)
