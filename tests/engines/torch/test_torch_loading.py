"""From a path to a model that works on a task: what is refused says why, and what is accepted goes end to
end."""

from __future__ import annotations

import copy
import gzip
import json
import random
from pathlib import Path

import pytest
import torch
from conftest import lines_of, nothing
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from torch_kit import SIZE, WORDS, bpe_of, engine_of, forest, model_of, on_disk, same
from transformers import AutoConfig, PreTrainedTokenizerFast

from forethought.core.errors import RecipeError, UserError
from forethought.core.types import Batch
from forethought.engines.torch.models.loading import from_path, load
from forethought.engines.torch.models.small import tokenizer_of
from forethought.recipe.convert import from_dict
from forethought.recipe.schema import ModelSpec
from forethought.runs import run
from forethought.tasks import families


def refusal(path) -> str:
    with pytest.raises(UserError) as e:
        from_path(str(path))
    assert str(path) in str(e.value)
    return str(e.value)


def edit(path: Path, **fields) -> None:
    record = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (record | fields).items() if v is not None}))


def test_no_bar_of_a_library_is_drawn(tmp_path, capsys, monkeypatch):
    folder = on_disk(tmp_path, model_of("llama"))
    capsys.readouterr()
    for terminal in (False, True, False):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal, raising=False)
        from_path(str(folder))
        assert capsys.readouterr().err == ""


# Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "said"), [("idefics3", "pictures"), ("qwen3_vl", "pictures"), ("qwen2_audio", "sound")]
)
def test_a_model_that_reads_more_than_text_is_refused_by_name(kind, said, tmp_path):
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    assert f"({kind}) reads {said} beside text, and has no model of text alone" in refusal(tmp_path)


def test_a_model_that_was_trained_on_pictures_opens_with_its_run_alone(tmp_path):
    folder = Path(on_disk(tmp_path, model_of("llama")))
    edit(folder / "config.json", forethought_sight=[16, 3, 10, 10])
    assert "was trained on pictures, and opens with its run alone" in refusal(folder)


@pytest.mark.parametrize("where", ["nowhere", "file", "empty"])
def test_a_path_that_holds_no_model(where, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("hello")
    assert "is not a model: it has no config.json" in refusal(tmp_path / where)


@pytest.mark.parametrize("path", ["~/no/such/model", "./no-such-model", "../no-such-model"])
def test_a_path_is_never_taken_for_a_name_on_the_hub(path):
    with pytest.raises(UserError, match="is not a model: it has no config.json"):
        from_path(path)


def test_a_name_that_the_hub_does_not_have(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match="forethought-tests/no-such-model cannot be loaded as a causal language model: "
    ):
        from_path("forethought-tests/no-such-model")


def test_a_config_that_is_broken_or_of_no_known_kind(tmp_path):
    (tmp_path / "config.json").write_text("{not json")
    assert "cannot be loaded" in refusal(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no-such-kind"}')
    assert "no-such-kind" in refusal(tmp_path)


def test_weights_that_are_missing_torn_or_of_another_shape(tmp_path):
    on_disk(tmp_path, model_of())
    weights = tmp_path / "model.safetensors"
    # some versions of safetensors map the file, which is overwritten here
    state = {k: p.clone() for k, p in load_file(weights).items()}
    save_file({k: v for k, v in state.items() if "layers.1.mlp" not in k}, weights, metadata={"format": "pt"})
    assert "lacks weights of LlamaForCausalLM: model.layers.1.mlp.down_proj.weight" in refusal(tmp_path)
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be loaded as a causal language model: " in refusal(tmp_path)
    save_file(state | {"lm_head.weight": torch.zeros(SIZE + 5, 32)}, weights, metadata={"format": "pt"})
    assert "cannot be loaded as a causal language model: " in refusal(tmp_path)
    weights.unlink()
    assert "cannot be loaded as a causal language model: " in refusal(tmp_path)


def test_a_tokenizer_that_is_missing(tmp_path):
    on_disk(tmp_path, model_of())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    assert "has no tokenizer; save the model's own beside it" in refusal(tmp_path)


def test_a_tokenizer_without_an_end(tmp_path):
    tokenizer = tokenizer_of(WORDS)
    on_disk(
        tmp_path,
        model_of(),
        PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, unk_token="<unk>"),
    )
    assert "has no end-of-text token (eos_token); set one and save it" in refusal(tmp_path)


def test_a_tokenizer_of_another_model(tmp_path):
    on_disk(tmp_path, model_of(), tokenizer_of([*WORDS, "more", "words"]))
    assert f"has a token with the id {SIZE + 1}, its model embeds {SIZE}" in refusal(tmp_path)


def test_code_of_strangers_is_not_run(tmp_path):
    on_disk(tmp_path, model_of())
    (tmp_path / "stranger.py").write_text("raise SystemExit('this ran')")
    code = {"AutoConfig": "stranger.Config", "AutoModelForCausalLM": "stranger.Model"}
    edit(tmp_path / "config.json", model_type="strange", auto_map=code)
    assert "trust_remote_code" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("heads", "layers", "width", "message"),
    [
        (3, 2, 32, "32 must be an even multiple of heads = 3"),
        (2, 2, 32, "at least 4 heads and 2 layers, found heads = 2, layers = 2"),
        (4, 1, 32, "at least 4 heads and 2 layers, found heads = 4, layers = 1"),
    ],
)
def test_a_small_model_that_cannot_hold_its_look_up(heads, layers, width, message):
    with pytest.raises(RecipeError, match=message):
        load(ModelSpec(heads=heads, layers=layers, width=width), WORDS, 64, 0)


