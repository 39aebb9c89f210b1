"""Attack the promises: kills, damage, fuzzed inputs, hostile models, misbehaving environments, limits, two
writers, hostile texts.

    python benchmarks/attacks.py
        everything: 1,000 kills, every kind of damage, 1,000,000 inputs, ...
    python benchmarks/attacks.py --only kills --scale 0.1
    python benchmarks/attacks.py --again 'fuzz/trees/0.5' --keep DIR
        one try once more, with what it left kept in DIR
    python benchmarks/attacks.py --write docs/reliability.md

Every try has an id, from which its random numbers follow. Exit code 1 where anything failed. Tries are made
in /dev/shm, in forked processes; nothing of them is left. Limits of disk and inodes need root (they mount a
tmpfs) and are skipped without.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
for _place in (str(HERE), str(HERE.parent)):
    if _place not in sys.path:
        sys.path.append(_place)

from attacks_kit import children, records  # noqa: E402
from attacks_kit.records import Outcome, Try  # noqa: E402

CAMPAIGNS = {  # name -> what is promised
    "kills": "a run that was killed and resumed is the run that was not",
    "damage": "damage to a run is refused by name, or said, or touches nothing",
    "fuzz": "every input ends in a value, a refusal or an error with an address, within 5 s",
    "models": "a hostile model folder is refused by name, or computed right; no code runs",
    "environments": "what an environment does wrong is data",
    "limits": "too little disk, files or memory: a typed end, and a resume that is the same run",
    "writers": "a run directory has one writer",
    "texts": "no text reaches the terminal or a page raw",
}
MARKS = ("<!-- attacks: begin -->", "<!-- attacks: end -->")
LISTED = 40  # failing tries on the terminal; the JSON has all


def tries_of(name: str, scale: float, seed: int) -> list[Try]:
    return importlib.import_module(f"attacks_kit.{name}").tries(scale, seed)


def again(id: str, seed: int) -> list[Try]:
    """The try with this id, at any scale."""
    name = id.partition("/")[0]
    if name not in CAMPAIGNS:
        raise SystemExit(f"no attack has the id {id!r}; ids begin with {', '.join(CAMPAIGNS)}")
    module = importlib.import_module(f"attacks_kit.{name}")
    if hasattr(module, "again"):
        return [module.again(id)]
    return [one for one in module.tries(1.0, seed) if one.id == id] or sys.exit(
        f"no try has the id {id!r} with seed {seed}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", default=",".join(CAMPAIGNS), help="of %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the tries (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that try (default: %(default)s)")
    parser.add_argument("--again", metavar="ID", help="this try alone")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="keep what each try leaves")
    parser.add_argument("--out", metavar="FILE.json", type=Path, help="write all results")
    parser.add_argument(
        "--write", metavar="FILE.md", type=Path, help="write the table between the marks of this page"
    )
    args = parser.parse_args(argv)
    names = [name for name in args.only.split(",") if name]
    if unknown := [name for name in names if name not in CAMPAIGNS]:
        parser.error(f"no attack {unknown[0]!r}; there are {', '.join(CAMPAIGNS)}")
    if not 0 < args.scale <= 1:
        parser.error(f"--scale is a share above 0 and at most 1, found {args.scale}")
    children.load()
    if args.again:
        found = records.attempt(again(args.again, args.seed)[0], args.keep)
        print(f"{found.id}: {found.verdict} ({found.seconds:.1f} s) {shown(found.reason)}")
        return int(found.verdict == "failed")
    results, began = {}, time.monotonic()
    for name in names:
        results[name] = records.attempt_all(
            tries_of(name, args.scale, args.seed), args.workers, teller(name), args.keep
        )
        print(lines_of({name: results[name]})[-1], flush=True)
    facts = machine() | {
        "scale": args.scale,
        "seed": args.seed,
        "workers": args.workers,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print("\n" + "\n".join(lines_of(results)) + "\n")
    wrong = [one for outcomes in results.values() for one in outcomes if one.verdict == "failed"]
    for one in wrong[:LISTED]:
        print(f"failed {one.id}: {shown(one.reason)}")
    if len(wrong) > LISTED:
        print(
            f"and {len(wrong) - LISTED} more failing "
            f"tries{f' in {args.out}' if args.out else '; --out FILE.json keeps them all'}"
        )
    if args.out:
        args.out.write_text(
            json.dumps(
                {"facts": facts, "results": {n: [asdict(o) for o in some] for n, some in results.items()}},
                indent=1,
            )
        )
    if args.write:
        write(args.write, results, facts)
    return int(bool(wrong))


def teller(name: str):
    """How far a campaign is, on a terminal."""
    done = [0, 0]

    def tell(found: Outcome) -> None:
        done[0] += found.count
        done[1] += found.verdict == "failed"
        if sys.stderr.isatty():
            print(f"\r{name}: {done[0]:,} tried, {done[1]:,} failed", end="", file=sys.stderr, flush=True)

    return tell


def lines_of(results: dict[str, list[Outcome]]) -> list[str]:
    """The table, as Markdown, one row a campaign. Numbers that a campaign sums stand in its last column."""
    head = [
        "| attack | tries | held | failed | no test | skipped | seconds | of these |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name, outcomes in results.items():
        t = records.total(outcomes)
        more = ", ".join(
            f"{value:,.0f} {what}"
            for what, value in t.items()
            if what not in ("tries", "held", "failed", "skipped", "idle", "seconds")
        )
        cells = [
            name,
            *(f"{t[key]:,.0f}" for key in ("tries", "held", "failed", "idle", "skipped", "seconds")),
            more,
        ]
        head.append(f"| {' | '.join(cells)} |")
    return head


def shown(text: str, most: int = 600) -> str:
    """On a terminal: what an attack provoked is not to be trusted."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= most else text[: most - 3] + "..."


