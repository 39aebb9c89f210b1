"""A class of one's own as the task: what it shows, how it is refused, what of it breaks and is counted."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from adapters_kit import broken, first, made, played, refused

from forethought.core.types import Outcome
from forethought.envs.adapters import ADAPTERS
from forethought.envs.adapters.base import Answer
from forethought.envs.adapters.own import Own
from forethought.envs.adapters.packages import missing
from forethought.recipe.convert import from_dict
from forethought.recipe.paths import anchored, files

SOURCE = """
import asyncio, random
from forethought.core.types import Outcome

class Door:
    turns = 3
    def reset(self, task, seed):
        self.open = random.Random(seed).choice(["left", "right"])
        return f"level {task.level}: the {self.open} door is open"
    def step(self, action):
        return Outcome(done=action == self.open, success=action == self.open, observation="closed")

class Waits(Door):
    async def step(self, action):
        await asyncio.sleep(0)
        return Door.step(self, action)
    async def reset(self, task, seed):
        return Door.reset(self, task, seed)

class Silent:
    def step(self, action):
        return Outcome(done=True)

class NoStep:
    def reset(self, task, seed):
        return "hello"

class Raises(Door):
    def __init__(self):
        raise OSError("no such device")

class Nan(Door):
    def step(self, action):
        return Outcome(done=True, success=True, score=float("nan"))

class Wrong(Door):
    def step(self, action):
        return "ok", 1.0, True

class Pair(Door):
    def __init__(self, width, height=2):
        self.size = width * height
    def reset(self, task, seed):
        return f"size {self.size}"

