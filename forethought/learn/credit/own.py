"""A credit row of one's own, named in the recipe as "file.py:function" or "module:function"."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from forethought.core.errors import CodeFault, RecipeError, UserError
from forethought.core.named import find
from forethought.core.places import described, raised_at, said_of, source_of
from forethought.core.types import Advantages, Tree
from forethought.core.watchdog import TimeUp, Watchdog
from forethought.recipe.schema import CreditSpec


def own_row(
    name: str, seconds: float = 0.0, watchdog: Watchdog | None = None
) -> Callable[[Sequence[Tree], CreditSpec, dict], list[Advantages]]:
    """`function(trees, spec, state)` returns for each tree a table: node id -> one number for all of its
    tokens, or one per token. Nodes that it leaves out have advantage 0. CodeFault names tree and node of a
    malformed value, and the line of the function or of an exception, and says so where there is no end after
    `seconds` (0: no limit). `watchdog`: ends one that swallows being told to end, where it can."""
    function = own_function(name, "credit.name", ())

    def row(trees: Sequence[Tree], spec: CreditSpec, state: dict[str, Any]) -> list[Advantages]:
        try:
            found = (watchdog or Watchdog()).call(seconds, function, (trees, spec, state), {})
        except TimeUp as late:
            at = raised_at(late.__traceback__, None)
            raise CodeFault(
                "credit",
                f"{name} has no end after {seconds:g} s, limits.episode_seconds{f' ({at})' if at else ''}",
            ) from None
        except (Exception, SystemExit) as error:
            raise CodeFault("credit", said_of(name, error)) from error
        try:
            if not isinstance(found, Sequence) or len(found) != len(trees):
                n = f"{len(found)} entries" if isinstance(found, Sequence) else f"{found!r:.60}"
                raise UserError(f"{name} must give one table for each of {len(trees)} trees, gave {n}")
            _saved(name, state)
            return [_read(name, tree, table) for tree, table in zip(trees, found, strict=True)]
        except UserError as error:
            _, line = source_of(function)
            raise CodeFault("credit", f"{error}{f' ({line})' if line else ''}") from None

    return row


def own_function(name: str, where: str, shipped: Iterable[str], *, again: bool = False) -> Callable[..., Any]:
    """The function that `name` means. RecipeError for a name that nobody knows, and for what is no function
    of (trees, spec, state). `again`: read it anew."""
    function = find("credits", name, {}, where, "credit", again=again, more=shipped)
    if not callable(function):
        raise RecipeError(where, f"{name} is no function, but {described(function)}")
    try:
        inspect.signature(function).bind((), None, {})
    except TypeError:
        raise RecipeError(
            where, f"{name} takes (trees, spec, state), found {inspect.signature(function)}"
        ) from None
    except ValueError:
        pass  # one of C, which does not say
    return function


def _saved(name: str, state: dict[str, Any]) -> None:
    """UserError for a state that a checkpoint would not give back as it is: said at once, not on a resume."""
    try:
        same = json.loads(json.dumps(state, allow_nan=False)) == state
        error = (
            "a checkpoint would give it back otherwise (a tuple as a list, a number that is a key as text)"
        )
    except (TypeError, ValueError) as wrong:
        same, error = False, str(wrong)
    if not same:
        raise UserError(
            f"{name}: keep in its state what JSON has (text, finite numbers, lists, tables): {error}"
        )


def _read(name: str, tree: Tree, table: Any) -> Advantages:
    nodes = {n.id: n for n in tree.nodes if n.policy is not None}
    if not isinstance(table, Mapping):
        raise UserError(f"{name} must give a table of node ids for tree {tree.task.id}, gave {table!r:.60}")
    advantages = {i: (0.0,) * len(n.token_ids) for i, n in nodes.items()}
    for i, said in table.items():
        where = f"{name}, tree {tree.task.id}, node {i!r}"
        if i not in nodes:
            raise UserError(f"{where}: no policy wrote such a node")
        wanted = len(nodes[i].token_ids)
        row = tuple(said) if isinstance(said, (list, tuple)) else (said,) * wanted
        if len(row) != wanted:
            raise UserError(f"{where}: {len(row)} advantages for {wanted} tokens")
        if wrong := [a for a in row if not _number(a)]:
            raise UserError(f"{where}: an advantage must be a finite number, found {wrong[0]!r:.60}")
        advantages[i] = tuple(float(a) for a in row)
    return advantages


def _number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # of a whole number
        return False
