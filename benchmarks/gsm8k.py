"""GSM8K with a model from scratch: the graders checked, the recipe trained, what it learned measured against
chance.

    python benchmarks/gsm8k.py --test FILE
        the graders on every gold answer, beside math-verify
    python benchmarks/gsm8k.py --test FILE --train FILE --out DIR
        then recipes/gsm8k.toml, and the tables of docs/gsm8k.md
    ... --measure [--all]
        and greedy answers of both checkpoints, beside chance

FILEs are GSM8K's own (JSONL with question and answer). The test problems get plans by the same rules as the
training problems, in DIR/held-out.jsonl, to measure with and not to train on: the loss of a reference's plan
and chain, and acting under a reference's plan. A DIR whose run is finished is read again, not trained again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from forethought import cli
from forethought.core.metrics import pass_at_k, wilson
from forethought.core.types import Node, Task, Tree
from forethought.interface.result import Parsed
from forethought.recipe.load import load
from forethought.recipe.measurements import names
from forethought.recipe.schema import TreeSpec
from forethought.runs.run import build
from forethought.stages.distill import files, rules
from forethought.stages.distill.pipeline import distill
from forethought.stages.distill.records import Item
from forethought.store import Store
from forethought.tasks.math.files import read
from forethought.tasks.math.grading import exact, installed
from forethought.tasks.math.worker import comparer
from forethought.tasks.text.answers import boxed, canonical
from forethought.workflows.rollout import Rollouts

# what stands in the box -> how it is written, whether it is right
FORMS: Mapping[str, tuple[Callable[[int], str], bool]] = {
    "18": (lambda n: f"{n}", True),
    "1,800": (lambda n: f"{n:,}", True),
    "$18": (lambda n: f"\\${n}", True),
    "18.00": (lambda n: f"{n}.00", True),
    "18 dollars": (lambda n: f"{n} dollars", True),
    "18\\text{ eggs}": (lambda n: f"{n}\\text{{ eggs}}", True),
    "a box in the box": (lambda n: f"\\boxed{{{n}}}", True),
    "one more": (lambda n: f"{n + 1}", False),
    "a zero more": (lambda n: f"{n}0" if n else "10", False),
    "half more": (lambda n: f"{n}.5", False),
    "eighteen": (lambda n: "eighteen" if n != 18 else "nineteen", False),
}
PARTS = {
    "reward/plan.format": "plan accepted",
    "reward/act.structure": "structure",
    "reward/act.length": "length",
    "reward/act.outcome": "outcome",
    "groups/zero": "groups without gradient",
    "tokens/plan": "tokens a plan",
    "tokens/act": "tokens an act",
}
K = (1, 4, 12)
CHUNK = 128  # problems sampled together


# The graders ------------------------------------------------------------------------------------------------


def graders(test: Path) -> None:
    """For each form, of how many gold answers each grader says that they are equal, and on how many the two
    agree."""
    golds = [record.answer for record in read(test)]
    compare = comparer() if installed() else None
    # it warns that it has no time limit here; these answers need none
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    print(
        f"{len(golds)} gold answers\n\n| in the box | right | exact | math-verify | agree |\n| --- | --- | "
        f"--- | --- | --- |"
    )
    for name, (write, right) in FORMS.items():
        said = [boxed(f"So it is \\boxed{{{write(int(gold.replace(',', '')))}}}.").value for gold in golds]
        ours = [exact(gold, answer).score == 1.0 for gold, answer in zip(golds, said, strict=True)]
        theirs = (
            [compare(gold, answer)[0] for gold, answer in zip(golds, said, strict=True)] if compare else []
        )
        agree = sum(a == b for a, b in zip(ours, theirs, strict=True)) if compare else "-"
        told = sum(theirs) if compare else "not installed"
        print(f"| {name} | {'yes' if right else 'no'} | {sum(ours)} | {told} | {agree} |", flush=True)


# The run ----------------------------------------------------------------------------------------------------


def held_out(test: Path, out: Path) -> None:
    """The test problems with plans by the rules; a problem that the filter drops is in no probe, but still in
    the tables."""
    items = [
        Item(
            id=record.id,
            question=record.problem,
            chain=record.solution,
            answer=record.answer,
            level=record.level,
            source=test.name,
        )
        for record in read(test)
    ]
    rows, _ = distill(items, rules.gsm8k(), tell=lambda said: print(f"held out: {said}"))
    files.write_jsonl(out, rows)


def train(args: argparse.Namespace) -> Path:
    args.out.mkdir(parents=True, exist_ok=True)
    shown, run = args.out / "held-out.jsonl", args.out / "run"
    if (run / "summary.json").is_file() and json.loads((run / "summary.json").read_text())[
        "status"
    ] == "done":
        return run
    held_out(args.test, shown)
    sets = [
        x for s in (f"task.train={args.train}", f'task.eval=["{shown}"]', *args.set) for x in ("--set", s)
    ]
    if code := cli.main(["train", "gsm8k", "--plain", "--seed", str(args.seed), "--out", str(run), *sets]):
        raise SystemExit(code)
    return run


# What the run has recorded ----------------------------------------------------------------------------------


def lines_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def losses(lines: Sequence[Mapping]) -> list[list[str]]:
    """Of held-out plans and chains, teacher-forced, along the run; of a step that two stages log, the
    first."""
    probed = {line["step"]: line for line in reversed(lines) if "probe/ppl_plan" in line}
    rows = [
        [
            str(step),
            line["stage_name"],
            *(f"{math.log(line[f'probe/ppl_{role}']):.2f}" for role in ("plan", "act")),
        ]
        for step, line in sorted(probed.items())
        if step % 50 == 0 or step == max(probed)
    ]
    return [["step", "stage", "plan", "chain and answer"], *rows]


def evaluations(lines: Sequence[Mapping]) -> list[list[str]]:
    """Greedy, on held-out test problems: the recipe's own evaluations."""
    found = {line["step"]: line for line in lines if "eval/e2e" in line}
    rows = [
        [
            str(step),
            *(
                _interval(*(line[f"{key}/{side}"] for key in ("eval", "eval_low", "eval_high")))
                for side in names(("plan", "act"))
            ),
        ]
        for step, line in sorted(found.items())
    ]
    return [["step", "plan accepted", "right under a reference's plan", "right under its own plan"], *rows]


