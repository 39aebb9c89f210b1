"""A run that begins from somebody's PEFT adapter: added in as PEFT adds it, and refused on another base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from conftest import nothing
from export_kit import base_model, budget, generated, greedy, problems, prompts, text_run
from peft import LoraConfig, PeftModel, get_peft_model
from torch_kit import model_of, on_disk
from transformers import AutoModelForCausalLM, AutoTokenizer

import forethought as ft
from forethought.core.errors import RecipeError, UserError
from forethought.engines.torch.models.begun import BIASES, other_base
from forethought.engines.torch.models.loading import from_path
from forethought.exports import export
from forethought.look import find
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict
from forethought.runs import run


def adapter_on(base: str, folder: Path, **fields) -> str:
    """Somebody else's: of another rank than ours, on some layers only, with weights that matter."""
    model = AutoModelForCausalLM.from_pretrained(base)
    wrapped = get_peft_model(model, LoraConfig(r=3, lora_alpha=7, target_modules=["q_proj", "down_proj"]))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if "lora_" in name:
                p.copy_(0.5 * torch.randn(p.shape, generator=generator))
    wrapped.save_pretrained(folder)
    if fields:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | fields))
    return str(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, str, str]:
    """(folder, base, adapter)"""
    folder = tmp_path_factory.mktemp("begun")
    base = base_model(folder / "model", problems(folder / "train.jsonl", 1))
    return folder, base, adapter_on(base, folder / "theirs")


def test_it_is_what_peft_makes_of_the_two(made):
    _, base, adapter = made
    loaded = from_path(base, adapter=adapter)
    ids = torch.tensor([[5, 9, 301, 17, 4]])
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    with torch.no_grad():
        found = loaded.model.set_attn_implementation("eager") or loaded.model(ids).logits
        wanted, bare = (one(ids).logits for one in (theirs, AutoModelForCausalLM.from_pretrained(base)))
    assert torch.allclose(found, wanted, atol=1e-4) and not torch.allclose(found, bare, atol=1e-2)
    assert loaded.moved and loaded.notes == (f"{base} begins with the adapter {adapter} added in",)
    assert not any("lora" in name for name, _ in loaded.model.named_parameters())


VARIANTS = {
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "rank and alpha patterns": {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"q_proj": 1}},
    "a head that was saved whole": {"modules_to_save": ["lm_head"]},
    "biases of its layers": {"bias": "lora_only"},
    "biases of all layers": {"bias": "all"},
    "an embedding": {"target_modules": ["embed_tokens", "v_proj"]},
    "all linear layers": {"target_modules": "all-linear"},
    "one layer": {"layers_to_transform": [1]},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_lora_is_what_peft_makes_of_it(name, tmp_path):
    base = on_disk(tmp_path / "base", model_of("llama", attention_bias=True))
    fields = {"r": 3, "lora_alpha": 7, "target_modules": ["q_proj", "down_proj"]} | VARIANTS[name]
    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**fields))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in (p for p in wrapped.parameters() if p.requires_grad):
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    wrapped.save_pretrained(tmp_path / "theirs")
    version = tuple(int(part) for part in peft.__version__.split(".")[:2])
    if fields.get("bias") == "lora_only" and version < BIASES:
        assert "loses its biases" in refused(base, str(tmp_path / "theirs"))
        return
    loaded, ids = from_path(base, adapter=str(tmp_path / "theirs")), torch.tensor([[5, 9, 30, 17, 4]])
    with torch.no_grad():
        loaded.model.set_attn_implementation("eager")
        found, wanted = loaded.model(ids).logits, wrapped.eval()(ids).logits
        bare = AutoModelForCausalLM.from_pretrained(base)(ids).logits
    assert torch.allclose(found, wanted, atol=1e-4) and not torch.allclose(found, bare, atol=1e-2)


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory) -> Path:
    folder, base, adapter = made
    out = tmp_path_factory.mktemp("trained") / "run"
    return text_run(out, {"path": base, "adapter": adapter})


def test_a_run_begins_from_it_and_its_checkpoints_hold_the_sum(made, trained, tmp_path):
    folder, base, adapter = made
    start = ft.evaluate(trained, step=0)
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload()
    held = ft.open(trained).model("act").model
    assert all(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(merged.parameters(), held.parameters(), strict=True)
    )
    assert start["e2e"]["n"] == 3
    found = export(trained, to=tmp_path / "out")
    assert found.folders == {"plan": ("plan",), "act": ("act",)}  # the base is the run's own now
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "act"), str(tmp_path / "out" / "plan")
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out" / "plan")
    read = prompts(trained, tmp_path / "out" / "plan")
    stops = {"stop_strings": ["</plan>"]}
    said = [generated(model, tokenizer, text, budget(trained, "plan"), **stops) for text in read]
    assert said == greedy(trained, "plan")
    assert f"{base} with the adapter {adapter}" in (tmp_path / "out" / "act" / "README.md").read_text()


