"""The evaluations of a run: held-out tasks, played greedily by the policies as they stand."""

from __future__ import annotations

from forethought.core.seeds import seed_of
from forethought.core.waiting import hearing, now_and_then
from forethought.measure.evaluate import changes, evaluate, evaluated, held_out
from forethought.measure.gates import Evaluation
from forethought.recipe.kinds.imitate import Imitate
from forethought.recipe.schema import Recipe
from forethought.runs import cold
from forethought.runs.ledger import Ledger
from forethought.stages.groups import pay_of
from forethought.stages.step import Stage
from forethought.workflows.rollout import Rollouts


class Measuring:
    """Of one run. `paying`: the stage whose rewards are measured where nothing else judges; `values`: the
    newest numbers."""

    def __init__(self, recipe: Recipe, rollouts: Rollouts, ledger: Ledger, levels: tuple[int, ...]):
        self.recipe, self.rollouts, self.ledger = recipe, rollouts, ledger
        self.tasks = held_out(rollouts.taskset, recipe.eval, levels)
        self.paying: Stage | None = None
        self.values: dict[str, float] = {}

    def begin(self) -> None:
        """The newest numbers are those that the run has left."""
        left = self.ledger.progress.evaluations
        self.values = evaluated(left[-1]["metrics"]) if left else {}

    def measure(self, line: dict[str, float] | None = None) -> dict[str, float]:
        """Evaluate; gates and `until` read the result together with the step's own numbers (`line`)."""
        p, said = self.ledger.progress, f"evaluating {len(self.tasks)} tasks"
        self.ledger.emit("busy", text=said)

        def hear(done: int, of: int) -> None:
            self.ledger.emit("busy", text=said, values={"done": done, "of": of})

        with self.rollouts.parts.part("evaluation"), hearing(now_and_then(hear)):
            found = evaluate(
                self.rollouts,
                self.tasks,
                p.policies,
                noise=self.recipe.eval.noise,
                seed=seed_of(self.recipe.eval.seed, "eval"),
                pay=pay_of(self.paying, p.stage_step) if self.paying else None,
                give_up=self.recipe.eval.give_up if self.recipe.model.path else 0,
            )
        if found.films:
            self.ledger.store.save_films(p.step, p.stage, found.films)
        if unplayed := found.metrics.get("eval_unplayed"):
            role, n = self.rollouts.roles[0], len(self.tasks)
            ahead = self.recipe.stage[p.stage :][:1]
            shown = not p.stage_step and any(isinstance(stage, Imitate) for stage in ahead)
            said = cold.unplayed(role, self.rollouts.words.budgets[role], n, int(unplayed), shown)
            self.ledger.decide("guard", "evaluation", "stopped early", said, {"unplayed": unplayed})
        p.evaluations.append(
            {
                "metrics": {**(line or {}), **found.metrics},
                "scores": {k: list(v) for k, v in found.scores.items()},
            }
        )
        self.values = dict(found.metrics)
        start = Evaluation(**p.evaluations[0])
        return dict(found.metrics) | (changes(start, found) if len(p.evaluations) > 1 else {})
