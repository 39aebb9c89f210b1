"""The report: reading a run directory, the verdict in words, and a page that nothing in a run can break."""

import gzip
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from forethought import report
from forethought.core.errors import UserError
from forethought.core.metrics import wilson
from forethought.report import page, words
from forethought.report.effects import Effect, Point, change, effects, first_and_last
from forethought.report.load import load
from forethought.report.page import island
from forethought.report.series import columns, thin
from forethought.report.settings import changed, differences
from forethought.report.trees import load_trees, spread
from forethought.traces.judged import SIGNS

LEVELS = (3, 4, 5)
STAGES = (  # name, kind, roles, steps, {side: (start, end)}
    (
        "imitate",
        "imitate",
        ["plan", "act"],
        240,
        {"plan": (0.01, 0.62), "act": (0.02, 0.965), "e2e": (0.0, 0.60)},
    ),
    (
        "reinforce-act",
        "reinforce",
        ["act"],
        75,
        {"plan": (0.62, 0.625), "act": (0.965, 0.83), "e2e": (0.60, 0.51)},
    ),
    (
        "reinforce-plan",
        "reinforce",
        ["plan"],
        150,
        {"plan": (0.62, 0.94), "act": (0.965, 0.965), "e2e": (0.60, 0.905)},
    ),
)
EVIL = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)>"


def recipe(name="plan-then-act", seed=0, lr=3e-4, plans=4):
    stages = [
        {
            "kind": kind,
            "name": stage,
            "roles": roles,
            "until": {"steps": steps, "metric": "", "at_least": None, "at_most": None, "patience": 1},
            "batch": 32,
            "tree": {"plan": plans, "act": 3, "temperature": 1.0},
            "credit": {"name": "pta_grpo", "weight": {"plan": 0.5}},
            "optim": {"name": "adamw", "lr": lr, "warmup": 5},
            "gates": []
            if kind == "imitate"
            else [{"metric": "eval/act", "max_drop": 0.01, "on_fail": "roll_back"}],
        }
        for stage, kind, roles, steps, _ in STAGES
    ]
    return {
        "name": name,
        "about": "Planning trained apart from acting, with a gate on acting.",
        "seed": seed,
        "layout": "adapters",
        "task": {"name": "desk", "levels": list(LEVELS)},
        "model": {"init": "small", "path": "", "layers": 4, "width": 128},
        "eval": {"tasks": 100, "levels": [], "every": 25},
        "stage": stages,
    }


def evaluation(shares, n=100):
    """The keys of one evaluation: the same tasks each time (a task is solved from its own share on), Wilson
    intervals."""
    line = {}
    for side, share in shares.items():
        total = 0
        for level in LEVELS:
            # who plans wrong fails end to end
            hard = random.Random(f"{'act' if side == 'act' else 'plan'}@{level}")
            p = share + 0.06 * (4 - level) * (0 < share < 1)
            hits = sum(hard.random() < p for _ in range(n))
            write_share(line, f"{side}@{level}", hits, n)
            total += hits
        write_share(line, side, total, n * len(LEVELS))
    return line


def write_share(line, key, hits, n):
    low, high = wilson(hits, n)
    line |= {f"eval/{key}": hits / n, f"eval_low/{key}": low, f"eval_high/{key}": high, f"eval_n/{key}": n}


def fake_run(path, *, name="plan-then-act", seed=0, status="done", lr=3e-4, plans=4, boost=0.0, text=""):
    """A run directory as a run writes it: three stages, the second thrown back to its start by a gate. `text`
    goes into the trees."""
    rng = random.Random(seed)
    (path / "trees").mkdir(parents=True)
    lines, decisions = [], [decision(0, 0, "run", name, "start", "forethought 0.1.0, seed 0")]
    step, seconds, start = 0, 0.0, evaluation({side: a for side, (a, _) in STAGES[0][4].items()})
    for index, (stage, kind, roles, steps, moves) in enumerate(STAGES):

        def line(stage_step, **more):
            return {
                "step": step,
                "stage": index,
                "stage_name": stage,
                "kind": kind,
                "stage_step": stage_step,
                "seconds": round(seconds, 3),
            } | more

        anchor = step
        lines.append(line(0, **start))
        for k in range(1, steps + 1):
            step, seconds = step + 1, seconds + (0.35 if kind == "imitate" else 2.4) * rng.uniform(0.9, 1.1)
            share = 1 - 2.718 ** (-4.5 * k / steps)
            lines.append(line(k, **training(rng, kind, roles, share)))
            if k % 25 == 0 or k == steps:
                found = evaluation(
                    {side: min(a + (b - a) * share + boost * (b > 0.1), 1) for side, (a, b) in moves.items()}
                )
                lines[-1] |= found
                if kind == "reinforce":
                    # act was compared task by task, e2e was not
                    moved = found["eval/act"] - start["eval/act"]
                    lines[-1] |= {
                        "eval_change/act": moved,
                        "eval_change_low/act": moved - 0.02,
                        "eval_change_high/act": moved + 0.02,
                    }
                    decisions.append(
                        gate(step, index, start["eval/act"], found["eval/act"], index == 1 and k == steps)
                    )
                write_trees(path, rng, step, index, share, plans, text if k == steps else "")
        if index == 1:
            step += 1
            lines.append(line(steps, rolled_back_to=anchor, **start))
            decisions.append(
                decision(step, index, "schedule", stage, "advance", "a gate rolled it back (eval/act)")
            )
        else:
            start = found
            decisions.append(
                decision(step, index, "schedule", stage, "advance", f"its {steps} steps are done")
            )
    decisions += [
        decision(
            step,
            2,
            "guard",
            "finite",
            "refuse",
            "update refused: the gradient of act is not finite",
            {"refused": 1},
        ),
        decision(step, 2, "run", name, "end", f"{step} steps"),
    ]
    (path / "recipe.json").write_text(json.dumps(recipe(name, seed, lr, plans)))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "decisions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in decisions))
    (path / "summary.json").write_text(
        json.dumps(
            {
                "name": name,
                "seed": seed,
                "status": status,
                "seconds": seconds + 9,
                "machine": {
                    "cpu": "AMD EPYC 9354",
                    "cores": 8,
                    "threads": 8,
                    "device": "cpu",
                    "torch": "2.13.0",
                    "python": "3.11.7",
                    "forethought": "0.1.0",
                },
                "stages": [
                    {
                        "name": stage,
                        "kind": kind,
                        "roles": roles,
                        "steps": steps,
                        "seconds": steps * (0.35 if kind == "imitate" else 2.4),
                    }
                    for stage, kind, roles, steps, _ in STAGES
                ],
            }
        )
    )
    return path


