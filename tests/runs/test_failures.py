"""What failed is in no number: rewards, baselines, denominators, curriculum, rates and pairs by hand. And
when a run stops over it."""

from __future__ import annotations

import json
from dataclasses import replace
from math import sqrt

import pytest
from conftest import Listening, desk_choices, desk_recipe, fake_desk, lines_of, nothing, tree_of
from misbehaving import CASES, family_of

from forethought.core.errors import FaultStop, GateStop, RecipeError
from forethought.core.metrics import reduce
from forethought.core.paired import paired_difference
from forethought.core.types import Tree
from forethought.learn import credit
from forethought.learn.curriculum import LevelSampler, admit
from forethought.learn.rewards import default_weights, reward
from forethought.look.source import Source
from forethought.measure import gates
from forethought.measure.evaluate import changes, failures, summary
from forethought.measure.gates import Evaluation
from forethought.recipe.check import check
from forethought.recipe.kinds.reinforce import Reinforce
from forethought.recipe.schema import CreditSpec, GateSpec, LimitSpec, OptimSpec, TreeSpec
from forethought.report.words import broke
from forethought.runs import run
from forethought.stages.outcome import failures as failures_of
from forethought.stages.outcome import tree_metrics
from forethought.stages.step import Stage
from forethought.tasks import families
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts

EPS = 1e-4
ONE = {"plan": "base", "act": "base"}
RAISES = CASES["step raises"]


def fail(tree: Tree, *ids: int) -> Tree:
    """These nodes broke; what stood below them was never done."""
    nodes = [
        replace(n, status="failed", reason="environment: RuntimeError: boom", reward_parts={})
        if n.id in ids
        else n
        for n in tree.nodes
        if n.parent not in ids
    ]
    return replace(tree, nodes=tuple(nodes))


# Plan 1 with executions 2, 3, 4; plan 5 with 6, 7, 8; plan 9; plan 10, refused. One execution of each plan
# failed, and plan 9 itself.
BROKEN = fail(tree_of([[1, 0, 0], [0, 0, 0], [1], None]), 4, 8, 9)
WHOLE = tree_of([[1, 0], [0, 0], None])


def assigned(tree: Tree, name: str, acts: int = 3) -> tuple[Tree, dict[int, float]]:
    spec = CreditSpec(name=name, eps=EPS)
    tree = reward(
        tree, default_weights(name in credit.BY_BRANCH, ("plan", "act") if acts else ("plan",), acts > 0)
    )
    rows = credit.measured(tree, spec, credit.assign(tree, spec, ("plan", "act")))
    return tree, {i: row[0] for i, row in rows.items() if row}


# credit -----------------------------------------------------------------------------------------------------


def test_a_failed_execution_is_in_no_reward_of_its_plan():
    tree, _ = assigned(BROKEN, "role_baseline")
    assert {n.id: n.reward for n in tree.nodes if n.role == "plan"} == {1: 0.5, 5: 0.0, 9: None, 11: 0.0}
    assert [n.reward for n in tree.nodes if n.status == "failed"] == [None, None, None]


def test_role_baseline_compares_with_peers_that_were_measured():
    _, found = assigned(BROKEN, "role_baseline")
    std = sqrt(1 / 18)  # of 1/2, 0, 0: the failed plan is no fourth
    assert found == pytest.approx(
        {
            1: (1 / 3) / (std + EPS),
            5: (-1 / 6) / (std + EPS),
            11: (-1 / 6) / (std + EPS),
            2: 0.5 / (0.5 + EPS),
            3: -0.5 / (0.5 + EPS),
            6: 0.0,
            7: 0.0,
        }
    )


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        # 1 of 6 responses: 2 + 2, and 2 for the refused plan
        ("grpo", (5 / 6) / (sqrt(5) / 6 + EPS), (-1 / 6) / (sqrt(5) / 6 + EPS)),
        ("dr_grpo", 5 / 6, -1 / 6),
        ("rloo", 1.0, -1 / 5),
    ],
)
def test_flat_credit_counts_the_responses_that_were_measured(name, right, wrong):
    _, found = assigned(BROKEN, name)
    assert found == pytest.approx(
        {2: right, 3: wrong, 6: wrong, 7: wrong, 11: wrong, 1: (right + wrong) / 2, 5: wrong}
    )


