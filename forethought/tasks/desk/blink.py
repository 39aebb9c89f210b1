"""What comes before a plan on the desk: a look at the widgets that matter, as in Blink-Think-Link (arXiv
2509.15566).

    blink   c s e </blink>                        the widgets of a way to the goal, in any order; the oracle's
            look begins at the goal and follows the parents
    think   e s c </think>                        the path in the order in which it is opened (plans = "path")
    link    e x8 y9 s x5 y7 c x3 y4 v3 </link>    the clicks, with coordinates

The tags of plan and act are those of think and link: task = { name = "desk", plans = "path", tags = { plan =
"think", act = "link" } }."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from forethought.interface.grammar import Fixed, Grammar, Repeat, Sequence, Word
from forethought.interface.result import Parsed, Refusal

LOOK = "blink"


class Looks:
    """The names of the widgets and the closing tag of a look, at most `most`."""

    def __init__(self, names: tuple[str, ...], most: int):
        self.end = f"</{LOOK}>"
        self.grammar = Grammar(Sequence((Repeat(Word(names, "a widget's name"), 1, most), Fixed(self.end))))

    def parse(self, text: str) -> Parsed | Refusal:
        """Parsed(names), or a Refusal with a position in words."""
        return self.grammar.parse(text)

    def render(self, path: tuple[str, ...]) -> str:
        """The look that names the widgets of `path`."""
        return self.grammar.render(path)


def mistake(parents: Mapping[str, tuple[str, ...]], root: str, goal: str, seen: Collection[str]) -> str:
    """Why these widgets are not those of one way from `goal` up to `root`, or ""."""
    if len(set(seen)) < len(seen):
        return "a widget is named twice"
    if goal not in seen:
        return f"the goal {goal} is not among them"

    def climbs(name: str, left: frozenset[str]) -> bool:
        above = parents.get(name, ())
        return (not left and root in above) or any(climbs(p, left - {p}) for p in above if p in left)

    return "" if climbs(goal, frozenset(seen) - {goal}) else f"they are no way from {goal} up to the {root}"
