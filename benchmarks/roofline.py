"""How close sampling and a training step come to what this machine can do, part by part.

    python benchmarks/roofline.py [--sizes 1M,25M,100M] [--precision fp32,bf16] [--threads 1] [--repeats 5]
    [--json FILE]
    python benchmarks/roofline.py --sizes 135M --precision fp32 --threads 2 --repeats 1 --warm 1 --no-check

1. The machine: operations a second of matrix products, of the models' own shapes and large ones, and bytes a
second of memory, by how
   much is read over and over (what fits a cache comes faster). The best of several tries counts: it is what
   is possible.
2. The work, counted by hand from the model's shape: operations (2 for each multiply-add) and bytes that have
to move even if nothing is
   read or written twice. A part takes at least the larger of operations / rate and bytes / bandwidth: what is
   possible.
3. The engine does the same work and is timed (median). How a run's time is spread over its parts comes from
one more run under PyTorch's
   profiler, by the shapes of its operations; `rest` is everything else: norms, activations, rotations,
   gathers, Python. It has no bound of its own: a perfect program would do it while it computes the products.
   Profiling adds to each operation, so of a tiny model `rest` is overstated.
4. Where the C kernels compute, no profiler sees into them, and parts that are one call are one line: prefill,
decoding with the head,
   forward and backward with the head. Their PyTorch twin is profiled in their place, for the check below
   alone; `--no-check` leaves both out, which a large model takes most of its time for.

achieved = possible / measured. `done` is operations that ran over operations counted: more than 1 where
something is computed again or for padding. Checked, and the run fails where it does not hold: no products ran
of the layers and the head but the counted ones or more. What is counted is the plain forward; the kernels
leave out of the last layer what nobody reads, so they may come out better by that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench_kit import (
    SIZES,
    Clock,
    Shape,
    Size,
    batch_of,
    chosen,
    engine_of,
    machine,
    options,
    prepare,
    prompts_of,
    rollouts,
    said_of,
    table,
)
from roofline_work import Work, sampling_work, training_work

WORK = Shape(prompts=8, prompt=128, plans=8, plan=32)
QUICK = Shape(prompts=2, prompt=9, plans=3, plan=5)
LARGE = (1024, 2048)  # of square products
READ = tuple(1 << n for n in range(18, 29, 2))  # bytes that are read over and over: 256 KiB to 256 MiB
BYTES = {"fp32": 4, "bf16": 2}


# The machine ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limits:
    """Operations a second by precision and (rows, in, out); bytes a second by how many are read over and
    over."""

    rates: dict[str, dict[tuple[int, int, int], float]]
    reads: dict[int, float]

    def rate(self, precision: str) -> float:
        return max(self.rates[precision].values())

    def bandwidth(self, again: float) -> float:
        """The best of all sizes that are at least so large (of the largest, where none is)."""
        return max(v for size, v in self.reads.items() if size >= min(again, max(self.reads)))

    def possible(self, work: Work, precision: str) -> float:
        """Seconds."""
        return max(work.ops / self.rate(precision), work.bytes / self.bandwidth(work.again))


def shapes_of(sizes: list[str], shape: Shape, quick: bool) -> list[tuple[int, int, int]]:
    """Of products: large squares, and for each model the widest in a training step, in a decode step, and the
    head."""
    out = [(64, 64, 64)] if quick else [(n, n, n) for n in LARGE]
    for size in (SIZES[s] for s in sizes):
        out += [
            (shape.tokens, size.width, size.mlp),
            (shape.leaves, size.width, size.mlp),
            (shape.leaves, size.width, size.vocabulary),
        ]
    return out


def limits_of(shapes: list[tuple[int, int, int]], precisions: list[str], device: str, quick: bool) -> Limits:
    import torch

    for_seconds = 0.002 if quick else 0.3
    rates: dict[str, dict] = {p: {} for p in precisions}
    for precision in precisions:
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        for rows, i, o in shapes:
            x, w = (
                torch.randn(rows, i, dtype=kind, device=device),
                torch.randn(o, i, dtype=kind, device=device),
            )
            rates[precision][rows, i, o] = (
                2
                * rows
                * i
                * o
                / best(lambda x=x, w=w: torch.nn.functional.linear(x, w), device, for_seconds)
            )
    reads = {}
    for size in READ[:2] if quick else READ:
        a = torch.ones(size // 4, device=device)
        half, other = a[: len(a) // 2], a[len(a) // 2 :]
        matrix = a.view(-1, 256)
        vector = torch.ones(256, device=device)
        ways = (lambda: a.sum(), lambda: half.copy_(other), lambda: matrix @ vector)  # noqa: B023
        reads[size] = size / min(best(way, device, for_seconds) for way in ways)
    return Limits(rates, reads)


def best(work, device: str, for_seconds: float) -> float:
    """Seconds of the fastest of many calls."""
    work()
    took, end = math.inf, time.perf_counter() + for_seconds
    while time.perf_counter() < end:
        with Clock(device) as clock:
            work()
        took = min(took, clock.wall)
    return took


# The engine -------------------------------------------------------------------------------------------------


def kind_of(name: str, shapes: list, above: list[str], vocabulary: int) -> str:
    """The part an operation belongs to: by its name, by whether the vocabulary is one of its dimensions, by
    what called it."""
    if "bmm" in name or any("ttention" in n for n in (name, *above)):
        return "attention"
    if "embedding" in name:
        return "rest"
    if any(vocabulary in s for s in shapes if isinstance(s, list)):
        return "head"
    return "layers" if name in PRODUCTS else "rest"


PRODUCTS = ("aten::mm", "aten::addmm")


def profiled(work, vocabulary: int, device: str) -> tuple[float, dict[str, list[float]]]:
    """(seconds under the profiler, part -> [seconds, operations of its products]); parts of a backward pass
    begin with "backward: "."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device != "cpu" else [])]
    with profile(activities=activities, record_shapes=True) as p, Clock(device) as clock:
        work()
    parts: dict[str, list[float]] = {}
    for event in p.events():
        above, at = [], event.cpu_parent
        while at is not None:
            above.append(at.name)
            at = at.cpu_parent
        shapes = event.input_shapes or []
        part = kind_of(event.name, shapes, above, vocabulary)
        if any(n.startswith("autograd::engine::evaluate_function") for n in (event.name, *above)):
            part = f"backward: {part}"
        found = parts.setdefault(part, [0.0, 0.0])
        found[0] += (event.self_cpu_time_total if device == "cpu" else event.self_device_time_total) / 1e6
        if event.name in PRODUCTS:
            a, b = shapes[-2:] if event.name == "aten::mm" else shapes[1:3]
            found[1] += 2 * a[0] * a[1] * b[1]
    return clock.wall, parts


