"""Memories of earlier episodes (Agent S, arXiv 2410.08164), and the workflow that reads them.

    narrative    task -> how the whole of it was done          read before a plan
    episodic     task and plan -> how that plan was done       read before the acts

One memory is read each time: that of the nearest key (cosine of words and pairs of words, counted), never one
of the very same key. Each kind can be switched off. A file of memories has a JSON object a line: kind, key,
text.

    python -m forethought.workflows.memory RUN --out memory.jsonl

keeps what succeeded in the rollouts that a run has saved. There a language model sums an episode up; here the
plan and the acts themselves are kept. Demonstrations hold no memories: a model that reads language reads them
as it is, or learns to by reinforcement.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from forethought.core.errors import RecipeError, UserError
from forethought.core.scripts import ended
from forethought.core.types import Task
from forethought.traces.files import read_trees, saved_steps
from forethought.workflows.acting import judge_plan
from forethought.workflows.plan_then_act import execute
from forethought.workflows.trajectory import Counts, Trajectory, together

Kind = Literal["narrative", "episodic"]


@dataclass(frozen=True, slots=True)
class Kept:
    """One memory."""

    kind: Kind
    key: str
    text: str


class Memory:
    """What is remembered. `narrative`, `episodic`: whether that kind is read."""

    def __init__(self, kept: Iterable[Kept] = (), narrative: bool = True, episodic: bool = True):
        self._on = {"narrative": narrative, "episodic": episodic}
        self._kept: dict[Kind, dict[str, str]] = {"narrative": {}, "episodic": {}}
        self._counts: dict[str, Counter[str]] = {}
        for one in kept:
            self.add(one)

    def add(self, one: Kept) -> None:
        """A later memory of the same key takes the place of an earlier one."""
        self._kept[one.kind][one.key] = one.text

    def recall(self, kind: Kind, key: str) -> str:
        """The text of the nearest other key; "" where there is none, or nothing in common, or the kind is
        switched off. Of keys that are as near the first one."""
        if not self._on[kind]:
            return ""
        asked = self._counted(key)
        near = [(cosine(asked, self._counted(own)), own) for own in self._kept[kind] if own != key]
        best = max(near, key=lambda one: one[0], default=(0.0, ""))
        return self._kept[kind][best[1]] if best[0] > 0 else ""

    def _counted(self, text: str) -> Counter[str]:
        if text not in self._counts:
            self._counts[text] = counted(text)
        return self._counts[text]


def counted(text: str) -> Counter[str]:
    """Words of a text, and pairs of neighbours, in any case."""
    words = text.casefold().split()
    return Counter([*words, *map(" ".join, zip(words, words[1:], strict=False))])


def cosine(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    """From 0, nothing in common, to 1."""
    common = sum(n * b.get(word, 0) for word, n in a.items())
    sizes = math.sqrt(sum(n * n for n in a.values()) * sum(n * n for n in b.values()))
    return common / sizes if sizes else 0.0


def episodic_key(task: str, plan: str) -> str:
    """Of a plan in a task."""
    return f"{task}\n{plan}"


# ---- files


def write(path: Path, kept: Iterable[Kept]) -> int:
    """The file; how many there are."""
    lines = [json.dumps(asdict(one), ensure_ascii=False) for one in kept]
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return len(lines)


def read(path: Path) -> list[Kept]:
    """The memories of a file. UserError, with the line, for one that is none."""
    try:
        lines = path.read_text("utf-8").split("\n")  # a text may hold other ends of lines
    except OSError as error:
        raise UserError(f"workflow.memory: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"workflow.memory: {path} is no text in UTF-8: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            one = Kept(row["kind"], row["key"], row["text"])
            if (
                one.kind not in get_args(Kind)
                or not isinstance(one.key, str)
                or not isinstance(one.text, str)
            ):
                raise ValueError("kind is narrative or episodic, key and text are texts")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number}: no memory ({error})") from None
        found.append(one)
    return found


def of_trees(trees: Iterable[Mapping[str, Any]]) -> Iterator[Kept]:
    """What succeeded in saved trees: of each task its first success."""
    for tree in trees:
        nodes = tree["nodes"]
        for node in nodes:
            if node["role"] != "act" or node["reward_parts"].get("outcome") != 1:
                continue
            path = [node]
            while path[-1]["parent"] is not None:
                path.append(nodes[path[-1]["parent"]])
            said = [one for one in reversed(path) if one["role"] in ("plan", "act")]
            plan = next((one["text"] for one in said if one["role"] == "plan"), "")
            acts = " ".join(one["text"] for one in said if one["role"] == "act")
            key = f"{tree['context']} {tree['prompt']}".strip()
            yield Kept("narrative", key, plan)
            yield Kept("episodic", episodic_key(key, plan), acts)
            break


# ---- the workflow


@lru_cache(4)
def _opened(path: str, narrative: bool, episodic: bool) -> Memory:
    return Memory(read(Path(path)), narrative, episodic)


def memory_of(options: Mapping[str, Any]) -> Memory:
    """The memories that a recipe names. RecipeError where it names none."""
    if not options["memory"]:
        raise RecipeError("workflow.memory", "names no file of memories; see docs/screens.md")
    return _opened(str(options["memory"]), bool(options["narrative"]), bool(options["episodic"]))


async def remembering(t: Trajectory, task: Task, n: Counts) -> None:
    """As plan_then_act; before the plans the nearest narrative memory is read, before the acts of each the
    nearest episodic one."""
    memory, key = memory_of(t.options), f"{task.context} {task.prompt}".strip()
    if told := memory.recall("narrative", key):
        t.observe(told)
    plans = [] if t.ended else await t.fork("plan", n["plan"])
    for plan in plans:
        judge_plan(plan, task)
        if plan.accepted and (told := memory.recall("episodic", episodic_key(key, plan.text))):
            plan.observe(told)
    await together(_executions(plan, task, n) for plan in plans if plan.accepted and not plan.ended)


async def _executions(plan: Trajectory, task: Task, n: Counts) -> None:
    await together(execute(act, task, plan.text) for act in await plan.fork("act", n["act"]))


def main(given: Sequence[str] | None = None) -> int:
    """The command line. 2, and nothing is written, for a run that has nothing to remember."""
    parser = argparse.ArgumentParser(description="memories of what succeeded in a run's saved rollouts")
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args(given)

    def work() -> None:
        notes: list[str] = []
        files = saved_steps(chosen.run)
        if not files:
            raise UserError(f"{chosen.run} has no saved rollouts (trees/step-N.jsonl.gz)")
        kept = [one for path in files.values() for one in of_trees(read_trees(path, notes))]
        if not kept:
            raise UserError(f"no act succeeded in the saved rollouts of {chosen.run}")
        write(chosen.out, kept)
        print(*notes, f"{len(kept)} memories in {chosen.out}", sep="\n")

    return ended(work, chosen.out)


if __name__ == "__main__":
    sys.exit(main())
