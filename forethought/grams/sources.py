"""Where solutions come from: the saved trees of a run, or a file of texts.

runs/math-1                     the executions of its trees (trees/step-*.jsonl.gz), each with the plan
                                above it
runs/math-1/guided/stage-0      a distilled data set: plans with their chains
solutions.jsonl                 lines of {"text"}, {"chain"}, {"solution"} or, as in GSM8K's files,
                                {"answer"}, with the plan before it where there is one, as in a distilled data
                                set; a line with "correct": false is a wrong one
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forethought.core import datafiles
from forethought.core.errors import UserError
from forethought.core.scores import success_of
from forethought.core.types import NO_EVIDENCE
from forethought.tasks.sections import PLAN

TEXTS = ("text", "chain", "solution", "answer")  # fields of a line, the first that is there counts
_STEP = re.compile(r"step-[0-9]{1,18}\.jsonl\.gz")  # a file of another name is not a run's
BETWEEN = "\n\n"  # turns: no n-gram reaches from one into the next


@dataclass(frozen=True, slots=True, kw_only=True)
class Solutions:
    texts: tuple[str, ...]  # different ones, in the order in which they were first read
    read: int  # executions or lines
    wrong: int  # of them, left out because they failed
    again: int  # of them, left out because their text had been read
    where: str  # for people: what was read

    def summary(self) -> str:
        """One line for people."""
        left = [f"{n} {why}" for n, why in ((self.wrong, "wrong"), (self.again, "seen before")) if n]
        return f"{self.where} ({self.read} read{', left out: ' + ', '.join(left) if left else ''})"


def solutions(source: Path, correct: bool = True) -> Solutions:
    """What `source` holds; `correct`: only what succeeded. UserError for a source that is neither of the
    above, is damaged, or has nothing to give."""
    where, rows = _rows(source)
    texts: dict[str, None] = {}
    read = wrong = again = 0
    for text, right in rows:
        read += 1
        if correct and not right:
            wrong += 1
        elif text in texts:
            again += 1
        else:
            texts[text] = None
    if not texts:
        why = f"none of its {read} succeeded" if read else "nothing is in it"
        raise UserError(f"{source}: no solutions to read grams from ({why})")
    return Solutions(texts=tuple(texts), read=read, wrong=wrong, again=again, where=where)


def _rows(source: Path) -> tuple[str, Iterable[tuple[str, bool]]]:
    """(for people, (text, whether it is right))."""
    if source.is_file():
        if source.suffix not in (".jsonl", ".parquet"):
            raise UserError(
                f"{source}: solutions come in .jsonl or .parquet files, found "
                f"{source.suffix or 'no ending'!r}"
            )
        return str(source), (_line(row, where) for where, row in datafiles.rows(source))
    if files := sorted(
        path for path in (source / "trees").glob("step-*.jsonl.gz") if _STEP.fullmatch(path.name)
    ):
        steps = [int(path.name[5:].partition(".")[0]) for path in files]
        return f"{source} (trees of {len(steps)} steps, {steps[0]} to {steps[-1]})", (
            row for path in files for row in _trees(path)
        )
    if guided := [path for path in (source / "guided.jsonl", source / "guided.parquet") if path.is_file()]:
        return _rows(guided[0])
    if not source.exists():
        raise UserError(
            f"{source}: no such file or folder; give a run, a distilled data set or a .jsonl file"
        )
    raise UserError(
        f"{source}: neither a run with saved trees (save.trees_every, save.trees) nor a distilled data set"
    )


def _trees(path: Path) -> Iterator[tuple[str, bool]]:
    where = str(path)
    try:
        with gzip.open(path, "rb") as file:
            for where, tree in datafiles.json_rows_of(file, path):
                try:
                    found = list(_executions(tree["nodes"]))
                except (KeyError, TypeError, AttributeError, ValueError) as error:
                    raise UserError(
                        f"{where}: no tree of rollouts ({type(error).__name__}: {error})"
                    ) from error
                yield from found
    except (EOFError, OSError, zlib.error) as error:  # a gzip file that ends early
        raise UserError(f"{path}: damaged after {where} ({error})") from error


def _executions(nodes: list[dict[str, Any]]) -> Iterator[tuple[str, bool]]:
    """Every path that the policy has spoken on to its end: its turns, and whether it succeeded (a plan that
    was not executed: whether it was judged valid). What the engine or the environment failed at, or what had
    no room in the model's context, is neither right nor wrong, and left out."""
    by_id = {n["id"]: n for n in nodes}
    if len(by_id) < len(nodes):
        raise ValueError("an id stands twice")
    parents = {n["parent"] for n in nodes}
    for leaf in nodes:
        if leaf["id"] in parents or leaf["role"] is None or leaf["status"] in NO_EVIDENCE:
            continue
        turns, at, left = [], leaf, len(nodes)
        while at is not None:
            if (left := left - 1) < 0:
                raise ValueError("its nodes go round in a circle")
            if at["role"] is not None:
                turns.append(at["text"])
            at = by_id.get(at["parent"])
        parts = leaf["reward_parts"]
        yield (
            BETWEEN.join(reversed(turns)),
            (success_of({"outcome": parts.get("valid", 0.0)} | parts) or 0.0) >= 1.0,
        )


def _line(row: Any, where: str) -> tuple[str, bool]:
    name = next((name for name in TEXTS if isinstance(row, dict) and name in row), None)
    if name is None:
        found = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise UserError(f"{where}: needs one of the fields {', '.join(TEXTS)}; found {found or 'none'}")
    texts = [row.get(PLAN) or "", row[name]]
    if wrong := next((t for t in texts if not isinstance(t, str)), None):
        raise UserError(f"{where}: a solution is text, found {str(wrong)[:80]!r}")
    if (found := datafiles.half({PLAN: texts[0], name: texts[1]})) is not None:
        raise UserError(f"{where}: {found}")
    correct = row.get("correct", True)
    if correct not in (True, False):  # 0 and 1 too
        raise UserError(f"{where}: correct is true or false, found {correct!r}")
    return BETWEEN.join(filter(None, texts)), bool(correct)
