"""Blocksworld in other words: as sentences of English, with the rules told before them, and the same with
every predicate and action renamed, so that nothing but the rules says what they do (the "mystery" twin of
PlanBench, arXiv 2206.10498; the published names, our sentences).

    towers    <init> ; a b ; g c <goal> ; b a      the family's own notation
    language  As it is now: block a is on the table, ...
    mystery   As it is now: planet a, b craves a, ...

Plans and acts keep their grammars. In `mystery` their verbs are renamed too: `heard` gives a text in the
family's words, `said` takes it back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from forethought.tasks.blocksworld import words
from forethought.tasks.blocksworld.problem import Problem

TOWERS = (
    "Blocks stand on a table in towers. A tower is written after a semicolon, from the block on the table up "
    "to the top one. <goal> names chains of blocks, each of which must stand on the one before it. "
)
PLAIN = (
    "There are blocks on a table, and a hand that holds one block at a time. These actions exist. pick x : "
    "takes x from the table; the hand must be empty, x on the table, and nothing on x. put x : sets x , "
    "which the hand holds, on the table. unstack x y : takes x from y; the hand must be empty, x on y, and "
    "nothing on x. stack x y : sets x , which the hand holds, on y; nothing may stand on y. "
)
RENAMED = (
    "There are objects, and these actions exist. attack x : needs province x, planet x and harmony; then "
    "pain x, and no longer province x, planet x or harmony. succumb x : needs pain x; then province x, "
    "planet x and harmony, and no longer pain x. feast x y : needs province x, x craves y and harmony; then "
    "pain x and province y, and no longer province x, x craves y or harmony. overcome x y : needs pain x and "
    "province y; then x craves y, province x and harmony, and no longer pain x or province y. "
)
ACTING = (
    "First write the plan: a list of subgoals, each {clear} y (all that is above y goes to the table) or "
    "{on} x y (x goes on y). End it with </plan>. Then write the actions that carry it out, one after the "
    "other, and end with </act>."
)
RENAMED_ACTING = (
    "First write the plan: a list of subgoals, each {clear} y (all that craves y, and all above that, "
    "becomes planet) or {on} x y (x comes to crave y). End it with </plan>. Then write the actions that "
    "carry it out, one after the other, and end with </act>."
)
MYSTERY = {
    "pick": "attack",
    "put": "succumb",
    "unstack": "feast",
    "stack": "overcome",
    "clear": "province",
    "on": "craves",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """`facts`: templates of a block on the table, of one on another, of one with nothing on it, and of the
    empty hand; none: the family's notation. `verbs`: the family's verb -> the one that is written."""

    told: str
    facts: tuple[str, str, str, str] = ("", "", "", "")
    verbs: Mapping[str, str] = field(default_factory=dict)

    def context(self, problem: Problem) -> str:
        """What stands at the beginning."""
        table, on, clear, empty = self.facts
        if not on:
            return words.context_text(problem)
        under = problem.under()
        covered = set(under.values())
        placed = [table.format(x=x) if y is None else on.format(x=x, y=y) for x, y in under.items()]
        free = [clear.format(x=x) for x in under if x not in covered]
        return f"As it is now: {', '.join([*placed, *free, empty])}."

    def prompt(self, goal_towers: Iterable[Iterable[str]]) -> str:
        """What is wanted, in the order of the towers."""
        _, on, _, _ = self.facts
        if not on:
            return words.prompt_text(goal_towers)
        pairs = [(x, y) for tower in map(list, goal_towers) for y, x in zip(tower, tower[1:], strict=False)]
        return f"What is wanted: {', '.join(on.format(x=x, y=y) for x, y in pairs)}."

    def said(self, text: str) -> str:
        """A text in the family's words, as it is written here."""
        return " ".join(self.verbs.get(word, word) for word in text.split()) if self.verbs else text

    def heard(self, text: str) -> str:
        """A text as it is written here in the family's words; the family's own verbs are none of these."""
        if not self.verbs:
            return text
        own = {
            **{verb: f"({verb})" for verb in self.verbs},
            **{new: verb for verb, new in self.verbs.items()},
        }
        return " ".join(own.get(word, word) for word in text.split())

    def told_of(self, reason: str) -> str:
        """What is said of a text that was heard, with the words in its quotation marks as they are written
        here."""
        if not self.verbs:
            return reason
        written = {f"({verb})": verb for verb in self.verbs} | dict(self.verbs)

        def quoted(found: re.Match[str]) -> str:
            return f"'{' '.join(written.get(word, word) for word in found[1].split(' '))}'"

        return re.sub("'([^']*)'", quoted, reason)

    def vocabulary(self) -> list[str]:
        """Every word that it adds to the family's."""
        if not self.facts[1]:
            return []
        fixed = ["As", "it", "is", "now:", "What", "wanted:", *self.verbs.values()]
        said = [fact.format(x=x, y=x).split() for fact in self.facts for x in words.LETTERS]
        ends = [f"{fact[-1]}{mark}" for fact in said for mark in ",."]
        return list(dict.fromkeys([*fixed, *(word for fact in said for word in fact), *ends]))


WORDINGS = {
    "towers": Wording(told=TOWERS + PLAIN + ACTING.format(clear="clear", on="on")),
    "language": Wording(
        told=PLAIN + ACTING.format(clear="clear", on="on"),
        facts=(
            "block {x} is on the table",
            "block {x} is on block {y}",
            "nothing is on block {x}",
            "the hand is empty",
        ),
    ),
    "mystery": Wording(
        told=RENAMED + RENAMED_ACTING.format(clear="province", on="craves"),
        facts=("planet {x}", "{x} craves {y}", "province {x}", "harmony"),
        verbs=MYSTERY,
    ),
}
