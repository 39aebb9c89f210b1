"""How the cost of sampling and of a training step grows: with the group, the prompt, the shape of the tree,
the model; and memory with the vocabulary.

    python benchmarks/scaling.py [--axes group,prompt,tree,model,memory] [--sizes 1M,5M,25M] [--precision
    fp32] [--repeats 5] [--json FILE]

Everything is measured twice: as trees, and unrolled, where every leaf has its own copy of what is above it
(in our own engine, with the same random numbers). Each form runs in its own process and they take turns.
Every axis ends with slopes: of log seconds over the log of what is varied, and over the log of the tree's
tokens. 1 is proportional; what grows with the tokens of the tree has about 1 over these.

- group: plans under a prompt. prompt: its tokens. tree: m plans x z executions with m z = 12. model:
  parameters (--sizes). The first three on the first size.
- memory: the peak of a training step in a fresh process at vocabularies of 32k and 128k: resident set, on a
  GPU what PyTorch allocated. `state` is what has to stay: weights, gradients, two moments. `beyond` is the
  peak less that and less the process before the model; it should not grow with the vocabulary. `logits` is
  what one copy of tokens x vocabulary would take.
- Checked, and the run fails where it does not hold: both forms sample equally many tokens, in fp32 the same
  ones; both have the same gradient (its norm within 1e-3, in bf16 5e-2).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from dataclasses import replace
from pathlib import Path

from bench_kit import (
    SIZES,
    Clock,
    Sampled,
    Shape,
    batch_of,
    chosen,
    engine_of,
    machine,
    options,
    prepare,
    prompts_of,
    rollouts,
    said_of,
    slope,
    table,
    unrolled,
)
from bench_worker import Line, Near, Worker, worker

FORMS = ("tree", "unrolled")
WARM = 1  # rounds left out
SAME = {"fp32": 1e-3, "bf16": 5e-2}  # relative difference of gradient norms
MEMORY = {"vocabularies": (32_000, 128_000), "shape": Shape(8, 64, 8, 64), "size": "1M"}
MEMORY_QUICK = {"vocabularies": (320, 1280), "shape": Shape(2, 5, 2, 3), "size": "tiny"}

FLAT, TREE = Shape(4, 128, 8, 32), Shape(2, 256, 4, 32, 3, 32)
AXES = {  # axis -> (the value at each point, its shape)
    "group": [(n, replace(FLAT, plans=n)) for n in (2, 4, 8, 16, 32)],
    "prompt": [(n, replace(FLAT, prompt=n)) for n in (64, 128, 256, 512, 1024)],
    "tree": [(m, replace(TREE, plans=m, acts=12 // m)) for m in (1, 2, 3, 4, 6, 12)],
}
QUICK_FLAT, QUICK_TREE = Shape(2, 6, 2, 3), Shape(1, 6, 2, 3, 2, 2)
QUICK = {
    "group": [(n, replace(QUICK_FLAT, plans=n)) for n in (1, 4)],
    "prompt": [(n, replace(QUICK_FLAT, prompt=n)) for n in (4, 16)],
    "tree": [(m, replace(QUICK_TREE, plans=m, acts=4 // m)) for m in (1, 2)],
}


# The workers ------------------------------------------------------------------------------------------------


def serve(o: dict, line: Line) -> None:
    (fresh if o["side"] == "memory" else serve_form)(o, line)


def serve_form(o: dict, line: Line) -> None:
    """Samples and trains in one form, shape after shape. The first command waits until it is ready: models
    are drawn one at a time."""
    size, commands = SIZES[o["size"]], iter(line)
    next(commands)
    engine = engine_of(size, precision=o["precision"], threads=o["threads"], device=o["device"])
    prepare(engine)
    sample = rollouts if o["side"] == "tree" else unrolled
    line.say(ready=True)
    for command in commands:
        shape, seed = Shape(**command["shape"]), command["seed"]
        prompts = prompts_of(size, shape, seed)
        with Clock(o["device"]) as sampling:
            said = sample(engine, prompts, shape, seed)
        batch, objective = batch_of(prompts, said, shape, share=o["side"] == "tree")
        with Clock(o["device"]) as training:
            engine.forward_backward(batch, objective)
            norm = engine.optim_step("base")["grad_norm/base"]
        groups = [*said.plans, *said.acts]
        line.say(
            sample=sampling.wall,
            train=training.wall,
            sample_cpu=sampling.cpu,
            train_cpu=training.cpu,
            norm=norm.value(),
            tokens=[list(ids) for group in groups for ids, _ in group],
            forward=sum(len(s.token_ids) for s in batch.segments),
        )


def fresh(o: dict, line: Line) -> None:
    """The memory of one training step, from nothing."""
    import torch

    from forethought.engines.torch.engine import TorchEngine  # noqa: F401  (what the process takes before there is a model)

    shape, size = Shape(**o["shape"]), replace(SIZES[o["size"]], vocabulary=o["vocabulary"])
    before = resident("VmRSS")
    engine = engine_of(
        size,
        precision=o["precision"],
        threads=o["threads"],
        device=o["device"],
        pack_tokens=shape.tokens,
        words=SIZES["tiny"],
    )  # a tokenizer would take memory for each word
    prepare(engine)
    prompts = prompts_of(size, shape, 0)
    words = prompts_of(size, replace(shape, prompts=shape.prompts * shape.plans, prompt=shape.plan), 1)
    logps = (-math.log(size.vocabulary),) * shape.plan
    said = Sampled(
        [[(w, logps) for w in words[i : i + shape.plans]] for i in range(0, len(words), shape.plans)], []
    )
    batch, objective = batch_of(prompts, said, shape)
    for _ in line:
        for _ in range(2):  # the first makes the moments
            engine.forward_backward(batch, objective)
            engine.optim_step("base")
        peak = resident("VmHWM") - before if o["device"] == "cpu" else torch.cuda.max_memory_allocated()
        line.say(before=before, peak=peak, state=16 * size.parameters)


def resident(what: str) -> int:
    """Bytes, of this process: VmRSS now, VmHWM at most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status says nothing of {what}; the memory of a process is read on Linux only")


