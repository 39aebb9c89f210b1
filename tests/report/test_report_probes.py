"""What the report makes of probes, of isolation and of a stage that is sent through again."""

import json
import math
import re

import pytest

from forethought import report
from forethought.report import probes, words
from forethought.report.effects import effects, first_and_last
from forethought.report.load import load
from forethought.report.payload import of_run, of_runs
from forethought.report.series import columns

IMITATE = {"kind": "imitate", "roles": ["plan", "act"]}
PLAN = {"kind": "reinforce", "roles": ["plan"]}


def line(step, stage, stage_step, **values):
    place = {"step": step, "stage": stage, "stage_step": stage_step, "seconds": float(step)}
    return place | {key.replace("__", "/"): value for key, value in values.items()}


def shares(act, **more):
    return {"eval/act": act, "eval_low/act": act - 0.02, "eval_high/act": act + 0.02} | more


def change(role, value, low, high):
    return {f"interference/{role}": value, f"interference_low/{role}": low, f"interference_high/{role}": high}


def turn(step, stage, name, outcome, reason, kind="schedule"):
    return {
        "step": step,
        "stage": stage,
        "kind": kind,
        "name": name,
        "outcome": outcome,
        "reason": reason,
        "numbers": {},
    }


def run_of(path, lines, stages=(IMITATE, PLAN), decisions=(), **recipe):
    path.mkdir(exist_ok=True)
    (path / "recipe.json").write_text(json.dumps({"name": path.name, "stage": list(stages)} | recipe))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    (path / "decisions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in decisions))
    return load(path)


TWICE = [  # two steps of imitation; planning trains twice, since a gate rolled its first attempt back
    line(0, 0, 0, **shares(0.1)),
    line(2, 0, 2, **shares(0.9), **change("act", 0.8, 0.7, 0.9)),
    line(2, 1, 0, **shares(0.9)),
    line(3, 1, 1, seconds_probe__held_out=0.5, seconds_probe__share=0.125),
    line(
        4,
        1,
        2,
        **shares(0.5),
        **change("act", -0.4, -0.5, -0.3),
        **change("plan", 0.1, 0.0, 0.2),
        seconds_probe__held_out=0.25,
    ),
    line(5, 1, 2, **shares(0.9), rolled_back_to=2),
    line(5, 1, 0, **shares(0.9)),
    line(6, 1, 1, **change("act", -0.05, -0.1, 0.0), seconds_probe__plans=1.0, seconds_probe__share=0.25),
    line(7, 1, 2, **shares(0.88), **change("act", -0.02, -0.06, 0.02)),
]
SAID = [
    turn(4, 1, "eval/act", "roll_back", "act fell", "gate"),
    turn(5, 1, "reinforce", "retry", "once more, with 0.5 of its learning rate"),
    turn(7, 1, "eval/act", "pass", "act held", "gate"),
]


@pytest.fixture
def twice(tmp_path):
    return run_of(tmp_path / "twice", TWICE, decisions=SAID)


# --- another attempt at a stage ---


def test_a_stage_that_was_sent_through_again_is_told_by_its_last_attempt(twice):
    stage = effects(twice)[1]
    assert (stage.attempts, stage.rolled_back_to, stage.steps) == (2, 2, 4)
    assert (stage.before["act"].value, stage.after["act"].value, stage.kept) == (0.9, 0.88, stage.after)
    assert words.stage_sentence(stage, twice.decisions) == (
        "Stage 2, reinforce (trains plan, 4 steps in 2 attempts): act showed no clear change (90.0 % to 88.0 "
        "%); the gate on eval/act "
        "rolled it back to step 2 and then passed once. At step 5 it was sent through again, with 0.5 of its "
        "learning rate."
    )
    assert words.headline("done", effects(twice), *first_and_last(twice)).endswith(
        "; stage 2 (reinforce) was rolled back and held at attempt 2."
    )


def test_another_attempt_that_has_not_been_measured_leaves_what_the_first_one_reached(tmp_path):
    stage = effects(run_of(tmp_path / "early", TWICE[:8], decisions=SAID[:2]))[1]
    assert (stage.after["act"].value, stage.kept["act"].value, stage.attempts) == (0.5, 0.9, 2)


def test_a_stage_that_is_rolled_back_every_time(tmp_path):
    decisions = [*SAID[:2], turn(7, 1, "eval/act", "roll_back", "act fell again", "gate")]
    run = run_of(
        tmp_path / "never", [*TWICE, line(8, 1, 2, **shares(0.9), rolled_back_to=5)], decisions=decisions
    )
    stage = effects(run)[1]
    assert (
        words.gates(stage, run.decisions)
        == "the gate on eval/act rolled it back twice, the last time to step 5"
    )
    assert words.headline("done", [stage], *first_and_last(run)).endswith(
        "; stage 2 (reinforce) was rolled back."
    )


def test_isolation_is_told_in_words_with_its_numbers(twice):
    found = [
        turn(9, 1, "isolation", "share", "transfer is positive"),
        turn(12, 1, "isolation", "isolate", "act changed by -0.175"),
        turn(20, 1, "isolation", "share", "act would lose nothing"),
        turn(8, 1, "layout", "fork", "plan has an adapter"),
        turn(8, 1, "core", "random", "6 weights"),
        turn(30, 1, "core", "fuse", "region core-act"),
        turn(30, 1, "reinforce", "advance", "done"),
        turn(9, 0, "isolation", "isolate", "of another stage"),
    ]
    assert words.turns(effects(twice)[1], found) == [
        "At step 9 sharing went on: transfer is positive.",
        "At step 12 isolation switched on: act changed by -0.175.",
        "At step 20 isolation switched off: act would lose nothing.",
        "At step 8, weights: plan has an adapter.",
        "At step 8, random weights held as a control: 6 weights.",
        "At step 30, fused: region core-act.",
    ]


# --- curves ---


def test_steps_without_a_probe_are_left_out_and_bounds_ride_along(twice):
    found = columns(twice)
    steps = [found["axis"]["step"][i] for i in found["series"]["interference/act"]["i"]]
    assert steps == [2, 4, 6, 7]
    assert found["series"]["interference/act"] | {"i": 0} == {
        "i": 0,
        "v": [0.8, -0.4, -0.05, -0.02],
        "lo": [0.7, -0.5, -0.1, -0.06],
        "hi": [0.9, -0.3, 0.0, 0.02],
    }
    assert sorted(found["series"]) == ["eval/act", "interference/act", "interference/plan"]
    assert found["axis"]["begun"] == [1, 1, 2, 2, 2, 3, 3, 3]  # line 3 has no curve; each attempt counts
    assert found["axis"]["lost"] == [0, 0, 0, 1, 0, 0, 0, 0]


def test_what_tables_and_marks_say_is_no_curve(tmp_path):
    lines = [
        line(0, 0, 0, phase__now=1.0, eval_change__act=0.0, seconds_probe__plans=1.0, probe__entropy_act=2.0)
    ]
    assert list(columns(run_of(tmp_path / "told", lines))["series"]) == ["probe/entropy_act"]


def test_a_bound_that_is_missing_or_not_finite_leaves_the_curve_without_a_band(tmp_path):
    lines = [
        line(1, 0, 1, **change("act", 0.1, 0.0, math.nan)),
        line(2, 0, 2, **change("act", 0.2, 0.1, 0.3)),
    ]
    run = run_of(tmp_path / "open", lines)
    assert columns(run)["series"]["interference/act"] == {"i": [0, 1], "v": [0.1, 0.2]}


# --- what counts as interference ---


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (PLAN, {"others": ["act"], "own": ["plan"]}),
        ({"kind": "imitate", "roles": ["act"]}, {"others": ["plan"], "own": ["act"]}),
        (IMITATE, {"others": [], "own": []}),
        (IMITATE | {"adaptive": {"to": "model"}}, {"others": ["plan", "act"], "own": []}),
        ({"kind": "reinforce"}, {"others": ["plan", "act"], "own": []}),
    ],
)
def test_whose_change_is_interference(spec, found):
    assert probes.watched(spec, ("plan", "act")) == found


