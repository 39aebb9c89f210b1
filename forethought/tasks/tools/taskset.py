"""`tools`: how many has who, asked of a model that cannot know, and has two registers and a calculator.

    context  b has a plus 1 2 ; c has b times 3 ;                rules, shuffled
    prompt   ASK c
    plan     Plan : c b a #E1 = Look [ a ]                       ReWOO's; who matters, then the rules
             Plan : b has a plus 1 2 #E2 = Calc [ #E1 + 1 2 ]
             Plan : c has b times 3 #E3 = Calc [ #E2 * 3 ] </plan>
    plan     c b a [ a -Look-> y1 ] b has a plus 1 2 [ y1 + 1 2 = y2 ] ... </plan>     plans = "chain"
    act      Look [ a ] </act>                                   the same one by one, with an answer to each
    obs      4 7
    act      Finish [ 1 7 7 ] </act>
    act      c b b has a plus 1 2 [ 4 7 + 1 2 = 5 9 ] ... </act>     plans = "worked", numbers = "given"
    conclude 1 7 7 </conclude>                                      who has read a plan and its evidence

Level = calculations. A plan has an exact executor, the tools themselves. With `book` some numbers stand in a
second register, which nobody can know before the first one has answered `none`: plans written ahead fail,
who reads what comes back does not. Words are single digits and letters, which a model from scratch can
copy."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from forethought.core.errors import RecipeError
from forethought.core.types import Outcome, Task, Turn, Verdict
from forethought.envs.base import Environment
from forethought.interface import chains, rewoo
from forethought.interface.result import END, Parsed, Refusal, accepted, quoted_text, verdict
from forethought.interface.uses import Use
from forethought.recipe.options import names
from forethought.recipe.options.reading import read
from forethought.recipe.options.tools import Tools as Table
from forethought.recipe.ranges import within
from forethought.tasks.base import Split, Taskset
from forethought.tasks.tools.calculator import Wrong, calculate
from forethought.tasks.tools.problem import NAMES, SIGNS, Problem, drawn, sentence, spelled

LOOK, BOOK, CALC, FINISH, NONE = "Look", "Book", "Calc", "Finish", "none"
TOOLS = (LOOK, BOOK, CALC)
DEEPEST = 8
EVAL_SHARE = 32  # of 256 hash values of a problem: one in eight is held out
LONGEST = 7  # digits of a value, at most
_CALL = re.compile(r"\s*(\w+)\s*\[(.*)\]\s*$", re.S)


class Tools(Taskset):
    """See the module; the options are `recipe.options.tools.Tools`. Raises RecipeError for an option or level
    it does not have."""

    name = "tools"
    plans: str
    numbers: str
    digits: int
    together: float
    spare: int
    book: float

    def __init__(self, levels: Sequence[int] = (), **options: object):
        said = read(Table, options)
        for key in names(Table):
            setattr(self, key, getattr(said, key))
        self._check_ranges()
        self.has_plans = self.plans != "worked"
        self.levels = tuple(levels) or (1, 2, 3, 4)
        if strange := [level for level in self.levels if not 1 <= level <= DEEPEST]:
            raise RecipeError("task.levels", f"tools has levels 1 to {DEEPEST}, found {strange[0]}")
        deepest = max(self.levels)
        self.stops = {role: f"</{role}>" for role in ("plan", "act", "conclude", "think")}
        self.opens = {role: f"<{role}>" for role in ("plan", "conclude", "think")}
        people = 2 * deepest + 1
        uses = people if self.numbers == "looked_up" else deepest
        self.most = 2 * uses  # uses of one plan: twice what is needed is long-winded, not refused
        self.budgets = {
            "plan": people + uses * (16 + 3 * LONGEST) + 1,
            "act": 5 + 2 * LONGEST,
            "conclude": LONGEST + 1,
            "think": people + 6 + LONGEST,
        }
        self.turns = uses + people + 1
        if self.plans == "worked":
            self.budgets["act"], self.turns = self.budgets["plan"] + uses * LONGEST, 1
        self.observation = LONGEST

    def _check_ranges(self) -> None:
        if self.plans == "worked" and self.numbers != "given":
            raise RecipeError("task.plans", 'worked chains ask nobody; add numbers = "given"')
        for key, least, most in (("digits", 1, 4), ("spare", 0, 4), ("together", 0, 1), ("book", 0, 1)):
            within(f"task.{key}", getattr(self, key), least, most)

    def vocabulary(self) -> list[str]:
        """Every word that a task, plan, action or observation can contain."""
        steps = range(1, self.most + 1)
        names = [f"#E{i}" for i in steps] + [f"y{i}" for i in steps]
        arrows = [f"-{tool}->" for tool in TOOLS]
        rules = ["has", *SIGNS, ";", "ASK", "so", NONE]
        marks = ["Plan", ":", "=", "[", "]", *sorted(set(SIGNS.values())), *TOOLS, FINISH, *arrows]
        ends = [*self.opens.values(), *self.stops.values()]
        return [*ends, *NAMES, *map(str, range(10)), *rules, *marks, *names]

    def family(self, rng: random.Random, levels: list[int], split: Split) -> list[Task]:
        """Tasks that share nothing, one per entry of `levels`."""
        if strange := [level for level in levels if level not in self.levels]:
            raise RecipeError("levels", f"tools was set up for {list(self.levels)}, found {strange[0]}")
        return [self._task(rng, level, split) for level in levels]

    def _task(self, rng: random.Random, level: int, split: Split) -> Task:
        while True:  # the split is a property of the problem: seeds cannot mix them
            problem, context = drawn(
                rng, level, digits=self.digits, together=self.together, spare=self.spare,
                given=self.numbers == "given", book=self.book,
            )  # fmt: skip
            told = f"{context} {problem.goal} {sorted(problem.numbers.items())} {sorted(problem.book)}"
            digest = hashlib.blake2b(told.encode(), digest_size=8).digest()
            if (digest[0] < EVAL_SHARE) == (split == "eval"):
                break
        return Task(
            id=f"tools-{digest.hex()}",
            taskset=self.name,
            level=level,
            context=context,
            prompt=f"ASK {problem.goal}",
            state=problem,
        )

    # ---- plans

    def parse_plan(self, task: Task, text: str) -> Verdict:
        """Accepted or refused, by the language of plans alone: its form, tools that there are, names that
        refer back."""
        return verdict(self._parse(text))

    def judge_plan(self, task: Task, text: str) -> Verdict:
        """1 if what the plan asks for, carried out exactly, ends with the right number."""
        parsed = self._parse(text)
        if isinstance(parsed, Refusal):
            return verdict(parsed)
        values, reason = self._values(task.state, parsed.value)
        if reason:
            return Verdict(score=0.0, reason=reason)
        last, right = values[parsed.value[-1].name], spelled(task.state.value)
        wrong = f"{parsed.value[-1].name} is {last}, {task.state.goal} has {right}"
        return Verdict(score=float(last == right), reason="" if last == right else wrong)

    def _values(self, problem: Problem, uses: Sequence[Use]) -> tuple[dict[str, str], str]:
        """(name -> value of the uses that have one, why the first that has none has none)"""
        values: dict[str, str] = {}
        reason = ""
        for use in uses:
            if not values.keys() >= set(use.needs):
                continue  # one before it was refused
            answer = used(problem, use.tool, use.filled(self._names, values))
            if answer.observation == NONE:
                why = answer.reason or f"{use.tool} does not know {quoted_text(use.given)}"
                reason = reason or f"{use.name}: {why}"
            else:
                values[use.name] = answer.observation or ""
        return values, reason

    def meaning(self, task: Task, text: str) -> str:
        """The uses alone: what is said between them is no part of it."""
        parsed = self._parse(text)
        return str(
            parsed if isinstance(parsed, Refusal) else [(u.name, u.tool, u.given) for u in parsed.value]
        )

    def _parse(self, text: str) -> Parsed | Refusal:
        body = text.rstrip().removesuffix(self.stops["plan"])
        if body == text.rstrip():
            return Refusal(
                position=len(text) + 1, reason=f"found {END}, expected '</plan>'", unit="character"
            )
        if self.plans == "chain":
            return chains.parse(body, TOOLS, CALC, self.most)
        return rewoo.parse(body, TOOLS, self.most)

    @property
    def _names(self) -> re.Pattern[str]:
        return rewoo.NAME if self.plans == "rewoo" else chains.NAME

    def render(self, uses: Sequence[Use]) -> str:
        """These uses as a plan, stop word included."""
        write = chains.render(uses, CALC, True) if self.plans == "chain" else rewoo.render(uses, True)
        return f"{write} {self.stops['plan']}"

    # ---- tools, for workflows whose plans ask for them (`tasks.base.Tooled`)

    def uses(self, task: Task, plan: str) -> list[Use]:
        """What an accepted plan asks for, in order."""
        return list(accepted(self._parse(plan)).value)

    def call(self, use: Use, values: Mapping[str, str]) -> str:
        """The act that asks the environment for a use."""
        return f"{use.tool} [ {use.filled(self._names, values)} ] {self.stops['act']}"

    def answer(self, value: str) -> str:
        """The act that answers the task."""
        return f"{FINISH} [ {value} ] {self.stops['act']}"

    def answers(self, task: Task, plan: str) -> dict[str, str]:
        """What the tools bring, by name."""
        return self._values(task.state, self.uses(task, plan))[0]

    # ---- oracle

    def oracle_plan(self, task: Task) -> str:
        """Everything that is needed, with `Look` where a number is looked up: more cannot be known."""
        return self.render(self._oracle(task.state, frozenset()))

    def repaired(self, task: Task) -> str:
        """The plan of somebody who knows which numbers stand in `Book`, or "" where none does."""
        return self.render(self._oracle(task.state, task.state.book)) if task.state.book else ""

    def _oracle(self, problem: Problem, known: frozenset[str]) -> list[Use]:
        order = problem.order()
        mark = "#E" if self.plans == "rewoo" else "y"
        found: dict[str, Use] = {}
        for number, name in enumerate(reversed(order), 1):
            if has := problem.rules.get(name):
                first, *other = [
                    found[who].name if who in found else spelled(problem.numbers[who]) for who in has.needs()
                ]
                second = other[0] if other else spelled(has.by)
                tool, given = CALC, f"{first} {SIGNS[has.rule]} {second}"
            else:
                tool, given = (BOOK if name in known else LOOK), name
            says = [*(order if number == 1 else ()), *([sentence(name, has)] if has else [])]
            found[name] = Use(name=f"{mark}{number}", tool=tool, given=given, says=" ".join(says or [name]))
        return list(found.values())

    def demonstrate(self, task: Task) -> list[Turn]:
        """The plan, and its uses one by one: what is not in the first register is asked of the second; of
        worked chains, the one act."""
        if self.plans == "worked":
            return [Turn(role="act", text=self._worked(task))]
        turns = [Turn(role="plan", text=self.oracle_plan(task))]
        for act, answer in self._carried_out(task, self.uses(task, turns[0].text)):
            turns.append(Turn(role="act", text=act))
            turns += [] if answer is None else [Turn(role=None, text=answer)]
        return turns

    def _worked(self, task: Task) -> str:
        """The chain with its results in the place of placeholders."""
        uses = self._oracle(task.state, frozenset())
        values = self._values(task.state, uses)[0]
        worked = [replace(use, given=use.filled(self._names, values), name=values[use.name]) for use in uses]
        return f"{chains.render(worked, CALC, True)} {self.stops['act']}"

    def _carried_out(self, task: Task, uses: Sequence[Use]) -> list[tuple[str, str | None]]:
        """(act, what is answered) of a plan, the last one without an answer."""
        found: list[tuple[str, str | None]] = []
        values: dict[str, str] = {}
        for use in uses:
            for tool in (use.tool, BOOK) if self._moved(task.state, use) else (use.tool,):
                one = replace(use, tool=tool)
                answer = used(task.state, tool, one.filled(self._names, values)).observation or ""
                found.append((self.call(one, values), answer))
            values[use.name] = answer
        return [*found, (self.answer(values[uses[-1].name]), None)]

    def _moved(self, problem: Problem, use: Use) -> bool:
        return use.tool == LOOK and use.given in problem.book

    def steps(self, task: Task, plan: str) -> list[str]:
        """What is said before each act of the plan."""
        uses = self.uses(task, plan)
        said = [use.says or use.given for use in uses for _ in range(1 + self._moved(task.state, use))]
        return [*said, "so"]

    def follows(self, task: Task, plan: str, acts: list[str]) -> Verdict:
        """1 if the acts are those of the plan, word for word."""
        wanted = [act for act, _ in self._carried_out(task, self.uses(task, plan))]
        for i, (want, got) in enumerate(zip(wanted, acts, strict=False), 1):
            if want.split() != got.split():
                return Verdict(score=0.0, reason=f"turn {i}: expected {want!r}, found {quoted_text(got)}")
        if len(wanted) != len(acts):
            return Verdict(score=0.0, reason=f"{len(acts)} turns where the plan needs {len(wanted)}")
        return Verdict(score=1.0)

    def environment(self, task: Task, noise: bool) -> Counter:
        """The tools."""
        return Counter(task.state, self.stops, self.plans == "worked")


class Counter(Environment):
    """Who answers: a use of a tool goes on, `Finish [ ... ]` and a solver's answer end the episode, and so
    does what is neither."""

    def __init__(self, problem: Problem, stops: Mapping[str, str], worked: bool = False):
        """`worked`: an act is a chain, and what its last step says is the answer."""
        self.problem, self.stops, self.worked = problem, stops, worked

    def step(self, action: str) -> Outcome:
        """One use, or the answer."""
        said = action.strip()
        if said.endswith(self.stops["conclude"]):
            return self._answered(said.removesuffix(self.stops["conclude"]))
        if not said.endswith(self.stops["act"]):
            return _over(f"the turn does not end with {self.stops['act']}")
        if self.worked:
            last = said.removesuffix(self.stops["act"]).rpartition("=")[2].strip()
            return self._answered(last.removesuffix("]"))
        if (call := _CALL.match(said.removesuffix(self.stops["act"]))) is None:
            return _over(f"{quoted_text(said)} is no use of a tool such as Look [ a ]")
        if call[1] == FINISH:
            return self._answered(call[2])
        if call[1] not in TOOLS:
            return _over(f"there is no tool {quoted_text(call[1])}")
        return used(self.problem, call[1], call[2].strip())

    def _answered(self, text: str) -> Outcome:
        said, right = " ".join(text.split()), spelled(self.problem.value)
        wrong = f"the answer was {quoted_text(said)}, {self.problem.goal} has {right}"
        return Outcome(done=True, success=said == right, reason="" if said == right else wrong)


def used(problem: Problem, tool: str, given: str) -> Outcome:
    """What a tool answers: a number or `none`; the calculator, why there is no number."""
    if tool == CALC:
        try:
            return Outcome(done=False, observation=spelled(calculate(given)))
        except Wrong as wrong:
            return Outcome(done=False, observation=NONE, reason=f"the calculator: {wrong}")
    name = given.strip()
    known = name in problem.numbers and (name in problem.book) == (tool == BOOK)
    # that somebody is not in a register is an answer, and no step that failed
    return Outcome(done=False, observation=spelled(problem.numbers[name]) if known else NONE)


def _over(reason: str) -> Outcome:
    return Outcome(done=True, success=False, reason=reason)