# The one that tells them when -------------------------------------------------------------------------------


def point(workers: dict[str, Worker | Near], value: float, shape: Shape, args, precision: str) -> dict:
    """Both forms of one shape in turn."""
    took = {form: {"sample": [], "train": [], "sample_cpu": [], "train_cpu": []} for form in FORMS}
    forward = {}
    for k in range(WARM + args.repeats):
        facts = {
            form: one.ask(shape={n: getattr(shape, n) for n in shape.__slots__}, seed=k)
            for form, one in workers.items()
        }
        check(facts, shape, precision)
        for form, fact in facts.items():
            forward[form] = fact["forward"]
            if k >= WARM:
                for name, times in took[form].items():
                    times.append(fact[name])
    median = {form: {name: statistics.median(v) for name, v in t.items()} for form, t in took.items()}
    return {
        "value": value,
        "shape": str(shape),
        "tokens": shape.tokens,
        "unrolled": shape.unrolled,
        "forward": forward,
        "seconds": took,
        "median": median,
        "ratio": {name: median["unrolled"][name] / median["tree"][name] for name in ("sample", "train")},
        "load": os.getloadavg()[0],
    }


def check(facts: dict[str, dict], shape: Shape, precision: str) -> None:
    tree, apart = (facts[form] for form in FORMS)
    wrong = [
        f"{form} sampled {n} tokens of {shape.sampled}"
        for form in FORMS
        if (n := sum(map(len, facts[form]["tokens"]))) != shape.sampled
    ]
    differ = sum(a != b for a, b in zip(tree["tokens"], apart["tokens"], strict=False))
    if differ and precision == "fp32":
        wrong.append(f"{differ} of {len(tree['tokens'])} completions differ between the forms")
    if not differ and not math.isclose(tree["norm"], apart["norm"], rel_tol=SAME[precision]):
        wrong.append(f"the gradient's norm is {tree['norm']} as trees and {apart['norm']} unrolled")
    if wrong:
        sys.exit(f"the comparison does not hold at {shape}: " + ", ".join(wrong))


def form_workers(size: str, precision: str, args) -> dict[str, Worker | Near]:
    workers = {
        form: worker(serve, __file__, args, side=form, size=size, precision=precision) for form in FORMS
    }
    for one in workers.values():
        one.ask(start=True)
    return workers


def axis(name: str, precision: str, args, sizes: list[str], workers: dict[str, Worker | Near]) -> dict:
    """All points of an axis and the slopes."""
    if name != "model":
        points = [
            point(workers, value, shape, args, precision)
            for value, shape in (QUICK if args.quick else AXES)[name]
        ]
    else:
        points = []
        for size in sizes:
            own = form_workers(size, precision, args)
            points.append(
                point(own, SIZES[size].parameters, QUICK_TREE if args.quick else TREE, args, precision)
            )
            for one in own.values():
                one.close()
    seconds = {
        (form, what): [p["median"][form][what] for p in points]
        for form in FORMS
        for what in ("sample", "train")
    }
    over = {"value": [p["value"] for p in points], "tokens": [p["tokens"] for p in points]}
    slopes = {
        f"{form} {what}": {by: slope(xs, ys) for by, xs in over.items()}
        for (form, what), ys in seconds.items()
    }
    return {"axis": name, "precision": precision, "points": points, "slopes": slopes}