# What is accepted -------------------------------------------------------------------------------------------


def test_what_is_loaded_is_what_was_saved_in_full_precision(tmp_path):
    model = model_of("qwen3", 4)
    loaded = from_path(on_disk(tmp_path / "a", copy.deepcopy(model).to(torch.bfloat16)))
    assert (
        loaded.model.dtype == torch.float32
        and not loaded.model.training
        and loaded.source == str(tmp_path / "a")
    )
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.bfloat16())
    assert same(loaded.model.state_dict(), model.state_dict())
    batch = Batch(policy="base", segments=tuple(forest(0, stream="sft")))
    assert engine_of(loaded.model).logprobs(batch) == engine_of(model).logprobs(batch)


def test_a_home_directory_is_found(tmp_path, monkeypatch):
    on_disk(tmp_path / "models", model_of())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert from_path("~/models").source == str(tmp_path / "models")


@pytest.mark.parametrize("kind", ["qwen2", "llama", "phi3"])
def test_a_word_level_tokenizer_is_read_as_it_was_written(kind, tmp_path):
    """`AutoTokenizer` gives a qwen2 its own tokenizer, which finds no words in this one."""
    loaded = from_path(on_disk(tmp_path, model_of(kind)))
    assert loaded.tokenizer.encode("w0 w6 w1", add_special_tokens=False) == [3, 9, 4]
    assert loaded.tokenizer.decode([3, 9, 4]) == "w0 w6 w1" and loaded.tokenizer.eos_token_id == 1


# Words ------------------------------------------------------------------------------------------------------

DESK = families.build(from_dict({"task": {"name": "desk", "levels": [1]}}).task)
STOPS = list(DESK.stops.values())


def desk_texts(n: int = 60) -> list[str]:
    rng, texts = random.Random(0), []
    for _ in range(n):
        task = DESK.family(rng, [1], "train")[0]
        texts.append(
            " ".join([task.context, task.prompt, "<plan>", *(t.text for t in DESK.demonstrate(task))])
        )
    return texts


def test_words_that_the_tokenizer_cannot_write_are_named():
    words = DESK.vocabulary()
    engine_of(tokenizer=tokenizer_of(words)).check_words(words, STOPS)
    engine = engine_of(tokenizer=tokenizer_of([w for w in words if w not in ("x3", "v7")]))
    with pytest.raises(
        UserError,
        match=r"the tokenizer of the small model cannot write 2 words of the task: "
        r"x3, v7; use a model",
    ):
        engine.check_words(words, STOPS)
    engine = engine_of(tokenizer=tokenizer_of([w for w in words if w != "</act>"]))
    with pytest.raises(UserError, match="cannot write 1 special tokens of the task: </act>"):
        engine.check_words(words, STOPS)
    engine = engine_of(tokenizer=tokenizer_of(WORDS))
    with pytest.raises(
        UserError,
        match=r"cannot write \d+ special tokens of the task: GOAL, <plan>, .*, "
        r"\.\.\.; use",
    ):
        engine.check_words(words, STOPS)


@pytest.mark.parametrize("size", [262, 300, 500])
def test_bytes_write_everything(size):
    engine_of(tokenizer=bpe_of(desk_texts(), size)).check_words(DESK.vocabulary(), STOPS)


def test_a_tokenizer_that_changes_words_is_found():
    from tokenizers import normalizers

    lower = bpe_of(desk_texts())
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(UserError, match="cannot write 1 words of the task: GOAL"):
        engine_of(tokenizer=lower).check_words(DESK.vocabulary(), STOPS)
    glued = bpe_of(desk_texts())
    pieces = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    glued.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    with pytest.raises(UserError, match="cannot write"):  # it loses the space between words
        engine_of(tokenizer=glued).check_words(DESK.vocabulary(), STOPS)