def gate(step, index, before, after, bad):
    change_ = after - before
    interval = {"low": change_ - 0.02, "high": change_ + 0.02, "confidence": 0.95} if bad else {}
    reason = (
        f"eval/act {'fell' if bad else 'has not fallen'} by more than 0.01: {before:.3f} -> "
        f"{after:.3f}, change {change_:+.3f}"
    )
    return decision(
        step,
        index,
        "gate",
        "eval/act",
        "roll_back" if bad else "pass",
        reason,
        {"start": before, "value": after, "change": change_, "bound": 0.01} | interval,
    )


def training(rng, kind, roles, share):
    def noisy(value):
        return round(value * rng.uniform(0.88, 1.08), 6)

    line = {
        "lr": 3e-4 * min(1, share * 8 + 0.1),
        "tokens/trained": rng.randrange(18000, 24000),
        "tokens_per_second": noisy(21000),
        "entropy/plan": noisy(1.3 - 0.9 * share),
        "entropy/act": noisy(0.7 - 0.45 * share),
    }
    line |= {f"grad_norm/{role}": noisy(0.9 - 0.4 * share) for role in roles}
    if kind == "imitate":
        return line | {"loss/sft": noisy(2.2 - 1.9 * share), "tokens/sampled": 0}
    line |= {
        "loss/pg": round(rng.gauss(0, 0.02), 5),
        "gap/sampler": noisy(2e-4),
        "kl/ref": noisy(0.03 * share + 1e-4),
        "groups/zero": noisy(0.3 + 0.3 * share),
        "tokens/sampled": rng.randrange(30000, 36000),
    }
    for role in roles:
        line |= {
            f"reward/{role}": noisy(0.4 + 0.5 * share),
            f"reward/{role}.valid": noisy(0.85 + 0.1 * share),
            f"reward/{role}.outcome": noisy(0.35 + 0.5 * share),
        }
    return line


