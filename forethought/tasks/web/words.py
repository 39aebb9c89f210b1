"""Pages, plans and acts in the words of a closed vocabulary, for models that are trained from scratch.

    page   :textbox Username e7 @= w12 :button Login e31        role, name, id, states
    ask    @ask Enter the username "+ w12 +" and press login +.
    plan   type w12 :textbox Username @; click :button Login @; </plan>
    act    type w12 :textbox Username e7 click :button Login e31 </act>

Acts are the steps of the plan with the id in place of the mark that ends a step: they say the element in
words and then its id, as the tool calls of Playwright-MCP do. So each word is the one that follows the same
words elsewhere, in the plan or on the page. The id decides.

Pieces that the vocabulary does not know become slots (`w12`), drawn anew for each prompt; the same piece is
the same slot wherever it stands. So a password is one word, copying it is exact, and nothing can be learned
by heart. Ids (`e31`) are drawn per page in the same way. `Speech` holds what was drawn. Where no space stands
between two pieces a mark of punctuation says so (`"+ w12 +.`), so that a word is the same word in quotes, at
the end of a sentence, and alone.

A vocabulary that numbers (`Vocabulary.numbered`) is for longer pages. Lines that the same words mean say
which of them they are, as the words of a step do (`:img trash #3 e17`), so that an element is found by its
own line alone. A line of a list says behind its id which line of its class it is (`:text w8 e5 #3 .sender`),
so that the icons of an item are found by its number. What is drawn says its colour and size before its
number. A word with the full stop or comma that ends a name is one piece: `ut.` and `ut,` are two links.
Colours in hex, places in pixels and the end of a long text are not said; each new page ends with the
question again.
"""

from __future__ import annotations

import json
import random
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from forethought.interface.elements import Element, Line, parse, render
from forethought.interface.gui import Step
from forethought.interface.result import Parsed, Refusal, quoted_text

