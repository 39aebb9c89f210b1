"""The tree files of a run directory, trees/step-N.jsonl.gz: one file a saved step, one line a tree (`Store.save_trees` writes them)."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from forethought.errors import UserError
from forethought.jsonl import parse_lines


def saved_steps(run_dir: Path) -> dict[int, Path]:
    """Step -> its file, in the order of the steps."""
    found = [(re.fullmatch(r"step-(\d+)\.jsonl\.gz", path.name), path) for path in (Path(run_dir) / "trees").glob("step-*.jsonl.gz")]
    return dict(sorted((int(match.group(1)), path) for match, path in found if match))


def read_trees(path: Path, notes: list[str], wanted: Container[int] | None = None) -> list[dict[str, Any]]:
    """The trees of one file, in its order; with `wanted`, those at these places alone (from 0), and nothing else is decoded.

    A file that was cut off in writing is read as far as it goes, and `notes` gets a sentence. `UserError` names a malformed file.
    """
    cut_off: list[bool] = []
    lines = _lines(path, cut_off)
    if wanted is not None:
        written = (line for line in lines if line.strip())
        lines = (line for place, line in enumerate(written) if place in wanted)
    trees, cut = parse_lines(lines, path, _wrong)
    if cut or cut_off:
        notes.append(f"{path.name} is cut off: its last trees are missing.")
    return trees


def _lines(path: Path, cut_off: list[bool]) -> Iterator[bytes]:
    """The lines of a gzip file; appends to `cut_off` where the file ends too early."""
    try:
        with gzip.open(path, "rb") as file:
            yield from file
    except EOFError:
        cut_off.append(True)
    except (OSError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _wrong(row: dict[str, Any]) -> str:
    if not isinstance(row.get("step"), int):
        return f"'step' must be a whole number, not {row.get('step')!r}"
    nodes = row.get("nodes")
    if not isinstance(nodes, list) or not all(isinstance(node, dict) and isinstance(node.get("id"), int) for node in nodes):
        return "'nodes' must be a list of objects with an id"
    seen: set[Any] = {None}
    for node in nodes:
        if node.get("parent") not in seen:
            return f"node {node['id']!r} comes before its parent {node.get('parent')!r}"
        if not isinstance(node.get("reward_parts", {}), dict):
            return f"'reward_parts' of node {node['id']!r} must be an object"
        seen.add(node["id"])
    return ""
