"""One step of a stage: its numbers by hand, and who moves and who does not. The fake's gradients can be
worked out on paper."""

from __future__ import annotations

import copy
from dataclasses import replace
from math import exp, log, sqrt

import pytest
from conftest import ACT, HAND, PLAN, RIGHT, WRONG, Listening, desk_choices, scripted

from forethought.core.metrics import reduce
from forethought.engines.base import UpdateRefused
from forethought.engines.fake.engine import softmax
from forethought.learn.curriculum import LevelSampler
from forethought.learn.rewards import reward
from forethought.recipe.kinds.imitate import Imitate
from forethought.recipe.kinds.reinforce import Reinforce
from forethought.recipe.schema import CreditSpec, LossSpec, OptimSpec, TrainingSpec, TreeSpec, UntilSpec
from forethought.stages.outcome import tree_metrics
from forethought.stages.step import Stage
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts

BOTH = ("plan", "act")
SGD = OptimSpec(lr=1.0, betas=(0.0, 0.0), warmup=0, clip_norm=1e9)
ONE = {"plan": "base", "act": "base"}
TWO = {"plan": "plan", "act": "act"}
ADVANTAGE = 0.5 / (0.5 + 1e-4)  # grpo, one success and one failure


def stage_of(
    spec: TrainingSpec, policies=ONE, rollouts: Rollouts | None = None, seed: int = 0, **engine
) -> Stage:
    if rollouts is None:
        desk = Desk((1, 2), widgets=4)
        rollouts = Rollouts(Listening(desk.vocabulary(), desk.stops, choices=desk_choices, **engine), desk)
    for name in {*policies.values()} - {"base"}:
        rollouts.engine.fork("base", name)
    levels = spec.levels or rollouts.taskset.levels
    stage = Stage(
        rollouts.engine,
        rollouts,
        spec,
        policies,
        LevelSampler(levels, spec.level_weights, spec.easy_levels),
        seed,
    )
    for name in stage.trained():
        rollouts.engine.prepare(name, spec.optim)
    return stage


def reinforce(**fields) -> Reinforce:
    fields = {
        "roles": ("plan",),
        "batch": 2,
        "tree": TreeSpec(counts={"plan": 2, "act": 0}),
        "reward": {"plan": {"valid": 1.0}},
        "optim": SGD,
    } | fields
    return Reinforce(**fields)


def right_then_wrong(policy, text, i, seed):
    """Plans alternate between the right one and one that is wrong; acts are always right."""
    plan = text.endswith("<plan>")
    return desk_choices(text, "plan" if plan else "act")[[RIGHT, WRONG][i % 2] if plan else RIGHT]


# imitation --------------------------------------------------------------------------------------------------


def test_imitation_takes_the_step_of_the_mean_over_its_tokens():
    stage = stage_of(Imitate(roles=BOTH, batch=3, levels=(1,), optim=SGD))
    result = stage.step(0)
    [(batch, objective)] = stage.engine.learned
    tokens = 3 * (2 + 5)  # `c </plan>` and `c x3 y4 v3 </act>`, three times
    assert objective.denominators == {"sft": tokens}
    up = 3 / tokens  # each role's first token, three times; all begin at p = 1/3
    for role in BOTH:
        assert stage.engine.weights["base"][role] == pytest.approx([-up / 3, up * 2 / 3, -up / 3])
    line = reduce(result.metrics)
    assert line["loss/sft"] == pytest.approx(6 * log(3) / tokens) and line["tokens/trained"] == tokens
    # one undecided token of two
    assert line["entropy/plan"] == pytest.approx(log(3) / 2) and line["lr"] == 1.0
    assert stage.engine.versions == {"base": 1} and result.trees == ()