def test_the_largest_harm_is_of_a_role_that_its_stage_does_not_train(tmp_path, twice):
    assert (
        probes.harm(twice)
        == "The largest harm: by step 4, stage 2 had changed act by -40.0 points [-50.0, -30.0] since its "
        "start."
    )
    unclear = run_of(tmp_path / "unclear", TWICE[:3] + TWICE[7:])
    assert probes.harm(unclear) == "No stage clearly harmed a role that it watched."
    assert probes.harm(run_of(tmp_path / "first", TWICE[:2])) == ""  # imitation of both is not watched
    assert probes.harm(run_of(tmp_path / "unknown", TWICE, stages=())) == ""


# --- phases, formats, cost ---


def observed(*phases, **last):
    lines = [line(5 * i, 0, 5 * i, phase__now=float(phase)) for i, phase in enumerate(phases)]
    lines.insert(1, line(1, 0, 1))  # a step without a probe
    lines[-1] |= {f"phase/{key}": value for key, value in last.items()}
    return [*lines, line(5 * len(phases), 0, 5 * len(phases))]


def test_phases_last_until_the_next_is_said(tmp_path):
    run = run_of(tmp_path / "phases", observed(1, 1, 2, 2, 0, consolidated_at=10.0, bottleneck_at=10.0))
    assert [(p["phase"], p["from"], p["to"]) for p in probes.phases(run)] == [
        (1, 0, 10),
        (2, 10, 20),
        (0, 20, 25),
    ]
    assert (
        probes.phases_sentence(run)
        == "act had consolidated at step 10; from then on plan was the bottleneck until step 20."
    )


