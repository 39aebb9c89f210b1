"""Runs and bare models, looked at with the fake engine: what is opened, which tasks are taken, and every
measure by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import RIGHT, WRONG, Listening, desk_choices, desk_recipe, fake_desk, lines_of, nothing

from forethought.core.errors import UserError
from forethought.core.metrics import share_interval, wilson
from forethought.look import evaluate, find, find_all, sample, samples
from forethought.recipe.load import load
from forethought.recipe.schema import TreeSpec
from forethought.runs import run

SMALL = ["task.widgets=4", "task.levels=[1, 2]", "eval.tasks=3"]


@pytest.fixture
def model(tmp_path) -> Path:
    """What passes for a model where the engine is a fake."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def trained(tmp_path) -> Path:
    recipe = desk_recipe(
        {"kind": "imitate", "until": {"steps": 3}, "batch": 4, "optim": {"lr": 5.0, "warmup": 0}},
        {"roles": ["plan"], "until": {"steps": 1}, "batch": 2, "optim": {"lr": 5.0, "warmup": 0}},
    )
    run.train(recipe, tmp_path / "run", nothing, fake_desk())
    return tmp_path / "run"


def speaking(plan_of, act_of):
    """An engine where sample i of a plan is the continuation `plan_of(i)`, and every act under it
    `act_of(i)`, i being the plan's."""

    def engine_of(recipe, taskset):
        def say(policy, text, i, seed):
            role = "plan" if text.endswith("<plan>") else "act"
            return desk_choices(text, role)[plan_of(i) if role == "plan" else act_of(i)]

        return Listening(taskset.vocabulary(), taskset.stops, choices=desk_choices, script=say)

    return engine_of


# What is opened ---------------------------------------------------------------------------------------------


def test_a_run_is_measured_as_it_measured_itself(trained):
    found = evaluate(find(trained), engine_of=fake_desk())
    line = [line for line in lines_of(trained / "metrics.jsonl") if "eval/plan" in line][-1]
    for side in ("plan", "act", "e2e"):
        assert [found[side][key] for key in ("value", "low", "high", "n")] == [
            line[f"{name}/{side}"] for name in ("eval", "eval_low", "eval_high", "eval_n")
        ]
        assert {level: entry["value"] for level, entry in found[side]["by_level"].items()} == {
            level: line[f"eval/{side}@{level}"] for level in ("1", "2")
        }
    assert found["plan"]["value"] == 1.0 and found["settings"]["temperature"] == 0.0


def test_what_an_episode_costs_and_how_long_one_takes_alone(trained):
    """A plan and an act, one answer; levels 1 and 2 on screens of 4 widgets, whose plan has 2 or 3 words."""
    found = evaluate(find(trained), engine_of=fake_desk(), alone=3)
    cost = found["cost"]
    assert (cost["calls"], cost["tools"], cost["serial"]) == (2.0, 1.0, 3.0)
    assert cost["said"] == found["tokens"]["plan"] + found["tokens"]["act"] < cost["read"]
    assert found["latency"]["tasks"] == 3.0 and found["latency"]["seconds"] > 0
    assert "latency" not in evaluate(find(trained), engine_of=fake_desk())


def test_a_checkpoint_that_is_a_link_is_passed_over_and_said(trained, tmp_path):
    newest = trained / "checkpoints" / "step-000004"
    assert "note" not in evaluate(find(trained), engine_of=fake_desk())
    newest.rename(tmp_path / "elsewhere")
    newest.symlink_to(tmp_path / "elsewhere")
    source = find(trained)
    assert source.notes == ("checkpoints/step-000004 is a symbolic link, so it is passed over",)
    assert evaluate(source, engine_of=fake_desk())["note"] == source.notes[0]
    for folder in (trained / "checkpoints").glob("step-00000[0-3]"):
        folder.rename(tmp_path / folder.name)
    with pytest.raises(UserError, match="no checkpoint yet .checkpoints/step-000004 is a symbolic link"):
        find(trained)


