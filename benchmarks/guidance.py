"""Plans that rules make of GSM8K's solutions: how many pass the filter, and how they compare with
sub-questions that people wrote.

    python benchmarks/guidance.py --train train.jsonl --references test_socratic.jsonl [--guided
    RUN/guided/stage-0] [--json FILE]

--train       solutions as GSM8K has them; all are distilled, and every plan that is dropped is counted under
              its reason
--references  a Socratic file of GSM8K: before each step of a solution stands the question that it answers.
              The solutions without these questions are distilled too, and each plan is compared with the
              questions of its own problem
--guided      plans that a run has made (by whatever summariser) of the problems of --references, compared
              instead of those of the rules

The measures are those of `forethought eval --problems` (forethought/look/quality.py): steps and sub-questions
are aligned in their order. Two controls: the plan of another problem, of as many steps where there is one,
and the same plan with its steps in another order.

Nothing is paid or loaded: one core takes some seconds for the 7,473 training problems. Exit code 2 for a file
that is none of these.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from forethought.core.errors import UserError
from forethought.look.quality import covered, f1, steps_of
from forethought.stages.distill import files, rules
from forethought.stages.distill.pipeline import distill
from forethought.stages.distill.records import Guided, Item, Provenance


@dataclass(frozen=True, slots=True)
class Reference:
    """A problem with the sub-questions of its solution, in order."""

    item: Item
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """The steps of a plan and the sub-questions of its problem."""

    steps: tuple[str, ...]
    questions: tuple[str, ...]


def read(path: Path) -> list[dict]:
    """The records of a JSONL file. UserError with the line for what is not an object."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} as JSON lines: {error}") from error
    if wrong := [n for n, record in enumerate(records, start=1) if not isinstance(record, dict)]:
        raise UserError(f"{path}: record {wrong[0]} is not an object with a question and an answer")
    if not records:
        raise UserError(f"{path} has no records")
    return records


def solutions(path: Path) -> list[Item]:
    return [
        rules.item_of_gsm8k(record, id=str(n), source=path.name)
        for n, record in enumerate(read(path), start=1)
    ]


def references(path: Path) -> list[Reference]:
    """UserError for a file whose steps have no sub-questions."""
    found = []
    for item in solutions(path):
        lines = [line.partition(" ** ") for line in item.chain.splitlines() if line.strip()]
        if not all(mark for _, mark, _ in lines):
            raise UserError(
                f"{path}: record {item.id} has a step without a sub-question before ' ** '; give "
                f"a Socratic file of GSM8K"
            )
        chain = "\n".join(step for _, _, step in lines)
        plain = Item(
            id=item.id,
            question=item.question,
            chain=chain,
            answer=item.answer,
            level=len(lines),
            source=item.source,
        )
        found.append(Reference(plain, tuple(question for question, _, _ in lines)))
    return found


def paired(refs: Sequence[Reference], guided: Sequence[Guided]) -> list[Pair]:
    """A pair for each plan of a problem that has references. A problem is known by its question."""
    plans = {" ".join(row.question.split()): row.plan for row in guided}
    pairs = []
    for ref in refs:
        if plan := plans.get(" ".join(ref.item.question.split())):
            pairs.append(Pair(tuple(steps_of(plan)), ref.questions))
    return pairs


def compare(pairs: Sequence[Pair], seed: int) -> dict[str, float]:
    """See the module's text. UserError where fewer than two plans have references."""
    if len(pairs) < 2:
        raise UserError(
            f"{len(pairs)} plans have references; at least 2 are needed, one to be the other's control"
        )
    rng = random.Random(seed)
    alike: dict[int, list[Pair]] = {}
    for pair in pairs:
        alike.setdefault(len(pair.steps), []).append(pair)
    others = [_another(rng, pair, alike[len(pair.steps)], pairs) for pair in pairs]
    several = [pair for pair in pairs if len(pair.steps) > 1]
    return {
        "plans": float(len(pairs)),
        "steps": mean(len(p.steps) for p in pairs),
        "sub-questions": mean(len(p.questions) for p in pairs),
        "as many steps as sub-questions": mean(len(p.steps) == len(p.questions) for p in pairs),
        "F1": mean(f1(p.steps, p.questions) for p in pairs),
        "F1 of another problem's plan": mean(
            f1(other.steps, p.questions) for p, other in zip(pairs, others, strict=True)
        ),
        "sub-questions covered": mean(covered(p.steps, p.questions) for p in pairs),
        "covered by another problem's plan": mean(
            covered(other.steps, p.questions) for p, other in zip(pairs, others, strict=True)
        ),
        "F1 of plans of several steps": mean(f1(p.steps, p.questions) for p in several) if several else 0.0,
        "F1 of these, steps in another order": mean(f1(_shuffled(rng, p.steps), p.questions) for p in several)
        if several
        else 0.0,
    }


def _another(rng: random.Random, pair: Pair, alike: Sequence[Pair], every: Sequence[Pair]) -> Pair:
    return rng.choice(
        [other for other in alike if other is not pair] or [other for other in every if other is not pair]
    )


def _shuffled(rng: random.Random, steps: Sequence[str]) -> list[str]:
    """In another order: turned by at least one place."""
    by = rng.randrange(1, len(steps))
    return [*steps[by:], *steps[:by]]


def report(made: Provenance, found: Mapping[str, float]) -> str:
    dropped = [f"  dropped, {reason}: {n}" for reason, n in made.drops.items()]
    compared = [f"{name:38} {value:.3f}" for name, value in found.items() if name != "plans"]
    return "\n".join(
        [
            f"{made.items} solutions of {', '.join(made.sources)}: {made.kept} plans kept",
            *dropped,
            f"{found['plans']:.0f} plans beside the sub-questions of their problems",
            *compared,
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True, metavar="FILE")
    parser.add_argument("--references", type=Path, required=True, metavar="FILE")
    parser.add_argument("--guided", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, help="of the two controls")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    args = parser.parse_args(argv)
    try:
        _, made = distill(solutions(args.train), rules.gsm8k())
        refs = references(args.references)
        guided = (
            files.read(args.guided)[0]
            if args.guided
            else distill([ref.item for ref in refs], rules.gsm8k())[0]
        )
        found = compare(paired(refs, guided), args.seed)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(report(made, found))
    if args.json:
        args.json.write_text(
            json.dumps({"items": made.items, "kept": made.kept, "drops": dict(made.drops), **found}, indent=1)
            + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