def write_trees(path, rng, step, index, share, plans, text):
    rows = []
    for number in range(4):
        names = rng.sample("abcdefghkmnpqrs", 6)
        goal, oracle = names[0], f"{names[0]} {names[1]} {names[2]} </plan>"
        cells = {n: f"x{rng.randrange(10)} y{rng.randrange(10)}" for n in names}
        nodes = [
            {
                "id": 0,
                "parent": None,
                "role": None,
                "text": f"GOAL {goal} v3 <plan>",
                "status": "given",
                "reason": "",
                "reward_parts": {},
                "reward": None,
                "advantage": None,
                "policy": None,
                "version": 0,
                "tokens": 44,
                "logprob": None,
            }
        ]
        for _ in range(plans):
            right = rng.random() < 0.4 + 0.5 * share
            refused = not right and rng.random() < 0.3
            plan, reason = (
                (oracle, "")
                if right
                else (
                    (f"{goal} {goal} v3 </plan>", "word 3: a value cannot stand in a plan")
                    if refused
                    else (f"{goal} {names[1]} {names[5]} </plan>", f"{names[5]} is not inside {names[1]}")
                )
            )
            plan_id = len(nodes)
            nodes.append(
                sampled(
                    rng,
                    plan_id,
                    0,
                    "plan",
                    plan + text,
                    "refused" if refused else "finished",
                    {"format": float(not refused), "valid": float(right)},
                    reason,
                    index,
                )
            )
            for _ in range(0 if refused else 3):
                done = right and rng.random() < 0.85
                act = " ".join(f"{n} {cells[n]}" for n in (names[2], names[1], names[0])) + " v3 </act>"
                nodes.append(
                    sampled(
                        rng,
                        len(nodes),
                        plan_id,
                        "act",
                        act,
                        "finished",
                        {"outcome": float(done), "follows": float(done or not right)},
                        "" if done else f"{names[1]} was not at the clicked cell",
                        index,
                    )
                )
        rows.append(
            {
                "step": step,
                "stage": index,
                "task": f"desk-{step}-{number}{text}",
                "domain": "desk",
                "level": LEVELS[number % 3],
                "context": "desk " + " ".join(f"{n} desk {cells[n]}" for n in names),
                "prompt": f"GOAL {goal} v3 <plan>",
                "oracle_plan": oracle,
                "nodes": nodes,
            }
        )
    with gzip.open(path / "trees" / f"step-{step:06d}.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def sampled(rng, id_, parent, role, text, status, parts, reason, index):
    reward = sum(parts.values()) / len(parts)
    return {
        "id": id_,
        "parent": parent,
        "role": role,
        "text": text,
        "status": status,
        "reason": reason,
        "reward_parts": parts,
        "reward": reward,
        "advantage": round((reward - 0.6) * rng.uniform(0.8, 2.2), 3),
        "policy": role,
        "version": index * 10 + 7,
        "tokens": len(text.split()),
        "logprob": -rng.random() / 3,
    }


def decision(step, stage, kind, name, outcome, reason, numbers=None):
    return {
        "step": step,
        "stage": stage,
        "kind": kind,
        "name": name,
        "outcome": outcome,
        "reason": reason,
        "numbers": numbers or {},
    }


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return fake_run(tmp_path_factory.mktemp("runs") / "first", text=EVIL)


def point(value, low=None, high=None, step=0):
    return Point(step=step, value=value, low=low, high=high)


def effect(**changes):
    """A stage that trained plan from 61 to 94 percent while act stayed inside its interval."""
    fields = {
        "index": 1,
        "name": "reinforce-plan",
        "kind": "reinforce",
        "roles": ("plan",),
        "steps": 150,
        "first": 10,
        "last": 160,
        "before": {
            "plan": point(0.61, 0.55, 0.66),
            "act": point(0.97, 0.94, 0.98),
            "e2e": point(0.6, 0.54, 0.65),
        },
        "after": {
            "plan": point(0.94, 0.91, 0.96),
            "act": point(0.967, 0.94, 0.98),
            "e2e": point(0.91, 0.87, 0.94),
        },
        "changes": {},
    }
    fields |= {"kept": fields["after"]} | changes
    return Effect(**fields)


# --- the verdict in words ---


def test_a_stage_in_one_sentence():
    passes = [decision(step, 1, "gate", "eval/act", "pass", "") for step in (25, 50, 75)]
    assert words.stage_sentence(effect(), passes) == (
        "Stage 2, reinforce-plan (trains plan, 150 steps): plan rose from 61.0 % to 94.0 %, act showed no "
        "clear change (97.0 % to 96.7 %) "
        "and e2e rose from 60.0 % to 91.0 %; the gate on eval/act passed 3 times."
    )


def test_a_rolled_back_stage_says_what_fell_and_what_stays():
    fallen = {"plan": point(0.62, 0.56, 0.67), "act": point(0.81, 0.76, 0.85), "e2e": point(0.6, 0.54, 0.65)}
    stage = effect(
        index=2,
        name="more",
        roles=("plan", "act"),
        steps=1,
        after=fallen,
        kept=effect().before,
        rolled_back_to=1300,
    )
    decisions = [
        decision(1301, 2, "gate", "eval/act", "pass", ""),
        decision(1302, 2, "gate", "eval/act", "roll_back", "act fell"),
        decision(1302, 2, "gate", "kl/ref", "warn", ""),
        decision(1302, 1, "gate", "eval/e2e", "stop", "another stage's"),
    ]
    assert words.stage_sentence(stage, decisions) == (
        "Stage 3, more (trains plan and act, 1 step): plan showed no clear change (61.0 % to 62.0 %), act "
        "fell from 97.0 % to 81.0 % "
        "and e2e stayed at 60.0 %; the gate on eval/act rolled it back to step 1,300 and the gate on kl/ref "
        "warned once, "
        "which leaves plan at 61.0 %, act at 97.0 % and e2e at 60.0 %."
    )


def test_stages_without_measurements_say_so():
    assert words.stage_sentence(effect(first=None), []) == "Stage 2, reinforce-plan: not begun."
    assert words.stage_sentence(effect(before={}, after={}, kept={}), []) == (
        "Stage 2, reinforce-plan (trains plan, 150 steps): no evaluation was made; no gate judged it."
    )
    assert words.stage_sentence(effect(before={"act": point(0.5)}, after={}, kept={}), []) == (
        "Stage 2, reinforce-plan (trains plan, 150 steps): act was measured once (50.0 %); no gate judged it."
    )


def test_the_headline_by_status():
    start, end = (
        {"plan": point(0.02), "act": point(0.01), "e2e": point(0.0)},
        {"plan": point(0.94), "act": point(0.97), "e2e": point(0.9)},
    )
    moves = "plan rose from 2.0 % to 94.0 %, act rose from 1.0 % to 97.0 %, and e2e rose from 0.0 % to 90.0 %"
    assert (
        words.headline("done", [effect(), effect(index=2, steps=1050)], start, end)
        == f"Over 2 stages and 1,200 steps, {moves}."
    )
    back = effect(rolled_back_to=7)
    assert (
        words.headline("stopped", [back], start, end)
        == f"Stopped after 1 stage and 150 steps: {moves}; stage 2 (reinforce-plan) was rolled back."
    )
    assert (
        words.headline("running", [effect(), effect(first=None)], start, end)
        == f"So far, over 1 stage and 150 steps, {moves}."
    )
    assert words.headline("interrupted", [effect()], {}, {}) == (
        "Interrupted after 1 stage and 150 steps: no evaluation was made, so nothing can be said about any "
        "role."
    )


def test_a_ranking_claims_only_what_the_intervals_carry():
    ahead = {"a": point(0.85, 0.81, 0.88), "b": point(0.94, 0.91, 0.96), "c": point(0.2, 0.1, 0.3)}
    assert (
        words.ranking("e2e", ahead)
        == "e2e: b ends highest at 94.0 %, a at 85.0 %: +9.0 points [+4.8, +13.5]."
    )
    close = {"a": point(0.93, 0.9, 0.95), "b": point(0.94, 0.91, 0.96)}
    assert (
        words.ranking("act", close)
        == "act: b ends highest at 94.0 %, a at 93.0 %: +1.0 points [-2.6, +4.6], which is no clear "
        "difference."
    )
    assert words.ranking("plan", {"a": point(0.5), "b": point(0.5)}) == "plan: a and b both end at 50.0 %."
    assert words.ranking("plan", {"a": point(0.5)}) == "plan: fewer than two runs were measured."


def test_newcombe_by_hand():
    """56/70 against 48/80, the worked example of Newcombe (1998), method 10: 0.2 with interval 0.0524 to
    0.3339."""
    a, b = point(48 / 80, *wilson(48, 80)), point(56 / 70, *wilson(56, 70))
    diff = change(a, b)
    assert (round(diff.value, 4), round(diff.low, 4), round(diff.high, 4), diff.clear) == (
        0.2,
        0.0524,
        0.3339,
        True,
    )


# --- what stages did ---


def test_effects_follow_a_roll_back(run_dir):
    run = load(run_dir)
    first, second, third = effects(run)
    at = {(line["step"], line["stage"]): line for line in run.lines}
    assert (first.before["plan"].value, first.after["act"].value, first.steps) == (
        at[0, 0]["eval/plan"],
        at[240, 0]["eval/act"],
        240,
    )
    assert (second.before, second.steps, second.rolled_back_to) == (
        {**second.before, "act": first.after["act"]},
        75,
        240,
    )
    # what the training did, not what was restored
    assert (second.after["act"].step, second.after["act"].value) == (315, at[315, 1]["eval/act"])
    assert (second.kept["act"].step, second.kept["act"].value) == (316, at[240, 0]["eval/act"])
    # only act was compared task by task
    assert (second.changes["act"].paired, second.changes["e2e"].paired) == (True, False)
    assert second.changes["act"].low == pytest.approx(at[315, 1]["eval/act"] - at[240, 0]["eval/act"] - 0.02)
    assert second.changes["act@5"].clear and second.changes["act@5"].value < 0
    assert (third.before["plan"].value, third.after["plan"].step, third.steps) == (
        at[240, 0]["eval/plan"],
        466,
        150,
    )
    assert (first.rolled_back_to, third.rolled_back_to, first.kept, third.kept) == (
        None,
        None,
        first.after,
        third.after,
    )
    start, end = first_and_last(run)
    assert (start["e2e"].step, end["e2e"].step) == (0, 466)
    axis = columns(run)["axis"]
    assert [step for step, lost in zip(axis["step"], axis["lost"], strict=True) if lost] == list(
        range(241, 316)
    )


def test_a_roll_back_told_by_the_next_stage(tmp_path):
    lines = [
        {"step": 0, "stage": 0, "stage_step": 0, "eval/act": 0.9},
        {"step": 4, "stage": 0, "stage_step": 4, "eval/act": 0.5},
        {"step": 5, "stage": 1, "stage_step": 1, "rolled_back_to": 0},
        {"step": 6, "stage": 1, "stage_step": 2, "eval/act": 0.95},
    ]
    first, second = effects(load(small_run(tmp_path, lines)))
    assert (first.rolled_back_to, first.after["act"].value, first.kept["act"].value) == (0, 0.5, 0.9)
    assert (second.rolled_back_to, second.before["act"].value, second.after["act"].value, second.steps) == (
        None,
        0.9,
        0.95,
        2,
    )


def test_a_roll_back_that_ended_the_run(tmp_path):
    lines = [
        {"step": 0, "stage": 0, "stage_step": 0, "eval/act": 0.9},
        {"step": 1, "stage": 0, "stage_step": 1, "eval/act": 0.5},
    ]
    run = load(small_run(tmp_path, lines, [decision(1, 0, "gate", "eval/act", "roll_back", "act fell")]))
    (only,) = effects(run)
    assert (
        only.rolled_back_to,
        only.after["act"].value,
        only.kept["act"].value,
        first_and_last(run)[1]["act"].value,
    ) == (0, 0.5, 0.9, 0.9)


def test_a_stage_without_an_opening_evaluation_starts_where_the_last_one_ended(tmp_path):
    lines = [
        {"step": 0, "stage": 0, "stage_step": 0, "eval/act": 0.1},
        {"step": 5, "stage": 0, "stage_step": 5, "eval/act": 0.4},
        {"step": 10, "stage": 1, "stage_step": 5, "eval/act": 0.3},
    ]
    second = effects(load(small_run(tmp_path, lines)))[1]
    assert (second.before["act"].value, second.after["act"].value) == (0.4, 0.3)


# --- reading ---


def small_run(path, lines, decisions=(), recipe_=None):
    path.mkdir(exist_ok=True)
    (path / "recipe.json").write_text(json.dumps(recipe_ or {"name": "small", "stage": []}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "decisions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in decisions))
    return path


def test_a_directory_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="is not a directory"):
        report.write(tmp_path / "nowhere")
    with pytest.raises(UserError, match="it has no recipe.json and no metrics.jsonl"):
        report.write(tmp_path)
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(UserError, match="it has no metrics.jsonl"):
        report.write(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["recipe.json"]  # nothing half written


def test_a_cut_off_run_is_reported_and_says_so(tmp_path):
    path = fake_run(tmp_path / "cut")
    (path / "summary.json").unlink()
    whole_text = (path / "metrics.jsonl").read_bytes()
    (path / "metrics.jsonl").write_bytes(whole_text[: whole_text.index(b'"step": 300') + 25])
    tree = path / "trees" / "step-000025.jsonl.gz"
    tree.write_bytes(tree.read_bytes()[:-200])
    data = page_data(report.write(path))
    assert data["notes"] == [
        "The run is still going or was cut off: this page is its state at step 299.",
        "The last line of metrics.jsonl is cut off: the run was writing it, or was killed. It is left out.",
        "step-000025.jsonl.gz is cut off: its last trees are missing.",
    ]
    assert data["headline"].startswith("So far, over 2 stages and 299 steps, plan rose from ")
    assert data["sentences"][2] == "Stage 3, reinforce-plan: not begun."
    assert data["stages"][2]["span"] is None and data["cost"]["steps"] == 299


def test_a_run_that_measured_nothing_yet(tmp_path):
    data = page_data(report.write(small_run(tmp_path / "new", [], recipe_=recipe())))
    assert data["notes"] == [
        "The run is still going or was cut off: this page is its state at its start.",
        "Nothing was measured yet.",
    ]
    assert [stage["span"] for stage in data["stages"]] == [None, None, None]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.jsonl", '{"step": 1, "stage": 0}\n{"step": 2,\n', "metrics.jsonl line 2 is not JSON"),
        (
            "metrics.jsonl",
            '{"step": "1", "stage": 0}\n',
            "metrics.jsonl line 1: 'step' must be a whole number from 0, not '1'",
        ),
        (
            "metrics.jsonl",
            '{"step": 1, "stage": 2147483648}\n',
            "metrics.jsonl line 1: 'stage' must be a whole number below 1,000, the number of stages",
        ),
        (
            "metrics.jsonl",
            '{"step": 1, "stage": 0, "lr": [1]}\n',
            r"line 1: 'lr' must be a number, not \[1\]",
        ),
        ("metrics.jsonl", "[]\n", "metrics.jsonl line 1 is not a JSON object"),
        (
            "decisions.jsonl",
            '{"step": 1, "stage": 0, "kind": "gate"}\n',
            "decisions.jsonl line 1: 'name' must be text, not None",
        ),
        ("recipe.json", '{"stage": {}}', "recipe.json: `stage` must be a list"),
        ("recipe.json", '{"stage": ["x"]}', "recipe.json: `stage.0` must be a table"),
        (
            "recipe.json",
            '{"stage": [{"roles": [{}]}]}',
            "recipe.json: `stage.0.roles` must be a list of texts",
        ),
        ("recipe.json", '{"a": ' + "[" * 60 + "]" * 60 + "}", "recipe.json is nested deeper than 50"),
        (
            "metrics.jsonl",
            '{"step": 1, "stage": 0, "stage_step": null}\n',
            "line 1: 'stage_step' must be a whole number, not None",
        ),
        (
            "metrics.jsonl",
            '{"step": 1, "stage": 0, "name": "x"}\n',
            "line 1: 'name' must be a number, not 'x'",
        ),
        (
            "metrics.jsonl",
            '{"step": 1, "stage": 0, "lr": 1' + "0" * 400 + "}\n",
            "line 1: 'lr' must be a number, not 1000",
        ),
        (
            "decisions.jsonl",
            '{"step": 1, "stage": 0, "kind": "a", "name": "b", "outcome": "c", "reason": "", '
            '"numbers": {"a": ' + "[" * 60 + "]" * 60 + "}}\n",
            "decisions.jsonl line 1: is nested deeper than 50",
        ),
    ],
)
def test_malformed_files_are_refused_with_their_address(tmp_path, name, text, message):
    path = small_run(tmp_path, [])
    (path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        report.write(path)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (
            '{"status": "fine"}',
            "summary.json has the status 'fine', which is none of done, stopped, interrupted, running",
        ),
        ('{"machine": "mine"}', "summary.json has a machine that is not a JSON object"),
        ("", "summary.json is not JSON"),
        ('{"status": "done", "seconds"', "summary.json is not JSON"),
        ("[]", "summary.json is not a JSON object"),
        ("[" * 200_000, "summary.json is not JSON"),
        ('{"status": "done", "digest": "00"}', "summary.json is not what was written"),
    ],
)
def test_a_summary_that_cannot_be_read_is_left_out_and_said(tmp_path, text, note):
    """Only what the page shows depends on it."""
    path = small_run(tmp_path, [])
    (path / "summary.json").write_text(text)
    run = load(path)
    assert run.summary == {} and run.status == "running" and f"The summary is left out: {note}." in run.notes
    assert report.write(path).exists()


