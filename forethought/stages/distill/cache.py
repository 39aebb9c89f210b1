"""Summaries on disk, by content: what was paid for once is never asked for again, and an interrupted run goes
on where it was."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from forethought.core.errors import UserError
from forethought.stages.distill.prompts import digest
from forethought.stages.distill.records import Done, Failure, Item, Summariser, Summary, Usage, nothing

# of a line; `note` and `sum` are missing in lines of older versions
_FIELDS = {"key", "text", "truncated", "usage"}
_MOST_COUNT = 10**12
_SYNCED = 1.0  # seconds between two syncs: what a power cut may cost


class Cached:
    """A `Summariser` that asks another one only for what the file at `path` does not hold yet.

    A line a summary, with a checksum, appended whole as soon as it is there. A last line that was cut off by
    a crash is removed; any other damaged line is left out, told, and asked again. Failures are not kept.
    Several processes may share a file. Close it, or use it in a `with`. UserError for a file that cannot be
    read or written.
    """

    def __init__(self, inner: Summariser, path: Path, tell: Callable[[str], None] = lambda sentence: None):
        self.inner, self.path = inner, path
        self.name, self.model, self.prompt, self.settings = (
            inner.name,
            inner.model,
            inner.prompt,
            inner.settings,
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            with _locked(self._file):
                lines = _whole_lines(self._file)
        except OSError as error:
            raise UserError(f"cannot read or write the cache {path}: {error.strerror}") from error
        self._synced = time.monotonic()
        self._known, damaged = _read(lines)
        if damaged:
            tell(
                f"{path}: {len(damaged)} of {len(lines)} lines are damaged, the first is line {damaged[0]}; "
                f"what they held is asked again"
            )

    def key(self, item: Item) -> str:
        """Depends on the model, the words and settings of the request, and the question; not on the item's
        id."""
        return digest(
            json.dumps(
                [self.name, self.model, self.prompt, dict(self.settings), item.question, item.chain],
                sort_keys=True,
            )
        )

    def estimate(self, items: Sequence[Item]) -> Usage:
        """Usage for the items that are not on disk yet."""
        return self.inner.estimate(list(self._missing(items).values()))

    def summarise(self, items: Sequence[Item], done: Done = nothing) -> list[Summary | Failure]:
        """Summaries from disk where they are known, else from `inner`; each is written as it comes."""
        missing = self._missing(items)
        keys = {item.id: key for key, item in missing.items()}
        failed: dict[str, Failure] = {}

        def keep(result: Summary | Failure) -> None:
            if isinstance(result, Failure):
                failed[keys[result.id]] = result
            elif keys[result.id] not in self._known:  # an interrupt tells one twice
                self._append(keys[result.id], result)
            done(result)

        self.inner.summarise(list(missing.values()), keep)
        results, counted = [], set(missing)  # the cost of a shared summary is counted once
        for item in items:
            key, asked = self.key(item), item.id in keys
            results.append(self._result(item, key, failed, asked, asked or key not in counted))
            counted.add(key)
            if not asked:
                done(results[-1])
        return results

    def close(self) -> None:
        """Flush to the disk and close the file."""
        try:
            os.fsync(self._file)
        finally:
            os.close(self._file)

    def __enter__(self) -> Cached:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _missing(self, items: Sequence[Item]) -> dict[str, Item]:
        """Key -> the first item with it, of those that the file lacks: two items with one content are asked
        for once."""
        missing: dict[str, Item] = {}
        for item in items:
            key = self.key(item)
            if key not in self._known:
                missing.setdefault(key, item)
        return missing

    def _result(
        self, item: Item, key: str, failed: Mapping[str, Failure], asked: bool, counts: bool
    ) -> Summary | Failure:
        if key in failed:
            return replace(failed[key], id=item.id, usage=failed[key].usage if counts else Usage())
        return replace(
            self._known[key],
            id=item.id,
            cached=not asked,
            usage=self._known[key].usage if counts else Usage(),
        )

    def _append(self, key: str, summary: Summary) -> None:
        said: dict[str, Any] = {
            "key": key,
            "text": summary.text,
            "truncated": summary.truncated,
            "usage": asdict(summary.usage),
            "note": summary.note,
        }
        line = json.dumps(said | {"sum": _sum(said)}).encode() + b"\n"
        with _locked(self._file):
            before = os.fstat(self._file).st_size
            try:
                if (written := os.write(self._file, line)) < len(line):  # the disk is full: the rest says so
                    os.write(self._file, line[written:])
                if os.fstat(self._file).st_size != before + len(line):
                    raise OSError(f"{self.path} took a part of a line")
            except OSError:
                os.ftruncate(self._file, before)
                raise
        self._known[key] = summary
        if time.monotonic() > self._synced + _SYNCED:
            os.fsync(self._file)
            self._synced = time.monotonic()


@contextmanager
def _locked(file: int) -> Iterator[None]:
    """No other process appends, or removes a torn line, meanwhile. The lock ends with its process."""
    try:
        import fcntl
    except ImportError:  # no POSIX: then one process per file
        yield
        return
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _whole_lines(file: int) -> list[bytes]:
    """The lines without their ends. A last one that has none is cut off the file, else the next line would be
    glued to it."""
    with os.fdopen(os.dup(file), "rb") as copy:
        copy.seek(0)
        raw = copy.read()
    *lines, torn = raw.split(b"\n")
    if torn:
        os.ftruncate(file, len(raw) - len(torn))
    return lines


def _read(lines: Sequence[bytes]) -> tuple[dict[str, Summary], list[int]]:
    """Key -> summary, and the numbers of the lines that are no line of a cache."""
    known: dict[str, Summary] = {}
    damaged = []
    for number, line in enumerate(lines, start=1):
        try:
            key, summary = _entry(json.loads(line))
            known[key] = summary
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            damaged.append(number)
    return known, damaged


def _entry(said: Any) -> tuple[str, Summary]:
    """Key and summary. ValueError, TypeError, KeyError or OverflowError for a line that was changed, or never
    one of these."""
    if not isinstance(said, dict):
        raise TypeError("no object")
    if set(said) != _FIELDS and (set(said) != _FIELDS | {"note", "sum"} or said.pop("sum") != _sum(said)):
        raise ValueError("other fields, or another checksum")
    usage = Usage(**said["usage"])
    counts = [getattr(usage, f.name) for f in fields(Usage) if f.name != "cost"]
    if not all(type(n) is int and 0 <= n <= _MOST_COUNT for n in counts):
        raise ValueError("no counts")
    if type(usage.cost) not in (int, float) or not (math.isfinite(usage.cost) and usage.cost >= 0):
        raise ValueError("no cost")
    note = said.get("note", "")
    if not all(isinstance(text, str) for text in (said["key"], said["text"], note)) or not isinstance(
        said["truncated"], bool
    ):
        raise TypeError("no text")
    said["text"].encode()  # UnicodeEncodeError, a ValueError: half a character
    return said["key"], Summary(id="", text=said["text"], truncated=said["truncated"], note=note, usage=usage)


def _sum(said: Mapping[str, Any]) -> str:
    return digest(json.dumps(said, sort_keys=True))[:16]
