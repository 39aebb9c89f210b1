"""Blocksworld problems from disk (PlanBench, arXiv 2206.10498, ships them as PDDL), and the list of classes
that never train.

A problem file is JSONL, one {"id", "pddl"} a line. `planbench_classes.txt` holds only hashes of classes; this
writes it again:

    python -m forethought.tasks.blocksworld.taskset blocksworld_basic.jsonl blocksworld_basic_3.jsonl >
    planbench_classes.txt
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from forethought.core.datafiles import json_rows, need_new
from forethought.core.errors import UserError, unknown
from forethought.core.textfile import read_text
from forethought.tasks.blocksworld.pddl import read_problem
from forethought.tasks.blocksworld.problem import FREE, Problem, class_hash
from forethought.tasks.blocksworld.strips import Fact, StripsProblem
from forethought.tasks.blocksworld.words import LETTERS

HELD_OUT = Path(__file__).with_name("planbench_classes.txt")
PREDICATES = {"on": 2, "ontable": 1, "clear": 1, "holding": 1, "handempty": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    id: str
    where: str  # "PATH:LINE: problem ID", the address of every error about it
    problem: StripsProblem


def records(path: str | Path) -> Iterator[Record]:
    """The lines of a problem file, in order. UserError names file, line and what is wrong; an id (a text or a
    whole number) may come once. Blank lines are passed over."""
    first: dict[str, str] = {}
    for where, row in json_rows(path):
        record = dict(row) if isinstance(row, dict) else {}
        if type(record.get("id")) is int:  # as in the files of the other families
            record["id"] = str(record["id"])
        for key in ("id", "pddl"):
            if not isinstance(record.get(key), str) or not record[key].strip():
                raise UserError(f'{where}: expected {{"id": TEXT, "pddl": TEXT}}, and {key!r} is not a text')
        need_new(first, record["id"], where)
        where = f"{where}: problem {record['id']!r}"
        yield Record(
            id=record["id"], where=where, problem=read_problem(record["pddl"], source=f"{where}: pddl")
        )
    if not first:
        raise UserError(f"{path}: holds no problems")


def from_strips(strips: StripsProblem, where: str = "problem") -> Problem:
    """The two maps of a STRIPS problem. UserError where it is not a Blocksworld problem whose goal is a set
    of `on` facts."""
    for fact in (*strips.init, *strips.goal):
        if fact[0] not in PREDICATES:
            raise UserError(f"{where}: {unknown('predicate', fact[0], PREDICATES)}")
        if len(fact) - 1 != PREDICATES[fact[0]]:
            raise UserError(
                f"{where}: ({' '.join(fact)}) has {len(fact) - 1} arguments, {fact[0]!r} takes "
                f"{PREDICATES[fact[0]]}"
            )
    under = _under(strips, where)
    order = _bottom_up(under, strips.objects, f"{where}: in :init")
    covered = set(under.values())
    clear = {fact[1] for fact in strips.init if fact[0] == "clear"}
    for block in strips.objects:
        if (block in clear) == (block in covered):
            both = "clear and covered" if block in clear else "neither clear nor covered"
            raise UserError(f"{where}: in :init {block!r} is {both}")
    wanted = _on_facts([fact for fact in strips.goal if fact[0] == "on"], f"{where}: in :goal")
    other = next((fact for fact in strips.goal if fact[0] != "on"), None)
    if other is not None:
        raise UserError(
            f"{where}: the goal holds ({' '.join(other)}); goals of this family are `on` facts only"
        )
    _bottom_up({block: wanted.get(block) for block in strips.objects}, strips.objects, f"{where}: in :goal")
    number = {block: i for i, block in enumerate(order)} | {None: FREE}
    return Problem(
        names=tuple(order),
        below=tuple(number[under[block]] for block in order),
        goal=tuple(number[wanted.get(block)] for block in order),
    )


def lettered(problem: Problem, objects: Sequence[str], where: str = "problem") -> Problem:
    """The problem in the family's letters: kept where they are a..h already, else given out in the order of
    `objects`."""
    if len(objects) > len(LETTERS):
        raise UserError(f"{where}: {len(objects)} blocks; this family has letters for {len(LETTERS)}")
    if set(objects) <= set(LETTERS):
        return problem
    letter = dict(zip(objects, LETTERS, strict=False))  # fewer objects than letters is the rule
    return Problem(
        names=tuple(letter[name] for name in problem.names), below=problem.below, goal=problem.goal
    )


def _under(strips: StripsProblem, where: str) -> dict[str, str | None]:
    """Block -> what it stands on at the start."""
    if ("handempty",) not in strips.init:
        raise UserError(f"{where}: (handempty) is not in :init; problems start with the hand empty")
    held = next((fact for fact in strips.init if fact[0] == "holding"), None)
    if held is not None:
        raise UserError(f"{where}: ({' '.join(held)}) and (handempty) are both in :init")
    under: dict[str, str | None] = dict(
        _on_facts([fact for fact in strips.init if fact[0] == "on"], f"{where}: in :init")
    )
    for fact in (fact for fact in strips.init if fact[0] == "ontable"):
        if under.get(fact[1]) is not None:
            raise UserError(f"{where}: in :init {fact[1]!r} is on the table and on {under[fact[1]]!r}")
        under[fact[1]] = None
    nowhere = next((block for block in strips.objects if block not in under), None)
    if nowhere is not None:
        raise UserError(f"{where}: in :init {nowhere!r} is neither on the table nor on a block")
    return under


def _on_facts(facts: Sequence[Fact], where: str) -> dict[str, str]:
    """x -> y for facts (on x y), where each block carries and stands on one at most."""
    under: dict[str, str] = {}
    over: dict[str, str] = {}
    for _, x, y in dict.fromkeys(facts):
        if x in under or y in over:
            both = (
                f"{x!r} is on {under[x]!r} and on {y!r}"
                if x in under
                else (f"{over[y]!r} and {x!r} are both on {y!r}")
            )
            raise UserError(f"{where} {both}")
        under[x], over[y] = y, x
    return under


def _bottom_up(under: dict[str, str | None], objects: Sequence[str], where: str) -> list[str]:
    """The blocks tower by tower, each from the bottom; towers in the order of their lowest blocks in
    `objects`."""
    over = {support: block for block, support in under.items() if support is not None}
    order: list[str] = []
    for base in (block for block in objects if under[block] is None):
        order.append(base)
        while order[-1] in over:
            order.append(over[order[-1]])
    circle = sorted(set(objects) - set(order))
    if circle:
        raise UserError(f"{where} the blocks {' '.join(circle)} stand on each other in a circle")
    return order


# --- classes that never train ---


def classes_in(paths: Sequence[str | Path]) -> set[str]:
    """The class hashes of all problems in these files."""
    return {
        class_hash(from_strips(record.problem, record.where)) for path in paths for record in records(path)
    }


def held_out_text(paths: Sequence[str | Path]) -> str:
    """What the committed list holds for these files."""
    hashes = sorted(classes_in(paths))
    names = ", ".join(Path(path).name for path in paths)
    return (
        f"# Hashes of the {len(hashes)} classes (problems up to renaming) of {names}; they never train.\n# "
        "Written by: python -m forethought.tasks.blocksworld.taskset FILE.jsonl ... > planbench_classes.txt\n"
    ) + "".join(f"{h}\n" for h in hashes)


@lru_cache(maxsize=1)
def held_out() -> frozenset[str]:
    """The class hashes of PlanBench's `blocksworld_basic` (501 problems) and `blocksworld_basic_3` (101), as
    committed."""
    hashes = [line for line in read_text(HELD_OUT).split("\n") if line and not line.startswith("#")]
    broken = next((line for line in hashes if not re.fullmatch("[0-9a-f]{8}", line)), None)
    if broken is not None or not hashes:
        what = "is empty" if broken is None else f"holds {broken!r}, which is not 8 hexadecimal digits"
        raise UserError(
            f"{HELD_OUT} {what}; write it again as {__name__} says, or PlanBench would leak into training"
        )
    return frozenset(hashes)
