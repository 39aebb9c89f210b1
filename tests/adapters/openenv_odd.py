"""A server of OpenEnv for tests, which does things wrong, too: python openenv_odd.py PORT SESSIONS."""

import os
import sys

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_app
from pydantic import Field


class Do(Action):
    what: str = Field(..., description="what to do")
    times: int = 1


class Seen(Observation):
    text: str = ""
    level: int = 0


class Odd(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, level=0, **_):
        self.seed = seed
        return Seen(text=f"seed {seed}", level=level, done=False)

    def step(self, action, timeout_s=None, **_):
        if action.what == "die":
            os._exit(3)
        if action.what == "fail":
            raise ValueError("no hands")
        if action.what == "hang":
            import time

            time.sleep(20)
        reward = {"win": 1.0, "half": 0.5, "nan": float("nan")}.get(action.what)
        return Seen(text=action.what * action.times, done=action.what in ("win", "lose"), reward=reward)

    @property
    def state(self):
        return State()


app = create_app(Odd, Do, Seen, env_name="odd", max_concurrent_envs=int(sys.argv[2]))

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
