"""An OpenEnv server of one's own: guess a number. Run: python server.py PORT, then train recipe.toml."""

import random
import sys

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_app


class Guess(Action):
    number: int


class Hint(Observation):
    text: str = ""


class Numbers(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, **_):
        self.secret, self.tries = random.Random(seed).randint(1, 8), 0
        return Hint(text="Guess a number from 1 to 8.", done=False)

    def step(self, action, timeout_s=None, **_):
        self.tries += 1
        right = action.number == self.secret
        told = "right" if right else "larger" if action.number < self.secret else "smaller"
        return Hint(text=told, done=right or self.tries == 4, reward=float(right))

    @property
    def state(self):
        return State(step_count=self.tries)


app = create_app(Numbers, Guess, Hint, env_name="numbers", max_concurrent_envs=1024)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