def test_a_run_speaks_through_its_policies_and_a_model_through_its_base(trained, model):
    source = find(trained)
    assert source.policies["plan"] != "base" == source.policies["act"]
    assert source.checkpoint.parent.parent == trained / "checkpoints"
    bare = find(model, "desk", SMALL)
    assert (bare.policies, bare.checkpoint, bare.recipe.model.path) == (
        {"plan": "base", "act": "base"},
        None,
        str(model),
    )
    assert evaluate(bare, engine_of=fake_desk())["plan"]["value"] == 0.0  # untrained


def test_models_from_scratch_are_opened_where_they_were_saved(trained):
    """Joined engines save a folder each."""
    assert find(trained).recipe.model.path == str(find(trained).checkpoint / "base")
    recipe = json.loads((trained / "recipe.json").read_text())
    (trained / "recipe.json").write_text(
        json.dumps(recipe | {"layout": "models", "planner": recipe["model"]})
    )
    (trained / "run.json").unlink()  # what the run began with: this test makes it another one
    joined = find(trained)
    assert joined.recipe.model.path == str(joined.checkpoint / "base" / "base")
    assert joined.recipe.planner.path == str(joined.checkpoint / "plan" / "base")


def test_the_task_is_a_family_or_a_recipes(trained, model, tmp_path):
    file = tmp_path / "task.toml"
    file.write_text('task = { name = "desk", widgets = 5 }\neval = { tasks = 7, levels = [2] }\n')
    given = find(model, str(file), ["task.bushiness=0.5", "engine.device=cpu"]).recipe
    assert (
        given.task.options == {"widgets": 5, "bushiness": 0.5}
        and given.eval.tasks == 7
        and given.engine.device == "cpu"
    )
    assert find(model, "desk-shared").recipe.eval.every == 50  # a shipped recipe's
    assert find(trained, str(file)).recipe.task.options == {"widgets": 5}  # in place of the run's own
    assert find(trained).recipe.task.options == {"widgets": 4}
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    sources = find_all([other, trained])
    assert [source.guest for source in sources] == [True, False] and sources[0].recipe.task == sources[
        1
    ].recipe.task
    with pytest.raises(UserError, match="other is a model: say on which task"):
        find_all([other])


@pytest.mark.parametrize(
    ("name", "task", "overrides", "message"),
    [
        ("empty", "desk", [], "empty is neither a run .* nor a model"),
        (
            "model",
            None,
            [],
            r"model is a model: say on which task .* --task NAME .*families: blocksworld, desk, "
            r"environment, math, screens, text",
        ),
        ("org/name", None, [], r"org/name is not a run directory; for a model on the hub: say on which task"),
        ("model", "desc", [], "--task: unknown task 'desc'; did you mean 'desk'"),
        (
            "model",
            "desk",
            ["task.wigets=4"],
            "task.wigets: unknown option of desk 'wigets'; did you mean 'widgets'",
        ),
        ("model", "desk", ["eval.tasks=0"], "eval.tasks"),
        ("model", "desk", ["task.name=dusk"], "task.name: unknown task 'dusk'"),
        ("model", "desk", ["stage.0.batch=1"], "stage is empty"),
        ("begun", None, [], "begun has no checkpoint yet"),
    ],
)
def test_what_cannot_be_looked_at_says_why(
    model, trained, tmp_path, monkeypatch, name, task, overrides, message
):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("begun").mkdir()
    Path("begun/recipe.json").write_text((trained / "recipe.json").read_text())
    with pytest.raises(UserError, match=message):
        evaluate(find(Path(name), task, overrides), engine_of=fake_desk())


def test_words_that_the_tokenizer_cannot_write(model):
    def wordless(recipe, taskset):
        return Listening(taskset.vocabulary()[3:], taskset.stops)

    with pytest.raises(UserError, match="lacks GOAL"):
        evaluate(find(model, "desk", SMALL), engine_of=wordless)
    with pytest.raises(UserError, match="the model's context is 20"):
        evaluate(find(model, "desk", SMALL), engine_of=fake_desk(context=20))


