"""Summaries on disk, by content: what was paid for once is never asked for again, and an interrupted run goes on where it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from forethought.distill.prompts import digest
from forethought.distill.records import Done, Failure, Item, Summariser, Summary, Usage, nothing
from forethought.errors import UserError


class Cached:
    """A `Summariser` that asks another one only for what the file at `path` does not hold yet.

    A line a summary, appended as soon as it is there, in one write. A last line that was cut off by a crash is removed; any
    other damage is a UserError with its line. Failures are not kept. Close it, or use it in a `with`.
    """

    def __init__(self, inner: Summariser, path: Path):
        self.inner, self.path = inner, path
        self.name, self.model, self.prompt, self.settings = inner.name, inner.model, inner.prompt, inner.settings
        self._known = _read(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(f"cannot write the cache {path}: {error.strerror}") from error

    def key(self, item: Item) -> str:
        """Depends on who is asked, with which words and settings, and about what; not on the item's id."""
        return digest(json.dumps([self.name, self.model, self.prompt, dict(self.settings), item.question, item.chain], sort_keys=True))

    def estimate(self, items: Sequence[Item]) -> Usage:
        return self.inner.estimate(list(self._missing(items).values()))

    def summarise(self, items: Sequence[Item], done: Done = nothing) -> list[Summary | Failure]:
        missing = self._missing(items)
        keys = {item.id: key for key, item in missing.items()}
        failed: dict[str, Failure] = {}

        def keep(result: Summary | Failure) -> None:
            if isinstance(result, Failure):
                failed[keys[result.id]] = result
            else:
                self._append(keys[result.id], result)
            done(result)

        self.inner.summarise(list(missing.values()), keep)
        results, counted = [], set(missing)  # what a summary cost is said once, whoever shares it
        for item in items:
            key, asked = self.key(item), item.id in keys
            results.append(self._result(item, key, failed, asked, asked or key not in counted))
            counted.add(key)
            if not asked:
                done(results[-1])
        return results

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Cached:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _missing(self, items: Sequence[Item]) -> dict[str, Item]:
        """Key -> the first item with it, of those that the file lacks: two items with one content are asked for once."""
        missing: dict[str, Item] = {}
        for item in items:
            key = self.key(item)
            if key not in self._known:
                missing.setdefault(key, item)
        return missing

    def _result(self, item: Item, key: str, failed: Mapping[str, Failure], asked: bool, counts: bool) -> Summary | Failure:
        if key in failed:
            return replace(failed[key], id=item.id, usage=failed[key].usage if counts else Usage())
        return replace(self._known[key], id=item.id, cached=not asked, usage=self._known[key].usage if counts else Usage())

    def _append(self, key: str, summary: Summary) -> None:
        self._known[key] = summary
        line = {"key": key, "text": summary.text, "truncated": summary.truncated, "usage": asdict(summary.usage)}
        os.write(self._file, json.dumps(line).encode() + b"\n")


def _read(path: Path) -> dict[str, Summary]:
    if not path.exists():
        return {}
    try:
        raw = path.read_bytes()
        lines = raw.splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            os.truncate(path, len(raw) - len(lines.pop()))  # else the next line would be glued to it
    except OSError as error:
        raise UserError(f"cannot read the cache {path}: {error.strerror}") from error
    known: dict[str, Summary] = {}
    for number, line in enumerate(lines, start=1):
        try:
            said = json.loads(line)
            known[said["key"]] = Summary(id="", text=_text(said["text"]), truncated=said["truncated"], usage=Usage(**said["usage"]))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}:{number} is no line of a cache of summaries; delete the line, or give another file") from error
    return known


def _text(said: object) -> str:
    if not isinstance(said, str):
        raise TypeError(f"{said!r} is no text")
    return said
