"""A small model from scratch that reads free text: its tokenizer, and a run through distillation, imitation
and trees."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import lines_of, nothing
from torch_kit import same, snapshot
from transformers import AutoTokenizer

from forethought.core.errors import CheckpointError, RecipeError, UserError
from forethought.engines.torch.models.chat import special_of
from forethought.engines.torch.models.loading import from_path
from forethought.engines.torch.models.small_text import tokenizer_of_texts
from forethought.learn.batches import demonstration_segments
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict
from forethought.recipe.schema import Recipe, UntilSpec
from forethought.runs import run
from forethought.store import Store

MARKS = ["<plan>", "</plan>", "<think>", "</think>", "\\boxed{"]
FIXED = 2 + 3 + len(MARKS) + 256  # padding and end, the chat's roles, the marks, the bytes
TEXTS = ["Ann has 12 apples and 30 pears.", "Ben has 12 apples and gets 1,200 more apples."] * 3


def problems(path: Path, seed: int, plans: bool = False, who: str = "Ann", n: int = 8) -> str:
    """Problems as GSM8K writes them; `plans`: with plan and chain, as distillation writes them."""
    rng, lines = random.Random(seed), []
    for i in range(n):
        a, b = rng.randrange(100 * seed + 11, 100 * seed + 99), rng.randrange(2, 9)
        question = f"Problem {seed}-{i}: {who} has {a} apples and gets {b} more. How many does she have?"
        chain = f"{who} has {a} + {b} = <<{a}+{b}={a + b}>>{a + b} apples."
        lines.append(
            {"question": question, "answer": f"{chain}\n#### {a + b}"}
            if not plans
            else {
                "question": question,
                "answer": str(a + b),
                "level": 1,
                "plan": f"{who} has ? apples.",
                "chain": chain,
            }
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    train, test = problems(tmp_path / "train.jsonl", 1), problems(tmp_path / "test.jsonl", 7, plans=True)
    return from_dict(
        {
            "name": "small-text",
            "layout": "shared",
            "model": {"layers": 2, "width": 32, "mlp": 32, "vocabulary": 320},
            "engine": {"device": "cpu", "precision": "fp32", "threads": 1},
            "task": {
                "name": "math",
                "train": train,
                "eval": [test],
                "budgets": {"plan": 16, "act": 24},
                "grader": "exact",
                "system": "",
            },
            "eval": {"tasks": 2, "every": 0},
            "probes": {"tasks": 2, "every": 2, "conflict_every": 0},
            "save": {"every": 1},
            "stage": [
                {"kind": "distill"},
                {"kind": "imitate", "until": {"steps": 2}, "batch": 4, "optim": {"name": "muon", "lr": 0.01}},
                {
                    "kind": "reinforce",
                    "until": {"steps": 2},
                    "batch": 2,
                    "tree": {"plan": 2, "act": 2},
                    "skip_zero": False,
                    "reward": {
                        "plan": {"analytic": 0.5},
                        "act": {"outcome": 1, "structure": 0.2, "length": 0.1},
                    },
                },
            ],
        }
    )


# The tokenizer ----------------------------------------------------------------------------------------------


def test_digits_stay_apart_and_marks_are_one_token_wherever_they_stand():
    tokenizer = tokenizer_of_texts(TEXTS, FIXED + 20, MARKS)
    pieces = lambda text: [tokenizer.decode([i]) for i in tokenizer.encode(text)]  # noqa: E731
    assert [tokenizer.pad_token_id, tokenizer.eos_token_id, len(tokenizer)] == [0, 1, FIXED + 20]
    assert pieces("x120</plan>y") == ["x", "1", "2", "0", "</plan>", "y"]
    assert pieces("\\boxed{12}")[0] == "\\boxed{" and pieces(" apples") == [" apples"]
    for text in ("  two  spaces\n\nlines\t", "ducks’ 7¼ €🦆", "</plan </think>>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_vocabulary_without_room_for_words_is_refused():
    with pytest.raises(
        RecipeError, match=f"model.vocabulary: {FIXED} is too few: the bytes and the task's tags take {FIXED}"
    ):
        tokenizer_of_texts(TEXTS, FIXED, MARKS)
    # "ab" and " ab": there are no more pairs
    assert len(tokenizer_of_texts(["ab ab"], 5000, MARKS)) == FIXED + 2


def test_a_conversation_is_its_turns_and_nothing_else():
    tokenizer = tokenizer_of_texts(TEXTS, FIXED + 20, MARKS)
    told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}]
    assert (
        tokenizer.apply_chat_template(told, tokenize=False, add_generation_prompt=True)
        == "<|system|>Be brief.<eos><|user|>How many?<eos><|assistant|>"
    )


def test_a_saved_tokenizer_opens_as_it_was(tmp_path):
    tokenizer = tokenizer_of_texts(TEXTS, FIXED + 20, MARKS)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "<|user|>Ann has 12 apples.<eos><|assistant|><plan>\nAdd. </plan>"
    assert again.encode(text) == tokenizer.encode(text) and again.chat_template == tokenizer.chat_template


# What is trained --------------------------------------------------------------------------------------------


def test_turns_that_are_encoded_apart_are_the_tokens_of_the_whole(recipe):
    """So there is one spelling: what a demonstration shows is what the model can say, and the stop of a plan
    is one token."""
    engine, rollouts = run.build(recipe)
    task = rollouts.taskset.pool(1, "eval")[0]
    segments = demonstration_segments(rollouts, [task], [{"plan", "act"}])
    ids = [i for s in segments for i in s.token_ids]
    text = engine.decode(ids)
    assert text.startswith(
        f"<|user|>{task.state.problem}<eos><|assistant|><plan>\nAnn has ? apples.\n</plan>\n<think>\n"
    )
    assert text.endswith(f"\\boxed{{{task.state.answer}}}<eos>") and "<<" not in text
    assert engine.encode(text) == tuple(ids) and engine.end == ids[-1] == 1
    assert engine.encode("</plan>") == (segments[1].token_ids[-1],)


def test_the_whole_run_and_what_it_measures(recipe, tmp_path):
    """From nothing to plans that the interface accepts, and trees that are paid."""
    recipe = replace(
        recipe, stage=(recipe.stage[0], replace(recipe.stage[1], until=UntilSpec(steps=40)), recipe.stage[2])
    )
    run.train(recipe, tmp_path / "run", nothing)
    lines = lines_of(tmp_path / "run/metrics.jsonl")
    imitated = [
        line
        for line in lines
        if line["kind"] == "imitate" and "loss/sft" in line and "probe/ppl_plan" in line
    ]
    assert {"loss/sft_plan", "loss/sft_act", "probe/ppl_plan", "probe/ppl_act"} <= imitated[-1].keys()
    for role in ("plan", "act"):
        assert imitated[-1][f"probe/ppl_{role}"] < imitated[0][f"probe/ppl_{role}"] / 4
    assert imitated[-1]["eval/plan"] == 1.0
    assert {
        "eval/plan",
        "eval/act",
        "eval/e2e",
        "reward/act.structure",
        "reward/act.length",
        "reward/act.outcome",
    } <= lines[-1].keys()


def test_a_stopped_run_is_resumed_with_the_same_words_to_the_same_bits(recipe, tmp_path):
    class Stop(BaseException):
        pass

    def watch(event):
        if event.kind == "step" and event.step == 3:
            raise Stop

    run.train(recipe, tmp_path / "straight", nothing)
    with pytest.raises(Stop):
        run.train(recipe, tmp_path / "stopped", watch)
    run.resume(tmp_path / "stopped", nothing)
    weights = []
    for name in ("straight", "stopped"):
        engine, _ = run.build(recipe)
        engine.load(Store.open(tmp_path / name).latest()[0] / "engine")
        weights.append(snapshot(engine, "base"))
    assert same(*weights)


def test_other_training_problems_make_other_words_and_the_checkpoint_says_so(recipe, tmp_path):
    run.train(recipe, tmp_path / "run", nothing)
    problems(tmp_path / "train.jsonl", 3, who="Wilhelmina")
    engine, _ = run.build(recipe)
    with pytest.raises(CheckpointError, match="saved with another tokenizer than its task gives now"):
        engine.load(Store.open(tmp_path / "run").latest()[0] / "engine")


def test_its_checkpoint_is_a_model_like_any_other(recipe, tmp_path):
    run.train(recipe, tmp_path / "run", nothing)
    base = Store.open(tmp_path / "run").latest()[0] / "engine" / "base"
    engine, _ = run.build(recipe)
    text = "<|user|>Ann has 12 apples.<eos><|assistant|><plan>\nAdd. </plan>"
    assert tuple(from_path(str(base)).tokenizer.encode(text, add_special_tokens=False)) == engine.encode(text)
    run.build(replace(recipe, model=replace(recipe.model, path=str(base))))  # its context takes the task too


# Bad input --------------------------------------------------------------------------------------------------


def test_sizes_that_cannot_be(recipe):
    with pytest.raises(RecipeError, match="model.vocabulary: must be at least 1, found 0"):
        check(replace(recipe, model=replace(recipe.model, vocabulary=0)))
    with pytest.raises(RecipeError, match="model.vocabulary: 200 is too few"):
        run.build(replace(recipe, model=replace(recipe.model, vocabulary=200)))


def test_a_planner_of_its_own_has_the_same_words(recipe):
    planner = replace(recipe.model, width=64)
    engine, _ = run.build(replace(recipe, layout="models", planner=planner))
    assert {"base", "plan"} <= set(engine.policies())
    with pytest.raises(UserError, match="different tokenizers"):
        run.build(replace(recipe, layout="models", planner=replace(planner, vocabulary=300)))


def test_a_mark_of_one_byte_is_no_special_token():
    """An observation with the action "1" would else be refused: it could not be told from the action."""
    tokenizer = tokenizer_of_texts(["abab"], 300, ["1", "<plan>"])
    assert tokenizer.convert_tokens_to_ids("1") not in special_of(tokenizer)
    assert tokenizer.convert_tokens_to_ids("<plan>") in special_of(tokenizer)
    assert tokenizer.decode(tokenizer.encode("word 1")) == "word 1"