def spread(seconds: float, profile: tuple[float, dict[str, list[float]]]) -> dict[str, list[float]]:
    """Measured seconds over the parts as the profile has them, [seconds, operations]; `rest` takes what no
    part has."""
    wall, parts = profile
    out = {
        name: [seconds * took / wall, ops] for name, (took, ops) in parts.items() if not name.endswith("rest")
    }
    return out | {"rest": [seconds - sum(took for took, _ in out.values()), 0.0]}


def measured(engine, size: Size, shape: Shape, args, check: bool) -> tuple[dict, dict, tuple[dict, dict]]:
    """(sampling, training): part -> [seconds, operations of its products], total included; and both by the
    calls that were timed. Without `check` the parts are left out."""
    device = args.device
    seeds = itertools.count()
    # as far as the first token: what comes before decoding
    first = Shape(shape.prompts, shape.prompt, shape.plans, 1)

    prompts = prompts_of(size, shape, 0)
    sample = lambda of: rollouts(engine, prompts, of, next(seeds))  # noqa: E731
    prepare(engine)
    batch, objective = batch_of(prompts, sample(shape), shape)
    update = lambda: engine.forward_backward(batch, objective)  # noqa: E731
    took: dict[str, list[float]] = {"sample": [], "first": [], "update": [], "optimizer": []}
    for k in range(args.warm + args.repeats):  # in turn: what disturbs one disturbs all
        for name, work in (
            ("sample", lambda: sample(shape)),
            ("first", lambda: sample(first)),
            ("update", update),
            ("optimizer", lambda: engine.optim_step("base")),
        ):
            with Clock(device) as clock:
                work()
            if k >= args.warm:
                took[name].append(clock.wall)
    seconds = {name: statistics.median(v) for name, v in took.items()}
    calls = (
        {"prefill": seconds["first"], "decode": seconds["sample"] - seconds["first"]},
        {"forward and backward": seconds["update"], "optimizer": seconds["optimizer"]},
    )
    totals = [{"total": [sum(own.values()), 0.0]} for own in calls]
    if not check:
        engine.forget("base")
        return totals[0], totals[1], calls
    with by_pytorch():
        profiles = {
            name: profiled(work, size.vocabulary, device)
            for name, work in (
                ("sample", lambda: sample(shape)),
                ("first", lambda: sample(first)),
                ("update", update),
            )
        }
    engine.forget("base")
    whole, start = spread(seconds["sample"], profiles["sample"]), spread(seconds["first"], profiles["first"])
    sampling = {f"prefill: {k}": start.get(k, [0.0, 0.0]) for k in ("layers", "attention")}
    sampling |= {
        f"decode: {k}": [
            max(0.0, a - b) for a, b in zip(whole.get(k, [0.0, 0.0]), start.get(k, [0.0, 0.0]), strict=True)
        ]
        for k in ("layers", "attention")
    }
    sampling["head"] = whole["head"]
    sampling["rest"] = [max(0.0, seconds["sample"] - sum(took for took, _ in sampling.values())), 0.0]
    update_parts = spread(seconds["update"], profiles["update"])
    training = {k if ":" in k or k == "rest" else f"forward: {k}": v for k, v in update_parts.items()}
    training["optimizer"] = [seconds["optimizer"], 0.0]
    return sampling | totals[0], training | totals[1], calls


