"""Classes that TRL takes as environments: their methods as tools, with the schemas that TRL makes of them."""

from __future__ import annotations

import json

import pytest
from adapters_kit import EXAMPLES, broken, first, made, played, refused

from forethought.core.named import load_named
from forethought.envs.adapters.trl import _tools
from forethought.interface.result import Parsed

LAMP = f"trl:{EXAMPLES / 'trl_environment' / 'lamp.py'}:Lamp"
END = '{"name": "finish"}'

ODD = '''
from typing import Any, Literal, Optional

class Shelf:
    """Many kinds of arguments."""

    def reset(self, text="", wants=None, **row):
        self.row = row
        return [{"role": "user", "content": text}] if text else None

    def move(self, item: str, row: int, sure: bool = False, tags: list[str] | None = None,
             weight: Optional[float] = None, how: Literal["fast", "slow"] = "fast", more: Any = None) -> str:
        """Move an item
        to a row.

        Args:
            item: The item,
                by its name.
            row: The row.
            sure: Whether you are.
            tags: What is written on it.
            weight: In kilograms.
            how: The speed.
            more: Anything else.

        Returns:
            What is there now.
        """
        return f"{item} {row} {sure} {tags} {weight} {how} {more}"

    async def wait(self) -> int:
        """Wait a little."""
        return 3

    def drop(self) -> None:
        """Drop all."""
        raise RuntimeError("it broke")

    def _private(self):
        pass

class Judged(Shelf):
    def get_reward(self):
        return float("nan")

class NoReset:
    def move(self, x: str) -> str:
        """Move."""

class NoDoc:
    def reset(self): pass
    def move(self, x: str) -> str:
        return x

class NoHint:
    def reset(self): pass
    def move(self, x) -> str:
        """Move."""

class Stars:
    def reset(self): pass
    def move(self, *xs: str) -> str:
        """Move."""

class Strange:
    def reset(self): pass
    def move(self, x: bytes) -> str:
        """Move."""

class NoTools:
    def reset(self): pass

class Number(Shelf):
    def reset(self, **row):
        return 3

def function():
    pass
'''


