"""Tokens a second of forethought's sampler, against `transformers` generate on the same weights, prompts and
lengths.

    python benchmarks/sampling.py [--rows flat,tree,unrolled,episode] [--sizes 1M,25M] [--precision fp32,bf16]
    [--repeats 7] [--warm 2] [--json FILE]

135M and 0.5B have the shapes of SmolLM2-135M and Qwen2.5-0.5B: `--sizes 135M --rows flat,tree --precision
bf16 --threads 2 --repeats 3 --warm 1` takes some minutes. In the JSON, `rows[].ratio` says by peer how many
times as long as ours it takes.

Each side runs in its own process and samples when told to; they take turns, so that whatever else the machine
does hits all alike. Everybody samples at temperature 1 from the whole vocabulary and gives the log-probs of
what was sampled.

- flat: 64 prompts of 32 tokens, 64 new ones each. tree: prompts of 256 tokens, 4 plans of 32 tokens under
  each, 3 executions of 32 tokens under each plan, in two calls. generate repeats prompt and plan for each of
  its rows; we compute them once.
- unrolled: our own tree against 12 rollouts a prompt in our own engine that share nothing, in two calls as
  roles speak, and in one as a rollout without roles goes on. Same seeds: the tokens are the same, which is
  checked (fp32; in bf16 the share is printed).
- episode: 16 prompts of 256 tokens, each with an episode of 8 turns of 32 tokens, answered with 64 each. Our
  own engine, with keys and values that stay between calls against one that computes every context again; the
  tree, whose executions stand below prompts that the plans' call has read, beside it (`bench_episode.py`).
- Every completion has exactly as many tokens as asked for: the model's own weights give the end token a
  probability of 0.
- bf16 is each side's own way: ours keeps weights in fp32 under autocast, as it trains; generate has bf16
  weights, which is faster there.
- CTranslate2 and vLLM beside it where they are installed, and left out with a line where they are not or
  refuse. CTranslate2 gives one score a completion. vLLM finds prefixes again by itself.
- Checked, and the run fails where one does not hold: the number of tokens, and on two completions after every
  round that the log-probs of each side are those of the model's plain forward in fp32.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench_episode import against_recomputing, print_kept
from bench_kit import (
    EOS,
    GAP,
    SIZES,
    Clock,
    Sampled,
    Shape,
    chosen,
    engine_of,
    machine,
    options,
    prompts_of,
    rollouts,
    said_of,
    table,
    tokenizer_of,
    unrolled,
    write_model,
)
from bench_worker import Line, Near, Worker, worker

ROWS = {"flat": Shape(64, 32, 1, 64), "tree": Shape(4, 256, 4, 32, 3, 32)}
QUICK = {"flat": Shape(3, 5, 1, 4), "tree": Shape(2, 9, 4, 3, 3, 3)}
LOOKED_AT = 2  # completions of a round whose log-probs are checked
PEERS = ("generate", "ctranslate2", "vllm")

Sample = Callable[[list, Shape, int], Sampled]


class Refused(Exception):
    """This peer cannot do this row, and why."""


# The sides: each makes a function (prompts, shape, seed) -> Sampled -----------------------------------------


def ours(model: Path, o: dict) -> Sample:
    from forethought.engines.torch.engine import TorchEngine
    from forethought.engines.torch.models.loading import from_path
    from forethought.recipe.schema import AdapterSpec, EngineSpec

    spec = EngineSpec(
        device=o["device"],
        precision=o["precision"],
        weights="fp32",
        threads=o["threads"],
        kernel_threads=o["threads"],
    )
    engine = TorchEngine(from_path(str(model), weights="fp32"), spec, AdapterSpec())
    return lambda prompts, shape, seed: rollouts(engine, prompts, shape, seed)


def generate(model: Path, o: dict) -> Sample:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(o["threads"])
    kind = torch.bfloat16 if o["precision"] == "bf16" else torch.float32
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=kind).to(o["device"]).eval()

    def call(contexts, n, tokens):
        ids = torch.tensor(contexts, device=o["device"])
        out = lm.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=n,
            max_new_tokens=tokens,
            return_dict_in_generate=True,
            output_logits=True,
        )
        logps = lm.compute_transition_scores(out.sequences, out.logits, normalize_logits=True)
        said = list(zip(out.sequences[:, ids.shape[1] :].tolist(), logps.tolist(), strict=True))
        return [said[i : i + n] for i in range(0, len(said), n)]

    def sample(prompts, shape, seed):
        torch.manual_seed(seed)
        return two_calls(call, prompts, shape)

    return sample


def ctranslate2(model: Path, o: dict) -> Sample:
    """The one place that imports CTranslate2. A completion has one score, the sum of its log-probs over its
    length."""
    import ctranslate2 as ct

    kind = {"fp32": "float32", "bf16": "bfloat16"}[o["precision"]]
    if kind not in ct.get_supported_compute_types(o["device"]):
        raise Refused(f"CTranslate2 {ct.__version__} has no {kind} on {o['device']} here")
    converted = model.parent / f"{model.name}-ctranslate2"
    if not converted.exists():
        ct.converters.TransformersConverter(str(model)).convert(str(converted))
    generator = ct.Generator(
        str(converted), device=o["device"], compute_type=kind, intra_threads=o["threads"], inter_threads=1
    )
    words = tokenizer_of(SIZES[o["size"]]).convert_ids_to_tokens(range(SIZES[o["size"]].vocabulary))

    def call(contexts, n, tokens):
        repeated = [[words[i] for i in c] for c in contexts for _ in range(n)]
        out = generator.generate_batch(
            repeated,
            max_length=tokens,
            sampling_topk=0,
            sampling_temperature=1.0,
            return_scores=True,
            include_prompt_in_result=False,
            end_token=[EOS],
        )
        said = [(r.sequences_ids[0], [r.scores[0]] * len(r.sequences_ids[0])) for r in out]
        return [said[i : i + n] for i in range(0, len(said), n)]

    def sample(prompts, shape, seed):
        ct.set_random_seed(seed)
        return two_calls(call, prompts, shape)

    return sample


def vllm(model: Path, o: dict) -> Sample:
    """The one place that imports vLLM."""
    os.environ |= {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    import vllm as v

    kind = {"fp32": "float32", "bf16": "bfloat16"}[o["precision"]]
    lm = v.LLM(
        model=str(model),
        dtype=kind,
        max_model_len=SIZES[o["size"]].context,
        max_num_seqs=256,
        enable_prefix_caching=True,
    )

    def call(contexts, n, tokens):
        params = v.SamplingParams(
            n=n, temperature=1.0, top_p=1.0, top_k=-1, max_tokens=tokens, logprobs=0, detokenize=False
        )
        out = lm.generate([{"prompt_token_ids": list(c)} for c in contexts], params, use_tqdm=False)
        return [
            [
                (list(c.token_ids), [at[i].logprob for at, i in zip(c.logprobs, c.token_ids, strict=True)])
                for c in r.outputs
            ]
            for r in out
        ]

    return lambda prompts, shape, seed: two_calls(call, prompts, shape)


def two_calls(call: Callable, prompts: list, shape: Shape) -> Sampled:
    """All plans, then all executions. `call(contexts, n, tokens)` gives n (ids, log-probs) of each
    context."""
    plans = call(prompts, shape.plans, shape.plan)
    contexts = [(*p, *plan) for p, group in zip(prompts, plans, strict=True) for plan, _ in group]
    return Sampled(plans, call(contexts, shape.acts, shape.act) if shape.acts else [])


SIDES = {"ours": ours, "generate": generate, "ctranslate2": ctranslate2, "vllm": vllm}


def ours_alone(o: dict, calls: int) -> Sample:
    engine = engine_of(
        SIZES[o["size"]],
        precision=o["precision"],
        threads=o["threads"],
        device=o["device"],
        prefix_cache="auto" if not calls else 0,
    )
    if not calls:
        return lambda prompts, shape, seed: rollouts(engine, prompts, shape, seed)
    return lambda prompts, shape, seed: unrolled(engine, prompts, shape, seed, calls)


OWN = {"shared": 0, "two calls": 2, "one call": 1}  # forms of our own rollouts -> calls


def side_of(side: str, model: Path, o: dict) -> Sample | None:
    if side == "write":
        write_model(SIZES[o["size"]], model)
    if side in ("write", "score"):
        return None
    return ours_alone(o, OWN[side]) if side in OWN else SIDES[side](model, o)


def serve(o: dict, line: Line) -> None:
    """A worker: says first that it can, or why not; then samples and scores as told."""
    side, model = o["side"], Path(o["model"])
    commands = iter(line)
    next(commands)  # only asks whether this side can
    try:
        sample = side_of(side, model, o)
    except Refused as no:
        line.say(refused=str(no))
        return
    line.say(refused="")
    for command in commands:
        if "rows" in command:
            line.say(gap=score(model, command["rows"]))
            continue
        shape, seed = Shape(**command["shape"]), command["seed"]
        prompts = prompts_of(SIZES[o["size"]], shape, seed)
        with Clock(o["device"]) as clock:
            said = sample(prompts, shape, seed)
        line.say(wall=clock.wall, cpu=clock.cpu, **facts(prompts, said, shape, command["all"]))


def facts(prompts: list, said: Sampled, shape: Shape, everything: bool) -> dict:
    """How much was said, and some of it (everything, where it is compared token by token) with what stands
    above."""
    plans = [((*p,), *one) for p, group in zip(prompts, said.plans, strict=True) for one in group]
    above = [(*p, *ids) for p, ids, _ in plans]
    acts = (
        [(c, *one) for c, group in zip(above, said.acts, strict=True) for one in group] if shape.acts else []
    )
    lengths = {len(ids) for _, ids, _ in plans} | {len(ids) for _, ids, _ in acts}
    rows = [plans[0], *acts[-1:]][:LOOKED_AT] if acts else plans[:LOOKED_AT]
    return {
        "sampled": sum(len(ids) for _, ids, _ in plans + acts),
        "rows": rows,
        "lengths": sorted(lengths),
        "tokens": [list(ids) for _, ids, _ in plans + acts] if everything else [],
    }


def score(model: Path, rows: list) -> float:
    """Largest difference between given log-probs and those of the plain forward in fp32. Where all are one
    number, it is their mean."""
    import torch
    from transformers import AutoModelForCausalLM

    if model not in _scorers:
        _scorers[model] = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    gap = 0.0
    for context, ids, logps in rows:
        with torch.no_grad():
            logits = _scorers[model](input_ids=torch.tensor([[*context, *ids]]), use_cache=False).logits[
                0, len(context) - 1 : -1
            ]
        true = logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]
        if len(set(logps)) == 1:
            true = true.mean()[None]
        gap = max(gap, float((true - torch.tensor(logps[: len(true)])).abs().max()))
    return gap


_scorers: dict = {}


# The one that tells them when -------------------------------------------------------------------------------


def check(side: str, shape: Shape, fact: dict, precision: str) -> None:
    wrong = []
    if fact["sampled"] != shape.sampled:
        wrong.append(f"sampled {fact['sampled']} tokens of {shape.sampled}")
    if fact.get("gap", 0.0) > GAP[precision] or fact.get("gap", 0.0) != fact.get("gap", 0.0):
        wrong.append(f"its log-probs are {fact['gap']} nats from the model's")
    if wrong:
        sys.exit(f"the comparison does not hold: {side} " + ", ".join(wrong))


def take_turns(
    workers: dict[str, Worker | Near],
    shape: Shape,
    args,
    precision: str,
    everything: bool = False,
    scorer: Worker | Near | None = None,
) -> tuple[dict, dict]:
    """(seconds by side and clock, the last round's facts by side)."""
    took = {side: {"wall": [], "cpu": []} for side in workers}
    last: dict[str, dict] = {}
    for k in range(args.warm + args.repeats):
        for side, one in workers.items():
            fact = one.ask(shape=vars_of(shape), seed=k, all=everything)
            if scorer:
                fact["gap"] = scorer.ask(rows=fact["rows"])["gap"]
            check(side, shape, fact, precision)
            last[side] = fact
            if k >= args.warm:
                for clock, times in took[side].items():
                    times.append(fact[clock])
        if everything:
            same(last, shape, precision)
    return took, last


def same(last: dict[str, dict], shape: Shape, precision: str) -> None:
    """Identical seeds give identical tokens; `same` of each side is the share of its completions."""
    first = last["shared"]["tokens"]
    for side, fact in last.items():
        fact["same"] = sum(a == b for a, b in zip(first, fact["tokens"], strict=True)) / len(first)
        if fact["same"] < 1 and precision == "fp32":
            sys.exit(
                f"the comparison does not hold: of {len(first)} completions {side} has "
                f"{fact['same']:.1%} as the tree has them"
            )


def vars_of(shape: Shape) -> dict:
    return {name: getattr(shape, name) for name in shape.__slots__}


def summary(took: dict, shape: Shape, against: str) -> dict:
    medians = {side: {clock: statistics.median(v) for clock, v in t.items()} for side, t in took.items()}
    return {
        "seconds": took,
        "median": medians,
        "tokens_per_second": {side: shape.sampled / m["wall"] for side, m in medians.items()},
        "ratio": {
            side: {clock: m[clock] / medians[against][clock] for clock in m}
            for side, m in medians.items()
            if side != against
        },
    }


def started(
    names: tuple[str, ...], size: str, precision: str, model: Path, args, notes: list[str]
) -> dict[str, Worker | Near]:
    """Those that can; `notes` hears of the others."""
    workers = {}
    for side in names:
        one = worker(serve, __file__, args, side=side, size=size, precision=precision, model=str(model))
        if why := one.ask(start=True)["refused"]:
            notes.append(f"{side} is left out of {size} {precision}: {why}")
            one.close()
        else:
            workers[side] = one
    return workers


def against_peers(
    size: str, precision: str, rows: list[str], peers: list[str], model: Path, args, notes: list[str]
) -> list[dict]:
    """Our sampler beside the peers, row by row."""
    workers = started(("ours", *peers), size, precision, model, args, notes)
    scorer = started(("score",), size, "fp32", model, args, notes)["score"]
    out = []
    for row in rows:
        shape = (QUICK if args.quick else ROWS)[row]
        took, last = take_turns(workers, shape, args, precision, scorer=scorer)
        out.append(
            {
                "row": row,
                "size": size,
                "precision": precision,
                "shape": str(shape),
                "sampled": shape.sampled,
                **summary(took, shape, "ours"),
                "gap": {side: f["gap"] for side, f in last.items()},
                "load": os.getloadavg()[0],
            }
        )
    for one in (*workers.values(), scorer):
        one.close()
    return out


def against_ourselves(size: str, precision: str, args) -> dict:
    """Our tree beside our own rollouts that share nothing."""
    shape = (QUICK if args.quick else ROWS)["tree"]
    workers = started(tuple(OWN), size, precision, Path(), args, [])
    took, last = take_turns(workers, shape, args, precision, everything=True)
    for one in workers.values():
        one.close()
    return {
        "row": "unrolled",
        "size": size,
        "precision": precision,
        "shape": str(shape),
        "sampled": shape.sampled,
        "tokens": {"tree": shape.tokens, "leaves": shape.unrolled},
        **summary(took, shape, "shared"),
        "same": {side: f["same"] for side, f in last.items()},
        "load": os.getloadavg()[0],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options(parser, repeats=7, sizes=("1M", "25M"))
    parser.add_argument("--rows", default="flat,tree,unrolled,episode", help="of %(default)s")
    parser.add_argument("--peers", default=",".join(PEERS), help="beside ours (%(default)s)")
    parser.add_argument("--warm", type=int, default=2, help="rounds left out (%(default)s)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        serve(json.loads(args.worker), Line())
        return 0
    sizes, precisions = chosen(parser, args)
    rows, peers = args.rows.split(","), args.peers.split(",")
    if unknown := [r for r in rows if r not in (*ROWS, "unrolled", "episode")]:
        parser.error(f"no row {unknown[0]!r}; there are flat, tree, unrolled, episode")
    if unknown := [p for p in peers if p not in PEERS]:
        parser.error(f"no peer {unknown[0]!r}; there are {', '.join(PEERS)}")
    notes = [
        f"{p} is not installed: left out"
        for p in peers
        if p != "generate" and importlib.util.find_spec(p) is None
    ]
    peers = [p for p in peers if p == "generate" or importlib.util.find_spec(p)]
    result = {
        "machine": machine(args, [p for p in peers if p != "generate"]),
        "quick": args.quick,
        "rows": [],
        "own": [],
        "kept": [],
        "notes": notes,
    }
    print(said_of(result["machine"]))
    print(
        f"{args.repeats} rounds, each side in its own process in turn, medians of tokens a second (wall "
        f"clock); "
        "a ratio says how many times as long as ours it takes\n"
    )
    rows_of_peers = [r for r in rows if r in ROWS]
    with tempfile.TemporaryDirectory() as folder:
        if rows_of_peers:
            for size in sizes:
                model = Path(folder) / size
                started(("write",), size, "fp32", model, args, notes)["write"].close()
                for precision in precisions:
                    result["rows"] += against_peers(size, precision, rows_of_peers, peers, model, args, notes)
            print_peers(result["rows"], ["ours", *peers])
    if "unrolled" in rows:
        result["own"] = [
            against_ourselves(size, precision, args) for size in sizes for precision in precisions
        ]
        print_own(result["own"])
    if "episode" in rows:
        result["kept"] = [
            against_recomputing(size, precision, row, args)
            for size in sizes
            for precision in precisions
            for row in ("episode", "tree")
        ]
        print_kept(result["kept"])
    print("\n".join(notes))
    if args.quick:
        print("--quick: the numbers mean nothing")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    return 0


def print_peers(rows: list[dict], sides: list[str]) -> None:
    others = sides[1:]
    cells = [
        [
            r["row"],
            r["size"],
            r["precision"],
            r["shape"],
            *(f"{r['tokens_per_second'][s]:,.0f}" if s in r["median"] else "-" for s in sides),
            *(
                f"{r['ratio'][s]['wall']:.2f} ({r['ratio'][s]['cpu']:.2f})" if s in r["ratio"] else "-"
                for s in others
            ),
            f"{r['load']:.1f}",
        ]
        for r in rows
    ]
    print(
        table(
            [
                "row",
                "model",
                "precision",
                "prompts x group, prompt + new",
                *(f"{s} tok/s" for s in sides),
                *(f"ours / {s} (cpu)" for s in others),
                "load",
            ],
            cells,
        ),
        flush=True,
    )
    worst = max(g for r in rows for g in r["gap"].values())
    print(
        f"checked on every round: the number of tokens, and log-probs at most {worst:.1e} nats from the "
        f"plain forward's (last round)"
    )


def print_own(rows: list[dict]) -> None:
    cells = [
        [
            r["size"],
            r["precision"],
            r["shape"],
            f"{r['tokens']['tree']:,}",
            f"{r['tokens']['leaves']:,}",
            *(f"{r['tokens_per_second'][s]:,.0f}" for s in OWN),
            *(f"{r['ratio'][s]['wall']:.2f}" for s in OWN if OWN[s]),
            f"{min(r['same'].values()):.0%}",
            f"{r['load']:.1f}",
        ]
        for r in rows
    ]
    head = [
        "model",
        "precision",
        "trees, prompt + plan + act",
        "tokens of the trees",
        "of their leaves",
        "tree tok/s",
        "unrolled, two calls",
        "unrolled, one call",
        "tree / two calls",
        "tree / one call",
        "same tokens",
        "load",
    ]
    print("\n" + table(head, cells), flush=True)


if __name__ == "__main__":
    sys.exit(main())