@pytest.mark.parametrize(
    ("phases", "last", "sentence"),
    [
        ((1, 1), {}, "act had not consolidated by step 5."),
        (
            (1, 0),
            {"consolidated_at": 5.0},
            "act had consolidated at step 5; plan was never the bottleneck after that.",
        ),
        (
            (1, 2),
            {"consolidated_at": 5.0, "bottleneck_at": 5.0},
            "act had consolidated at step 5; from then on plan is the bottleneck.",
        ),
        (
            (1, 0, 2),
            {"consolidated_at": 5.0, "bottleneck_at": 10.0},
            "act had consolidated at step 5; from step 10 on plan is the bottleneck.",
        ),
    ],
)
def test_the_phases_in_words(tmp_path, phases, last, sentence):
    assert probes.phases_sentence(run_of(tmp_path / "said", observed(*phases, **last))) == sentence


def test_collapsed_formats_name_the_format_and_since_when(tmp_path):
    lines = [
        line(
            i,
            0,
            i,
            format__share_json=share,
            format__share_other=1 - share,
            format__collapsed=float(share >= 0.9),
        )
        for i, share in enumerate((0.95, 0.5, 0.92, 0.97))
    ]
    assert (
        probes.collapse(run_of(tmp_path / "late", lines))
        == "The formats have collapsed since step 2: 97.0 % of the rollouts are json."
    )
    assert probes.collapse(run_of(tmp_path / "open", lines[:2])) == ""
    assert probes.collapse(run_of(tmp_path / "only", lines[:1])).startswith(
        "The formats have collapsed since step 0: 95.0 %"
    )


def test_the_cost_is_summed_by_probe_and_the_share_is_no_cost(twice):
    assert probes.seconds(twice) == {"plans": 1.0, "held_out": 0.75}


# --- the pages ---


def test_a_run_without_probes_has_none_of_it(tmp_path):
    assert (
        of_run(run_of(tmp_path / "bare", [line(0, 0, 0, **shares(0.5)), line(1, 0, 1, loss=1.0)]))["probes"]
        is None
    )


def test_the_page_holds_the_findings_for_readers_without_scripts_too(twice):
    page = report.write(twice.path).read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script', page, re.DOTALL).group(1))
    assert data["probes"]["watched"] == [{"others": [], "own": []}, {"others": ["act"], "own": ["plan"]}]
    assert data["stages"][1]["attempts"] == 2
    assert (
        "<p>The largest harm: by step 4" in page
        and "it was sent through again" in page.split("</noscript>")[0]
    )


def test_phases_stand_on_every_axis(tmp_path):
    lines = [line(0, 0, 0, phase__now=1.0), line(3, 0, 3, phase__now=0.0) | {"tokens/sampled": 7}]
    first, last = of_run(run_of(tmp_path / "axes", lines))["probes"]["phases"]
    assert (first["from"], first["to"]) == (
        {"step": 0, "seconds": 0.0, "tokens": 0.0},
        {"step": 3, "seconds": 3.0, "tokens": 7.0},
    )
    assert (last["label"], last["from"]["step"], last["to"]["step"]) == ("neither", 3, 3)


def test_runs_with_and_without_probes_are_compared(tmp_path, twice):
    bare = run_of(tmp_path / "bare", [line(0, 0, 0, **shares(0.5))], stages=(IMITATE,))
    found = of_runs([twice, bare])["runs"]
    assert (found[0]["probes"]["seconds"], found[1]["probes"]) == ({"plans": 1.0, "held_out": 0.75}, None)
    assert report.compare([twice.path, bare.path], tmp_path / "compare.html").is_file()
