"""A policy that is asked whether something succeeds, and answers yes or no: the critic, after a state, and
the judge of outcomes, after a whole episode. It is an adapter on the base, or a copy of it, so any
engine that trains has one, and nothing but the two words is new to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forethought.core.errors import UserError
from forethought.core.metrics import Mean, Metric
from forethought.core.types import Batch, Objective, Segment, Tree
from forethought.engines.base import BASE
from forethought.learn.batches import tree_segments
from forethought.learn.losses import term
from forethought.recipe.kinds.webrl import CriticSpec, OutcomeSpec
from forethought.recipe.schema import OptimSpec
from forethought.stages.setting import Setting
from forethought.workflows.words import Words

QUESTION, YES, NO = "Success?", "yes", "no"
JUDGES = "webrl-"  # begins the names of such policies, which end with their stage
Places = Sequence[tuple[int, int]]
"""(tree, node): the path that ends with this node."""


@dataclass(slots=True)
class YesOrNo:
    """`name`: of the policy and, in front of a slash, of its metrics."""

    s: Setting
    name: str
    spec: CriticSpec | OutcomeSpec

    @property
    def policy(self) -> str:
        """Its name in the engine."""
        return f"{JUDGES}{self.name}"

    def begin(self) -> None:
        """New, with an optimizer; what an attempt at the stage that was rolled back has left is dropped."""
        engine = self.s.engine
        if self.policy in engine.policies():
            engine.drop(self.policy)
        whole = BASE in self.s.trained() if self.spec.weights == "auto" else self.spec.weights == "model"
        engine.fork(BASE, self.policy, "model" if whole else "adapter")
        engine.prepare(self.policy, OptimSpec(name="adamw", lr=self.spec.lr, warmup=0, schedule="constant"))

    def of_trees(self, trees: Sequence[Tree], places: Places) -> list[float]:
        """What it expects at each place, from 0 to 1."""
        segments, at = self._forest(trees, places)
        return self._said(segments, at)

    def of_prompts(self, prompts: Sequence[tuple[int, ...]]) -> list[float]:
        """What it expects after each of these token ids."""
        return self._said([Segment(parent=-1, token_ids=ids) for ids in prompts], range(len(prompts)))

    def learn(self, trees: Sequence[Tree], places: Places, truth: Sequence[float]) -> dict[str, Metric]:
        """Updates towards `truth` (from 0 to 1) at each place: cross-entropy, a share as a weight. The loss
        is the one before them."""
        if not places:
            return {}
        engine, losses = self.s.engine, []
        segments, at = self._forest(trees, places)
        batch = self._batch(segments, at, [(share, 1 - share) for share in truth])
        objective = Objective((term("sft", float(len(places)), stream="sft"),))
        with self.s.rollouts.parts.part("training"):
            for _ in range(self.spec.updates):
                losses.append(engine.forward_backward(batch, objective)["loss/sft"])
                engine.optim_step(self.policy)
        engine.publish(self.policy)
        assert isinstance(losses[0], Mean)
        return {f"{self.name}/loss": Mean(losses[0].total, float(len(places)))}

    def _forest(self, trees: Sequence[Tree], places: Places) -> tuple[list[Segment], list[int]]:
        where: list[Mapping[int, int]] = []
        segments = tree_segments(self.s.rollouts, trees, [{} for _ in trees], "tokens", where)
        return segments, [where[i][node] for i, node in places]

    def _said(self, segments: list[Segment], at: Sequence[int]) -> list[float]:
        if not at:
            return []
        batch = self._batch(segments, at, [(1.0, 1.0)] * len(at))
        with self.s.rollouts.parts.part("training"):
            found = self.s.engine.logprobs(batch)
        said = [x[0] for x in found[len(segments) :] if x]
        return [_share(no - yes) for yes, no in zip(said[::2], said[1::2], strict=True)]

    def _batch(
        self, segments: Sequence[Segment], at: Sequence[int], weights: Sequence[tuple[float, float]]
    ) -> Batch:
        """The forest with the question after each place, and both answers under it."""
        question, yes, no = words_of(self.s.rollouts.words)
        out = list(segments)
        for above, (for_yes, for_no) in zip(at, weights, strict=True):
            if question:
                out.append(Segment(parent=above, token_ids=question, role=self.name))
                above = len(out) - 1
            for answer, weight in ((yes, for_yes), (no, for_no)):
                ids = (answer,)
                out.append(
                    Segment(parent=above, token_ids=ids, role=self.name, stream="sft", weight=(weight,))
                )
        return Batch(policy=self.policy, segments=tuple(out))


def words_of(words: Words) -> tuple[tuple[int, ...], int, int]:
    """(the question, yes, no) as token ids. A model that knows only the words of its task has no question:
    the mark that ends the last role's turn is yes, the one before it no. UserError where both begin alike."""
    engine, taskset = words.engine, words.taskset
    if words.spaced:
        try:
            engine.check_words([QUESTION, YES, NO], ())
        except UserError:
            marks = [
                mark for r in reversed(words.roles) for mark in (words.stop(r), words.opening(r)) if mark
            ]
            yes, no, *_ = dict.fromkeys([*marks, *taskset.vocabulary()])
            return (), engine.encode(yes)[0], engine.encode(no)[0]
    question = engine.encode(f" {QUESTION}")
    for space in (" ", ""):  # a tokenizer may have tokens of whole words only without it
        first, second = (engine.encode(f"{space}{word}") for word in (YES, NO))
        if first and second and first[0] != second[0]:
            return question, first[0], second[0]
    raise UserError(
        f"the tokenizer writes {YES!r} and {NO!r} with the same first token; a critic needs two (kind webrl)"
    )


def _share(gap: float) -> float:
    """1 / (1 + e^gap)."""
    return 1 / (1 + math.exp(gap)) if gap < 700 else 0.0