NUMBER = 3
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch) -> str:
    (tmp_path / "env.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return "env.py"


@pytest.mark.parametrize("name", ["Door", "Waits"])
def test_a_task_is_what_the_environment_shows_first(file, name):
    taskset = made(f"{file}:{name}", actions=["left", "right"], levels=(2, 5))
    task = first(taskset, level=5)
    assert taskset.messages(task) == [
        {
            "role": "system",
            "content": "Answer each observation with one action, and nothing else: left, right.",
        },
        {"role": "user", "content": task.prompt.strip().rpartition("\n")[2]},
    ]
    assert "level 5: the " in task.prompt and task.level == 5 and taskset.turns == 3
    right = "left" if "left door is open" in task.prompt else "right"
    wrong = {"left": "right", "right": "left"}[right]
    # every episode of a task begins alike
    for _ in range(3):
        assert [o.success for o in played(taskset, task, [wrong, right])] == [False, True]
    taskset.close()


def test_the_splits_have_different_seeds_and_draws_repeat(file):
    taskset = made(f"{file}:Door")
    seeds = {
        split: {first(taskset, seed, split=split).state.seed for seed in range(50)}
        for split in ("train", "eval")
    }
    assert not seeds["train"] & seeds["eval"] and len(seeds["train"]) == 50
    assert first(taskset, 7) == first(taskset, 7)


def test_the_last_turn_ends_the_episode(file):
    taskset = made(f"{file}:Door", turns=2)
    task = first(taskset)
    wrong = "right" if "left" in task.prompt else "left"
    *_, last = played(taskset, task, [wrong] * 5)
    assert last.done and not last.success and last.reason == "no end within 2 turns"


def test_a_turn_that_is_no_action_is_told_or_ends_the_episode(file):
    taskset = made(f"{file}:Door", actions=["left", "right"])
    told, *_ = played(taskset, first(taskset), ["up"])
    reason = "word 1: found 'up', expected left or right"
    assert not told.done and told.observation == f"That is no action. {reason}"
    assert told.parts == {"legal": 0.0, "reward": 0.0} and told.reason == f"no action: {reason}"
    taskset = made(f"{file}:Door", actions=["left", "right"], invalid="ends")
    [ended] = played(taskset, first(taskset), ["up"])
    assert ended.done and not ended.success and ended.score == 0.0 and ended.parts["truncated"] == 1.0


def test_random_actions_are_shown_where_they_are_known(file):
    taskset = made(f"{file}:Door", actions=["left", "right"])
    assert taskset.all_demonstrable
    turns = taskset.demonstrate(first(taskset))
    assert {turn.text for turn in turns if turn.role == "act"} <= {"left", "right"} and turns[-1].role
    assert taskset.demonstrate(first(taskset)) == turns
    # they know no more than chance, though the environment draws its door from the task's seed
    tasks = [first(taskset, seed) for seed in range(200)]
    right = sum(f"the {taskset.demonstrate(task)[0].text} door" in task.prompt for task in tasks)
    assert 70 < right < 130
    assert not made(f"{file}:Door").all_demonstrable  # nobody knows what an action is
    assert not made(f"{file}:Waits", actions=["left"]).all_demonstrable
    assert not made(
        f"{file}:Door", actions=["left", "right"], plan="tags"
    ).all_demonstrable  # nor what a plan is


def test_plans_stand_between_tags(file):
    taskset = made(f"{file}:Door", plan="tags", actions=["left", "right"])
    task = first(taskset)
    assert taskset.opens == {"plan": "<plan>"} and taskset.stops == {"act": "", "plan": "</plan>"}
    assert "First write a plan between <plan> and </plan>" in task.prompt
    assert taskset.parse_plan(task, "Try the left one. </plan>").score == 1.0
    assert taskset.parse_plan(task, " </plan>").score == 0.0
    assert taskset.parse_plan(task, "no end").score == 0.0
    assert made(f"{file}:Door").stops == {"act": ""}


def test_arguments_and_prompts_of_the_recipe(file):
    taskset = made(f"{file}:Pair", make={"width": 4}, prompt="Find the door.", system="")
    assert first(taskset).prompt == "Find the door.\n\nsize 8\n\n" and taskset.system == ""
    assert made(f"{file}:Silent", prompt="Say hello.").family.__self__ is not None
    assert first(made(f"{file}:Silent", prompt="Say hello.")).prompt == "Say hello.\n\n"
    # a class without reset and close is one
    taskset = made(f"{file}:Silent", prompt="Say hello.")
    assert [o.done for o in played(taskset, first(taskset), ["hello"])] == [True]


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        ("", {}, 'task.environment: missing; name one, such as "gym:FrozenLake-v1"'),
        ("CartPole-v1", {}, "unknown environment 'CartPole-v1'"),
        ("CartPole-v1", {}, "write gym:CartPole-v1, or file.py:Class"),
        ("gym:", {}, "'gym:' names nothing; write gym:ID, or gym:file.py:Class"),
        ("nothere.py:Env", {}, "nothere.py does not exist"),
        ("env.py:Dor", {}, "env.py has no Dor: unknown name 'Dor'; did you mean 'Door'?"),
        ("env.py:NUMBER", {}, "env.py:NUMBER is no class, but 3"),
        ("env.py:NoStep", {}, "env.py:NoStep has no method step(action)"),
        ("env.py:Door", {"turn": 3}, "task.turn: unknown option of this environment 'turn'"),
        ("env.py:Door", {"turns": -1}, "task.turns: expected a whole number from 0, found -1"),
        ("env.py:Door", {"plan": "maybe"}, "task.plan: unknown value 'maybe' (known: none, steps, tags)"),
        ("env.py:Door", {"threshold": "high"}, "task.threshold: expected a number, found 'high'"),
        ("env.py:Door", {"actions": ["a", "a"]}, "task.actions: a text stands twice"),
        ("env.py:Door", {"actions": "left"}, "task.actions: expected a list of texts, found 'left'"),
        ("env.py:Door", {"budgets": {"plan": 3}}, "task.budgets.plan: unknown role; this task has act"),
        ("env.py:Door", {"budgets": {"act": 0}}, "task.budgets.act: 0 is not a number of tokens"),
        ("env.py:Door", {"make": 3}, "task.make: expected a table, found 3"),
        ("env.py:Door", {"template": "x"}, "task.template: unknown option of this environment"),
    ],
)
def test_a_mistake_of_the_recipe_is_said_with_its_address(file, reference, options, message):
    assert message in refused(reference, **options)


