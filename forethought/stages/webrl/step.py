"""A step of WebRL (arXiv 2411.02337), in the order of the data:

    phase -> tasks -> rollout trees -> verdicts -> replay -> critic -> credit -> batch -> update -> memory

The paper rolls out 500 tasks, then trains on all of them; here a phase has steps, each with its rollouts and
an update of the critic, then one of the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from forethought.core.metrics import Last, Mean, Metric, merge
from forethought.core.types import Advantages, Node, Segment, Tree
from forethought.learn.batches import tree_segments
from forethought.learn.credit.webrl import VALUE
from forethought.learn.curriculum import ends, successes
from forethought.learn.peers import value, written
from forethought.stages.credited import credited
from forethought.stages.groups import groups
from forethought.stages.isolation.extras import extras
from forethought.stages.outcome import Step, failures, tree_metrics
from forethought.stages.setting import Setting
from forethought.stages.update import on_rollouts, update
from forethought.stages.webrl import outcomes, phases, replay
from forethought.stages.webrl.lineage import Lineage, generation
from forethought.stages.webrl.yes_or_no import YesOrNo

FAILED = 0.5  # share of successes below which a task has failed


def step(s: Setting, k: int, conflict: bool) -> Step:
    """Step `k` (from 0). `conflict`: also compare the roles' gradients."""
    spec, state = s.spec, phases.state_of(s)
    critic = YesOrNo(s, "critic", spec.critic)
    judge = YesOrNo(s, "outcome", spec.outcome) if spec.outcome.learns else None
    if k == 0:
        for one in filter(None, (critic, judge)):
            one.begin()
    begun = phases.begin(s, state, critic) if k % phases.length(s) == 0 else {}
    lineages, tasks = zip(*phases.tasks_of(s, state, k), strict=True)
    trees, tried, told = groups(s, k, list(tasks))
    trees, verdicts = _verdicts(s, state["phase"], judge, trees)
    old, learned = _replayed(s, k, state, trees)
    every, found = _with_values(s, critic, trees, old)
    advantages, classes = credited(s, k, every)
    advantages[len(trees) :] = _only(advantages[len(trees) :], learned)
    segments = by_turn(tree_segments(s.rollouts, every, advantages, spec.loss_norm))
    phase = replace(s, references=state["references"])  # what the regression is on
    batch = extras(s, k, *on_rollouts(phase, segments, every, advantages))
    s.curriculum.observe(tried)
    new = every[: len(trees)]
    parts = [begun, told, verdicts, found, classes, s.curriculum.metrics(), tree_metrics(new, s.roles[:-1])]
    for i in range(spec.updates):
        parts.append(update(s, k, *batch, conflict and i == 0))
    parts.append(_remember(s, state, lineages, new, len(old)))
    return Step(merge(parts), new, advantages[: len(trees)], *failures(tried))


def _verdicts(
    s: Setting, phase: int, judge: YesOrNo | None, trees: list[Tree]
) -> tuple[list[Tree], dict[str, Metric]]:
    """The trees as they are rewarded: by the exact reward, or by a judge that is trusted by now. The judge is
    measured before it learns from these trees."""
    if judge is None or not (found := outcomes.judged(trees)):
        return trees, {}
    spec, places = s.spec.outcome, outcomes.places_of(found)
    exact = [node.reward_parts[part] for _, node, part in found]
    said = judge.of_trees(trees, places)
    told = outcomes.compared(said, exact)
    if phase < spec.learns:
        return trees, told | judge.learn(trees, places, [min(max(x, 0.0), 1.0) for x in exact])
    return (outcomes.trusted(s, trees, found, said) if spec.trust else trees), told


def _replayed(
    s: Setting, k: int, state: phases.State, trees: Sequence[Tree]
) -> tuple[list[Tree], list[set[int]]]:
    """Successes of earlier phases for this step, and of each the turns that are learned."""
    size = sum(len(ends(tree.branches())) for tree in trees)
    most = round(s.spec.replay.most * size)
    return replay.drawn(s, state["buffer"], state["chosen"], most, s.rng(k, "replay"))