# Which tasks ------------------------------------------------------------------------------------------------


def test_levels_and_numbers_of_tasks(model):
    source = find(model, "desk", SMALL)
    assert evaluate(source, tasks=5, levels=(2,), engine_of=fake_desk())["plan"]["by_level"].keys() == {"2"}
    assert evaluate(source, tasks=5, engine_of=fake_desk())["plan"]["n"] == 10
    with pytest.raises(UserError, match=r"no level 3 in desk; its levels are \[1, 2\]"):
        evaluate(source, levels=(1, 3), engine_of=fake_desk())
    with pytest.raises(UserError, match="desk reads no problem files"):
        evaluate(source, problems=Path("p.jsonl"), engine_of=fake_desk())


PDDL = (
    "(define (problem p) (:domain d) (:objects a b c) (:init (handempty) (ontable a) (ontable b) "
    "(ontable c) (clear a) (clear b) "
    "(clear c)) (:goal (and (on a b))))"
)


@pytest.mark.parametrize(("detour", "judged"), [(False, (1.0, 1.0, 1.0)), (True, (1.0, 1.0, 0.0))])
def test_published_problems_are_judged_by_their_acts_too(model, tmp_path, detour, judged):
    """With a detour the goal is reached, and not in the fewest steps."""
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"id": "bw-1", "pddl": PDDL}) + "\n")

    def engine_of(recipe, taskset):
        (task,) = taskset.problems(file)
        plan, act = taskset.demonstrate(task)
        longer = f"pick a put a {act.text}"
        return Listening(
            taskset.vocabulary(),
            taskset.stops,
            script=lambda policy, text, i, seed: (
                (longer if detour else act.text) if text.endswith("</plan>") else plan.text
            ),
        )

    found = evaluate(find(model, "blocksworld"), problems=file, engine_of=engine_of)
    assert tuple(found[name]["value"] for name in ("executable", "goal", "optimal")) == judged
    assert (found["plan"]["value"], found["e2e"]["value"], found["e2e"]["n"]) == (1.0, 1.0, 1)


# Repeated samples -------------------------------------------------------------------------------------------


def test_samples_of_each_problem_by_hand(model):
    """Four samples, of which one has a wrong plan: any two hold a right one, and the right acts have three
    votes."""
    source = find(model, "desk", SMALL)
    engine_of = speaking(lambda i: WRONG if i == 1 else RIGHT, lambda i: RIGHT)
    found = evaluate(
        source, tree=TreeSpec(counts={"plan": 4, "act": 1}, temperature=0.6, top_p=0.95), engine_of=engine_of
    )
    assert {
        name: found[name]["value"] for name in ("plan", "act", "avg@4", "pass@1", "pass@2", "pass@4", "maj@4")
    } == pytest.approx(
        {"plan": 0.75, "act": 1.0, "avg@4": 0.75, "pass@1": 0.75, "pass@2": 1.0, "pass@4": 1.0, "maj@4": 1.0}
    )
    assert "e2e" not in found and found["settings"]["samples"] == 4
    # no problem differs from another: as many as there are samples, 6 problems x 4
    low, high = wilson(0.75 * 24, 24)
    assert (found["avg@4"]["low"], found["avg@4"]["high"], found["avg@4"]["n"]) == (
        pytest.approx(low),
        pytest.approx(high),
        6,
    )


def test_a_tied_vote_counts_by_half_and_five_samples_end_with_pass_at_5(model):
    source = find(model, "desk", SMALL)
    # the last one is refused and does not vote
    engine_of = speaking(lambda i: (RIGHT, RIGHT, WRONG, WRONG, 2)[i], lambda i: RIGHT)
    found = evaluate(
        source, tree=TreeSpec(counts={"plan": 5, "act": 1}, temperature=1.0), engine_of=engine_of
    )
    assert [name for name in found if "@" in name] == [
        "avg@5",
        "pass@1",
        "pass@2",
        "pass@4",
        "pass@5",
        "maj@5",
    ]
    assert found["maj@5"]["value"] == 0.5 and found["refused"] == pytest.approx(0.2)
    assert found["pass@2"]["value"] == pytest.approx(1 - 3 / 10)
    assert found["tokens"]["plan"] > 0 and found["truncated"] == {"plan": 0.0, "act": 0.0}