@pytest.mark.parametrize("name", sorted(credit.CREDITS))
def test_credit_with_failed_peers_is_that_of_the_tree_without_them(name):
    _, broken = assigned(BROKEN, name)
    _, whole = assigned(WHOLE, name)
    assert list(broken.values()) == pytest.approx([whole[i] for i in sorted(whole)])


@pytest.mark.parametrize("name", sorted(credit.CREDITS))
def test_a_plan_whose_executions_all_failed_trains_on_nothing(name):
    tree, found = assigned(fail(tree_of([[1, 1], [1, 0]]), 2, 3), name)
    assert set(found) == {4, 5, 6}  # its tokens are in no denominator
    assert {n.id: n.reward for n in tree.nodes if n.id == 1} == {1: None}


def test_a_plan_that_is_paid_for_itself_is_known_though_its_executions_failed():
    spec = CreditSpec(name="role_baseline", eps=EPS)
    tree = reward(fail(tree_of([[1], [0]]), 2), {"plan": {"valid": 1.0}, "act": {"outcome": 1.0}})
    rows = credit.measured(tree, spec, credit.assign(tree, spec, ("plan", "act")))
    assert {i: row[0] for i, row in rows.items()} == pytest.approx(
        {1: 0.5 / (0.5 + EPS), 3: -0.5 / (0.5 + EPS), 4: 0.0}
    )


# a step -----------------------------------------------------------------------------------------------------


def test_a_step_divides_by_the_tokens_that_were_measured():
    """Two plans with one execution each; the first execution breaks."""
    desk = family_of(RAISES, lambda n: n == 0)((1,), widgets=4)
    rollouts = Rollouts(Listening(desk.vocabulary(), desk.stops, choices=desk_choices), desk)
    spec = Reinforce(
        roles=("plan", "act"),
        batch=1,
        tree=TreeSpec(counts={"plan": 2, "act": 1}),
        credit=CreditSpec(name="role_baseline"),
        skip_zero=False,
        optim=OptimSpec(lr=1.0),
    )
    sampler = LevelSampler((1,))
    rollouts.engine.prepare("base", spec.optim)
    accepted = next(seed for seed in range(50) if _executions(rollouts, desk, spec, seed) == 2)
    desk = family_of(RAISES, lambda n: n == 0)((1,), widgets=4)
    rollouts = Rollouts(Listening(desk.vocabulary(), desk.stops, choices=desk_choices), desk)
    rollouts.engine.prepare("base", spec.optim)
    result = Stage(rollouts.engine, rollouts, spec, ONE, sampler, accepted).step(0)
    [tree] = result.trees
    first, second = tree.children(0)
    [lost], [kept] = tree.children(first.id), tree.children(second.id)
    assert (lost.status, lost.reason, lost.reward_parts, lost.reward) == (
        "failed",
        "environment: RuntimeError: boom",
        {},
        None,
    )
    [(batch, objective)] = rollouts.engine.learned
    assert objective.denominators == {"pg": len(second.token_ids) + len(kept.token_ids)}
    assert sum(len(s.token_ids) for s in batch.segments if s.stream) == objective.denominators["pg"]
    line = reduce(result.metrics)
    assert (line["failed/act"], line["failed/plan"], result.failed, result.tried) == (0.5, 0.0, 1, 2)
    assert line["reward/act"] == kept.reward and line["reward/plan"] == second.reward
    assert sampler.passed[1] == (pytest.approx((kept.reward + second.reward) / 2), 1.0)


def _executions(rollouts, desk, spec, seed) -> int:
    """How many plans of the step with this seed are executed."""
    whole = Rollouts(rollouts.engine, Desk((1,), widgets=4))
    [tree] = (
        Stage(rollouts.engine, whole, replace(spec, skip_zero=True), ONE, LevelSampler((1,)), seed)
        .step(0)
        .trees
    )
    rollouts.engine.learned.clear()
    return sum(n.role == "act" for n in tree.nodes)


