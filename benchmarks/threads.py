"""Threads or processes: what a machine's cores do in a second on small and middle models, alone and beside
something else.

    python benchmarks/threads.py [--sizes 1M,25M] [--together 2] [--repeats 3] [--seconds 2.5] [--precision
    fp32] [--json FILE]

The work is a step: rollouts are sampled and trained on. Three sides do it over and over for a few seconds, in
turn: one process of one thread, one process of `--together` threads, `--together` processes of one thread at
the same time; and each once more while another process keeps one core busy. Tokens a second (sampled + of the
trained trees), medians over the rounds. `chosen` is what the engine would take, measured at that moment as it
is at a run's start (of `--together` threads at most): the number, and what it saw.

With the settings above it takes about two minutes on two cores. A model below 4M parameters gets one thread
without measuring; here it is measured nevertheless, to show what there is to see.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench_kit import GAP, SIZES, Shape, batch_of, machine, prepare, prompts_of, rollouts, said_of, table
from bench_kit import engine_of as model_engine
from bench_worker import Line, Near, Worker

WORK, QUICK = Shape(prompts=4, prompt=64, plans=4, plan=24), Shape(prompts=1, prompt=5, plans=2, plan=3)
# ends with the process that began it
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))"

Rates = dict[str, list[float]]  # side -> tokens a second, one number a round


# A worker ---------------------------------------------------------------------------------------------------


def serve(o: dict, line: Line) -> None:
    """`steps`: for so many seconds. `choose`: what the engine would take, of at most so many threads."""
    import torch

    engine = model_engine(SIZES[o["size"]], precision=o["precision"], threads=o["threads"])
    prepare(engine)
    prompts, shape = prompts_of(SIZES[o["size"]], Shape(**o["shape"]), 0), Shape(**o["shape"])
    for command in line:
        torch.set_num_threads(o["threads"])
        if "choose" in command:
            line.say(took=seen(engine, command["choose"]))
            continue
        done, began = 0, time.perf_counter()
        while not done or time.perf_counter() - began < command["steps"]:
            said = rollouts(engine, prompts, shape, seed=done)
            batch, objective = batch_of(prompts, said, shape)
            engine.forward_backward(batch, objective)
            engine.optim_step("base")
            done += 1
        line.say(rate=done * (shape.sampled + shape.tokens) / (time.perf_counter() - began))


def seen(engine, most: int) -> dict[int, float]:
    """Seconds by number of threads, as a run measures them at its start; nothing is remembered from
    before."""
    import torch

    from forethought.engines.torch.machine import threads

    dtype = torch.bfloat16 if engine.machine.bf16 else torch.float32
    return threads.measured.__wrapped__(threads.Shape.of(engine.config), dtype, threads.numbers(most))


# The one that tells them when -------------------------------------------------------------------------------


@contextmanager
def something_else(there: bool) -> Iterator[None]:
    """A process that computes without end."""
    other = subprocess.Popen([sys.executable, "-c", BUSY]) if there else None
    try:
        time.sleep(0.3 * there)  # until Python has started
        yield
    finally:
        if other:
            other.kill()
            other.wait()


def sides_of(together: int) -> dict[str, tuple[int, int]]:
    """Name -> (processes, threads of each)."""
    return {"1 x 1": (1, 1), f"1 x {together}": (1, together), f"{together} x 1": (together, 1)}


def rate(workers: list[Worker | Near], seconds: float) -> float:
    """Tokens a second of all workers at the same time."""
    with ThreadPoolExecutor(len(workers)) as pool:
        return sum(pool.map(lambda one: one.ask(steps=seconds)["rate"], workers))


def measure(
    workers: Mapping[str, list[Worker | Near]], together: int, repeats: int, seconds: float
) -> list[dict]:
    """A row without and a row with something else. The rounds of both alternate, and in a round all sides
    have their turn."""
    rates: dict[bool, Rates] = {busy: {side: [] for side in workers} for busy in (False, True)}
    took: dict[bool, list[dict[int, float]]] = {False: [], True: []}
    for k in range(repeats + 1):
        for busy in (False, True):
            with something_else(busy):
                for side, those in workers.items():
                    found = rate(those, seconds if k else 0)
                    if k:  # the first is for warming up
                        rates[busy][side].append(found)
                if k:
                    took[busy].append(
                        {
                            int(n): s
                            for n, s in next(iter(workers.values()))[0].ask(choose=together)["took"].items()
                        }
                    )
    return [row(busy, rates[busy], took[busy], together) for busy in (False, True)]


def row(busy: bool, rates: Rates, took: list[dict[int, float]], together: int) -> dict:
    """Medians, and their ratios to one process of one thread and between the other two."""
    from forethought.engines.torch.machine.threads import best

    median = {side: statistics.median(some) for side, some in rates.items()}
    one, threads, processes = median.values()
    return {
        "busy": busy,
        "rates": rates,
        "median": median,
        "chosen": [best(some) for some in took],
        "took": took,
        "ratio": {
            "threads": threads / one,
            "processes": processes / one,
            "processes to threads": processes / threads,
        },
        "together": together,
        "load": os.getloadavg()[0],
    }


def printed(size: str, precision: str, rows: list[dict]) -> str:
    sides = list(rows[0]["median"])
    head = [
        "model",
        "something else",
        *(f"{side} tok/s" for side in sides),
        f"{sides[1]} / {sides[0]}",
        f"{sides[2]} / {sides[0]}",
        f"{sides[2]} / {sides[1]}",
        "chosen (ms)",
    ]
    cells = []
    for r in rows:
        saw = {n: 1000 * statistics.median(some[n] for some in r["took"]) for n in r["took"][0]}
        chosen = (
            ", ".join(map(str, r["chosen"]))
            + " ("
            + ", ".join(f"{n}: {ms:.1f}" for n, ms in saw.items())
            + ")"
        )
        cells.append(
            [
                f"{size} {precision}",
                "1 busy process" if r["busy"] else "-",
                *(f"{r['median'][side]:,.0f}" for side in sides),
                *(f"{ratio:.2f}" for ratio in r["ratio"].values()),
                chosen,
            ]
        )
    return table(head, cells)


def compared(size: str, args) -> list[dict]:
    shape = QUICK if args.quick else WORK
    side = {
        "size": size,
        "precision": args.precision,
        "device": "cpu",
        "shape": {n: getattr(shape, n) for n in shape.__slots__},
    }
    workers = {
        name: [
            Near(serve, side | {"threads": threads})
            if args.quick
            else Worker(__file__, side | {"threads": threads})
            for _ in range(processes)
        ]
        for name, (processes, threads) in sides_of(args.together).items()
    }
    try:
        return measure(workers, args.together, args.repeats, args.seconds)
    finally:
        for one in (one for those in workers.values() for one in those):
            one.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--sizes", default="1M,25M", help=f"models, of {', '.join(SIZES)} (default: %(default)s)"
    )
    parser.add_argument(
        "--together",
        type=int,
        default=2,
        help="threads of one process, and processes of one thread (%(default)s)",
    )
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the median counts (%(default)s)")
    parser.add_argument("--seconds", type=float, default=2.5, help="of each measurement (%(default)s)")
    parser.add_argument("--precision", choices=list(GAP), default="fp32")
    parser.add_argument(
        "--quick", action="store_true", help="seconds, on a tiny model: does it run? The numbers mean nothing"
    )
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        serve(json.loads(args.worker), Line())
        return 0
    sizes = ["tiny"] if args.quick else args.sizes.split(",")
    if unknown := [name for name in sizes if name not in SIZES]:
        parser.error(f"no size {unknown[0]!r}; there are {', '.join(SIZES)}")
    if args.repeats < 1 or args.together < 2 or args.seconds < 0:
        parser.error("repeats are at least 1, together at least 2, seconds not negative")
    args.device, args.threads = "cpu", f"1 to {args.together}"
    result = {"machine": machine(args), "quick": args.quick, "models": []}
    print(
        said_of(result["machine"]) + f"\n{args.repeats} rounds, sides in turn, medians; processes x threads\n"
    )
    for size in sizes:
        rows = compared(size, args)
        result["models"].append({"size": size, "precision": args.precision, "rows": rows})
        print(printed(size, args.precision, rows) + "\n", flush=True)
    if args.quick:
        print("--quick: the numbers mean nothing")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