def test_steps_written_again_after_a_kill_are_told_once(tmp_path):
    lines = [{"step": s, "stage": 0, "lr": v} for s, v in ((1, 0.1), (2, 0.2), (3, 0.3), (2, 0.4), (3, 0.5))]
    run = load(small_run(tmp_path, lines))
    assert [(line["step"], line["lr"]) for line in run.lines] == [(1, 0.1), (2, 0.4), (3, 0.5)]
    assert "2 metric lines were written again after a resume; the later ones are shown." in run.notes


def test_numbers_that_are_not_finite_are_counted_not_drawn(tmp_path):
    lines = [{"step": 1, "stage": 0, "loss/pg": float("nan")}, {"step": 2, "stage": 0, "loss/pg": 0.5}]
    data = page_data(report.write(small_run(tmp_path, lines)))
    assert data["notes"][-1] == "Not finite, and so not drawn: 1 value of loss/pg."
    assert (data["series"]["loss/pg"]["v"], data["axis"]["step"]) == ([0.5], [1, 2])


def test_long_runs_are_thinned_and_keep_their_spikes(tmp_path):
    values = [0.0] * 50_000
    values[31_234], values[40_001] = 9.0, -7.0
    kept = thin(values, 2000)
    assert len(kept) <= 2000 and {0, 31_234, 40_001, 49_999} <= set(kept) and kept == sorted(set(kept))
    assert thin([3.0, 1.0], 2000) == [0, 1]
    lines = [{"step": s, "stage": 0, "lr": float(s % 2), "tokens/sampled": 10} for s in range(1, 5001)]
    data = columns(load(small_run(tmp_path, lines)))
    assert len(data["series"]["lr"]["v"]) <= 2000 and data["axis"]["tokens"][-1] == 50_000
    # counted before thinning
    # peaks are kept, but the mean around them stays true
    assert all(0.3 < mean < 0.7 for mean in data["series"]["lr"]["m"])


