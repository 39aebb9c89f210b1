"""A stage that trains nothing says so at once and at its end, with the cause and what to try."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from conftest import REFUSED, RIGHT, WRONG, desk_choices, desk_recipe, fake_desk, lines_of

from forethought import cli
from forethought.core import named
from forethought.display.lines import Lines
from forethought.report import load, payload
from forethought.rewards import Judge
from forethought.runs import idle, run
from forethought.stages.distill.transport import Unanswered

PLAN = {
    "kind": "reinforce",
    "roles": ["plan"],
    "until": {"steps": 5},
    "batch": 2,
    "tree": {"plan": 3, "act": 1},
    "credit": {"name": "role_baseline"},
    "gates": [{"metric": "eval/plan", "max_drop": 0.01}],
}


def saying(which: int):
    """An engine whose policy always says the same continuation; acting is right."""
    return fake_desk(
        script=lambda policy, text, i, seed: (
            desk_choices(text, "act")[RIGHT] if "</plan>" in text else desk_choices(text, "plan")[which]
        )
    )


def trained(out: Path, which: int, stage: dict = PLAN) -> tuple[list[str], dict, list[dict]]:
    """(plain lines, summary, decisions)"""
    stream = io.StringIO()
    found = run.train(desk_recipe(stage), out, Lines(stream), saying(which))
    assert found.exit_code == 0  # whoever reads the exit code alone sees a run that ended as planned
    return (
        stream.getvalue().splitlines(),
        json.loads((out / "summary.json").read_text()),
        lines_of(out / "decisions.jsonl"),
    )


def test_all_failed(tmp_path):
    lines, summary, decisions = trained(tmp_path / "run", WRONG)
    (stage,) = summary["stages"]
    assert (stage["trained_nothing"], stage["idle_steps"], stage["left_out"]) == (True, 5, {"all_failed": 10})
    told = [d for d in decisions if d["outcome"] == "trained nothing"]
    assert [(d["step"], d["kind"], d["numbers"]["steps"]) for d in told] == [(3, "guard", 3), (5, "guard", 5)]
    assert told[0]["reason"] == (
        "reinforce trained nothing in 3 steps: in all 6 groups no rollout succeeded (try: easier levels "
        "(stage.0.levels), imitation before it, or a reward that tells their mistakes apart (stage.0.reward))"
    )
    at = next(i for i, line in enumerate(lines) if line.startswith("decision trained nothing: gradient: "))
    assert not any(line.startswith("step 4/") for line in lines[:at])
    assert "; stage 1 (reinforce) trained nothing; " in lines[-1] and lines[-1].startswith("end: done in ")
    assert {d["outcome"] for d in decisions if d["kind"] == "gate"} == {"vacuous"}
    page = payload.of_run(load.load(tmp_path / "run"))
    assert page["headline"].endswith("; stage 1 (reinforce) trained nothing.")
    assert (
        "reinforce trained nothing in 5 steps: in all 10 groups no rollout succeeded" in page["sentences"][0]
    )
    assert "the gate on eval/plan was vacuous: it could not fail" in page["sentences"][0]


@pytest.mark.parametrize(
    ("which", "reason", "words"),
    [
        (RIGHT, "all_solved", "every rollout succeeded (try: harder levels"),
        (REFUSED, "refused", "nothing was accepted by the interface (try: imitation before it"),
    ],
)
def test_other_causes(tmp_path, which, reason, words):
    lines, summary, _ = trained(tmp_path / "run", which, PLAN | {"until": {"steps": 3}})
    assert summary["stages"][0]["left_out"] == {reason: 6}
    told = [line for line in lines if line.startswith("decision trained nothing")]
    assert len(told) == 1 and words in told[0]  # the third step is the last one: said once


def test_a_stage_that_trains_says_nothing(tmp_path):
    stream = io.StringIO()
    run.train(desk_recipe(PLAN | {"gates": []}), tmp_path / "run", Lines(stream), fake_desk())
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stages"][0]["trained_nothing"] is False and "trained nothing" not in stream.getvalue()


def test_what_counts_as_idle():
    record = {"steps": 1, "tokens_trained": 0}
    idle.note(record, {"tokens/trained": 12.0, "grad_norm/base": 0.0, "groups/zero": 1.0})  # zeros trained
    assert record["trained_nothing"] and idle.why(record, "stage.0") == (
        "trained nothing in 1 step: no token had a gradient"
    )
    record["steps"] = 2
    idle.note(record, {"tokens/trained": 12.0})  # a kind of one's own, without a norm
    assert not record["trained_nothing"] and record["idle_steps"] == 1
    old = {"steps": 7}  # of a run from before idle steps were counted
    idle.note(old, {})
    assert not old["trained_nothing"]


def test_a_rate_that_is_a_slip_of_the_pen_is_told(tmp_path, capsys):
    recipe = desk_recipe(PLAN | {"until": {"steps": 1}, "optim": {"lr": 1e6}})
    notes = []
    run.train(
        recipe, tmp_path / "run", lambda e: notes.append(e.text) if e.kind == "note" else None, fake_desk()
    )
    assert [note for note in notes if note.startswith("stage.0.optim.lr = 1e+06 is far above what trains")]
    assert cli.main(["train", "desk", "--set", "stage.1.optim.lr=3", "--dry-run"]) == 0
    assert "stage.1.optim.lr = 3 is far above" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"reward/act": 0.0, "reward/act.outcome": 0.0}, "all_failed"),
        (
            {"reward/act": 0.5, "reward/act.const": 0.5},
            "no_spread",
        ),  # a constant reward, whatever the outcome
        ({"reward/act": 0.0, "truncated/plan": 1.0, "truncated/act": 0.0}, "truncated"),
        ({"reward_none/act.f": 1.0}, "unrewarded"),
    ],
)
def test_the_cause_is_what_the_rewards_say(line, reason):
    record = {"steps": 1, "tokens_trained": 0}
    idle.note(record, {"tokens/trained": 0.0, "groups/zero": 1.0, "groups/all_failed": 4.0, **line})
    assert record["left_out"] == {reason: 4}


def test_a_judge_that_does_not_answer_is_told_and_is_the_cause(tmp_path):
    judge = Judge(
        "http://there/v1",
        "m",
        key_env="",
        cache=tmp_path / "c.jsonl",
        retries=1,
        post=lambda body: (_ for _ in ()).throw(Unanswered("unreachable", "ConnectError: refused")),
        sleep=lambda s: None,
    )
    named.hold_here("polite", judge)
    text = "in_this_process:polite"
    stage = PLAN | {"gates": [], "reward": {"plan": {text: 1.0}}, "until": {"steps": 2}}
    lines, summary, decisions = trained(tmp_path / "run", RIGHT, stage)
    said = "the judge at http://there/v1/chat/completions did not answer: ConnectError: refused"
    [told] = [d for d in decisions if d["outcome"] == "no answer"]
    assert (told["step"], told["numbers"]) == (1, {"asked": 6, "failed": 6})
    assert told["reason"].startswith(f"{said}; all 6 completions that it was asked about have no reward")
    assert summary["stages"][0]["left_out"] == {"unrewarded": 4}
    assert any(f"in all 4 groups no turn had a reward: {said} (try: start the judge" in x for x in lines)


@pytest.mark.parametrize("truncated", [0.0, 1.0])
def test_rewards_that_are_all_none_are_the_cause_even_of_what_was_cut_off(truncated):
    record = {"steps": 1, "tokens_trained": 0}
    line = {"groups/zero": 1.0, "groups/all_failed": 4.0, "reward_none/act.f": 1.0}
    idle.note(record, {"tokens/trained": 0.0, "truncated/act": truncated, **line})
    assert record["left_out"] == {"unrewarded": 4}


@pytest.mark.parametrize(
    ("line", "success", "reason"),
    [
        # the last role's turns are graded as far as they go, where nothing is to follow them
        ({"truncated/act": 1.0, "reward/act": 1.0}, False, "no_spread"),
        ({"truncated/act": 1.0, "reward/act": 0.0}, False, "no_spread"),
        ({"truncated/act": 1.0, "reward/act": 0.0, "reward/act.answered": 0.3}, True, "all_failed"),
        ({"truncated/act": 1.0, "reward/act": 0.0, "reward/act.answered": 0.0}, True, "truncated"),
        # a plan that is cut off is refused
        ({"truncated/plan": 1.0, "refused/plan": 1.0, "reward/plan": 0.0}, True, "truncated"),
        ({"truncated/plan": 1.0, "refused/plan": 1.0, "reward/plan": 0.0}, False, "truncated"),
        ({"truncated/plan": 0.5, "refused/plan": 1.0, "reward/plan": 0.0}, True, "refused"),
    ],
)
def test_a_cut_is_the_cause_only_of_what_is_refused_for_it(line, success, reason):
    record = {"steps": 1, "tokens_trained": 0}
    idle.note(record, {"tokens/trained": 0.0, "groups/zero": 1.0, "groups/all_failed": 4.0, **line}, success)
    assert record["left_out"] == {reason: 4}


def test_a_stage_whose_functions_are_equal_is_told_so_with_levels_only_where_there_are_several():
    record = {"steps": 2, "trained_nothing": True, "left_out": {"all_failed": 4}}
    assert "(try: easier levels (stage.0.levels), imitation before it" in idle.why(record, "stage.0", 3)
    assert "no rollout succeeded (try: imitation before it, or a reward" in idle.why(record, "stage.0", 1)
    record["left_out"] = {"all_solved": 4}
    assert idle.why(record, "stage.0", 1).endswith("succeeded (try: fewer steps (stage.0.until))")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("[1.0] * len(completions)", "in all 8 groups rewards were equal within each group (try: a higher"),
        ("[0.0] * len(completions)", "in all 8 groups rewards were equal within each group (try: a higher"),
        ("[None] * len(completions)", "in all 8 groups no turn had a reward: the reward functions gave None"),
    ],
)
def test_functions_that_say_one_thing_are_the_cause_whatever_was_cut_off(tmp_path, monkeypatch, body, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.py").write_text(f"def f(completions, **k): return {body}\n")
    rows = [json.dumps({"question": f"{n} + 1", "answer": str(n + 1)}) for n in range(40)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    (tmp_path / "y.toml").write_text(RECIPE)
    assert cli.main(["train", "y.toml", "--out", "run"]) == 0
    [told] = [d for d in lines_of(Path("run/decisions.jsonl")) if d["outcome"] == "trained nothing"]
    assert words in told["reason"]


RECIPE = """
model = { layers = 2, width = 32, mlp = 64, vocabulary = 300 }
eval = { tasks = 2 }
[task]
name = "text"
train = "data.jsonl"
prompt = "{question}"
answer = "answer"
plan = "none"
grader = "number"
budgets = { act = 12 }
[[stage]]
kind = "reinforce"
batch = 4
tree = { acts = 4 }
reward = { act = { "r.py:f" = 1.0 } }
until = { steps = 2 }
"""
