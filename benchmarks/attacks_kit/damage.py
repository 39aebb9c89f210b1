"""Damage to a run directory: a resume refuses it by name, or says it, or is not touched by it; and whoever
reads the run ends well.

A run is killed in its last stage and damaged, then resumed to its end and compared with the straight run. The
same damage to a finished run is read by `report`, `eval` and `traces`.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from attacks_kit import children, moments, runs
from attacks_kit.records import Outcome, Try, failed, held, memory, rng_of
from attacks_kit.subjects import GUIDE, IMITATE, PLAN, subject
from attacks_kit.wounds import Wound, edits, of_files

WARN = {"metric": "eval/act", "at_least": 1.0, "on_fail": "warn"}
SUBJECTS = {
    "adapters": subject(
        IMITATE,
        PLAN | {"gates": [WARN]},
        layout="adapters",
        save={"every": 2, "keep": 3, "trees_every": 2, "trees": 2},
    ),
    "guided": subject(
        GUIDE, IMITATE, PLAN | {"gates": [WARN]}, save={"every": 2, "keep": 3, "trees_every": 2, "trees": 2}
    ),
}
READERS = {"report": [], "eval": ["--json"], "traces": ["--json", "--n", "0"]}
ADDRESS = re.compile(r"^forethought: [a-z_]+(\.\w+)*: ", re.MULTILINE)  # of a value in a recipe
ADVICE = re.compile(r"delete (\S+?)[,;.]? and resume")


@dataclass(frozen=True, slots=True)
class Base:
    """What is damaged: `killed` and `finished` runs of one recipe, and `other`, a killed one with another
    seed."""

    folder: Path
    left: dict  # of the straight run
    usual: str  # what an undamaged resume says
    read: dict[str, str]  # what undamaged readers say


def tries(scale: float, seed: int) -> list[Try]:
    """All kinds at scale 1; below, that share of them, drawn."""
    found = []
    # to make the runs takes longer than a few tries
    names = list(SUBJECTS) if scale >= 0.05 else ["adapters"]
    for name in names:
        for state, judged in (("killed", resumed), ("finished", read)):
            wounds = [
                *of_files(base_of(name).folder / state / "run"),
                *(edits() if name == "adapters" else []),
            ]
            for wound in wounds:
                if name == "guided" and not wound.id.startswith("guided"):
                    continue  # the rest of its files are those of the other subject
                if state == "killed" or wound.finished:
                    id = f"damage/{name}/{state}/{wound.id}"
                    found.append(Try(id, functools.partial(judged, name, wound, id)))
    controls = [
        Try(f"damage/{name}/killed/nothing", functools.partial(resumed, name, NOTHING, "nothing"))
        for name in names
    ]
    if scale < 1:
        found = rng_of("damage", seed).sample(found, max(1, round(scale * len(found))))
    return controls + found


NOTHING = Wound("nothing", lambda run, other, rng: None, ("nothing",))


def resumed(name: str, wound: Wound, id: str, folder: Path) -> Outcome:
    base, out = base_of(name), folder / "run"
    shutil.copytree(base.folder / "killed" / "run", out, symlinks=True)
    wound.make(out, base.folder / "other" / "run", rng_of(id))
    kept = snapshot(folder, wound)
    ended = children.run(["train", "--resume", out, "--plain"], folder / "logs")
    if snapshot(folder, wound) != kept:
        return failed("it has changed or deleted what a symlink points to")
    how, why = judge(ended, out, base.left, wound, base.usual)
    if how == "refused" and (advice := ADVICE.search(ended.text)):
        why = _follow(Path(advice[1]), out, folder, base)
        how = "failed" if why else how
    return failed(f"{why}") if how == "failed" else held(reason=how, **{how: 1})


def judge(ended: children.Ended, out: Path, wanted: dict, wound: Wound, usual: str = "") -> tuple[str, str]:
    """(refused | said | no effect | failed, why it failed) of a resume of a damaged run. `wanted`: what the
    straight run left; `usual`: what a resume says when nothing is damaged."""
    if why := children.untyped(ended):
        return "failed", why
    named = [n for n in wound.names if n in _decided(out) + ended.text and n not in usual]
    if ended.code == 2:
        return (
            ("refused", "")
            if any(n in ended.text for n in wound.names)
            else ("failed", f"refused, but not by name: {ended.last}")
        )
    found = compared(runs.left(out))
    different = runs.difference(compared(wanted), found)
    if not different:
        return "no effect", ""
    if not named:
        return "failed", f"silent: {different}"
    weights = [k for k, v in found.items() if k.startswith("checkpoint:") and wanted.get(k) != v]
    if weights and not wound.may_differ:
        return "failed", f"said, and yet the weights differ: {different}"
    return "said", ""


def compared(left: dict) -> dict:
    """Without the names of files, among which what was put there to damage the run may still be, and without
    a cache, which nobody reads once its data set is there."""
    return {
        k: v for k, v in left.items() if k not in ("names", "checkpoints") and not k.endswith("cache.jsonl")
    }


def read(name: str, wound: Wound, id: str, folder: Path) -> Outcome:
    """Whoever only reads ends with 0 or 2; numbers and trees are those of the whole run, or the damage is
    named."""
    base, out = base_of(name), folder / "run"
    shutil.copytree(base.folder / "finished" / "run", out, symlinks=True)
    wound.make(out, base.folder / "other" / "run", rng_of(id))
    wrong, numbers = [], {"read": 1}
    for verb, options in READERS.items():
        ended = children.run([verb, out, *options], folder / "logs")
        named = (
            any(n in ended.text for n in wound.names)
            or "recipe.json" in wound.names
            and bool(ADDRESS.search(ended.text))
        )
        if why := children.untyped(ended):
            wrong.append(f"{verb}: {why}")
        elif ended.code == 2 and not named and "no trees" not in ended.text:
            wrong.append(f"{verb}: refused, but not by name: {ended.last}")
        elif ended.code == 0 and not named and verb != "report" and said(ended.text, out) != base.read[verb]:
            wrong.append(f"{verb}: silent: it says something else than for the whole run")
    return failed("; ".join(wrong), **numbers) if wrong else held(reason="read", **numbers)


def said(text: str, out: Path) -> str:
    """The JSON that an `eval` or `traces` prints, without its clocks, the name of the folder, and what a
    library draws beside it."""
    lines = []
    for line in text.replace(str(out), "RUN").splitlines():
        try:
            lines.append(json.dumps(_without(json.loads(line)), sort_keys=True))
        except (ValueError, RecursionError):
            continue
    return "\n".join(lines)


def _without(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without(v) for k, v in value.items() if not runs.clock(k)}
    return [_without(v) for v in value] if isinstance(value, list) else value


def snapshot(folder: Path, wound: Wound) -> dict[str, object]:
    return {
        name: (folder / name).read_bytes()
        if (folder / name).is_file()
        else sorted(p.name for p in (folder / name).iterdir())
        if (folder / name).is_dir()
        else None
        for name in wound.kept
    }


def _decided(out: Path) -> str:
    return " ".join(f"{d.get('name')} {d.get('reason')}" for d in runs.rows(out / "decisions.jsonl"))


def _follow(path: Path, out: Path, folder: Path, base: Base) -> str:
    """What a refusal advises leads to the run that nothing damaged; or why not."""
    if out not in path.parents:
        return f"it advises to delete {path}, which is not inside of the run"
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    ended = children.run(["train", "--resume", out, "--plain"], folder / "logs")
    if why := children.untyped(ended, fine=(0,)):
        return f"following the advice: {why}"
    different = runs.difference(compared(base.left), compared(runs.left(out)))
    return f"following the advice: {different}" if different else ""


_BASES: dict[str, Base] = {}


def base_of(name: str) -> Base:
    """The runs to damage, made once (and by whoever forks afterwards: before)."""
    if name in _BASES:
        return _BASES[name]
    folder = Path(tempfile.mkdtemp(prefix=f"base-{name}-", dir=memory()))
    tables = SUBJECTS[name]
    last = len(tables["stage"]) - 1
    for place, seed in (("finished", 3), ("killed", 3), ("other", 7)):
        (folder / place).mkdir()
        recipe = folder / place / "recipe.json"
        recipe.write_text(json.dumps(tables | {"seed": seed}), encoding="utf-8")
        out = folder / place / "run"
        ended = _run_until(recipe, out, folder / place / "logs", last if place != "finished" else None)
        if place == "finished" and (why := children.untyped(ended, fine=(0,))):
            raise RuntimeError(f"the straight run of {name}: {why}")
    left = runs.left(folder / "finished" / "run")
    usual = folder / "usual"
    shutil.copytree(folder / "killed" / "run", usual / "run")
    whole = children.run(["train", "--resume", usual / "run", "--plain"], usual / "logs")
    whole_run = folder / "finished" / "run"
    readers = {
        verb: said(children.run([verb, whole_run, *options], folder / "logs").text, whole_run)
        for verb, options in READERS.items()
    }
    _BASES[name] = Base(folder, left, whole.text + _decided(usual / "run"), readers)
    return _BASES[name]


def _run_until(recipe: Path, out: Path, logs: Path, stage: int | None) -> children.Ended:
    """A straight run, or one that is killed after the second checkpoint of this stage, in the middle of the
    next one's writing."""
    if stage is None:
        return children.run(["train", recipe, "--out", out, "--plain"], logs)
    for number in range(6, 12):
        shutil.rmtree(out, ignore_errors=True)
        moment = moments.Moment("a checkpoint's rename", number, 0.0, "KILL")
        ended = children.run(["train", recipe, "--out", out, "--plain"], logs, before=moments.at(moment, out))
        state = json.loads(
            (out / "checkpoints" / f"step-{runs.steps(out)[-1]:06d}" / "state.json").read_text(
                encoding="utf-8"
            )
        )
        if state["progress"]["stage"] == stage and state["progress"]["stage_step"] >= 2:
            return ended
    raise RuntimeError(f"no checkpoint in stage {stage} of {recipe}")
