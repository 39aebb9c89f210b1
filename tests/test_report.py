"""The report: reading a run directory, the verdict in words, and a page that nothing in a run can break."""

import gzip
import json
import random
import re
import subprocess
import sys

import pytest

from forethought import report
from forethought.errors import UserError
from forethought.metrics import wilson
from forethought.report import words
from forethought.report.effects import Effect, Point, change, effects, whole
from forethought.report.load import load
from forethought.report.page import island
from forethought.report.series import columns, thin
from forethought.report.settings import changed, differences
from forethought.report.trees import judge, load_trees

LEVELS = (3, 4, 5)
STAGES = (  # name, kind, roles, steps, {side: (start, end)}
    ("imitate", "imitate", ["plan", "act"], 240, {"plan": (0.01, 0.62), "act": (0.02, 0.965), "e2e": (0.0, 0.60)}),
    ("reinforce-plan", "reinforce", ["plan"], 150, {"plan": (0.62, 0.94), "act": (0.965, 0.96), "e2e": (0.60, 0.905)}),
    ("reinforce-act", "reinforce", ["act"], 75, {"plan": (0.94, 0.945), "act": (0.96, 0.83), "e2e": (0.905, 0.79)}),
)
EVIL = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)>"


def recipe(name="plan-then-act", seed=0, lr=3e-4, plans=4):
    stages = [{"kind": kind, "name": stage, "roles": roles, "until": {"steps": steps, "metric": "", "at_least": None, "at_most": None, "patience": 1},
               "batch": 32, "tree": {"plans": plans, "acts": 3, "temperature": 1.0}, "credit": {"name": "pta_grpo", "plan_weight": 0.5},
               "optim": {"name": "adamw", "lr": lr, "warmup": 5},
               "gates": [] if kind == "imitate" else [{"metric": "eval/act", "max_drop": 0.01, "on_fail": "roll_back"}]}
              for stage, kind, roles, steps, _ in STAGES]
    return {"name": name, "about": "Planning trained apart from acting, with a gate on acting.", "seed": seed, "layout": "adapters",
            "task": {"name": "desk", "levels": list(LEVELS)}, "model": {"init": "small", "path": "", "layers": 4, "width": 128},
            "eval": {"tasks": 100, "levels": [], "every": 25}, "stage": stages}


def evaluation(shares, n=100):
    """The keys of one evaluation: the same tasks each time (a task is solved from its own share on), Wilson intervals."""
    line = {}
    for side, share in shares.items():
        total = 0
        for level in LEVELS:
            hard = random.Random(f"{'act' if side == 'act' else 'plan'}@{level}")  # who plans wrong fails end to end
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
    """A run directory as a run writes it: three stages, the third thrown back to its start by a gate. `text` goes into the trees."""
    rng = random.Random(seed)
    (path / "trees").mkdir(parents=True)
    lines, decisions = [], [decision(0, 0, "run", name, "start", "The run started.")]
    step, seconds, undone = 0, 0.0, None
    for index, (stage, kind, roles, steps, moves) in enumerate(STAGES):
        start_eval = evaluation({side: min(a + boost * (a > 0.1), 1) for side, (a, _) in moves.items()})
        head = {"stage": index, "stage_name": stage, "kind": kind}
        lines.append({"step": step, **head, "stage_step": 0, "seconds": seconds} | start_eval)
        if index:
            decisions.append(decision(step, index, "schedule", "stages", "advance", f"Stage {index} reached its {STAGES[index - 1][3]} steps."))
        for k in range(1, steps + 1):
            step, seconds = step + 1, seconds + (0.35 if kind == "imitate" else 2.4) * rng.uniform(0.9, 1.1)
            share = 1 - 2.718 ** (-4.5 * k / steps)
            line = {"step": step, **head, "stage_step": k, "seconds": round(seconds, 3)} | training(rng, kind, roles, share)
            if k % 25 == 0 or k == steps:
                line |= evaluation({side: min(a + (b - a) * share + boost * (b > 0.1), 1) for side, (a, b) in moves.items()})
                if kind == "reinforce":
                    bad = index == 2 and k == steps
                    drop = start_eval["eval/act"] - line["eval/act"]
                    decisions.append(decision(step, index, "gate", "eval/act", "roll_back" if bad else "pass", (
                        f"eval/act fell by {drop * 100:.1f} points since the stage's start, more than 1.0 allowed." if bad else
                        "eval/act is within 1.0 points of the stage's start."), {"before": start_eval["eval/act"], "after": line["eval/act"], "drop": drop}))
                write_trees(path, rng, step, index, share, plans, text if k == steps else "")
            lines.append(line)
        if index == 2:
            undone = step - steps
    step += 1  # the guard refuses one update after the roll back, and the run ends
    lines.append({"step": step, **head, "stage_step": steps + 1, "seconds": seconds + 2, "rolled_back_to": undone, "tokens/sampled": 30000, "entropy/act": 0.21})
    decisions += [decision(step, 2, "guard", "finite", "refuse", "The gradient of act@17 was not finite; the update was refused."),
                  decision(step, 2, "run", name, "end", "All stages are done.")]
    (path / "recipe.json").write_text(json.dumps(recipe(name, seed, lr, plans)))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "decisions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in decisions))
    (path / "summary.json").write_text(json.dumps({
        "name": name, "seed": seed, "status": status, "seconds": seconds + 9,
        "machine": {"cpu": "AMD EPYC 9354", "cores": 8, "threads": 8, "device": "cpu", "torch": "2.13.0", "python": "3.11.7", "forethought": "0.1.0"},
        "stages": [{"name": stage, "kind": kind, "roles": roles, "steps": steps, "seconds": steps * (0.35 if kind == "imitate" else 2.4)}
                   for stage, kind, roles, steps, _ in STAGES]}))
    return path


