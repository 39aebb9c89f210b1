"""Environments of Gymnasium (1.x): `gym:CartPole-v1`, `gym:package.module:Name-v0`, `gym:file.py:Class`.

Options of the task table:
    make        arguments of `gymnasium.make`, or of the class: make = { is_slippery = false }
    actions     names of the actions of a Discrete space, in order: ["left", "right"]
    template    what the model reads of an observation, with its fields: "at {observation}", "{text}",
                "cart {observation[0]:+.1f}"
    observe     a function of the observation that gives that text: "file.py:function"
    decimals    of real numbers in observations (2)
    dialect     "browsergym": an action is one of its strings, such as click('a12'); it is read by
                `interface.actions`, never evaluated, and written anew for the environment
    level       name under which `reset(options=...)` gets the task's level; absent: it does not

An episode is `make`, `reset(seed=...)`, steps, `close`. Its return is the sum of its rewards. `terminated`
and `truncated` stay apart: both end the episode, and the reward parts of their names say which it was.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forethought.core.errors import RecipeError, UserError, unknown
from forethought.core.named import load_named
from forethought.core.places import described
from forethought.envs.adapters.base import Adapter, Answer, Shown
from forethought.envs.adapters.options import Options
from forethought.envs.adapters.packages import missing
from forethought.envs.adapters.spaces import Acts
from forethought.envs.adapters.tell import Teller
from forethought.envs.values import WrongType, need
from forethought.interface.actions import DIALECTS, SIGNATURES
from forethought.interface.result import Parsed, Refusal

WHERE = "task.environment"
UNKNOWN = ("NameNotFound", "NamespaceNotFound", "VersionNotFound", "UnregisteredEnv")
PLAYED = 4  # episodes of random actions from which a tokenizer learns how observations are written
STEPS = 50  # of each


class Gym(Adapter):
    """An adapter of one registered environment or class."""

    def __init__(self, rest: str, options: Options, kind: Callable[..., Any] | None = None):
        """`kind`: the class that `rest` names, where somebody has found it already."""
        self.reference, self.kind = rest, kind or _class(rest)
        self._arguments, self._level = options.mapping("make"), options.text("level")
        self.teller, names = Teller(options), options.names("actions")
        self._dialect = options.chosen("dialect", "space", ("space", "browsergym"))
        env = self.make()
        try:
            self.name = rest.rpartition(":")[2] or rest
            self._read_spaces(env, names, options)
            spec = getattr(env, "spec", None)
            self.turns = int(getattr(spec, "max_episode_steps", None) or 0)
            best = getattr(spec, "reward_threshold", None)
            self.threshold = float(best) if best is not None else 1.0
        finally:
            _close(env)

    def _read_spaces(self, env: Any, names: tuple[str, ...], options: Options) -> None:
        for name in ("action_space", "observation_space", "reset", "step"):
            if not hasattr(env, name):
                raise RecipeError(WHERE, f"{self.reference} has no {name}, so it is no gymnasium environment")
        try:
            self.acts: Acts | Strings = (
                Strings() if self._dialect == "browsergym" else Acts(env.action_space, names)
            )
        except UserError as error:
            raise RecipeError(options.address("actions") if names else WHERE, str(error)) from None
        if self.acts.kind == "Discrete":
            self.budget = max(len(name.encode()) for name in self.acts.names) + 2
        self.teller.check(env.observation_space.sample(), WHERE)

    def make(self) -> Any:
        """A new environment. RecipeError where there is none of this name, or making it raises."""
        gymnasium = _gymnasium()
        try:
            if self.kind is not None:
                return self.kind(**self._arguments)
            return gymnasium.make(self.reference, disable_env_checker=True, **self._arguments)
        except gymnasium.error.Error as error:
            if type(error).__name__ not in UNKNOWN:
                raise RecipeError(WHERE, f"{self.reference} cannot be made: {error}") from None
            known = list(gymnasium.registry)
            raise RecipeError(WHERE, unknown("gymnasium environment", self.reference, known)) from None
        except Exception as error:
            said = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            raise RecipeError(WHERE, f"{self.reference} cannot be made: {said}") from None

    def session(self) -> GymSession:
        """A fresh environment, which `reset` makes."""
        return GymSession(self)

    def instruction(self) -> str:
        """How an action is written."""
        return f"Answer each observation with one action, and nothing else: {self.acts.told()}."

    def read(self, text: str) -> Parsed | Refusal:
        """An action of the space."""
        return self.acts.read(text)

    def sample(self, rng: random.Random) -> str | None:
        """A random action of a Discrete space."""
        return rng.choice(self.acts.names) if self.acts.names else None

    def marks(self) -> list[str]:
        """The names of the actions."""
        return list(self.acts.names)

    def texts(self) -> list[str]:
        """Observations of a few episodes of random actions."""
        texts, env = [], self.make()
        try:
            for number in range(PLAYED):
                env.action_space.seed(number)
                texts.append(self.teller.tell(_reset(env, number, self.options_of(min(1, number)))[0]))
                for _ in range(STEPS):
                    observation, _, terminated, truncated, _ = _step(env, env.action_space.sample())
                    texts.append(self.teller.tell(observation))
                    if terminated or truncated:
                        break
        finally:
            _close(env)
        return texts

    def options_of(self, level: int) -> dict[str, int] | None:
        """What `reset` gets as options."""
        return {self._level: level} if self._level else None


class Strings:
    """Reads the action strings of BrowserGym: one call, of its own actions."""

    kind = "Text"
    names: tuple[str, ...] = ()

    def told(self) -> str:
        """How an action is written, in words."""
        return f"one call of {', '.join(SIGNATURES)}, such as click('a12') or fill('a12', 'text')"

    def read(self, text: str) -> Parsed | Refusal:
        """The same action as BrowserGym's own writing has it, so that nothing the model wrote passes on."""
        read = DIALECTS["browsergym"].parse(text.strip())
        return read if isinstance(read, Refusal) else Parsed(DIALECTS["browsergym"].render(read.value))


