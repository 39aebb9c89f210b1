"""Images of observations: names on nodes, bytes once in the run directory, and only those of saved trees."""

from __future__ import annotations

import hashlib
import json

import pytest
from conftest import desk_recipe, fake_desk, lines_of

from forethought.core.errors import UserError
from forethought.core.types import Node, Outcome, Task, Tree
from forethought.envs.base import Environment
from forethought.envs.images import UNREAD, Images, name_of
from forethought.report.trees import load_trees
from forethought.runs import run
from forethought.store import IMAGE, Store
from forethought.tasks import families
from forethought.tasks.desk.taskset import Desk
from forethought.traces.files import read_trees, saved_steps

PNG, JPEG = b"\x89PNG\r\n\x1a\n" + b"one", b"\xff\xd8\xff" + b"two"


def tree(*names):
    nodes = [Node(id=0, parent=None, role=None, text="GOAL", token_ids=(1,))]
    nodes.append(Node(id=1, parent=0, role=None, text="page", token_ids=(2,), images=names))
    return Tree(task=Task(id="t", taskset="made", level=1, context="", prompt="GOAL"), nodes=tuple(nodes))


def test_a_name_is_the_digest_of_the_bytes_and_their_kind():
    images = Images()
    names = images.keep((PNG, JPEG, PNG))
    assert names == (name_of(PNG), name_of(JPEG), name_of(PNG)) and images.seen == 3
    assert names[0] == hashlib.blake2b(PNG).hexdigest()[:32] + ".png" and names[1].endswith(".jpg")
    assert all(IMAGE.fullmatch(name) for name in names) and len(images.by_name) == 2
    assert images.of([tree(names[1])]) == {names[1]: JPEG}
    images.clear()
    assert images.by_name == {} and images.seen == 3


def test_images_are_on_record_and_what_a_killed_run_left_is_removed(tmp_path):
    (tmp_path / "recipe.json").write_text("{}")
    store, (one, two) = Store(tmp_path), (name_of(PNG), name_of(JPEG))
    store.save_images({one: PNG})
    store.save_images({one: PNG})
    assert (tmp_path / "images" / one).read_bytes() == PNG
    assert [row["file"] for row in lines_of(tmp_path / "files.jsonl")] == [f"images/{one}"]
    state = {"step": 1, "logs": {"files.jsonl": (tmp_path / "files.jsonl").stat().st_size}}
    store.save_images({two: JPEG})
    (tmp_path / "images" / ".x.tmp").write_bytes(b"")
    (tmp_path / "images" / "notes.txt").write_text("mine")
    Store(tmp_path).cut_back(state)
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == sorted([one, "notes.txt"])
    (tmp_path / "images" / one).write_bytes(PNG + b"!")
    assert "bytes" in Store(tmp_path).damaged_files(None)[f"images/{one}"]


class Screens(Desk):
    """A stepwise desk whose every answer shows a picture of its own."""

    def environment(self, task, noise):
        inner, shown = super().environment(task, noise), []

        class Screen(Environment):
            def reset(self, task, seed):
                return inner.reset(task, seed)

            def step(self, action):
                shown.append(action)
                answer = inner.step(action)
                if len(shown) > 1:
                    return Outcome(done=True, success=answer.success)
                picture = b"\x89PNG\r\n\x1a\n" + task.id.encode()
                return Outcome(
                    done=False, observation="<obs> </obs>", images=(picture,), parts={"clicked": 1}
                )

        return Screen()


STAGE = {
    "kind": "reinforce",
    "batch": 4,
    "roles": ["act"],
    "tree": {"oracle_plan": True, "acts": 2},
    "until": {"steps": 4},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out, told = tmp_path_factory.mktemp("images") / "run", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(families.TASKSETS, "desk", Screens)
        recipe = desk_recipe(
            STAGE,
            layout="shared",
            task={"name": "desk", "levels": [1, 2], "widgets": 4, "stepwise": True},
            save={"every": 2, "trees_every": 3, "trees": 2},
            probes={"every": 0, "conflict_every": 0},
        )
        run.train(
            recipe, out, lambda e: told.append(e.text) if e.kind == "note" else None, engine_of=fake_desk()
        )
    return out, told


def test_a_run_keeps_the_images_of_its_saved_trees_and_says_once_that_nobody_reads_them(trained):
    out, told = trained
    assert told.count(UNREAD) == 1
    trees = [tree for path in saved_steps(out).values() for tree in read_trees(path, [])]
    assert len(saved_steps(out)) < 4 and trees
    named = {name for one in trees for node in one["nodes"] for name in node.get("images", ())}
    assert named and {path.name for path in (out / "images").iterdir()} == named
    for tree in trees:
        [name] = {name for node in tree["nodes"] for name in node.get("images", ())}
        assert (out / "images" / name).read_bytes().endswith(tree["task"].encode())
        turns = [node for node in tree["nodes"] if node["role"] == "act"]
        assert any(node["reward_parts"].get("clicked") == 1.0 for node in turns)
    assert {f"images/{name}" for name in named} <= Store(out).recorded().keys()


def test_the_report_holds_them_while_there_is_room_and_leaves_out_what_is_not_theirs(trained, monkeypatch):
    out, _ = trained
    names = sorted(path.name for path in (out / "images").iterdir())
    found = load_trees(out, [])["images"]
    assert sorted(found) == names and found[names[0]].startswith("data:image/png;base64,")
    monkeypatch.setattr("forethought.report.images.MOST", 60)
    assert 0 < len(load_trees(out, [])["images"]) < len(names)
    monkeypatch.undo()
    page = (out / "report.html").read_text("utf-8")
    assert "img-src data:" in page and names[0] in page
    original = (out / "images" / names[0]).read_bytes()
    (out / "images" / names[0]).write_bytes(original[:-1] + b"?")
    assert sorted(load_trees(out, [])["images"]) == names[1:]
    (out / "images" / names[0]).write_bytes(original)


@pytest.mark.parametrize("images", ["x.png", ["../recipe.json"], [5], ["a" * 32 + ".gif"]])
def test_names_of_no_images_are_refused_where_trees_are_read(trained, tmp_path, images):
    import gzip

    record = {"step": 1, "nodes": [{"id": 0, "parent": None, "text": "", "images": images}]}
    path = tmp_path / "step-000001.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps(record) + "\n")
    with pytest.raises(UserError, match="'images' must be a list of names of images"):
        read_trees(path, [])