def test_a_group_of_which_nothing_is_known_is_no_failure_of_the_policy():
    sampler = LevelSampler((3,))
    gone = [fail(tree_of([[1], [0]]), 1, 3), fail(tree_of([[1], [0]]), 2, 4)]
    trees = [reward(tree, default_weights(False, ("plan", "act"))) for tree in gone]
    sampler.observe(trees)
    assert sampler.passed == {}
    kept, counts = admit(trees, [{}, {}])
    assert kept == [] and {k: v.value() for k, v in counts.items() if v.value()} == {
        "groups/zero": 1.0,
        "groups/failed": 2,
    }
    line = reduce(tree_metrics(trees, ("plan",)))
    assert "reward/act" not in line and "reward/plan" not in line
    assert (line["failed/plan"], line["failed/act"], line["refused/plan"]) == (0.5, 1.0, 0.0)
    assert failures_of(trees) == (4, 4)


# rates, pairs, gates ----------------------------------------------------------------------------------------


def evaluation(**scores) -> Evaluation:
    scores = {f"eval/{side}": values for side, values in scores.items()}
    return Evaluation(metrics=summary(scores), scores=scores)


def test_a_rate_is_over_the_tasks_that_were_measured():
    found = evaluation(plan=[1.0, None, 0.0, 1.0], act=[None] * 4)
    assert found.metrics["eval/plan"] == 2 / 3 and found.metrics["eval_n/plan"] == 3
    assert not [name for name in found.metrics if name.endswith("/act")]
    assert failures(found.scores) == (4, 4) and failures(
        evaluation(plan=[1.0, None], act=[0.0, 1.0]).scores
    ) == (1, 2)


def test_pairs_are_of_tasks_that_both_sides_have():
    assert paired_difference([1.0, None, 0.0, 0.0], [0.0, 1.0, None, 1.0]) == paired_difference(
        [1.0, 0.0], [0.0, 1.0]
    )
    assert paired_difference([None], [1.0]) == (0.0, -1.0, 1.0)
    start, now = (
        evaluation(plan=[1.0, 1.0, None], act=[1.0, None, None]),
        evaluation(plan=[0.0, 1.0, 1.0], act=[None, 1.0, 1.0]),
    )
    assert changes(start, now)["eval_change/plan"] == -0.5 and "eval_change/act" not in changes(start, now)


def test_a_gate_compares_the_tasks_that_both_have_and_says_what_it_cannot_see():
    gate = GateSpec(metric="eval/plan", max_drop=0.1, confidence=0.0)
    start = evaluation(plan=[1.0, 1.0, 0.0, 0.0])
    # 0.5 -> 1.0, but no task has changed
    judged = gates.judge(gate, [start, evaluation(plan=[1.0, 1.0, None, None])])
    assert judged.passed and judged.numbers["change"] == 0.0
    # 0.5 -> 0.33; on the pairs 0.33 -> 0.33
    judged = gates.judge(gate, [start, evaluation(plan=[None, 0.0, 0.0, 1.0])])
    assert judged.passed and judged.numbers["change"] == 0.0
    judged = gates.judge(gate, [start, evaluation(plan=[None] * 4)])
    assert not judged.passed and judged.reason == "eval/plan was not measured: all 4 tasks failed"
    judged = gates.judge(gate, [evaluation(plan=[None, 1.0]), evaluation(plan=[1.0, None])])
    assert not judged.passed and "no task was measured both at the start and now" in judged.reason


def test_the_report_says_what_broke():
    assert broke([{"eval/plan": 1.0}, {"reward/plan": 0.5, "failed/act": 0.0}]) == []
    told = broke(
        [
            {"failed/act": 0.5},
            {"failed/task": 1.0},
            {"eval/plan": 1.0, "eval_failed/plan": 2.0, "eval_failed/e2e": 3.0},
        ]
    )
    assert (
        told[0]
        == "At the last evaluation something broke (plan in 2 and e2e in 3 held-out tasks); these are in no "
        "number."
    )
    assert told[1].startswith("In 2 steps the environment,")


# a run ------------------------------------------------------------------------------------------------------

IMITATE = {"kind": "imitate", "batch": 2, "until": {"steps": 4}}
REINFORCE = {
    "kind": "reinforce",
    "batch": 4,
    "tree": {"oracle": ["plan"], "act": 2},
    "roles": ["act"],
    "until": {"steps": 6},
}


class Server:
    """A family whose environment is down while `down`; evaluations (without noise) and training apart."""

    def __init__(self, when=lambda noise: True):
        self.down, self.when, self.calls = False, when, 0
        server = self

        class Family(Desk):
            def environment(self, task, noise):
                server.calls += 1
                if server.down and server.when(noise):
                    raise ConnectionRefusedError("no server")
                return super().environment(task, noise)

        self.family = Family


