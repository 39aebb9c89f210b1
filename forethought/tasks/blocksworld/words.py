"""The words of Blocksworld: the text of a problem, the two strict grammars (plan and acts), and their exact
executors.

    <init> ; a b ; g c ; h <goal> ; g h ; b a <plan>      towers from the bottom to the top; the goal is
                                                          chains of `on` facts
    clear g on b c on h g on a b </plan>                  plan: subgoals
    unstack c g put c unstack b a stack b c ... </act>    acts: primitives
    <obs> ; a b ; g ; h hold c </obs>                     what is seen after one of them, where acts come one
                                                          a turn: the towers, and what the hand holds

`clear y` moves everything above y to the table, topmost first. `on x y` is one move: x and y must be clear. A
subgoal that would change nothing is an error of the plan. Acts are the four actions of the STRIPS domain
below, which holds the only rules there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from forethought.interface.grammar import Choice, Fixed, Grammar, Repeat, Sequence, Word
from forethought.tasks.blocksworld.pddl import parse_domain
from forethought.tasks.blocksworld.problem import FREE, Move, Problem, inverse
from forethought.tasks.blocksworld.strips import Fact, State, Step, StripsDomain, Trace, execute

LETTERS = tuple("abcdefgh")
INIT, GOAL, PLAN, PLAN_END, ACT_END, TOWER = "<init>", "<goal>", "<plan>", "</plan>", "</act>", ";"
SEEN = ["<obs>", "</obs>", "hold"]
SUBGOALS = {"clear": 1, "on": 2}  # verb -> number of blocks
PRIMITIVES = {"pick": 1, "put": 1, "unstack": 2, "stack": 2}

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
    """The STRIPS domain with four operators, parsed from its PDDL."""
    return parse_domain(DOMAIN_PDDL, "forethought's own Blocksworld domain")


def vocabulary() -> list[str]:
    """Every word of the family: markers, verbs, letters."""
    return [INIT, GOAL, PLAN, PLAN_END, ACT_END, TOWER, *SUBGOALS, *PRIMITIVES, *LETTERS]


def context_text(problem: Problem) -> str:
    """The towers that stand at the beginning."""
    return INIT + "".join(f" {TOWER} {' '.join(tower)}" for tower in problem.towers())


def prompt_text(goal_towers: Iterable[Iterable[str]]) -> str:
    """The towers that are wanted."""
    return GOAL + "".join(f" {TOWER} {' '.join(tower)}" for tower in goal_towers)


# --- the grammars ---


@lru_cache(maxsize=1024)  # a problem is parsed many times, and its blocks are those of many others
def plan_grammar(blocks: tuple[str, ...], least: int = 0) -> Grammar:
    """Subgoals over these blocks, at least `least` of them, then the stop word. Values: tuples of steps."""
    return _steps(SUBGOALS, blocks, least, PLAN_END)


@lru_cache(maxsize=1024)
def act_grammar(blocks: tuple[str, ...]) -> Grammar:
    """Primitives over these blocks, then the stop word. Values: tuples of steps."""
    return _steps(PRIMITIVES, blocks, 0, ACT_END)


def _steps(verbs: Mapping[str, int], blocks: tuple[str, ...], least: int, stop: str) -> Grammar:
    block = Word(blocks, f"a block of this problem ({' '.join(blocks)})")
    steps = [Sequence((Word((verb,)), *[block] * number), distinct=True) for verb, number in verbs.items()]
    return Grammar(Sequence((Repeat(Choice(tuple(steps)), least), Fixed(stop))))


# --- executing a plan ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """A plan carried out exactly: its primitives, and where every block ends (name -> name under it, None the
    table)."""

    acts: tuple[Step, ...]
    under: Mapping[str, str | None]
    each: tuple[int, ...] = ()  # primitives of each subgoal that was carried out
    reason: str = ""  # why a subgoal could not be carried out; `acts` and `under` then stop before it


def expand(problem: Problem, subgoals: Iterable[Step]) -> Expansion:
    """The only legal execution of each subgoal, one after the other."""
    under = problem.under()
    over = {support: block for block, support in under.items() if support is not None}
    acts: list[Step] = []
    each: list[int] = []
    for number, subgoal in enumerate(subgoals, 1):
        obstacle = _obstacle(subgoal, under, over)
        if obstacle:
            reason = f"subgoal {number} '{' '.join(subgoal)}': {obstacle}"
            return Expansion(acts=tuple(acts), under=under, each=tuple(each), reason=reason)
        moves = _moves(subgoal, over)
        each.append(2 * len(moves))
        for block, support in moves:
            below = under[block]
            acts.append(("pick", block) if below is None else ("unstack", block, below))
            acts.append(("put", block) if support is None else ("stack", block, support))
            if below is not None:
                del over[below]
            if support is not None:
                over[support] = block
            under[block] = support
    return Expansion(acts=tuple(acts), under=under, each=tuple(each))


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
    return next(
        (
            f"the goal fact (on {x} {y}) does not hold at the end"
            for x, y in problem.wanted().items()
            if under[x] != y
        ),
        "",
    )


def merge(problem: Problem, moves: Iterable[Move]) -> list[Step]:
    """The subgoals that say these moves: a move to the table is `clear` of what it uncovers; going on down
    the same tower only lowers the block that is cleared."""
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
    facts: set[Fact] = {("clear", x) for x, above in zip(problem.names, over, strict=True) if above == FREE}
    facts.update(("ontable", x) if y is None else ("on", x, y) for x, y in problem.under().items())
    return frozenset(facts | {("handempty",)})


def run_acts(
    problem: Problem,
    steps: Iterable[Step],
    slips: Callable[[Step], bool] | None = None,
    begun: State | None = None,
) -> Trace:
    """The primitives under the strict STRIPS rules, from the initial state (or `begun`), and whether the goal
    holds after them."""
    goal = [("on", x, y) for x, y in problem.wanted().items()]
    return execute(domain(), state(problem) if begun is None else begun, tuple(steps), goal, slips)


# --- what is seen ---


def seen(problem: Problem, now: State) -> str:
    """A state in words: each tower from the bottom to the top, and the block that the hand holds."""
    over = {fact[2]: fact[1] for fact in now if fact[0] == "on"}
    said = [SEEN[0]]
    for name in problem.names:
        if ("ontable", name) in now:
            said += [TOWER, name]
            while said[-1] in over:
                said.append(over[said[-1]])
    held = [fact[1] for fact in now if fact[0] == "holding"]
    return " ".join([*said, *([SEEN[2], *held] if held else []), SEEN[1]])


def seen_after(problem: Problem, acts: Iterable[Step]) -> list[str]:
    """What is seen after each of these legal acts."""
    found, now = [], state(problem)
    for act in acts:
        now = run_acts(problem, [act], begun=now).state
        found.append(seen(problem, now))
    return found


def longest_seen(blocks: int) -> int:
    """Most words of what is seen: every block is a tower."""
    return 2 * blocks + 2