def test_a_step_of_so_many_tokens_has_the_gradient_of_one_large_batch():
    one = stage_of(Imitate(roles=BOTH, batch=1, levels=(1,), optim=SGD))
    one.step(0)
    each = sum(len(segment.token_ids) for segment in one.engine.learned[0][0].segments)
    stage = stage_of(Imitate(roles=BOTH, batch=1, batch_tokens=2 * each + 1, levels=(1,), optim=SGD))
    stage.step(0)
    [(batch, objective)] = stage.engine.learned
    tokens = 3 * (2 + 5)  # three demonstrations of one level, each as long as the other
    assert len([s for s in batch.segments if s.parent == -1]) == 3
    assert objective.denominators == {"sft": tokens}
    for role in BOTH:
        up = 3 / tokens
        assert stage.engine.weights["base"][role] == pytest.approx([-up / 3, up * 2 / 3, -up / 3])


def test_tasks_of_a_batch_come_in_families_on_one_screen():
    stage = stage_of(Imitate(roles=BOTH, batch=6, share=3, optim=SGD))
    stage.step(0)
    roots = [s for s in stage.engine.learned[0][0].segments if s.parent == -1]
    assert len(roots) == 2 and len(stage.engine.learned[0][0].segments) == 2 + 6 * 3


def test_the_share_of_demonstrations_that_carry_loss_is_by_role_and_level():
    spec = Imitate(roles=BOTH, batch=600, levels=(1, 2), loss_share={"plan": (1.0, 0.25)}, optim=SGD)
    stage = stage_of(spec)
    stage.step(0)
    segments = stage.engine.learned[0][0].segments
    carry = {
        (role, n): [s.stream == "sft" for s in segments if s.role == role and len(s.token_ids) == n]
        for role, n in [("plan", 2), ("plan", 3), ("act", 5), ("act", 8)]
    }
    assert all(carry["plan", 2]) and all(carry["act", 5]) and all(carry["act", 8])
    n = len(carry["plan", 3])
    assert sum(carry["plan", 3]) == pytest.approx(0.25 * n, abs=4 * sqrt(n * 0.25 * 0.75)) and n > 200


def test_a_batch_without_loss_moves_nothing():
    stage = stage_of(Imitate(roles=("plan",), batch=3, levels=(2,), loss_share={"plan": (0.0,)}, optim=SGD))
    line = reduce(stage.step(0).metrics)
    assert (
        stage.engine.weights == {"base": {}}
        and stage.engine.versions == {"base": 0}
        and line["tokens/trained"] == 0
    )


def test_a_step_depends_on_its_number_and_the_seed_alone():
    spec = reinforce(tree=TreeSpec(counts={"plan": 3, "act": 2}), roles=BOTH)
    straight = stage_of(spec)
    for k in range(3):
        last = straight.step(k)
    alone = stage_of(spec)
    alone.engine.weights, alone.engine.served = copy.deepcopy(
        [straight.engine.weights, straight.engine.served]
    )
    assert [t.task for t in alone.step(2).trees] == [t.task for t in last.trees]
    assert [t.task for t in stage_of(spec, seed=1).step(2).trees] != [t.task for t in last.trees]
    assert [t.task for t in stage_of(spec).step(1).trees] != [t.task for t in last.trees]


# reinforcement ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "tokens"),
    [
        ("tokens", lambda sizes: sum(sizes)),  # every sampled token of the role
        ("sequences", lambda sizes: len(sizes)),  # every turn
        ("constant", lambda sizes: 4 * len(sizes)),  # every turn's budget: two names, one to spare, the stop
    ],
)
def test_the_loss_is_divided_as_the_recipe_says(norm, tokens):
    stage = stage_of(reinforce(loss_norm=norm), script=right_then_wrong)
    result = stage.step(0)
    [(batch, objective)] = stage.engine.learned
    sizes = [len(n.token_ids) for t in result.trees for n in t.nodes if n.role == "plan"]
    denominator = tokens(sizes)
    assert objective.denominators == {"pg": denominator}
    # weight of a turn's first token, where the choice is
    first = [1 / size if norm == "sequences" else 1 for size in sizes]
    up, down = ADVANTAGE * (first[0] + first[2]), ADVANTAGE * (first[1] + first[3])
    expected = [0.0, 0.0, 0.0]
    for choice, push in ((RIGHT, up), (WRONG, -down)):
        for j in range(3):
            expected[j] += push * ((j == choice) - 1 / 3) / denominator
    assert stage.engine.weights["base"]["plan"] == pytest.approx(expected)


