"""Who holds which weights: at a stage's start, when isolation switches on or off, and at the stage's end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from forethought.engines.base import BASE, Engine, Surgery, lacks, surgery_of
from forethought.recipe.layout import compares, has_planner, planners, policy_of, weights_of
from forethought.recipe.schema import (
    AdaptiveSpec,
    GateSpec,
    IsolationSpec,
    OptimSpec,
    Recipe,
    StageSpec,
    TrainingSpec,
)
from forethought.recipe.speaking import roles_of
from forethought.runs.progress import Progress
from forethought.stages.isolation.adaptive import Move
from forethought.stages.isolation.core import REGION
from forethought.stages.setting import Setting
from forethought.stages.webrl.yes_or_no import JUDGES

Decide = Callable[[str, str, str], None]  # (name, outcome, reason)
AT_START = "-at-stage-"


def first_policies(recipe: Recipe) -> dict[str, str]:
    """Role -> policy before the first stage, in the order of the workflow: a planner of its own is there from
    the beginning."""
    return {role: planners(recipe).get(role, BASE) for role in roles_of(recipe)}


def changed(spec: StageSpec, changes: dict) -> StageSpec:
    """The stage with what a gate or the controller has changed since: `weights`, `lr` (a factor), `isolation`
    (a table). In weights of its own a role needs no isolation and no controller."""
    if not isinstance(spec, TrainingSpec):
        return spec
    optim = replace(
        spec.optim,
        lr=spec.optim.lr * changes.get("lr", 1.0),
        muon_lr=spec.optim.muon_lr * changes.get("lr", 1.0),
    )
    if "weights" in changes:
        return replace(
            spec, weights=changes["weights"], optim=optim, isolation=IsolationSpec(), adaptive=AdaptiveSpec()
        )
    return replace(spec, optim=optim, isolation=replace(spec.isolation, **changes.get("isolation", {})))


def once_more(gate: GateSpec, spec: TrainingSpec, changes: dict) -> tuple[dict, str]:
    """What a gate changes in a stage that it sends back to its start, and that in words."""
    changes = {k: v for k, v in changes.items() if k != "apart"}
    if gate.then == "lower_rate":
        changes["lr"] = changes.get("lr", 1.0) * gate.rate
        return changes, f"with {changes['lr']:g} of its learning rate"
    if gate.isolate in ("replay", "keep_kl"):
        return changes | {
            "isolation": {gate.isolate: spec.adaptive.weight}
        }, f"with {gate.isolate} of weight {spec.adaptive.weight}"
    own = (
        spec.adaptive.lr / spec.optim.lr
        if spec.adaptive.lr and gate.isolate == "adapter"
        else changes.get("lr", 1.0)
    )
    return changes | {
        "weights": gate.isolate,
        "lr": own,
    }, f"with {'an adapter' if gate.isolate == 'adapter' else 'a model'} of its own"


def take_up(engine: Engine, recipe: Recipe, spec: TrainingSpec, p: Progress, decide: Decide) -> None:
    """At a stage's start: own weights for the roles that train in them, frozen copies for what compares with
    them, fresh optimizers."""
    own = weights_of(recipe, spec)
    if recipe.probes.kl_base and not p.found and (recipe.model.path or p.stage):
        for policy in sorted(set(p.policies.values())):
            p.found[policy] = fresh(p, f"{policy}-as-found")
            engine.fork(policy, p.found[policy], "frozen")
    for role in spec.roles:
        if own == "base":
            break
        if p.policies[role] == BASE and not has_planner(recipe):
            named = policy_of(recipe, role) if policy_of(recipe, role) != BASE else role
            mates = [other for other in p.policies if other == role or policy_of(recipe, other) == named]
            name = fresh(p, named)
            engine.fork(BASE, name, own)
            p.policies.update(dict.fromkeys(mates, name))
            p.adapters += [name] if own == "adapter" else []
            speak = f"{role} speaks" if mates == [role] else f"{' and '.join(mates)} speak"
            whose = "of its own" if mates == [role] else "that they share"
            decide(
                "layout",
                "fork",
                f"{speak} through {'an adapter' if own == 'adapter' else 'a model'} {whose} from here on",
            )
            if BASE in p.found:
                p.found[name] = p.found[BASE]
    for role in spec.roles:
        if p.policies[role] == BASE and set(p.policies.values()) & set(p.adapters):
            _own_model(engine, p, role)  # the base lies under another role's adapter: it must not move
            decide(
                "layout",
                "fork",
                f"{role} speaks through a model of its own from here on, since an adapter lies on the base",
            )
    if p.changed.get("weights") == "adapter":
        _apart(engine, spec, p, decide)
    trained = sorted({p.policies[role] for role in spec.roles})
    p.references = {}
    for policy in trained if compares(recipe, spec) else ():
        name = f"{policy}{AT_START}{p.stage}"
        if name not in engine.policies():  # a stage that was rolled back still has it
            engine.fork(policy, name, "frozen")
        p.references[policy] = name
    for policy in trained:
        engine.prepare(policy, spec.optim)


def _apart(engine: Engine, spec: TrainingSpec, p: Progress, decide: Decide) -> None:
    """A gate has asked for an adapter of their own for the roles that train: where they share one with roles
    that do not, theirs begins as what they shared."""
    for policy in dict.fromkeys(p.policies[role] for role in spec.roles):
        own = [role for role in spec.roles if p.policies[role] == policy]
        if policy in p.adapters and len(own) < sum(named == policy for named in p.policies.values()):
            name = fresh(p, own[0])
            engine.fork(policy, name, "adapter")
            p.adapters.append(name)
            p.policies.update(dict.fromkeys(own, name))
            if policy in p.found:
                p.found[name] = p.found[policy]
            speak = f"{own[0]} speaks" if len(own) == 1 else f"{' and '.join(own)} speak"
            decide(
                "layout", "fork", f"{speak} through an adapter of {'its' if len(own) == 1 else 'their'} own"
            )


def isolate(engine: Engine, stage: Setting, p: Progress, move: Move, optim: OptimSpec) -> str:
    """The harmed role has the weights of the stage's start again, those that shared them go on with what they
    have learned. Returns what was done."""
    adaptive, harmed = stage.spec.adaptive, move.role
    if adaptive.to in ("replay", "keep_kl"):
        p.changed = p.changed | {
            "isolation": {**p.changed.get("isolation", {}), adaptive.to: adaptive.weight}
        }
        return f"{adaptive.to} of {harmed} is on with weight {adaptive.weight}"
    shared = p.policies[stage.partner(harmed)]
    others = [role for role in p.policies if role != harmed and p.policies[role] == shared]
    go = f"{' and '.join(others)} {'goes' if len(others) == 1 else 'go'} on"
    start = p.references[shared]
    if "apart" in p.changed:  # they were apart before in this stage and have shared again since
        p.policies[harmed] = p.changed["apart"]
        return f"{harmed} speaks through its own weights again"
    if shared != BASE:  # what they share is not the base: an earlier stage has taken it apart from it
        name = fresh(p, harmed)
        engine.fork(start, name, "adapter" if shared in p.adapters else "model")
        p.adapters += [name] if shared in p.adapters else []
        p.policies[harmed], p.references[name] = name, start
        done = f"{go} as {'it is' if len(others) == 1 else 'they are'}"
    else:
        # Muon's step does not shrink with LoRA's B, which may be near zero: adapters take AdamW
        own = replace(optim, name="adamw", lr=adaptive.lr or optim.lr) if adaptive.to == "adapter" else None
        done = f"{go} {_split_base(engine, p, others, start, own)}"
    if harmed in stage.spec.roles:
        if p.policies[harmed] == BASE and set(p.policies.values()) & set(p.adapters):
            _own_model(engine, p, harmed)
            p.references[p.policies[harmed]] = start
        engine.prepare(p.policies[harmed], optim)
    p.changed = p.changed | {"apart": p.policies[harmed]}
    return f"{done}; {harmed} has the weights of the stage's start"


def _split_base(
    engine: Engine, p: Progress, roles: Sequence[str], start: str, optim: OptimSpec | None
) -> str:
    """`roles` leave the base with what they have learned there, as an adapter (trained with `optim`) or,
    without one, as a model that goes on with the base's optimizer; the base is `start` again."""
    name = fresh(p, roles[0])
    if optim is None:
        engine.fork(BASE, name, "model")
        engine.assign(BASE, start)
        done = "in a model of its own" if len(roles) == 1 else "in a model of their own"
    else:
        share = engine.factor(name, start)
        engine.prepare(name, optim)
        p.adapters.append(name)
        done = f"in an adapter that holds {share:.0%} of the squared difference"
    for policy in (BASE, name):
        engine.publish(policy)
    engine.release(BASE)
    p.policies.update(dict.fromkeys(roles, name))
    p.references[name] = start
    if BASE in p.found:
        p.found[name] = p.found[BASE]
    return done


