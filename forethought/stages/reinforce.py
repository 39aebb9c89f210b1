"""A step of reinforcement. Read this page first: everything that happens in one step stands here, in the
order of the data.

    tasks -> rollout trees -> rewards -> credit -> admit -> batch -> update

Around it, the run evaluates, probes and reads its gates (`runs/runner.py`).
"""

from __future__ import annotations

from forethought.core.metrics import merge
from forethought.learn.batches import tree_segments
from forethought.learn.curriculum import admit
from forethought.stages.credited import credited
from forethought.stages.groups import groups
from forethought.stages.isolation.extras import extras
from forethought.stages.outcome import Step, failures, tree_metrics
from forethought.stages.setting import Setting
from forethought.stages.update import on_rollouts, update


def step(s: Setting, k: int, conflict: bool) -> Step:
    """Step `k` (from 0): draw, roll out, reward, credit, admit, update. `conflict`: also compare the roles'
    gradients."""
    spec = s.spec
    tasks = s.tasks(s.rng(k), spec.batch, k)
    trees, tried, redrawn = groups(s, k, tasks)  # one tree for each task, rewarded; and all that were sampled
    advantages, classes = credited(s, k, trees)  # node -> one number for each token
    s.curriculum.observe(tried)
    kept, counts = admit(trees, advantages)
    # KL has a gradient where credit has none
    train = kept if spec.skip_zero and not spec.ref_kl else range(len(trees))
    segments = tree_segments(
        s.rollouts, [trees[i] for i in train], [advantages[i] for i in train], spec.loss_norm
    )
    batch = extras(s, k, *on_rollouts(s, segments, trees, advantages))
    parts = [counts, redrawn, s.curriculum.metrics(), tree_metrics(tried, s.roles[:-1]), classes]
    for i in range(spec.updates if segments else 0):
        parts.append(update(s, k, *batch, conflict and i == 0))
    return Step(merge(parts), trees, advantages, *failures(tried))