def machine() -> dict[str, object]:
    """Where, when and of what these are the numbers."""
    import importlib.metadata as metadata

    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = next(
            (line.split(":", 1)[1].strip() for line in file if line.startswith("model name")),
            platform.processor(),
        )
    versions = {
        name: metadata.version(name)
        for name in ("torch", "transformers", "peft", "safetensors", "tokenizers", "numpy")
    }
    git = lambda *words: subprocess.run(
        ["git", "-C", str(HERE), *words], capture_output=True, text=True, check=False
    ).stdout.strip()  # noqa: E731
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **versions,
        "commit": git("rev-parse", "--short", "HEAD")
        + (" with changes" if git("status", "--porcelain", "--untracked-files=no") else ""),
    }


def write(page: Path, results: dict[str, list[Outcome]], facts: dict[str, object]) -> None:
    """The table and its facts between the marks of a page; a page without them gets them at its end."""
    versions = ", ".join(
        f"{name} {facts[name]}"
        for name in ("python", "torch", "transformers", "peft", "safetensors", "tokenizers")
    )
    said = [
        MARKS[0],
        "",
        f"{facts['date']}, commit {facts['commit']}, {facts['cpu']} ({facts['cores']} "
        f"cores), {versions}; "
        f"scale {facts['scale']:g}, "
        f"seed {facts['seed']}, {facts['workers']} worker{'s' if facts['workers'] != 1 else ''}, "
        f"{facts['minutes']} minutes.",
        "",
        *lines_of(results),
        "",
    ]
    failing = [
        (one.id, shown(one.reason, 200))
        for outcomes in results.values()
        for one in outcomes
        if one.verdict == "failed"
    ]
    if failing:
        said += [
            "Failing tries:",
            "",
            *(f"- `{id}`: {why}".replace("|", "\\|").replace("<", "&lt;") for id, why in failing[:100]),
            "",
        ]
    if reasons := sorted(
        {one.reason for outcomes in results.values() for one in outcomes if one.verdict == "skipped"}
    ):
        said += [f"Skipped: {'; '.join(shown(reason, 120) for reason in reasons)}.", ""]
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    before, begin, rest = text.partition(MARKS[0])
    after = rest.partition(MARKS[1])[2] if begin else "\n"
    page.write_text(
        before + ("" if begin or not before else "\n") + "\n".join([*said, MARKS[1]]) + after,
        encoding="utf-8",
    )


if __name__ == "__main__":
    sys.exit(main())