def test_groups_without_a_spread_are_left_out_and_the_update_is_the_same():
    def some(policy, text, i, seed):  # alike on one of the two screens
        return right_then_wrong(policy, text, i if text < other else 0, seed)

    other = max(t.task.context for t in stage_of(reinforce()).step(0).trees)
    stages = [stage_of(reinforce(skip_zero=skip), script=some) for skip in (True, False)]
    lines = [reduce(stage.step(0).metrics) for stage in stages]
    assert stages[0].engine.weights == stages[1].engine.weights != {"base": {}}
    assert [stage.engine.learned[0][1].denominators for stage in stages] == [
        stages[0].engine.learned[0][1].denominators
    ] * 2
    assert lines[0]["tokens/forward"] < lines[1]["tokens/forward"]
    assert [line["groups/zero"] for line in lines] == [0.5, 0.5] and lines[0]["groups/all_solved"] == 1


def test_dynamic_sampling_draws_other_tasks_where_rewards_are_alike():
    """Goals whose first widget is `c` fail twice; the others are right once and wrong once. A place is drawn
    again until its group differs, or so often at most."""

    def hard(text: str) -> bool:
        return sum(map(ord, text)) % 2 == 0

    def some(policy, text, i, seed):
        return right_then_wrong(policy, text, 1 if hard(text) else i, seed)

    spec = reinforce(batch=6, levels=(1, 2))
    plain, *others = (stage_of(replace(spec, dynamic_sampling=n), script=some).step(0) for n in (0, 1, 20))
    alike = [i for i, t in enumerate(plain.trees) if hard(f"{t.task.context} {t.task.prompt} <plan>")]
    assert 0 < len(alike) < 6  # there is something to draw again, and something to keep
    once, often = (reduce(step.metrics) for step in others)
    assert "groups/resampled" not in reduce(plain.metrics)
    assert (
        once["groups/resampled"] == len(alike)
        and once["tokens/sampled"] > reduce(plain.metrics)["tokens/sampled"]
    )
    for step in others:  # who differs keeps its place
        assert all(step.trees[i].task == t.task for i, t in enumerate(plain.trees) if i not in alike)
        assert len(step.trees) == len(step.advantages) == 6
    assert once["groups/zero"] < reduce(plain.metrics)["groups/zero"] and often["groups/zero"] == 0
    assert others[1].tried == (6 + often["groups/resampled"]) * 2


def test_dynamic_sampling_ends_at_its_limit_and_the_update_is_that_of_what_differs():
    wrong = lambda policy, text, i, seed: desk_choices(text, "plan")[WRONG]  # noqa: E731
    stage = stage_of(reinforce(dynamic_sampling=3), script=wrong)
    result = stage.step(0)
    line = reduce(result.metrics)
    assert line["groups/resampled"] == 3 * 2 and line["groups/zero"] == 1 and stage.engine.learned == []
    straight = stage_of(reinforce(dynamic_sampling=3), script=wrong).step(0)
    assert [t.task for t in straight.trees] == [
        t.task for t in result.trees
    ]  # the draws have seeds of their own


def test_a_second_update_under_gspo_by_hand():
    """The ratio of a turn of two tokens, of which the second is certain, is the square root of the
    first's."""
    loss = LossSpec(name="gspo", options={"clip_high": 0.05, "clip_low": 0.5})
    stage = stage_of(reinforce(batch=1, levels=(1,), updates=2, loss=loss), script=right_then_wrong)
    line = reduce(stage.step(0).metrics)
    a = ADVANTAGE / 4
    logits = [-a, a, 0.0]
    p = [exp(x) / sum(map(exp, logits)) for x in logits]
    high, low = sqrt(p[RIGHT] * 3), sqrt(p[WRONG] * 3)
    assert high > 1.05 and 0.5 < low < 1  # the good one's is held: both of its tokens
    assert stage.engine.weights["base"]["plan"] == pytest.approx(
        [x - low * a * ((j == WRONG) - p[j]) for j, x in enumerate(logits)]
    )
    assert line["clip/share"] == pytest.approx(2 / 8)


