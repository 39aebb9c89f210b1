"""Puts the page together: what the run directory says as one JSON island, and the package's own HTML, CSS and
JavaScript around it.

The page fetches nothing (its Content-Security-Policy forbids it) and every text of a run reaches it through
`textContent`.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from forethought.core.errors import UserError
from forethought.core.films import Film
from forethought.core.printable import BIDI
from forethought.report import payload, words
from forethought.report.films import of_films
from forethought.report.load import load
from forethought.store.locks import abandoned, mark_in_use

SCRIPTS = {
    "arms": ("dom.js", "save.js", "plot.js", "charts.js", "header.js", "dots.js", "arms.js"),
    "run": (
        "dom.js",
        "save.js",
        "plot.js",
        "charts.js",
        "header.js",
        "probes.js",
        "tables.js",
        "tree_filter.js",
        "tree_view.js",
        "tree_controls.js",
        "trees.js",
        "films.js",
        "phases.js",
        "run.js",
    ),
    "watch": ("dom.js", "films.js", "watch.js"),
    "compare": (
        "dom.js",
        "save.js",
        "plot.js",
        "charts.js",
        "header.js",
        "probes.js",
        "tables.js",
        "compare.js",
    ),
}
_UNSEEN = re.compile(rf"[\0-\x08\x0b-\x1f\x7f-\x9f{BIDI}]")
STYLES = {
    "arms": ("page.css",),
    "run": ("page.css", "trees.css", "films.css"),
    "watch": ("page.css", "films.css"),
    "compare": ("page.css",),
}


def write(run_dir: Path, refresh: int = 0) -> Path:
    """Write `run_dir`/report.html and return its path. `refresh`: seconds after which a browser that shows it
    loads it again (0: never). `UserError`: `run_dir` is not a run, or a file of it is malformed."""
    run = load(Path(run_dir))
    data = payload.of_run(run)
    said = [data["headline"], *data["sentences"], *(data["probes"]["sentences"] if data["probes"] else [])]
    return write_page(Path(run_dir) / "report.html", render("run", run.name, data, said, refresh))


def compare(run_dirs: Sequence[Path], out: Path) -> Path:
    """Write the page that lays several runs over each other to `out` and return its path.

    `UserError`: fewer than two runs, the same directory twice, or one of them is not a run.
    """
    paths = [Path(path) for path in run_dirs]
    if len(paths) < 2:
        raise UserError(f"compare needs at least two run directories, not {len(paths)}")
    again = [str(path) for i, path in enumerate(paths) if path.resolve() in [p.resolve() for p in paths[:i]]]
    if again:
        raise UserError(f"compare was given {again[0]} twice")
    data = payload.of_runs([load(path) for path in paths])
    title = words.join([run["label"] for run in data["runs"]], " against ")
    return write_page(Path(out), render("compare", title, data, data["sentences"]))


def watch(films: Sequence[Film], title: str, out: Path) -> Path:
    """Write the page that shows films to `out` and return its path."""
    said = [f"{film.name}: {film.asked} {'Success.' if film.success else film.reason}" for film in films]
    data = {"films": of_films(films), "roles": []}
    return write_page(Path(out), render("watch", title, data, said))


def sweep(run_dir: Path) -> None:
    """Remove what a killed writer of the run's report has left."""
    _sweep(Path(run_dir) / "report.html")


def _sweep(page: Path) -> None:
    for beside in page.parent.glob(f".{page.name}.*"):
        if abandoned(beside):
            beside.unlink(missing_ok=True)


def island(data: Mapping[str, Any]) -> str:
    """JSON that can stand inside a script element whatever text it holds: every `<` is written as an
    escape."""
    return json.dumps(_plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )


def _plain(value: Any) -> Any:
    """What JSON can say: a number that is not finite becomes null, and every text `_safe_text`."""
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return _safe_text(value) if isinstance(value, str) else value


def _safe_text(text: str) -> str:
    """A text as a page can hold and show it: a lone surrogate, which no file can hold, is a question mark;
    controls and marks that turn the direction of text are codes, so that a plan reads as the model wrote
    it."""
    return _UNSEEN.sub(
        lambda c: c[0].encode("unicode_escape").decode(), text.encode("utf-8", "replace").decode("utf-8")
    )


def render(kind: str, title: str, data: Mapping[str, Any], sentences: Sequence[str], refresh: int = 0) -> str:
    """One HTML page that needs nothing else: styles, scripts and data are inside. `kind`: of `SCRIPTS`;
    `sentences`: what a reader without JavaScript sees."""
    parts = {
        "REFRESH": f'<meta http-equiv="refresh" content="{refresh}">' if refresh else "",
        "TITLE": html.escape(_safe_text(title)),
        "CSS": "\n".join(_asset(name) for name in STYLES[kind]),
        # for a reader without JavaScript
        "PLAIN": "".join(f"<p>{html.escape(_safe_text(sentence))}</p>" for sentence in sentences),
        "DATA": island({"page": kind, "title": title} | dict(data)),
        "JS": "\n".join(_asset(name) for name in SCRIPTS[kind]),
    }
    first, *rest = _asset("page.html").split("{{")
    out = [first]
    for piece in rest:  # one pass, so that a placeholder inside a run's own text stays text
        name, _, tail = piece.partition("}}")
        out += [parts[name], tail]
    return "".join(out)


def _asset(name: str) -> str:
    return resources.files("forethought.report").joinpath("assets", name).read_text(encoding="utf-8")


def write_page(path: Path, text: str) -> Path:
    """Whole or not at all: written beside, synced, renamed. What a killed writer of this page has left is
    removed. `UserError` where the directory cannot be written."""
    if path.is_dir() or not path.name:
        raise UserError(
            f"cannot write {path}: it is a folder; name a file in it, such as {path / 'compare.html'}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        mark_in_use(handle)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o644)  # mkstemp makes it private; a report is for others to read
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    return path
