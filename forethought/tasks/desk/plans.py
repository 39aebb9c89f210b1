"""The languages in which `desk` writes one and the same plan: who must be opened, and which value is set.

    words   c s e </plan>                                          from the goal up to a top-level widget
    path    e s c </plan>                                          the same from the top down
    json    [{"op": "open", "target": "widget e in the desk area"},
             {"op": "open", "target": "widget s in the e area"},
             {"op": "set", "target": "widget c in the s area", "value": "v3"}] </plan>

Words are short and follow the look-ups, which is what a small model learns. JSON is what a language model
speaks: GUI steps in the order in which they are done, each element described with its place, as AutoGLM's
planner does (arXiv 2411.00820). Both accept exactly the same plans, right ones and wrong ones: a list of
steps that does not hang together (an element described in another area than the one opened before it) is no
plan in either.
"""

from __future__ import annotations

from dataclasses import dataclass

from forethought.interface.grammar import Fixed, Grammar, Repeat, Sequence, Word
from forethought.interface.gui import GuiGrammar, Op, Step
from forethought.interface.result import Parsed, Refusal, quoted_text
from forethought.interface.tags import Tags


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`path`: widgets from the goal up; `value`: what the goal is set to (None where the language does not
    say: the task's own)."""

    path: tuple[str, ...]
    value: str | None = None


class WordPlans:
    """The names of the path and the closing tag."""

    def __init__(self, names: tuple[str, ...], tags: Tags, most: int):
        self.grammar = Grammar(
            Sequence((Repeat(Word(names, "a widget's name"), 1, most), Fixed(tags.close("plan"))))
        )
        self.budget = most + 1

    def parse(self, text: str) -> Parsed | Refusal:
        """Parsed(Plan), or a Refusal with a position in words."""
        answer = self.grammar.parse(text)
        return answer if isinstance(answer, Refusal) else Parsed(Plan(path=answer.value))

    def render(self, path: tuple[str, ...], value: str) -> str:
        """The path as words; the value is not part of this language."""
        return self.grammar.render(path)

    def place(self, index: int, length: int) -> str:
        """Where the text speaks of `path[index]`."""
        return f"word {index + 1}"

    def words(self) -> list[str]:
        """What the language writes beside names and tags."""
        return []


class PathPlans(WordPlans):
    """The names of the path from the top down, and the closing tag."""

    def parse(self, text: str) -> Parsed | Refusal:
        """As `WordPlans.parse`, on a path that is written from the root down."""
        answer = super().parse(text)
        return answer if isinstance(answer, Refusal) else Parsed(Plan(path=answer.value.path[::-1]))

    def render(self, path: tuple[str, ...], value: str) -> str:
        """The path written from the root down."""
        return super().render(path[::-1], value)

    def place(self, index: int, length: int) -> str:
        """ "word N", counted from the left of the reversed path."""
        return f"word {length - index}"


class JsonPlans:
    """GUI steps and the closing tag: all `open` but the last, which is `set` with the value."""

    def __init__(self, names: tuple[str, ...], root: str, values: tuple[str, ...], tags: Tags, most: int):
        self.names, self.root, self.values, self.tags = names, root, values, tags
        self.steps = GuiGrammar(ops=(Op(name="open"), Op(name="set", value="required")), most=most)
        self.target = Grammar(
            Sequence(
                (
                    Fixed("widget"),
                    Word(names, "a widget's name"),
                    Fixed("in"),
                    Fixed("the"),
                    Word((root, *names), f"{root!r} or a widget's name"),
                    Fixed("area"),
                )
            )
        )
        self.budget = len(self.render(names[:1] * most, values[0]).split())

    def parse(self, text: str) -> Parsed | Refusal:
        """Parsed(Plan), or a Refusal with a position in characters (the form) or steps (what they say)."""
        body = self.tags.turn("plan", text)
        if isinstance(body, Refusal):
            return body
        answer = self.steps.parse(body.value.text, body.value.start)
        return answer if isinstance(answer, Refusal) else self._plan(answer.value)

    def _plan(self, steps: tuple[Step, ...]) -> Parsed | Refusal:
        above = self.root
        path: list[str] = []
        for number, step in enumerate(steps, 1):
            op = "set" if number == len(steps) else "open"
            if step.op != op:
                return self._refusal(
                    number,
                    f"found {step.op!r}, expected {op!r}: the last step sets the value, those before it open",
                )
            answer = self.target.parse(step.target or "")
            if isinstance(answer, Refusal):
                return self._refusal(number, f"its target, {answer}")
            name, area = answer.value
            if area != above:
                before = (
                    f"the step before it opens {above}"
                    if path
                    else (f"the first step is in the {self.root} area")
                )
                return self._refusal(number, f"{name} is described in the {area} area, but {before}")
            above = name
            path.append(name)
        if steps[-1].value not in self.values:
            return self._refusal(
                len(steps),
                f"found the value {quoted_text(steps[-1].value or '')}, "
                f"expected one of {', '.join(self.values)}",
            )
        return Parsed(Plan(path=tuple(reversed(path)), value=steps[-1].value))

    def _refusal(self, number: int, reason: str) -> Refusal:
        return Refusal(position=number, reason=reason, unit="step")

    def render(self, path: tuple[str, ...], value: str) -> str:
        """One JSON call for each widget to open, and one that sets the value."""
        downward = path[::-1]
        targets = [
            self.target.render(pair) for pair in zip(downward, (self.root, *downward[:-1]), strict=True)
        ]
        steps = [Step(op="open", target=target) for target in targets[:-1]] + [
            Step(op="set", target=targets[-1], value=value)
        ]
        return f"{self.steps.render(steps)} {self.tags.close('plan')}"

    def place(self, index: int, length: int) -> str:
        """ "step N" of the list of calls."""
        return f"step {length - index}"

    def words(self) -> list[str]:
        """Every word of a rendered plan: JSON with spaces after its commas and colons falls into a few
        pieces."""
        plans = [
            self.render(path, value) for path in (self.names[:1], self.names[:3]) for value in self.values
        ]
        return list(dict.fromkeys(word for plan in plans for word in plan.split()))


def plans_of(
    kind: str, names: tuple[str, ...], root: str, values: tuple[str, ...], tags: Tags, most: int
) -> WordPlans | JsonPlans:
    """The language of that name, for paths of at most `most` widgets."""
    if kind == "json":
        return JsonPlans(names, root, values, tags, most)
    return (PathPlans if kind == "path" else WordPlans)(names, tags, most)