def training(rng, kind, roles, share):
    def noisy(value):
        return round(value * rng.uniform(0.88, 1.08), 6)
    line = {"lr": 3e-4 * min(1, share * 8 + 0.1), "tokens/trained": rng.randrange(18000, 24000), "tokens_per_second": noisy(21000),
            "entropy/plan": noisy(1.3 - 0.9 * share), "entropy/act": noisy(0.7 - 0.45 * share)}
    line |= {f"grad_norm/{role}": noisy(0.9 - 0.4 * share) for role in roles}
    if kind == "imitate":
        return line | {"loss/sft": noisy(2.2 - 1.9 * share), "tokens/sampled": 0}
    line |= {"loss/pg": round(rng.gauss(0, 0.02), 5), "gap/sampler": noisy(2e-4), "kl/ref": noisy(0.03 * share + 1e-4), "groups/zero": noisy(0.3 + 0.3 * share),
             "tokens/sampled": rng.randrange(30000, 36000)}
    for role in roles:
        line |= {f"reward/{role}": noisy(0.4 + 0.5 * share), f"reward/{role}.valid": noisy(0.85 + 0.1 * share), f"reward/{role}.outcome": noisy(0.35 + 0.5 * share)}
    return line


def write_trees(path, rng, step, index, share, plans, text):
    rows = []
    for number in range(4):
        names = rng.sample("abcdefghkmnpqrs", 6)
        goal, oracle = names[0], f"{names[0]} {names[1]} {names[2]} </plan>"
        cells = {n: f"x{rng.randrange(10)} y{rng.randrange(10)}" for n in names}
        nodes = [{"id": 0, "parent": None, "role": None, "text": f"GOAL {goal} v3 <plan>", "status": "given", "reason": "", "reward_parts": {}, "reward": None,
                  "advantage": None, "policy": None, "version": 0, "tokens": 44, "logprob": None}]
        for p in range(plans):
            right = rng.random() < 0.4 + 0.5 * share
            refused = not right and rng.random() < 0.3
            plan = oracle if right else f"{names[0]} {names[1]} {names[5]} </plan>" if not refused else f"{names[0]} {names[0]} v3 </plan>"
            plan_id = len(nodes)
            nodes.append(sampled(rng, plan_id, 0, "plan", plan + text, "refused" if refused else "finished", {"valid": float(not refused), "outcome": float(right)},
                                 "word 3: a value cannot stand in a plan" if refused else "" if right else f"{names[5]} is not inside {names[1]}", index))
            for _ in range(0 if refused else 3):
                done = right and rng.random() < 0.85
                act = " ".join(f"{n} {cells[n]}" for n in (names[2], names[1], names[0])) + " v3 </act>"
                nodes.append(sampled(rng, len(nodes), plan_id, "act", act, "finished", {"outcome": float(done), "follows": float(done or not right)},
                                     "" if done else f"{names[1]} was not at the clicked cell", index))
        rows.append({"step": step, "stage": index, "task": f"desk-{step}-{number}{text}", "domain": "desk", "level": LEVELS[number % 3],
                     "context": "desk " + " ".join(f"{n} desk {cells[n]}" for n in names), "prompt": f"GOAL {goal} v3 <plan>", "oracle_plan": oracle, "nodes": nodes})
    with gzip.open(path / "trees" / f"step-{step:06d}.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def sampled(rng, id_, parent, role, text, status, parts, reason, index):
    reward = sum(parts.values()) / len(parts)
    return {"id": id_, "parent": parent, "role": role, "text": text, "status": status, "reason": reason, "reward_parts": parts, "reward": reward,
            "advantage": round((reward - 0.6) * rng.uniform(0.8, 2.2), 3), "policy": role, "version": index * 10 + 7, "tokens": len(text.split()), "logprob": -rng.random() / 3}


def decision(step, stage, kind, name, outcome, reason, numbers=None):
    return {"step": step, "stage": stage, "kind": kind, "name": name, "outcome": outcome, "reason": reason, "numbers": numbers or {}}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return fake_run(tmp_path_factory.mktemp("runs") / "first", text=EVIL)
