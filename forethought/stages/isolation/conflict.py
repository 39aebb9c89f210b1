"""The conflict probe: how far the gradients of roles that speak through the same weights pull apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

from forethought.core.metrics import Last, Metric, Sum
from forethought.core.types import Batch, Objective
from forethought.learn.batches import for_policy, for_role, targets
from forethought.learn.losses import term
from forethought.stages.isolation.demonstrations import demonstrations
from forethought.stages.setting import Setting


def conflict_of(s: Setting, k: int, batch: Batch, objective: Objective) -> dict[str, Metric]:
    """The cosines of one policy's batch. A pass more for each role (for two that train, for one of them); the
    gathered gradient stays as it is."""
    engine, policy, started = s.surgery, batch.policy, time.perf_counter()
    speakers = s.speakers(policy)
    roles = [role for role in speakers if any(one.stream and one.role == role for one in batch.segments)]
    # nothing to compare, or nothing to compare it with
    if not roles or (len(roles) == 1 and not s.rollouts.all_demonstrable()):
        return {}
    engine.set_aside(policy, "all")
    if len(speakers) == len(roles) == 2:  # the whole, less one of them, is the other
        s.engine.forward_backward(for_role(batch, roles[-1]), objective)
        engine.set_aside(policy, "one")
        found = pairwise(roles, lambda a, b: engine.conflict(policy, "all", "one", part=True))
    elif len(roles) == 1 and len(speakers) == 2:  # the other role's is what imitation would ask for
        if not _imitated(s, k, policy, [role for role in speakers if role not in roles]):
            engine.combine(policy, ["all"])
            return {}
        engine.set_aside(policy, "one")
        found = pairwise(speakers, lambda a, b: engine.conflict(policy, "all", "one"))
    else:
        found = pairwise(
            [role for role in speakers if _alone(s, k, batch, objective, role)],
            lambda a, b: engine.conflict(policy, a, b),
        )
    engine.combine(policy, ["all"])
    return found | {"seconds_probe/conflict": Sum(time.perf_counter() - started)}


def _alone(s: Setting, k: int, batch: Batch, objective: Objective, role: str) -> bool:
    """Set one role's gradient aside under its name: of its own objective, or of the imitation that a role
    which does not train would ask for. False where the family can show nothing of it."""
    own = for_role(batch, role)
    if any(one.stream for one in own.segments):
        s.engine.forward_backward(own, objective)
    elif not (s.rollouts.all_demonstrable() and _imitated(s, k, batch.policy, [role])):
        return False
    s.surgery.set_aside(batch.policy, role)
    return True


def _imitated(s: Setting, k: int, policy: str, roles: Sequence[str]) -> bool:
    """Gather the gradient of demonstrations of `roles`; False where the family can show none."""
    shown = demonstrations(s, k, "conflict", "sft", roles)
    if not shown:
        return False
    batch = for_policy(shown, policy, s.policies)
    s.engine.forward_backward(batch, Objective((term("sft", targets(batch.segments, "sft")),)))
    return True


def pairwise(roles: Sequence[str], cosines: Callable[[str, str], Mapping[str, float]]) -> dict[str, Metric]:
    """`conflict/GROUP`: the cosine between the gradients of two roles, by group of layers. Of more roles it
    is the lowest over the pairs, and `conflict/A-B/GROUP` is there for each pair."""
    pairs = {(a, b): cosines(a, b) for a, b in combinations(roles, 2)}
    groups = dict.fromkeys(group for found in pairs.values() for group in found)
    found: dict[str, Metric] = {
        f"conflict/{group}": Last(min(row[group] for row in pairs.values() if group in row))
        for group in groups
    }
    if len(pairs) > 1:
        found |= {
            f"conflict/{a}-{b}/{group}": Last(c) for (a, b), row in pairs.items() for group, c in row.items()
        }
    return found
