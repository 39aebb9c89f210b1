"""Adapters stand on the base that they were trained on: a checkpoint knows it, and another one at its path is
refused with both named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_torch_loading import edit
from test_torch_policies import batch, learn
from torch_kit import WORDS, engine_of, model_of, on_disk, same, snapshot, stir

from forethought.core.errors import CheckpointError
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.models.fingerprint import config_digest, fingerprint
from forethought.engines.torch.models.loading import from_path
from forethought.engines.torch.models.small import tokenizer_of
from forethought.recipe.schema import AdapterSpec, EngineSpec


def engine_at(path: Path, weights: str = "auto", **spec) -> TorchEngine:
    return TorchEngine(
        from_path(str(path), weights=weights),
        EngineSpec(device="cpu", precision="fp32", threads=1),
        AdapterSpec(rank=2, **spec),
    )


@pytest.fixture
def saved(tmp_path) -> tuple[Path, Path, TorchEngine]:
    """(a model's path, a checkpoint of an adapter on it, the engine)"""
    on_disk(tmp_path / "model", model_of())
    engine = engine_at(tmp_path / "model")
    engine.fork("base", "plan")
    stir(engine, "plan")
    (tmp_path / "saved").mkdir()
    engine.save(tmp_path / "saved")
    return tmp_path / "model", tmp_path / "saved", engine


def change(path: Path, name: str) -> None:
    """Another model in place of the one at `path`."""
    weights, state = (
        path / "model.safetensors",
        {k: p.clone() for k, p in load_file(path / "model.safetensors").items()},
    )
    if name == "other weights":
        on_disk(path, model_of(seed=3))
    elif name == "other rows, tied":
        shutil.rmtree(path)
        on_disk(path, model_of(vocab_size=40, tie_word_embeddings=True))
    elif name == "one number":
        state["model.layers.1.mlp.up_proj.weight"][7, 5] += 1e-3
        save_file(state, weights, metadata={"format": "pt"})
    elif name == "two rows changed about":
        state["model.embed_tokens.weight"][[4, 5]] = state["model.embed_tokens.weight"][[5, 4]]
        save_file(state, weights, metadata={"format": "pt"})
    elif name == "other positions":
        edit(path / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 777.0})
    elif name == "other norms":
        edit(path / "config.json", rms_norm_eps=1e-3)
    elif name == "other words":
        tokenizer_of([*reversed(WORDS)]).save_pretrained(path)


@pytest.mark.parametrize(
    "name",
    [
        "other weights",
        "other rows, tied",
        "one number",
        "two rows changed about",
        "other positions",
        "other norms",
    ],
)
def test_another_base_is_refused_with_both_named(name, saved):
    path, checkpoint, _ = saved
    change(path, name)
    engine = engine_at(path)
    with pytest.raises(CheckpointError) as e:
        engine.load(checkpoint)
    text = str(e.value)
    assert str(path) in text and str(checkpoint) in text and "another base" in text and e.value.exit_code == 2
    assert (
        text.count("llama, ") == 2
        and engine.fingerprint.weights in text
        and json.loads((checkpoint / "engine.json").read_text())["base"]["weights"] in text
    )


def test_other_words_are_refused(saved):
    path, checkpoint, _ = saved
    change(path, "other words")
    with pytest.raises(CheckpointError, match="was saved with another tokenizer than"):
        engine_at(path).load(checkpoint)


@pytest.mark.parametrize("how", ["again", "moved", "sharded", "by a new version"])
def test_the_same_base_is_taken(how, saved, tmp_path):
    path, checkpoint, engine = saved
    if how == "moved":
        path = path.rename(tmp_path / "elsewhere")
    elif how == "sharded":
        from_path(str(path)).model.save_pretrained(path, max_shard_size="10kB")
    elif how == "by a new version":
        edit(path / "config.json", transformers_version="5.99", architectures=["Other"], use_cache=False)
    again = engine_at(path)
    again.load(checkpoint)
    assert same(snapshot(engine, "plan"), snapshot(again, "plan"))
    assert again.logprobs(batch("plan")) == engine.logprobs(batch("plan"))


