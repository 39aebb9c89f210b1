"""Tic-tac-toe against a player who draws at random: the best move by expectation."""

from __future__ import annotations

from functools import cache

from forethought.interface.gui import Step
from forethought.tasks.web.oracles.view import View, table

LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))
DRAW = -0.5  # a draw fails the task as a loss does, and a loss came earlier
Board = tuple[str, ...]


def _won(board: Board, who: str) -> bool:
    return any(all(board[i] == who for i in line) for line in LINES)


@cache
def _worth(board: Board, turn: str) -> float:
    """To x, when `turn` moves: x moves best; o is lucky or clever, half of each."""
    if _won(board, "x"):
        return 1.0
    if _won(board, "o"):
        return -1.0
    free = [i for i in range(9) if not board[i]]
    if not free:
        return DRAW
    other = "o" if turn == "x" else "x"
    found = [_worth((*board[:i], turn, *board[i + 1 :]), other) for i in free]
    return max(found) if turn == "x" else 0.55 * sum(found) / len(found) + 0.45 * min(found)


def play(view: View) -> list[Step]:
    """One move."""
    cells = {int(x.name): x for x in view.all("cell") if x.name.isdigit()}
    board = tuple(next(iter(cells[i].state), "") for i in range(9))
    free = [i for i in range(9) if not board[i]]
    if len(free) > 7:
        best = 4 if 4 in free else 0  # the centre, or a corner
    else:
        best = max(free, key=lambda i: _worth((*board[:i], "x", *board[i + 1 :]), "o"))
    return [view.click(cells[best])]


ORACLES = table(("tic-tac-toe", play))