def rewards(lines: Sequence[Mapping]) -> list[list[str]]:
    """What the trees were like, in fifths of the last stage."""
    steps = [line for line in lines if "reward/act" in line]
    size = max(1, len(steps) // 5)
    rows = [
        [f"{part[0]['stage_step']}-{part[-1]['stage_step']}", *(_mean(part, name) for name in PARTS)]
        for part in (steps[i : i + size] for i in range(0, len(steps), size))
    ]
    return [["steps", *PARTS.values()], *rows]


def _mean(lines: Sequence[Mapping], name: str) -> str:
    """ "-" where none of the steps has it: without a plan that the interface accepts there is no execution to
    pay."""
    values = [line[name] for line in lines if name in line]
    return f"{sum(values) / len(values):.3f}" if values else "-"


def saved_trees(run: Path, train: Path) -> list[list[str]]:
    """The trees that the run saved (training problems, 4 plans x 3 executions), the first half of its steps
    and the second."""
    golds = {record.id: canonical(record.answer) for record in read(train)}
    paths = sorted((run / "trees").glob("*.jsonl.gz"))
    rows = []
    for part in filter(None, (paths[: len(paths) // 2], paths[len(paths) // 2 :])):
        said, wanted, correct = [], [], []
        for tree in (json.loads(line) for path in part for line in gzip.open(path, "rt", encoding="utf-8")):
            acts = [node for node in tree["nodes"] if node["role"] == "act"]
            said += [_answer(node["text"]) for node in acts]
            wanted += [golds[tree["task"].rpartition("/")[2]]] * len(acts)
            correct.append(int(sum(node["reward_parts"]["outcome"] for node in acts)))
        n = max(len(said), 1)
        rows.append(
            [
                f"{_step(part[0])}-{_step(part[-1])}",
                str(len(correct)),
                f"{sum(map(bool, said)) / n:.1%}",
                f"{sum(a == w for a, w in zip(said, wanted, strict=True)) / n:.1%}",
                f"{by_chance(said, wanted):.1%}",
                *(f"{sum(pass_at_k(max(K), c, k) for c in correct) / len(correct):.1%}" for k in K),
            ]
        )
    return [["steps", "trees", "answer in a box", "right", "by chance", *(f"pass@{k}" for k in K)], *rows]


def _step(path: Path) -> int:
    return int(path.name.removesuffix(".jsonl.gz").rpartition("-")[2])


def constant(train: Path, test: Path, levels: Sequence[int]) -> str:
    """The accuracy of saying the most frequent answer of the training problems to every test problem of these
    levels."""
    seen, asked = ([canonical(r.answer) for r in read(path) if r.level in levels] for path in (train, test))
    answer, _ = Counter(seen).most_common(1)[0]
    return (
        f"Always {answer}, the most frequent answer in training: {asked.count(answer) / len(asked):.1%} "
        f"of {len(asked)} test problems"
    )


# What it learned --------------------------------------------------------------------------------------------


def plans_of(tree: Tree) -> list[Node]:
    return [n for n in tree.nodes if n.role == "plan"]


def acts_of(tree: Tree) -> list[Node]:
    return [n for n in tree.nodes if n.role == "act"]


def grown(rollouts: Rollouts, policies: Mapping[str, str], tasks: Sequence[Task]) -> list[Tree]:
    one = TreeSpec(counts={"plan": 1, "act": 1}, temperature=0.0)
    parts = [
        rollouts.grow(tasks[at : at + CHUNK], one, policies, 0, noise=False)
        for at in range(0, len(tasks), CHUNK)
    ]
    return [tree for part in parts for tree in part]


def _answer(text: str) -> str:
    """What stands in its box, in one spelling; "" where there is none."""
    found = boxed(text)
    return canonical(found.value) if isinstance(found, Parsed) else ""


def by_chance(said: Sequence[str], golds: Sequence[str]) -> float:
    """Accuracy of the same answers to the problems in another order, the mean over all orders: what needs no
    look at the problem."""
    wanted = Counter(golds)
    return sum(n * wanted[answer] for answer, n in Counter(said).items() if answer) / max(len(golds), 1) ** 2


def greedy(trees: Sequence[Tree]) -> dict[str, float]:
    """Shares of problems: plan accepted, answer in a box, whole form, right; right by chance."""
    n, said = len(trees), [_answer(acts_of(tree)[0].text) if acts_of(tree) else "" for tree in trees]
    golds = [canonical(tree.task.state.answer) for tree in trees]
    right = [a == g for a, g in zip(said, golds, strict=True)]
    low, high = wilson(sum(right), n)
    return {
        "problems": n,
        "plan accepted": sum(plans_of(t)[0].reward_parts["format"] for t in trees) / n,
        "answer in a box": sum(map(bool, said)) / n,
        "whole form": sum(a.reward_parts["follows"] for t in trees for a in acts_of(t)) / n,
        "right": sum(right) / n,
        "low": low,
        "high": high,
        "by chance": by_chance(said, golds),
    }


def checkpoints(store: Store, last: int) -> dict[str, tuple[int, Path, dict[str, str]]]:
    """Where stage `last` began and where it ended: name -> (step, folder, role -> policy)."""
    saved = [(step, *store.state(step)) for step in sorted(store.steps())]
    begun = [
        item
        for item in saved
        if item[2]["progress"]["stage"] == last and item[2]["progress"]["stage_step"] == 0
    ]
    if not begun:
        raise SystemExit(
            f"{store.out} no longer has the checkpoint at which its last stage began; train it "
            f"with a larger save.keep"
        )
    return {
        name: (step, folder, state["progress"]["policies"])
        for name, (step, folder, state) in (("imitated", begun[-1]), ("reinforced", saved[-1]))
    }


def measure(run: Path, test: Path, whole: bool) -> dict[str, dict]:
    """Checkpoint ("imitated", "reinforced") -> tables; examples are the same problems for both. `whole`: all
    test problems, not only those of the recipe's levels."""
    recipe = load(run / "recipe.json")
    engine, rollouts = build(recipe)
    tasks = rollouts.taskset.problems(test)
    easy = [task for task in tasks if task.level in recipe.task.levels]
    found = {}
    for name, (step, folder, policies) in checkpoints(Store.open(run), len(recipe.stage) - 1).items():
        engine.load(folder / "engine")
        print(f"measuring step {step}", flush=True)
        trees = grown(rollouts, policies, tasks if whole else easy)
        easy_trees = [tree for tree in trees if tree.task.level in recipe.task.levels]
        found[name] = {
            "step": step,
            "levels of the recipe": greedy(easy_trees),
            **({"all levels": greedy(trees)} if whole else {}),
            "examples": [
                {
                    "problem": t.task.state.problem,
                    "gold": t.task.state.answer,
                    "plan": plans_of(t)[0].text,
                    "act": acts_of(t)[0].text if acts_of(t) else "",
                }
                for t in easy_trees[:5]
            ],
        }
    return found


def table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "| --- " * len(rows[0]) + "|", *rest]) + "\n"


def report(run: Path, train: Path, test: Path) -> None:
    lines = lines_of(run)
    print("\nHeld-out loss, nats a token\n\n" + table(losses(lines)))
    print("Greedy, held-out test problems\n\n" + table(evaluations(lines)))
    print("Reinforcement, means over its steps\n\n" + table(rewards(lines)))
    print("The saved trees of reinforcement\n\n" + table(saved_trees(run, train)))
    print(constant(train, test, load(run / "recipe.json").task.levels))


def report_more(found: Mapping[str, dict]) -> None:
    names = ("imitated", "reinforced")
    for title in [key for key in ("levels of the recipe", "all levels") if key in found["imitated"]]:
        keys = [key for key in found["imitated"][title] if key not in ("low", "high")]
        rows = [[name, *(_shown(found[name][title], key) for key in keys)] for name in names]
        print(f"Greedy, {title}\n\n" + table([["", *keys], *rows]))


def _shown(row: Mapping[str, float], key: str) -> str:
    if key == "problems":
        return str(row[key])
    return _interval(row[key], row["low"], row["high"]) if key == "right" else f"{row[key]:.1%}"


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--test", type=Path, required=True, help="GSM8K's test.jsonl")
    parser.add_argument("--train", type=Path, help="GSM8K's train.jsonl: also train and measure the recipe")
    parser.add_argument("--out", type=Path, help="folder of the run and of what is measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--measure",
        action="store_true",
        help="greedy answers of both checkpoints to the test problems, beside chance",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="of --measure: on the problems of every level, not only of the recipe's",
    )
    parser.add_argument("--set", action="append", default=[], metavar="K=V")
    args = parser.parse_args()
    if args.train and not args.out:
        parser.error("--train needs --out, the folder of the run")
    graders(args.test)
    if not args.train:
        return
    run = train(args)
    report(run, args.train, args.test)
    if args.measure:
        found = measure(run, args.test, args.all)
        (args.out / "measured.json").write_text(
            json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8"
        )
        report_more(found)


if __name__ == "__main__":
    main()