def watching(server: Server, at: int):
    """The server goes down with step `at` of the run."""

    def observe(event):
        if event.kind in ("step", "eval") and event.step == at:
            server.down = True

    return observe


def recipe_of(*stages, **fields):
    return desk_recipe(
        *stages,
        **({"layout": "shared", "probes": {"every": 0, "conflict_every": 0}, "save": {"every": 50}} | fields),
    )


def test_a_run_stops_with_a_checkpoint_and_goes_on_when_the_environment_is_mended(tmp_path, monkeypatch):
    server = Server(when=lambda noise: noise)  # training alone
    monkeypatch.setitem(families.TASKSETS, "desk", server.family)
    out, recipe = tmp_path / "run", recipe_of(REINFORCE, eval={"tasks": 2, "every": 0}, limits={"window": 2})
    with pytest.raises(FaultStop) as stopped:
        run.train(recipe, out, watching(server, 2), engine_of=fake_desk())
    said = str(stopped.value)
    assert stopped.value.exit_code == 2
    assert (
        "stopped at step 4: 16 of 16 trajectories of the last 2 steps failed (limits.max_failed = 0.5 of 2 "
        "steps)" in said
    )
    assert (
        "environment: ConnectionRefusedError: no server (in environment of Family," in said
        and f"{__file__}:" in said
    )
    assert said.endswith(f"forethought train --resume {out}")
    assert json.loads((out / "summary.json").read_text())["status"] == "stopped"
    assert (out / "checkpoints" / "step-000004").is_dir()  # nothing is lost
    lines = lines_of(out / "metrics.jsonl")
    assert [line["failed/act"] for line in lines if "failed/act" in line] == [0.0, 0.0, 1.0, 1.0]
    assert lines[-1].keys().isdisjoint({"reward/act", "loss/pg"})

    # not mended: two more steps, and no crash
    with pytest.raises(FaultStop, match="stopped at step 6: 16 of 16"):
        run.resume(out, nothing, engine_of=fake_desk())
    server.down = False
    done = run.resume(out, nothing, engine_of=fake_desk())
    assert done.status == "done" and lines_of(out / "metrics.jsonl")[-1]["step"] >= 6
    # told once
    assert [d["outcome"] for d in lines_of(out / "decisions.jsonl") if d["kind"] == "guard"].count(
        "failed"
    ) == 1


def test_a_stage_shorter_than_the_window_in_which_everything_failed_stops_and_begins_anew(
    tmp_path, monkeypatch
):
    server = Server(when=lambda noise: noise)
    server.down = True
    monkeypatch.setitem(families.TASKSETS, "desk", server.family)
    short = REINFORCE | {"until": {"steps": 2}}
    out, recipe = tmp_path / "run", recipe_of(short, IMITATE, eval={"tasks": 2, "every": 0})
    with pytest.raises(FaultStop) as stopped:
        run.train(recipe, out, nothing, engine_of=fake_desk())
    assert (
        "stopped at step 2: all 16 trajectories of stage 1 (2 steps) failed, so it trained nothing, and "
        "begins anew when the run goes on (limits.max_failed = 0.5). The most frequent: environment: "
        "ConnectionRefusedError: no server"
    ) in str(stopped.value)
    assert json.loads((out / "summary.json").read_text())["status"] == "stopped"
    with pytest.raises(FaultStop, match="stopped at step 4: all 16 trajectories of stage 1"):
        run.resume(out, nothing, engine_of=fake_desk())
    server.down = False
    assert run.resume(out, nothing, engine_of=fake_desk()).status == "done"
    told = [(x["step"], x["stage"]) for x in lines_of(out / "metrics.jsonl") if x.get("stage_step") == 2]
    assert told[:3] == [(2, 0), (4, 0), (6, 0)]
    trained = json.loads((out / "summary.json").read_text())["stages"][0]
    assert trained["trained_nothing"] is False and trained["tokens_trained"] > 0


