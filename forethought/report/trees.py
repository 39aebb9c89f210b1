"""The sample trees of a run: read, judged for the filters of the page, and capped so that the page stays light."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forethought.errors import UserError
from forethought.report.load import parse_lines

MOST_TREES = 240
MOST_CHARACTERS = 4_000_000  # of JSON


def load_trees(run_dir: Path, notes: list[str], most: int = MOST_TREES, room: int = MOST_CHARACTERS) -> tuple[list[dict[str, Any]], int]:
    """(trees to show, by step and place; how many were left out). Each node gets a `verdict`, each tree its `tags`.

    The cap keeps the first tree of every saved step before the second of any, so that all of training stays visible. `UserError`
    names a malformed file; a file that was cut off in writing is read as far as it goes and noted.
    """
    ranked: list[tuple[int, int, dict[str, Any]]] = []  # (place in its file, number of its file, tree)
    files = sorted(Path(run_dir).glob("trees/step-*.jsonl.gz"))
    for number, path in enumerate(files):
        trees, cut = parse_lines(_gzip_lines(path, cut_off := []), path, _check_tree)
        if cut or cut_off:
            notes.append(f"{path.name} is cut off: its last trees are missing.")
        ranked += [(place, number, tree) for place, tree in enumerate(trees)]
    total = len(ranked)
    ranked.sort(key=lambda item: item[:2])
    first = [item for item in ranked if item[0] == 0]
    if len(first) > most:  # more saved steps than room: spread over the run, both ends included
        ranked = [first[k * (len(first) - 1) // max(most - 1, 1)] for k in range(most)]
    kept: list[tuple[int, int, dict[str, Any]]] = []
    for item in ranked[:most]:
        room -= len(json.dumps(item[2]))
        if room < 0:
            break
        kept.append(item)
    kept.sort(key=lambda item: (item[1], item[0]))
    return [judge(tree) for _, _, tree in kept], total - len(kept)


def judge(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with a `verdict` on each node (right | wrong | act_failed | refused | failed | unjudged | "") and `tags` to filter by.

    A plan is judged by its part `valid` (the exact executor), an act by its part `outcome` (the episode). A plan is `act_failed`
    when it is right and an execution under it went wrong, `refused` when the interface did not accept it, cut off ones included.
    `failed` is the engine's or the environment's failure, which is nobody's mistake and has no tag.
    """
    nodes = [dict(node) for node in tree["nodes"]]
    by_id = {node["id"]: node for node in nodes}
    parents = {node.get("parent") for node in nodes}
    for node in nodes:
        node["verdict"] = _verdict(node, node["id"] not in parents)
    tags = {"refused" for node in nodes if node["verdict"] == "refused"}
    tags |= {"plan_wrong" for node in nodes if node.get("role") == "plan" and node["verdict"] == "wrong"}
    for node in nodes:
        if node.get("role") == "act" and node["verdict"] in ("wrong", "refused"):
            plan = _plan_above(node, by_id)
            if plan is not None and plan["verdict"] in ("right", "act_failed"):
                plan["verdict"] = "act_failed"
                tags.add("act_failed")
    return tree | {"nodes": nodes, "tags": sorted(tags)}


def _verdict(node: dict[str, Any], leaf: bool) -> str:
    role, parts = node.get("role"), node.get("reward_parts") or {}
    if role is None:
        return ""
    if node.get("status") in ("refused", "failed"):
        return node["status"]
    if role == "plan" and not parts and node.get("status") == "given":
        return "right"  # the oracle's
    if role == "plan" and parts.get("format") == 0:
        return "refused"
    score = parts.get("valid" if role == "plan" else "outcome")
    if score is None:
        return "unjudged" if leaf or role == "plan" else ""  # a turn in the middle of an episode is not judged by itself
    return "right" if score >= 1 else "wrong"


def _plan_above(node: dict[str, Any], by_id: dict[Any, dict[str, Any]]) -> dict[str, Any] | None:
    above = by_id.get(node.get("parent"))
    while above is not None and above.get("role") != "plan":
        above = by_id.get(above.get("parent"))
    return above


def _gzip_lines(path: Path, cut_off: list[bool]) -> Iterator[bytes]:
    """The lines of a gzip file; appends to `cut_off` where the file ends too early."""
    try:
        with gzip.open(path, "rb") as file:
            yield from file
    except EOFError:
        cut_off.append(True)
    except (OSError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error


def _check_tree(row: dict[str, Any]) -> str:
    if not isinstance(row.get("step"), int):
        return f"'step' must be a whole number, not {row.get('step')!r}"
    nodes = row.get("nodes")
    if not isinstance(nodes, list) or not all(isinstance(node, dict) and "id" in node for node in nodes):
        return "'nodes' must be a list of objects with an id"
    seen: set[Any] = {None}
    for node in nodes:
        if node.get("parent") not in seen:
            return f"node {node['id']!r} comes before its parent {node.get('parent')!r}"
        seen.add(node["id"])
    return ""
