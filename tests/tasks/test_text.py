"""The taskset `text`: prompts of one's own, what they become, and everything that a file can have wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import opened

from forethought.core.errors import RecipeError, UserError
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict, to_dict
from forethought.recipe.speaking import roles_of
from forethought.tasks.text import sources
from forethought.tasks.text.taskset import Text

ROWS = [{"question": f"{a} + {b}?", "answer": a + b, "source": "made"} for a in range(5) for b in range(4)]


def jsonl(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def data(tmp_path):
    return jsonl(tmp_path / "data.jsonl", ROWS)


def made(train: str, **options) -> Text:
    return Text(
        (), **{"train": train, "prompt": "{question}", "answer": "answer", "grader": "number"} | options
    )


def some(text: Text, split="train"):
    return text.pool(0, split)


# ---- what a row becomes


def test_a_template_and_the_columns_of_the_row(data):
    text = made(data, prompt="Q: {question} {{{source}}}")
    task = next(t for t in (*some(text), *some(text, "eval")) if t.state.id == "2")
    assert task.prompt == "Q: 0 + 1? {made}" and text.asked_as(task) == task.prompt
    assert text.messages(task) == [{"role": "user", "content": task.prompt}]
    assert text.columns(task) == ROWS[1] and task.state.answer == "1"
    assert text.stops == {"act": ""} and text.opens == {} and text.budgets == {"act": 256}


def test_without_eval_a_share_is_held_out_the_same_each_time_and_said(data):
    text = made(data)
    train, held = some(text), some(text, "eval")
    assert (len(train), len(held)) == (18, 2) and {t.id for t in made(data).pool(0, "eval")} == {
        t.id for t in held
    }
    assert not {t.prompt for t in train} & {t.prompt for t in held}
    [note] = text.notes
    assert "no task.eval: 2 of the 20 problems" in note
    assert len(some(made(data, held_out=0.5), "eval")) == 10


def test_equal_prompts_stay_in_one_split_and_are_said(tmp_path):
    rows = [*ROWS, *ROWS, ROWS[0] | {"answer": 99}]
    text = made(jsonl(tmp_path / "twice.jsonl", rows))
    assert not {t.prompt for t in some(text)} & {t.prompt for t in some(text, "eval")}
    assert any("repeat the prompt of another" in note for note in text.notes)


def test_messages_of_a_conversation(tmp_path):
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rows = [{"messages": [*talk[:1], {"role": "user", "content": f"Hi {i}"}]} for i in range(4)]
    text = Text((), train=jsonl(tmp_path / "talk.jsonl", rows))
    [task, *_] = some(text)
    assert text.asked_as(task) == rows[int(task.state.id) - 1]["messages"] == text.messages(task)
    assert not text.judges and text.environment(task, False).step("x").success is None
    own = Text((), train=str(tmp_path / "talk.jsonl"), system="Be long.")
    assert own.messages(task)[0] == {"role": "system", "content": "Be long."} and len(own.messages(task)) == 2
    # TRL's column, as text
    prompts = Text((), train=jsonl(tmp_path / "p.jsonl", [{"prompt": f"say {i}"} for i in range(3)]))
    assert (
        some(prompts)[0].prompt.startswith("say ")
        and prompts.asked_as(some(prompts)[0]) == some(prompts)[0].prompt
    )


def test_plain_text_where_the_recipe_wants_it(data):
    assert made(data, chat=False).messages(some(made(data))[0]) == []
    assert some(made(data, system="Add."))[0].prompt.startswith("Add.\n\n")


def test_examples_stand_before_the_prompt_and_are_not_trained_on(data, tmp_path):
    text = made(data, shots=2)
    [task, *_] = some(text)
    said = text.messages(task)
    assert [m["role"] for m in said] == ["user", "assistant", "user", "assistant", "user"]
    assert task.prompt.count("\n\n") == 2 and task.prompt.endswith(task.state.problem)
    assert said[0]["content"] not in {t.state.problem for t in some(text)}
    assert len(some(text)) + len(some(text, "eval")) == 18
    file = jsonl(tmp_path / "shots.jsonl", [{"question": "7 + 7?", "answer": 14}])
    assert some(made(data, shots=file))[0].prompt.startswith("7 + 7?\n14\n\n")


def test_acting_is_measured_where_every_problem_that_is_measured_has_a_plan(tmp_path):
    """As docs/text.md says; without, there is nothing right to act under."""
    rows = [row | {"plan": "Add."} for row in ROWS]
    train = jsonl(tmp_path / "train.jsonl", ROWS)
    for name, told, known in (
        ("all", rows, True),
        ("some", [*rows[:-1], ROWS[-1]], False),
        ("none", ROWS, False),
    ):
        other = [row | {"question": f"Say: {row['question']}"} for row in told]
        text = made(train, eval=jsonl(tmp_path / f"{name}.jsonl", other), plan="tags")
        assert text.has_plans is known, name


def test_a_plan_between_tags_comes_first(tmp_path):
    rows = [
        row | {"plan": "Add the two numbers.", "solution": f"The sum is {row['answer']}."} for row in ROWS
    ]
    text = made(jsonl(tmp_path / "plans.jsonl", rows), plan="tags", solution="solution", tags={"plan": "p"})
    [task, *_] = some(text)
    assert text.opens == {"plan": "<p>"} and text.stops == {"plan": "</p>", "act": ""}
    assert "<p>" in text.messages(task)[0]["content"] and task.prompt.endswith("\n")
    assert text.has_plans and text.all_demonstrable
    plan, act = text.demonstrate(task)
    assert plan.text == "\nAdd the two numbers.\n</p>" and text.parse_plan(task, plan.text).score == 1.0
    assert act.text == f"\nThe sum is {task.state.answer}."
    assert opened(text, task).step(act.text).success
    assert text.parse_plan(task, "no end").score == 0.0
    worked = text.worked(1)[0]
    assert worked.chain.startswith("The sum is") and worked.question == some(text)[0].state.problem
    shot = made(str(tmp_path / "plans.jsonl"), plan="tags", shots=1)
    assert shot.messages(some(shot)[0])[2]["content"].startswith("<plan>\nAdd the two numbers.\n</plan>\n")


def test_levels_of_a_column(tmp_path):
    rows = [row | {"hard": i % 2} for i, row in enumerate(ROWS)]
    text = made(jsonl(tmp_path / "l.jsonl", rows), level="hard", held_out=0.4)
    assert text.levels == (0, 1) and {t.level for t in text.pool(1, "train")} == {1}


def test_csv_and_parquet(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\n" + "".join(f'"{i}, 1",{i}\n' for i in range(5)))
    assert {t.prompt for t in some(made(str(tmp_path / "a.csv")))} < {f"{i}, 1" for i in range(5)}
    arrow = pytest.importorskip("pyarrow", reason="pyarrow (the extra `data`) is not installed")
    from pyarrow import parquet

    parquet.write_table(arrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert len(some(made(str(tmp_path / "a.parquet")))) == 18


# ---- graders


@pytest.mark.parametrize(
    ("grader", "gold", "right", "wrong"),
    [
        ("exact", "Paris", [" Paris\n"], ["paris", "Paris."]),
        ("contains", "New York", ["It is new  york."], ["York"]),
        (
            "number",
            "1234.50",
            ["so 1,234.5", r"\boxed{1234.5} of 9", "3 is it\n#### 1234.50"],
            ["1234", "none", ""],
        ),
        ("number", "1/2", ["0.5", "it is 1/2"], ["2"]),
        ("number", "-3", ["x = -3."], ["3"]),
        ("regex", r"^\d{2}:\d{2}$", ["12:30"], ["at 12:30"]),
        (
            "choice",
            "B",
            ["B", "(B)", "B. because", "The answer is B", r"\boxed{B}", "(A) is not, (B) is"],
            ["A", "b or c"],
        ),
    ],
)
def test_graders(tmp_path, grader, gold, right, wrong):
    rows = [{"q": str(i), "a": gold} for i in range(3)]
    text = Text((), train=jsonl(tmp_path / "g.jsonl", rows), prompt="{q}", answer="a", grader=grader)
    for answers, success in ((right, True), (wrong, False)):
        for answer in answers:
            assert opened(text, some(text)[0]).step(answer).success is success, answer


def test_what_was_read_is_a_part_of_the_reward(data):
    text = made(data)
    assert opened(text, some(text)[0]).step("no idea").parts == {"answered": 0.0}
    assert opened(text, some(text)[0]).step("12").parts == {"answered": 1.0}
    assert text.vote(some(text)[0], ["so 12."], True) == "12"


def test_math_verify(tmp_path):
    pytest.importorskip("math_verify", reason="math-verify (the extra `math`) is not installed")
    rows = [{"q": str(i), "a": r"\frac{1}{2}"} for i in range(3)]
    text = Text((), train=jsonl(tmp_path / "g.jsonl", rows), prompt="{q}", answer="a", grader="math-verify")
    assert opened(text, some(text)[0]).step(r"so \boxed{0.5}").success


def test_a_grader_of_ones_own_gives_partial_credit(data, tmp_path):
    file = tmp_path / "grade.py"
    file.write_text(
        "from forethought.core.types import Verdict\n"
        "def near(completion, answer, source):\n    return 1 / (1 + abs(len(completion) - int(answer)))\n"
        "def right(completion, answer, **row):\n    return completion == answer\n"
        "def bad(completion):\n    return 'good'\n"
        "def why(completion):\n    return Verdict(score=0.5, reason='half')\n"
    )
    task = some(made(data))[0]
    n = int(task.state.answer)
    near = opened(made(data, grader=f"{file}:near"), task)
    assert near.step("x" * (n + 1)).score == 0.5
    assert opened(made(data, grader=f"{file}:near"), task).step("x" * n).success is True
    assert opened(made(data, grader=f"{file}:right"), task).step(str(n)).success is True
    said = opened(made(data, grader=f"{file}:why"), task).step("")
    assert (said.score, said.success, said.reason) == (0.5, False, "half")
    with pytest.raises(TypeError, match="gave 'good', not a finite number"):
        opened(made(data, grader=f"{file}:bad"), task).step("")
    with pytest.raises(RecipeError, match=r"task\.grader: .*has no absent"):
        made(data, grader=f"{file}:absent")


# ---- what cannot be had


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"promt": "{q}"}, r"task\.promt: unknown option of text 'promt'.*did you mean 'prompt'"),
        (
            {"prompt": "{queston}"},
            r"task\.train: .*data\.jsonl:1: unknown column 'queston'.*did you mean 'question'",
        ),
        ({"prompt": "{question"}, r"task\.prompt: .*a brace that is text is written twice"),
        ({"prompt": "{question} }"}, r"task\.prompt: .*Single '}'.*written twice"),
        ({"prompt": "{}"}, r"task\.prompt: .*the name of a column, found ''"),
        ({"prompt": "{question!r}"}, r"task\.prompt: .*the name of a column"),
        ({"prompt": ""}, r"task\.prompt: is empty"),
        ({"answer": "gold"}, r"unknown column 'gold'"),
        ({"answer": ""}, r"task\.grader: 'number' compares with an answer"),
        (
            {"grader": "nunber"},
            r"task\.grader: unknown grader 'nunber'.*did you mean 'number'.*or file\.py:name",
        ),
        ({"plan": "yes"}, r"task\.plan: unknown choice 'yes'"),
        ({"messages": "source"}, r"task\.messages: .*not both"),
        ({"shots": 99}, r"task\.shots: 99 examples of 20 problems leave none"),
        ({"shots": -1}, r"task\.shots: must be at least 0, found -1"),
        ({"shots": 1, "plan": "tags"}, r"task\.shots: .*an example needs a plan"),
        ({"held_out": 1}, r"task\.held_out: 1 is not a share"),
        ({"budgets": {"act": 0}}, r"task\.budgets\.act: must be at least 1, found 0"),
        ({"budgets": {"acts": 8}}, r"task\.budgets\.acts: unknown role"),
        ({"tags": {"think": "t"}}, r"task\.tags\.think: unknown tag"),
        ({"chat": "no"}, r"task\.chat: expected true or false, found the text 'no'"),
        ({"level": "source"}, r"data\.jsonl:1: column 'source' is a level"),
        ({"train": ""}, r"task\.train: ''; expected a file"),
        ({"eval": 3}, r"task\.eval: expected text or a list, found the whole number 3"),
        ({"most": "all"}, r"task\.most: expected a whole number, found the text 'all'"),
    ],
)
def test_options_that_cannot_be_had(data, options, said):
    with pytest.raises(RecipeError, match=said):
        made(options.pop("train", data), **options)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": None}, r":2: column 'question' holds null; fill it, or leave the row out"),
        ({"question": ["a"]}, r":2: column 'question' holds a list; name what is inside with a dot"),
        ({"question": {"text": "a"}}, r":2: column 'question' holds a table; name what is inside"),
        ({"question": True}, r":2: column 'question' holds the truth value true"),
        (
            {"question": [{"type": "image", "image": "x"}]},
            r":2: .* holds an image; the models here read text",
        ),
        ({"question": {"bytes": "x", "path": None}}, r":2: .* holds an image"),
        ({"question": "  "}, r":2: the prompt is empty"),
        ({"question": "\ud800"}, r":2: .*half of a character"),
        ({"answer": None}, r":2: column 'answer' holds no answer \(null\)"),
        ({"answer": "twelve"}, r":2: no answer can match 'twelve': it is not one number; mend it"),
        ({"answer": "1 or 2"}, r":2: no answer can match '1 or 2'"),
        ({"answer": []}, r":2: column 'answer' holds a list"),
    ],
)
def test_rows_that_cannot_be_asked_are_named_with_their_line(tmp_path, row, said):
    with pytest.raises(RecipeError, match=rf"^task\.train: .*bad\.jsonl{said}"):
        made(jsonl(tmp_path / "bad.jsonl", [ROWS[0], ROWS[1] | row, ROWS[2]]))


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("hello", "holds a str; expected a list of messages"),
        ([], "holds a list; expected a list of messages"),
        (
            [{"from": "human", "value": "x"}],
            r"message 1 of column 'messages' is a table; expected \{\"role\"",
        ),
        ([{"role": "human", "content": "x"}], "unknown role 'human'"),
        ([{"role": "user", "content": None}], "column 'content' holds null"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "holds an image"),
        (
            [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
            "ends with the assistant's",
        ),
        ([{"role": "user", "content": "x"}, {"role": "system", "content": "y"}], "does not stand first"),
    ],
)
def test_messages_of_another_shape_are_named(tmp_path, messages, said):
    with pytest.raises(RecipeError, match=rf"m\.jsonl:1.*{said}"):
        Text((), train=jsonl(tmp_path / "m.jsonl", [{"messages": messages}] * 3), messages="messages")


def test_a_file_without_rows_without_a_prompt_and_with_one_row(tmp_path):
    with pytest.raises(RecipeError, match=r"task\.train: .*empty\.jsonl: no rows in it"):
        made(jsonl(tmp_path / "empty.jsonl", []))
    with pytest.raises(RecipeError, match=r"what is the prompt\?.*its columns are question, answer, source"):
        Text((), train=jsonl(tmp_path / "a.jsonl", ROWS))
    with pytest.raises(RecipeError, match="1 different prompts, too few"):
        made(jsonl(tmp_path / "one.jsonl", ROWS[:1]))
    with pytest.raises(RecipeError, match=r":1: expected an object with columns, found a list"):
        made(jsonl(tmp_path / "list.jsonl", [[1]]))
    (tmp_path / "ragged.jsonl").write_text('{"question": "1 + 1?", "answer": 2}\n{"answer": 2}\n')
    with pytest.raises(RecipeError, match=r"ragged\.jsonl:2: unknown column 'question'"):
        made(str(tmp_path / "ragged.jsonl"))


def test_ten_gigabytes_are_refused_by_size_and_read_as_far_as_asked(tmp_path):
    file = Path(jsonl(tmp_path / "big.jsonl", ROWS))
    os.truncate(file, 10 << 30)  # a hole: no byte of it is written
    with pytest.raises(RecipeError, match=r"big\.jsonl: 10\.0 GiB, .*task\.most = 100000"):
        made(str(file))
    assert len(some(made(str(file), most=20))) == 18
    assert sources.MOST_BYTES < 10 << 30


def test_test_problems_among_the_training_problems(data, tmp_path):
    held = jsonl(tmp_path / "eval.jsonl", [ROWS[3], {"question": "9 + 9?", "answer": 18}])
    with pytest.raises(RecipeError, match=r"task\.eval: 1 times a training problem repeats a test problem"):
        made(data, eval=held)
    text = made(data, eval=[held], repeats="drop")
    assert len(some(text)) == 19 and len(some(text, "eval")) == 2
    with pytest.raises(UserError, match="1 times a training problem repeats a test problem"):
        text.problems(jsonl(tmp_path / "more.jsonl", [ROWS[5]]))


# ---- the workflow that goes with it


def recipe(task: dict, **fields):
    stage = {"kind": "reinforce", "tree": {"act": 2}, "until": {"steps": 1}}
    return from_dict(
        {"name": "made", "task": {"name": "text", "train": "x", **task}, "stage": [stage], **fields}
    )


def test_no_plan_means_the_act_alone():
    flat = recipe({"plan": "none"})
    assert roles_of(flat) == ("act",) == flat.stage[0].roles
    assert from_dict(to_dict(flat)) == flat and roles_of(recipe({})) == ("act",)
    assert roles_of(recipe({"plan": "tags"})) == ("plan", "act")
    for wrong in (recipe({}, workflow="plan_then_act"), recipe({"plan": "tags"}, workflow="act_only")):
        with pytest.raises(RecipeError, match=r"task\.plan: .*the workflow \w+ speaks .*set workflow = "):
            check(wrong)
