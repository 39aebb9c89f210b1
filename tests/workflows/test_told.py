"""A task in words for a model that reads language: one message of its chat template with the rules before it,
shared by all tasks in an update."""

from __future__ import annotations

import random
from functools import cache

import pytest
from chat_kit import engine

from forethought.engines.torch.engine import TorchEngine
from forethought.learn.batches import demonstration_segments, tree_segments
from forethought.recipe.schema import TreeSpec
from forethought.tasks.blocksworld.taskset import Blocksworld
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts

TASKSETS = {
    "desk": lambda: Desk((1, 2), widgets=3, told=True),
    "blocksworld": lambda: Blocksworld((2, 4), wording="language", told=True),
}


@cache
def chatty() -> TorchEngine:
    return engine("qwen2_5")


def rollouts_of(name: str) -> Rollouts:
    return Rollouts(chatty(), TASKSETS[name]())


@pytest.mark.parametrize("name", TASKSETS)
def test_the_prompt_is_the_models_own_template(name):
    rollouts = rollouts_of(name)
    [task] = rollouts.taskset.family(random.Random(0), [2], "train")
    tokenizer, ids = chatty().tokenizer, rollouts.words.root_ids(task)
    asked = f"{rollouts.taskset.told}\n\n{task.context} {task.prompt}"
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
    )
    assert chatty().decode(ids) == f"{whole}<plan>"


@pytest.mark.parametrize("name", TASKSETS)
def test_what_every_task_is_told_is_once_in_an_update(name):
    rollouts = rollouts_of(name)
    tasks = rollouts.taskset.family(random.Random(0), [2, 2], "train")
    tasks += rollouts.taskset.family(random.Random(1), [2], "train")
    segments = demonstration_segments(rollouts, tasks, None)
    first = [s for s in segments if s.parent == -1]
    assert len(first) == 1
    assert chatty().decode(first[0].token_ids).endswith(f"{rollouts.taskset.told}\n\n")
    trees = rollouts.grow(tasks, TreeSpec(counts={"plan": 2, "act": 0}), {"plan": "base", "act": "base"}, 0)
    ones = [{n.id: (1.0,) * len(n.token_ids) for n in tree.nodes if n.policy} for tree in trees]
    found = tree_segments(rollouts, trees, ones, "tokens")
    assert sum(s.parent == -1 for s in found) == 1
    for tree in trees:  # every path is as it was sampled
        root = tree.nodes[0].token_ids
        paths = [_path(found, at) for at, s in enumerate(found) if s.stream]
        assert any(path[: len(root)] == root for path in paths)


def _path(segments, at: int) -> tuple[int, ...]:
    ids: tuple[int, ...] = ()
    while at >= 0:
        ids, at = segments[at].token_ids + ids, segments[at].parent
    return ids
