"""What it takes to keep every tree of a step of a language model: bytes a tree on disk, and the seconds to
write and to read a step.

    python benchmarks/trees.py SOLUTIONS.jsonl [--tasks 128] [--plans 4] [--acts 3] [--characters 4000]

The texts are worked solutions ("answer" of GSM8K's lines), strung together to the length asked for: plans of
a fifth of it, executions of all of it. What a model samples compresses no better.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import tempfile
import time
from pathlib import Path

from forethought.core.types import Node, Task, Tree
from forethought.store import Store
from forethought.traces.files import read_trees, saved_steps
from forethought.traces.judged import judge


def made(task: int, args: argparse.Namespace, solutions: list[str], rng: random.Random) -> Tree:
    """A tree of `plans` x `acts` whose texts are solutions."""
    prompt = rng.choice(solutions)
    nodes = [Node(id=0, parent=None, role=None, text=prompt, token_ids=tuple(range(len(prompt) // 4)))]

    def say(parent: int, role: str, characters: int, **parts: float) -> int:
        text = ""
        while len(text) < characters:
            text += rng.choice(solutions) + "\n"
        n = characters // 4  # characters of a token of English, nearly
        nodes.append(
            Node(
                id=len(nodes),
                parent=parent,
                role=role,
                text=text[:characters],
                token_ids=tuple(range(n)),
                status="finished",
                policy="base",
                version=task,
                logprobs=(-0.5,) * n,
                reward_parts=parts,
                reward=rng.random(),
            )
        )
        return nodes[-1].id

    for _ in range(args.plans):
        plan = say(
            0,
            "plan",
            args.characters // 5,
            format=1.0,
            valid=1.0,
            outcome=rng.random(),
            analytic=rng.random(),
        )
        for _ in range(args.acts):
            say(
                plan,
                "act",
                args.characters,
                format=1.0,
                outcome=float(rng.random() < 0.5),
                structure=1.0,
                length=rng.random(),
            )
    return Tree(
        task=Task(id=f"task-{task}", taskset="math", level=1, context="", prompt=prompt), nodes=tuple(nodes)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("solutions", type=Path)
    for name, usual in (("tasks", 128), ("plans", 4), ("acts", 3), ("characters", 4000)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    args = parser.parse_args()
    solutions = [
        json.loads(line)["answer"] for line in args.solutions.read_text(encoding="utf-8").splitlines()
    ]
    rng = random.Random(0)
    trees = [made(i, args, solutions, rng) for i in range(args.tasks)]
    credit = [{n.id: (rng.gauss(0, 1),) * len(n.token_ids) for n in tree.nodes if n.role} for tree in trees]
    characters = sum(len(n.text) for tree in trees for n in tree.nodes)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        Store(Path(folder)).save_trees(1, 0, trees, credit, lambda task: "", free_text=True)
        written = time.perf_counter()
        path = saved_steps(Path(folder))[1]
        size, raw = path.stat().st_size, len(gzip.decompress(path.read_bytes()))
        reading = time.perf_counter()
        for tree in read_trees(path, []):
            judge(tree)
        done = time.perf_counter()
    print(f"{len(trees)} trees of {args.plans} x {args.acts}, {characters // len(trees):,} characters each")
    print(
        f"on disk: {size / 1e6:.2f} MB a step, {size // len(trees):,} bytes a tree, "
        f"{size / characters:.2f} bytes a character "
        f"({raw / characters:.2f} before gzip)"
    )
    print(f"written in {written - began:.2f} s, read and judged in {done - reading:.2f} s")


if __name__ == "__main__":
    main()
