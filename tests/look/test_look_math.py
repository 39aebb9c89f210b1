r"""Free text looked at: votes by answer, several files, plans beside the sub-questions that somebody wrote,
what plans give away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forethought.core.errors import UserError
from forethought.core.types import Completion
from forethought.look import evaluate, find, sample
from forethought.look.quality import align, content_words, covered, f1, steps_of
from forethought.recipe.schema import TaskSpec, TreeSpec
from forethought.tasks.families import build
from forethought.tasks.math.measured import MeasuredMath

EGGS = (
    "How many eggs does Janet sell? ** Janet sells 16 - 3 = <<16-3=13>>13 eggs.\n"
    "How much does she make? ** She makes 13 * 2 = <<13*2=26>>26.\n#### 26"
)
BOLTS = (
    "How many white bolts are needed? ** It takes 2/2 = <<2/2=1>>1.\nHow many bolts in total? ** 2+1 = "
    "<<2+1=3>>3.\n#### 3"
)
SOCRATIC = [
    {
        "question": "Janet has 16 eggs, eats 3 and sells the rest for 2 dollars each. How much?",
        "answer": EGGS,
    },
    {"question": "A robe takes 2 blue bolts and half that much white. How many in all?", "answer": BOLTS},
]

PLAIN = ["task.grader=exact", 'task.system=""']


class Characters:
    """An engine for free text: a token a character; `say(prompt so far, sample)` speaks, and \\x03 is its own
    end."""

    context, end, ends, begin = 8192, 3, frozenset({3}), ()

    def __init__(self, say):
        self.say = say

    def encode(self, text):
        return tuple(map(ord, text))

    def decode(self, ids):
        return "".join(map(chr, ids))

    def plain(self, text, own=(), turn=False):
        return self.encode(text)

    def chat(self, messages, own=(), opens=""):
        return None

    def forget_paths(self):
        pass

    def check_words(self, words, stops):
        assert (list(words), list(stops)) == ([], ["</plan>"])

    def sample(self, requests):
        return [[self._one(r, i) for i in range(r.n)] for r in requests]

    def _one(self, r, i):
        said = self.say(self.decode(r.context), i)
        ids = self.encode(said if r.stops else said + "\x03")[: r.max_tokens]
        ended = ids[-1] == self.end or self.decode(ids).endswith(r.stops or ("\x03",))
        return Completion(
            token_ids=ids, logprobs=(0.0,) * len(ids), status="finished" if ended else "truncated", version=0
        )


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def speaker(plan, act):
    """plan(problem so far, sample) and act(problem and plan so far)"""
    return lambda recipe, taskset: Characters(
        lambda text, i: act(text) if "</plan>" in text else plan(text, i) + "</plan>"
    )


# Answers that vote ------------------------------------------------------------------------------------------


def test_answers_vote_by_their_value_and_what_cannot_be_read_does_not(model, tmp_path):
    r"""Samples 0 to 5 of the problem whose answer is 26: 26, 26.0, two times 7, a box that never closes,
    nothing. 2 of 6 are right, and 26 ties with 7."""
    said = [r"\boxed{26}", r"\boxed{26.0}", r"\boxed{7}", r"\boxed{\frac{14}{2}}", r"\boxed{26", "26"]
    file = write(tmp_path / "test.jsonl", SOCRATIC[:1])
    engine_of = speaker(
        lambda text, i: f"take way {'abcdef'[i]}",
        lambda text: "<think> so </think> " + said["abcdef".index(text[-8])],
    )
    found = evaluate(
        find(model, "math", PLAIN),
        problems=file,
        tree=TreeSpec(counts={"plan": 6}, temperature=0.6),
        engine_of=engine_of,
    )
    assert {name: entry["value"] for name, entry in found.items() if "@" in name} == pytest.approx(
        {
            "avg@6": 1 / 3,
            "pass@1": 1 / 3,
            "pass@2": 1 - 6 / 15,
            "pass@4": 1 - 1 / 15,
            "pass@6": 1.0,
            "maj@6": 0.5,
        }
    )
    assert "act" not in found  # nothing comes with a plan to act under


def test_spellings_that_only_algebra_makes_equal_are_one_answer(tmp_path):
    file = write(tmp_path / "a.jsonl", [{"problem": "p", "answer": "\\sqrt{8}"}])
    taskset = build(TaskSpec(name="math", options={"eval": [str(file)], "grader": "exact"}), to_measure=True)
    (task,) = taskset.pool(0, "eval")
    act = r"<think> x </think> \boxed{2\sqrt{2}}"
    assert taskset.vote(task, [act], True) == taskset.vote(
        task, [r"<think> x </think> \boxed{\sqrt{8}}"], True
    )
    assert taskset.vote(task, [act], False) != taskset.vote(task, [act], True)
    assert taskset.vote(task, ["no box"], False) is None


# Problems ---------------------------------------------------------------------------------------------------


def solver(text: str) -> str:
    return r"<think> so </think> \boxed{26}" if "Janet" in text else r"<think> so </think> \boxed{4}"


def test_several_files_are_told_apart_and_no_problem_comes_twice(model, tmp_path):
    (tmp_path / "b").mkdir()
    files = [
        write(tmp_path / "b" / "janet.jsonl", SOCRATIC[:1]),
        write(tmp_path / "b" / "robe.jsonl", SOCRATIC[1:]),
    ]
    source = find(model, "math", [f"task.eval={json.dumps([str(file) for file in files])}", *PLAIN])
    found = evaluate(source, engine_of=speaker(lambda text, i: "find the rest", solver))
    files_found = found["e2e"]["by_file"]
    assert {name: (entry["value"], entry["n"]) for name, entry in files_found.items()} == {
        "b/janet": (1.0, 1),
        "b/robe": (0.0, 1),
    }
    assert found["e2e"]["n"] == 2 and found["e2e"]["by_level"].keys() == {"2"}  # two calculations each
    assert (
        "by_file"
        not in evaluate(source, problems=files[0], engine_of=speaker(lambda text, i: "find", solver))["e2e"]
    )


def test_a_file_is_taken_whole_or_in_part(model, tmp_path):
    rows = [
        {"id": f"{level}{i}", "problem": f"{level}, {i}?", "answer": "4", "level": level}
        for level in (1, 2)
        for i in range(5)
    ]
    file, source = write(tmp_path / "p.jsonl", rows), find(model, "math", PLAIN)
    engine_of = speaker(lambda text, i: "find", solver)
    assert evaluate(source, problems=file, engine_of=engine_of)["e2e"]["n"] == 10
    part = evaluate(source, problems=file, tasks=3, levels=(2,), engine_of=engine_of)["e2e"]
    assert (part["n"], list(part["by_level"])) == (3, ["2"])
    rows = sample(source, n=99, problems=file, engine_of=engine_of)
    assert len({row["task"] for row in rows}) == 10 and rows[0]["oracle"] == {} and rows[0]["success"]
    with pytest.raises(UserError, match="no level 3 in .*p.jsonl"):
        evaluate(source, problems=file, levels=(3,), engine_of=engine_of)


def test_acting_is_measured_alone_where_every_problem_has_a_plan(model, tmp_path):
    rows = [
        {"problem": "Janet?", "answer": "26", "plan": "sell the eggs"},
        {"problem": "robe?", "answer": "4", "plan": "sew it"},
    ]
    engine_of = speaker(
        lambda text, i: "find", lambda text: solver(text) if "eggs" in text or "find" in text else "no box"
    )
    source = find(model, "math", PLAIN)
    found = evaluate(source, problems=write(tmp_path / "p.jsonl", rows), engine_of=engine_of)
    assert (found["act"]["value"], found["e2e"]["value"]) == (0.5, 1.0)
    rows[1].pop("plan")
    assert "act" not in evaluate(source, problems=write(tmp_path / "q.jsonl", rows), engine_of=engine_of)


@pytest.mark.parametrize(
    ("overrides", "problems", "message"),
    [
        ([], None, 'math has no problems to look at; give --problems FILE or --set task.eval=\\["FILE"\\]'),
        ([], "none.jsonl", "none.jsonl: no such file"),
        (['task.eval=["none.jsonl"]'], None, "task.eval.*none.jsonl: no such file"),
        (
            ["task.levels=[9]", 'task.eval=["here.jsonl"]'],
            None,
            r"task.levels: no problem of eval has level 9; "
            r"it has \[2\]",
        ),
        (['task.train="here.jsonl"'], "here.jsonl", "a training problem repeats a test problem"),
        (["task.budgets={ plan = 5000, act = 5000 }"], "here.jsonl", "the model's context is 8192"),
    ],
)
def test_problems_that_cannot_be_had(model, tmp_path, monkeypatch, overrides, problems, message):
    monkeypatch.chdir(tmp_path)
    write(Path("here.jsonl"), SOCRATIC)
    write(Path("more.jsonl"), [{"problem": "one more", "answer": "1"}])
    with pytest.raises(UserError, match=message):
        source = find(model, "math", [*PLAIN, *overrides])
        evaluate(
            source, problems=problems and Path(problems), engine_of=speaker(lambda text, i: "find", solver)
        )


def test_what_training_needs_is_still_asked_of_a_training_run(tmp_path):
    with pytest.raises(UserError, match="task.train: missing"):
        build(TaskSpec(name="math", options={"eval": [str(write(tmp_path / "a.jsonl", SOCRATIC))]}))


# Plans beside sub-questions ---------------------------------------------------------------------------------


def test_sub_questions_of_a_socratic_file(tmp_path):
    taskset = MeasuredMath(grader="exact")
    janet, robe = taskset.problems(write(tmp_path / "s.jsonl", SOCRATIC))
    assert taskset.asked(janet).sub_questions == ("How many eggs does Janet sell?", "How much does she make?")
    assert (taskset.asked(robe).answer, janet.level) == ("3", 2)
    (plain,) = taskset.problems(write(tmp_path / "p.jsonl", [{"problem": "p", "answer": "1"}]))
    assert taskset.asked(plain).sub_questions == ()


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        ("\n1. Count the eggs.\n2) Price them.\n", ["Count the eggs.", "Price them."]),
        ("1. Count the eggs. 2. Price 3 of them.", ["Count the eggs.", "Price 3 of them."]),
        ("Count the eggs. Price them; add up", ["Count the eggs.", "Price them;", "add up"]),
        ("Step 1: count\n\nStep 2: price", ["count", "price"]),
        ("1. Price them. Add up.", ["Price them.", "Add up."]),
        ("It is. So\n2.", []),
        ("", []),
    ],
)
def test_the_steps_of_a_plan(plan, steps):
    assert steps_of(plan) == steps


def test_f1_and_alignment_by_hand():
    """Content words: eggs, left | sell, eggs, market beside janet, sell, eggs | make, market. The first step
    shares eggs (F1 2/5) with the first sub-question, the second one eggs and sell (4/6) with it and market
    (2/5) with the second: 2/5 + 2/5 > 4/6."""
    steps, asked = (
        ["eggs left", "sell eggs market"],
        ["How many eggs does Janet sell?", "How much does she make at the market?"],
    )
    assert content_words(asked[0]) == {"eggs": 1, "janet": 1, "sell": 1}
    assert align(steps, asked) == [(0, 0, pytest.approx(2 / 5)), (1, 1, pytest.approx(2 / 5))]
    assert f1(steps, asked) == pytest.approx(2 * (4 / 5) / 4)
    assert covered(steps, asked) == 0.5  # 1 of 3 words is under a half, 1 of 2 is one
    assert align(steps[1:], asked) == [(0, 0, pytest.approx(4 / 6))] and covered(steps[1:], asked) == 0.5
    assert align(["market"], asked[::-1]) == [(0, 0, pytest.approx(2 / 3))]
    assert (f1(asked, asked), covered(asked, asked), f1([], asked), f1(["blue"], asked)) == (
        1.0,
        1.0,
        0.0,
        0.0,
    )


def test_order_counts():
    assert f1(["b c", "a d"], ["a d", "b c"]) == 0.5  # only one of two can stand beside its own


def test_plans_beside_references_and_what_they_give_away(model, tmp_path):
    """Janet's plan is her sub-questions; the robe's shares no word with its own, says the answer, calculates,
    and brings a new number."""
    plans = {
        "Janet": "1. How many eggs does Janet sell?\n2. How much does she make?",
        "robe": "1. Take 3 = 1 + 2 of cloth.",
    }
    file = write(tmp_path / "s.jsonl", SOCRATIC)
    engine_of = speaker(lambda text, i: next(plan for name, plan in plans.items() if name in text), solver)
    found = evaluate(find(model, "math", PLAIN), problems=file, engine_of=engine_of)
    beside = found["references"]
    assert beside["problems"] == 2
    assert {
        name: beside[name]["value"] for name in ("f1", "covered", "f1_other", "steps", "sub_questions")
    } == {"f1": 0.5, "covered": 0.5, "f1_other": 0.0, "steps": 1.5, "sub_questions": 2.0}
    leaks = {name: entry["value"] for name, entry in found["leaks"].items()}
    # the robe's 3 and 1; its problem states the 2
    assert leaks == {"answer": 0.5, "calculation": 0.5, "numbers": 1.0}
    plain = write(tmp_path / "p.jsonl", [{"problem": "p", "answer": "1"}])
    assert "references" not in evaluate(
        find(model, "math", PLAIN), problems=plain, engine_of=speaker(lambda t, i: "a", solver)
    )
