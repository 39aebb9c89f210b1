"""What a recipe says of what is watched: gates, isolation, probes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """A written condition on a metric. Exactly one of the conditions; checked at each evaluation of its
    stage.

    `max_drop` / `max_rise` compare with the stage's start, on the same tasks: the gate fails when the change
    is larger than the bound *and* the exact paired test excludes no change (confidence = 0: the number alone
    decides). Over all evaluations of a stage that changes nothing, it is wrong with a chance of at most
    1 - confidence, by the rule `looks` (docs/gates.md). `max_slope_down` fails when the metric falls by more
    than this per evaluation over the last `window` evaluations.
    """

    metric: str = "eval/act"
    """What is guarded, such as `eval/act` or `eval/act@5`."""
    at_least: float | None = None
    """Fails when the metric is lower."""
    at_most: float | None = None
    """Fails when the metric is higher."""
    max_drop: float | None = None
    """Fails when the metric has fallen by more since the stage's start, on the same tasks, beyond chance."""
    max_rise: float | None = None
    """Fails when the metric has risen by more since the stage's start, on the same tasks, beyond chance."""
    max_slope_down: float | None = None
    """Fails when the metric falls by more than this per evaluation over the last `window` evaluations."""
    window: int = 4
    """Evaluations that `max_slope_down` looks at."""
    confidence: float = 0.95
    """Confidence of the paired test of `max_drop` and `max_rise`. 0: the number alone decides."""
    looks: Literal["late", "even", "each"] = "late"
    """How 1 - confidence is split over the evaluations of the stage: more to the later ones, evenly, or
    not at all (each has all of it, and a long stage is rolled back more often than that)."""
    on_fail: Literal["stop", "roll_back", "warn"] = "stop"
    """What a failed gate does: stop the run, take the stage back to its start, or say so."""
    then: Literal["skip", "stop", "isolate", "lower_rate"] = "skip"
    """After a roll-back: go on with the next stage, stop the run, or run the stage again isolated or
    with a lower rate."""
    isolate: Literal["adapter", "model", "replay", "keep_kl"] = "adapter"
    """For `then = "isolate"`: see `adaptive.to`. The adapter's rate and the weight of replay or keep_kl
    are those of `adaptive`."""
    rate: float = 0.5
    """For `then = "lower_rate"`: factor on the stage's learning rates at each retry."""
    retries: int = 1
    """For `then = "lower_rate"`: runs of the stage after the first. After the last one the run goes on
    with the next stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolationSpec:
    """Ways to keep the other role in place while a stage trains one role in weights that both share. Each
    works alone; all are off by default. (Separate adapters are `layout`; a loss on one role's tokens alone is
    `roles`.)"""

    demos: float = 0.25
    """Demonstrations of the other role that replay, keep_kl and surgery read, per task of the batch."""
    replay: float = 0.0
    """Weight of the supervised loss on the other role's tokens in them. 0: off."""
    keep_kl: float = 0.0
    """Weight of KL(stage's start || policy) on the same tokens. 0: off."""
    surgery: Literal["none", "pcgrad"] = "none"
    """`pcgrad`: gradient surgery between the objectives of the two roles (arXiv 2001.06782)."""
    core: Literal["none", "core", "random"] = "none"
    """`core`: freezes the other role's core region (CPI-FT, arXiv 2508.21741). `random`: as many random
    weights, the control."""
    core_share: float = 0.01
    """Share of all weights that a core region has."""
    core_steps: int = 40
    """Updates of the short imitation that finds a role's region."""
    core_lr: float = 1e-3
    """AdamW's rate of that imitation."""
    group_above: float = 0.1
    """Jaccard index from which two roles count as one group, whose weights are not held (tau)."""
    transplant: bool = False
    """At the stage's end the other role's region gets the values that its short imitation gave it."""
    slerp: float = 0.0
    """After a transplant the weights outside move by this much along the arc to the other role's model.
    0: not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveSpec:
    """Isolation that switches itself on: the roles share their weights until the probes see interference.

    Read at every held-out probe of the stage (`probes.every`) and at every evaluation. It switches when the
    other role's success has fallen by more than `max_drop` since the stage's start, with a paired interval
    that excludes no change; or when the mean cosine between the two roles' gradients over the last `window`
    conflict probes is below `min_cosine`. The role that suffered gets the weights of the stage's start back;
    the other goes on with what it has learned.
    """

    to: Literal["off", "adapter", "model", "replay", "keep_kl"] = "off"
    """What a harmed role gets. `adapter`: the difference to the stage's start becomes an adapter (in layout
    "adapter", where it is one already, each role goes on with one of its own);
    `model`: each role gets all weights for itself; `replay`, `keep_kl`: that method is switched on in
    the shared weights. `off`: nothing."""
    max_drop: float = 0.02
    """It switches when the other role's success has fallen by more, beyond chance."""
    min_cosine: float = -1.0
    """It switches when the mean cosine of the two roles' gradients is below. -1: not read."""
    window: int = 3
    """Conflict probes over which the cosine is averaged."""
    confidence: float = 0.95
    """Confidence of the paired interval of `max_drop`."""
    lr: float = 0.0
    """The adapter's AdamW rate after the switch. 0: the stage's own."""
    weight: float = 0.1
    """Weight of replay or keep_kl after the switch."""
    rejoin: int = 0
    """Probes in a row without harm after which the roles share again. 0: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSpec:
    """Measurements that do not train, on fixed held-out demonstrations. What each costs is a metric too:
    seconds_probe/NAME."""

    tasks: int = 8
    """Held-out demonstrations per level."""
    every: int = 5
    """Steps between held-out probes (entropy, perplexity, KL and success by role). 0: none."""
    conflict_every: int = 50
    """Steps between probes of the cosine between the roles' gradients. 0: none."""
    kl_start: bool = True
    """KL of what a reinforce stage trains to the stage's start. Keeps a copy of those weights."""
    kl_base: bool = False
    """Also KL to the model as the run found it (from scratch: as its first stage left it). Keeps a copy."""
    formats: dict[str, str] = field(default_factory=dict)
    """Name -> regular expression on a whole rollout. The first match counts."""
    collapse: float = 0.9
    """Share of one format from which the formats count as collapsed."""
    phase_window: int = 10
    """Held-out probes over which the two-phase detector takes its slopes."""
