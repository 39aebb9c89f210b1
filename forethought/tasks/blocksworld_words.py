"""The words of Blocksworld: the text of a problem, the two strict grammars (plan and acts), and their exact executors.

    <init> ; a b ; g c ; h <goal> ; g h ; b a <plan>      towers from the bottom to the top; the goal is chains of `on` facts
    clear g on b c on h g on a b </plan>                  plan: subgoals
    unstack c g put c unstack b a stack b c ... </act>    acts: primitives

`clear y` moves everything above y to the table, topmost first. `on x y` is one move: x and y must be clear. A subgoal that would
change nothing is an error of the plan. Acts are the four actions of the STRIPS domain below, which holds the only rules there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from forethought.tasks.blocksworld_problem import FREE, Move, Problem, inverse
from forethought.tasks.pddl import parse_domain
from forethought.tasks.strips import State, Step, StripsDomain, Trace, execute

LETTERS = tuple("abcdefgh")
INIT, GOAL, PLAN, PLAN_END, ACT_END, TOWER = "<init>", "<goal>", "<plan>", "</plan>", "</act>", ";"
SUBGOALS = {"clear": 1, "on": 2}  # verb -> number of blocks
PRIMITIVES = {"pick": 1, "put": 1, "unstack": 2, "stack": 2}
PDDL_NAMES = {"pick": "pick-up", "put": "put-down", "unstack": "unstack", "stack": "stack"}  # in PlanBench's domain file
NUMBERS = {1: "one block", 2: "two blocks"}

# The four-operator domain of the International Planning Competition, with this family's words.
DOMAIN_PDDL = """
(define (domain blocksworld)
  (:requirements :strips)
  (:predicates (on ?x ?y) (ontable ?x) (clear ?x) (holding ?x) (handempty))
  (:action pick :parameters (?x)
    :precondition (and (clear ?x) (ontable ?x) (handempty))
    :effect (and (holding ?x) (not (clear ?x)) (not (ontable ?x)) (not (handempty))))
  (:action put :parameters (?x)
    :precondition (holding ?x)
    :effect (and (ontable ?x) (clear ?x) (handempty) (not (holding ?x))))
  (:action unstack :parameters (?x ?y)
    :precondition (and (on ?x ?y) (clear ?x) (handempty))
    :effect (and (holding ?x) (clear ?y) (not (on ?x ?y)) (not (clear ?x)) (not (handempty))))
  (:action stack :parameters (?x ?y)
    :precondition (and (holding ?x) (clear ?y))
    :effect (and (on ?x ?y) (clear ?x) (handempty) (not (holding ?x)) (not (clear ?y)))))
"""


@lru_cache(maxsize=1)
def domain() -> StripsDomain:
    return parse_domain(DOMAIN_PDDL, "forethought's own Blocksworld domain")


def vocabulary() -> list[str]:
    """Every word of the family: markers, verbs, letters."""
    return [INIT, GOAL, PLAN, PLAN_END, ACT_END, TOWER, *SUBGOALS, *PRIMITIVES, *LETTERS]


def context_text(problem: Problem) -> str:
    return INIT + "".join(f" {TOWER} {' '.join(tower)}" for tower in problem.towers())


def prompt_text(goal_towers: Sequence[Sequence[str]]) -> str:
    return GOAL + "".join(f" {TOWER} {' '.join(tower)}" for tower in goal_towers) + f" {PLAN}"


def sentence(steps: Sequence[Step], stop: str) -> str:
    return " ".join([*(word for step in steps for word in step), stop])


def pddl_steps(steps: Sequence[Step]) -> list[Step]:
    """Acts under the action names of PlanBench's domain file, for a validator outside."""
    return [(PDDL_NAMES[step[0]], *step[1:]) for step in steps]


# --- the grammars ---


