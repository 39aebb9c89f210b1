"""Environments of the real gymnasium: spaces in words, exact seeds, ends of both kinds, refusals."""

from __future__ import annotations

import pytest
from adapters_kit import EXAMPLES, broken, first, made, played, refused

from forethought.interface.result import Parsed, Refusal

gymnasium = pytest.importorskip("gymnasium", reason='needs the extra gym: pip install "forethought[gym]"')
spaces = gymnasium.spaces
from forethought.envs.adapters.spaces import Acts, told  # noqa: E402

LAKE = {
    "environment": "gym:FrozenLake-v1",
    "make": {"is_slippery": False},
    "actions": ["left", "down", "right", "up"],
}
WAY = ["down", "down", "right", "right", "down", "right"]


def test_an_episode_in_words():
    taskset = made(**LAKE)
    task = first(taskset)
    assert task.prompt.endswith(": one of: left, down, right, up.\n\n0\n\n")
    *steps, last = played(taskset, task, WAY)
    assert [o.observation for o in steps] == ["4", "8", "9", "10", "14"]
    assert all(o.parts == {"legal": 1.0, "reward": 0.0} for o in steps)
    assert last.success and last.score == 1.0 and last.reason == ""
    assert last.parts == {"legal": 1.0, "reward": 1.0, "terminated": 1.0, "truncated": 0.0}
    # what gymnasium itself says of it
    assert taskset.turns == 100 and taskset.rules.threshold == 0.7 and taskset.budgets == {"act": 7}


def test_it_is_cut_off_or_it_ends_and_both_are_told_apart():
    taskset = made(**LAKE)
    hole = played(taskset, first(taskset), ["right", "down"])[-1]
    assert hole.done and not hole.success and (hole.parts["terminated"], hole.parts["truncated"]) == (1, 0)
    taskset = made(**LAKE, turns=2)
    late = played(taskset, first(taskset), ["left", "left"])[-1]
    assert (late.parts["terminated"], late.parts["truncated"]) == (0, 1)
    assert late.done and late.reason == "no end within 2 turns" and late.score == 0.0
    own = made(**{**LAKE, "make": {"is_slippery": False, "max_episode_steps": 2}}, turns=9)
    late = played(own, first(own), ["left", "left"])[-1]
    assert late.reason == "cut off by the environment" and late.parts["truncated"] == 1


def test_a_seed_gives_the_same_luck_and_the_same_numbers():
    taskset = made("gym:CartPole-v1", actions=["left", "right"])
    task = first(taskset)
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=task.state.seed)
    assert task.prompt.strip().endswith(", ".join(f"{x:.2f}" for x in observation))
    observation, *_ = env.step(1)
    assert played(taskset, task, ["right"])[0].observation == ", ".join(f"{x:.2f}" for x in observation)
    slippery = made(**{**LAKE, "make": {}})
    task = first(slippery)
    assert played(slippery, task, WAY) == played(slippery, task, WAY)


def test_a_template_or_a_function_says_what_is_read(tmp_path, monkeypatch):
    taskset = made("gym:CartPole-v1", template="cart {observation[0]:+.1f}, pole {observation[2]:+.1f}")
    assert "cart " in first(taskset).prompt and "pole " in first(taskset).prompt
    (tmp_path / "words.py").write_text("def side(o):\n    return 'left' if o[2] < 0 else 'right'\n")
    monkeypatch.chdir(tmp_path)
    taskset = made("gym:CartPole-v1", observe="words.py:side", actions=["left", "right"])
    assert first(taskset).prompt.strip().rpartition("\n")[2] in ("left", "right")
    # the pole falls to the right, and where the cart follows it stands longer
    follow = played(taskset, first(taskset), ["right"] * 50)
    assert follow[-1].done and follow[-1].score == float(len(follow))


def test_a_class_of_ones_own_in_its_shape():
    for prefix in ("", "gym:"):
        taskset = made(f"{prefix}{EXAMPLES}/gymnasium/shelf.py:Shelf")
        task = first(taskset)
        goal = task.prompt.strip()[-1]
        assert taskset.messages(task)[1]["content"] == f"Say: move cup to {goal}"
        wrong, right = played(taskset, task, ["move cup", f"move cup to {goal}"])
        assert wrong.observation == "Nothing moves." and right.success


