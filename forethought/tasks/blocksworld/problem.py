"""A Blocksworld problem as two maps, what makes two problems the same, and the shortest way to solve one.

Blocks are numbered 0..n-1 in the order in which the text shows them. `below[b]` is the block under b,
`goal[b]` the block that must be under b in the end; `FREE` (-1) means the table in `below` and "anywhere" in
`goal`. Goals are therefore sets of `on` facts, as in PlanBench (arXiv 2206.10498). Actions are counted in
primitives: a move is two (pick or unstack, then put or stack).
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

FREE = -1
Move = tuple[int, int]  # (block, what it is put on: a block or FREE for the table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Names of the blocks in the order of the text (towers one after the other, bottom to top), and the two
    maps (see above)."""

    names: tuple[str, ...]
    below: tuple[int, ...]
    goal: tuple[int, ...]

    def towers(self) -> list[list[str]]:
        """The initial state, each tower from the bottom to the top; a block alone on the table is a tower."""
        return [[self.names[b] for b in chain] for chain in chains(self.below)]

    def goal_towers(self) -> list[list[str]]:
        """The chains of `on` facts that the goal asks for, bottom to top; blocks that it does not name are
        absent."""
        return [[self.names[b] for b in chain] for chain in chains(self.goal) if len(chain) > 1]

    def under(self) -> dict[str, str | None]:
        """Name of each block -> name of the block under it at the start (None: the table)."""
        return {x: None if y == FREE else self.names[y] for x, y in zip(self.names, self.below, strict=True)}

    def wanted(self) -> dict[str, str]:
        """Name of x -> name of y for each fact (on x y) of the goal."""
        return {x: self.names[y] for x, y in zip(self.names, self.goal, strict=True) if y != FREE}


def inverse(under: Sequence[int]) -> list[int]:
    """The block on top of each block (FREE: none)."""
    over = [FREE] * len(under)
    for block, support in enumerate(under):
        if support != FREE:
            over[support] = block
    return over


def chains(under: Sequence[int]) -> list[list[int]]:
    """The towers of a map, bottom to top, in the order of their lowest blocks."""
    over = inverse(under)
    towers = []
    for base in (b for b, support in enumerate(under) if support == FREE):
        tower = [base]
        while over[tower[-1]] != FREE:
            tower.append(over[tower[-1]])
        towers.append(tower)
    return towers


def class_code(below: Sequence[int], goal: Sequence[int]) -> str:
    """The problem up to renaming: two problems have the same code exactly when some renaming of blocks turns
    one into the other.

    Every block has at most one neighbour in each of four directions (below, above, wanted below, wanted
    above), so a walk that takes them in a fixed order numbers a connected part completely once its first
    block is chosen. The least numbering over the part's table blocks (every part has one) is canonical; parts
    are sorted. Cost: n walks of n steps instead of n! renamings.
    """
    links: list[tuple[int, ...]] = list(zip(below, inverse(below), goal, inverse(goal), strict=True))
    parts: list[str] = []
    seen: set[int] = set()
    for first in range(len(links)):
        if first not in seen:
            part = _walk(links, first)
            seen.update(part)
            codes = (_numbered(links, _walk(links, b)) for b in part if below[b] == FREE)
            parts.append(min(codes))
    return " | ".join(sorted(parts))


def _walk(links: list[tuple[int, ...]], first: int) -> dict[int, int]:
    """Block -> number, breadth first from `first`; the insertion order of the dict is the queue."""
    number = {first: 0}
    queue = [first]
    for block in queue:
        for neighbour in links[block]:
            if neighbour != FREE and neighbour not in number:
                number[neighbour] = len(queue)
                queue.append(neighbour)
    return number


def _numbered(links: list[tuple[int, ...]], number: dict[int, int]) -> str:
    return " ".join(f"{number.get(links[b][0], '-')},{number.get(links[b][2], '-')}" for b in number)


def code_hash(code: str) -> str:
    """8 hexadecimal digits of a class code: what the committed list of held-out classes holds, and what
    decides the split."""
    return hashlib.blake2b(code.encode(), digest_size=4).hexdigest()


def class_hash(problem: Problem) -> str:
    """`code_hash` of the problem's class: equal for problems that differ only in the names or the order of
    blocks."""
    return code_hash(class_code(problem.below, problem.goal))


def solve(below: Sequence[int], goal: Sequence[int]) -> list[Move]:
    """The fewest moves that reach the goal; empty when it holds already. The level of a problem is twice
    their number.

    A block is moved to the table or to the block that the goal wants under it: any other move can be replaced
    by one to the table without a longer plan (the table has room, and nothing is covered). Best-first over
    those moves with the number of unsettled blocks as the bound; a move changes the settledness of the moved
    block only, so the bound is consistent and the first goal popped is optimal. Of equally short plans it
    takes the one that stacks as early as it can, in the order of the text.
    """
    wanted_on = inverse(goal)
    start = tuple(below)
    unsettled = len(start) - sum(_settled(start, goal, wanted_on, b) for b in range(len(start)))
    serial = itertools.count()
    heap: list[tuple[int, int, int, tuple[int, ...], int, tuple[Move, ...]]] = [
        (unsettled, 0, 0, start, unsettled, ())
    ]
    closed: set[tuple[int, ...]] = set()
    while heap:
        _, _, _, state, unsettled, moves = heapq.heappop(heap)
        if unsettled == 0:
            return list(moves)
        if state in closed:
            continue
        closed.add(state)
        for block, support in _moves(state, goal):
            after = (*state[:block], support, *state[block + 1 :])
            left = (
                unsettled + _settled(state, goal, wanted_on, block) - _settled(after, goal, wanted_on, block)
            )
            if after not in closed:
                longer = (*moves, (block, support))
                heapq.heappush(heap, (len(longer) + left, -len(longer), next(serial), after, left, longer))
    raise ValueError(f"no plan reaches goal {tuple(goal)} from {start}: the goal is not a set of towers")


def _settled(below: tuple[int, ...], goal: Sequence[int], wanted_on: Sequence[int], block: int) -> bool:
    """Whether the block may stay where it is: its place is wanted or free, and so is every place under it."""
    while True:
        support = below[block]
        if goal[block] not in (FREE, support):
            return False
        if support == FREE:
            return True
        if wanted_on[support] not in (FREE, block):
            return False
        block = support


def _moves(below: tuple[int, ...], goal: Sequence[int]) -> list[Move]:
    """Legal moves to the wanted place (first) and to the table, each in the order of the text."""
    over = inverse(below)
    clear = [b for b in range(len(below)) if over[b] == FREE]
    stacking = [(b, goal[b]) for b in clear if goal[b] not in (FREE, below[b]) and over[goal[b]] == FREE]
    return stacking + [(b, FREE) for b in clear if below[b] != FREE]
