"""Credit of a step: which token of which turn gets which advantage, and what two classes of tokens look like
where the stage tells them apart (HICRA, arXiv 2509.03646)."""

from __future__ import annotations

from collections.abc import Sequence

from forethought.core.metrics import Metric
from forethought.core.seeds import seed_of
from forethought.core.types import Advantages, Tree
from forethought.learn import credit
from forethought.learn.batches import for_policy, tree_segments
from forethought.stages.setting import Setting


def credited(s: Setting, k: int, trees: Sequence[Tree]) -> tuple[list[Advantages], dict[str, Metric]]:
    """(node -> an advantage for each token, by tree; metrics of the classes of tokens). Of turns that do not
    train there is none. An error where a role that trains has had no peers for long (`credit.watch`)."""
    spec = s.spec
    needed = spec.credit.alpha and spec.credit.mask in credit.NEED_ENTROPIES
    entropies = entropies_of(s, trees) if needed else [None] * len(trees)
    masks, classes = _classes(s, trees, entropies)
    guard, state = s.rollouts.guard, s.remembered.setdefault("row", {})
    scored = credit.score(trees, spec.credit, state, guard.limits.episode_seconds, guard.watchdog)
    advantages = []
    for i, (tree, given) in enumerate(zip(trees, scored, strict=True)):
        seed = seed_of(s.seed, k, "mask", i)
        weighed = credit.weigh(tree, spec.credit, given, spec.roles, seed, entropies[i], masks[i])
        advantages.append(credit.measured(tree, spec.credit, weighed))
    credit.watch(trees, spec.credit.name, spec.roles, s.remembered.setdefault("coverage", {}))
    return advantages, classes


def _classes(
    s: Setting, trees: Sequence[Tree], entropies: Sequence[credit.Entropies | None]
) -> tuple[Sequence[credit.Mask | None], dict[str, Metric]]:
    """The planning tokens of each tree, of a list of grams or of the roles before the last, and what the two
    classes of tokens look like; nothing of a stage that does not tell them apart."""
    if s.planning:
        seen = s.planning.look(trees)
        return seen.masks, credit.class_metrics(trees, seen.masks, entropies) | seen.metrics()
    if not s.spec.credit.alpha:
        return [None] * len(trees), {}
    masks = [credit.preparing_mask(tree, s.roles[-1]) for tree in trees]
    return masks, credit.class_metrics(trees, masks, entropies)


def entropies_of(s: Setting, trees: Sequence[Tree]) -> list[dict[int, tuple[float, ...]]]:
    """Of each tree, node id -> the entropy of the policy that wrote it at each of its tokens (one more
    forward pass)."""
    written = [
        {n.id: (0.0,) * len(n.token_ids) for n in tree.nodes if n.policy is not None and n.token_ids}
        for tree in trees
    ]
    segments = tree_segments(s.rollouts, trees, written, "tokens")
    found: list[dict[int, tuple[float, ...]]] = [dict.fromkeys(row, ()) for row in written]
    order = [(i, n.id) for i, tree in enumerate(trees) for n in tree.nodes if n.id in written[i]]
    at = [j for j, segment in enumerate(segments) if segment.stream is not None]
    for policy in sorted(set(s.policies.values())):
        stats = s.engine.inspect(for_policy(segments, policy, s.policies))
        for (i, node), j in zip(order, at, strict=True):
            if (one := stats[j]) is not None:
                found[i][node] = one.entropies
    return found
