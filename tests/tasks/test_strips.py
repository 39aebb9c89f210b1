"""The PDDL reader and the STRIPS executor, on a two-room robot written here: numbers and messages by hand."""

import pytest

from forethought.core.errors import UserError
from forethought.tasks.blocksworld.pddl import parse_domain, read_plan, read_problem
from forethought.tasks.blocksworld.strips import execute

DOMAIN = """; one ball, two rooms
(DEFINE (domain Robot)
  (:requirements :strips)
  (:predicates (in ?room) (ball ?room) (free) (held))
  (:action go :parameters (?r ?s)
    :precondition (in ?r)
    :effect (and (in ?s) (not (in ?r))))
  (:action TAKE :parameters (?r)           ; upper case reads as lower case
    :precondition (and (in ?r) (ball ?r) (free))
    :effect (and (held) (not (free)) (not (ball ?r))))
  (:action drop :parameters (?r)
    :precondition (and (in ?r) (held))
    :effect (and (free) (ball ?r) (not (held)))))
"""
PROBLEM = """(define (problem move-it) (:domain robot)
  (:objects left Right)
  (:init (in left) (ball left) (free))
  (:goal (and (ball right) (free))))
"""


def test_reader_keeps_every_part_of_a_domain_and_a_problem():
    domain = parse_domain(DOMAIN)
    assert domain.name == "robot"
    assert domain.predicates == {"in": 1, "ball": 1, "free": 0, "held": 0}
    assert list(domain.actions) == ["go", "take", "drop"]
    take = domain.actions["take"]
    assert (take.needs, take.adds) == ((("in", "?r"), ("ball", "?r"), ("free",)), (("held",),))
    assert take.deletes == (("free",), ("ball", "?r"))
    problem = read_problem(PROBLEM, domain)
    assert (problem.name, problem.objects) == ("move-it", ("left", "right"))
    assert problem.init == (("in", "left"), ("ball", "left"), ("free",))
    assert problem.goal == (("ball", "right"), ("free",))


PLANS = [  # plan, executable, goal, legal steps, a part of the reason
    ("(take left) (go left right) (drop right)", True, True, 3, ""),
    ("(take left)\n(go left right) ; stops early", True, False, 2, "goal fact (ball right)"),
    ("(take left) (drop right)", False, False, 1, "step 2: 'drop right' needs (in right)"),
    ("(take left) (take left)", False, False, 1, "step 2: 'take left' needs (ball left)"),
    ("(go left)", False, False, 0, "step 1: 'go' takes 2 objects, found 1"),
    ("(go left right) (tak right)", False, False, 1, "step 2: unknown action 'tak'; did you mean 'take'?"),
]


@pytest.mark.parametrize(("plan", "executable", "goal", "steps", "reason"), PLANS)
def test_the_executor_says_what_happened_and_where(plan, executable, goal, steps, reason):
    domain = parse_domain(DOMAIN)
    problem = read_problem(PROBLEM, domain)
    trace = execute(domain, frozenset(problem.init), read_plan(plan), problem.goal)
    assert (trace.executable, trace.goal, trace.steps) == (executable, goal, steps)
    assert reason in trace.reason and bool(trace.reason) == bool(reason)


def test_deletes_come_before_adds_and_a_slip_changes_nothing():
    domain = parse_domain(DOMAIN)
    here = frozenset({("in", "left"), ("ball", "left"), ("free",)})
    assert execute(domain, here, [("go", "left", "left")]).state == here  # removed and added again
    slipped = execute(
        domain, here, [("take", "left"), ("drop", "left")], slips=lambda step: step[0] == "take"
    )
    assert (slipped.executable, slipped.steps, slipped.state) == (False, 1, here)
    assert slipped.reason == "step 2: 'drop left' needs (held) (step 1 slipped)"


