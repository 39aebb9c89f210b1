"""What the spine itself takes: milliseconds from tasks to trees, without sampling.

    python benchmarks/spine.py [--against REVISION] [--rounds 15]

A scripted engine knows every answer; the time that it takes to give them is not counted. Measured are 384
episodes of `desk` (32 tasks x 4 plans x 3 executions): in one turn, and step by step. The numbers are CPU
milliseconds of one process, the least and the median of all rounds. With `--against` another revision of this
repository does the same in a process of its own, in turns with the files as they stand; both must give the
same trees.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from same_bits import written_out

ROOT = Path(__file__).resolve().parents[1]
TASKS, PLANS, ACTS = 32, 4, 3
WORK = {
    "one turn": {},
    "stepwise": {"stepwise": True},
}
POLICIES = {"plan": "base", "act": "base"}


# ---- in each process; the package may be laid out as it is now, or as it was


def found(*places: str):
    """What the first of `module:name` that there is stands for."""
    for place in places:
        module, name = place.split(":")
        try:
            return getattr(importlib.import_module(f"forethought.{module}"), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise SystemExit(f"none of {', '.join(places)} is there")


def scripted(tasks, taskset):
    """An engine that says what the oracle shows, and counts the seconds that it takes. One turn in five
    begins with another widget: such a plan is wrong, such an act does not follow its plan; both go on to
    their end."""
    base = found("engines.fake.engine:FakeEngine", "engines.fake:FakeEngine")
    demonstrated = {f"{task.context} {task.prompt}": taskset.demonstrate(task) for task in tasks}
    stop = taskset.stops

    class Scripted(base):
        seconds = 0.0

        def says(self, policy: str, text: str, i: int, seed: int) -> str:
            root = next(r for r in demonstrated if text.startswith(r))
            said, shown = text[len(root) :].split(), demonstrated[root]
            acts = [turn.text for turn in shown if turn.role == "act"]
            done = min(said.count(stop["act"]), len(acts) - 1)
            words = (acts[done] if stop["plan"] in said else shown[0].text).split()
            if random.Random(f"{text}/{i}").random() < 0.2:
                words[0] = "a"
            return " ".join(words)

        def sample(self, requests):
            start = time.process_time()
            answers = super().sample(requests)
            self.seconds += time.process_time() - start
            return answers

    engine = Scripted(taskset.vocabulary(), taskset.stops, context=4096)
    engine.script = engine.says
    return engine


def growth(options: dict):
    """Round -> (trees, CPU seconds without sampling). Each round has tasks of its own."""
    rollouts_of = found("workflows.rollout:Rollouts", "rollout:Rollouts")
    spec, build = found("recipe.schema:TaskSpec"), found("tasks.families:build", "tasks:build")
    tree_spec = found("recipe.schema:TreeSpec")
    taskset = build(spec(name="desk", levels=(2, 3, 4), options=dict(options)))
    try:
        tree = tree_spec(counts={"plan": PLANS, "act": ACTS})
    except TypeError:
        tree = tree_spec(plans=PLANS, acts=ACTS)

    def grow(number: int):
        rng = random.Random(number)
        tasks = [taskset.family(rng, [rng.choice((2, 3, 4))], "train")[0] for _ in range(TASKS)]
        engine = scripted(tasks, taskset)
        rollouts = rollouts_of(engine, taskset)
        gc.collect()
        gc.disable()
        start = time.process_time()
        trees = rollouts.grow(tasks, tree, POLICIES, 7)
        seconds = time.process_time() - start - engine.seconds
        gc.enable()
        return trees, seconds

    return grow


def digest(trees) -> str:
    """Of what was said, and what it is worth."""
    rows = [
        [(n.parent, n.role, n.status, n.text, sorted(n.reward_parts.items())) for n in tree.nodes]
        for tree in trees
    ]
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def work() -> None:
    """Asked by lines: the round, and the name of what to grow; answers seconds and the digest of the
    trees."""
    growths = {}
    for line in sys.stdin:
        number, name = line.strip().split(maxsplit=1)
        if name not in growths:
            growths[name] = growth(WORK[name])
            for before in (-1, -2, -3):
                growths[name](before)
        trees, seconds = growths[name](int(number))
        print(seconds, digest(trees), flush=True)


# ---- who asks


class Worker:
    def __init__(self, source: Path):
        env = os.environ | {"PYTHONPATH": f"{source}:{ROOT / 'benchmarks'}", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", "import spine; spine.work()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=source,
        )

    def ask(self, number: int, name: str) -> tuple[float, str]:
        self.process.stdin.write(f"{number} {name}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer:
            raise SystemExit("a worker ended before it had answered")
        return float(answer[0]), answer[1]

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measured(sources: dict[str, Path], rounds: int) -> dict[tuple[str, str], list[float]]:
    """(work, side) -> seconds of each round."""
    seconds: dict[tuple[str, str], list[float]] = {(w, side): [] for w in WORK for side in sources}
    workers = {side: Worker(source) for side, source in sources.items()}
    try:
        for k in range(rounds):
            for name in WORK:
                digests = {}
                for side in list(workers)[:: 1 if k % 2 else -1]:
                    took, digests[side] = workers[side].ask(k, name)
                    seconds[name, side].append(took)
                if len(set(digests.values())) > 1:
                    raise SystemExit(f"{name}: the two sides give other trees: {digests}")
    finally:
        for worker in workers.values():
            worker.stop()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against", default="", metavar="REVISION")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spine-") as folder:
        sources = {"here": ROOT}
        if args.against:
            sources = {args.against: written_out(args.against, Path(folder) / "old"), "here": ROOT}
        seconds = measured(sources, args.rounds)
    print(f"CPU ms for {TASKS * PLANS * ACTS} episodes of desk, without sampling: least (median)")
    print(f"{'':<10}" + "".join(f"{side:>18}" for side in sources))
    for name in WORK:
        cells = [
            f"{1000 * min(s):.1f} ({1000 * statistics.median(s):.1f})"
            for s in (seconds[name, side] for side in sources)
        ]
        print(f"{name:<10}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
