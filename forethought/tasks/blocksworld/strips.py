"""STRIPS: the exact executor of action sequences, over domains and problems read from PDDL files (see
pddl.py).

A fact is a tuple of words such as ("on", "a", "b"); a state is a frozenset of facts; a step is the name of an
action and its objects. An action is legal when the state holds all its preconditions; it then removes its
delete list and adds its add list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from forethought.core.errors import unknown

Fact = tuple[str, ...]
Step = tuple[str, ...]
State = frozenset[Fact]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A schema: words of its facts that are in `parameters` stand for the step's objects."""

    name: str
    parameters: tuple[str, ...]
    needs: tuple[Fact, ...]
    adds: tuple[Fact, ...]
    deletes: tuple[Fact, ...]


# compared by identity, so that grounding can be cached
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StripsDomain:
    name: str
    predicates: Mapping[str, int]  # name -> number of arguments
    actions: Mapping[str, Action]


@dataclass(frozen=True, slots=True, kw_only=True)
class StripsProblem:
    name: str
    domain: str  # the name its (:domain ...) gives
    objects: tuple[str, ...]  # in the order of the file
    init: tuple[Fact, ...]
    goal: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What became of a sequence: `executable` when every step was legal, `goal` when it was and the goal
    holds at its end."""

    executable: bool
    goal: bool
    steps: int  # legal steps before the end or the first illegal one
    state: State
    reason: str = ""  # why not executable, or which goal fact is missing


@lru_cache(maxsize=4096)
def ground(domain: StripsDomain, step: Step) -> Action | str:
    """The action of one step with objects in place of parameters, or a sentence saying why there is none."""
    if not step or step[0] not in domain.actions:
        return unknown("action", step[0] if step else "", domain.actions)
    schema = domain.actions[step[0]]
    if len(step) - 1 != len(schema.parameters):
        return f"{schema.name!r} takes {len(schema.parameters)} objects, found {len(step) - 1}"
    bound = dict(zip(schema.parameters, step[1:], strict=True))

    def fill(facts: tuple[Fact, ...]) -> tuple[Fact, ...]:
        return tuple((fact[0], *(bound.get(word, word) for word in fact[1:])) for fact in facts)

    return Action(
        name=schema.name,
        parameters=step[1:],
        needs=fill(schema.needs),
        adds=fill(schema.adds),
        deletes=fill(schema.deletes),
    )


def execute(
    domain: StripsDomain,
    state: State,
    steps: Sequence[Step],
    goal: Sequence[Fact] = (),
    slips: Callable[[Step], bool] | None = None,
) -> Trace:
    """Run the steps strictly from `state`; the first illegal one ends the run. A legal step that `slips` has
    no effect.

    Objects are not declared here: one that no fact names can meet no precondition that mentions it.
    """
    slipped: list[str] = []
    for done, step in enumerate(steps):
        action = ground(domain, step)
        if isinstance(action, str):
            return Trace(
                executable=False, goal=False, steps=done, state=state, reason=f"step {done + 1}: {action}"
            )
        missing = next((fact for fact in action.needs if fact not in state), None)
        if missing is not None:
            reason = f"step {done + 1}: '{' '.join(step)}' needs {_show(missing)}{_after(slipped)}"
            return Trace(executable=False, goal=False, steps=done, state=state, reason=reason)
        if slips is not None and slips(step):
            slipped.append(f"step {done + 1}")
        else:
            state = state.difference(action.deletes).union(action.adds)
    missing = next((fact for fact in goal if fact not in state), None)
    reason = (
        ""
        if missing is None
        else (f"the goal fact {_show(missing)} does not hold at the end{_after(slipped)}")
    )
    return Trace(executable=True, goal=missing is None, steps=len(steps), state=state, reason=reason)


def _show(fact: Fact) -> str:
    return f"({' '.join(fact)})"


def _after(slipped: list[str]) -> str:
    return f" ({', '.join(slipped)} slipped)" if slipped else ""