def test_when_no_group_has_a_spread_nothing_moves_and_it_is_counted():
    stage = stage_of(reinforce(), script=lambda policy, text, i, seed: desk_choices(text, "plan")[WRONG])
    result = stage.step(0)
    assert stage.engine.learned == [] and stage.engine.versions == {"base": 0}
    line = reduce(result.metrics)
    assert (line["groups/zero"], line["groups/all_failed"], line["reward/plan"]) == (1.0, 2, 0.0)


def test_the_curriculum_sees_all_groups():
    stage = stage_of(reinforce(levels=(2,)), script=right_then_wrong)
    line = reduce(stage.step(0).metrics)
    assert line["curriculum/reward@2"] == pytest.approx(0.5) and stage.curriculum.passed[2][
        1
    ] == pytest.approx(1.995)


def test_a_second_update_on_the_same_rollouts_is_clipped_by_hand():
    stage = stage_of(
        reinforce(
            batch=1, levels=(1,), updates=2, loss=LossSpec(options={"clip_high": 0.05, "clip_low": 0.5})
        ),
        script=right_then_wrong,
    )
    line = reduce(stage.step(0).metrics)
    # One group, `c </plan>` and `o </plan>`: 4 tokens. After the first update the logits are -a/4, a/4, 0
    # around p = 1/3.
    a = ADVANTAGE / 4
    logits = [-a, a, 0.0]
    total = sum(exp(x) for x in logits)
    p = [exp(x) / total for x in logits]
    high, low = p[RIGHT] * 3, p[WRONG] * 3
    assert high > 1.05 and low > 0.5  # the good one's ratio is held, the bad one's is not
    expected = [x - low * a * ((j == WRONG) - p[j]) for j, x in enumerate(logits)]
    assert stage.engine.weights["base"]["plan"] == pytest.approx(expected)
    assert stage.engine.versions == {"base": 2} and len(stage.engine.learned) == 2
    assert line["clip/share"] == pytest.approx(1 / 8)
    assert line["gap/sampler_max"] == pytest.approx(-log(low))


def test_the_first_update_has_no_gap_to_the_sampler():
    line = reduce(stage_of(reinforce(), script=right_then_wrong).step(0).metrics)
    assert line["gap/sampler_max"] == 0.0 and line["clip/share"] == 0.0


@pytest.mark.parametrize("skip", [True, False])
def test_the_pull_to_the_reference_is_on_groups_without_a_spread_too(skip):
    """Nothing is learned from equal rewards, but a policy that has left its reference is pulled back on
    them."""
    stage = stage_of(
        reinforce(ref_kl=0.5, skip_zero=skip, batch=1, levels=(1,)),
        script=lambda policy, text, i, seed: desk_choices(text, "plan")[WRONG],
    )
    stage.references = {"base": "start"}
    stage.engine.fork("base", "start", "frozen")
    stage.engine.weights["base"]["plan"] = [1.0, 0.0, 0.0]
    stage.engine.publish("base")
    line = reduce(stage.step(0).metrics)
    p = [e / (exp(1) + 2) for e in (exp(1), 1.0, 1.0)]
    away = (1 / 3) / p[WRONG]
    # over two tokens; the second is certain
    assert line["kl/ref"] == pytest.approx((away - log(away) - 1) / 2)
    slope = 0.5 * 2 * (1 - away) / 4  # two plans of two tokens
    assert stage.engine.weights["base"]["plan"] == pytest.approx(
        [x - slope * ((j == WRONG) - p[j]) for j, x in enumerate([1.0, 0.0, 0.0])]
    )
    assert stage.engine.weights["start"] == {}