def test_what_an_environment_does_wrong_is_a_fault_at_its_boundary(file):
    nan = made(f"{file}:Nan")
    assert "environment: TypeError" in broken(nan, first(nan), ["x"])
    wrong = made(f"{file}:Wrong")
    assert "gave a tuple, not an Outcome" in broken(wrong, first(wrong), ["x"])
    with pytest.raises(OSError, match="no such device"):
        first(made(f"{file}:Raises"))
    with pytest.raises(Exception, match="shows nothing when it is reset: say the task in task.prompt"):
        first(made(f"{file}:Silent"))


def test_a_reward_that_is_no_number_is_no_zero(file):
    class Session:
        def reset(self, seed, level):
            return "x"

        def step(self, action):
            return Answer(reward=math.nan)

        def close(self):
            pass

    class Broken(Own):
        def session(self):
            return Session()

    taskset = made(f"{file}:Door")
    task = first(taskset)
    taskset.adapter.__class__ = Broken
    assert "gave the reward of a step a float, nan, not a finite number" in broken(taskset, task, ["x"])


def test_every_prefix_has_its_module():
    assert set(ADAPTERS) == {"gym", "verifiers", "openenv", "mcp", "trl"}


def test_files_are_taken_from_the_folder_of_the_recipe(tmp_path):
    def task_of(**task):
        recipe = from_dict({"task": {"name": "environment", **task}, "workflow": "act_only"})
        whole = anchored(recipe, tmp_path)
        return whole.task.options, files(whole)

    options, found = task_of(environment="env.py:Door", observe="words.py:tell", rows="a.jsonl")
    assert options["environment"] == f"{tmp_path}/env.py:Door"
    assert options["observe"] == f"{tmp_path}/words.py:tell" and options["rows"] == f"{tmp_path}/a.jsonl"
    assert found["task.environment"] == tmp_path / "env.py"
    assert task_of(environment="trl:env.py:Door")[0]["environment"] == f"trl:{tmp_path}/env.py:Door"
    assert task_of(environment="gym:CartPole-v1") == ({"environment": "gym:CartPole-v1"}, {})
    command = task_of(environment="mcp:python server.py --port 3")[0]["environment"]
    assert command == f"mcp:python {tmp_path}/server.py --port 3"
    for other in ("mcp:http://a.example/server.py", "openenv:http://a.example", "mcp:npx -y thing", "mcp:'"):
        assert task_of(environment=other) == ({"environment": other}, {})


def test_an_outcome_of_ones_own_is_passed_on_as_it_is(file, tmp_path):
    (tmp_path / "half.py").write_text(
        "from forethought.core.types import Outcome\n"
        "class Half:\n"
        "    def reset(self, task, seed):\n"
        "        return 'x'\n"
        "    def step(self, action):\n"
        "        return Outcome(done=True, success=False, score=0.5, parts={'mine': 2.0}, reason='half')\n",
        encoding="utf-8",
    )
    taskset = made("half.py:Half")
    assert played(taskset, first(taskset), ["x"]) == [
        Outcome(done=True, success=False, score=0.5, parts={"mine": 2.0}, reason="half")
    ]


@pytest.mark.parametrize(
    ("reference", "package", "extra"),
    [
        ("gym:CartPole-v1", "gymnasium", "gym"),
        ("mcp:python server.py", "mcp", "mcp"),
        ("openenv:http://127.0.0.1:9", "openenv", "openenv"),
        ("verifiers:x", "verifiers", "verifiers"),
    ],
)
def test_a_package_that_is_not_installed_names_its_extra(monkeypatch, reference, package, extra):
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    assert refused(reference) == (
        f"task.environment: {extra}: needs the package {package}, which is not installed; "
        f'pip install "forethought[{extra}]"'
    )


def test_a_package_that_is_broken_says_so():
    error = missing("task.environment", "openenv", "openenv", ImportError("no client support"))
    assert "the package openenv is installed, but importing it raised ImportError: no client support" in str(
        error
    )