def _own_model(engine: Engine, p: Progress, role: str) -> None:
    name = fresh(p, role)
    engine.fork(BASE, name, "model")
    p.policies[role] = name
    if BASE in p.found:
        p.found[name] = p.found[BASE]


def rejoin(stage: Setting, p: Progress, role: str) -> str:
    """The role shares again what those beside it have learned since."""
    to = stage.spec.adaptive.to
    if to in ("replay", "keep_kl"):
        p.changed = p.changed | {"isolation": {**p.changed.get("isolation", {}), to: 0.0}}
        return f"{to} is off again"
    other = stage.partner(role)
    p.policies[role] = p.policies[other]
    return f"{role} speaks through the weights of {other}"


def lay_down(engine: Engine, p: Progress) -> None:
    """At a stage's end: references and critics are dropped, optimizers forgotten, held weights let go."""
    for policy in list(engine.policies()):
        if AT_START in policy or policy.startswith((REGION, JUDGES)):
            engine.drop(policy)
        else:
            engine.release(policy)
    for policy in sorted(set(p.policies.values())) if not lacks(engine, Surgery) else ():
        surgery_of(engine).hold(policy, "")
    p.references = {}


def fresh(p: Progress, name: str) -> str:
    """`name`, or `name~2` and so on: a policy's name is never used for something else."""
    n = sum(used == name or used.startswith(f"{name}~") for used in p.used)
    chosen = name if not n else f"{name}~{n + 1}"
    p.used.append(chosen)
    return chosen