OPS = ("click", "hover", "type", "select", "press")
VALUED = ("type", "select", "press")
FIELDS = ("textbox", "textarea", "password", "spinbutton", "slider", "select")  # what holds a value
SLOTS, REFS, PLACES = 160, 120, 40
LONG, MORE = 10, "@more"  # words of a line of text, and what stands for the others
AFTER, IS, NEXT, ASK, DONE, GLUE = "@after", "@=", "@;", "@ask", "@done", "@glue"
MARKS = "".join(mark for mark in string.punctuation if mark != "+")  # "+" says where no space stands
_SLOT = re.compile(r"w[1-9]\d*")
PLACE = re.compile(r"-?\d+,-?\d+")  # a state of what is drawn: its centre
DRAWN = re.compile(rf"#[0-9a-f]{{6}}|{PLACE.pattern}")  # a colour, a place
_PIECE = re.compile(r"[^\W_]+|[^\w\s]|_")
_ENDS = {  # what ends a name or what is typed; in a question it stands in quotes
    "name": re.compile(rf'[^\W_]+[.,](?="|$)|{_PIECE.pattern}'),
    "question": re.compile(rf'[^\W_]+[.,](?=")|{_PIECE.pattern}'),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """`pieces`: those that many demonstrations of a task share. `roles` of elements, in a fixed order.
    `slots`: for so many other pieces of an episode. `numbered`: see the module."""

    pieces: frozenset[str]
    roles: tuple[str, ...]
    slots: int = SLOTS
    numbered: bool = False

    def words(self) -> list[str]:
        """Every word that a page, a plan or an act can hold."""
        return [
            *(AFTER, IS, NEXT, ASK, DONE, GLUE),
            *OPS,
            *(f":{role}" for role in self.roles),
            *(f"#{i}" for i in range(1, PLACES + 1)),
            *self._ids(),
            *marks(),
            *sorted(self.pieces),
            *self._slots(),
            *([MORE] if self.numbered else []),
        ]

    def drawn(self) -> list[str]:
        """Those that mean nothing but on a page or in a question that holds them."""
        return [*self._ids(), *self._slots()]

    def _ids(self) -> list[str]:
        return [f"e{i}" for i in range(1, REFS + 1)]

    def _slots(self) -> list[str]:
        return [f"w{i}" for i in range(1, self.slots + 1)]


@cache
def shipped(name: str = "words.json") -> Vocabulary:
    """A vocabulary that lies beside this module."""
    told = json.loads(files("forethought.tasks.web").joinpath(name).read_text("utf-8"))
    return Vocabulary(**told | {"pieces": frozenset(told["pieces"]), "roles": tuple(told["roles"])})


@cache
def marks() -> dict[str, tuple[str, bool, bool]]:
    """Word -> (mark of punctuation, no space before it, no space behind it)."""
    return {
        "+" * before + mark + "+" * behind: (mark, before, behind)
        for mark in MARKS
        for before in (False, True)
        for behind in (False, True)
    }


def pieces(text: str, kind: str = "") -> list[tuple[str, bool]]:
    """(piece, whether it stands without a space behind the one before it) of a text in which white space is
    single spaces. `kind`: a "name" (or a value) or a "question" in a vocabulary that numbers."""
    found, end = [], 0
    for match in _ENDS.get(kind, _PIECE).finditer(text):
        found.append((match[0], match.start() == end and bool(found)))
        end = match.end()
    return found


@lru_cache(2**16)
def spelled(text: str, kind: str = "") -> tuple[tuple[str, bool], ...]:
    """(word, False), or (a piece that has yet to become a word, True), of a text."""
    parts, words = pieces(text, kind), []
    for i, (piece, glued) in enumerate(parts):
        if piece in MARKS:
            # a mark takes the space to its left away itself; to its right only where a word stands
            behind = i + 1 < len(parts) and parts[i + 1][1] and parts[i + 1][0] not in MARKS
            words.append(("+" * glued + piece + "+" * behind, False))
        else:
            words += [(GLUE, False)] if glued and parts[i - 1][0] not in MARKS else []
            words.append((piece, True))
    return tuple(words)


def joined(parts: Iterable[tuple[str, bool]]) -> str:
    """The text of pieces."""
    return "".join(piece if glued or i == 0 else f" {piece}" for i, (piece, glued) in enumerate(parts))


def numbers_of(lines: Sequence[Line]) -> dict[str, int]:
    """Id -> which of the lines that its role and name mean a line is, from 1; 0 where it is the only one. A
    role without a name means all lines of the role."""
    seen = [line for line in lines if line.ref]
    keys = [(line.role, line.name) for line in seen]
    total = Counter([*keys, *((line.role, "") for line in seen if line.name)])
    passed: Counter[tuple[str, str]] = Counter()
    found = {}
    for line, key in zip(seen, keys, strict=True):
        passed[key] += 1
        if line.name:
            passed[line.role, ""] += 1
        found[line.ref] = passed[key] if total[key] > 1 else 0
    return found


def class_of(line: Line) -> str:
    """The class of an element, such as ".sender"; "" where it has none."""
    return next((state for state in line.state if state[:1] == "." and " " not in state), "")


def places_in_class(lines: Sequence[Line]) -> dict[str, int]:
    """Id -> which of the lines of its class a line is, from 1. What has no class or is the only one is left
    out."""
    seen = [(line.ref, of) for line in lines if line.ref and (of := class_of(line))]
    total = Counter(of for _, of in seen)
    passed: Counter[str] = Counter()
    found = {}
    for ref, of in seen:
        passed[of] += 1
        if total[of] > 1:
            found[ref] = passed[of]
    return found


class Full(Exception):
    """A page has more unknown pieces or elements than there are slots or ids."""


@dataclass(frozen=True, slots=True)
class Act:
    """One act: an operation on an id of the page, which the model reads as `e31`. `target`: the element in
    words, which the id stands for."""

    op: str
    ref: str
    value: str | None = None
    target: str | None = field(default=None, compare=False)


Made = Callable[[str, str | None, str | None, str], Any]
"""(operation, value, target, what ends it) -> a step or an act, or why it is none."""


class Speech:
    """The words of one episode. `seed` draws slots and, per page, ids. `loose`: a slot that was not drawn is
    read as a word too, since it may be of a page that is not here."""

    def __init__(self, seed: int | str, loose: bool = False, vocabulary: Vocabulary | None = None):
        self._seed, self._loose, self._vocabulary = seed, loose, vocabulary or shipped()
        free = [f"w{i}" for i in range(1, self._vocabulary.slots + 1)]
        random.Random(f"{seed}/slots").shuffle(free)
        self._free = free
        self._slot: dict[str, str] = {}
        self._piece: dict[str, str] = {}
        self._refs: dict[str, str] = {}  # of the page -> as the model reads it
        self._own: dict[str, str] = {}  # and back
        self._numbers: list[int] = []  # of the page that no line has yet
        self._pages = 0
        self._asked = ""

    # ---- text

    def question(self, text: str) -> str:
        """What is asked, behind the first page."""
        self._asked = self._joined(spelled(text, "question" if self._vocabulary.numbered else ""))
        return f"{ASK} {self._asked}"

    def said(self, text: str) -> str:
        """A text in words. `Full` where there are more unknown pieces than slots."""
        return self._joined(spelled(text, "name" if self._vocabulary.numbered else ""))

    def _joined(self, parts: Iterable[tuple[str, bool]]) -> str:
        return " ".join(self._word(word) if is_piece else word for word, is_piece in parts)

    def _word(self, piece: str) -> str:
        if piece in self._vocabulary.pieces:
            return piece
        if piece not in self._slot:
            if not self._free:
                raise Full(f"more than {self._vocabulary.slots} words that are not in the vocabulary")
            slot = self._free.pop()
            self._slot[piece], self._piece[slot] = slot, piece
        return self._slot[piece]

    def meant(self, words: Sequence[str]) -> str | None:
        """The text of words; None where one is no piece and no slot of this episode."""
        found, glue = [], False
        for word in words:
            if word == GLUE:
                glue = True
                continue
            read = marks().get(word) or self._read_word(word)
            if read is None:
                return None
            piece, before, behind = read
            found.append((piece, glue or before))
            glue = behind
        return joined(found)

    def readable(self, text: str) -> str:
        """A text in which slots are the words that they stand for."""
        found, glue = [], True
        for word in text.split():
            piece, before, behind = marks().get(word, (self._piece.get(word, word), False, False))
            if word != GLUE:
                found.append(piece if glue or before else f" {piece}")
            glue = word == GLUE or behind
        return "".join(found)

    def _read_word(self, word: str) -> tuple[str, bool, bool] | None:
        piece = self._piece.get(word)
        if piece is None and (word in self._vocabulary.pieces or (self._loose and _SLOT.fullmatch(word))):
            piece = word
        return None if piece is None else (piece, False, False)

    # ---- pages

    def page(self, lines: Sequence[Line]) -> str:
        """A page in words, a line after the other; its ids replace those of the page before."""
        self._pages += 1
        numbers = random.Random(f"{self._seed}/{self._pages}").sample(range(1, REFS + 1), REFS)
        acting = [line.ref for line in lines if line.ref]
        if len(acting) > REFS:
            raise Full(f"more than {REFS} elements")
        self._refs = {ref: f"e{n}" for ref, n in zip(acting, numbers, strict=False)}
        self._own = {said: ref for ref, said in self._refs.items()}
        self._numbers = numbers[len(acting) :]
        return self._lines(lines, lines)

    def next_page(self, lines: Sequence[Line]) -> str:
        """A page that comes after the first one."""
        page = self.page(lines)
        return f"{page} {ASK} {self._asked}" if self._vocabulary.numbered else page

    def changes(self, before: Sequence[Line], lines: Sequence[Line]) -> str:
        """The lines that are not as they were, on the page whose ids hold; those that are new get ids. `DONE`
        where there are none."""
        was = {(line.ref, line.role, line.name, line.state) for line in before}
        found = [line for line in lines if (line.ref, line.role, line.name, line.state) not in was]
        for line in found:
            if line.ref and line.ref not in self._refs:
                if not self._numbers:
                    raise Full(f"more than {REFS} elements")
                self._refs[line.ref] = f"e{self._numbers.pop(0)}"
                self._own[self._refs[line.ref]] = line.ref
        return self._lines(found, lines) or DONE

    def _lines(self, some: Sequence[Line], page: Sequence[Line]) -> str:
        numbered = self._vocabulary.numbered
        places, in_class = (numbers_of(page), places_in_class(page)) if numbered else ({}, {})
        said = (self._line(line, places.get(line.ref, 0), in_class.get(line.ref, 0)) for line in some)
        return " ".join(word for words in said for word in words)

    def _line(self, line: Line, place: int, in_class: int = 0) -> list[str]:
        name = [self._name(line)] if line.name else []
        number, item = ([f"#{n}"] if 0 < n <= PLACES else [] for n in (place, in_class))
        ref = [self._refs[line.ref]] if line.ref else []
        states = [word for one in line.state if (word := self._state(one))]
        if self._vocabulary.numbered and any(map(PLACE.fullmatch, line.state)):
            return [f":{line.role}", *name, *states, *number, *ref]
        return [f":{line.role}", *name, *number, *ref, *item, *states]

    def named(self, line: Line) -> str:
        """An element of the page without its states, as a look names it."""
        return " ".join(self._line(replace(line, state=()), 0))

    def ref_of(self, line: Line) -> str:
        """The id of an element of the page, as the model reads it."""
        return self._refs[line.ref]

    def _name(self, line: Line) -> str:
        parts = spelled(line.name, "name" if self._vocabulary.numbered else "")
        if self._vocabulary.numbered and line.role == "text" and len(parts) > LONG:
            return f"{self._joined(parts[:LONG])} {MORE}"
        return self._joined(parts)

    def _state(self, state: str) -> str:
        if self._vocabulary.numbered:
            if DRAWN.fullmatch(state):
                return ""
            if state in self._vocabulary.pieces:  # a class is one word
                return state
        value = state.removeprefix("= ")
        return self.said(state) if value == state else f"{IS} {self.said(value)}".strip()

    # ---- plans

    def plan(self, steps: Sequence[Step], stop: str) -> str:
        """A plan in words, its stop at the end."""
        return " ".join([*(self._step(step.op, step.value, step.target, NEXT) for step in steps), stop])

    def _step(self, op: str, value: str | None, target: str | None, end: str) -> str:
        said = [self.said(value)] if value else []
        return " ".join([op, *said, *self._element(target), end])

    def _element(self, target: str | None) -> list[str]:
        if target is None:
            return []
        found = parse(target)
        if isinstance(found, Refusal):
            raise ValueError(str(found))
        element: Element = found.value
        words = [f":{element.role}"]
        if element.name:
            words.append(self.said(element.name))
        if element.after is not None:
            words += [AFTER, self.said(element.after)]
        if element.place is not None:
            words.append(f"#{element.place}")
        return words

    def read_plan(self, text: str, stop: str) -> Parsed | Refusal:
        """The steps of a plan, with targets as `interface.elements` writes them."""

        def made(op: str, value: str | None, target: str | None, end: str) -> Step:
            return Step(op=op, target=target, value=value)

        return self._read(text, stop, frozenset([NEXT]), made)

    def _target(self, words: list[str], at: int) -> str | Refusal:
        """The element of words that begin with a role."""
        role, place, rest = words[0][1:], None, words[1:]
        if rest and re.fullmatch(r"#[1-9]\d*", rest[-1]):
            place, rest = int(rest[-1][1:]), rest[:-1]
        cut = rest.index(AFTER) if AFTER in rest else len(rest)
        name, after = self.meant(rest[:cut]), self.meant(rest[cut + 1 :])
        if name is None or after is None:
            return _refusal(at + 1, "the element is named by a word that the page does not have")
        element = Element(role=role, name=name or None, after=after if AFTER in rest else None, place=place)
        try:
            return render(element)
        except ValueError as error:
            return _refusal(at, str(error))

    # ---- acts

    def act(self, acts: Sequence[Act], stop: str) -> str:
        """Acts in words."""
        ends = [self._refs[act.ref] if act.ref else NEXT for act in acts]
        said = [self._step(a.op, a.value, a.target, end) for a, end in zip(acts, ends, strict=True)]
        return " ".join([*said, stop])

    def read_acts(self, text: str, stop: str) -> Parsed | Refusal:
        """The acts of a turn, with ids as the page has them."""

        def made(op: str, value: str | None, target: str | None, end: str) -> Act | str:
            if (end == NEXT) != (target is None):
                return "an act on an element ends with an id of the page, and any other with @;"
            return Act(op, self._own.get(end, ""), value, target)

        return self._read(text, stop, frozenset([NEXT, *self._own]), made)

    # ---- reading

    def _read(self, text: str, stop: str, ends: frozenset[str], made: Made) -> Parsed | Refusal:
        words = text.split()
        if not words or words[-1] != stop:
            return _refusal(len(words) + 1, f"the turn does not end with {stop}")
        found: list[Step | Act] = []
        group: list[str] = []
        for at, word in enumerate(words[:-1], 1):
            if word not in ends:
                group.append(word)
                continue
            start = at - len(group)
            read = self._parts(group, start)
            one = read if isinstance(read, Refusal) else made(*read, word)
            if isinstance(one, str):
                return _refusal(at, one)
            if isinstance(one, Refusal):
                return one
            found.append(one)
            group = []
        if group or not found:
            missing = "an id of the page" if ends != {NEXT} else NEXT
            return _refusal(len(words), f"a step ends with {missing}")
        return Parsed(tuple(found))

    def _parts(self, words: list[str], at: int) -> tuple[str, str | None, str | None] | Refusal:
        """The operation, its value and what it is carried out on."""
        if not words:
            return _refusal(at, "a step is empty")
        op, rest = words[0], words[1:]
        if op not in OPS:
            return _refusal(at, f"found {quoted_text(op)}, expected one of {', '.join(OPS)}")
        cut = next(
            (i for i, word in enumerate(rest) if word[0] == ":" and word[1:] in self._vocabulary.roles),
            len(rest),
        )
        value = self.meant(rest[:cut])
        if value is None:
            return _refusal(at + 1, "neither a role nor a text in words that the page has")
        if op not in VALUED and value:
            return _refusal(at + 1, f"{op} takes no value; the role of an element comes next")
        if cut == len(rest):
            return (op, value, None) if op == "press" else _refusal(at, f"{op} says no element")
        target = self._target(rest[cut:], at + 1 + cut)
        return target if isinstance(target, Refusal) else (op, value if op in VALUED else None, target)


def _refusal(at: int, reason: str) -> Refusal:
    return Refusal(position=at, reason=reason, unit="word")