@pytest.mark.parametrize(
    ("space", "text", "action"),
    [
        (spaces.Discrete(3), "2", 2),
        (spaces.Discrete(3, start=5), " 7\n", 7),
        (spaces.MultiDiscrete([2, 3]), "1 2", [1, 2]),
        (spaces.MultiBinary(3), "1 0 1", [1, 0, 1]),
        (spaces.Box(-1, 1, (2,)), "0.5 -1", [0.5, -1.0]),
        (spaces.Box(-1, 1, ()), "0.25", 0.25),
        (spaces.Box(0, 9, (2,), dtype="int32"), "3 4", [3, 4]),
        (spaces.Text(5, charset="abc"), "cab", "cab"),
        (
            spaces.Dict({"gear": spaces.Discrete(3), "steer": spaces.Box(-1, 1, (1,))}),
            '{"steer": [0.5], "gear": 2}',
            {"gear": 2, "steer": [0.5]},
        ),
    ],
)
def test_actions_are_read_as_the_space_has_them(space, text, action):
    read = Acts(space).read(text)
    assert isinstance(read, Parsed) and space.contains(read.value)
    plain = read.value
    if isinstance(plain, dict):
        plain = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in plain.items()}
    assert (plain.tolist() if hasattr(plain, "tolist") else plain) == action


@pytest.mark.parametrize(
    ("space", "text", "refusal"),
    [
        (spaces.Discrete(3), "3", "word 1: found '3', expected 0, 1 or 2"),
        (spaces.Discrete(3), "go 1", "found 'go 1'"),
        (spaces.MultiDiscrete([2, 3]), "1", "character 1: 1 items, expected 2 to 2"),
        (spaces.MultiDiscrete([2, 3]), "1 3", "word 2: 3 is not within 0 to 2"),
        (spaces.MultiDiscrete([2, 3]), "1 a", "character 3: found 'a', expected a JSON value"),
        (spaces.Box(-1, 1, (2,)), "0.5 2", "word 2: 2 is not within -1 to 1"),
        (spaces.Box(-1, 1, (2,)), "0.5 nan", "character 5: found 'n', expected a JSON value"),
        (spaces.Box(-1, 1, (2,)), "", "0 items, expected 2 to 2"),
        (spaces.Text(3, charset="ab"), "abca", "4 characters, expected 1 to 3"),
        (spaces.Text(3, charset="ab"), "abx", "character 3: 'x' is none of the characters"),
        (spaces.Dict({"a": spaces.Discrete(2)}), "{}", "character 1: 'a' is missing"),
        (spaces.Dict({"a": spaces.Discrete(2)}), '{"a": 2}', "character 7: a: 2 must be at most 1"),
    ],
)
def test_what_is_no_action_is_refused(space, text, refusal):
    read = Acts(space).read(text)
    assert isinstance(read, Refusal) and refusal in str(read)


def test_observations_are_told():
    import numpy

    assert told(numpy.float32(0.125), 2) == "0.12" and told(numpy.int64(3), 2) == "3"
    assert told({"text": "hello"}, 2) == "hello"
    assert told({"at": numpy.array([1.0, 2.5]), "key": True}, 1) == "at: 1.0, 2.5\nkey: True"
    assert told((1, numpy.array([[1, 2], [3, 4]])), 0) == "1\n1, 2\n3, 4"


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        (
            "gym:CartPole-v7",
            {},
            "task.environment: unknown gymnasium environment 'CartPole-v7'; did you mean",
        ),
        ("gym:FrozenLak-v1", {}, "did you mean 'FrozenLake-v1'?"),
        ("gym:no_such_module:Env-v0", {}, "no_such_module:Env-v0 cannot be made: ModuleNotFoundError"),
        ("gym:Cart Pole", {}, "Cart Pole cannot be made: Malformed environment ID"),
        ("gym:CartPole-v1", {"make": {"wheels": 3}}, "CartPole-v1 cannot be made: TypeError"),
        ("gym:CartPole-v1", {"actions": ["left"]}, "task.actions: 1 names for 2 actions"),
        ("gym:Pendulum-v1", {"actions": ["left"]}, "task.actions: names are for a Discrete space"),
        ("gym:CartPole-v1", {"template": "{speed}"}, "task.template: '{speed}' cannot be filled (KeyError"),
        ("gym:CartPole-v1", {"template": "{observation[9]}"}, "cannot be filled (IndexError"),
        ("gym:CartPole-v1", {"template": "{"}, "cannot be filled (ValueError"),
        ("gym:CartPole-v1", {"decimals": 1.5}, "task.decimals: expected a whole number from 0"),
        ("gym:env.py:Picture", {}, "an observation of 12,288 numbers, more than 512"),
        ("gym:env.py:Matrix", {}, "an action of shape (2, 2) cannot be written as text"),
        ("gym:env.py:Graph", {}, "cannot be written as text; wrap it in one of Discrete, Box, Text"),
        ("gym:env.py:NoSpaces", {}, "env.py:NoSpaces has no action_space"),
        ("gym:env.py:Boom", {}, "env.py:Boom cannot be made: RuntimeError: no license"),
    ],
)
def test_a_mistake_is_said_before_anything_runs(odd, reference, options, message):
    assert message in refused(reference, **options)


