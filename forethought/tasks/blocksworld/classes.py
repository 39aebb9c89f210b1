"""All Blocksworld problems of 3 to 6 blocks up to renaming: counted, levelled, split, and drawn from.

The splits are made of classes, not of texts: a random generator without this filter trains on most of
PlanBench, whose 501 problems are 240 classes, 185 of the 210 classes of 4 blocks among them. Held-out classes
are in neither split.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from forethought.tasks.base import Split
from forethought.tasks.blocksworld.problem import FREE, Problem, class_code, code_hash, solve
from forethought.tasks.blocksworld.words import LETTERS

BLOCKS = (3, 4, 5, 6)
EVAL_ONE_IN = 5  # classes: enough for an evaluation at the scarce lowest and highest levels

Heights = tuple[int, ...]  # of the towers of an initial state, falling
Goal = tuple[int, ...]
Pool = dict[Heights, dict[int, list[Goal]]]  # initial state -> level -> goals


def top_level(blocks: int) -> int:
    """The longest optimal plan over this many blocks, in primitives: all but one block are moved twice."""
    return 4 * (blocks - 1)


def split_of(class_hash: str) -> Split:
    """The split of a class that nothing holds out."""
    return "eval" if int(class_hash, 16) % EVAL_ONE_IN == 0 else "train"


@lru_cache(maxsize=len(BLOCKS))
def classes(blocks: int) -> tuple[tuple[Heights, Goal, int, str], ...]:
    """(initial tower heights, goal, level, class hash) of every class whose goal does not hold at the start.

    22 classes of 3 blocks, 210 of 4, 2,069 of 5, 22,856 of 6. Cost: 0.2 s for 5 blocks, 2 s for 6, once per
    process.
    """
    goals = list(_chain_sets(blocks))
    found: dict[str, tuple[Heights, Goal, int, str]] = {}
    for heights in _partitions(blocks, blocks):
        below = below_of(heights)
        for goal in goals:
            # else it holds at the start
            if any(y not in (FREE, x) for x, y in zip(below, goal, strict=True)):
                code = class_code(below, goal)
                if code not in found:
                    found[code] = (heights, goal, 2 * len(solve(below, goal)), code_hash(code))
    return tuple(found.values())


def below_of(heights: Heights) -> tuple[int, ...]:
    """Towers of these heights, numbered one after the other from the bottom to the top."""
    below: list[int] = []
    for height in heights:
        below += [FREE, *range(len(below), len(below) + height - 1)]
    return tuple(below)


def pool(blocks: int, split: Split, held_out: frozenset[str]) -> Pool:
    """The classes of one split, ordered for drawing."""
    found: Pool = defaultdict(lambda: defaultdict(list))
    for heights, goal, level, class_hash in classes(blocks):
        if class_hash not in held_out and split_of(class_hash) == split:
            found[heights][level].append(goal)
    return found


def draw(rng: random.Random, pools: Sequence[Pool], levels: Sequence[int]) -> list[Problem]:
    """One problem per level, all on one initial state with random letters and a random order of towers; []
    when no initial state has all the levels. Goals differ where some initial state has enough of them; else
    they repeat.

    A number of blocks is drawn with the square root of its number of classes, so that the few classes of 4
    blocks are neither drowned by those of 5 nor learnt by heart; then an initial state with its number of
    classes.
    """
    times = Counter(levels)
    sizes = _sizes(pools, times) or _sizes(pools, dict.fromkeys(times, 1))
    if not sizes:
        return []
    chosen = rng.choices(list(sizes), [sum(size.values()) ** 0.5 for size in sizes.values()])[0]
    heights = rng.choices(list(sizes[chosen]), list(sizes[chosen].values()))[0]
    goals: dict[int, list[Goal]] = {}
    for level, number in times.items():
        cell = pools[chosen][heights][level]
        goals[level] = rng.sample(cell, number) if number <= len(cell) else rng.choices(cell, k=number)
    return _instances(rng, heights, [goals[level].pop() for level in levels])


def _sizes(pools: Sequence[Pool], times: Mapping[int, int]) -> dict[int, dict[Heights, int]]:
    """Index of a pool -> initial state -> how many disjoint draws of `times` it has, by its scarcest level;
    nothing for none."""
    sizes = {}
    for index, cells in enumerate(pools):
        counts = {
            heights: min(len(by.get(level, ())) // n for level, n in times.items())
            for heights, by in cells.items()
        }
        if any(counts.values()):
            sizes[index] = {heights: count for heights, count in counts.items() if count}
    return sizes


def _instances(rng: random.Random, heights: Heights, goals: Sequence[Goal]) -> list[Problem]:
    """The goals on one initial state: towers in a random order, blocks named by random letters."""
    bases = [sum(heights[:i]) for i in range(len(heights))]
    towers = [list(range(base, base + height)) for base, height in zip(bases, heights, strict=True)]
    rng.shuffle(towers)
    order = [block for tower in towers for block in tower]  # position in the text -> number in the class
    place = {block: at for at, block in enumerate(order)} | {FREE: FREE}
    names = tuple(rng.sample(LETTERS, len(order)))
    below = below_of(tuple(len(tower) for tower in towers))
    return [
        Problem(names=names, below=below, goal=tuple(place[goal[block]] for block in order)) for goal in goals
    ]


def _partitions(total: int, largest: int) -> Iterator[Heights]:
    if total == 0:
        yield ()
    for first in range(min(total, largest), 0, -1):
        for rest in _partitions(total - first, first):
            yield (first, *rest)


def _chain_sets(blocks: int, start: Goal = ()) -> Iterator[Goal]:
    """Every set of chains over the blocks (13 of 3 blocks, 73 of 4, 501 of 5, 4,051 of 6), `start` being its
    first entries."""
    block = len(start)
    if block == blocks:
        yield start
        return
    yield from _chain_sets(blocks, (*start, FREE))
    for support in range(blocks):
        foot = support
        while foot not in (FREE, block) and foot < block:
            foot = start[foot]
        if support not in start and foot != block:
            yield from _chain_sets(blocks, (*start, support))
