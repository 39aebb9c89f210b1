"""What recipes of earlier versions said, in today's words: in files, in the recipe.json of old runs and on
the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forethought.core.errors import RecipeError

STAGE = ("clip_low", "clip_high")  # keys of a stage that are options of its loss now
CLIP = 0.2  # the default of both
OLD: dict[str, dict[str, tuple[tuple[str, ...], Any]]] = {
    "tree": {
        "plans": (("plan",), 4),
        "acts": (("act",), 1),
        "plan_tokens": (("tokens", "plan"), 0),
        "act_tokens": (("tokens", "act"), 0),
    },
    "credit": {"plan_weight": (("weight", "plan"), 1.0), "act_weight": (("weight", "act"), 1.0)},
}
"""Table of a stage -> old key -> (where it stands now, the value that it had where it was not written)."""
ORACLE = {True: ["plan"], False: []}  # tree.oracle_plan -> tree.oracle
MASK = {"plan": "preparing"}  # credit.mask -> credit.mask


def setting(address: str, raw: str) -> tuple[str, str]:
    """An override in today's spelling."""
    *above, last = address.split(".")
    if above[-1:] == ["tree"] and last == "oracle_plan" and raw in ("true", "false"):
        return ".".join([*above, "oracle"]), str(ORACLE[raw == "true"]).replace("'", '"')
    if above[-1:] == ["credit"] and last == "mask":
        return address, MASK.get(raw.strip("\"'"), raw)
    now = OLD.get(above[-1], {}).get(last) if above[:1] == ["stage"] else None
    return (".".join([*above, *now[0]]), raw) if now else (address, raw)


def stage_of(stage: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The tables of a stage in today's words. RecipeError where one is given in both."""
    tables = {
        name: _table(stage[name], old, f"{where}.{name}")
        for name, old in OLD.items()
        if isinstance(stage.get(name), Mapping)
    }
    return _loss({**stage, **tables}, where)


def _loss(stage: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The tables of a stage with `clip_low` and `clip_high` where they stand today, in `loss`. RecipeError
    where one is given in both places."""
    old = {key: stage[key] for key in STAGE if key in stage}
    loss = stage.get("loss", {})
    loss = {"name": loss} if isinstance(loss, str) else loss
    if not old or not isinstance(loss, Mapping):
        return stage
    for key, value in old.items():
        if key in loss:
            raise RecipeError(f"{where}.{key}", f"is written loss.{key} today, which is given too; keep that")
        # a resolved recipe names its defaults, also in stages that have no ratio to clip
        if value != CLIP or loss.get("name", "") not in ("", "grpo"):
            loss = {**loss, key: value}
    rest = {key: value for key, value in stage.items() if key not in STAGE}
    return {**rest, "loss": loss} if loss else rest


def _table(table: Mapping[str, Any], old: Mapping[str, Any], where: str) -> Any:
    found = {key: value for key, value in table.items() if key not in old}
    if isinstance(found.get("oracle_plan"), bool):
        _move(found, ("oracle",), ORACLE[found.pop("oracle_plan")], [], f"{where}.oracle_plan")
    if isinstance(mask := found.get("mask"), str):
        found["mask"] = MASK.get(mask, mask)
    for key in table.keys() - found.keys() - {"oracle_plan"}:
        path, default = old[key]
        _move(found, path, table[key], default, f"{where}.{key}")
    return found


def _move(table: dict[str, Any], path: Sequence[str], value: Any, default: Any, where: str) -> None:
    """Put `value` at `path`, whose tables are copied; the old default stands nowhere, as today's."""
    *above, last = path
    inside = table
    for key in above:
        if not isinstance(inside.get(key, {}), Mapping):
            return  # of another type: refused by name where types are checked
        inside[key] = inside = dict(inside.get(key, {}))
    if last in inside:
        now = ".".join([*where.split(".")[:-1], *path])
        raise RecipeError(where, f"is the old spelling of {now}, which is given too; take one of them out")
    if value != default or isinstance(value, bool):
        inside[last] = value