# --- the trees of the page (what a tree is judged: test_traces.py) ---


def test_too_many_trees_show_the_course_of_training_and_every_sign(run_dir):
    """76 trees, 4 at each of 19 steps: half of the places go to the course of training, half to the signs."""
    whole_, notes = load_trees(run_dir, []), []
    assert (len(whole_["items"]), whole_["left_out"], notes) == (76, 0, [])
    places = [(tree["step"], tree["place"]) for tree in whole_["items"]]
    assert places == sorted(places) and places[:5] == [(25, 0), (25, 1), (25, 2), (25, 3), (50, 0)]
    counts = {sign: sum(sign in tree["signs"] for tree in whole_["items"]) for sign in SIGNS}
    some = load_trees(run_dir, [], most=40)
    assert (len(some["items"]), some["left_out"]) == (40, 36)
    assert {tree["step"] for tree in some["items"]} == {tree["step"] for tree in whole_["items"]}
    assert some["counts"] == whole_["counts"] == {sign: n for sign, n in counts.items() if n}
    assert {sign for tree in some["items"] for sign in tree["signs"]} == set(whole_["counts"])
    few = load_trees(run_dir, [], most=3)["items"]
    assert 466 in [tree["step"] for tree in few] and any("disagree" in tree["signs"] for tree in few)
    assert load_trees(run_dir, [], room=10) | {"counts": {}} == whole_ | {
        "counts": {},
        "items": [],
        "left_out": 76,
    }