def memory(precision: str, args) -> list[dict]:
    """A line a vocabulary, each from a fresh process."""
    m = MEMORY_QUICK if args.quick else MEMORY
    shape, out = m["shape"], []
    for vocabulary in m["vocabularies"]:
        options = {
            "side": "memory",
            "size": m["size"],
            "precision": precision,
            "vocabulary": vocabulary,
            "threads": args.threads,
            "device": args.device,
            "shape": {n: getattr(shape, n) for n in shape.__slots__},
        }
        one = Worker(__file__, options)
        found = one.ask(step=True)
        one.close()
        out.append(
            {
                "vocabulary": vocabulary,
                "precision": precision,
                "shape": str(shape),
                **found,
                "beyond": found["peak"] - found["state"],
                "logits": 4 * shape.sampled * vocabulary,
            }
        )
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options(parser, repeats=5, sizes=("1M", "5M", "25M"), precision=("fp32",))
    parser.add_argument(
        "--axes",
        default="group,prompt,tree,model,memory",
        help="of group, prompt, tree, model, memory (%(default)s)",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        serve(json.loads(args.worker), Line())
        return 0
    sizes, precisions = chosen(parser, args)
    axes = args.axes.split(",")
    if unknown := [a for a in axes if a not in (*AXES, "model", "memory")]:
        parser.error(f"no axis {unknown[0]!r}; there are {', '.join(AXES)}, model, memory")
    result = {"machine": machine(args), "quick": args.quick, "axes": [], "memory": []}
    print(said_of(result["machine"]))
    print(
        f"{args.repeats} rounds, each form in its own process in turn, medians; u/t is unrolled over tree\n"
    )
    for precision in precisions:
        shared = form_workers(sizes[0], precision, args) if set(axes) & set(AXES) else {}
        for name in (a for a in axes if a != "memory"):
            found = axis(name, precision, args, sizes, shared)
            result["axes"].append(found | {"size": sizes if name == "model" else sizes[0]})
            print_axis(result["axes"][-1])
        for one in shared.values():
            one.close()
        if "memory" in axes:
            lines = memory(precision, args)
            result["memory"] += lines
            print_memory(lines)
    if args.quick:
        print("--quick: the numbers mean nothing")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    return 0


UNITS = {
    "group": "plans a prompt",
    "prompt": "prompt tokens",
    "tree": "plans of a tree",
    "model": "parameters",
}


def print_axis(found: dict) -> None:
    cells = [
        [
            f"{p['value']:,}",
            p["shape"],
            f"{p['tokens']:,}",
            f"{p['unrolled']:,}",
            *(
                cell
                for what in ("sample", "train")
                for cell in (
                    f"{1000 * p['median']['tree'][what]:,.1f}",
                    f"{1000 * p['median']['unrolled'][what]:,.1f}",
                    f"{p['ratio'][what]:.2f}",
                )
            ),
            f"{p['load']:.1f}",
        ]
        for p in found["points"]
    ]
    for by, label in (
        ("value", f"slope over {UNITS[found['axis']]}"),
        ("tokens", "slope over tokens of the trees"),
    ):
        s = {k: "-" if math.isnan(v[by]) else f"{v[by]:.2f}" for k, v in found["slopes"].items()}
        cells.append(
            [
                f"**{label}**",
                "",
                "",
                "",
                s["tree sample"],
                s["unrolled sample"],
                "",
                s["tree train"],
                s["unrolled train"],
                "",
                "",
            ]
        )
    size = found["size"] if isinstance(found["size"], str) else ", ".join(found["size"])
    print(f"{found['axis']} ({size}, {found['precision']})\n")
    head = [
        UNITS[found["axis"]],
        "trees, tokens",
        "of the trees",
        "of the leaves",
        "sample tree ms",
        "unrolled ms",
        "u/t",
        "train tree ms",
        "unrolled ms",
        "u/t",
        "load",
    ]
    print(table(head, cells) + "\n", flush=True)


def print_memory(lines: list[dict]) -> None:
    mb = lambda n: f"{n / 2**20:,.0f}"  # noqa: E731
    cells = [
        [f"{x['vocabulary']:,}", x["shape"], mb(x["peak"]), mb(x["state"]), mb(x["beyond"]), mb(x["logits"])]
        for x in lines
    ]
    print(
        f"peak memory of a training step, {lines[0]['precision']}, MiB above the process before the model\n"
    )
    print(
        table(
            ["vocabulary", "prompts x group, prompt + new", "peak", "state", "beyond", "logits would be"],
            cells,
        )
        + "\n",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