def test_a_model_that_is_loaded_does_not_follow_its_file(tmp_path):
    """Of some versions of safetensors, weights are the file's own bytes."""
    on_disk(tmp_path / "model", model_of())
    engine = engine_at(tmp_path / "model")
    before = {k: v.clone() for k, v in snapshot(engine, "base").items()}
    change(tmp_path / "model", "other weights")
    assert same(before, snapshot(engine, "base"))


def test_a_base_that_moved_is_saved_and_its_path_gives_the_form_alone(tmp_path):
    on_disk(tmp_path / "model", model_of())
    engine = engine_at(tmp_path / "model")
    learn(engine, "base", steps=1)
    (tmp_path / "saved").mkdir()
    engine.save(tmp_path / "saved")
    change(tmp_path / "model", "other weights")
    again = engine_at(tmp_path / "model")
    again.load(tmp_path / "saved")
    assert same(snapshot(engine, "base"), snapshot(again, "base"))
    change(tmp_path / "model", "other norms")
    with pytest.raises(CheckpointError, match="another base"):
        engine_at(tmp_path / "model").load(tmp_path / "saved")


def test_a_checkpoint_from_before_is_taken(saved):
    path, checkpoint, _ = saved
    meta = json.loads((checkpoint / "engine.json").read_text())
    del meta["base"]
    (checkpoint / "engine.json").write_text(json.dumps(meta))
    engine_at(path).load(checkpoint)


def test_a_fingerprint_is_that_of_the_numbers_and_not_of_their_type():
    model = model_of().to(torch.bfloat16)
    half = fingerprint(model, "")
    assert half == fingerprint(model.float(), "") and half != fingerprint(model_of(seed=1), "")
    assert (
        config_digest({"a": 1, "b": [2]})
        == config_digest({"b": [2], "a": 1, "dtype": "x"})
        != config_digest({"a": 1, "b": [3]})
    )


def test_a_fingerprint_sees_two_numbers_that_changed_places():
    model = model_of()
    before = fingerprint(model, "")
    weight = next(p for p in model.parameters() if p.ndim == 2 and p.numel() > 300).data.flatten()
    weight[[70, 71]] = weight[[71, 70]]
    after = fingerprint(model, "")
    assert after.weights != before.weights
    assert after.first_form == before.first_form, "the form before this one did not see it"


def test_weights_in_a_checkpoint_of_the_first_form_are_compared_in_it():
    before, other = fingerprint(model_of(), ""), fingerprint(model_of(seed=1), "")
    saved = {"config": "", "weights": before.first_form, "told": "gpt2"}
    assert before.differs(saved, weights=True) == ""
    assert other.first_form in other.differs(saved, weights=True)


# Weights that are tied --------------------------------------------------------------------------------------
# Decided: an adapter on a tied head trains and works as an adapter (it adds to the head alone, in our engine
# and in PEFT), so it is not refused; merged by anybody it would be added to the embeddings too, so that is
# said in a note and refused where we would merge it.


@pytest.mark.parametrize(
    ("targets", "tied", "said"),
    [
        (("lm_head", "q_proj"), True, "lm_head"),
        (("model.embed_tokens",), True, "model.embed_tokens"),
        (("q_proj",), True, ""),
        (("lm_head", "q_proj"), False, ""),
    ],
)
def test_an_adapter_on_a_tied_head_is_said(targets, tied, said, tmp_path):
    on_disk(tmp_path, model_of(tie_word_embeddings=tied))
    notes = engine_at(tmp_path, targets=targets).notes
    assert [said in note and "cannot be merged" in note for note in notes] == ([True] if said else [])


def test_what_has_no_source_has_no_notes():
    assert engine_of(model_of(vocab_size=64, tie_word_embeddings=True), targets=("lm_head",)).notes == []


def test_ids_without_a_token_are_said(tmp_path):
    on_disk(tmp_path, model_of(vocab_size=48))
    (note,) = engine_at(tmp_path).notes
    assert f"16 of the 48 ids of {tmp_path} have no token" in note


def test_an_end_token_that_the_model_lacks_is_said_and_left_aside(tmp_path):
    model = model_of()
    model.generation_config.eos_token_id = [1, 99999]
    on_disk(tmp_path, model)
    engine = engine_at(tmp_path)
    [note] = [note for note in engine.notes if "end token" in note]
    assert f"generation_config.json of {tmp_path} names the end token 99999, which is no id of" in note
    assert engine.ends == {1}
