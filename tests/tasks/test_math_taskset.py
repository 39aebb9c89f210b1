r"""The math family: problems of both splits, what the model is told, and what of its plans, acts and boxes is
accepted."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from conftest import opened

from forethought.core.errors import ForethoughtError, RecipeError, UserError
from forethought.core.types import Completion
from forethought.engines.fake.engine import FakeEngine
from forethought.recipe.schema import TaskSpec, TreeSpec
from forethought.tasks.families import build
from forethought.tasks.math.taskset import Math
from forethought.workflows.rollout import Rollouts

TRAIN = [{"problem": f"Train {i}?", "answer": str(i), "level": i % 2 + 1} for i in range(6)]
EVAL = [{"problem": f"Test {i}?", "answer": str(10 + i), "level": i % 3 + 1} for i in range(6)]


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def made(tmp_path):
    """(rows to train on, rows to measure on, levels, options) -> the family over two small files."""

    def make(training=TRAIN, testing=EVAL, levels=(), **options) -> Math:
        files = {
            "train": write(tmp_path / "train.jsonl", training),
            "eval": write(tmp_path / "test.jsonl", testing),
        }
        return Math(levels, **(files | {"grader": "exact"} | options))

    return make


@pytest.fixture
def task(made):
    taskset = made()
    return taskset, taskset.pool(1, "eval")[0]  # Test 0?, 10


# Problems ---------------------------------------------------------------------------------------------------


def test_splits_and_levels(made, tmp_path):
    taskset = made()
    assert taskset.levels == (1, 2)  # 3 is in the test problems only
    assert [t.id for t in taskset.pool(2, "train")] == [f"{tmp_path.name}/train/{n}" for n in (2, 4, 6)]
    drawn = taskset.family(random.Random(0), [1, 2] * 30, "eval")
    assert {t.state.problem for t in drawn} == {"Test 0?", "Test 3?", "Test 1?", "Test 4?"}
    assert [t.level for t in drawn] == [1, 2] * 30
    assert drawn == taskset.family(random.Random(0), [1, 2] * 30, "eval")
    assert made(levels=(2,)).levels == (2,)
    assert made(graded=False).levels == (0,)
    assert len(made(graded=False).pool(0, "train")) == 6


def test_levels_that_a_split_lacks(made):
    with pytest.raises(RecipeError, match=r"task.levels: no problem of train has level 3; it has \[1, 2\]"):
        made(levels=(1, 3))
    with pytest.raises(RecipeError, match=r"task.levels: level 3 is not one of the task's \[1, 2\]"):
        made().family(random.Random(0), [3], "eval")
    with pytest.raises(
        RecipeError,
        match=r"train has the levels \[1, 2\], eval \[9\], and none is in both; "
        r"graded = false",
    ):
        made(testing=[EVAL[0] | {"level": 9}])


def test_a_training_problem_that_repeats_a_test_problem_is_refused_with_both_ids(made, tmp_path):
    with pytest.raises(RecipeError) as error:
        made(training=[*TRAIN, {"problem": "test 3", "answer": "13", "level": 1}])
    name = tmp_path.name
    assert str(error.value) == (
        f"task.eval: 1 times a training problem repeats a test problem: "
        f"{name}/train/7 repeats {name}/test/4 (100%). "
        f"Take the training problems out of the file, or leave them out with "
        f'task.repeats = "drop"'
    )


def test_another_file(made, tmp_path):
    taskset = made()
    tasks = taskset.problems(
        write(tmp_path / "more.jsonl", [{"id": "x", "problem": "More?", "answer": "1", "level": 9}])
    )
    assert [(t.id, t.level, t.state.answer) for t in tasks] == [(f"{tmp_path.name}/more/x", 9, "1")]
    with pytest.raises(RecipeError, match="1 times a training problem repeats"):
        taskset.problems(write(tmp_path / "more.jsonl", [TRAIN[0]]))


def test_several_test_files_keep_their_ids_apart(made, tmp_path):
    (tmp_path / "amc").mkdir()
    amc = write(tmp_path / "amc" / "test.jsonl", [{"problem": "AMC?", "answer": "1", "level": 1}])
    taskset = made(eval=(write(tmp_path / "test.jsonl", EVAL), amc))
    assert [t.id for t in taskset.pool(1, "eval")] == [
        f"{tmp_path.name}/test/1",
        f"{tmp_path.name}/test/4",
        "amc/test/1",
    ]
    with pytest.raises(RecipeError, match="task.eval: .* have one id, 'amc/test/1'"):
        made(eval=(amc, amc))


def test_through_a_recipes_table(tmp_path):
    options = {
        "train": write(tmp_path / "a.jsonl", TRAIN),
        "eval": (write(tmp_path / "b.jsonl", EVAL),),
        "grader": "exact",
    }
    assert build(TaskSpec(name="math", options=options)).levels == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": None}, "task.train: missing; math needs it"),
        ({"train": 3}, "task.train: expected text, found the whole number 3"),
        ({"train": ""}, "task.train: ''; expected a file or a split of the hub"),
        ({"train": "no.jsonl"}, "task.train: no.jsonl: no such file"),
        ({"eval": ()}, "task.eval: an empty list"),
        ({"eval": None}, "task.eval: missing"),
        ({"eval": ("a.jsonl", 3)}, "task.eval.1: expected text, found the whole number 3"),
        ({"eval": "no.jsonl"}, "task.eval: no.jsonl: no such file"),
        ({"grader": "exat"}, "task.grader: unknown choice 'exat'; did you mean 'exact'?"),
        (
            {"grader": 3},
            "task.grader: expected one of 'auto', 'exact', 'math-verify', found the whole number 3",
        ),
        ({"graded": "no"}, "task.graded: expected true or false, found the text 'no'"),
        ({"fields": "problem"}, "task.fields: expected a table, found the text 'problem'"),
        ({"fields": {"problem": 3}}, "task.fields.problem: expected text, found the whole number 3"),
        ({"fields": {"problem": "tsk"}}, "task.train: "),
        ({"budgets": {"plan": 1}}, "task.budgets.plan: must be at least 2, found 1"),
        ({"budgets": {"think": 9}}, "task.budgets.think: unknown role 'think'"),
        ({"tags": {"act": "do"}}, "task.tags.act: unknown tag 'act'"),
        ({"tags": {"plan": "think"}}, "task.tags: two sections share a tag"),
        ({"system": 3}, "task.system: expected text, found the whole number 3"),
        ({"overlap": 0}, "task.overlap: 0 is not a share above 0 and at most 1"),
        ({"overlap": True}, "task.overlap: expected a number, found the truth value true"),
        ({"trian": "x"}, "task.trian: unknown option of math 'trian'; did you mean 'train'?"),
    ],
)
def test_options_that_cannot_be_had(made, options, message):
    with pytest.raises(RecipeError) as error:
        made(**options)
    assert str(error.value).startswith(message)


# What the model is told -------------------------------------------------------------------------------------


def test_messages_and_plain_text(made):
    taskset = made(system="Plan, then solve.", tags={"plan": "sketch"})
    task = taskset.pool(1, "eval")[0]
    assert taskset.messages(task) == [
        {"role": "system", "content": "Plan, then solve."},
        {"role": "user", "content": "Test 0?"},
    ]
    assert (task.context, task.prompt) == ("", "Plan, then solve.\n\nTest 0?\n\n")
    assert (taskset.opens["plan"], taskset.stops, taskset.spaced, taskset.vocabulary()) == (
        "<sketch>",
        {"plan": "</sketch>", "act": ""},
        False,
        [],
    )
    bare = made(system="")
    assert bare.messages(task) == [{"role": "user", "content": "Test 0?"}]
    assert bare.pool(1, "eval")[0].prompt == "Test 0?\n\n"


def test_the_default_message_names_the_tags_in_use(made):
    system = made(tags={"plan": "sketch"}).system
    assert all(tag in system for tag in ("<sketch>", "</sketch>", "<think>", "</think>", r"\boxed{}"))
    assert "plan>" not in system and "{plan}" not in system


# Plans ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ("1. Count. 2. Price them. </plan>", ""),
        ("\n1. Count.\n</plan>\n", ""),
        ("Count them.", "character 12: found the end of the text, expected '</plan>'"),
        (" </plan>", "character 2: '<plan>' is empty"),
        ("A </plan> B </plan>", "character 11: nothing may follow '</plan>', found 'B </plan>'"),
        ("A <plan> B </plan>", "character 3: '<plan>' inside '<plan>'"),
        ("A <think> B </plan>", "character 3: '<think>' inside '<plan>'"),
        (r"So \boxed{10} </plan>", r"character 4: '\boxed' inside '<plan>': a plan holds no answer"),
        ("word " * 7 + "</plan>", "word 7: a plan of 7 words, more than its budget of 6 tokens"),
    ],
)
def test_plans(made, plan, reason):
    taskset = made(budgets={"plan": 6})
    task = taskset.pool(1, "eval")[0]
    verdict = taskset.parse_plan(task, plan)
    assert (verdict.score, verdict.reason) == (float(not reason), reason)
    assert taskset.judge_plan(task, plan) == verdict


def test_the_meaning_of_a_plan_is_its_words(task):
    taskset, it = task
    one = taskset.meaning(it, "1. Count the eggs.\n2) Price THEM, at 3.5! </plan>")
    assert (
        one
        == taskset.meaning(it, "count the eggs\nprice them at 3.5\n</plan>")
        == "count the eggs price them at 3 5"
    )
    assert one != taskset.meaning(it, "count the eggs\nprice them at 4.5\n</plan>")


# Acts and outcomes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "form", "outcome"),
    [
        (r"<think> 5+5 </think> \boxed{10}", "", ""),
        ("\n<think>\n5+5\n</think>\nSo it is $\\boxed{10.0}$.", "", ""),
        (r"<think> a </think> \boxed{1} no, \boxed{10}", "", ""),
        (r"<think> a </think> \boxed{11}", "", "expected '10', found '11'"),
        (r"\boxed{10}", "character 1: expected '<think>'", ""),  # right, but not in the form
        (
            r"<think> maybe \boxed{10} </think> so ten",
            r"character 41: found the end of the text, expected a "
            r"final answer in \boxed{...}",
            r"character 41: found the end of the text, expected a final answer in \boxed{...}",
        ),
        (
            r"<think> maybe \boxed{10}",
            "character 25: found the end of the text, expected '</think>'",
            "character 1: '<think>' is never closed",
        ),
        (
            r"<think> a </think> \boxed{10",
            r"character 20: the last \boxed{ is never closed",
            r"character 20: the "
            r"last \boxed{ is never closed",
        ),
        (r"<think> a </think> <think> b </think> \boxed{10}", "character 20: '<think>' after '</think>'", ""),
        (r"<think> <plan> b </plan> </think> \boxed{10}", "character 9: '<plan>' inside '<think>'", ""),
        (r"<think> </think> \boxed{10}", "character 9: '<think>' is empty", ""),
        (
            "",
            "character 1: expected '<think>'",
            r"character 1: found the end of the text, expected a final "
            r"answer in \boxed{...}",
        ),
    ],
)
def test_acts(task, act, form, outcome):
    taskset, it = task
    assert (taskset.follows(it, "any", [act]).score, taskset.follows(it, "any", [act]).reason) == (
        float(not form),
        form,
    )
    answered = opened(taskset, it, 0, noise=True).step(act)
    assert (answered.done, answered.success, answered.reason) == (True, not outcome, outcome)


def test_an_episode_is_used_once(task):
    taskset, it = task
    episode = opened(taskset, it, 0, noise=False)
    episode.step("")
    with pytest.raises(ForethoughtError, match="the episode of task .* is over"):
        episode.step("")
    assert taskset.follows(it, "p", ["a", "b"]).reason == "expected 1 turn of acts, found 2"


# Demonstrations ---------------------------------------------------------------------------------------------


def test_a_demonstration_is_the_records_plan_and_chain(made):
    taskset = made(training=[TRAIN[0] | {"plan": "Add them.", "chain": "0+0=0"}], testing=EVAL[:1])
    task = taskset.pool(1, "train")[0]
    plan, act = taskset.demonstrate(task)
    assert (plan.role, plan.text, act.role, act.text) == (
        "plan",
        "\nAdd them.\n</plan>",
        "act",
        "\n<think>\n0+0=0\n</think>\n\\boxed{0}",
    )
    assert (
        taskset.parse_plan(task, plan.text).score == taskset.follows(task, plan.text, [act.text]).score == 1.0
    )
    assert opened(taskset, task, 0, noise=False).step(act.text).success
    assert not taskset.has_plans  # the test problem has none
    assert made(training=TRAIN[:1], testing=[EVAL[0] | {"plan": "B"}]).has_plans  # what is measured on counts


def test_marked_calculations_are_not_shown_wherever_the_chain_comes_from(made):
    taskset = made(training=[TRAIN[0] | {"plan": "Add.", "chain": "3+4 = <<3+4=7>>7"}], testing=EVAL[:1])
    task = taskset.pool(1, "train")[0]
    assert taskset.demonstrate(task)[1].text.startswith("\n<think>\n3+4 = 7\n</think>")
    assert taskset.texts() == [f"{task.state.problem}\n3+4 = 7"]
    assert taskset.has_plan(task) and not taskset.has_plan(taskset.pool(1, "eval")[0])
    assert taskset.marks() == ["<plan>", "</plan>", "<think>", "</think>", "\\boxed{"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "has no plan; distillation makes a file with plans and chains"),
        ({"plan": "A"}, "has no chain; distillation"),
        (
            {"plan": "A </plan> B </plan>", "chain": "c"},
            "the plan of problem '.*/1' cannot be shown to a model: character 12: nothing may",
        ),
        ({"plan": r"It is \boxed{3}", "chain": "c"}, "a plan holds no answer"),
        (
            {"plan": "A", "chain": "so </think> it is"},
            "the chain of problem '.*/1' cannot be shown to a model",
        ),
    ],
)
def test_what_cannot_be_demonstrated(made, row, message):
    taskset = made(training=[TRAIN[0] | row], testing=EVAL[:1])
    with pytest.raises(UserError, match=f"train.jsonl:1: .*{message}"):
        taskset.demonstrate(taskset.pool(1, "train")[0])


# Demonstrations from another set ----------------------------------------------------------------------------

SHOWN = [
    {
        "problem": f"Shown {i}?",
        "answer": str(i),
        "level": i % 2 + 1,
        "plan": "1. Look.",
        "chain": f"It is {i}.",
    }
    for i in range(4)
]


def test_imitation_reads_demos_and_reinforcement_the_training_problems(made, tmp_path):
    taskset = made(demos=write(tmp_path / "shown.jsonl", SHOWN))
    assert {t.state.problem for t in taskset.demonstrable(random.Random(0), [1, 2] * 20)} == {
        f"Shown {i}?" for i in range(4)
    }
    assert {t.state.problem for t in taskset.family(random.Random(0), [1, 2] * 30, "train")} == {
        f"Train {i}?" for i in range(6)
    }
    assert taskset.all_demonstrable and not made().all_demonstrable and taskset.notes == []
    assert [w.question for w in taskset.worked(3)] == ["Shown 0?", "Shown 1?", "Shown 2?"]
    taskset.guide({f"{tmp_path.name}/shown/{n}": ("2. Think.", "So.") for n in (1, 2)})
    assert {t.state.plan for t in taskset.demonstrable(random.Random(0), [1, 2] * 20)} == {"2. Think."}
    with pytest.raises(RecipeError, match=r"task.demos: has no problem of level 2; it has \[1\]"):
        made(demos=write(tmp_path / "one.jsonl", SHOWN[:1]))


def test_a_public_set_is_cut_to_what_can_be_shown(made, tmp_path):
    rows = [
        {"task": "Short?", "proof": "A chain.", "final": r"\boxed{1}", "domain": "math"},
        {"task": "Code?", "proof": "print", "final": "", "domain": "code"},
        {"task": "Unanswered?", "proof": "Hm.", "final": "nothing", "domain": "math"},
        {"task": "Long?", "proof": "x" * 100, "final": r"\boxed{2}", "domain": "math"},
        {"task": "Second?", "proof": "B.", "final": r"\boxed{3}", "domain": "math"},
        {"task": "Third?", "proof": "C.", "final": r"\boxed{4}", "domain": "math"},
    ]
    path = write(tmp_path / "open.jsonl", rows)
    table = {
        "source": path,
        "fields": {"problem": "task", "chain": "proof", "solution": "final"},
        "only": {"domain": "math"},
        "skip": True,
        "longest": 50,
        "most": 2,
    }
    taskset = made(graded=False, demos=table)
    assert [(w.question, w.chain, w.answer) for w in taskset.worked(0)] == [
        ("Short?", "A chain.", "1"),
        ("Second?", "B.", "3"),
    ]
    assert taskset.notes == [
        f"{path}: 2 demonstrations; left out: 1 that cannot be read (such as {path}:3: "
        f"no answer: character 8: found "
        r"the end of the text, expected a final answer in \boxed{...}), 1 longer than 50 "
        r"characters, 1 beyond the first 2"
    ]
    with pytest.raises(RecipeError, match=r"task.demos: .*open.jsonl:3: no answer"):
        made(graded=False, demos=table | {"skip": False})
    with pytest.raises(RecipeError, match="task.demos: .*all 4 problems are longer than 3 characters"):
        made(graded=False, demos=table | {"longest": 3})
    with pytest.raises(RecipeError, match=r"task.demos: .*no problems in it with {'domain': 'music'}"):
        made(graded=False, demos=table | {"only": {"domain": "music"}})
    with pytest.raises(RecipeError, match="task.demos: .*open.jsonl:1: unknown field 'subject'"):
        made(graded=False, demos=table | {"only": {"subject": "math"}})


@pytest.mark.parametrize(
    ("demos", "message"),
    [
        (7, "task.demos: expected text or a table, found the whole number 7"),
        ("", "task.demos: ''; expected a file"),
        ({}, "task.demos.source: missing"),
        (
            {"source": "a.jsonl", "mots": 1},
            "task.demos.mots: unknown option of demos 'mots'; did you mean 'most'",
        ),
        ({"source": "a.jsonl", "most": -1}, "task.demos.most: must be at least 0, found -1"),
        (
            {"source": "a.jsonl", "longest": True},
            "task.demos.longest: expected a whole number, found the truth value true",
        ),
        (
            {"source": "a.jsonl", "skip": "yes"},
            "task.demos.skip: expected true or false, found the text 'yes'",
        ),
        ({"source": "nowhere.jsonl"}, "task.demos: nowhere.jsonl: no such file"),
    ],
)
def test_demos_that_cannot_be_had(made, demos, message):
    with pytest.raises(RecipeError, match=message):
        made(demos=demos)


def test_training_problems_that_repeat_test_problems_can_be_left_out(made, tmp_path):
    repeated = {"problem": "test 3", "answer": "13", "level": 1}
    taskset = made(
        training=[*TRAIN, repeated], demos=write(tmp_path / "shown.jsonl", [*SHOWN, repeated]), repeats="drop"
    )
    assert len(taskset.pool(1, "train")) == 3 and len(taskset.worked(0)) == 4
    assert taskset.notes == ["2 training problems repeat a test problem and are left out"]
    with pytest.raises(RecipeError, match="shown/5 repeats"):
        made(demos=write(tmp_path / "shown.jsonl", [*SHOWN, repeated]))
    with pytest.raises(RecipeError, match="task.repeats: unknown choice 'keep'"):
        made(repeats="keep")
    with pytest.raises(RecipeError, match="task.train: every training problem repeats a test problem"):
        made(training=[repeated], repeats="drop")


def test_the_longest_problems(made):
    taskset = made(
        training=[
            *TRAIN,
            {"problem": "A longer one than any other?", "answer": "1", "level": 1},
            {"problem": "The longest of them all, at a level that is left out?", "answer": "1", "level": 3},
        ],
        levels=(1, 2),
    )
    assert [t.state.problem for t in taskset.longest(1)] == ["A longer one than any other?"]


# Tokens that hold the end of a tag and more -----------------------------------------------------------------


class Odd(FakeEngine):
    """A tokenizer with one token for the end of a tag and what follows it. It says its whole vocabulary."""

    def encode(self, text):
        return (0,)

    def decode(self, ids):
        return "".join(self.words[i] for i in ids)

    def sample(self, requests):
        ids = tuple(range(1, len(self.words)))
        return [
            [Completion(token_ids=ids, logprobs=(-1.0,) * len(ids), status="finished", version=0)] * r.n
            for r in requests
        ]


@pytest.mark.parametrize(
    ("words", "text", "status"),
    [
        (["Add", " them.</", "plan", "><"], "Add them.</plan>", "finished"),
        (["Add", " them.", "</plan>\n"], "Add them.</plan>", "finished"),
        (["Add <", "plan> it </", "plan>a"], "Add <plan> it </plan>", "refused"),
        (["Add", " them"], "Add them", "refused"),
    ],
)
def test_a_token_that_goes_on_behind_the_tag_does_not_refuse_the_plan(made, words, text, status):
    taskset = made()
    rollouts = Rollouts(Odd(["?", *words], taskset.stops), taskset)
    [tree] = rollouts.grow(
        taskset.pool(1, "train")[:1], TreeSpec(counts={"plan": 1, "act": 0}), {"plan": "base"}, 0
    )
    # what was sampled trains
    assert (tree.nodes[1].text, tree.nodes[1].status, len(tree.nodes[1].token_ids)) == (
        text,
        status,
        len(words),
    )
