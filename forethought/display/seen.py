"""The story of a run so far, folded from its Events. Nothing here draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forethought.core.types import Event
from forethought.display.pace import pace

PAID = "eval_reward/"  # what a stage pays, where nothing else says what is good
EVALUATES = "evaluating "  # how what an evaluation does begins, while it takes its time
TOGETHER = "e2e"  # what an evaluation calls all roles together


def evaluation(
    values: Mapping[str, float], roles: Sequence[str]
) -> tuple[dict[str, float], dict[str, dict[int, float]]]:
    """(name -> value, name -> level -> value) from `eval/plan`, `eval/plan@3`; the `roles` first, then all
    together, then the rest; levels in order. Where nothing judges there is `reward/ROLE`, of
    `eval_reward/ROLE`."""
    overall: dict[str, float] = {}
    by_level: dict[str, dict[int, float]] = {}
    for key, value in values.items():
        if key.startswith(PAID) and "." not in key:
            overall[key.removeprefix("eval_")] = value
            continue
        name, at, level = key.removeprefix("eval/").partition("@")
        if not key.startswith("eval/") or "/" in name:
            continue
        if not at:
            overall[name] = value
        elif level.isdecimal():
            by_level.setdefault(name, {})[int(level)] = value
    factors = [*roles, TOGETHER]
    names = [*factors, *sorted({*overall, *by_level} - {*factors})]
    return (
        {n: overall[n] for n in names if n in overall},
        {n: dict(sorted(by_level[n].items())) for n in names if n in by_level},
    )


def step_cells(values: Mapping[str, float]) -> list[str]:
    """What a person follows of a step, a cell each, in the order in which trainers print it: loss, reward
    with its spread, share of groups that carry a signal, length of a turn, KL, entropy, share of clipped
    tokens, norm of the gradient. Parts of a reward (`reward/plan.valid`) are left to the report."""
    cells = [f"{name} {value:.3g}" for name, value in _family(values, "loss").items()]
    for name, value in _family(values, "reward").items():
        spread = values.get(name.replace("reward/", "reward_std/"))
        cells.append(f"{name} {value:.3g}" + ("" if spread is None else f" sd {spread:.2g}"))
    if "groups/zero" in values:
        cells.append(f"signal {1 - values['groups/zero']:.0%}")
    lengths = _family(values, "tokens")
    for total in ("tokens/sampled", "tokens/trained", "tokens/forward"):
        lengths.pop(total, None)
    cells += [f"{name.replace('tokens/', 'length/')} {value:.3g}" for name, value in lengths.items()]
    for family in ("kl", "entropy"):
        cells += [f"{name} {value:.3g}" for name, value in _family(values, family).items()]
    if "clip/share" in values:
        cells.append(f"clipped {values['clip/share']:.1%}")
    norms = _family(values, "grad_norm")
    alone = len(norms) == 1
    return cells + [
        f"{'grad' if alone else name.replace('grad_norm/', 'grad/')} {v:.3g}" for name, v in norms.items()
    ]


def _family(values: Mapping[str, float], family: str) -> dict[str, float]:
    return {name: v for name, v in values.items() if name.split("/")[0] == family and "." not in name}


def _evals(values: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name.startswith(("eval/", PAID))}


@dataclass
class StageSeen:
    text: str = ""
    done: int = 0
    steps: int = 0  # 0: not known (a stage to come, or one that ended before a resume)
    first: dict[str, float] = field(default_factory=dict)  # the evaluation at its start
    last: dict[str, float] = field(default_factory=dict)


@dataclass
class Seen:
    """Times are seconds of whatever clock the caller uses."""

    where: str = ""
    roles: tuple[str, ...] = ()
    step: int = 0
    steps: int = 0
    current: int = 0
    ended: str | None = None
    began: float | None = None
    values: dict[str, float] = field(default_factory=dict)
    evals: dict[str, float] = field(default_factory=dict)
    stages: list[StageSeen] = field(default_factory=list)
    decisions: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    busy: tuple[str, float] | None = None  # what takes its time now, and since when
    took: dict[str, float] = field(default_factory=dict)  # seconds that it took the last time
    # how far that is: when it was told, what was done and what there is to do; and the same at first
    far: tuple[float, int, int] | None = None
    first: tuple[float, int, int] | None = None
    # (time, step, values) of recent steps
    paces: list[tuple[float, int, dict[str, float]]] = field(default_factory=list)

    def see(self, event: Event, now: float) -> None:
        """Fold one event in. `now`: seconds of the clock that also feeds `elapsed`."""
        if self.began is None:
            self.began = now
        self.roles = event.roles or self.roles
        if event.kind == "busy" and self.busy and self.busy[0] == event.text:
            self.far = (now, int(event.values.get("done", 0)), int(event.values.get("of", 0)))
            self.first = self.first if self.first and self.first[1] <= self.far[1] else self.far
            return
        if self.busy and event.kind != "note":
            self.took[self.busy[0]], self.busy = now - self.busy[1], None
        if event.kind == "busy":
            self.busy, self.far, self.first = (event.text, now), None, None
            return
        if event.kind in ("start", "note", "end", "decision"):  # these may come without a position in the run
            self._hear(event)
            return
        self.step, self.steps, self.current = event.step, max(event.steps, self.steps), event.stage
        self._make_room(max(event.stages, event.stage + 1))
        stage = self.stages[event.stage]
        stage.done, stage.steps = event.stage_step, event.stage_steps or stage.steps
        if event.kind == "stage":
            if event.values:  # resumed
                self.evals = _evals(event.values)
            start = _evals({n.replace("_start", "", 1): x for n, x in event.values.items() if "_start" in n})
            stage.text, stage.first, stage.last = event.text, start or dict(self.evals), dict(self.evals)
            self.paces = []
            return
        values = {name: value for name, value in event.values.items() if not name.startswith("eval")}
        # an evaluation after a step comes in one line with it
        if event.kind == "step" or step_cells(values):
            self.values = values
            self.paces = [*self.paces[-49:], (now, event.step, values)]
        if event.kind == "eval":
            self.evals = _evals(event.values)
            stage.last = self.evals
            if event.stage_step == 0 or not stage.first:
                stage.first = self.evals

    def _hear(self, event: Event) -> None:
        if event.kind == "start":
            self.where, self.step, self.steps = event.text, event.step, event.steps
            self._make_room(event.stages)
        elif event.kind == "end":
            self.ended = event.text
        elif event.kind == "decision":
            self.decisions.append((event.outcome, event.text))
        else:
            self.notes.append(event.text)

    def _make_room(self, stages: int) -> None:
        self.stages += [StageSeen() for _ in range(stages - len(self.stages))]

    def factors(self) -> tuple[str, ...]:
        """What an evaluation measures of the roles: each, and all together."""
        return (*self.roles, TOGETHER)

    def elapsed(self, now: float) -> float:
        """Seconds since the first event; 0.0 before it."""
        return 0.0 if self.began is None else now - self.began

    def rates(self) -> list[str]:
        """Tokens per second over the last steps, in words."""
        if "tokens_per_second" in self.values:
            return [f"{thousands(self.values['tokens_per_second'])} tok/s"]
        if len(self.paces) < 2 or self.paces[-1][0] <= self.paces[0][0]:
            return []
        seconds = self.paces[-1][0] - self.paces[0][0]
        totals = {
            n: sum(values.get(f"tokens/{n}", 0.0) for _, _, values in self.paces[1:])
            for n in ("trained", "sampled")
        }
        return [f"{n} {thousands(total / seconds)} tok/s" for n, total in totals.items() if total]

    def doing(self) -> str:
        """What takes its time now, with how far it is, how fast it goes and about how long it still takes."""
        if self.busy is None or self.far is None or self.first is None:
            return ""
        (began, before, _), (now, done, of) = self.first, self.far
        return f"{self.busy[0]}: {pace(done, of, 'tokens at most', now - began, before)}"

    def left(self) -> float | None:
        """Seconds to go: steps at the pace of this stage's last ones, and at the end of each stage an
        evaluation that takes as long as the longest so far; None while there is no pace."""
        if len(self.paces) < 3 or self.paces[-1][1] <= self.paces[0][1]:
            return None
        pace = (self.paces[-1][0] - self.paces[0][0]) / (self.paces[-1][1] - self.paces[0][1])
        measured = max((s for text, s in self.took.items() if text.startswith(EVALUATES)), default=0.0)
        stage = self.stages[self.current] if self.stages else StageSeen()
        over = 0 < stage.steps <= stage.done  # the last step of a stage comes with its evaluation
        return pace * self.to_go() + measured * (len(self.stages) - self.current - over)

    def to_go(self) -> int:
        """Steps still to be taken, if no stage ends early from here on and none is sent back to its start."""
        if not self.stages:
            return max(self.steps - self.step, 0)
        known, stage = self.stages[: self.current + 1], self.stages[self.current]
        of_stage = max(stage.steps - stage.done, 0)
        # resumed: nobody knows what the stages before have left out or repeated
        if not all(s.steps for s in known):
            return max(self.steps - self.step, of_stage)
        return of_stage + max(self.steps - sum(s.steps for s in known), 0)

    def total(self) -> int:
        """Steps of the whole run as it stands: fewer than planned after a stage that ended early, more after
        one that ran again."""
        return self.step + self.to_go()


def thousands(value: float) -> str:
    """950 -> "950", 1234 -> "1.2k"."""
    return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"
