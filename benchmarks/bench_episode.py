"""What it is worth that keys and values stay between calls: our sampler with `engine.prefix_cache` and
without, on episodes of many turns and on executions after plans. The same seeds on both sides: tokens and
log-probs are compared, one by one.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from bench_kit import FIRST, SIZES, Clock, Ids, Shape, engine_of, prompts_of, rollouts, table
from bench_worker import Line, worker

SIDES = {"kept": "auto", "recomputed": 0}  # engine.prefix_cache
WARM = 1  # rounds left out


@dataclass(frozen=True, slots=True)
class Talk:
    """Episodes: `prompts` of `prompt` tokens, `each` episodes under each, in which `turns` turns of `said`
    tokens are answered with `seen` tokens each."""

    prompts: int
    prompt: int
    each: int
    turns: int
    said: int
    seen: int

    @property
    def sampled(self) -> int:
        """Tokens to sample."""
        return self.prompts * self.each * self.turns * self.said

    def __str__(self) -> str:
        return f"{self.prompts} x {self.each}, {self.prompt} + {self.turns} x ({self.said} + {self.seen})"


TALK, TREE = Talk(16, 256, 1, 8, 32, 64), Shape(4, 256, 4, 32, 3, 32)
QUICK = {"episode": Talk(2, 9, 2, 3, 4, 5), "tree": Shape(2, 9, 4, 3, 3, 3)}


def episodes(engine, prompts: list[Ids], talk: Talk, seed: int, vocabulary: int) -> list[tuple[Ids, tuple]]:
    """(tokens, log-probs) of every turn; all episodes take a turn in one call. What answers is drawn."""
    from forethought.core.types import Request

    rng, lines, said = random.Random(seed), list(prompts), []
    for turn in range(talk.turns):
        n = 1 if turn else talk.each
        asked = [
            Request(
                policy="base",
                context=c,
                n=n,
                stops=(),
                max_tokens=talk.said,
                seed=seed * 10_000 + turn * 100 + i,
            )
            for i, c in enumerate(lines)
        ]
        found = [(c, out) for c, outs in zip(lines, engine.sample(asked), strict=True) for out in outs]
        said += [(out.token_ids, out.logprobs) for _, out in found]
        lines = [
            c + out.token_ids + tuple(rng.choices(range(FIRST, vocabulary), k=talk.seen)) for c, out in found
        ]
    engine.forget_paths()
    return said


def serve(o: dict, line: Line) -> None:
    """A worker: samples a row as told, and says how long it took and what came out."""
    size = SIZES[o["size"]]
    engine = engine_of(
        size,
        precision=o["precision"],
        threads=o["threads"],
        device=o["device"],
        prefix_cache=SIDES[o["side"]],
    )
    commands = iter(line)
    next(commands)  # only asks whether the engine stands
    line.say(started=True)
    for command in commands:
        shape = (Talk if "turns" in command["shape"] else Shape)(**command["shape"])
        prompts, seed = prompts_of(size, shape, command["seed"]), command["seed"]
        with Clock(o["device"]) as clock, reading(o["device"]) as read:
            if isinstance(shape, Talk):
                said = episodes(engine, prompts, shape, seed, size.vocabulary)
            else:
                tree = rollouts(engine, prompts, shape, seed)
                said = [one for group in (*tree.plans, *tree.acts) for one in group]
        line.say(wall=clock.wall, cpu=clock.cpu, reading=sum(read), said=said)


@contextmanager
def reading(device: str) -> Iterator[list[float]]:
    """Seconds of each reading of contexts inside; the rest of the time is for the tokens that are sampled."""
    from unittest.mock import patch

    from forethought.engines.torch.sampling.routes import Routes

    seconds: list[float] = []
    enter = Routes.enter

    def timed(*args):
        with Clock(device) as clock:
            logits = enter(*args)
        seconds.append(clock.wall)
        return logits

    with patch.object(Routes, "enter", timed):
        yield seconds


def against_recomputing(size: str, precision: str, row: str, args) -> dict:
    """One row: seconds of both sides, which take turns, and how far apart what they say is."""
    shape = QUICK[row] if args.quick else {"episode": TALK, "tree": TREE}[row]
    workers = {}
    for side in SIDES:  # one after another: their weights are drawn from one generator where they are near
        workers[side] = worker(serve, __file__, args, side=side, size=size, precision=precision)
        workers[side].ask(start=True)
    took, read = ({side: [] for side in SIDES} for _ in range(2))
    same, gap = [], 0.0
    for k in range(WARM + args.repeats):
        facts = {side: one.ask(shape=asdict(shape), seed=k) for side, one in workers.items()}
        for (ids, logps), (others, theirs) in zip(*(fact["said"] for fact in facts.values()), strict=True):
            same.append(ids == others)
            gap = max([gap, *(abs(a - b) for a, b in zip(logps, theirs, strict=True) if ids == others)])
        for side in SIDES if k >= WARM else ():
            took[side].append(facts[side]["wall"])
            read[side].append(facts[side]["reading"])
    for one in workers.values():
        one.close()
    if precision == "fp32" and not all(same):
        sys.exit(f"the comparison does not hold: {row} says other tokens where paths are kept")
    median, reads = (
        {side: statistics.median(times) for side, times in seconds.items()} for seconds in (took, read)
    )
    return {
        "row": row,
        "size": size,
        "precision": precision,
        "shape": str(shape),
        "sampled": shape.sampled,
        "seconds": took,
        "median": median,
        "ratio": median["recomputed"] / median["kept"],
        "reading": reads,
        "reading/ratio": reads["recomputed"] / reads["kept"],
        "same": statistics.mean(same),
        "gap": gap,
        "load": os.getloadavg()[0],
    }


def print_kept(rows: list[dict]) -> None:
    """As a table: a ratio says how many times as long it takes without."""
    cells = [
        [
            r["row"],
            r["size"],
            r["precision"],
            r["shape"],
            *(f"{r['sampled'] / r['median'][side]:,.0f}" for side in SIDES),
            f"{r['ratio']:.2f}",
            *(f"{r['reading'][side]:.2f}" for side in SIDES),
            f"{r['reading/ratio']:.2f}",
            f"{r['same']:.0%}",
            f"{r['gap']:.1e}",
            f"{r['load']:.1f}",
        ]
        for r in rows
    ]
    head = ["row", "model", "precision", "shape", "kept tok/s", "recomputed tok/s", "recomputed / kept"]
    reads = ["s reading, kept", "s reading, recomputed", "reading: recomputed / kept"]
    print("\n" + table([*head, *reads, "same tokens", "gap in nats", "load"], cells), flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[sys.argv.index("--worker") + 1]), Line())