def test_the_page_holds_as_much_as_it_has_room_for(run_dir):
    room = 30_000
    trees = load_trees(run_dir, [], room=room)["items"]
    assert 0 < len(trees) < 76 and 0.7 * room < len(json.dumps(trees)) < 1.4 * room  # sizes are estimated
    assert all(tree["nodes"][0]["text"] == "" and tree["prompt"].startswith("GOAL") for tree in trees)


def test_a_part_of_a_run_is_spread_over_it():
    assert spread(list("abcdefgh")) == list("hdfbgcea") and spread([1]) == [1] and spread([]) == []


# --- recipes ---


def test_what_a_recipe_changes():
    assert changed(recipe(lr=3e-4))[:5] == [
        "name",
        "about",
        "task.levels",
        "stage.0.name",
        "stage.0.until.steps",
    ]
    assert "stage.1.gates.0.max_drop" in changed(recipe()) and "stage.1.gates.0.metric" not in changed(
        recipe()
    )
    # a taskset's own option
    assert changed({"task": {"name": "desk", "slip": 0.1}, "stage": []}) == ["task.slip"]


def test_differences_show_only_what_differs():
    rows = differences([recipe(), recipe(name="other", lr=1e-4), recipe()])
    assert [(row["key"], row["values"]) for row in rows] == [
        ("name", ["plan-then-act", "other", "plan-then-act"]),
        *((f"stage.{i}.optim.lr", [3e-4, 1e-4, 3e-4]) for i in range(3)),
    ]
    assert differences([{"stage": [{"a": 1}]}, {"stage": [{"a": 1}, {"a": 2}]}]) == [
        {"key": "stage.1.a", "values": ["—", 2]}
    ]