def test_a_short_stage_in_which_one_trajectory_lived_goes_on(tmp_path, monkeypatch):
    server = Server(when=lambda noise: noise)
    server.down = True
    monkeypatch.setitem(families.TASKSETS, "desk", server.family)
    stage = REINFORCE | {"until": {"steps": 2}}
    for name, limits, goes in (("one", {}, True), ("all", {"max_failed": 1.0}, False)):
        server.down = True

        def observe(event, goes=goes):
            server.down = server.down and not (goes and event.kind == "step")

        recipe = recipe_of(stage, eval={"tasks": 2, "every": 0}, limits=limits)
        assert run.train(recipe, tmp_path / name, observe, engine_of=fake_desk()).status == "done"


def test_one_bad_step_in_a_window_does_not_stop_a_run(tmp_path, monkeypatch):
    server = Server(when=lambda noise: noise)
    monkeypatch.setitem(families.TASKSETS, "desk", server.family)

    def observe(event):
        if event.kind in ("step", "eval"):
            server.down = event.step == 2

    done = run.train(
        recipe_of(REINFORCE, eval={"tasks": 2, "every": 0}), tmp_path / "run", observe, engine_of=fake_desk()
    )
    assert done.status == "done"
    [line] = [line for line in lines_of(tmp_path / "run" / "metrics.jsonl") if line.get("failed/act")]
    assert (line["step"], line["failed/act"]) == (3, 1.0)


def test_a_failed_first_evaluation_stops_typed_and_resume_begins_anew(tmp_path, monkeypatch):
    server = Server()
    server.down = True
    monkeypatch.setitem(families.TASKSETS, "desk", server.family)
    out = tmp_path / "run"
    with pytest.raises(
        FaultStop,
        match=r"stopped at step 0: 4 of 4 tasks of the evaluation failed .*nothing "
        r"was trained",
    ):
        run.train(recipe_of(IMITATE), out, nothing, engine_of=fake_desk())
    server.down = False
    assert run.resume(out, nothing, engine_of=fake_desk()).status == "done"
    assert [line["step"] for line in lines_of(out / "metrics.jsonl")] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("at", [2, 4])  # inside the stage, and at its end, where the run would be over
def test_an_evaluation_that_failed_is_made_again_by_who_resumes(at, tmp_path, monkeypatch):
    server = Server()
    monkeypatch.setitem(families.TASKSETS, "desk", server.family)
    out = tmp_path / "run"
    # acting is right after a step: whoever judges it stops
    gate = {"metric": "eval/act", "at_most": 0.5, "on_fail": "stop"}
    stage = IMITATE | {"gates": [gate]}
    with pytest.raises(FaultStop, match="4 of 4 tasks of the evaluation failed"):
        run.train(
            recipe_of(stage, eval={"tasks": 2, "every": at}),
            out,
            watching(server, at - 1),
            engine_of=fake_desk(),
        )
    # nothing was judged on nothing
    assert [d["kind"] for d in lines_of(out / "decisions.jsonl")].count("gate") == 0
    server.down = False
    with pytest.raises(GateStop, match="eval/act is not at most 0.5: 1.000"):
        run.resume(out, nothing, engine_of=fake_desk())
    assert lines_of(out / "metrics.jsonl")[-1]["eval/act"] == 1.0


def test_a_gate_may_read_what_failed(tmp_path, monkeypatch):
    server = Server(when=lambda noise: noise and server.calls % 4 == 0)
    server.down = True
    monkeypatch.setitem(families.TASKSETS, "desk", server.family)
    stage = REINFORCE | {"gates": [{"metric": "failed/act", "at_most": 0.1, "on_fail": "stop"}]}
    with pytest.raises(GateStop, match="failed/act is not at most 0.1: 0.250"):
        run.train(recipe_of(stage), tmp_path / "run", nothing, engine_of=fake_desk())


def test_an_exit_of_the_environment_never_ends_a_run_as_done(tmp_path, monkeypatch):
    monkeypatch.setitem(families.TASKSETS, "desk", family_of(CASES["step exits with 0"], lambda n: True))
    with pytest.raises(FaultStop) as stopped:
        run.train(recipe_of(IMITATE), tmp_path / "run", nothing, engine_of=fake_desk())
    assert stopped.value.exit_code == 2 and "environment: SystemExit: 0" in str(stopped.value)


