"""Two processes on one run directory: one writes, the other ends with exit 2 and says who does; the run is
what one alone would make."""

from __future__ import annotations

import functools
import re
import time
from pathlib import Path

from attacks_kit import children, kills, moments, runs
from attacks_kit.records import Outcome, Try, failed, held, rng_of

TRIES = 40
SUBJECTS = ("adapters-fp32", "shared-fp32", "gate-skip-models-fp32", "distill-rules-fp32")
PAIRS = (
    ("train", "train"),
    ("train", "resume"),
    ("resume", "resume"),
    ("resume", "report"),
    ("train", "report"),
)
HOLDER = re.compile(r"process (\d+)|pid[ =:]*(\d+)", re.IGNORECASE)


def tries(scale: float, seed: int) -> list[Try]:
    number = max(2, round(TRIES * scale))
    return [
        Try(
            f"writers/{'+'.join(PAIRS[n % len(PAIRS)])}/{seed}.{n}",
            functools.partial(pair, PAIRS[n % len(PAIRS)], f"{seed}.{n}"),
        )
        for n in range(number)
    ]


def pair(verbs: tuple[str, str], id: str, folder: Path) -> Outcome:
    """Both start, the second a little later; whoever did not write is judged, and a run that nobody finished
    is resumed."""
    rng = rng_of("writers", id)
    name = rng.choice([s for s in SUBJECTS if s in kills.cases()])
    straight, recipe, out = kills.straight_of(name), kills._recipe(name, folder), folder / "run"
    if verbs[0] == "resume":
        moment = moments.Moment("a checkpoint's rename", rng.randint(2, 4), 0.0, "KILL")
        children.run(
            ["train", recipe, "--out", out, "--plain"], folder / "logs", before=moments.at(moment, out)
        )
    argv = {
        "train": ["train", recipe, "--out", out, "--plain"],
        "resume": ["train", "--resume", out, "--plain"],
        "report": ["report", out],
    }
    (folder / "logs").mkdir(exist_ok=True)
    first = children.command(argv[verbs[0]], folder / "logs" / "first.log")
    time.sleep(rng.choice((0.0, rng.uniform(0, 0.1), rng.uniform(0, 0.8 * straight.seconds))))
    second = children.command(argv[verbs[1]], folder / "logs" / "second.log")
    ends = [first.end(), second.end()]
    wrong = judge(verbs, ends, [first.pid, second.pid])
    if not wrong and not (out / "report.html").exists():
        wrong = "no report was written"
    if not wrong and (different := runs.difference(straight.left, runs.left(out))):
        wrong = different
    said = f"{verbs[0]}: exit {ends[0].code}; {verbs[1]}: exit {ends[1].code}"
    return failed(f"{wrong} [{said}; {ends[1].last}]") if wrong else held(reason=said)


def judge(verbs: tuple[str, str], ends: list[children.Ended], pids: list[int]) -> str:
    """What is wrong with how two processes on one directory ended, or "". A second one that came after the
    first had ended may say that the run is finished; a report only reads."""
    for verb, ended in zip(verbs, ends, strict=True):
        if why := children.untyped(ended):
            return f"{verb}: {why}"
    if verbs[1] == "report":
        return "" if ends[0].code == 0 else f"{verbs[0]} beside a report: exit 2: {ends[0].last}"
    if [e.code for e in ends].count(0) != 1:
        return f"{[e.code for e in ends].count(0)} of two ended well, and one should"
    loser = 1 if ends[1].code else 0
    said = ends[loser].text
    before = (
        "nothing to resume",
        "is not a run",
        "no run there",
        "not empty",
        "already holds",
        "without a recipe.json",
        "neither a file",
    )
    if any(words in said for words in before):
        return ""
    holder = HOLDER.search(said)
    if holder is None or int(holder[1] or holder[2]) != pids[1 - loser]:
        return (
            f"the other does not say that process {pids[1 - loser]} holds the directory: {ends[loser].last}"
        )
    return ""
