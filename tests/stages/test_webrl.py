"""WebRL on the fake engine: phases, lineages, a critic, a judge that is trusted or not, replay. The fake's
critic has one number for all states, so what it expects can be worked out."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from math import log
from types import SimpleNamespace

import pytest
from conftest import RIGHT, WRONG, Listening, desk_choices, desk_recipe, lines_of, nothing

from forethought.cli import main
from forethought.core.errors import Asked, RecipeError, UserError
from forethought.core.metrics import reduce
from forethought.core.types import Node, Tree
from forethought.engines.fake.engine import FakeEngine, softmax
from forethought.learn.curriculum import LevelSampler
from forethought.learn.rewards import reward
from forethought.recipe.kinds.webrl import CriticSpec, CurriculumSpec, OutcomeSpec, ReplaySpec, WebRL
from forethought.recipe.load import load
from forethought.recipe.schema import LossSpec, OptimSpec, TreeSpec, UntilSpec
from forethought.report.load import load as read_run
from forethought.report.phases import phases as phases_of
from forethought.runs import handover, run
from forethought.runs.interrupts import Wish
from forethought.runs.progress import Progress
from forethought.stages.step import Stage
from forethought.stages.webrl import outcomes, phases
from forethought.stages.webrl.lineage import generation, task_of
from forethought.stages.webrl.yes_or_no import YesOrNo, words_of
from forethought.tasks.desk.taskset import Desk
from forethought.workflows.rollout import Rollouts

ASKED = ("critic", "outcome")


def choices(text: str, role: str) -> list[str]:
    """The judge and the critic have two answers, which are marks of the task."""
    return ["</act>", "</plan>"] if role in ASKED else desk_choices(text, role)


def stage_of(k: int = 0, script=None, **fields) -> Stage:
    spec = WebRL(
        **{
            "roles": ("plan",),
            "batch": 4,
            "tree": TreeSpec(counts={"plan": 1, "act": 0}),
            "reward": {"plan": {"valid": 1.0}},
            "optim": OptimSpec(lr=1.0, betas=(0.0, 0.0), warmup=0, clip_norm=1e9),
            "until": UntilSpec(steps=4),
            "phases": 2,
        }
        | fields
    )
    desk = Desk((1, 2, 3), widgets=5)
    engine = Listening(desk.vocabulary(), desk.stops, choices=choices, script=script)
    engine.fork("base", "plan")
    engine.fork("plan", "plan-at-stage-0", "frozen")
    rollouts = Rollouts(engine, desk)
    levels = LevelSampler(desk.levels)
    stage = Stage(
        engine, rollouts, spec, {"plan": "plan", "act": "base"}, levels, 0, {"plan": "plan-at-stage-0"}
    )
    engine.prepare("plan", spec.optim)
    return stage


def says(which):
    """A script: `which(number of the request)` of the three continuations."""
    count = iter(range(1 << 30))
    return lambda policy, text, i, seed: choices(text, "plan")[which(next(count))]


def test_a_mutate_that_makes_nothing_usable_ends_the_run_by_name(monkeypatch):
    stage = stage_of(script=says(lambda i: WRONG))
    monkeypatch.setattr(
        Desk, "mutate", lambda self, task, rng: replace(self.family(rng, [1], "train")[0], level=9)
    )
    with pytest.raises(UserError, match="phase 1 has no task to choose from: .*none of the levels"):
        for k in range(4):
            stage.step(k)


# lineages ---------------------------------------------------------------------------------------------------


def test_a_lineage_is_a_task_again_and_knows_its_generation():
    desk = Desk((1, 2, 3), widgets=5)
    lineage = [2, 17, 4, 5]
    task = task_of(desk, json.loads(json.dumps(lineage)))
    assert generation(lineage) == 2 and generation([2, 17]) == 0
    by_hand = desk.family(random.Random(17), [2], "train")[0]
    for seed in (4, 5):
        by_hand = desk.mutate(by_hand, random.Random(seed))
    assert task == by_hand and task.level in (1, 2, 3)


# a step -----------------------------------------------------------------------------------------------------


def test_a_step_regresses_the_log_ratio_of_a_plan_on_what_the_critic_did_not_expect():
    stage = stage_of(
        batch=1, loss=LossSpec(name="webrl", options={"beta": 2.0}), script=says(lambda n: RIGHT)
    )
    line = reduce(stage.step(0).metrics)
    (critic, _), (batch, objective) = stage.engine.learned
    assert critic.policy == "webrl-critic" and batch.policy == "plan"
    # the critic begins at 1/2, and one step of AdamW (here SGD) of 1e-3 moves it by half of that each way
    assert line["critic/loss"] == pytest.approx(log(2)) and line["critic/brier"] == pytest.approx(0.25)
    expected = softmax([0.0005, -0.0005])[0]
    [turn] = [s for s in batch.segments if s.stream]
    assert turn.advantage == pytest.approx([1 - expected] * len(turn.token_ids))
    assert sum(turn.weight) == pytest.approx(1) and objective.denominators["pg"] == 1
    assert turn.ref_logprobs[0] == pytest.approx(-log(3))
    assert line["loss/pg"] == pytest.approx((1 - expected) ** 2) and line["webrl/ratio"] == 0
    step = 2 * 2.0 * (1 - expected)  # 2 beta (A - beta R), with R = 0
    assert stage.engine.weights["plan"]["plan"][RIGHT] == pytest.approx(step * 2 / 3)
    assert (line["generation/tasks@0"], line["generation/success@0"], line["webrl/phase"]) == (1, 1, 0)


def test_failed_tasks_are_made_into_others_for_the_next_phase_and_the_reference_moves():
    stage = stage_of(script=says(lambda n: RIGHT if n % 2 else WRONG))
    before = [stage.step(k) for k in range(2)]
    state = phases.state_of(stage)
    failed = [tuple(lineage) for lineage in state["failed"]]
    assert len(failed) == 4 and all(len(lineage) == 2 for lineage in failed)
    assert state["references"] == {"plan": "plan-at-stage-0-phase-0"}
    result = stage.step(2)
    line = reduce(result.metrics)
    assert state["phase"] == 1 and len(state["tasks"]) == 8
    assert {tuple(lineage[:2]) for lineage in state["tasks"]} <= set(failed)
    assert line["generation/tasks@1"] == 4 and "generation/tasks@0" not in line
    assert state["references"] == {"plan": "plan-at-stage-0-phase-1"}
    assert "plan-at-stage-0-phase-0" not in stage.engine.policies()
    # the reference is the policy that the phase found
    found = stage.engine.weights["plan-at-stage-0-phase-1"]["plan"]
    assert found != stage.engine.weights["plan-at-stage-0"].get("plan")
    old = {tree.task.id for step in before for tree in step.trees}
    assert not old & {tree.task.id for tree in result.trees}
    assert json.loads(json.dumps(stage.remembered)) == stage.remembered


@pytest.mark.parametrize("tasks", ["band", "uniform"])
def test_the_controls_draw_fresh_tasks(tasks):
    stage = stage_of(curriculum=CurriculumSpec(tasks=tasks), script=says(lambda n: WRONG))
    for k in range(3):
        line = reduce(stage.step(k).metrics)
    assert line["generation/tasks@0"] == 4 and ("curriculum/in_band" in line) == (tasks == "band")


def test_tasks_outside_of_the_bounds_are_taken_only_where_there_are_too_few():
    stage = stage_of(curriculum=CurriculumSpec(low=0.0, high=0.1, candidates=2), script=says(lambda n: WRONG))
    for k in range(3):
        line = reduce(stage.step(k).metrics)
    assert (line["curriculum/in_band"], line["curriculum/filled"]) == (
        0.0,
        1.0,
    )  # it expects about 1/2 of all
    assert line["curriculum/candidates"] <= 16 and line["generation/tasks@1"] == 4


# the critic's and the judge's words -------------------------------------------------------------------------


def test_a_model_that_knows_few_words_answers_with_two_of_them():
    words = stage_of().rollouts.words
    question, yes, no = words_of(words)
    assert question == () and words.engine.decode([yes, no]) == "</act> </plan>"
    engine = FakeEngine([*words.engine.words, "Success?", "yes", "no"], words.taskset.stops)
    asked = words_of(SimpleNamespace(engine=engine, spaced=True, taskset=words.taskset))
    assert engine.decode([*asked[0], *asked[1:]]) == "Success? yes no"


def test_answers_begin_with_different_tokens_or_are_refused():
    """Letters as tokens: with a space before them, both answers begin with it."""
    letters = SimpleNamespace(
        check_words=lambda words, stops: None, encode=lambda text: tuple(map(ord, text))
    )
    words = SimpleNamespace(engine=letters, spaced=False, taskset=None)
    assert words_of(words) == (tuple(map(ord, " Success?")), ord("y"), ord("n"))
    letters.encode = lambda text: (7,)
    with pytest.raises(UserError, match="the same first token; a critic needs two"):
        words_of(words)


def test_an_answer_is_the_probability_of_yes_among_the_two():
    stage = stage_of()
    critic = YesOrNo(stage, "critic", CriticSpec())
    critic.begin()
    stage.engine.weights["webrl-critic"]["critic"] = [log(3), 0.0]
    ids = stage.engine.encode("a b")
    assert critic.of_prompts([ids, ids]) == pytest.approx([0.75, 0.75]) and critic.of_prompts([]) == []
    critic.begin()  # anew
    assert critic.of_prompts([ids]) == [0.5]


def test_updates_are_on_the_same_trajectories_and_the_loss_is_that_before_them():
    few, many = (
        stage_of(batch=1, script=says(lambda n: RIGHT), critic=CriticSpec(lr=0.5, updates=n)) for n in (1, 3)
    )
    lines = [reduce(stage.step(0).metrics) for stage in (few, many)]
    assert [line["critic/loss"] for line in lines] == pytest.approx([log(2)] * 2)
    assert lines[1]["reward/plan.value"] > lines[0]["reward/plan.value"] > 0.5
    assert [batch.policy for batch, _ in many.engine.learned] == ["webrl-critic"] * 3 + ["plan"]


# the judge of outcomes --------------------------------------------------------------------------------------


def test_a_judge_is_compared_with_what_is_so():
    line = reduce(outcomes.compared([0.9, 0.6, 0.4, 0.2, 0.6], [1, 0, 1, 0, 0]))
    # verdicts: yes yes no no yes; successes: the first and the third
    assert line["outcome/accuracy"] == pytest.approx(2 / 5) and line["outcome/said"] == 0.6
    assert line["outcome/false_positive"] == pytest.approx(2 / 3)
    assert line["outcome/false_negative"] == 0.5 and line["outcome/exact"] == 0.4
    assert line["outcome/auc"] == pytest.approx((3 + 1) / 6)  # pairs: .9 above all three, .4 above one


@pytest.mark.parametrize(
    ("won", "lost", "area"),
    [([1], [0], 1.0), ([0], [1], 0.0), ([0.5, 0.5], [0.5], 0.5), ([], [1], None), ([3, 1], [2, 1], 0.625)],
)
def test_the_area_under_the_curve(won, lost, area):
    assert outcomes.auc(won, lost) == area


def test_a_trusted_judge_pays_and_what_is_exact_stays_beside_it():
    """It learns for a phase in which all fails, and is made to say that all succeeds: that is paid."""
    spec = OutcomeSpec(learns=1, trust=True, lr=1.0)
    stage = stage_of(outcome=spec, script=says(lambda n: WRONG))
    for k in range(2):
        line = reduce(stage.step(k).metrics)
        assert line["reward/plan"] == 0 and "reward/plan.exact" not in line
    assert line["outcome/false_positive"] == 0 and "outcome/loss" in line
    stage.engine.weights["webrl-outcome"]["outcome"] = [5.0, 0.0]
    result = stage.step(2)
    line = reduce(result.metrics)
    assert (line["reward/plan"], line["reward/plan.valid"], line["reward/plan.exact"]) == (1, 1, 0)
    assert (line["outcome/said"], line["outcome/exact"], line["outcome/false_positive"]) == (1, 0, 1)
    assert "outcome/loss" not in line  # it learns no more
    # what it believes also decides what is kept and what has failed
    assert phases.state_of(stage)["failed"] == [] and len(phases.state_of(stage)["buffer"]) == 4


def test_a_verdict_on_acts_reaches_the_plan_above_them():
    stage = stage_of(tree=TreeSpec(counts={"plan": 1, "act": 2}), reward={})
    tree = reward(_forked(), {"plan": {"outcome": 1.0}, "act": {"outcome": 1.0}})
    assert [n.reward for n in tree.nodes] == [None, 0.5, 1, 0]
    found = outcomes.judged([tree])
    assert [(i, n.id, part) for i, n, part in found] == [(0, 2, "outcome"), (0, 3, "outcome")]
    [told] = outcomes.trusted(stage, [tree], found, [0.2, 0.1])
    assert [n.reward for n in told.nodes] == [None, 0, 0, 0]
    assert told.nodes[2].reward_parts["exact"] == 1


def _forked() -> Tree:
    task = task_of(Desk((1, 2, 3), widgets=5), [1, 3])
    row = dict(status="finished", policy="plan", text="", token_ids=(1,))
    return Tree(
        task=task,
        nodes=(
            Node(id=0, parent=None, role=None, text="", token_ids=(1, 2)),
            Node(id=1, parent=0, role="plan", **row),
            Node(id=2, parent=1, role="act", reward_parts={"outcome": 1.0}, **row),
            Node(id=3, parent=1, role="act", reward_parts={"outcome": 0.0}, **row),
        ),
    )


def test_the_critic_the_judge_and_the_references_end_with_the_stage():
    stage = stage_of(outcome=OutcomeSpec(learns=1))
    stage.step(0)
    own = {"webrl-critic", "webrl-outcome", "plan-at-stage-0-phase-0"}
    assert own <= set(stage.engine.policies())
    handover.lay_down(stage.engine, Progress(policies={"plan": "plan", "act": "base"}))
    assert set(stage.engine.policies()) == {"base", "plan"}


# replay -----------------------------------------------------------------------------------------------------


def test_successes_of_earlier_phases_are_learned_again_where_the_policy_is_unsure():
    """A plan has probability 1/3 and two to four tokens, so a perplexity of 3 ** (1 / tokens)."""
    stage = stage_of(
        script=says(lambda n: RIGHT if n < 8 else WRONG),
        optim=OptimSpec(lr=1e-9, betas=(0.0, 0.0), warmup=0),
        replay=ReplaySpec(most=1.0, high=3.0**0.34),
    )
    lines = [reduce(stage.step(k).metrics) for k in range(3)]
    assert [line["replay/used"] for line in lines[:2]] == [0, 0]
    state = phases.state_of(stage)
    sizes = [len(kept["nodes"][1][2].split()) for kept in state["buffer"]]
    assert len(sizes) == 8 and {tuple(nodes) for _, nodes in state["chosen"]} <= {(1,)}
    assert [i for i, _ in state["chosen"]] == [i for i, n in enumerate(sizes) if n >= 3]
    assert lines[2]["replay/in_band"] == pytest.approx(sum(n >= 3 for n in sizes) / 8)
    some = min(4, sum(n >= 3 for n in sizes))
    assert some > 0 and lines[2]["replay/used"] == some / 4
    batch, objective = stage.engine.learned[-1]
    assert len([s for s in batch.segments if s.stream]) == 4 + some
    assert objective.denominators["pg"] == 4 + some


def test_the_oldest_successes_make_room():
    stage = stage_of(script=says(lambda n: RIGHT), replay=ReplaySpec(keep=5, high=100))
    for k in range(3):
        stage.step(k)
    state = phases.state_of(stage)
    assert len(state["buffer"]) == 5 and all(0 <= i < 5 for i, _ in state["chosen"])


# recipes ----------------------------------------------------------------------------------------------------


WEBRL = {
    "kind": "webrl",
    "roles": ["plan"],
    "until": {"steps": 4},
    "phases": 2,
    "batch": 3,
    "tree": {"plan": 1, "act": 0},
    "reward": {"plan": {"valid": 1}},
    "outcome": {"learns": 1},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"phases": 3}, "stage.0.phases: 3 phases do not divide 4 steps"),
        ({"share": 3}, "stage.0.share: the tasks of a phase are chosen beforehand"),
        (
            {"credit": {"name": "grpo"}},
            "stage.0.credit.name: a stage of kind webrl credits turns by its critic",
        ),
        ({"outcome": {"trust": True}}, "stage.0.outcome.trust: what is trusted has learned before"),
        (
            {"curriculum": {"high": 0.01}},
            "stage.0.curriculum.high: must be at least low, which is 0.05; found 0.01",
        ),
        ({"replay": {"high": 1}}, "stage.0.replay.high: must be at least low, which is 1.05263; found 1"),
        (
            {"replay": {"keep": 0}},
            "stage.0.replay.keep: 0 successes are kept, and replay.most is 2",
        ),
        ({"curriculum": {"tasks": "all"}}, "stage.0.curriculum.tasks: "),
        ({"replay": {"low": 0.5}}, "stage.0.replay.low: must be at least 1, found 0.5"),
        ({"loss": {"name": "grpo"}}, 'stage.0.loss: "grpo" compares with the log-probs of sampling'),
        ({"curriculum": {"endpoint": {"model": "m"}}}, "stage.0.curriculum.endpoint: desk has no rewritten"),
        ({"kind": "reinforce", "credit": {"name": "webrl"}}, 'stage.0.credit.name: "webrl" reads the values'),
    ],
)
def test_what_cannot_work_is_refused_at_its_key(change, said):
    stage = WEBRL | change
    if change.get("kind"):
        stage = {k: v for k, v in stage.items() if k not in ("phases", "outcome")}
    with pytest.raises(RecipeError) as caught:
        run.build(desk_recipe(stage), fake)
    assert str(caught.value).startswith(said)


def fake(recipe, taskset):
    return FakeEngine(taskset.vocabulary(), taskset.stops, choices=choices)


def test_a_taskset_whose_tasks_cannot_evolve_is_refused():
    task = {"name": "blocksworld", "levels": [2]}
    with pytest.raises(RecipeError, match=r"stage\.0\.curriculum\.tasks: blocksworld has no mutate"):
        run.build(desk_recipe(WEBRL, task=task), fake)


def test_a_dry_run_refuses_it_too(capsys):
    own = "stage.1.curriculum.endpoint={endpoint='http://x/v1',model='m',vote=1}"
    assert main(["train", "webrl", "--dry-run", "--set", own]) == 2
    assert "stage.1.curriculum.endpoint: desk has no rewritten" in capsys.readouterr().err


def test_a_run_stopped_in_any_phase_goes_on_as_if_it_had_not_been(tmp_path):
    recipe = desk_recipe(WEBRL, save={"every": 1, "keep": 9, "trees_every": 1})
    run.train(recipe, tmp_path / "whole", nothing, fake)
    whole = lines_of(tmp_path / "whole" / "metrics.jsonl")
    for stop in (1, 2, 3):
        out, wish = tmp_path / f"at-{stop}", Wish()

        def watch(event, stop=stop, wish=wish):
            if event.kind in ("step", "eval") and event.step == stop:
                wish.ask("enough")

        with pytest.raises(Asked):
            run.train(recipe, out, watch, fake, wish)
        run.resume(out, nothing, fake)
        assert untimed(lines_of(out / "metrics.jsonl")) == untimed(whole)
    rows = phases_of(read_run(tmp_path / "whole"))
    assert [(row["phase"], row["steps"]) for row in rows] == [(0, 2), (1, 2)]
    assert sum(one["tasks"] for one in rows[0]["generations"]) == 6
    assert {one["generation"] for one in rows[1]["generations"]} <= {0, 1} and "outcome_accuracy" in rows[0]
    page = (tmp_path / "whole" / "report.html").read_text()
    assert '"phases":[{"stage":0,"phase":0' in page and "function phaseTable" in page


def untimed(lines: list[dict]) -> list[dict]:
    timed = ("second", "memory")
    return [{k: v for k, v in line.items() if not any(word in k for word in timed)} for line in lines]


def test_the_shipped_recipe_is_one():
    [_, stage] = load("webrl").stage
    assert isinstance(stage, WebRL) and stage.curriculum == CurriculumSpec() and stage.replay == ReplaySpec()
    assert (stage.curriculum.low, stage.curriculum.high, stage.replay.most) == (0.05, 0.75, 2.0)
    assert stage.replay.low == pytest.approx(1.0526, abs=1e-4) and stage.credit.mix == 0.5
    assert replace(stage, phases=2).phases == 2
