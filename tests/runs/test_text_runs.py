"""Runs on prompts of one's own: flat, with plans, of a chat model, and by functions alone; and what a model
is told of that never writes what can be read."""

from __future__ import annotations

import json

import pytest
from conftest import lines_of, nothing
from torch_kit import bpe_of, model_of, on_disk

from forethought.core.errors import RecipeError
from forethought.core.types import Node, Task, Tree
from forethought.recipe.convert import from_dict
from forethought.runs import run
from forethought.runs.cold import ENOUGH, ColdStart

ROWS = [{"question": f"{a}+{b}=", "answer": a + b, "plan": "Add."} for a in range(8) for b in range(4)]
SMALL = {"init": "small", "layers": 2, "width": 32, "heads": 4, "mlp": 64, "vocabulary": 280}
REWARDS = """
def short(completions, answer, **kwargs):
    return [1.0 / (1 + len(text)) for text in completions]

def planned(plans, **kwargs):
    return [len(plan) / 100 for plan in plans]

def talks(prompts, completions, **kwargs):
    assert all(prompt[-1]["role"] == "user" for prompt in prompts)
    return [len(completion[0]["content"]) / 100 for completion in completions]
"""


@pytest.fixture
def made(tmp_path):
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "rewards.py").write_text(REWARDS)

    def train(task=(), stages=(), **fields):
        said = {"name": "text", "train": str(tmp_path / "data.jsonl"), "prompt": "{question}"}
        tables = {
            "name": "made",
            "layout": "shared",
            "model": SMALL,
            "task": {**said, "budgets": {"act": 6}, **dict(task)},
            "eval": {"tasks": 2, "every": 0},
            "stage": [
                {"kind": "reinforce", "batch": 4, "until": {"steps": 2}, **stage}
                for stage in (stages or [{}])
            ],
        }
        events = []
        out = tmp_path / "out"
        run.train(from_dict(tables | fields), out, events.append)
        return lines_of(out / "metrics.jsonl"), [e.text for e in events if e.kind == "note"]

    train.rewards = lambda role, name, weight=1.0: {role: {f"{tmp_path / 'rewards.py'}:{name}": weight}}
    return train


def test_each_stage_measures_what_it_pays(made):
    """The evaluation of the stage before is not taken for one of this stage where rewards are others."""
    short = made.rewards("act", "short")
    twice = {"act": {key: 2.0 for key in short["act"]}}
    stages = [{"tree": {"act": 2}, "reward": pays, "until": {"steps": 1}} for pays in (short, twice)]
    lines, _ = made({}, stages)
    first, last = lines[1], lines[2]  # the end of one stage and the start of the next: the same model
    assert last["eval_reward/act.short"] == first["eval_reward/act.short"] == first["eval_reward/act"]
    assert last["eval_reward/act"] == 2 * first["eval_reward/act"]


def test_a_stage_may_end_by_what_its_functions_pay(made):
    until = {"steps": 3, "metric": "eval_reward/act.short", "at_least": 0.0}
    stage = {"tree": {"act": 2}, "reward": made.rewards("act", "short"), "until": until}
    lines, _ = made({}, [stage], eval={"tasks": 2, "every": 1})
    assert lines[-1]["step"] == 1


GRADED = {"answer": "answer", "grader": "number"}


def test_flat_grpo_with_a_function_of_ones_own(made):
    lines, notes = made(GRADED, [{"tree": {"act": 4}, "reward": made.rewards("act", "short")}])
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert 0 < lines[1]["reward/act.short"] <= 1 and lines[1]["reward/act"] == lines[1]["reward/act.short"]
    assert lines[1]["tokens/trained"] > 0 and "eval/e2e" in lines[0]
    assert any("no task.eval" in note for note in notes)


def test_without_a_grader_functions_alone_say_what_is_good(made):
    lines, _ = made({}, [{"tree": {"act": 4}, "reward": made.rewards("act", "short")}])
    assert lines[2]["reward/act.short"] > 0 and not any(name.startswith("eval/") for name in lines[0])
    for line in (lines[0], lines[2]):  # evaluations say what the functions pay on held-out prompts
        assert 0 < line["eval_reward/act.short"] == line["eval_reward/act"] <= 1
    with pytest.raises(
        RecipeError, match=r"^stage\.0\.reward: nothing says what is good: give the task a grader"
    ):
        made({}, [{"tree": {"act": 4}}])
    with pytest.raises(RecipeError, match=r"^stage\.0\.gates\.0\.metric: .*no grader"):
        gates = [{"metric": "eval/e2e", "at_least": 0.1}]
        made({}, [{"reward": made.rewards("act", "short"), "gates": gates}])