@pytest.fixture
def odd(tmp_path, monkeypatch):
    (tmp_path / "env.py").write_text(ODD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(name: str, **arguments) -> str:
    return json.dumps({"name": name, "arguments": arguments})


def test_an_episode_of_the_example():
    taskset = made(LAMP, turns=4)
    task = first(taskset)
    goal = "red" if "the red lamp" in task.prompt else "blue"
    other = {"red": "blue", "blue": "red"}[goal]
    assert '- press(lamp: "red" | "blue"): Press the button of a lamp' in taskset.system
    seen, end = played(taskset, task, [call("press", lamp=goal), END])
    assert seen.observation == f"On: {goal}." and end.success and end.score == 1.0
    assert played(taskset, task, [call("press", lamp=other), END])[-1].score == 0.0
    late = played(taskset, task, [call("press", lamp=goal)] * 4)[-1]
    assert late.done and late.score == 0.0 and late.parts["truncated"] == 1.0  # on, off, on, off


def test_schemas_are_those_that_transformers_makes_for_trl(odd):
    utils = pytest.importorskip("transformers.utils")
    for reference in ("env.py:Shelf", LAMP.removeprefix("trl:")):
        made_class = load_named(reference, odd, "x")
        for tool in _tools(made_class, reference):
            known = utils.get_json_schema(getattr(made_class(), tool.name))["function"]
            assert tool.name == known["name"]
            assert tool.description == " ".join(known["description"].split())
            ours, theirs = tool.schema["properties"], known["parameters"].get("properties", {})
            assert list(ours) == list(theirs)
            assert tool.schema["required"] == known["parameters"].get("required", [])
            for name, inner in theirs.items():
                assert ours[name]["description"] == " ".join(inner["description"].split())
                if "enum" in inner or inner.get("type") in ("string", "integer", "boolean"):
                    kind = {k: v for k, v in ours[name].items() if k in ("type", "enum")}
                    assert kind == {k: inner[k] for k in kind}


def test_arguments_of_many_kinds(odd):
    taskset = made("trl:env.py:Shelf", prompt="Tidy up.")
    task = first(taskset)
    acts = [
        call("move", item="cup", row=2, tags=["a"], weight=None, more={"x": 1}),
        call("move", item="cup", row="2"),
        call("wait"),
        call("drop"),
        END,
    ]
    moved, refused_, waited, dropped, end = played(taskset, task, acts)
    assert moved.observation == "cup 2 False ['a'] None fast {'x': 1}"
    assert "row: found '2', expected integer" in refused_.reason
    assert waited.observation == "3"
    # what a tool raises is told to the model, as TRL does
    assert dropped.observation == "error: RuntimeError: it broke" and dropped.parts["tool_error"] == 1.0
    assert end.done and end.score is None and end.success is None and not taskset.judges
    assert "_private" not in taskset.system


def test_rows_are_the_tasks(odd):
    rows = "".join(f'{{"text": "row {i}", "wants": {i}}}\n' for i in range(10))
    (odd / "rows.jsonl").write_text(rows, encoding="utf-8")
    taskset = made("trl:env.py:Shelf", rows="rows.jsonl")
    train, evaluated = taskset.pool(0, "train"), taskset.pool(0, "eval")
    assert [len(train), len(evaluated)] == [8, 2] and evaluated[1].prompt.endswith("row 9\n\n")
    assert taskset.longest(3)[-1].prompt.endswith("\n\n")


def test_calls_between_tags_and_the_name_of_the_end(odd):
    taskset = made(LAMP, calls="tags", finish="done")
    grammar = taskset.adapter.grammar
    text = '<tool_call>{"name": "press", "arguments": {"lamp": "red"}}</tool_call>'
    read = taskset.adapter.read(text)
    assert isinstance(read, Parsed) and grammar.write(read.value) == text
    assert "a turn is one <tool_call>...</tool_call>" in str(taskset.adapter.read(text[11:]))
    assert "character 21: name: found 'finish'" in str(
        taskset.adapter.read('<tool_call>{"name": "finish"}</tool_call>')
    )


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        ("trl:env.py:NoReset", {}, "env.py:NoReset has no reset(**row)"),
        ("trl:env.py:NoDoc", {}, "env.py:NoDoc.move has no docstring"),
        ("trl:env.py:NoHint", {}, "env.py:NoHint.move has no type hint for 'x'"),
        ("trl:env.py:Stars", {}, "env.py:Stars.move takes *xs, which no schema describes"),
        ("trl:env.py:Strange", {}, "env.py:Strange.move.x has the type <class 'bytes'>"),
        ("trl:env.py:NoTools", {}, "no tool is left to call, of none"),
        ("trl:env.py:function", {}, "env.py:function is no class"),
        ("trl:env.py:Shelf", {"rows": "no.jsonl"}, "task.rows: no.jsonl cannot be read"),
        ("trl:env.py:Shelf", {"hide": ["mov"]}, "task.hide: unknown tool 'mov'; did you mean 'move'?"),
        ("trl:env.py:Shelf", {"finish": "move"}, "two tools are called 'move'"),
    ],
)
def test_a_mistake_is_said_before_anything_runs(odd, reference, options, message):
    assert message in refused(reference, **options)


def test_what_a_class_does_wrong_is_a_fault(odd):
    judged = made("trl:env.py:Judged", prompt="x")
    assert "gave the score of an episode a float, nan" in broken(judged, first(judged), [END])
    with pytest.raises(TypeError, match="gave a int, 3, not text, messages or None"):
        first(made("trl:env.py:Number"))


def test_a_plan_may_be_steps_on_the_tools(odd):
    taskset = made(LAMP, plan="steps")
    task = first(taskset)
    assert "a JSON list of steps" in task.prompt and taskset.stops["plan"] == "</plan>"
    good = '[{"op": "press", "value": "red"}, {"op": "finish"}] </plan>'
    assert taskset.parse_plan(task, good).score == 1.0
    wrong = taskset.parse_plan(task, '[{"op": "pres", "value": "red"}] </plan>')
    assert wrong.score == 0.0 and "did you mean 'press'?" in wrong.reason and "character 9" in wrong.reason
    assert taskset.parse_plan(task, "red, then done </plan>").score == 0.0
    (odd / "own.py").write_text("class Own:\n    def step(self, action): pass\n", encoding="utf-8")
    assert "task.plan: Own has no tools, of which steps are made" in refused("own.py:Own", plan="steps")