BROKEN_DOMAINS = [
    ("", "expected one (define (domain NAME) ...)"),
    (DOMAIN + "(x)", "domain:14: expected one"),
    (DOMAIN[:-2], "domain:2: the '(' here is never closed"),
    (DOMAIN + ")", "domain:14: this ')' closes nothing"),
    (DOMAIN.replace(":strips", ":typing"), "domain:3: requirement ':typing' is not supported"),
    (DOMAIN.replace("(in ?room)", "(in ?r - room)"), "domain:4: types ('-') are not supported"),
    (DOMAIN.replace("(in ?room)", "(in ?room) (in ?x)"), "domain:4: predicate 'in' is declared twice"),
    (DOMAIN.replace(":action go", ":action take"), "domain:8: action 'take' is defined twice"),
    (
        DOMAIN.replace(":effect (and (held)", ":effct (and (held)"),
        "domain:10: in action 'take': unknown field ':effct'",
    ),
    (
        DOMAIN.replace("(and (in ?r) (held))", "(or (in ?r) (held))"),
        "domain:12: '(or ...)' is not supported here",
    ),
    (DOMAIN.replace("(and (in ?r) (held))", "(not (held))"), "domain:12: '(not ...)' is not supported here"),
    (DOMAIN.replace("(and (in ?r) (held))", "(in ?q)"), "domain:12: unknown parameter '?q'"),
    (DOMAIN.replace("(and (in ?r) (held))", "(in ?r ?r)"), "domain:12: 'in' takes 1 arguments, found 2"),
    (
        DOMAIN.replace("(and (in ?r) (held))", "held"),
        "domain:12: expected a fact such as (on a b), found 'held'",
    ),
    (DOMAIN.replace("(?r ?s)", "(?r ?r)"), "domain:5: in action 'go': '?r' is not a new parameter"),
    (DOMAIN.replace(":predicates", ":functions"), "domain:4: unknown section ':functions'"),
    (
        DOMAIN.replace(":precondition (in ?r)", ":precondition (in cellar)"),
        "domain:6: unknown parameter 'cellar'",
    ),
]


@pytest.mark.parametrize(("text", "message"), BROKEN_DOMAINS)
def test_broken_domain_is_refused_with_its_line(text, message):
    with pytest.raises(UserError) as caught:
        parse_domain(text)
    assert message in str(caught.value)


BROKEN_PROBLEMS = [
    (
        PROBLEM.replace("(:domain robot)", "(:domain desk)"),
        "problem:1: the problem is for domain 'desk', not 'robot'",
    ),
    (PROBLEM.replace("(:domain robot)", ""), "problem: the problem has no (:domain ...)"),
    (PROBLEM.replace("left Right", "left left"), "problem:2: object 'left' is declared twice"),
    (PROBLEM.replace("left Right", "left right - room"), "problem:2: types ('-') are not supported"),
    (
        PROBLEM.replace("(free))\n  (:goal", "(fre))\n  (:goal"),
        "problem:3: unknown predicate 'fre'; did you mean 'free'?",
    ),
    (PROBLEM.replace("(ball left)", "(ball lift)"), "problem:3: unknown object 'lift'; did you mean 'left'?"),
    (
        PROBLEM.replace("(and (ball right) (free))", "(not (free))"),
        "problem:4: '(not ...)' is not supported here",
    ),
    (PROBLEM.replace("(and (ball right) (free))", "(free) (free)"), "problem:4: (:goal ...) holds 2 things"),
    (PROBLEM.replace(":goal", ":init"), "problem:4: (:init ...) is there twice"),
    (DOMAIN, "problem:2: expected (define (problem NAME) ...)"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN_PROBLEMS)
def test_broken_problem_is_refused_with_its_line(text, message):
    with pytest.raises(UserError) as caught:
        read_problem(text, parse_domain(DOMAIN))
    assert message in str(caught.value)


def test_deep_nesting_is_an_error_of_the_file_not_of_python():
    with pytest.raises(UserError, match="never closed"):
        parse_domain("(" * 200_000)


def test_errors_name_their_source():
    domain = parse_domain(DOMAIN)
    with pytest.raises(UserError, match=r"p\.pddl:3: unknown predicate 'bell'"):
        read_problem(PROBLEM.replace("(ball left)", "(bell left)"), domain, "p.pddl")
