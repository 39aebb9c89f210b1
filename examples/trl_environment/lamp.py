"""An environment in TRL's shape: its public methods are tools. `GRPOTrainer(environment_factory=Lamp)` takes
the same class."""

import random
from typing import Literal


class Lamp:
    def reset(self, seed: int = 0, **row) -> str:
        self.goal, self.lit = random.Random(seed).choice(["red", "blue"]), set()
        return f"Turn the {self.goal} lamp on, and no other."

    def press(self, lamp: Literal["red", "blue"]) -> str:
        """Press the button of a lamp, which turns it on or off.

        Args:
            lamp: The colour of the lamp.
        """
        self.lit ^= {lamp}
        return f"On: {', '.join(sorted(self.lit)) or 'none'}."

    def get_reward(self) -> float:
        return float(self.lit == {self.goal})
