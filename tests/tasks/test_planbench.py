"""Blocksworld against the public PlanBench files (arXiv 2206.10498), where they are on this machine; never in
the repository."""

from collections import Counter
from pathlib import Path

import pytest

from forethought.tasks.blocksworld import words
from forethought.tasks.blocksworld.classes import classes
from forethought.tasks.blocksworld.files import HELD_OUT, held_out, records
from forethought.tasks.blocksworld.pddl import parse_domain
from forethought.tasks.blocksworld.strips import execute, ground
from forethought.tasks.blocksworld.taskset import Blocksworld, class_hash, main

DATA = Path(__file__).parents[3] / "shared" / "data" / "planbench"
PDDL_NAMES = {"pick": "pick-up", "put": "put-down", "unstack": "unstack", "stack": "stack"}
BASIC, BASIC_3 = DATA / "blocksworld_basic.jsonl", DATA / "blocksworld_basic_3.jsonl"
needs_data = pytest.mark.skipif(not BASIC.exists(), reason=f"PlanBench's problems are not at {DATA}")


def planbenchs():
    return parse_domain((DATA / "blocksworld_domain.pddl").read_text(encoding="utf-8"))


def pddl_steps(steps):
    """Acts under the action names of PlanBench's domain."""
    return [(PDDL_NAMES[step[0]], *step[1:]) for step in steps]


@needs_data
def test_levels_of_the_501():
    levels = Counter(task.level for task in Blocksworld().problems(BASIC))
    assert levels == {2: 30, 4: 57, 6: 114, 8: 139, 10: 113, 12: 46, 14: 1, 16: 1}


@needs_data
@pytest.mark.parametrize("path", [BASIC, BASIC_3])
def test_every_oracle_plan_solves_its_problem_under_planbenchs_own_domain(path):
    taskset, pddl = Blocksworld(), planbenchs()
    for task, record in zip(taskset.problems(path), records(path), strict=True):
        plan, act = taskset.demonstrate(task)
        assert (
            taskset.judge_plan(task, plan.text).score
            == taskset.follows(task, plan.text, [act.text]).score
            == 1.0
        )
        assert taskset.judge_acts(task, act.text) == {"executable": True, "goal": True, "optimal": True}
        steps = pddl_steps(words.act_grammar(task.state.names).parse(act.text).value)
        assert len(steps) == task.level
        start, goal = frozenset(record.problem.init), record.problem.goal
        assert execute(pddl, start, steps, goal).goal  # objects are letters already, so names carry over
        assert not execute(pddl, start, steps[:-1], goal).goal


@needs_data
def test_the_familys_domain_is_planbenchs_action_by_action():
    theirs = planbenchs()
    for step in (("pick", "a"), ("put", "a"), ("unstack", "a", "b"), ("stack", "a", "b")):
        ours, other = ground(words.domain(), step), ground(theirs, pddl_steps([step])[0])
        for part in ("needs", "adds", "deletes"):
            assert set(getattr(ours, part)) == set(getattr(other, part)), (step, part)


@needs_data
def test_committed_hashes_are_those_of_the_files(capsys):
    assert main([str(BASIC), str(BASIC_3)]) == 0
    assert capsys.readouterr().out == HELD_OUT.read_text(encoding="utf-8")
    assert len({class_hash(task.state) for task in Blocksworld().problems(BASIC)}) == 240


def test_committed_hashes_hold_out_most_small_classes():
    """Known without the files: all 22 classes of 3 blocks, 185 of 4, 55 of 5, none of 6."""
    assert len(held_out()) == 262
    assert [sum(h in held_out() for *_, h in classes(n)) for n in (3, 4, 5)] == [22, 185, 55]
