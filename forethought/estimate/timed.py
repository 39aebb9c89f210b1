"""Seconds and memory of a run by part, from what this machine takes for a token (`speed`) and from how long
prompts and turns are (`lengths`). The parts are those that a run measures (`core.parts`).

A wave of rows decodes for as many steps as its longest row has tokens, and each row takes its own. A model
that has not been shown enough demonstrations has not learned to end its turns: its rows go to the end of
their budgets, and where it was trained before, an evaluation ends after the first `eval.give_up` of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from forethought.estimate.hardware import Hardware, cpu
from forethought.estimate.lengths import Seen, seen
from forethought.estimate.memory import Memory, memory_of, numbers_of
from forethought.estimate.probed import probed
from forethought.estimate.reuse import share_read
from forethought.estimate.shapes import Shape
from forethought.estimate.speakers import Speakers, at_first, by_stage
from forethought.estimate.speed import Speed
from forethought.estimate.tokens import Assumptions, evaluations_of
from forethought.recipe.kinds.imitate import Imitate
from forethought.recipe.kinds.reinforce import Reinforce
from forethought.recipe.layout import policy_of, weights_of
from forethought.recipe.roles import counts_of
from forethought.recipe.schema import Recipe, TrainingSpec
from forethought.recipe.speaking import roles_of
from forethought.recipe.work import Lengths

TURN = 0.5e-3  # seconds of a turn beside its tokens: its tree, its text, its environment
WRITE = 3e8  # bytes of a checkpoint a second, digests among them
SAVED = 0.15  # seconds of a checkpoint beside them
SHOWN = 1000  # demonstrations after which a model from scratch ends its turns,
SHOWN_TRAINED = 64  # and one that was trained before


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds by part, and of each stage its sampling and training."""

    sampling: float
    training: float
    evaluation: float
    probes: float
    saving: float
    other: float
    stages: tuple[tuple[float, float], ...]
    memories: tuple[Memory, ...]  # of the stages that train

    @property
    def whole(self) -> float:
        """Of the run."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, float]:
        """By name."""
        names = ("sampling", "training", "evaluation", "probes", "saving", "other")
        return {name: getattr(self, name) for name in names}


def timed(
    recipe: Recipe, shape: Shape, speed: Speed, assume: Assumptions, hardware: Hardware | None = None
) -> Timed:
    """Of a whole run, on `hardware` (this machine's CPU)."""
    speaking = by_stage(recipe)
    whole = seen(recipe, assume.used, recipe.eval.levels)
    measured = _measured(recipe, whole, speed, at_first(recipe), ends=False)
    stages, memories, turns, shown = [], [], 0.0, 0.0
    for stage in recipe.stage:
        if not isinstance(stage, TrainingSpec):
            stages.append((0.0, 0.0))
            continue
        length = seen(recipe, assume.used, stage.levels)
        if isinstance(stage, Imitate):
            shown += stage.steps * stage.batch * _draws(stage, length)
        ends = not shown or shown >= (SHOWN_TRAINED if recipe.model.path else SHOWN)
        if isinstance(stage, Reinforce) and not ends:
            length = length.cut
        sampled, rows = _sampled(recipe, stage, length, speed)
        turns += stage.steps * (rows or stage.batch * len(length.said))
        trained = _trained(recipe, stage, shape, length, speed, hardware or cpu())
        stages.append((stage.steps * sampled, stage.steps * trained))
        memories.append(expected(recipe, stage, shape, length, hardware or cpu(), speed.held))
        _, speakers = next(speaking)
        measured += evaluations_of(recipe, stage) * _measured(recipe, whole, speed, speakers, ends)
    return Timed(
        sampling=sum(one for one, _ in stages),
        training=sum(two for _, two in stages),
        evaluation=measured,
        probes=probed(recipe, whole, speed),
        saving=_saves(recipe) * (SAVED + _saved_bytes(recipe, shape) / WRITE),
        other=TURN * turns,
        stages=tuple(stages),
        memories=tuple(memories),
    )


def _measured(recipe: Recipe, n: Seen, speed: Speed, speakers: Speakers, ends: bool) -> float:
    """Seconds of an evaluation, in two parts where the model was trained before; `ends`: turns end before
    their budgets, so that the second is played."""
    tasks = max(1, len(recipe.eval.levels or recipe.task.levels)) * recipe.eval.tasks
    first = min(tasks, recipe.eval.give_up or tasks) if recipe.model.path else tasks
    if not ends:
        return _evaluation(recipe, n, first, speed, speakers, full=True)
    parts = [part for part in (first, tasks - first) if part]
    return sum(_evaluation(recipe, n, part, speed, speakers, full=False) for part in parts)


def _wave(rows: float, said: float, longest: float, speed: Speed, most: int) -> float:
    """Seconds in which so many rows decode."""
    together = max(1.0, rows / most)  # more rows than are decoded together come one after the other
    return together * longest * speed.step + rows * said * speed.row


def _sampled(recipe: Recipe, stage: TrainingSpec, n: Seen, speed: Speed) -> tuple[float, float]:
    """(seconds of one step's rollouts, their turns)."""
    if not isinstance(stage, Reinforce):
        return 0.0, 0.0
    seconds, turns, rows, above = 0.0, 0.0, float(stage.batch), 0.0
    policy = ""
    for role, count in counts_of(stage.tree, list(n.said)).items():
        if not count:
            break
        given = role in stage.tree.oracle
        before, rows = rows, rows * (1 if given else count)
        if not given:
            if policy_of(recipe, role) != policy:  # another policy reads all that is above
                policy = policy_of(recipe, role)
                seconds += speed.read * (n.told + stage.batch * (n.context + n.prompt) + above)
                seconds += speed.fresh if role in stage.roles else 0.0
            most = float(stage.tree.tokens.get(role) or n.budget[role])
            said = min(n.said[role], most)
            seconds += _wave(rows, said, min(n.longest[role], most), speed, recipe.engine.rows)
            turns += rows
        above += (before if given else rows) * n.said[role]
    return seconds, turns


def _trained(
    recipe: Recipe, stage: TrainingSpec, shape: Shape, n: Seen, speed: Speed, hardware: Hardware
) -> float:
    """Seconds of one step's updates: every policy that trains reads all that it is to learn from. The first
    on fresh rollouts may read what sampling has left of its forward pass."""
    adapter = weights_of(recipe, stage) == "adapter"
    size = shape.adapter(recipe.adapter.rank, recipe.adapter.targets) if adapter else shape.parameters
    each, call = (speed.learn_adapter, speed.call_adapter) if adapter else (speed.learn_base, speed.call_base)
    read = learned(recipe, stage, n)
    updates = stage.updates if isinstance(stage, Reinforce) else 1
    extra = speed.look + speed.forward * read[0] if isinstance(stage, Reinforce) and stage.ref_kl else 0.0
    own = call + size * speed.update + (speed.publish if adapter else 0.0)
    saved = 0.0
    if isinstance(stage, Reinforce):
        most = _most_said(recipe, stage, n)
        shares = [share_read(recipe, stage, shape, most, tokens, hardware) for tokens in read]
        again = speed.reuse_adapter if adapter else speed.reuse_base
        saved = (each - again) * sum(share * tokens for share, tokens in zip(shares, read, strict=True))
    return updates * sum(each * tokens + own for tokens in read) - saved + extra


def _most_said(recipe: Recipe, stage: Reinforce, n: Seen) -> float:
    """Tokens that the rows of one of a step's calls may say at most."""
    budgets = {role: ceil(most) for role, most in n.budget.items()}
    lengths = stage.lengths(Lengths(prompt=ceil(n.whole), said=budgets, vocabulary=1))
    waves = stage.work(lengths, 1.0, recipe).waves.values()
    return max((wave.rows * wave.budget for wave in waves), default=0)


def learned(recipe: Recipe, stage: TrainingSpec, n: Seen) -> list[float]:
    """Tokens of one step that each policy reads to learn from them."""
    if isinstance(stage, Imitate):
        return _shown(recipe, stage, n)
    tokens, rows = n.told + stage.batch * (n.prompt + n.context / stage.share), float(stage.batch)
    if isinstance(stage, Reinforce):
        for role, count in counts_of(stage.tree, list(n.said)).items():
            if not count:
                break
            rows *= 1 if role in stage.tree.oracle else count
            tokens += rows * n.said[role]
    else:
        tokens += rows * sum(n.said.values())
    return [tokens] * len({policy_of(recipe, role) for role in stage.roles})


def _shown(recipe: Recipe, stage: Imitate, n: Seen) -> list[float]:
    """Of demonstrations: each up to the last turn in which a policy learns, what they share once."""
    draws = _draws(stage, n)
    owners = {role: policy_of(recipe, role) for role in stage.roles}
    if weights_of(recipe, stage) == "base":
        owners = dict.fromkeys(owners, "")
    found = []
    for policy in dict.fromkeys(owners.values()):
        path, read, none = 0.0, 0.0, 1.0  # tokens so far; expected; share that teaches it nothing so far
        for role, said in n.said.items():
            path += said
            if owners.get(role) == policy:
                row = stage.loss_share.get(role)
                share = sum(row) / len(row) if row else 1.0
                read, none = share * path + (1 - share) * read, none * (1 - share)
        contexts = n.context / stage.share * (1 - none**stage.share)
        found.append(n.told + draws * stage.batch * ((1 - none) * n.prompt + contexts + read))
    return found


def _draws(stage: Imitate, n: Seen) -> float:
    """How often a step draws a batch of demonstrations, until it has `batch_tokens`."""
    drawn = stage.batch * (n.prompt + n.context / stage.share + sum(n.said.values()))
    return max(1.0, -(-(stage.batch_tokens - n.told) // max(1.0, drawn)))


def expected(
    recipe: Recipe, stage: TrainingSpec, shape: Shape, n: Seen, hardware: Hardware, held: float
) -> Memory:
    """What lies in memory where turns are as long as demonstrations (`memory_of` with budgets is the bound).
    `held`: beside the model and its work. On a CPU every policy that samples has its weights once more, as
    the kernels read them."""
    lengths = Lengths(
        prompt=ceil(n.whole), said={role: ceil(most) for role, most in n.longest.items()}, vocabulary=1
    )
    work = replace(stage.work(lengths, 1.0, recipe), trained_most=max(learned(recipe, stage, n)))
    memory = memory_of(recipe, stage, shape, lengths, work, hardware)
    stays = memory.stays | {"the process": held}
    if hardware.kind == "cpu" and recipe.engine.weights != "nf4":
        policies = len({policy_of(recipe, role) for role in roles_of(recipe)})
        read = numbers_of(recipe, hardware).computed * shape.parameters
        stays["weights as the kernels read them"] = float(policies * read)
    return replace(memory, stays=stays)


def _evaluation(recipe: Recipe, n: Seen, tasks: int, speed: Speed, speakers: Speakers, full: bool) -> float:
    """Seconds of one: each role by its own policy under its own turns, and where the oracle speaks, each but
    the first under the oracle's too. `full`: turns go to the end of their budgets."""
    seconds, above, policy, unread = 0.0, 0.0, "", 0.0
    for i, role in enumerate(n.said):
        times = 2 if i and n.drawn else 1
        said, longest = (n.budget[role],) * 2 if full else (n.said[role], n.longest[role])
        if i and full:  # what is cut off is refused: the role speaks under the oracle's turns alone
            times = 1 if n.drawn else 0
        if not times:
            break
        if speakers[role] == policy:  # it has read all but what has been said since
            seconds += speed.read * tasks * unread
        else:
            policy = speakers[role]
            seconds += speed.read * (n.told + tasks * (n.context + n.prompt + above)) + speed.fresh
        rows = float(tasks * times)
        seconds += _wave(rows, said, longest, speed, recipe.engine.rows) + TURN * rows
        unread = n.said[role] if n.drawn else 0.0  # the oracle's
        above += times * n.said[role]
    return seconds


def _saves(recipe: Recipe) -> int:
    training = [stage for stage in recipe.stage if isinstance(stage, TrainingSpec)]
    return 1 + len(training) + sum(stage.steps // recipe.save.every for stage in training)


def _saved_bytes(recipe: Recipe, shape: Shape) -> float:
    """Of a checkpoint: what moves, with its two moments."""
    adapter = shape.adapter(recipe.adapter.rank, recipe.adapter.targets)
    own = {weights_of(recipe, stage) for stage in recipe.stage if isinstance(stage, TrainingSpec)}
    scratch = 0 if recipe.model.path else 4.0 * shape.parameters
    whole = 12.0 * shape.parameters if own - {"adapter"} else scratch
    return whole + (12.0 * adapter if "adapter" in own else 0.0)