def test_samples_at_temperature_0_are_refused(model):
    with pytest.raises(UserError, match="3 samples at temperature 0 are 3 times the same"):
        evaluate(
            find(model, "desk", SMALL),
            tree=TreeSpec(counts={"plan": 3}, temperature=0.0),
            engine_of=fake_desk(),
        )


def test_the_numbers_do_not_depend_on_how_many_are_sampled_together(model):
    def found(rows: int) -> dict:
        seen = []
        source = find(model, "desk", [*SMALL, f"engine.sample_rows={rows}"])
        tree = TreeSpec(counts={"plan": 3}, temperature=1.0)
        result = evaluate(
            source, tree=tree, engine_of=fake_desk(), tell=lambda done, n: seen.append((done, n))
        )
        return {"seen": seen, **result}

    together, apart = found(1024), found(1)
    assert together.pop("seen") == [(6, 6)] and apart.pop("seen") == [(i, 6) for i in range(1, 7)]
    assert together == apart and 0 < together["plan"]["value"] < 1


@pytest.mark.parametrize(
    ("values", "samples", "size"),
    [
        ([1.0, 0.0, 1.0], 4, 3),  # 0 and 1: the problems themselves
        ([0.5, 0.5, 0.5], 4, 12),  # no scatter: all samples count
        ([0.25, 0.75, 0.5, 0.5], 64, 0.25 * 4 / (0.125 / 3)),  # p (1 - p) over the variance of the mean
        ([0.5], 64, 1),  # one problem says nothing of how problems scatter
    ],
)
def test_the_effective_number_of_problems(values, samples, size):
    mean = sum(values) / len(values)
    assert share_interval(values, samples) == pytest.approx((mean, *wilson(mean * size, size)))


def test_an_interval_of_nothing():
    with pytest.raises(ValueError, match="no values"):
        share_interval([])


# Samples to read --------------------------------------------------------------------------------------------


def test_samples_show_what_was_said_and_judged(model):
    source = find(model, "desk", SMALL)
    rows = sample(source, n=2, level=2, engine_of=speaking(lambda i: RIGHT, lambda i: WRONG))
    assert [(row["level"], row["turns"][0]["valid"], row["success"]) for row in rows] == [(2, 1.0, False)] * 2
    assert all({"plan": row["turns"][0]["text"]} == row["oracle"] for row in rows)
    assert all([turn["role"] for turn in row["turns"]] == ["plan", "act"] for row in rows)
    assert all(row["turns"][1]["reason"] == row["reason"] for row in rows)
    assert all(row["reason"].startswith("the value set was") for row in rows)
    assert {turn["status"] for row in rows for turn in row["turns"]} == {"finished"}
    assert json.loads(json.dumps(rows)) == rows
    (refused,) = sample(source, n=1, engine_of=speaking(lambda i: 2, lambda i: RIGHT))
    assert [(turn["role"], turn["status"]) for turn in refused["turns"]] == [("plan", "refused")]
    assert refused["reason"] == "the plan was refused, nothing was executed"
    with pytest.raises(UserError, match="no level 9 in desk"):
        sample(source, n=1, level=9, engine_of=fake_desk())


@pytest.mark.parametrize(
    ("recipe", "options"),
    [("web-vision", {"pictures": 3}), ("web", {"pictures": 3, "pages": "eval"}), ("desk", {})],
)
def test_what_is_watched_is_pictured_whatever_the_run_kept(recipe, options):
    found = samples._with_pictures(load(recipe), 3, window=False).task.options
    assert {key: found[key] for key in ("pictures", "pages") if key in found} == options
