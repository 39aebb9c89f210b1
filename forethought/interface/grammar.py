"""Grammars over words separated by spaces, as plain data, with a strict parser and a renderer.

    BLOCK = Word(("a", "b", "c"), "a block")
    PLAN = Grammar(Sequence((Repeat(Word(("clear", "lift")), 1, 3), BLOCK, Fixed("</plan>"))))
    PLAN.parse("clear b </plan>")        Parsed((("clear",), "b"))
    PLAN.parse("clear d </plan>")        Refusal: word 2: found 'd', expected 'clear', 'lift' or a block
    PLAN.render((("clear",), "b"))       "clear b </plan>"

A grammar must be LL(1): the next word alone says which rule goes on. That is checked when it is made, and it
gives three things: one pass over the text without going back; at most one way to read a text, so that
parse(render(value)) == Parsed(value); and the first word that does not fit is the furthest position up to
which the text could have been a sentence. Rules cannot be recursive: they are finite data, and no text can
make the parser nest deeper than the grammar is.

Values: a `Word` is its word; a `Fixed` word says nothing and has no value; a `Repeat` is a tuple; a
`Sequence` is the tuple of its parts that have a value, or that value itself where only one has; a `Choice` is
the value of the option that was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

from forethought.interface.result import END, Parsed, Refusal, Refused, alternatives, quoted_text

_LAST = ""  # stands for the end of the text among words, none of which is empty


def _stored(default: Any = None) -> Any:
    """A field that a rule computes when it is constructed; it is neither an argument nor part of equality."""
    return field(init=False, repr=False, compare=False, default=default)


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a set. `name` is how a refusal calls the set ("a block"); without a name it lists the
    words."""

    words: tuple[str, ...]
    name: str = ""
    first: frozenset[str] = _stored()
    nullable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        wrong = [w for w in self.words if not isinstance(w, str) or w.split() != [w]]
        if wrong or not self.words or isinstance(self.words, str):
            raise ValueError(f"a word of a grammar is a text without spaces, found {wrong or self.words!r}")
        object.__setattr__(self, "first", frozenset(self.words))

    def expected(self) -> list[str]:
        """Its name, or its words in quotes, for a refusal."""
        return [self.name] if self.name else [repr(word) for word in self.words]

    def check(self, follow: frozenset[str]) -> None:
        """Nothing can be ambiguous: one word is always read."""

    def read(self, cursor: _Cursor) -> str:
        """The next word if it is one of `words`; else the cursor refuses."""
        word = cursor.word
        if word not in self.first:
            cursor.refuse(self.expected())
        cursor.advance()
        return word

    def write(self, value: Any) -> list[str]:
        """The word itself. ValueError for a value that is none of `words`."""
        if not isinstance(value, str) or value not in self.first:
            raise ValueError(f"{value!r} is not {alternatives(self.expected())}")
        return [value]


@dataclass(frozen=True, slots=True)
class Fixed:
    """A word that must come here and has no value: punctuation, a stop word."""

    word: str
    rule: Word = _stored()
    first: frozenset[str] = _stored()
    nullable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rule", Word((self.word,)))
        object.__setattr__(self, "first", self.rule.first)

    def expected(self) -> list[str]:
        """The word in quotes, for a refusal."""
        return [repr(self.word)]

    def check(self, follow: frozenset[str]) -> None:
        """Nothing can be ambiguous: one word is always read."""

    def read(self, cursor: _Cursor) -> tuple[()]:
        """Reads past the word; its value is (), which a sequence leaves out."""
        self.rule.read(cursor)
        return ()

    def write(self, value: Any) -> list[str]:
        """The word. ValueError for a value other than ()."""
        if value != ():
            raise ValueError(f"{value!r} is not (): the fixed word {self.word!r} has no value")
        return [self.word]