def test_the_reference_of_each_policy_is_its_own():
    stage = stage_of(
        reinforce(roles=BOTH, ref_kl=0.1, tree=TreeSpec(counts={"plan": 2, "act": 2}), reward={}), TWO
    )
    stage.references = {name: f"{name}-start" for name in stage.trained()}
    for name, reference in stage.references.items():
        stage.engine.fork(name, reference, "frozen")
    stage.engine.weights["act-start"]["act"] = [0.0, 0.0, 3.0]
    stage.step(0)
    plans, acts = (
        [
            s.ref_logprobs[0]
            for b, _ in stage.engine.learned
            if b.policy == name
            for s in b.segments
            if s.stream
        ]
        for name in ("plan", "act")
    )
    assert plans == pytest.approx([-log(3)] * 4)
    assert acts and all(abs(value + log(3)) > 0.1 for value in acts)


def test_the_learning_rates_schedule_reaches_the_optimizer():
    optim = replace(SGD, warmup=4, decay=0.5)
    stage = stage_of(reinforce(optim=optim, until=UntilSpec(steps=8)), script=right_then_wrong)
    assert [reduce(stage.step(k).metrics)["lr"] for k in (0, 1, 3, 4, 6, 7)] == pytest.approx(
        [0.25, 0.5, 1.0, 1.0, 0.5, 0.25]
    )


# who moves --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("roles", [("plan",), ("act",), BOTH])
@pytest.mark.parametrize("kind", ["imitate", "reinforce"])
def test_only_the_policies_of_the_stages_roles_move(roles, kind):
    spec = (
        reinforce(roles=roles, tree=TreeSpec(counts={"plan": 3, "act": 3}), reward={})
        if kind == "reinforce"
        else Imitate(roles=roles, optim=SGD)
    )
    stage = stage_of(spec, TWO)
    stage.step(0)
    engine = stage.engine
    assert {name for name, rows in engine.weights.items() if rows} == {*roles}
    assert {name: engine.versions[name] for name in ("base", *BOTH)} == {"base": 0} | {
        role: int(role in roles) for role in BOTH
    }
    assert all(set(engine.weights[role]) == {role} for role in roles)
    # its adapter learns its role's words only
    # what was learned is what speaks next
    assert all(engine.served[name] == engine.weights[name] for name in engine.weights)


def test_one_policy_for_both_roles_can_train_one_of_them():
    stage = stage_of(
        reinforce(
            roles=("act",), tree=TreeSpec(counts={"plan": 2, "act": 4}), reward={"act": {"outcome": 1.0}}
        )
    )
    stage.engine.served["base"]["plan"] = [-9.0, 9.0, -9.0]
    stage.step(0)
    assert set(stage.engine.weights["base"]) == {"act"}


def test_a_refused_loss_moves_no_policy_and_leaves_no_gradient_behind():
    """`act` has its gradient when the loss of `plan` is refused: it must not be added to the next step's."""
    spec = reinforce(roles=BOTH, tree=TreeSpec(counts={"plan": 3, "act": 3}), reward={})
    stage = stage_of(spec, TWO, nan_losses=[1])
    with pytest.raises(UpdateRefused, match="the loss of policy 'plan' is nan"):
        stage.step(0)
    assert stage.engine.weights == {"base": {}, "plan": {}, "act": {}} and set(
        stage.engine.versions.values()
    ) == {0}
    stage.step(1)
    clean = stage_of(spec, TWO)
    clean.step(1)
    assert stage.engine.weights == clean.engine.weights and stage.engine.weights["act"]


def test_a_refused_gradient_leaves_none_behind_either():
    spec = reinforce(roles=BOTH, tree=TreeSpec(counts={"plan": 3, "act": 3}), reward={})
    stage = stage_of(spec, TWO, nan_gradients=[0])
    with pytest.raises(UpdateRefused, match="the gradient norm of policy 'act' is nan"):
        stage.step(0)
    assert stage.engine.weights == {"base": {}, "plan": {}, "act": {}}
    stage.step(1)
    clean = stage_of(spec, TWO)
    clean.step(1)
    assert stage.engine.weights == clean.engine.weights


