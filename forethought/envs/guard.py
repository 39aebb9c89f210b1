"""The boundary between this library and code that is not its own: what breaks behind it is data, and comes
back as a `Fault`.

A call of a task family, an environment or a grader gives its value, or raises a Fault that says at which
boundary it broke, by what and in which line: whatever was raised (SystemExit and GeneratorExit too, only the
user's own Ctrl-C passes), a value of another type than the protocol has, or no end within the limit. Who
called decides what a fault leaves out: a node, a demonstration, a task.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from forethought.core.errors import UserError
from forethought.core.places import raised_at, source_of
from forethought.core.watchdog import TimeUp, Watchdog
from forethought.envs.elsewhere import Call
from forethought.envs.values import WrongType
from forethought.recipe.schema import LimitSpec

Boundary = Literal["engine", "environment", "task", "reward", "parse", "workflow"]
KINDS = 50  # different faults that are kept with their tracebacks
# calls of one boundary in a row that did not end in time: it is not asked any more until the next step
GONE = 8
NOTHING: Mapping[str, Any] = {}
_LONGEST, _DEEPEST = 300, 12_000  # characters of a message and of a traceback that are kept


class Fault(UserError):
    """Something behind a boundary broke. `reason` is what a node keeps; the message says in which line
    too."""

    def __init__(self, boundary: Boundary, kind: str, message: str, called: str, place: str = ""):
        self.boundary, self.kind, self.called, self.place = boundary, kind, called, place
        self.reason = f"{boundary}: {kind}{f': {message}' if message else ''}"
        super().__init__(f"{self.reason} (in {called}{f', {place}' if place else ''})")


@dataclass(slots=True)
class FaultKind:
    """One kind of fault: what the first one said, with its traceback, and how many there were."""

    boundary: Boundary
    kind: str
    place: str
    first: str
    trace: str
    count: int = 0


@dataclass(slots=True)
class Guard:
    """Makes the calls and remembers what broke. `who`: the name of the task family."""

    who: str
    limits: LimitSpec = field(default_factory=LimitSpec)
    kinds: dict[tuple[str, str, str], FaultKind] = field(default_factory=dict)
    total: int = 0  # faults so far
    watchdog: Watchdog = field(default_factory=Watchdog)
    _late: Counter = field(default_factory=Counter)  # `_counted` -> calls in a row that took too long

    def call(
        self,
        boundary: Boundary,
        name: str,
        function: Callable[..., Any],
        args: tuple = (),
        named: Mapping[str, Any] | None = None,
        check: Callable[[Any], Any] | None = None,
        seconds: float | None = None,
        users: bool = True,
        of: Callable[..., Any] | None = None,
    ) -> Any:
        """What `check` makes of `function(*args)`, in at most `seconds` (by default those of a step). Raises
        Fault.

        `users`: a UserError of a task family (a file that cannot be read, a plan that is missing) is for the
        user as it stands. `of`: whose value `function` looks at, where it is another's.
        """
        if self._late:
            self.ask(boundary, name)
        seconds = self.limits.step_seconds if seconds is None else seconds
        try:
            value = self.watchdog.call(seconds, function, args, named or NOTHING)
            if check is not None:
                value = check(value)
            if self._late:
                self._late.pop(_counted(boundary, name), None)
            return value
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if _is_users(error) or (users and boundary == "task" and isinstance(error, UserError)):
                raise
            fault = self.broke(boundary, name, error, seconds, of or function)
        raise fault  # out here, so that it does not keep the frames of what broke

    def ask(self, boundary: Boundary, name: str) -> None:
        """Raises Fault where so many calls in a row had no end that none is made any more."""
        if self._late[_counted(boundary, name)] >= GONE:
            raise Fault(
                boundary,
                "Timeout",
                f"not asked any more, after {GONE} calls in a row without an end",
                f"{name} of {self.who}",
            )

    def broke(
        self,
        boundary: Boundary,
        name: str,
        error: BaseException,
        seconds: float,
        of: Callable[..., Any] | None = None,
        place: str = "",
    ) -> Fault:
        """The fault of a call of `of` that raised, or (TimeUp) did not end; `place`: where it stood, if that
        is known better than from what was raised."""
        if not isinstance(error, TimeUp):
            return self.fault(boundary, name, error, of=of)
        self._late[_counted(boundary, name)] += 1
        said = str(error) or f"no end after {seconds:g} s"
        return self.fault(boundary, name, error, said, of, place)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """For a batch of calls, and for turns of a driver: they share one timer."""
        with self.watchdog.watch(self.limits.step_seconds):
            yield

    def fresh(self) -> None:
        """A new step: what took too long is asked again."""
        self._late.clear()

    def gone(self) -> str:
        """Why a boundary is not asked any more, or ""."""
        gone = next((boundary for boundary, n in self._late.items() if n >= GONE), "")
        return f"{GONE} calls in a row ({gone}) took longer than limits.step_seconds" if gone else ""

    def worst(self) -> str:
        """The most frequent kind of fault, in a sentence."""
        return max(self.kinds.values(), key=lambda kind: kind.count).first if self.kinds else ""

    def records(self) -> list[dict[str, object]]:
        """Every kind of fault as a record, the first one first."""
        return [asdict(kind) for kind in self.kinds.values()]

    def fault(
        self,
        boundary: Boundary,
        name: str,
        error: BaseException,
        message: str = "",
        of: Callable[..., Any] | None = None,
        place: str = "",
    ) -> Fault:
        """The exception as a `Fault`, counted by kind and place. The first few kinds keep a traceback. `of`:
        what was called."""
        if isinstance(error, Fault):  # inside another guarded call: known already
            return error
        kind = {TimeUp: "Timeout", WrongType: "TypeError"}.get(type(error), type(error).__name__)
        owner, written = source_of(of) if of is not None else ("", "")
        own = boundary == "workflow" or (boundary == "reward" and written and not owner)
        called = name if own else f"{name} of {owner or self.who}"
        message, place = message or _message(error), place or raised_at(error.__traceback__, _OURS)
        if isinstance(error, WrongType):  # of a value, which has no line: who gave it has
            message, place = f"{called} {message}", written
        elif isinstance(error, TimeUp):
            place = place or written
        fault = Fault(boundary, kind, message, called, place)
        self.total += 1
        key = (boundary, kind, place or fault.reason)
        if key in self.kinds or len(self.kinds) < KINDS:
            self.kinds.setdefault(key, FaultKind(boundary, kind, place, str(fault), _trace(error))).count += 1
        return fault


def _counted(boundary: str, name: str) -> str:
    """What calls without an end are counted by: what no longer answers may still be closed."""
    return boundary if name != "close" else "close"


def _is_users(error: BaseException) -> bool:
    """A group of errors, such as a task group of asyncio raises, with the user's Ctrl-C among them."""
    return isinstance(error, BaseExceptionGroup) and error.subgroup(KeyboardInterrupt) is not None


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException as worse:
        return f"its message cannot be read ({type(worse).__name__})"
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _LONGEST]).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _trace(error: BaseException) -> str:
    try:
        # of a recursion without end, the innermost frames
        text = "".join(traceback.format_exception(error, limit=-30))
    except BaseException as worse:
        return f"the traceback cannot be written ({type(worse).__name__})"
    return text if len(text) <= _DEEPEST else text[-_DEEPEST:]


_OURS = {__file__, Watchdog.call.__code__.co_filename, Call.run.__code__.co_filename}