# --- the pages ---


def page_data(path):
    """The JSON island, found as a browser finds it: up to the first end of a script."""
    island_ = re.search(
        r'<script type="application/json" id="data">(.*?)</script',
        path.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    return json.loads(island_.group(1))


def test_the_page_holds_the_run_and_reaches_nowhere(run_dir):
    path = report.write(run_dir)
    page = path.read_text(encoding="utf-8")
    assert path == run_dir / "report.html" and not list(run_dir.glob(".report*"))
    assert not re.search(
        r"https?://|//[a-z]+\.|url\((?!#)|@import|\bfetch\(|XMLHttpRequest|innerHTML|document\.write", page
    )
    assert "default-src 'none'" in page and "{{" not in page.split("<style>")[0]
    data = page_data(path)
    assert (data["name"], data["status"], data["levels"], len(data["trees"]["items"])) == (
        "plan-then-act",
        "done",
        ["3", "4", "5"],
        76,
    )
    assert data["big"]["act"]["after"]["step"] == 466 and [
        (r["from"]["step"], r["to"]["step"]) for r in data["rolled_back"]
    ] == [(240, 315)]
    assert [stage["frozen"] for stage in data["stages"]] == [[], ["plan"], ["act"]]
    assert data["headline"].endswith("; stage 2 (reinforce-act) was rolled back.")
    assert sum(stage["cost"]["tokens_sampled"] for stage in data["stages"]) == data["cost"]["tokens_sampled"]
    again = report.write(run_dir).read_text(encoding="utf-8")
    assert again == page  # the same directory gives the same page


def test_what_a_run_computed_on_is_shown_by_names_for_a_reader(tmp_path):
    path = small_run(tmp_path, [])
    facts = {
        "cores": 2,
        "threads": 1,
        "threads/why": "one core here",
        "threads/kernels": 2,
        "kernels": "c",
        "model": "",
        "sample_rows": 64,
        "parameters/plan": 7,
    }
    (path / "summary.json").write_text(json.dumps({"machine": facts}))
    assert list(page_data(report.write(path))["machine"].items()) == [
        ("cores", 2),
        ("threads", 1),
        ("threads, why", "one core here"),
        ("threads of the kernels", 2),
        ("kernels", "c"),
        ("rows sampled together", 64),
        ("parameters of plan", 7),
    ]


def test_text_of_a_model_cannot_break_out(run_dir, tmp_path):
    page = report.write(run_dir).read_text(encoding="utf-8")
    assert (
        EVIL not in page
        and "<script>alert" not in page
        and page.count("</script") == 2
        and page.count("<!--") == 0
    )
    texts = [
        n["text"] for tree in page_data(run_dir / "report.html")["trees"]["items"] for n in tree["nodes"]
    ]
    assert any(EVIL in text for text in texts)  # and yet it is all there
    named = small_run(tmp_path / "named", [], recipe_={"name": f"{EVIL}{{{{DATA}}}}", "stage": []})
    page = report.write(named).read_text(encoding="utf-8")
    # a name is never a placeholder
    assert page.count("</script") == 2 and page.count('id="data"') == 1 and "{{DATA}}" in page
    assert json.loads(island({"x": ["</script>", float("nan"), "\ud800", {"y": (1, None)}]})) == {
        "x": ["</script>", None, "?", {"y": [1, None]}]
    }


def test_compare_lays_runs_side_by_side(run_dir, tmp_path):
    other = fake_run(tmp_path / "second", name="slow", lr=1e-4, boost=-0.08)
    path = report.compare([run_dir, other], tmp_path / "deep" / "compare.html")
    data = page_data(path)
    assert [run["label"] for run in data["runs"]] == ["plan-then-act", "slow"]
    assert [row["key"] for row in data["differences"]] == [
        "name",
        "stage.0.optim.lr",
        "stage.1.optim.lr",
        "stage.2.optim.lr",
    ]
    assert data["sentences"][0].startswith("plan: plan-then-act ends highest at ") and data["notes"] == []
    assert data["runs"][1]["end"]["e2e@5"]["n"] == 100
    assert not re.search(r"https?://", path.read_text(encoding="utf-8"))


def test_pictures_that_were_asked_for_and_not_taken_are_said():
    lines = [{"eval/e2e": 0.0}]
    said = words.no_picture({"task": {"name": "web", "pictures": 2}}, lines)
    assert len(said) == 1 and "no plan can be read" in said[0]
    assert (
        "recorded (task.pages)" in words.no_picture({"task": {"pictures": 2, "pages": "recorded"}}, lines)[0]
    )
    for task, seen in (({"pictures": 0}, lines), ({}, lines), ({"pictures": 2}, [{"loss": 1.0}])):
        assert words.no_picture({"task": task}, seen) == []


@pytest.mark.parametrize("out", [".", "deep", "/"])
def test_a_page_is_not_written_over_a_folder(run_dir, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    with pytest.raises(UserError, match="it is a folder; name a file in it"):
        report.compare([run_dir, fake_run(tmp_path / "second", name="slow")], Path(out))
    assert list((tmp_path / "deep").iterdir()) == []


def test_compare_tells_namesakes_apart_and_warns_of_unlike_measures(run_dir, tmp_path):
    twin = fake_run(tmp_path / "twin")
    text = json.loads((twin / "recipe.json").read_text())
    (twin / "recipe.json").write_text(json.dumps(text | {"eval": {"tasks": 10}}))
    data = page_data(report.compare([run_dir, twin], tmp_path / "x.html"))
    assert [run["label"] for run in data["runs"]] == ["plan-then-act (first)", "plan-then-act (twin)"]
    assert data["notes"] == [
        "The runs were not measured in the same way (eval.tasks, eval.levels and eval.every differ), so "
        "their numbers may not compare."
    ]
    with pytest.raises(UserError, match="at least two run directories, not 1"):
        report.compare([run_dir], tmp_path / "y.html")
    with pytest.raises(UserError, match="twice"):
        report.compare([run_dir, run_dir.parent / "first"], tmp_path / "y.html")
    with pytest.raises(UserError, match="is not a run directory"):
        report.compare([run_dir, tmp_path], tmp_path / "y.html")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to parse JavaScript")
def test_the_scripts_parse(run_dir, tmp_path):
    pages = [
        report.write(run_dir),
        report.compare([run_dir, fake_run(tmp_path / "b", name="b")], tmp_path / "c.html"),
    ]
    for number, written in enumerate(pages):
        script = tmp_path / f"{number}.js"
        script.write_text(
            re.search(r"<script>\n(.*)</script>", written.read_text(encoding="utf-8"), re.DOTALL).group(1)
        )
        subprocess.run(["node", "--check", str(script)], check=True, timeout=60)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run JavaScript")
def test_the_main_chart_of_one_role_is_called_e2e_alone():
    assets = Path(report.__file__).parent / "assets"
    [line] = re.findall(r"^const listed = .*$", (assets / "dom.js").read_text(encoding="utf-8"), re.MULTILINE)
    cases = '[[], ["e2e"], ["act", "e2e"], ["plan", "act", "e2e"]]'
    said = subprocess.run(
        ["node", "-e", f"{line}; console.log(JSON.stringify({cases}.map(listed)))"],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    ).stdout
    assert json.loads(said) == ["", "e2e", "act and e2e", "plan, act and e2e"]
    assert "title: `${listed(SIDES)}$" in (assets / "charts.js").read_text(encoding="utf-8")


def test_the_report_needs_no_torch_and_no_numpy(run_dir):
    code = (
        "import sys; from pathlib import Path; from forethought import report; "
        "report.write(Path(sys.argv[1])); "
        "print([m for m in ('torch', 'numpy', 'transformers', 'rich') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run_dir)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


# --- the look ---


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance of two colours #rrggbb."""

    def luminance(colour: str) -> float:
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_colour_of_text_has_a_contrast_of_4_5_on_every_ground(scheme):
    css = (Path(page.__file__).parent / "assets/page.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", css, re.S)[scheme]))
    grounds = [colours.pop(name) for name in ("bg", "card", "soft")]
    for name in ("rule", "shallow"):  # lines and fills, never text
        del colours[name]
    low = {name: c for name, c in colours.items() if min(_contrast(c, ground) for ground in grounds) < 4.5}
    assert low == {}
