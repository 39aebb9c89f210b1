"""PDDL files read strictly: the `:strips` subset (McDermott et al. 1998), in any case, with comments, every
error with its line.

What is outside the subset (types, negative preconditions, quantifiers, costs) is refused by name instead of
being read wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from forethought.core.errors import UserError, unknown
from forethought.tasks.blocksworld.strips import Action, Fact, Step, StripsDomain, StripsProblem

BEYOND = (
    "or",
    "imply",
    "forall",
    "exists",
    "when",
    "=",
    "increase",
    "decrease",
    "assign",
    ">",
    "<",
    ">=",
    "<=",
)


@dataclass(frozen=True, slots=True)
class Expr:
    """An s-expression: a word, or a list of expressions (`word` is then empty). `where` is "source:line"."""

    where: str
    word: str = ""
    items: tuple[Expr, ...] = ()

    def head(self) -> str:
        """First word of a list, "" for an empty one or for a list of lists."""
        return self.items[0].word if self.items else ""


def parse_domain(text: str, source: str = "domain") -> StripsDomain:
    """(define (domain NAME) (:requirements :strips) (:predicates ...) (:action ...) ...), as text."""
    name, sections = _define(text, source, "domain", ("requirements", "predicates", "action"))
    predicates: dict[str, int] = {}
    for expr in (
        item for section in sections if section.head() == ":predicates" for item in section.items[1:]
    ):
        predicate, *arguments = _words(expr, "a predicate such as (on ?x ?y)")
        if predicate in predicates:
            raise UserError(f"{expr.where}: predicate {predicate!r} is declared twice")
        predicates[predicate] = len(arguments)
    if not predicates:
        raise UserError(f"{source}: the domain has no (:predicates ...)")
    actions: dict[str, Action] = {}
    for section in (s for s in sections if s.head() == ":action"):
        action = _action(section, predicates)
        if action.name in actions:
            raise UserError(f"{section.where}: action {action.name!r} is defined twice")
        actions[action.name] = action
    if not actions:
        raise UserError(f"{source}: the domain has no (:action ...)")
    return StripsDomain(name=name, predicates=predicates, actions=actions)


def read_problem(text: str, domain: StripsDomain | None = None, source: str = "problem") -> StripsProblem:
    """(define (problem NAME) (:domain ...) (:objects ...) (:init ...) (:goal ...)), as text.

    With a domain its name, the predicates and their numbers of arguments are checked. Raises UserError naming
    `source` and line.
    """
    name, sections = _define(text, source, "problem", ("requirements", "domain", "objects", "init", "goal"))
    by_name = {section.head(): section for section in sections}
    missing = next((key for key in (":domain", ":objects", ":init", ":goal") if key not in by_name), None)
    if missing is not None:
        raise UserError(f"{source}: the problem has no ({missing} ...)")
    objects = tuple(_words(by_name[":objects"], "names of objects")[1:])
    # a look-up in a set, where a list of 20,000 would be read from its start for each fact
    known = dict.fromkeys(objects)
    if len(known) < len(objects):
        raise UserError(f"{by_name[':objects'].where}: object {_again(objects)!r} is declared twice")
    domain_name, goal = _only(by_name[":domain"], "a name"), _only(by_name[":goal"], "one condition")
    if not domain_name.word:
        raise UserError(f"{domain_name.where}: expected the name of a domain")
    if domain is not None and domain_name.word != domain.name:
        raise UserError(
            f"{domain_name.where}: the problem is for domain {domain_name.word!r}, not {domain.name!r}"
        )
    predicates = None if domain is None else domain.predicates
    init = tuple(_fact(expr, predicates, known, "object") for expr in by_name[":init"].items[1:])
    facts = tuple(_fact(expr, predicates, known, "object") for expr in _conjuncts(goal))
    return StripsProblem(name=name, domain=domain_name.word, objects=objects, init=init, goal=facts)


def read_plan(text: str, source: str = "plan") -> list[Step]:
    """One `(action object ...)` after the other, as planners print them; `;` starts a comment."""
    return [tuple(_words(expr, "a step such as (stack a b)")) for expr in _expressions(text, source)]


# --- expressions ---


def _expressions(text: str, source: str) -> list[Expr]:
    """The expressions of a text. Iterative, so that deep nesting in a hostile file is an error of the file
    and not of Python."""
    stack: list[tuple[str, list[Expr]]] = [("", [])]
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{source}:{number}"
        for token in re.findall(r"[()]|[^\s()]+", line.split(";", 1)[0].lower()):
            if token == "(":
                stack.append((where, []))
            elif token != ")":
                stack[-1][1].append(Expr(where, word=token))
            elif len(stack) == 1:
                raise UserError(f"{where}: this ')' closes nothing")
            else:
                opened, items = stack.pop()
                stack[-1][1].append(Expr(opened, items=tuple(items)))
    if len(stack) > 1:
        raise UserError(f"{stack[-1][0]}: the '(' here is never closed")
    return stack[0][1]


def _define(text: str, source: str, kind: str, known: tuple[str, ...]) -> tuple[str, list[Expr]]:
    """Name and sections of (define (kind NAME) (:section ...) ...); sections that may come once are seen
    once."""
    top = _expressions(text, source)
    if len(top) != 1 or top[0].head() != "define":
        where = top[1].where if len(top) > 1 else source
        raise UserError(f"{where}: expected one (define ({kind} NAME) ...) and nothing else")
    _, *rest = top[0].items
    if not rest or rest[0].head() != kind:
        raise UserError(f"{top[0].where}: expected (define ({kind} NAME) ...)")
    name, sections = _only(rest[0], "a name"), rest[1:]
    if not name.word:
        raise UserError(f"{name.where}: expected the name of the {kind}")
    seen: set[str] = set()
    for section in sections:
        key = section.head()
        if not key.startswith(":") or key[1:] not in known:
            raise UserError(
                f"{section.where}: {unknown('section', key or section.word, (':' + k for k in known))}"
            )
        if key in seen and key != ":action":
            raise UserError(f"{section.where}: ({key} ...) is there twice")
        seen.add(key)
        if key == ":requirements":
            beyond = next((w for w in _words(section, "names of requirements")[1:] if w != ":strips"), None)
            if beyond is not None:
                raise UserError(f"{section.where}: requirement {beyond!r} is not supported; only :strips is")
    return name.word, sections


def _words(expr: Expr, what: str) -> list[str]:
    """The words of a flat list."""
    if not expr.items or any(not item.word for item in expr.items):
        raise UserError(f"{expr.where}: expected {what}, found {_show(expr)}")
    words = [item.word for item in expr.items]
    if "-" in words:
        raise UserError(f"{expr.where}: types ('-') are not supported; only :strips is")
    return words


def _only(expr: Expr, what: str) -> Expr:
    """The one thing that follows the head."""
    if len(expr.items) != 2:
        raise UserError(
            f"{expr.where}: ({expr.head()} ...) holds {len(expr.items) - 1} things, expected {what}"
        )
    return expr.items[1]


# --- facts and actions ---


def _conjuncts(expr: Expr) -> tuple[Expr, ...]:
    """The parts of (and ...), of a single condition, or of ()."""
    return expr.items[1:] if expr.head() == "and" else (expr,) if expr.items or expr.word else ()


def _again(words: Iterable[str]) -> str:
    """The first word that has stood there before."""
    seen: set[str] = set()
    for word in words:
        if word in seen:
            return word
        seen.add(word)
    raise ValueError("no word stands there twice")


def _fact(expr: Expr, predicates: Mapping[str, int] | None, known: Collection[str], kind: str) -> Fact:
    """A positive fact over the known words (`kind` says what they are)."""
    if expr.head() in BEYOND or expr.head() in ("not", "and"):
        raise UserError(
            f"{expr.where}: '({expr.head()} ...)' is not supported here; only facts joined by "
            f"one (and ...) are"
        )
    predicate, *arguments = _words(expr, "a fact such as (on a b)")
    if predicates is not None and predicate not in predicates:
        raise UserError(f"{expr.where}: {unknown('predicate', predicate, predicates)}")
    if predicates is not None and len(arguments) != predicates[predicate]:
        raise UserError(
            f"{expr.where}: {predicate!r} takes {predicates[predicate]} arguments, found {len(arguments)}"
        )
    stranger = next((word for word in arguments if word not in known), None)
    if stranger is not None:
        raise UserError(f"{expr.where}: {unknown(kind, stranger, known)}")
    return (predicate, *arguments)


def _action(section: Expr, predicates: Mapping[str, int]) -> Action:
    """(:action NAME :parameters (...) :precondition ... :effect ...)."""
    items = section.items[1:]
    if not items or not items[0].word or len(items) % 2 == 0:
        raise UserError(
            f"{section.where}: expected (:action NAME :parameters (...) :precondition ... :effect ...)"
        )
    name, fields = items[0].word, {}
    for key, value in zip(items[1::2], items[2::2], strict=True):
        if key.word not in (":parameters", ":precondition", ":effect"):
            known = (":parameters", ":precondition", ":effect")
            raise UserError(
                f"{key.where}: in action {name!r}: {unknown('field', key.word or _show(key), known)}"
            )
        if key.word in fields:
            raise UserError(f"{key.where}: in action {name!r}: {key.word} is there twice")
        fields[key.word] = value
    if ":effect" not in fields:
        raise UserError(f"{section.where}: action {name!r} has no :effect")
    given = fields.get(":parameters")
    parameters = (
        tuple(_words(given, "parameters such as (?x ?y)")) if given is not None and given.items else ()
    )
    names = dict.fromkeys(parameters)
    for word in parameters if len(names) == len(parameters) else (_again(parameters),):
        if not word.startswith("?") or len(names) < len(parameters):
            raise UserError(
                f"{(given or section).where}: in action {name!r}: {word!r} is not a new parameter such as ?x"
            )
    conditions = _conjuncts(fields[":precondition"]) if ":precondition" in fields else ()
    needs = tuple(_fact(expr, predicates, names, "parameter") for expr in conditions)
    effects = [
        (e.head() == "not", _only(e, "one fact") if e.head() == "not" else e)
        for e in _conjuncts(fields[":effect"])
    ]
    facts = [(negative, _fact(expr, predicates, names, "parameter")) for negative, expr in effects]
    return Action(
        name=name,
        parameters=parameters,
        needs=needs,
        adds=tuple(fact for negative, fact in facts if not negative),
        deletes=tuple(fact for negative, fact in facts if negative),
    )


def _show(expr: Expr) -> str:
    """The expression, short."""
    if not expr.items:
        return repr(expr.word) if expr.word else "'()'"
    return repr("(" + " ".join(item.word or "(...)" for item in expr.items)[:60] + ")")