@contextmanager
def by_pytorch() -> Iterator[None]:
    """Without the kernels, inside."""
    from unittest.mock import patch

    from forethought.engines.torch.forest.native.library import library

    library.cache_clear()
    try:
        with patch.dict(os.environ, FORETHOUGHT_KERNELS="0"):
            library()
            yield
    finally:
        library.cache_clear()


JOINED = {  # parts that the kernels do in one call
    "sampling": {
        "prefill": ("prefill: layers", "prefill: attention"),
        "decode": ("decode: layers", "decode: attention", "head"),
    },
    "training": {
        "forward and backward": tuple(
            f"{way}: {part}" for way in ("forward", "backward") for part in ("layers", "attention", "head")
        ),
        "optimizer": ("optimizer",),
    },
}


def joined(what: str, lines: list[dict], seconds: dict[str, float]) -> list[dict]:
    """The lines of `compared` with the parts of one call as one line, and what was measured of it."""
    out = []
    for name, parts in JOINED[what].items():
        own = [line for line in lines if line["part"] in parts]
        sums = {key: sum(line[key] for line in own) for key in ("ops", "bytes", "possible")}
        out.append(
            {
                "what": what,
                "part": name,
                "seconds": seconds[name],
                "bound": max(own, key=lambda x: x["possible"])["bound"],
            }
            | sums
        )
    return [*out, {**lines[-1], "seconds": sum(seconds.values())}]


def compared(
    what: str,
    counted: dict[str, Work],
    found: dict[str, list[float]],
    limits: Limits,
    precision: str,
    check: bool = True,
) -> list[dict]:
    """A line a part, and the sum."""
    out = []
    for name in (*counted, "rest"):
        work, (took, ran) = counted.get(name), found.get(name, [0.0, 0.0])
        line = {
            "what": what,
            "part": name,
            "seconds": took,
            "ops": work.ops if work else 0.0,
            "bytes": work.bytes if work else 0.0,
        }
        if work:
            line["possible"] = limits.possible(work, precision)
            line["bound"] = (
                "operations"
                if work.ops / limits.rate(precision) >= work.bytes / limits.bandwidth(work.again)
                else "bytes"
            )
            line["done"] = ran / work.ops if ran else None
            if check and name.endswith(("layers", "head")) and ran < 0.99 * work.ops:
                sys.exit(
                    f"the comparison does not hold: {what}, {name}: {ran:.3g} operations of products "
                    f"ran, {work.ops:.3g} were counted"
                )
        out.append(line)
    total = {
        "what": what,
        "part": "total",
        "seconds": found["total"][0],
        "possible": sum(x.get("possible", 0.0) for x in out),
        "ops": sum(x["ops"] for x in out),
        "bytes": sum(x["bytes"] for x in out),
    }
    return [*out, total]


