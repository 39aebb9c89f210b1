"""Train from Python, keep the best checkpoint by a rule of one's own, and hand its planner on.

python examples/from_python.py
"""

from pathlib import Path

import forethought as ft


class Best(ft.Callback):
    """Remembers the best end-to-end score; stops the run when `patience` evaluations have not raised it."""

    def __init__(self, patience: int = 3):
        self.patience, self.score, self.step, self.waited = patience, -1.0, 0, 0

    def on_evaluation(self, moment: ft.Moment) -> None:
        score = moment.values["eval/e2e"]
        better = score > self.score
        self.score, self.step = (score, moment.step) if better else (self.score, self.step)
        self.waited = 0 if better else self.waited + 1
        if self.waited >= self.patience:
            moment.stop(f"e2e has not risen above {self.score:.2f} since step {self.step}")


def main(out: Path = Path("runs/from-python"), **changes: object) -> Path:
    best = Best()
    keep = {"save.every": 5, "eval.every": 5, "save.keep": 50}  # so that the best one is still there
    run = ft.train("desk", out=out, overrides=keep | changes, callbacks=[best])
    print(run.status, best.step, best.score)
    saved = [checkpoint.step for checkpoint in run.checkpoints()]
    step = max(step for step in saved if step <= best.step)
    return ft.export(run, step=step, merge=True, to=out / "best").to


if __name__ == "__main__":
    print(main())
