"""A taskset of one's own, sums modulo `base`: task = { name = "taskset.py:Sums", levels = [3], base = 7 }"""

from types import SimpleNamespace
from zlib import crc32

from forethought.core.types import Outcome, Task, Turn
from forethought.tasks.base import Taskset


class Sums(Taskset):
    name, levels, budgets = "sums", (2, 3, 4, 5), {"plan": 5, "act": 2}  # a level is the number of terms

    def __init__(self, levels=(), base=10):
        super().__init__(levels)
        self.base = base

    def vocabulary(self):
        return list(map(str, range(self.base)))

    def family(self, rng, levels, split):
        return [self.drawn(rng, level, split) for level in levels]

    def drawn(self, rng, level, split):
        terms = [rng.randrange(self.base) for _ in range(level)]
        prompt = " ".join(map(str, terms))
        if (crc32(prompt.encode()) % 5 == 0) != (split == "eval"):  # a fifth is held out
            return self.drawn(rng, level, split)
        sums = [str(sum(terms[: i + 2]) % self.base) for i in range(level - 1)]
        return Task(id=prompt, taskset="sums", level=level, context="", prompt=prompt, state=sums)

    def environment(self, task, noise):
        right = f"{task.state[-1]} </act>"  # an environment with `step` alone, for one turn
        return SimpleNamespace(step=lambda action: Outcome(done=True, success=action == right))

    def oracle_plan(self, task):  # the sums on the way
        return " ".join([*task.state, "</plan>"])

    def demonstrate(self, task):
        said = {"plan": self.oracle_plan(task), "act": f"{task.state[-1]} </act>"}
        return [Turn(role=role, text=text) for role, text in said.items()]