def test_with_plans_a_model_that_never_ends_one_is_told_three_ways(made, tmp_path):
    """A model from disk, whose tokenizer has the tag in several pieces."""
    tokenizer = bpe_of([row["question"] for row in ROWS])
    path = on_disk(tmp_path / "model", model_of(vocab_size=len(tokenizer)), tokenizer)
    task = {**GRADED, "plan": "tags", "system": "", "budgets": {"plan": 6, "act": 6}}
    stage = {"tree": {"plan": 16, "act": 1}, "batch": 4, "until": {"steps": 3}}
    reward = {"plan": {"outcome": 1.0}} | made.rewards("act", "short")
    lines, notes = made(task, [stage | {"reward": reward}], model={"path": path})
    assert lines[1]["refused/plan"] == 1.0
    [told] = [note for note in notes if "can train" in note]
    assert told.startswith("each of the first 128 turns of plan was cut off at its budget")
    assert all(way in told for way in ("task.shots", "a reward for parts of the form", "imitation"))


def test_plans_are_shown_by_imitation_and_then_rewarded_by_functions(made):
    task = {**GRADED, "plan": "tags", "budgets": {"plan": 8, "act": 6}}
    imitate = {"kind": "imitate", "until": {"steps": 60}, "batch": 16, "optim": {"lr": 1e-2}}
    reward = made.rewards("plan", "planned") | made.rewards("act", "short")
    stage = {"tree": {"plan": 2, "act": 2}, "reward": reward}
    lines, _ = made(task, [imitate, stage])
    assert lines[-1]["reward/plan.planned"] > 0 and lines[-1]["reward/act.short"] > 0
    assert lines[-1]["refused/plan"] < 1 and "eval/act" in lines[-1]


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_chat_model_reads_conversations_and_its_functions_messages(made, tmp_path):
    rows = [{"messages": [{"role": "user", "content": row["question"]}]} for row in ROWS]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = bpe_of([row["question"] for row in ROWS], special=special)
    tokenizer.pad_token, tokenizer.eos_token, tokenizer.chat_template = special[0], special[2], CHATML
    path = on_disk(tmp_path / "model", model_of(vocab_size=len(tokenizer)), tokenizer)
    tables = {
        "name": "text",
        "train": str(tmp_path / "talk.jsonl"),
        "messages": "messages",
        "budgets": {"act": 6},
    }
    stage = {"kind": "reinforce", "batch": 4, "tree": {"act": 3}, "reward": made.rewards("act", "talks")}
    recipe = {
        "name": "made",
        "task": tables,
        "model": {"path": path},
        "stage": [stage | {"until": {"steps": 1}}],
    }
    run.train(from_dict(recipe | {"eval": {"tasks": 2, "every": 0}}), tmp_path / "chat", nothing)
    [_, line] = lines_of(tmp_path / "chat" / "metrics.jsonl")
    assert line["failed/act"] == 0 and line["reward/act.talks"] >= 0


# ---- a cold start


def tree(*parts: dict) -> Tree:
    task = Task(id="t", taskset="text", level=0, context="", prompt="p")
    nodes = [Node(id=0, parent=None, role=None, text="p", token_ids=(1,))]
    nodes += [
        Node(id=i, parent=0, role="act", text="words", token_ids=(1,), status="finished", policy="base",
             reward_parts=one, reason="no answer was found in it")
        for i, one in enumerate(parts, 1)
    ]  # fmt: skip
    return Tree(task=task, nodes=tuple(nodes))


def test_a_cold_start_is_said_once_and_only_where_hardly_anything_can_be_read():
    cold, unread = ColdStart(), {"answered": 0.0}
    assert cold.hear([tree(*[unread] * (ENOUGH - 1))], ("act",)) == ""
    said = cold.hear([tree(unread)], ("act",))
    assert said.startswith(
        f"none of the first {ENOUGH} turns of act holds an answer that the grader can read"
    )
    assert "'words': no answer was found in it" in said
    assert cold.hear([tree(*[unread] * 200)], ("act",)) == ""
    nearly = tree(*[{"answered": 1.0}] * 10, *[unread] * 90)
    said = ColdStart().hear([nearly], ("act",))
    assert said.startswith("only 10 of the first 100 turns of act hold an answer that the grader can read")
    assert (
        "the others do not (such as 'words': no answer was found in it), so hardly anything can train."
        in said
    )
    for parts in ([{"answered": 1.0}] * 12, [{"outcome": 0.0}]):
        assert ColdStart().hear([tree(*[unread] * 3, *parts, *[unread] * (ENOUGH - 3))], ("act",)) == ""
