"""The films that the page holds: of the newest evaluations first, while there is room for their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from forethought.core.films import Film, Wrong
from forethought.core.jsonl import shallow
from forethought.report import images
from forethought.store import FILM, Store
from forethought.store.files import read_object


def load_films(run_dir: Path, notes: list[str], room: int = images.MOST) -> dict[str, Any]:
    """{"items": films with the step of their evaluation, the newest first, "images": name -> URI}. A file
    that is not what the run wrote is left out, and noted."""
    items: list[dict[str, Any]] = []
    found: dict[str, str] = {}
    damaged = Store(run_dir).damaged_files(None) if (run_dir / "films").is_dir() else {}
    for path in sorted((run_dir / "films").glob("*"), reverse=True):
        if not FILM.fullmatch(path.name):
            continue
        try:
            told = read_object(path)
            wrong = damaged.get(f"films/{path.name}") or _wrong(told)
        except ValueError as error:
            wrong = str(error)
        if wrong:
            notes.append(f"films/{path.name} {wrong}: it is left out.")
            continue
        names = list(dict.fromkeys(frame["image"] for film in told["films"] for frame in film["frames"]))
        more = images.of_run(run_dir, (name for name in names if name not in found), room)
        if len(more) + sum(name in found for name in names) < len(names):
            break  # the page is full
        room -= sum(map(len, more.values())) * 3 // 4
        found |= more
        items += [{"step": told["step"], **film} for film in told["films"]]
    return {"items": items, "images": found}


def of_films(films: Sequence[Film]) -> dict[str, Any]:
    """The same of films that were just played."""
    pictures = dict(chain.from_iterable(film.pictures.items() for film in films))
    items = [{"step": None, **film.told()} for film in films]
    return {"items": items, "images": {name: images.uri(name, data) for name, data in pictures.items()}}


def _wrong(told: Mapping[str, Any]) -> str:
    """What is not as `Film.told` writes it, or ""."""
    if not shallow(told) or not isinstance(told.get("step"), int) or not isinstance(told.get("films"), list):
        return "is no list of films"
    for film in told["films"]:
        texts = ("task", "name", "asked", "wrong", "reason")
        if not isinstance(film, dict) or not all(isinstance(film.get(key), str) for key in texts):
            return "has a film that is none"
        if film["wrong"] not in get_args(Wrong) or not isinstance(film.get("frames"), list):
            return "has a film that is none"
        if not all(map(_is_frame, film["frames"])):
            return "has a frame that is none"
    return ""


def _is_frame(frame: Any) -> bool:
    return (
        isinstance(frame, dict)
        and isinstance(frame.get("image"), str)
        and all(isinstance(frame.get(key), int) and frame[key] > 0 for key in ("width", "height"))
        and frame.get("wrong") in get_args(Wrong)
        and isinstance(frame.get("reason"), str)
        and all(
            isinstance(frame.get(which), list) and all(map(_is_mark, frame[which]))
            for which in ("planned", "chosen")
        )
    )


def _is_mark(mark: Any) -> bool:
    if not isinstance(mark, dict) or not all(isinstance(mark.get(key), str) for key in ("said", "note")):
        return False
    box = mark.get("box")
    return box is None or (
        isinstance(box, list) and len(box) == 4 and all(isinstance(x, int | float) for x in box)
    )
