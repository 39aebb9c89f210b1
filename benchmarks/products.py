"""How fast products of matrices are, ours against torch.nn.functional.linear, for the shapes of real models.

    python benchmarks/products.py [--models SmolLM2-135M,Qwen2.5-0.5B] [--rows 1,8,32,64,128,248]
    [--threads 1,2] [--precision fp32,bf16] [--repeats 5] [--json FILE]
    FORETHOUGHT_KERNELS=avx2 python benchmarks/products.py ...

Each product is formed with the weights of as many layers as the model has, one after another, as decoding
reads them: they do not stay in a core's cache. Both sides take turns; the least of the repeats counts, in
processor seconds on one thread and in seconds on several. bf16: PyTorch gets weights and rows in bfloat16;
our rows are float32 and are rounded on the way, which is in the time. Rates are 10^9 operations a second (2
for each multiply-add). `ratio`: ours over PyTorch's, in fp32, and in bf16 over the better of PyTorch's two.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench_kit import machine, said_of, table

MODELS = {  # layers, then (in, out) of a layer's products, and the head
    "tiny": (2, [(32, 48), (48, 32)], (32, 99)),
    "1M": (4, [(128, 128), (128, 384), (384, 128)], (128, 500)),
    "SmolLM2-135M": (30, [(576, 576), (576, 192), (576, 1536), (1536, 576)], (576, 49152)),
    "Qwen2.5-0.5B": (24, [(896, 896), (896, 128), (896, 4864), (4864, 896)], (896, 151936)),
}
MOST_BYTES = 256 << 20  # of the weights of one product in fp32; the head is one matrix
SECONDS = 0.02  # of one measurement, at least


def least(sides: dict[str, Callable[[], None]], repeats: int, threads: int) -> dict[str, float]:
    """Seconds of one call of each side."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    took, calls = dict.fromkeys(sides, math.inf), {}
    for name, do in sides.items():
        do()
        start = time.perf_counter()
        do()
        calls[name] = max(1, math.ceil(SECONDS / max(time.perf_counter() - start, 1e-6)))
    for _ in range(repeats):
        for name, do in sides.items():
            start = clock()
            for _ in range(calls[name]):
                do()
            took[name] = min(took[name], (clock() - start) / calls[name])
    return took


def products_of(model: str) -> Iterator[tuple[int, int, int]]:
    """(in, out, matrices)."""
    layers, inside, (width, words) = MODELS[model]
    for i, o in inside:
        yield i, o, min(layers, max(1, MOST_BYTES // (4 * i * o)))
    yield width, words, 1


def measured(i: int, o: int, copies: int, rows: list[int], args, threads: list[int]) -> Iterator[dict]:
    import torch

    from forethought.engines.torch.forest.native.packed import Packed

    precisions = args.precision.split(",")
    weights = [torch.randn(o, i) for _ in range(copies)]
    rounded = [w.bfloat16() for w in weights] if "bf16" in precisions else []
    for number in threads:
        torch.set_num_threads(number)
        ours = {p: [Packed(w, p == "bf16", number) for w in weights] for p in precisions}
        for n in rows:
            x, out = torch.randn(n, i), torch.empty(n, o)
            sides: dict[str, Callable[[], None]] = {}
            for p in precisions:
                given, theirs = (x.bfloat16(), rounded) if p == "bf16" else (x, weights)
                sides[f"ours {p}"] = lambda p=p, x=x, out=out: [w.times(x, out) for w in ours[p]]
                sides[f"linear {p}"] = lambda given=given, theirs=theirs: [
                    torch.nn.functional.linear(given, w) for w in theirs
                ]
            with torch.no_grad():
                took = least(sides, args.repeats, number)
            rate = {name: 2 * n * i * o * copies / seconds / 1e9 for name, seconds in took.items()}
            yield {
                "product": [i, o],
                "matrices": copies,
                "rows": n,
                "threads": number,
                "rate": rate,
                "ratio": {p: rate[f"ours {p}"] / best_of(rate, p) for p in precisions},
            }


def best_of(rate: dict[str, float], precision: str) -> float:
    """PyTorch's rate: nobody who may round takes the slower of its two."""
    names = ("linear fp32", "linear bf16") if precision == "bf16" else ("linear fp32",)
    return max(rate[name] for name in names if name in rate)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", default="SmolLM2-135M,Qwen2.5-0.5B", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--rows", default="1,8,32,64,128,248")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--precision", default="fp32,bf16")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="does it run? The numbers mean nothing")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.set_defaults(device="cpu")
    args = parser.parse_args()
    models = ["tiny"] if args.quick else args.models.split(",")
    if unknown := [m for m in models if m not in MODELS]:
        parser.error(f"no model {unknown[0]!r}; there are {', '.join(MODELS)}")
    rows, threads = ([int(n) for n in of.split(",")] for of in (args.rows, args.threads))
    import torch

    from forethought.engines.torch.forest.native.library import library, why_not

    if not library():
        sys.exit(f"there are no kernels to compare: {why_not()}")
    torch.manual_seed(0)
    products = library().products
    result = {"machine": machine(args), "products": products._asdict(), "models": {}}
    print(
        said_of(result["machine"])
        + f"\nours by {products.name}"
        + f" ({products.note})" * bool(products.note)
    )
    for model in models:
        lines = result["models"][model] = []
        for i, o, copies in products_of(model):
            lines += measured(i, o, copies, rows, args, threads)
        print(f"\n{model}\n")
        print_lines(lines, args.precision.split(","))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    return 0


def print_lines(lines: list[dict], precisions: list[str]) -> None:
    head = ["in x out", "threads", "rows"]
    head += [name for p in precisions for name in (f"ours {p}", f"linear {p}", f"ratio {p}")]
    cells = [
        ["x".join(map(str, line["product"])), str(line["threads"]), str(line["rows"])]
        + [
            f"{value:.{digits}f}"
            for p in precisions
            for value, digits in (
                (line["rate"][f"ours {p}"], 1),
                (line["rate"][f"linear {p}"], 1),
                (line["ratio"][p], 2),
            )
        ]
        for line in lines
    ]
    print(table(head, cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
