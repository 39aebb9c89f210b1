"""The tree files of a run directory, trees/step-N.jsonl.gz: one file a saved step, one line per tree
(`Store.save_trees` writes them)."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from forethought.core.errors import UserError
from forethought.core.jsonl import number, parse_lines
from forethought.core.printable import cut
from forethought.store import IMAGE


def saved_steps(run_dir: Path) -> dict[int, Path]:
    """Step -> its file, in the order of the steps."""
    found = [
        (re.fullmatch(r"step-(\d{1,18})\.jsonl\.gz", path.name), path)
        for path in (Path(run_dir) / "trees").glob("step-*.jsonl.gz")
    ]
    return dict(sorted((int(match.group(1)), path) for match, path in found if match))


def read_trees(path: Path, notes: list[str], wanted: Container[int] | None = None) -> list[dict[str, Any]]:
    """The trees of one file, in its order; with `wanted`, those at these places alone (from 0), and nothing
    else is decoded.

    A file that was cut off in writing is read as far as it goes, and `notes` gets a sentence. `UserError`
    names a malformed file.
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
    """What a line has that no run writes, or "". On the way numbers that JSON does not have become numbers
    again."""
    if not _count(row.get("step")):
        return f"'step' must be a whole number, not {cut(repr(row.get('step')))}"
    if wrong := _mistyped(row, OF_TREE):
        return wrong
    nodes = row.get("nodes")
    if not isinstance(nodes, list) or not all(
        isinstance(node, dict) and _count(node.get("id")) for node in nodes
    ):
        return "'nodes' must be a list of objects with an id"
    seen: set[int] = set()
    for node in nodes:
        if wrong := _wrong_node(node, seen):
            return wrong
        seen.add(node["id"])
    return ""


def _wrong_node(node: dict[str, Any], seen: Container[int]) -> str:
    """Parents come first and ids are not used again, so whoever goes from a node to its parent comes to an
    end."""
    name, parent = f"node {node['id']}", node.get("parent")
    if node["id"] in seen:
        return f"{name} is there twice"
    if parent is not None and not (_count(parent) and parent in seen):
        return f"{name} comes before its parent {cut(repr(parent))}"
    if wrong := _mistyped(node, OF_NODE):
        return f"{name}: {wrong}"
    branch = node.get("branch")
    if branch is not None and branch != node["id"] and branch not in seen:
        return f"{name} lies on branch {branch}, which comes after it"
    parts = node.get("reward_parts", {})
    if not isinstance(parts, dict):
        return f"'reward_parts' of {name} must be an object"
    for key in parts:
        parts[key] = number(parts[key])
        if not _number(parts[key]):
            return f"'reward_parts' of {name}: {key[:40]!r} must be a number, not {cut(repr(parts[key]))}"
    return ""


def _mistyped(said: dict[str, Any], kinds: Mapping[str, str]) -> str:
    for key, kind in kinds.items():
        if key not in said or said[key] is None and key in MAY_LACK:
            continue
        if kind == "a number":
            said[key] = number(said[key])
        if not FITS[kind](said[key]):
            return f"{key!r} must be {kind}, not {cut(repr(said[key]))}"
    return ""


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _number(value: Any) -> bool:
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    )


FITS: Mapping[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "true or false": lambda value: isinstance(value, bool),
    "a whole number": _count,
    "a number": _number,
    "a list of names of images": lambda value: (
        isinstance(value, list) and all(isinstance(name, str) and IMAGE.fullmatch(name) for name in value)
    ),
}
# null where there is none
MAY_LACK = ("level", "context", "oracle_plan", "branch", "role", "policy", "reward", "advantage", "logprob")
OF_TREE = {
    **dict.fromkeys(("task", "domain", "context", "prompt", "oracle_plan"), "text"),
    "stage": "a whole number",
    "level": "a number",
    "free_text": "true or false",
}
OF_NODE = {
    **dict.fromkeys(("role", "text", "status", "reason", "policy"), "text"),
    **dict.fromkeys(("branch", "version", "tokens"), "a whole number"),
    **dict.fromkeys(("reward", "advantage", "logprob"), "a number"),
    "images": "a list of names of images",
}