# End to end -------------------------------------------------------------------------------------------------


def recipe(path: str, weights: str = "auto"):
    tables = {
        "name": "made",
        "layout": "adapters",
        "model": {"path": path},
        "task": {"name": "desk", "levels": [1], "widgets": 3},
        "adapter": {"rank": 8},
        "engine": {"device": "cpu", "precision": "fp32", "threads": 1},
        "eval": {"tasks": 4, "every": 0},
        "save": {"every": 100, "trees_every": 1, "trees": 4},
        "stage": [
            {
                "kind": "imitate",
                "weights": weights,
                "until": {"steps": 30},
                "batch": 16,
                "optim": {"lr": 0.01, "decay": 0.5},
            },
            {
                "kind": "reinforce",
                "roles": ["plan"],
                "until": {"steps": 2},
                "batch": 4,
                "tree": {"plan": 4, "act": 1},
                "reward": {"plan": {"valid": 1}},
                "optim": {"lr": 1e-3},
                "ref_kl": 0.1,
            },
        ],
    }
    return from_dict(tables)


def tokenizers() -> dict:
    return {"word-level": tokenizer_of(DESK.vocabulary()), "bpe": bpe_of(desk_texts(), 270)}


@pytest.mark.parametrize(
    ("kind", "words", "weights"),
    [
        ("llama", "word-level", "adapter"),
        ("qwen2", "word-level", "base"),
        ("qwen2", "bpe", "base"),
    ],
)
def test_any_model_with_any_tokenizer_goes_through_a_whole_run(kind, words, weights, tmp_path):
    """Imitation teaches the format, however many tokens a word and a stop take; then plans are sampled,
    judged and trained."""
    tokenizer = tokenizers()[words]
    pieces = [len(tokenizer.encode(" " + w, add_special_tokens=False)) for w in (*STOPS, "x3")]
    assert {"word-level": pieces == [1, 1, 1], "bpe": pieces[0] > 2 and max(pieces) > 2}[words], pieces
    model = model_of(
        kind, vocab_size=len(tokenizer), max_position_embeddings=320, hidden_size=64, num_attention_heads=4
    )
    result = run.train(
        recipe(on_disk(tmp_path / "model", model, tokenizer), weights), tmp_path / "run", nothing
    )
    assert result.status == "done"
    lines = lines_of(tmp_path / "run/metrics.jsonl")
    losses = [line["loss/sft_plan"] for line in lines if "loss/sft_plan" in line]
    assert losses[-1] < losses[0] / 2
    last = lines[-1]
    assert last["gap/sampler"] < 1e-4 and 0 <= last["kl/ref"] < 0.1
    trees = [json.loads(line) for line in gzip.open(sorted((tmp_path / "run/trees").iterdir())[-1])]
    plans = [n for tree in trees for n in tree["nodes"] if n["role"] == "plan"]
    assert len(plans) == 16 and {n["policy"] for n in plans} == {"plan"}
    # enough to have learned it: every plan that ends, ends with its stop and holds it once
    if weights == "base":
        ended = [n["text"] for n in plans if n["status"] in ("finished", "refused")]
        assert len(ended) > 10 and last["reward/plan.format"] > 0.5
        assert sum(text.endswith(" </plan>") and text.count("</plan>") == 1 for text in ended) > 10
    checkpoint = sorted((tmp_path / "run/checkpoints").iterdir())[-1] / "engine"
    assert sorted(p.name for p in (checkpoint / "adapters").iterdir()) == ["act", "plan"][weights == "base" :]
    # otherwise it is what the path holds
    assert (checkpoint / "base/model.safetensors").exists() == (weights == "base")


def test_a_model_that_lacks_the_room_is_refused_before_anything_is_written(tmp_path):
    tokenizer = bpe_of(desk_texts(), 262)
    path = on_disk(
        tmp_path / "model", model_of(vocab_size=len(tokenizer), max_position_embeddings=64), tokenizer
    )
    with pytest.raises(UserError, match="context is 64"):
        run.train(recipe(path), tmp_path / "run", nothing)
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_lacks_words_is_refused_before_anything_is_written(tmp_path):
    path = on_disk(tmp_path / "model", model_of())
    with pytest.raises(UserError, match="cannot write"):
        run.train(recipe(path), tmp_path / "run", nothing)
    assert not (tmp_path / "run").exists()
