"""Tasks that a model behind an endpoint writes anew, and solves again before they are believed."""

from __future__ import annotations

import json

import pytest

from forethought.core.errors import RecipeError, UserError
from forethought.stages.distill.transport import Reply, Unanswered
from forethought.stages.webrl.writing import Writer, writer_of
from forethought.tasks.text.taskset import Text

ROWS = [{"question": f"{a} + {b}?", "answer": a + b} for a in range(5) for b in range(4)]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return Text((), train=str(path), prompt="{question}", answer="answer", grader="number")


class Model:
    """Writes `written` for every problem, and solves by `solve(question)`."""

    def __init__(self, written, solve):
        self.written, self.solve, self.asked = written, solve, []

    def __call__(self, body):
        system, user = (message["content"] for message in body["messages"])
        self.asked.append((system.startswith("You write"), user))
        said = self.written if self.asked[-1][0] else self.solve(user)
        if isinstance(said, Unanswered):
            raise said
        choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 2}
        return Reply(status=200, headers={}, body=json.dumps({"choices": [choice], "usage": usage}))


def writer(tmp_path, model, **settings) -> Writer:
    settings = {"key_env": "", "cache": tmp_path / "cache.jsonl", "retries": 0} | settings
    return Writer("http://localhost/v1", "m", post=model, sleep=lambda seconds: None, **settings)


def test_a_task_that_is_solved_as_it_says_is_kept(tmp_path, text):
    model = Model("Problem: What is 31 + 4?\nAnswer: 35", lambda question: "That makes\n35")
    [task, other] = text.pool(0, "train")[:2]
    assert writer(tmp_path, model)(text, [task, other]) == [("What is 31 + 4?", "35")] * 2
    assert [user for writes, user in model.asked if writes] == [task.prompt, other.prompt]
    solved = {user for writes, user in model.asked if not writes}
    assert solved == {"What is 31 + 4?", "What is 31 + 4?\n\n(Attempt 2.)"}
    before = len(model.asked)
    writer(tmp_path, model)(text, [task])
    assert len(model.asked) == before  # from the cache
    writer(tmp_path, model)(text, [task, task])
    assert len(model.asked) == before + 1  # the second asks for another one


@pytest.mark.parametrize(
    ("said", "solve"),
    [
        ("Problem: What is 31 + 4?\nAnswer: 36", lambda question: "35"),  # it does not believe itself
        ("Problem: What is 31 + 4?\nAnswer: 35", lambda q: "36" if "Attempt" in q else "35"),  # nor twice
        ("Here is one: 31 + 4", lambda question: "35"),
        ("Problem: What is 31 + 4?\nAnswer: many", lambda question: "many"),  # no number can match it
        ("Problem: \nAnswer: 35", lambda question: "35"),
    ],
)
def test_what_is_not_believed_is_left_out(tmp_path, text, said, solve):
    assert writer(tmp_path, Model(said, solve))(text, text.pool(0, "train")[:1]) == [None]


def test_a_held_out_problem_does_not_come_back_as_a_training_task(tmp_path, text):
    held = text.pool(0, "eval")[0]
    said = f"Problem: {held.prompt}\nAnswer: {held.state.answer}"
    found = writer(tmp_path, Model(said, lambda question: held.state.answer))(text, text.pool(0, "train")[:1])
    assert found == [None]


def test_what_is_written_is_a_task_of_the_set(text):
    task = text.pool(0, "train")[0]
    new = text.rewritten(task, "What is 31 + 4?", "35")
    assert (new.prompt, new.state.answer, new.level) == ("What is 31 + 4?", "35", task.level)
    assert new.id != task.id and new.id.rpartition("/")[0] == task.id.rpartition("/")[0]
    assert text.messages(new) == [{"role": "user", "content": "What is 31 + 4?"}]
    assert text.columns(new)["answer"] == "35" and text.graded(new, "it is 35").success
    with pytest.raises(UserError, match="no answer can match"):
        text.rewritten(task, "What is 31 + 4?", "many")


def test_an_endpoint_that_answers_nothing_is_told(tmp_path, text):
    silent = writer(tmp_path, Model(Unanswered("unreachable", "refused"), str))
    assert silent(text, text.pool(0, "train")[:3]) == [None] * 3
    assert "did not answer: " in silent.silence


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"endpoint": "http://x/v1"}, "here.model: missing"),
        (
            {"endpoint": "http://x/v1", "model": "m", "vote": 1},
            "here.vote: unknown setting of the endpoint 'vote'",
        ),
        ({"endpoint": "http://x/v1", "model": "m", "votes": -1}, "here: votes is how often"),
        ({"endpoint": "x", "model": "m"}, "here: "),
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_its_key(table, said):
    with pytest.raises(RecipeError) as caught:
        writer_of({"key_env": "", **table}, "here")
    assert str(caught.value).startswith(said)