def test_a_stopped_run_goes_on_to_the_same_bits(made, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    shutil.rmtree(checkpoints[-1])  # as if it had been killed before its last one
    run.resume(tmp_path / "run", nothing)
    ends = [sorted((out / "checkpoints").iterdir())[-1] / "engine" for out in (trained, tmp_path / "run")]
    for file in ("base/model.safetensors", "adapters/plan/adapter_model.safetensors"):
        assert (ends[0] / file).read_bytes() == (ends[1] / file).read_bytes()


# What does not fit ------------------------------------------------------------------------------------------


def refused(base: str, adapter: str) -> str:
    with pytest.raises(UserError) as caught:
        from_path(base, adapter=adapter)
    return str(caught.value)


def test_an_adapter_of_another_base_is_refused(made, tmp_path):
    folder, base, adapter = made
    other = str(tmp_path / "other")
    shutil.copytree(base, other)
    assert from_path(other, adapter=adapter).moved  # a copy of the base is the base
    model_of("llama", vocab_size=model_size(base), max_position_embeddings=1024, seed=1).save_pretrained(
        other
    )
    said = refused(other, adapter)
    assert said.startswith(
        f"model.adapter: {adapter} was trained on {base}, and this run begins from {other}; give"
    )
    named = adapter_on(base, tmp_path / "hub", base_model_name_or_path="somebody/else")
    assert "was trained on somebody/else, and this run begins from" in refused(base, named)


def model_size(base: str) -> int:
    return json.loads((Path(base) / "config.json").read_text())["vocab_size"]


@pytest.mark.parametrize(
    ("named", "base", "same"),
    [
        ("org/model", "org/model", True),
        ("", "org/model", True),  # it does not say
        ("org/model", "/copies/model", True),  # as far as names tell
        ("org/model", "org/model-instruct", False),
        ("/gone/model", "org/other", False),
    ],
)
def test_names_of_bases(named, base, same):
    assert (other_base(named, base) == "") is same


def test_folders_whose_weights_differ_only_in_the_middle_are_two_bases(tmp_path):
    for name, middle in (("one", b"1"), ("copy", b"1"), ("other", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(bytes(1 << 20) + middle + bytes(1 << 20))
    assert other_base(str(tmp_path / "one"), str(tmp_path / "copy")) == ""
    assert "was trained on" in other_base(str(tmp_path / "one"), str(tmp_path / "other"))


def test_what_is_no_adapter_is_named(made, tmp_path):
    folder, base, adapter = made
    (tmp_path / "empty").mkdir()
    assert "has no adapter_config.json" in refused(base, str(tmp_path / "empty"))
    shutil.copytree(adapter, tmp_path / "pickle")
    (tmp_path / "pickle" / "adapter_model.safetensors").rename(tmp_path / "pickle" / "adapter_model.bin")
    assert "adapters are read from safetensors files only" in refused(base, str(tmp_path / "pickle"))
    shutil.copytree(adapter, tmp_path / "torn")
    file = tmp_path / "torn" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    assert f"does not fit {base}" in refused(base, str(tmp_path / "torn"))
    shutil.copytree(adapter, tmp_path / "json")
    (tmp_path / "json" / "adapter_config.json").write_text("{")
    assert "cannot be read" in refused(base, str(tmp_path / "json"))
    wide = model_of("llama", vocab_size=model_size(base), hidden_size=64, max_position_embeddings=1024)
    wide.save_pretrained(tmp_path / "wide")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "wide")
    other = adapter_on(base, tmp_path / "narrow", base_model_name_or_path=str(tmp_path / "wide"))
    assert "does not fit" in refused(str(tmp_path / "wide"), other)
    assert "give that model as model.path and this folder as model.adapter" in plain_refusal(adapter)


def plain_refusal(path: str) -> str:
    (Path(path) / "config.json").write_text("{}")
    try:
        with pytest.raises(UserError) as caught:
            from_path(path)
        return str(caught.value)
    finally:
        (Path(path) / "config.json").unlink()


def test_an_adapter_without_a_model_is_a_mistake_of_the_recipe(tmp_path, made):
    stage = {"kind": "imitate", "until": {"steps": 1}}
    with pytest.raises(RecipeError, match="model.adapter: an adapter lies on a model: give model.path"):
        check(from_dict({"model": {"adapter": "x"}, "stage": [stage]}))


def test_its_path_is_relative_to_the_recipe(made, tmp_path):
    folder, base, adapter = made
    (folder / "recipe.toml").write_text(
        'model = { path = "model", adapter = "theirs" }\n[[stage]]\nkind = "imitate"\n'
    )
    from forethought.recipe.load import load

    recipe = load(folder / "recipe.toml")
    assert (recipe.model.path, recipe.model.adapter) == (base, adapter)
    assert find(Path(base), "desk").recipe.model.adapter == ""