ODD = """
import gymnasium
from gymnasium import spaces

class Base(gymnasium.Env):
    action_space = spaces.Discrete(2)
    observation_space = spaces.Discrete(4)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}
    def step(self, action):
        return 0, 0.0, False, False, {}

class Picture(Base):
    observation_space = spaces.Box(0, 255, (64, 64, 3), dtype="uint8")

class Matrix(Base):
    action_space = spaces.Box(0, 1, (2, 2))

class Graph(Base):
    action_space = spaces.Sequence(spaces.Discrete(2))

class NoSpaces:
    def reset(self, seed=None, options=None):
        return 0, {}

class Boom(Base):
    def __init__(self):
        raise RuntimeError("no license")

class Old(Base):
    def step(self, action):
        return 0, 0.0, True, {}

class OldReset(Base):
    def reset(self, *, seed=None, options=None):
        return 0

class Nan(Base):
    def step(self, action):
        return 0, float("nan"), True, False, {}

class Maybe(Base):
    def step(self, action):
        return 0, 1.0, "yes", False, {}

class Thing(Base):
    def step(self, action):
        return object(), 1.0, False, False, {}

class Levels(Base):
    def reset(self, *, seed=None, options=None):
        return options["size"], {}

word = "it's"

class Browser(Base):
    action_space = gymnasium.spaces.Space()
    def step(self, action):
        return 0, float(action == f'fill({"a1"!r}, {word!r})'), True, False, {}

class NoClose:
    action_space = spaces.Discrete(2)
    observation_space = spaces.Discrete(4)
    def reset(self, seed=None, options=None):
        return 1, {}
    def step(self, action):
        return 2, 1.0, True, False, {}
"""


@pytest.fixture
def odd(tmp_path, monkeypatch):
    (tmp_path / "env.py").write_text(ODD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("Old", "gave 4 values from step, not (observation, reward, terminated, truncated, info)"),
        ("Nan", "gave the reward of a step a float, nan, not a finite number"),
        ("Maybe", "gave terminated a str, 'yes', not True or False"),
        ("Thing", "an observation of type object: say what the model reads of it"),
    ],
)
def test_what_it_does_wrong_is_a_fault_and_no_reward(odd, name, fault):
    taskset = made(f"gym:env.py:{name}")
    found = broken(taskset, first(taskset), ["1"])
    assert found.startswith("environment: TypeError") and fault in found


def test_a_reset_of_an_old_shape_breaks_where_tasks_are_drawn(odd):
    with pytest.raises(TypeError, match="gave a int from reset, not \\(observation, info\\)"):
        first(made("gym:env.py:OldReset"))


def test_an_environment_without_close_is_one(odd):
    taskset = made("gym:env.py:NoClose")
    assert [o.success for o in played(taskset, first(taskset), ["1"])] == [True]


def test_a_level_is_an_option_of_the_reset(odd):
    taskset = made("gym:env.py:Levels", level="size", levels=(4, 8))
    assert first(taskset, level=8).prompt.endswith("\n\n8\n\n")


def test_action_strings_of_browsergym_are_read_and_written_anew(odd):
    taskset = made("gym:env.py:Browser", dialect="browsergym")
    task = first(taskset)
    assert "one call of click, dblclick, " in taskset.system
    assert played(taskset, task, [" fill( 'a1' ,value = 'it\\'s' ) "])[-1].success
    reasons = [
        o.reason for o in played(taskset, task, ["clic('a1')", "click(f'a1')", "click('a') click('b')"])
    ]
    assert "did you mean 'click'?" in reasons[0] and "found 'f'" in reasons[1] and "call 2" in reasons[2]
    assert "unknown value 'python' (known: browsergym, space)" in refused(
        "gym:env.py:Browser", dialect="python"
    )
    assert "cannot be written as text" in refused("gym:env.py:Browser")
