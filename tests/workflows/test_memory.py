"""Memories of earlier episodes: which is read, that it can be switched off, and where it stands."""

from __future__ import annotations

import json
import random

import pytest

from forethought.core.errors import RecipeError, UserError
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.schema import TreeSpec, WorkflowSpec
from forethought.tasks.desk.taskset import Desk
from forethought.workflows import memory
from forethought.workflows.memory import Kept, Memory, episodic_key, of_trees
from forethought.workflows.rollout import Rollouts

KEPT = [
    Kept("narrative", "book a flight to Rome", "search, then pay"),
    Kept("narrative", "delete the mail of Ann", "open, then trash"),
    Kept("episodic", episodic_key("book a flight to Rome", "search"), "type Rome"),
]


def test_the_nearest_other_memory_is_read():
    found = Memory(KEPT)
    assert found.recall("narrative", "Book a flight to Oslo") == "search, then pay"
    assert found.recall("narrative", "the mail of Kim") == "open, then trash"
    assert found.recall("narrative", "nothing alike") == ""
    # never that of the same task: the next one, where it has something in common
    assert found.recall("narrative", "book a flight to Rome") == ""
    assert found.recall("episodic", episodic_key("book a flight to Oslo", "search")) == "type Rome"


@pytest.mark.parametrize("kind", ["narrative", "episodic"])
def test_each_kind_can_be_switched_off(kind):
    found = Memory(KEPT, **{kind: False})
    asked = {"narrative": "book a train", "episodic": "book a flight\nsearch"}
    assert found.recall(kind, asked[kind]) == ""
    (other,) = asked.keys() - {kind}
    assert found.recall(other, asked[other])


def test_files_are_read_as_written_and_wrong_lines_are_named(tmp_path):
    path = tmp_path / "memory.jsonl"
    assert memory.write(path, KEPT) == 3 and memory.read(path) == KEPT
    for line in ("{}", "[1]", "no", json.dumps({"kind": "other", "key": "a", "text": "b"})):
        path.write_text(f"{json.dumps({'kind': 'narrative', 'key': 'a', 'text': 'b'})}\n{line}\n")
        with pytest.raises(UserError, match=r"line 2: no memory"):
            memory.read(path)
    with pytest.raises(UserError, match="cannot be read"):
        memory.read(tmp_path / "nowhere")


def test_other_ends_of_lines_stay_in_their_text_and_empty_lines_are_none(tmp_path):
    path, odd = tmp_path / "memory.jsonl", [Kept("narrative", "a\u2028b", "c\x85d\x0ce")]
    memory.write(path, odd)
    path.write_text(path.read_text("utf-8") + "\n", "utf-8")
    assert memory.read(path) == odd


def test_the_command_says_what_has_nothing_to_remember_and_writes_nothing(tmp_path, capsys, monkeypatch):
    out = tmp_path / "memory.jsonl"
    assert memory.main([str(tmp_path / "nowhere"), "--out", str(out)]) == 2
    assert capsys.readouterr().err.strip().endswith("nowhere has no saved rollouts (trees/step-N.jsonl.gz)")
    (tmp_path / "trees").mkdir()
    (tmp_path / "trees" / "step-1.jsonl.gz").touch()
    for outcome, code in ((0.0, 2), (1.0, 0)):
        monkeypatch.setattr(memory, "read_trees", lambda path, notes, o=outcome: [tree(o)])
        assert memory.main([str(tmp_path), "--out", str(out)]) == code and out.exists() == (code == 0)
    assert memory.main([str(tmp_path), "--out", str(tmp_path)]) == 2  # a folder
    assert len(memory.read(out)) == 2


def tree(outcome: float) -> dict:
    node = lambda parent, role, text, **parts: {  # noqa: E731
        "parent": parent,
        "role": role,
        "text": text,
        "reward_parts": parts,
    }
    return {
        "context": "the screen",
        "prompt": "GOAL a",
        "nodes": [
            node(None, None, "..."),
            node(0, "plan", "wrong"),
            node(0, "plan", "a b"),
            node(2, "act", "one"),
            node(3, None, "seen"),
            node(4, "act", "two", outcome=outcome),
        ],
    }


def test_what_succeeded_is_kept():
    assert list(of_trees([tree(0.0), tree(1.0)])) == [
        Kept("narrative", "the screen GOAL a", "a b"),
        Kept("episodic", "the screen GOAL a\na b", "one two"),
    ]


def play(tmp_path, **options):
    desk = Desk((1,), widgets=4)
    roles = ("plan", "act")
    path = tmp_path / "memory.jsonl"
    tasks = desk.family(random.Random(0), [1], "train")
    [task] = tasks
    key = f"{task.context} {task.prompt}"
    memory.write(
        path,
        [
            Kept("narrative", f"{key} v1", "a </plan>"),
            Kept("episodic", episodic_key(f"{key} v1", desk.oracle_plan(task)), "b </act>"),
        ],
    )
    memory._opened.cache_clear()
    script = lambda policy, text, i, seed: desk.oracle_plan(task) if text.endswith("<plan>") else "x1 </act>"  # noqa: E731
    engine = FakeEngine(desk.words(roles), {role: desk.stop(role) for role in roles}, script=script)
    spec = WorkflowSpec(name="remembering", options={"memory": str(path)} | options)
    rollouts = Rollouts(engine, desk, spec)
    [grown] = rollouts.grow(
        tasks, TreeSpec(counts={"plan": 1, "act": 1}), dict.fromkeys(roles, "base"), seed=0
    )
    return [(node.role, node.text) for node in grown.nodes]


def test_a_narrative_stands_before_the_plan_and_an_episode_before_the_acts(tmp_path):
    nodes = play(tmp_path)
    roles = [role for role, _ in nodes]
    assert roles[-3:] == ["plan", None, "act"] or roles == [None, None, "plan", None, "act"]
    before = " ".join(text for _, text in nodes[: roles.index("plan")])
    assert before.count("<plan>") == 1 and before.endswith("a </plan> <plan>")
    assert nodes[roles.index("act") - 1] == (None, "b </act>")


def test_switched_off_nothing_is_read(tmp_path):
    nodes = play(tmp_path, narrative=False, episodic=False)
    assert [role for role, _ in nodes] == [None, "plan", "act"]


def test_a_recipe_without_memories_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="workflow.memory"):
        play(tmp_path, memory="")
