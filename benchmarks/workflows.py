"""Ways of speaking between plan and act, side by side: success, tokens, serial steps and seconds of an
episode, where the world is as expected and where it is not.

    python benchmarks/workflows.py desk [--out DIR] [--seeds 1]      react, plan_then_act; clicks that slip
    python benchmarks/workflows.py popups [--out DIR] [--seeds 1]    the same, and popups that come
    python benchmarks/workflows.py factored [--out DIR]              plan and act on web pages, or one role
                                                                     that writes ids at once
    python benchmarks/workflows.py web [--out DIR]                   these and react; acts that slip, popups
    python benchmarks/workflows.py tools [--out DIR] [--seeds 1]     rewoo, abstraction, react, plan_then_act;
                                                                     numbers that stand elsewhere
    python benchmarks/workflows.py digits [--out DIR] [--seeds 1]    chains that tools fill in, and chains
                                                                     whose numbers the model works out
    python benchmarks/workflows.py costs                             tokens and serial steps of right episodes
                                                                     by level, without a model
    python benchmarks/workflows.py bounds                            what nobody who errs reaches on disturbed
                                                                     pages, without a model and a browser
    python benchmarks/workflows.py modulo RUN [--rounds 4]           feedback, or asking as often without it

All but the last three train a model from scratch for each workflow, by imitation alone, the same number of
steps on the same tasks (of web pages, the same number of tokens a step); DIR keeps the runs and what was
measured, and neither is made again. Web pages are trained on recordings, and judged by Chromium where there
is one, with `--pages recorded` by recordings, which is far quicker. What goes wrong in the world does so in
training too, and both worlds are measured; of `digits`, numbers of two digits alone are trained.
Seconds: the median of episodes that are played alone, the workflows one after the other; on a machine with
other work, compare the tokens."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import forethought as ft
from forethought import look
from forethought.cli.arguments import from_zero, positive, temperature
from forethought.core.errors import UserError, unknown
from forethought.core.metrics import mean_interval, share_interval
from forethought.recipe.convert import from_dict
from forethought.recipe.load import override

TRAIN = {
    "kind": "imitate",
    "weights": "base",
    "batch": 64,
    "easy_first": 0.4,
    "easy_levels": [1, 2],
    "optim": {"name": "muon", "lr": 2e-3, "muon_lr": 0.01, "warmup": 20, "decay": 0.4},
}
SLIPPERY = {"levels": [1, 2, 3], "stepwise": True, "retry": True, "slip": 0.2}
COVERED = SLIPPERY | {"slip": 0.0, "popup": 0.2}
MOVED = {"levels": [1, 2, 3], "book": 0.3}
GIVEN = {"levels": [1, 2, 3], "numbers": "given"}
LUCK = {
    # of more than one step each
    "tasks": [
        "login-user",
        "enter-password",
        "enter-text",
        "choose-list",
        "click-option",
        "click-checkboxes",
    ],
    "disturb": {"popup": 0.2, "slip": 0.1},
}
REPLANS = {"name": "plan_then_act", "replan_after": 1}
PAGES = {
    "steps": 300,
    "task": "web",
    "recipe": {"model": {"copies": True}, "limits": {"at_once": 4}},
    # 64 demonstrations of plan_then_act without disturbance have as many tokens
    "train": {"batch": 8, "batch_tokens": 5500, "easy_first": 0.15},
}
FORMS = {
    "steps": 150,
    "train": PAGES["train"] | {"batch_tokens": 3000},
}
AS_EXPECTED, DISTURBED = {"as expected": []}, {"disturbed": ["eval.noise=true"]}
TABLES: dict[str, dict[str, Any]] = {
    "desk": {
        "steps": 400,
        "workflows": {"react": SLIPPERY, "plan_then_act": SLIPPERY},
        "worlds": AS_EXPECTED | {"clicks slip": ["eval.noise=true"]},
    },
    "popups": {
        "steps": 400,
        "task": "desk",
        "workflows": {"react": COVERED, "plan_then_act": COVERED},
        "worlds": AS_EXPECTED | {"popups come": ["eval.noise=true"]},
    },
    "tools": {
        "steps": 600,
        "workflows": {
            "react": MOVED,
            "plan_then_act": MOVED,
            "rewoo": MOVED,
            "abstraction": MOVED | {"plans": "chain"},
        },
        "worlds": {"as expected": ["task.book=0"], "numbers elsewhere": []},
    },
    "digits": {
        "steps": 600,
        "task": "tools",
        "workflows": {
            "abstraction": GIVEN | {"plans": "chain"},
            "act_only": GIVEN | {"plans": "worked"},
        },
        "worlds": {f"{n} digits": [f"task.digits={n}"] for n in (1, 2, 3, 4)},
    },
    "factored": PAGES
    | {
        "workflows": {"plan_then_act": {"workflow": REPLANS}, "act_only": {}},
        "worlds": AS_EXPECTED,
    },
    "web": PAGES
    | FORMS
    | {
        "workflows": {
            "react": LUCK | {"stepwise": True, "attempts": 16},
            "plan_act_by_act": LUCK | {"stepwise": True, "attempts": 16, "workflow": REPLANS},
            "plan_then_act": LUCK | {"attempts": 8, "workflow": REPLANS},
            "act_only": LUCK | {"attempts": 8},
        },
        "worlds": AS_EXPECTED | DISTURBED,
    },
}
COSTS = ("read", "said", "calls", "tools", "serial")


def recipe(table: str, name: str, steps: int) -> dict[str, Any]:
    """One stage of imitation of all roles."""
    rows = TABLES[table]
    task = {"name": rows.get("task", table)} | rows["workflows"][name]
    return {
        "name": f"{table}-{name}",
        "workflow": task.pop("workflow", name),
        "layout": "shared",
        "task": task | ({"pages": "recorded"} if task["name"] == "web" else {}),
        "eval": {"every": 0, "tasks": 1},  # what is compared is measured afterwards
        "probes": {"every": 0},
        "stage": [TRAIN | rows.get("train", {}) | {"until": {"steps": steps}}],
        **rows.get("recipe", {}),
    }


def measured(
    table: str, out: Path, seed: int, steps: int, alone: int, tasks: int, pages: str
) -> dict[tuple[str, str], dict]:
    """(world, workflow) -> what `forethought eval --json --latency` says; kept beside the runs."""
    found = {}
    runs = {name: out / f"{table}-{name}-{seed}" for name in TABLES[table]["workflows"]}
    for name, run in runs.items():
        trained(run, recipe(table, name, steps), seed)
    judged = [] if TABLES[table].get("task", table) != "web" else [f"task.pages={pages}"]
    for world, overrides in TABLES[table]["worlds"].items():
        for name, run in runs.items():
            kept = out / f"{run.name}, {' '.join([world, *judged])}, {tasks} tasks.json"
            if not kept.is_file():
                said = evaluated(run, [*judged, *overrides, f"eval.tasks={tasks}"], alone)
                kept.write_text(json.dumps(said))
            found[world, name] = json.loads(kept.read_text())
    return found


def trained(run: Path, wanted: dict[str, Any], seed: int) -> None:
    """Train a run that is not there, and go on with one that was broken off. UserError where the run that is
    there has other steps."""
    if not (run / "checkpoints").is_dir():
        ft.train(wanted, out=run, seed=seed, progress=False)
        return
    steps = wanted["stage"][0]["until"]["steps"]
    if (there := look.find(run).recipe.stage[0].until.steps) != steps:
        raise UserError(f"{run} was trained with --steps {there}, not {steps}: give another --out")
    if not (run / "summary.json").is_file():
        ft.train(resume=run, progress=False)


def evaluated(run: Path, overrides: Sequence[str], alone: int) -> dict:
    """The numbers of one run in one world."""
    return look.evaluate(look.find(run, None, overrides), alone=alone)


def compare(table: str, out: Path, seeds: int, steps: int, alone: int, tasks: int, pages: str) -> None:
    """Print a row for each world and workflow: means over seeds."""
    rows = []
    for seed in range(seeds):
        rows.append(measured(table, out, seed, steps or TABLES[table]["steps"], alone, tasks, pages))
        shares = {f"{world}/{name}": round(one["e2e"]["value"], 3) for (world, name), one in rows[-1].items()}
        print(f"seed {seed}: e2e {json.dumps(shares)}", flush=True)
    print(f"\n{'':19}{'':18}{'e2e':>7} {'95 %':^15}" + "".join(f"{name:>8}" for name in COSTS) + f"{'ms':>8}")
    for world, name in rows[0]:
        some = [row[world, name] for row in rows]
        if seeds == 1:
            share, low, high = (some[0]["e2e"][key] for key in ("value", "low", "high"))
        else:
            share, low, high = mean_interval([one["e2e"]["value"] for one in some])
        costs = [sum(one["cost"][key] for one in some) / len(some) for key in COSTS]
        ms = 1000 * min(one["latency"]["seconds"] for one in some)
        interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        print(
            f"{world:19}{name:18}{share:7.3f} {interval:^15}"
            + "".join(f"{c:8.1f}" for c in costs)
            + f"{ms:8.1f}"
        )
    print(json.dumps({f"{w}/{n}": [row[w, n] for row in rows] for w, n in rows[0]}))


def costs(levels: tuple[int, ...] = (1, 2, 3, 4, 8), n: int = 100) -> None:
    """What an episode costs in which everybody says what the oracle says, on `tools`: means over tasks, the
    same for each workflow."""
    from dataclasses import fields

    from forethought.engines.fake.engine import FakeEngine
    from forethought.measure.costs import Cost, cost
    from forethought.recipe.roles import once
    from forethought.recipe.schema import TaskSpec, WorkflowSpec
    from forethought.tasks import families
    from forethought.workflows.rollout import Rollouts
    from forethought.workflows.table import workflow_of

    print(f"{'level':6}{'':18}" + "".join(f"{name:>8}" for name in COSTS))
    for level in levels:
        for name, options in TABLES["tools"]["workflows"].items():
            plans = {"plans": options.get("plans", "rewoo")}
            spec = TaskSpec(name="tools", levels=(level,), options=plans)
            roles, found = workflow_of(name).roles, []
            with closing(families.build(spec)) as taskset:
                stops = {role: taskset.stop(role) for role in roles}
                engine = FakeEngine(taskset.words(roles), stops, context=1 << 20)
                rollouts = Rollouts(engine, taskset, WorkflowSpec(name=name))
                for task in taskset.family(random.Random(level), [level] * n, "eval"):
                    said = iter([turn.text for turn, _ in rollouts.turns(task) if turn.role])
                    engine.script = lambda policy, text, i, seed, said=said: next(said)
                    policies = dict.fromkeys(roles, "base")
                    [tree] = rollouts.grow([task], once(roles, temperature=0.0), policies, 0)
                    found.append(cost(tree, roles[-1]))
            means = {f.name: sum(getattr(one, f.name) for one in found) / n for f in fields(Cost)}
            print(f"{level:<6}{name:18}" + "".join(f"{means[key]:8.1f}" for key in COSTS))


def bounds(table: str = "web", lives: int = 5) -> None:
    """Success and cost of who always says what the oracle says, on recorded pages: each held-out episode,
    calm, and with `lives` different lucks."""
    from forethought.tasks import families
    from forethought.workflows.table import workflow_of

    print(f"{'':19}{'':18}{'success':>8} {'95 %':^15}" + "".join(f"{name:>8}" for name in COSTS[:3]))
    for world in TABLES[table]["worlds"]:
        for name in TABLES[table]["workflows"]:
            spec = from_dict(recipe(table, name, 1))
            spec = override(spec, ["task.pages=recorded"])
            show = workflow_of(spec.workflow.name).demonstration
            found: list[tuple[float, int, int, int]] = []
            with closing(families.build(spec.task)) as taskset:
                tasks = [task for level in taskset.levels for task in taskset.pool(level, "eval")]
                for life in range(1 if world == "as expected" else lives):
                    luck = "" if world == "as expected" else str(life)
                    for task in tasks:
                        told = replace(task, state=replace(task.state, luck=luck and f"{task.id}/{luck}"))
                        found.append(_perfect(taskset, told, show(taskset, told)))
            share, low, high = share_interval([one[0] for one in found])
            means = [sum(one[i] for one in found) / len(found) for i in (1, 2, 3)]
            print(
                f"{world:19}{name:18}{share:8.3f} {f'{low:.3f} to {high:.3f}':^15}"
                + "".join(f"{x:8.1f}" for x in means)
            )


def _perfect(taskset: Any, task: Any, turns: Sequence[Any]) -> tuple[float, int, int, int]:
    """(success, read, said, calls) of a demonstration, in words."""
    page = taskset.environment(task, bool(task.state.luck))
    page.reset(task, task.state.luck)
    before, read, said, calls, success = len(task.prompt.split()), 0, 0, 0, False
    for turn in turns:
        words = len(turn.text.split())
        if turn.role:
            read, said, calls = read + before, said + words, calls + 1
        if turn.role == "act":
            success = bool(page.step(turn.text).success)
        before += words
    return float(success), read, said, calls


def feedback(run: Path, rounds: int, temperature: float) -> None:
    """Success by round of proposals, each after the first mistake of the one before it, against as many
    proposals without: what a validator alone brings. Both at one temperature, on the same tasks."""
    from forethought.measure.evaluate import held_out
    from forethought.recipe.schema import TreeSpec, WorkflowSpec
    from forethought.runs.run import torch_engine
    from forethought.tasks import families
    from forethought.workflows.rollout import Rollouts

    source = look.find(run)
    spec = source.recipe
    with closing(families.build(spec.task, limits=spec.limits)) as taskset:
        engine = source.open(taskset, torch_engine)
        tasks = held_out(taskset, spec.eval, taskset.levels)
        shares = {}
        for name, workflow, counts in (
            ("first mistake", WorkflowSpec(name="modulo", options={"rounds": rounds}), {"plan": 1, "act": 0}),
            ("asked again", WorkflowSpec(name="plan_then_act"), {"plan": rounds, "act": 0}),
        ):
            tree = TreeSpec(counts=counts, temperature=temperature)
            trees = Rollouts(engine, taskset, workflow).grow(tasks, tree, source.policies, 1, noise=False)
            shares[name] = [
                [n.reward_parts.get("valid", 0.0) for n in grown.nodes if n.role == "plan"] for grown in trees
            ]
    print(
        f"{len(tasks)} tasks, temperature {temperature}\n{'valid within':15}"
        + "".join(f"{k:>22}" for k in range(1, rounds + 1))
    )
    for name, found in shares.items():
        cells = []
        for k in range(1, rounds + 1):
            mean, low, high = share_interval([max(some[:k], default=0.0) for some in found])
            cells.append(f"{mean:8.3f} [{low:.3f}, {high:.3f}]")
        print(f"{name:18}" + "".join(cells))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("what", choices=[*TABLES, "costs", "bounds", "modulo"])
    parser.add_argument("run", nargs="?", type=Path, help="a run of blocksworld under modulo")
    parser.add_argument("--out", type=Path, default=Path("runs/workflows"))
    parser.add_argument("--seeds", type=positive, default=1)
    parser.add_argument("--steps", type=from_zero, default=0, help="of imitation (default: the table's)")
    parser.add_argument("--alone", type=positive, default=24, help="episodes that are timed")
    parser.add_argument("--tasks", type=positive, default=100, help="episodes of each level to measure on")
    parser.add_argument(
        "--pages",
        choices=["auto", "recorded", "eval"],
        default="auto",
        help="which judge web pages: auto (Chromium, where there is one), eval (Chromium) or recorded",
    )
    parser.add_argument("--rounds", type=positive, default=4)
    parser.add_argument("--temperature", type=temperature, default=1.0)
    parser.add_argument("--only", metavar="NAME,...", help="of the workflows of the table")
    given = parser.parse_args(argv)
    if (given.what == "modulo") != (given.run is not None):
        parser.error(
            "modulo needs RUN, the folder of a run" if given.run is None else "RUN is for modulo alone"
        )
    try:
        if given.only:
            narrow(given.what, given.only.split(","))
        answer(given)
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def narrow(table: str, names: Sequence[str]) -> None:
    """Leave only these workflows in a table. UserError for one that it does not have."""
    if table not in TABLES:
        raise UserError(f"--only chooses workflows of {', '.join(TABLES)}; {table} has none to choose")
    rows = TABLES[table]["workflows"]
    if strange := [name for name in names if name not in rows]:
        raise UserError(f"--only: {unknown('workflow', strange[0], rows)}")
    TABLES[table]["workflows"] = {name: rows[name] for name in names}


def answer(given: argparse.Namespace) -> None:
    """What was asked for."""
    random.seed(0)
    if given.what == "costs":
        costs()
    elif given.what == "bounds":
        bounds()
    elif given.what == "modulo":
        feedback(given.run, given.rounds, given.temperature)
    else:
        compare(given.what, given.out, given.seeds, given.steps, given.alone, given.tasks, given.pages)


if __name__ == "__main__":
    main()