def parse(text: str, verbs: Mapping[str, int], stop: str, blocks: Sequence[str]) -> list[Step] | str:
    """The steps of a sentence `(verb block [block])* stop`, or a sentence with the position (words from 1) and the reason."""
    words = text.split()
    steps: list[Step] = []
    at = 0
    while at < len(words) and words[at] != stop:
        verb = words[at]
        if verb not in verbs:
            return f"word {at + 1}: expected {', '.join(map(repr, verbs))} or {stop!r}, found {verb!r}"
        arguments = words[at + 1 : at + 1 + verbs[verb]]
        for offset, word in enumerate(arguments, at + 2):
            if word not in LETTERS:
                return f"word {offset}: {verb!r} needs {NUMBERS[verbs[verb]]}, found {word!r}"
            if word not in blocks:
                return f"word {offset}: block {word!r} is not in this problem (blocks: {' '.join(blocks)})"
        if len(arguments) < verbs[verb]:
            return f"word {len(words) + 1}: {verb!r} needs {NUMBERS[verbs[verb]]}, found the end of the text"
        if len(set(arguments)) < len(arguments):
            return f"word {at + 3}: {verb!r} needs two different blocks, found {arguments[0]!r} twice"
        steps.append((verb, *arguments))
        at += 1 + len(arguments)
    if at == len(words):
        return f"word {at + 1}: {stop!r} is missing at the end"
    if at + 1 < len(words):
        return f"word {at + 2}: nothing may follow {stop!r}, found {words[at + 1]!r}"
    return steps


# --- executing a plan ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """A plan carried out exactly: its primitives, and where every block ends (name -> name under it, None the table)."""

    acts: tuple[Step, ...]
    under: Mapping[str, str | None]
    reason: str = ""  # why a subgoal could not be carried out; `acts` and `under` then stop before it


def expand(problem: Problem, subgoals: Sequence[Step]) -> Expansion:
    """The only legal execution of each subgoal, one after the other."""
    under = problem.under()
    over = {support: block for block, support in under.items() if support is not None}
    acts: list[Step] = []
    for number, subgoal in enumerate(subgoals, 1):
        obstacle = _obstacle(subgoal, under, over)
        if obstacle:
            return Expansion(acts=tuple(acts), under=under, reason=f"subgoal {number} '{' '.join(subgoal)}': {obstacle}")
        for block, support in _moves(subgoal, over):
            below = under[block]
            acts.append(("pick", block) if below is None else ("unstack", block, below))
            acts.append(("put", block) if support is None else ("stack", block, support))
            if below is not None:
                del over[below]
            if support is not None:
                over[support] = block
            under[block] = support
    return Expansion(acts=tuple(acts), under=under)


def _obstacle(subgoal: Step, under: Mapping[str, str | None], over: Mapping[str, str]) -> str:
    """Why this subgoal cannot be carried out now; empty when it can."""
    if subgoal[0] == "clear":
        return "" if subgoal[1] in over else f"{subgoal[1]} is clear already"
    _, block, support = subgoal
    if under[block] == support:
        return f"{block} is on {support} already"
    covered = next((b for b in (block, support) if b in over), None)
    return "" if covered is None else f"{covered} is not clear ({over[covered]} is on it)"


def _moves(subgoal: Step, over: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """(block, new support or None for the table) of each move."""
    if subgoal[0] == "on":
        return [(subgoal[1], subgoal[2])]
    above = [over[subgoal[1]]]
    while above[-1] in over:
        above.append(over[above[-1]])
    return [(block, None) for block in reversed(above)]


def unmet(problem: Problem, under: Mapping[str, str | None]) -> str:
    """The first goal fact that does not hold, as a sentence; empty when the goal holds."""
    return next((f"the goal fact (on {x} {y}) does not hold at the end" for x, y in problem.wanted().items() if under[x] != y), "")


def merge(problem: Problem, moves: Sequence[Move]) -> list[Step]:
    """The subgoals that say these moves: a move to the table is `clear` of what it uncovers; going on down the same tower
    only lowers the block that is cleared."""
    names, below = problem.names, list(problem.below)
    subgoals: list[Step] = []
    for block, support in moves:
        if support != FREE:
            subgoals.append(("on", names[block], names[support]))
        else:
            if subgoals and subgoals[-1] == ("clear", names[block]):
                subgoals.pop()
            subgoals.append(("clear", names[below[block]]))
        below[block] = support
    return subgoals


# --- executing acts ---


def state(problem: Problem) -> State:
    """The initial state as facts, the hand empty."""
    over = inverse(problem.below)
    facts = {("clear", x) for x, above in zip(problem.names, over, strict=True) if above == FREE}
    facts.update(("ontable", x) if y is None else ("on", x, y) for x, y in problem.under().items())
    return frozenset(facts | {("handempty",)})


def run_acts(problem: Problem, steps: Sequence[Step], slips: Callable[[Step], bool] | None = None) -> Trace:
    """The primitives under the strict STRIPS rules, and whether the goal holds after them."""
    return execute(domain(), state(problem), steps, [("on", x, y) for x, y in problem.wanted().items()], slips)