def test_the_engines_own_error_is_not_the_environments(tmp_path):
    class Broken(Listening):
        def sample(self, requests):
            raise RuntimeError("the sampler broke")

    with pytest.raises(RuntimeError, match="the sampler broke"):
        run.train(
            recipe_of(IMITATE),
            tmp_path / "run",
            nothing,
            engine_of=lambda recipe, taskset: Broken(
                taskset.vocabulary(), taskset.stops, choices=desk_choices
            ),
        )


@pytest.mark.parametrize(
    ("limits", "where"),
    [
        ({"step_seconds": -1.0}, "limits.step_seconds"),
        ({"episode_seconds": -0.1}, "limits.episode_seconds"),
        ({"max_failed": 1.5}, "limits.max_failed"),
        ({"max_failed": -0.5}, "limits.max_failed"),
        ({"window": 0}, "limits.window"),
    ],
)
def test_limits_outside_their_range_are_refused(limits, where):
    with pytest.raises(RecipeError, match=f"^{where}: "):
        check(desk_recipe(IMITATE, limits=limits))


def test_a_run_without_faults_has_no_word_of_them(tmp_path):
    run.train(recipe_of(IMITATE, REINFORCE), tmp_path / "run", nothing, engine_of=fake_desk())
    assert not (tmp_path / "run" / "faults.json").exists()
    for line in lines_of(tmp_path / "run" / "metrics.jsonl"):
        assert not [
            name
            for name, value in line.items()
            if name.startswith(("failed/", "eval_failed", "groups/failed")) and value
        ]


# looking ----------------------------------------------------------------------------------------------------


def test_looking_leaves_out_what_failed(tmp_path, monkeypatch):
    from forethought import look

    out = tmp_path / "run"
    run.train(recipe_of(IMITATE), out, nothing, engine_of=fake_desk())
    family = family_of(RAISES, lambda n: n == 1)
    monkeypatch.setitem(families.TO_MEASURE, "desk", family)
    source = look.find(out)
    monkeypatch.setattr(Source, "open", lambda self, taskset, engine_of: fake_desk()(None, taskset))
    found = look.evaluate(source, tasks=3)
    assert found["failed"] == 1 and {name: found[name]["n"] for name in ("plan", "act", "e2e")} in (
        {"plan": 6, "act": 5, "e2e": 6},
        {"plan": 6, "act": 6, "e2e": 5},
    )
    assert family.closed == 1
    monkeypatch.setitem(families.TO_MEASURE, "desk", family_of(RAISES, lambda n: n % 9 == 1))
    found = look.evaluate(source, tasks=3, tree=TreeSpec(counts={"plan": 4}, temperature=1.0))
    assert found["failed"] > 0 and found["avg@4"]["n"] == 6 and found["pass@4"]["n"] < 6
    monkeypatch.setitem(families.TO_MEASURE, "desk", family_of(CASES["the parser raises"], lambda n: n == 0))
    first, second = look.sample(source, n=2)
    first, second = first["turns"][0], second["turns"][0]
    assert (first["status"], first["reason"]) == ("failed", "parse: IndexError: list index out of range")
    assert second["status"] != "failed"
    monkeypatch.setitem(families.TO_MEASURE, "desk", family_of(CASES["the parser raises"], lambda n: True))
    with pytest.raises(
        Exception,
        match="all 6 tasks failed, so there is nothing to measure; the most frequent: parse: IndexError",
    ):
        look.evaluate(
            source, tasks=3, levels=[1, 2], tree=TreeSpec(counts={"plan": 1, "act": 1}, temperature=0.0)
        )


def test_the_limits_of_a_recipe_reach_its_family():
    recipe = recipe_of(IMITATE, limits={"step_seconds": 3.0})
    _, rollouts = run.build(recipe, fake_desk())
    assert rollouts.guard.limits == LimitSpec(step_seconds=3.0)


def test_a_task_that_failed_in_an_evaluation_is_no_damage_of_the_checkpoint():
    """A run that stopped because tasks failed has such evaluations, and goes on from them."""
    from forethought.runs.progress import Progress

    one = {
        "metrics": {"eval/act": 1.0, "failed/act": 1.0},
        "scores": {"eval/act": [1.0, None], "eval/plan": [None, None]},
    }
    assert Progress.read({"evaluations": [one]}).evaluations == [one]
    with pytest.raises(ValueError, match="an evaluation without metrics and scores"):
        Progress.read({"evaluations": [one | {"scores": {"eval/act": ["1"]}}]})
