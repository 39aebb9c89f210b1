"""Free text end to end: a Hugging Face model with a BPE tokenizer trained on the spot, with and without a
chat template."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from conftest import lines_of, nothing
from export_kit import problems
from torch_kit import bpe_of, model_of, on_disk

from forethought.learn.batches import demonstration_segments
from forethought.recipe.convert import from_dict
from forethought.runs import run

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module", params=["chat", "plain"])
def made(request, tmp_path_factory):
    """(recipe, how the prompt begins)"""
    folder = tmp_path_factory.mktemp("math")
    train, test = problems(folder / "train.jsonl", 1), problems(folder / "test.jsonl", 7)
    special = ["<pad>", "<eos>", *(["<|im_start|>", "<|im_end|>"] if request.param == "chat" else [])]
    tokenizer = bpe_of([Path(train).read_text()], 420, special)
    if request.param == "chat":
        tokenizer.chat_template = CHAT
        tokenizer.eos_token = "<|im_end|>"
    model = on_disk(
        folder / "model",
        model_of(
            "qwen2",
            vocab_size=len(tokenizer),
            max_position_embeddings=1024,
            eos_token_id=tokenizer.eos_token_id,
        ),
        tokenizer,
    )
    recipe = from_dict(
        {
            "name": "apples",
            "layout": "adapters",
            "model": {"path": model},
            "engine": {"device": "cpu", "precision": "fp32", "threads": 1},
            "task": {
                "name": "math",
                "train": train,
                "eval": [test],
                "budgets": {"plan": 12, "act": 16},
                "grader": "exact",
            },
            "eval": {"tasks": 3, "every": 0},
            "probes": {"tasks": 2},
            "stage": [
                {"kind": "imitate", "until": {"steps": 2}, "batch": 2},
                {
                    "kind": "reinforce",
                    "until": {"steps": 2},
                    "batch": 2,
                    "tree": {"plan": 2, "act": 2},
                    "reward": {
                        "plan": {"analytic": 0.5},
                        "act": {"outcome": 1, "structure": 0.2, "length": 0.1},
                    },
                },
            ],
        }
    )
    return recipe, request.param


def test_the_prompt_is_what_the_chat_template_says(made):
    recipe, kind = made
    engine, rollouts = run.build(recipe)
    task = rollouts.taskset.family(random.Random(0), [1], "train")[0]
    text = engine.decode(rollouts.words.root_ids(task))
    if kind == "chat":
        assert text.startswith("<|im_start|>system\n") and text.endswith("<|im_start|>assistant\n<plan>")
        assert f"<|im_start|>user\n{task.state.problem}<|im_end|>" in text
    else:
        assert text == task.prompt + "<plan>"
    assert rollouts.words.budgets == {"plan": 12, "act": 16}  # tokens


def test_a_demonstration_is_token_for_token_what_the_model_would_have_to_say(made):
    recipe, kind = made
    engine, rollouts = run.build(recipe)
    task = rollouts.taskset.family(random.Random(0), [1], "train")[0]
    root, plan, act = demonstration_segments(rollouts, [task], [{"plan", "act"}])
    assert root.token_ids == rollouts.words.root_ids(task) and root.stream is None
    assert engine.decode(plan.token_ids).endswith("</plan>")
    ended = "<|im_end|>" if kind == "chat" else "<eos>"
    assert engine.decode(act.token_ids).endswith(f"\\boxed{{{task.state.answer}}}{ended}")
    assert engine.encode(ended) == act.token_ids[-1:] == (engine.end,)


def test_a_run_on_problems(made, tmp_path):
    recipe, _ = made
    run.train(recipe, tmp_path / "run", nothing)
    lines = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert {"eval/plan", "eval/act", "eval/e2e"} <= lines[-1].keys()
    assert {"loss/sft_plan", "loss/sft_act"} <= lines[1].keys()
    assert {"truncated/plan", "tokens/sampled"} <= lines[-1].keys()
