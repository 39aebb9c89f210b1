"""A stage kind of one's own: expert iteration (STaR, arXiv 2203.14465). A step samples trees as `reinforce`
does, and imitates the turns whose reward reaches a bound.

    stage = [{ kind = "stage_kind.py:ExpertIteration", tree = { plan = 4, act = 2 }, at_least = 1.0 }]
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from forethought.core.metrics import Mean, merge
from forethought.learn.batches import tree_segments
from forethought.recipe.kinds.reinforce import Reinforce
from forethought.recipe.ranges import within
from forethought.stages.groups import groups
from forethought.stages.outcome import Step, failures, tree_metrics
from forethought.stages.update import imitation, update


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertIteration(Reinforce):
    at_least: float = 1.0
    default_loss: ClassVar = "sft"

    def check(self, where, recipe):
        Reinforce.check(self, where, recipe)
        within(f"{where}.at_least", self.at_least, 0, 1)

    def step(self, stage, k, conflict):
        trees, tried, _ = groups(stage, k, stage.tasks(stage.rng(k), self.batch, k))
        best = [{n.id: (1.0,) * len(n.token_ids) for n in tree.nodes if self.keeps(n)} for tree in trees]
        segments = tree_segments(stage.rollouts, trees, best, "tokens")
        segments = [replace(s, stream=s.stream and "sft") for s in segments]
        parts = [tree_metrics(tried, stage.roles[:-1]), {"experts": Mean(sum(map(len, best)), len(trees))}]
        if any(best):
            parts.append(update(stage, k, segments, imitation(self, segments), conflict))
        return Step(merge(parts), trees, best, *failures(tried))

    def keeps(self, node):
        return node.role in self.roles and node.reward is not None and node.reward >= self.at_least