def one(name: str, precision: str, shape: Shape, limits: Limits, args) -> dict:
    size, b = SIZES[name], BYTES[precision]
    taken = {
        size.width,
        size.mlp,
        size.heads * size.head,
        size.kv_heads * size.head,
        shape.tokens,
        shape.leaves,
        shape.sampled,
        shape.prompts * shape.prompt,
        shape.prompts,
    }
    if size.vocabulary in taken:
        sys.exit(
            f"the head of {name} cannot be told from other products: {size.vocabulary} is also another "
            f"dimension"
        )
    engine = engine_of(
        size,
        precision=precision,
        threads=args.threads,
        device=args.device,
        pack_tokens=max(8192, shape.tokens),
    )
    kernels = by_kernels(engine)
    check = args.check or not kernels  # the parts are not known otherwise
    sampling, training, whole = measured(engine, size, shape, args, check)
    found = {
        "sampling": compared("sampling", sampling_work(size, shape, b), sampling, limits, precision, check),
        "training": compared("training", training_work(size, shape, b), training, limits, precision, check),
    }
    if kernels:
        found = {
            what: joined(what, lines, seconds)
            for (what, lines), seconds in zip(found.items(), whole, strict=True)
        }
    lines = [line for part in found.values() for line in part]
    return {
        "size": name,
        "precision": precision,
        "parameters": size.parameters,
        "shape": str(shape),
        "lines": lines,
        "tokens_per_second": {
            "sampled": shape.sampled / sampling["total"][0],
            "trained": shape.sampled / training["total"][0],
        },
        "load": os.getloadavg()[0],
    }


def by_kernels(engine) -> bool:
    from forethought.engines.torch.forest.decoder import decoder_of
    from forethought.engines.torch.forest.native.weights import runs

    model = engine.weights.model("base")
    return runs(decoder_of(model), model)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options(parser, repeats=5, sizes=("1M", "25M", "100M"))
    parser.add_argument("--warm", type=int, default=2, help="rounds of each call that are not counted")
    parser.add_argument("--no-check", dest="check", action="store_false", help="no profile of PyTorch's twin")
    args = parser.parse_args()
    sizes, precisions = chosen(parser, args)
    import torch

    # sets the process's threads and memory up
    engine_of(SIZES["tiny"], precision="fp32", threads=args.threads, device=args.device)
    torch.manual_seed(0)
    shape = QUICK if args.quick else WORK
    limits = limits_of(shapes_of(sizes, shape, args.quick), precisions, args.device, args.quick)
    result = {
        "machine": machine(args),
        "quick": args.quick,
        "work": str(shape),
        "rates": [
            {"product": list(of), **{p: limits.rates[p][of] for p in precisions}}
            for of in limits.rates[precisions[0]]
        ],
        "reads": {str(k): v for k, v in limits.reads.items()},
        "models": [],
    }
    print(said_of(result["machine"]))
    print_machine(limits, precisions)
    print(
        f"\nthe work: prompts x (group), prompt + new tokens: {shape}; one training step on them. "
        f"{args.repeats} repeats, medians\n"
    )
    for name in sizes:
        for precision in precisions:
            model = one(name, precision, shape, limits, args)
            result["models"].append(model)
            print_model(model)
    if args.quick:
        print("--quick: the numbers mean nothing")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    return 0


def print_machine(limits: Limits, precisions: list[str]) -> None:
    cells = [
        ["x".join(map(str, s)), *(f"{limits.rates[p][s] / 1e9:,.1f}" for p in precisions)]
        for s in limits.rates[precisions[0]]
    ]
    print("\n" + table(["rows x in x out", *(f"{p} Gop/s" for p in precisions)], cells))
    reads = [[f"{s / 2**20:g} MiB", f"{v / 1e9:,.1f}"] for s, v in limits.reads.items()]
    print("\n" + table(["read over and over", "GB/s"], reads), flush=True)


def print_model(model: dict) -> None:
    cells = []
    for line in model["lines"]:
        possible, took = line.get("possible"), line["seconds"]
        whole = next(
            x["seconds"] for x in model["lines"] if x["what"] == line["what"] and x["part"] == "total"
        )
        cells.append(
            [
                line["what"],
                line["part"],
                f"{line['ops'] / 1e9:,.2f}" if line["ops"] else "-",
                f"{line['bytes'] / 1e6:,.1f}" if line["bytes"] else "-",
                f"{1000 * possible:,.2f}" if possible else "-",
                f"{1000 * took:,.2f}",
                f"{took / whole:.0%}",
                f"{possible / took:.0%}" if possible and took else "-",
                line.get("bound", "-"),
                f"{line['done']:.2f}" if line.get("done") else "-",
            ]
        )
    rate = model["tokens_per_second"]
    print(
        f"{model['size']} ({model['parameters']:,} parameters), {model['precision']}: "
        f"{rate['sampled']:,.0f} tokens/s sampled, "
        f"{rate['trained']:,.0f} trained; load {model['load']:.1f}\n"
    )
    print(
        table(
            ["", "part", "Gop", "MB", "possible ms", "measured ms", "share", "achieved", "bound by", "done"],
            cells,
        )
        + "\n",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