def test_where_the_second_policys_gradient_is_refused_the_first_has_not_moved():
    """All gradients are checked before any policy moves; with several updates a batch, those before it
    stay."""
    spec = reinforce(roles=BOTH, tree=TreeSpec(counts={"plan": 3, "act": 3}), reward={})
    stage = stage_of(spec, TWO, nan_gradients=[1])
    with pytest.raises(UpdateRefused, match="the gradient norm of policy 'plan' is nan"):
        stage.step(0)
    assert stage.engine.weights == {"base": {}, "plan": {}, "act": {}}
    assert not any(row for rows in stage.engine.momentum.values() for row in rows.values())
    again = stage_of(replace(spec, updates=2), TWO, nan_gradients=[3])
    with pytest.raises(UpdateRefused, match="policy 'plan'"):
        again.step(0)
    once = stage_of(spec, TWO)
    once.step(0)
    assert (
        again.engine.weights == once.engine.weights
        and once.engine.weights["act"]
        and once.engine.weights["plan"]
    )


# what is reported -------------------------------------------------------------------------------------------


def test_tree_metrics_by_hand():
    rollouts = scripted(
        lambda policy, text, i, seed: (
            [PLAN, "c e </plan>", "desk </plan>", "c s e c s e"][i] if text.endswith("<plan>") else ACT
        )
    )
    trees = rollouts.grow([HAND], TreeSpec(counts={"plan": 4, "act": 1}), ONE, seed=1)
    trees = [reward(tree, {"plan": {"valid": 1.0, "format": 0.5}, "act": {"outcome": 1.0}}) for tree in trees]
    assert reduce(tree_metrics(trees, ("plan",))) == {
        "tokens/sampled": 4 + 3 + 2 + 5 + 2 * 11,
        "tokens/plan": 14 / 4,
        "tokens/act": 11.0,
        "truncated/plan": 0.25,
        "truncated/act": 0.0,
        "failed/plan": 0.0,
        "failed/act": 0.0,
        "refused/plan": 0.5,
        "overlong/plan": 0.0,
        "overlong/act": 0.0,
        "reward/plan": (1.5 + 0.5) / 4,
        "reward_std/plan": pytest.approx(sqrt((1.0**2 + 0 + 2 * 0.5**2) / 4)),  # 1.5, 0.5, 0, 0
        "reward_std/act": 0.0,
        "reward/plan.format": 0.5,
        "reward/plan.valid": 0.25,
        "reward/plan.outcome": 0.5,
        "reward/act": 1.0,
        "reward/act.format": 1.0,
        "reward/act.outcome": 1.0,
        "reward/act.follows": 0.5,
    }


def test_a_failed_rollout_is_in_its_rate_and_not_in_the_reward():
    rollouts = scripted(lambda policy, text, i, seed: PLAN if text.endswith("<plan>") else ACT)
    [tree] = rollouts.grow([HAND], TreeSpec(counts={"plan": 1, "act": 2}), ONE, seed=1)
    failed = replace(tree, nodes=(*tree.nodes[:3], replace(tree.nodes[3], status="failed", reward_parts={})))
    line = reduce(tree_metrics([reward(failed, {"act": {"outcome": 1.0}})], ("plan",)))
    assert (line["failed/act"], line["reward/act"], line["reward/act.outcome"]) == (0.5, 1.0, 1.0)


# it learns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("credit", ["grpo", "dr_grpo", "rloo", "role_baseline"])
def test_the_optimum_is_reached_under_every_credit(credit):
    spec = reinforce(
        roles=BOTH,
        batch=4,
        tree=TreeSpec(counts={"plan": 4, "act": 2}),
        reward={"plan": {"valid": 1.0}, "act": {"outcome": 1.0}},
        credit=CreditSpec(name=credit),
        optim=replace(SGD, lr=4.0),
    )
    stage = stage_of(spec, TWO)
    for k in range(40):
        line = reduce(stage.step(k).metrics)
    for role in BOTH:
        assert softmax(stage.engine.weights[role][role])[RIGHT] > 0.9
    assert line["reward/plan.valid"] > 0.8 and line["entropy/plan"] < 0.3
