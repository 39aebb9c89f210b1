"""Kinds of damage to one file, and edits that leave a file well formed and make it say something else."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attacks_kit import runs

DEEP = "[" * 100_000
HUGE = "9" * 5_000
SHAPES = {
    "[]": "[]",
    "null": "null",
    "1": "1",
    '"x"': '"x"',
    "{}": "{}",
    "deep": DEEP,
    "deep closed": DEEP + "]" * len(DEEP),
    "huge": HUGE,
    "a key": '{"step": [1], "nodes": {"id": []}}',
    "NaN": "NaN",
    "BOM": "\ufeff{}",
}


@dataclass(frozen=True, slots=True)
class Wound:
    """`make(run, other, rng)` damages the run directory; `other` is a run of the same recipe with another
    seed, at the same place. `names`: what a refusal or a note must hold one of, to have named it.
    `may_differ`: the machine is not the same any more, so other last bits are right where they are said.
    `finished`: whether a finished run is damaged too, for who only reads."""

    id: str
    make: Callable[[Path, Path, random.Random], None]
    names: tuple[str, ...]
    may_differ: bool = False
    finished: bool = True
    kept: tuple[str, ...] = field(default=())  # files beside the run directory that must be what they were


def _bytes(change: Callable[[bytes, random.Random], bytes]) -> Callable[[Path, Path, random.Random], None]:
    return lambda path, other, rng: path.write_bytes(change(path.read_bytes(), rng)) and None


def _flip(at: float) -> Callable[[bytes, random.Random], bytes]:
    def change(data: bytes, rng: random.Random) -> bytes:
        place = min(int(at * len(data)), len(data) - 1)
        return (
            data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]
            if data
            else b"\x01"
        )

    return change


def _shape(text: str) -> Callable[[Path, Path, random.Random], None]:
    def make(path: Path, other: Path, rng: random.Random) -> None:
        data = text.encode() + (b"\n" if ".jsonl" in path.name else b"")
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)

    return make


def _to_link(path: Path, other: Path, rng: random.Random) -> None:
    target = _beside(path) / f"target-{path.name}"
    shutil.move(path, target)
    path.symlink_to(target)


def _beside(path: Path) -> Path:
    """The folder that holds the run directory of a file."""
    while not (path / "recipe.json").exists() and path != path.parent:
        path = path.parent
    return path.parent


def _to_folder(path: Path, other: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path, Path, random.Random], None]] = {
    "cut to half": _bytes(lambda data, rng: data[: len(data) // 2]),
    "cut to nothing": _bytes(lambda data, rng: b""),
    "cut by a byte": _bytes(lambda data, rng: data[:-1]),
    "flipped at the start": _bytes(_flip(0)),
    "flipped in the middle": _bytes(_flip(0.5)),
    "flipped at the end": _bytes(_flip(0.999)),
    "deleted": lambda path, other, rng: path.unlink(),
    "bytes appended": _bytes(lambda data, rng: data + rng.randbytes(40)),
    "its end twice": _bytes(lambda data, rng: data + data[len(data) // 2 :]),
    "zeros": _bytes(lambda data, rng: bytes(len(data))),
    "of another run": lambda path, other, rng: shutil.copyfile(other, path) and None,
    "renamed": lambda path, other, rng: path.rename(path.with_name(path.name + ".bak")) and None,
    "a symlink": _to_link,
    "a folder": _to_folder,
    **{f"holds {name}": _shape(text) for name, text in SHAPES.items()},
}


def files(run: Path) -> list[str]:
    """The files that a resume could read: those of the run, of its newest checkpoint, and its oldest and
    newest trees."""
    found = [
        name
        for name in ("recipe.json", "metrics.jsonl", "decisions.jsonl", "summary.json")
        if (run / name).exists()
    ]
    trees = (
        sorted(str(p.relative_to(run)) for p in (run / "trees").glob("*.gz"))
        if (run / "trees").is_dir()
        else []
    )
    found += list(dict.fromkeys([*trees[:1], *trees[-1:]]))
    found += (
        sorted(str(p.relative_to(run)) for p in (run / "guided").rglob("*") if p.is_file())
        if (run / "guided").is_dir()
        else []
    )
    if steps := runs.steps(run):
        newest = run / "checkpoints" / f"step-{steps[-1]:06d}"
        found += sorted(str(p.relative_to(run)) for p in newest.rglob("*") if p.is_file())
    return found


def of_files(run: Path) -> list[Wound]:
    """Every damage of every file; shapes only where JSON is expected."""
    found = []
    for name in files(run):
        checkpoint = Path(name).parts[1] if name.startswith("checkpoints/") else ""
        for what, do in DAMAGES.items():
            if what.startswith("holds") and not name.endswith((".json", ".jsonl", ".jsonl.gz")):
                continue

            def make(out: Path, other: Path, rng: random.Random, name=name, do=do) -> None:
                theirs = other / (name if (other / name).exists() else "recipe.json")
                do(out / name, theirs, rng)

            names = tuple(filter(None, (Path(name).name, checkpoint)))
            kept = (f"target-{Path(name).name}",) if what == "a symlink" else ()
            found.append(Wound(f"{_generic(name)}: {what}", make, names, kept=kept))
    return found


def _generic(name: str) -> str:
    """Without the step: the id of a try does not move with the recipe."""
    parts = Path(name).parts
    return "/".join(["newest", *parts[2:]] if parts[0] == "checkpoints" else parts)


# Edits: well formed, and another run ------------------------------------------------------------------------


def _json(name: str, change: Callable[[dict], object]) -> Callable[[Path, Path, random.Random], None]:
    def make(run: Path, other: Path, rng: random.Random) -> None:
        said = json.loads((run / name).read_text(encoding="utf-8"))
        change(said)
        (run / name).write_text(json.dumps(said, indent=1), encoding="utf-8")

    return make


def _lines(
    name: str, change: Callable[[list[str], random.Random], list[str]]
) -> Callable[[Path, Path, random.Random], None]:
    def make(run: Path, other: Path, rng: random.Random) -> None:
        lines = (run / name).read_text(encoding="utf-8").splitlines()
        (run / name).write_text("".join(f"{line}\n" for line in change(lines, rng)), encoding="utf-8")

    return make


def _newest(run: Path) -> Path:
    return run / "checkpoints" / f"step-{runs.steps(run)[-1]:06d}"


def _digit(lines: list[str], rng: random.Random) -> list[str]:
    at = len(lines) // 2
    place = next(i for i in range(len(lines[at]) - 1, 0, -1) if lines[at][i].isdigit())
    return [
        *lines[:at],
        lines[at][:place] + str((int(lines[at][place]) + 1) % 10) + lines[at][place + 1 :],
        *lines[at + 1 :],
    ]


def _far_stage(lines: list[str], rng: random.Random) -> list[str]:
    return [lines[0], json.dumps(json.loads(lines[1]) | {"stage": 2**31}), *lines[2:]]


def _unlisted(run: Path, other: Path, rng: random.Random) -> None:
    """A file that the manifest does not name any more, and that is not what was written."""
    folder = _newest(run)
    path = max(
        (p for p in folder.rglob("*.safetensors") if "optim" not in p.name), key=lambda p: p.stat().st_size
    )
    path.write_bytes(_flip(0.9)(path.read_bytes(), rng))
    _json(
        str(folder.relative_to(run) / "manifest.json"), lambda said: said.pop(str(path.relative_to(folder)))
    )(run, other, rng)


def _empty_manifest(run: Path, other: Path, rng: random.Random) -> None:
    folder = _newest(run)
    path = next(p for p in sorted(folder.rglob("*.safetensors")))
    path.write_bytes(_flip(0.9)(path.read_bytes(), rng))
    (folder / "manifest.json").write_text("{}", encoding="utf-8")


def _manifest(change: Callable[[dict], object]) -> Callable[[Path, Path, random.Random], None]:
    return lambda run, other, rng: _json(str((_newest(run) / "manifest.json").relative_to(run)), change)(
        run, other, rng
    )


def _checkpoint_of(other_step: int) -> Callable[[Path, Path, random.Random], None]:
    def make(run: Path, other: Path, rng: random.Random) -> None:
        ours, theirs = _newest(run), other / "checkpoints" / f"step-{runs.steps(other)[other_step]:06d}"
        shutil.rmtree(ours)
        shutil.copytree(theirs, ours)

    return make


def _older_as_newest(run: Path, other: Path, rng: random.Random) -> None:
    older = run / "checkpoints" / f"step-{runs.steps(run)[-2]:06d}"
    newest = _newest(run)
    shutil.rmtree(newest)
    shutil.copytree(older, newest)


def _tree(change: Callable[[list[dict]], object]) -> Callable[[Path, Path, random.Random], None]:
    def make(run: Path, other: Path, rng: random.Random) -> None:
        path = sorted((run / "trees").glob("*.gz"))[0]
        trees = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        change(trees)
        path.write_bytes(gzip.compress("".join(json.dumps(t) + "\n" for t in trees).encode(), mtime=0))

    return make


def _trees_elsewhere(run: Path, other: Path, rng: random.Random) -> None:
    target = run.parent / "target-trees"
    shutil.move(run / "trees", target)
    (target / "step-000900.jsonl.gz").write_bytes(gzip.compress(b"", mtime=0))
    (run / "trees").symlink_to(target)


def _checkpoint_elsewhere(run: Path, other: Path, rng: random.Random) -> None:
    newest, target = _newest(run), run.parent / "target-checkpoint"
    shutil.move(newest, target)
    newest.symlink_to(target)


def _file(name: str, data: bytes = b"") -> Callable[[Path, Path, random.Random], None]:
    def make(run: Path, other: Path, rng: random.Random) -> None:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(data)

    return make


def edits() -> list[Wound]:
    """On a run that was killed in its last stage. Where a finished run would rightly be read (a summary with
    another number of threads), who only reads is not asked."""
    recipe: Mapping[str, Callable[[dict], object]] = {
        "seed": lambda r: r.update(seed=r["seed"] + 1),
        "more steps": lambda r: r["stage"][-1]["until"].update(steps=9),
        "fewer steps": lambda r: r["stage"][-1]["until"].update(steps=4),
        "more plans": lambda r: r["stage"][-1]["tree"].update(plan=5),
        "another rate": lambda r: r["stage"][-1]["optim"].update(lr=0.5),
        "another batch": lambda r: r["stage"][-1].update(batch=3),
        "a gate less": lambda r: r["stage"][-1].update(gates=[]),
        "a stage less": lambda r: r["stage"].pop(0),
        "a stage more": lambda r: r["stage"].append(r["stage"][-1]),
        "another width": lambda r: r["model"].update(width=64),
        "another task": lambda r: r["task"].update(widgets=5),
        "another name": lambda r: r.update(name="renamed"),
        "trees saved otherwise": lambda r: r["save"].update(trees=1),
        "more evaluation": lambda r: r["eval"].update(tasks=3),
    }
    found = [
        Wound(f"recipe.json says {what}", _json("recipe.json", change), ("recipe.json",), finished=False)
        for what, change in recipe.items()
    ]
    for name in ("metrics.jsonl", "decisions.jsonl"):
        changes: Mapping[str, Callable] = {
            "a line less": lambda lines, rng: [*lines[: len(lines) // 2], *lines[len(lines) // 2 + 1 :]],
            "its first line less": lambda lines, rng: lines[1:],
            "a line twice": lambda lines, rng: [*lines[:2], lines[1], *lines[2:]],
            "another order": lambda lines, rng: [*lines[:1], *lines[2:3], *lines[1:2], *lines[3:]],
            "another digit": _digit,
            "another key": lambda lines, rng: [lines[0].replace('"step"', '"stop"'), *lines[1:]],
        }
        found += [
            Wound(f"{name} has {what}", _lines(name, change), (name,)) for what, change in changes.items()
        ]
    found.append(
        Wound(
            "metrics.jsonl has a line of stage 2147483648",
            _lines("metrics.jsonl", _far_stage),
            ("metrics.jsonl",),
        )
    )
    summary: Mapping[str, Callable[[dict], object]] = {
        "other threads": lambda s: s["machine"].update(threads=2),
        "no machine": lambda s: s.pop("machine"),
        "threads in words": lambda s: s["machine"].update(threads="two"),
        "no status": lambda s: s.pop("status"),
        "it is done": lambda s: s.update(status="done"),
        "another status": lambda s: s.update(status="x\x1b[31m"),
        "a machine that is nothing": lambda s: s.update(machine=None),
    }
    found += [
        Wound(
            f"summary.json says {what}",
            _json("summary.json", change),
            ("summary.json",),
            may_differ="threads" in what,
        )
        for what, change in summary.items()
    ]
    step = ("step-", "manifest", "checkpoint")
    found += [
        Wound("manifest.json: empty, and a file that is not what was written", _empty_manifest, step),
        Wound("manifest.json: an entry less, and that file is not what was written", _unlisted, step),
        Wound(
            "manifest.json: a path outside",
            _manifest(lambda said: said.update({"../../../recipe.json": [1, "0"]})),
            step,
        ),
        Wound(
            "manifest.json: sizes in words",
            _manifest(lambda said: said.update({k: ["1", 2] for k in said})),
            step,
        ),
        Wound(
            "manifest.json: entries of one number",
            _manifest(lambda said: said.update({k: 1 for k in said})),
            step,
        ),
        Wound(
            "manifest.json: entries that are nothing",
            _manifest(lambda said: said.update({k: None for k in said})),
            step,
        ),
        Wound(
            "newest checkpoint: renamed",
            lambda run, other, rng: _newest(run).rename(run / "checkpoints/step-000099") and None,
            step,
        ),
        Wound("newest checkpoint: of another run", _checkpoint_of(-1), step),
        Wound("newest checkpoint: an older one of another run", _checkpoint_of(0), step),
        Wound("newest checkpoint: an older one of this run", _older_as_newest, step),
        Wound(
            "newest checkpoint: deleted",
            lambda run, other, rng: shutil.rmtree(_newest(run)),
            step,
            finished=False,
        ),
        Wound("newest checkpoint: a symlink", _checkpoint_elsewhere, step, kept=("target-checkpoint",)),
        Wound(
            "checkpoints: all deleted",
            lambda run, other, rng: shutil.rmtree(run / "checkpoints"),
            ("checkpoint",),
            finished=False,
        ),
        Wound(
            "checkpoints: an empty one",
            lambda run, other, rng: (run / "checkpoints/step-000099").mkdir(),
            step,
        ),
        Wound("checkpoints: a file with such a name", _file("checkpoints/step-000099"), step),
        Wound("checkpoints: a temporary one", _file("checkpoints/.step-000099.tmp/state.json", b"{}"), step),
        Wound(
            "checkpoints: an old one that was replaced",
            _file("checkpoints/.step-000001.old/state.json", b"{}"),
            step,
            finished=False,
        ),
        Wound("trees: all deleted", lambda run, other, rng: shutil.rmtree(run / "trees"), ("trees",)),
        Wound(
            "trees: a symlink",
            _trees_elsewhere,
            ("trees",),
            kept=("target-trees", "target-trees/step-000900.jsonl.gz"),
        ),
        Wound("trees: a file with another name", _file("trees/step-abc.jsonl.gz"), ("step-abc",)),
        Wound(
            "trees: of a step that has not been",
            _file("trees/step-000900.jsonl.gz", gzip.compress(b"", mtime=0)),
            ("step-000900",),
        ),
        Wound(
            "trees: an id twice",
            _tree(
                lambda trees: trees[0]["nodes"].append(
                    dict(trees[0]["nodes"][0], parent=trees[0]["nodes"][-1]["id"])
                )
            ),
            ("trees", "step-"),
        ),
        Wound(
            "trees: rewards in words",
            _tree(lambda trees: trees[0]["nodes"][1].update(reward_parts={"valid": "x"})),
            ("trees", "step-"),
        ),
        Wound(
            "trees: another text",
            _tree(lambda trees: trees[0]["nodes"][1].update(text="c s e </plan>")),
            ("trees", "step-"),
        ),
        Wound(
            "trees: another reward",
            _tree(lambda trees: trees[0]["nodes"][1].update(reward=0.123)),
            ("trees", "step-"),
        ),
        Wound(
            "a report that was begun",
            _file(".report.html.abc123", b"<html>"),
            (".report.html",),
            finished=False,
        ),
        Wound("a recipe that was begun", _file("recipe.json.new", b"{"), ("recipe.json",), finished=False),
    ]
    return found