class GymSession:
    """One episode."""

    def __init__(self, adapter: Gym):
        self._adapter = adapter
        self._env: Any = None

    def reset(self, seed: int, level: int) -> Shown:
        """Make and reset the environment."""
        self._env = self._adapter.make()
        observation, _ = _reset(self._env, seed, self._adapter.options_of(level))
        return Shown(text=self._adapter.teller.tell(observation))

    def step(self, action: Any) -> Answer:
        """One step of the environment."""
        observation, reward, terminated, truncated, _ = _step(self._env, action)
        return Answer(
            text=self._adapter.teller.tell(observation),
            reward=reward.item() if hasattr(reward, "item") else reward,
            terminated=bool(terminated),
            truncated=bool(truncated),
        )

    def close(self) -> None:
        """Close the environment, if it was made and can be."""
        if self._env is not None:
            _close(self._env)


def _gymnasium() -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise missing(WHERE, "gymnasium", "gym", error) from None
    return gymnasium


def _class(rest: str) -> Callable[..., Any] | None:
    """A class or function of the user's own that `rest` names; None: it is an id of the registry."""
    origin, colon, name = rest.rpartition(":")
    if not colon or not (origin.endswith(".py") or name.isidentifier()):
        return None  # package.module:Name-v0 is gymnasium's own way to name one
    found = load_named(rest, Path.cwd(), WHERE)
    if not callable(found):
        raise RecipeError(WHERE, f"{rest} is no class, but {described(found)}")
    return found


def _reset(env: Any, seed: int, options: dict[str, int] | None) -> tuple[Any, Any]:
    found = env.reset(seed=seed, options=options)
    if not isinstance(found, tuple) or len(found) != 2:
        raise WrongType(f"gave {_shape(found)} from reset, not (observation, info)")
    return found


def _step(env: Any, action: Any) -> tuple[Any, Any, Any, Any, Any]:
    found = env.step(action)
    if not isinstance(found, tuple) or len(found) != 5:
        raise WrongType(
            f"gave {_shape(found)} from step, not (observation, reward, terminated, truncated, info)"
        )
    for name, value in (("terminated", found[2]), ("truncated", found[3])):
        need(type(value).__name__ in ("bool", "bool_"), value, "True or False", name)
    return found


def _shape(found: Any) -> str:
    return f"{len(found)} values" if isinstance(found, tuple) else f"a {type(found).__name__}"


def _close(env: Any) -> None:
    if callable(close := getattr(env, "close", None)):
        close()