@dataclass(frozen=True, slots=True)
class Sequence:
    """Its items, one after the other. `distinct`: no two of its values are the same."""

    items: tuple[Rule, ...]
    distinct: bool = False
    first: frozenset[str] = _stored()
    nullable: bool = _stored()

    def __post_init__(self) -> None:
        _need_rules(self.items, "sequence")
        first: frozenset[str] = frozenset()
        for item in self.items:
            first |= item.first
            if not item.nullable:
                break
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "nullable", all(item.nullable for item in self.items))

    def expected(self) -> list[str]:
        """What may come first: names up to the first item that cannot be empty."""
        names: list[str] = []
        for item in self.items:
            names += item.expected()
            if not item.nullable:
                break
        return names

    def check(self, follow: frozenset[str]) -> None:
        """ValueError where an item and what follows it begin with the same word."""
        for item in reversed(self.items):
            item.check(follow)
            follow = item.first | follow if item.nullable else item.first

    def read(self, cursor: _Cursor) -> Any:
        """The items' values as a tuple; a single value stands alone. Refuses a repeated value if
        `distinct`."""
        values: list[Any] = []
        for item in self.items:
            start = cursor.at
            value = item.read(cursor)
            if not isinstance(item, Fixed):
                if self.distinct and value in values:
                    cursor.refuse_again(start)
                values.append(value)
        return values[0] if len(values) == 1 else tuple(values)

    def write(self, value: Any) -> list[str]:
        """Words of all items. ValueError for a value of the wrong shape, or a repeated one if `distinct`."""
        told = [item for item in self.items if not isinstance(item, Fixed)]
        values = (value,) if len(told) == 1 else value
        if not isinstance(values, tuple) or len(values) != len(told):
            raise ValueError(f"{value!r} is not a tuple of {len(told)} values")
        left = iter(values)
        return _joined(
            [item.write(() if isinstance(item, Fixed) else next(left)) for item in self.items],
            values,
            self.distinct,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """One of its options: the one that can begin with the next word, else the one that can be empty. Values
    must identify their option if a text is to come back unchanged: begin each option with a `Word` rather
    than a `Fixed`."""

    options: tuple[Rule, ...]
    first: frozenset[str] = _stored()
    nullable: bool = _stored()

    def __post_init__(self) -> None:
        _need_rules(self.options, "choice")
        first: frozenset[str] = frozenset()
        for option in self.options:
            _need_apart(first, option.first, "two options begin")
            first |= option.first
        if sum(option.nullable for option in self.options) > 1:
            raise ValueError("two options of a choice can be empty, so that an empty text has two readings")
        object.__setattr__(self, "first", first)
        object.__setattr__(self, "nullable", any(option.nullable for option in self.options))

    def expected(self) -> list[str]:
        """What any option may begin with."""
        return [name for option in self.options for name in option.expected()]

    def check(self, follow: frozenset[str]) -> None:
        """ValueError where a choice that may be empty begins like what follows it."""
        if self.nullable:
            _need_apart(self.first, follow, "a choice that can be empty begins and what follows it begins")
        for option in self.options:
            option.check(follow)

    def read(self, cursor: _Cursor) -> Any:
        """The option that the next word begins, else the one that may be empty, else a refusal."""
        chosen = next((o for o in self.options if cursor.word in o.first), None) or next(
            (o for o in self.options if o.nullable), None
        )
        if chosen is None:
            cursor.refuse(self.expected())
        if cursor.word not in chosen.first:
            cursor.passed += [
                name for option in self.options if option is not chosen for name in option.expected()
            ]
        return chosen.read(cursor)

    def write(self, value: Any) -> list[str]:
        """Words of the first option that can write `value`. ValueError with every option's reason."""
        reasons = []
        for option in self.options:
            try:
                return option.write(value)
            except ValueError as error:
                reasons.append(str(error))
        raise ValueError("; ".join(reasons))


@dataclass(frozen=True, slots=True)
class Repeat:
    """Its item, `least` to `most` times (None: without end), as long as the next word can begin one. (0, 1)
    makes it optional. `distinct`: each value at most once."""

    item: Rule
    least: int = 0
    most: int | None = None
    distinct: bool = False
    first: frozenset[str] = _stored()
    nullable: bool = _stored()

    def __post_init__(self) -> None:
        _need_rules((self.item,), "repeat")
        if self.item.nullable:
            raise ValueError(
                "what repeats must not be empty: an empty text would hold it any number of times"
            )
        if self.least < 0 or (self.most is not None and self.most < max(self.least, 1)):
            raise ValueError(
                f"a repeat of {self.least} to {self.most} times can never be read; 0 <= least "
                f"<= most, 1 <= most are needed"
            )
        object.__setattr__(self, "first", self.item.first)
        object.__setattr__(self, "nullable", self.least == 0)

    def expected(self) -> list[str]:
        """What one more item may begin with."""
        return self.item.expected()

    def check(self, follow: frozenset[str]) -> None:
        """ValueError where an item begins like what follows the repetition."""
        _need_apart(self.first, follow, "what repeats begins and what follows it begins")
        self.item.check(self.first | follow)

    def read(self, cursor: _Cursor) -> tuple[Any, ...]:
        """`least` to `most` values as a tuple; refuses one too many, and a repeated one if `distinct`."""
        values: list[Any] = []
        seen: set[Any] = set()
        while cursor.word in self.first:
            if len(values) == self.most:
                cursor.refuse_with(
                    f"found {quoted_text(cursor.word)}, one more than the {self.most} that may stand in a row"
                )
            start = cursor.at
            value = self.item.read(cursor)
            if self.distinct and value in seen:
                cursor.refuse_again(start)
            seen.add(value)
            values.append(value)
        if len(values) < self.least:
            cursor.refuse(self.expected())
        if len(values) != self.most:
            cursor.passed += self.expected()
        return tuple(values)

    def write(self, value: Any) -> list[str]:
        """Words of all values. ValueError for a wrong count, or a repeated value if `distinct`."""
        if (
            not isinstance(value, tuple)
            or not self.least <= len(value)
            or (self.most is not None and len(value) > self.most)
        ):
            raise ValueError(
                f"{value!r} is not a tuple of {self.least} to "
                f"{'any number' if self.most is None else self.most} values"
            )
        return _joined([self.item.write(one) for one in value], value, self.distinct)


Rule = Word | Fixed | Sequence | Choice | Repeat


@dataclass(frozen=True, slots=True)
class Grammar:
    """The whole text. The constructor raises ValueError for a rule that the next word does not decide."""

    rule: Rule

    def __post_init__(self) -> None:
        _need_rules((self.rule,), "grammar")
        self.rule.check(frozenset((_LAST,)))

    def parse(self, text: str) -> Parsed | Refusal:
        """The value of a text, or the first word (from 1) that does not fit, with what could have stood
        there."""
        cursor = _Cursor(text)
        try:
            value = self.rule.read(cursor)
            if cursor.word != _LAST:
                cursor.refuse([END])
        except Refused as refused:
            return refused.refusal
        return Parsed(value)

    def render(self, value: Any) -> str:
        """The sentence that expresses this value, words separated by single spaces. ValueError if there is
        none."""
        return " ".join(self.rule.write(value))


class _Cursor:
    """A position in the words of a text; `passed` names what else could have stood here."""

    __slots__ = ("at", "passed", "words")

    def __init__(self, text: str):
        self.words = [*text.split(), _LAST]
        self.at = 0
        self.passed: list[str] = []

    @property
    def word(self) -> str:
        return self.words[self.at]

    def advance(self) -> None:
        self.at += 1
        if self.passed:
            self.passed = []

    def refuse(self, expected: list[str]) -> NoReturn:
        found = END if self.word == _LAST else quoted_text(self.word)
        self.refuse_with(
            f"found {found}, expected {alternatives(list(dict.fromkeys(self.passed + expected)))}"
        )

    def refuse_again(self, start: int) -> NoReturn:
        """What was read from `start` on stood here before, where each value may stand once."""
        again, self.at = " ".join(self.words[start : self.at]), start
        self.refuse_with(f"{quoted_text(again)} stands here a second time")

    def refuse_with(self, reason: str) -> NoReturn:
        raise Refused(Refusal(position=self.at + 1, reason=reason))


def _joined(parts: list[list[str]], values: tuple[Any, ...], distinct: bool) -> list[str]:
    """The words of the parts of a value, which are written by now and so can be hashed."""
    if distinct and len(set(values)) < len(values):
        raise ValueError(f"{values!r} holds a value twice")
    return [word for part in parts for word in part]


def _need_rules(rules: Any, kind: str) -> None:
    wrong = [r for r in rules if not isinstance(r, (Word, Fixed, Sequence, Choice, Repeat))]
    if wrong or not rules:
        raise ValueError(
            f"a {kind} is made of rules (Word, Fixed, Sequence, Choice, Repeat), found "
            f"{wrong[0] if wrong else 'none'!r}"
        )


def _need_apart(a: frozenset[str], b: frozenset[str], who: str) -> None:
    if both := sorted(a & b):
        raise ValueError(f"{who} with {both[0]!r}: the next word alone must say how the text goes on")
