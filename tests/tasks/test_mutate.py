"""Tasks that are made into others: near, of the training split, solvable, the same for the same seed."""

from __future__ import annotations

import random

import pytest

from forethought.tasks.base import Mutable, face
from forethought.tasks.conformance import conformance
from forethought.tasks.desk.screens import depths
from forethought.tasks.desk.taskset import Desk
from forethought.tasks.web.taskset import Web


@pytest.mark.parametrize("options", [{}, {"parents": 2, "widgets": 9, "dead": 2}, {"stepwise": True}])
def test_a_desk_task_keeps_its_screen_or_its_tree(options):
    desk = Desk((1, 2, 3, 4, 5), **options)
    assert face(desk, Mutable)
    same = other = 0
    for seed in range(60):
        [task] = desk.family(random.Random(seed), [1 + seed % 5], "train")
        new = desk.mutate(task, random.Random(seed))
        assert new == desk.mutate(task, random.Random(seed)) and abs(new.level - task.level) <= 1
        assert desk.judge_plan(new, desk.oracle_plan(new)).score == 1
        assert depths(new.state.parents)[new.state.goal] == new.level
        if new.context == task.context:
            same += 1
            assert new.state.parents == task.state.parents
        else:
            other += 1
            assert new.level == task.level
            tree = [sorted(depths(t.state.parents).values()) for t in (task, new)]
            assert tree[0] == tree[1] and set(new.context.split()) != set(task.context.split())
    assert min(same, other) > 15
    assert [finding for finding in conformance(desk) if finding.wrong] == []


def test_no_made_screen_is_held_out():
    desk = Desk((1, 2), widgets=3)
    held = {desk.family(random.Random(i), [1], "eval")[0].context for i in range(300)}
    [task] = desk.family(random.Random(0), [2], "train")
    for seed in range(300):
        task = desk.mutate(task, random.Random(seed))
        assert task.context not in held and task.level in (1, 2)


def test_a_web_task_becomes_another_episode_of_its_family():
    web = Web(tasks=("click-button", "click-link", "login-user"), pages="recorded")
    found = set()
    for seed in range(40):
        [task] = web.family(random.Random(seed), [1], "train")
        new = web.mutate(task, random.Random(seed))
        assert new == web.mutate(task, random.Random(seed)) and new.state.split == "train"
        assert abs(new.level - task.level) <= 1 and new.state.shown is not task.state.shown
        kind = web.origin(task).partition("-")[0]
        assert web.origin(new).startswith(kind)
        found.add((web.origin(task), web.origin(new)))
    assert ("click-button", "click-link") in found and ("click-button", "click-button") in found


def test_a_taskset_that_mutates_into_what_is_held_out_is_told():
    class Leaking(Desk):
        def mutate(self, task, rng):
            return self.family(random.Random(f"{task.level}/eval"), [task.level], "eval")[0]

    wrong = [finding.wrong for finding in conformance(Leaking((1,), widgets=3)) if finding.wrong]
    assert len(wrong) == 1 and "which is held out" in wrong[0]