def _with_values(
    s: Setting, critic: YesOrNo, new: list[Tree], old: list[Tree]
) -> tuple[list[Tree], dict[str, Metric]]:
    """All trees with the critic's value of the state before each turn, after it has learned from them; and
    how well it told the successes of the new ones before that."""
    trees = [*new, *old]
    found = [(i, node, worth) for i, tree in enumerate(trees) for node, worth in _states(tree)]
    places = [(i, node.parent or 0) for i, node, _ in found]  # a turn has something before it
    worth = [min(max(x, 0.0), 1.0) for _, _, x in found]
    fresh = sum(i < len(new) for i, _, _ in found)
    told = _told(critic.of_trees(new, places[:fresh]), worth[:fresh]) | critic.learn(trees, places, worth)
    values: list[dict[int, float]] = [{} for _ in trees]
    for (i, node, _), v in zip(found, critic.of_trees(trees, places), strict=True):
        values[i][node.id] = v
    return [_valued(tree, own) for tree, own in zip(trees, values, strict=True)], told


def _told(expected: Sequence[float], worth: Sequence[float]) -> dict[str, Metric]:
    """`critic/auc` (half and less of a worth counts as a failure) and `critic/brier`."""
    pairs = list(zip(expected, worth, strict=True))
    area = outcomes.auc([v for v, x in pairs if x > 0.5], [v for v, x in pairs if x <= 0.5])
    told: dict[str, Metric] = {"critic/brier": Mean(sum((v - x) ** 2 for v, x in pairs), len(pairs))}
    return told if area is None else told | {"critic/auc": Last(area)}


def _states(tree: Tree) -> list[tuple[Node, float]]:
    """(turn, what its branch is worth) of every turn that a policy wrote and whose worth is known."""
    known = [(b, value(b)) for b in tree.branches().values()]
    return [(n, worth) for b, worth in known if worth is not None for n in written(b) if n.token_ids]


def _valued(tree: Tree, values: dict[int, float]) -> Tree:
    nodes = [
        replace(n, reward_parts={**n.reward_parts, VALUE: values[n.id]}) if n.id in values else n
        for n in tree.nodes
    ]
    return replace(tree, nodes=tuple(nodes))


def _only(advantages: Sequence[Advantages], turns: Sequence[set[int]]) -> list[Advantages]:
    """The advantages of these turns alone: the others are read, and not learned."""
    return [
        {node: row for node, row in own.items() if node in kept}
        for own, kept in zip(advantages, turns, strict=True)
    ]


def by_turn(segments: Sequence[Segment]) -> list[Segment]:
    """Each turn is a sequence of its own: the regression is on the log-ratio of one action."""
    return [replace(x, sequence=i) if x.stream else x for i, x in enumerate(segments)]


def _remember(
    s: Setting, state: phases.State, lineages: Sequence[Lineage], trees: Sequence[Tree], replayed: int
) -> dict[str, Metric]:
    """Failures become seeds of the next phase, successes come into the buffer, one of each task."""
    shares = []
    for lineage, tree in zip(lineages, trees, strict=True):
        won = successes(tree.branches())
        if not won:  # it broke: nothing is known of it
            continue
        share = sum(won) / len(won)
        shares.append((generation(lineage), share))
        if share < FAILED:
            state["failed"].append(lineage)
        if (kept := replay.success_of(tree, lineage)) is not None:
            state["buffer"].append(kept)
    gone = max(0, len(state["buffer"]) - s.spec.replay.keep)
    del state["buffer"][:gone]
    state["chosen"] = [[i - gone, turns] for i, turns in state["chosen"] if i >= gone]
    return {
        "webrl/phase": Last(state["phase"]),
        "replay/used": Mean(replayed, len(trees)),
        **phases.by_generation(shares),
    }
