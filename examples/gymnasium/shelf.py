"""An environment of one's own in Gymnasium's shape, with text: environment = "shelf.py:Shelf"."""

import gymnasium
from gymnasium.spaces import Dict, Text


class Shelf(gymnasium.Env):
    action_space = Text(24, charset="abcdefghijklmnopqrstuvwxyz 123")
    observation_space = Dict({"text": Text(64)})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.goal = int(self.np_random.integers(1, 4))
        return {"text": f"Say: move cup to {self.goal}"}, {}

    def step(self, action):
        done = action == f"move cup to {self.goal}"
        return {"text": "The cup is there." if done else "Nothing moves."}, float(done), done, False, {}
