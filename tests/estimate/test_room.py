"""A model that memory cannot hold is refused before a weight of it is read, with what fits."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

from forethought import cli
from forethought.core.errors import RecipeError
from forethought.estimate import room
from forethought.estimate.hardware import GIB, cpu
from forethought.estimate.room import Counted, check_room, counted, free_memory, needs
from forethought.recipe.convert import from_dict
from forethought.recipe.schema import ModelSpec, Recipe

SHAPE = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
}
EIGHT = 8_030_261_248  # weights of Llama 3.1 8B


def recipe_of(path: object, layout: str = "shared", **engine) -> Recipe:
    tables = {
        "name": "x",
        "layout": layout,
        "task": {"name": "desk"},
        "model": {"path": str(path)},
        "engine": {"device": "cpu"} | engine,
        "stage": [{"kind": "imitate"}, {"kind": "reinforce", "roles": ["plan"]}],
    }
    return from_dict(tables)


@pytest.fixture
def large(tmp_path) -> Path:
    """The configuration of Llama 3.1 8B; there are no weights beside it."""
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    return tmp_path


def test_weights_are_counted_from_the_configuration(large):
    found = counted(ModelSpec(path=str(large)))
    assert found.weights == EIGHT and found.ends == 2 * 128256 * 4096
    assert found.rank == 32 * (3 * (4096 + 14336) + 2 * (4096 + 4096) + 2 * (4096 + 1024))


def test_weights_of_a_kind_without_estimates_are_counted_from_headers(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gemma3_text"}')
    tensors = {"model.embed_tokens.weight": [100, 8], "model.layers.0.q_proj.weight": [6, 8], "n.weight": [8]}
    header = json.dumps({k: {"dtype": "F32", "shape": s, "data_offsets": [0, 1]} for k, s in tensors.items()})
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    assert counted(ModelSpec(path=str(tmp_path))) == Counted(856, 800, 14)
    for damage in (
        b"",
        struct.pack("<Q", 1 << 60),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b"{",
    ):
        (tmp_path / "model.safetensors").write_bytes(damage)
        assert counted(ModelSpec(path=str(tmp_path))) is None  # loading says what is wrong
    assert counted(ModelSpec(path="nobody/knows-this-one")) is None


def test_a_configuration_that_its_files_do_not_hold_is_left_to_loading(large):
    """The key is what is wrong then, not the memory."""
    assert counted(ModelSpec(path=str(large))).weights == EIGHT
    header = json.dumps({"n": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}})
    (large / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode())
    check_room(recipe_of(large), free=GIB)
    (large / "config.json").write_text(json.dumps(SHAPE | {"num_hidden_layers": 10**6}))
    check_room(recipe_of(large), free=GIB)


def test_what_lies_in_memory_by_layout():
    model, hardware = Counted(1000, 100, 7), cpu()
    whole = needs(recipe_of("x"), model, hardware)
    assert whole == {"weights": 4000, "optimizer": 8000, "gradients": 4000}
    lora = needs(recipe_of("x", "adapter"), model, hardware)
    n = 16 * 7
    assert lora == {
        "weights": 4000,
        "optimizer": 8 * n,
        "gradients": 4 * n,
        "adapters": 4 * n,
        "copies that sample": 4000,
    }
    both = needs(recipe_of("x", "adapters"), model, hardware)
    assert both["adapters"] == 8 * n and both["copies that sample"] == 8000
    packed = needs(recipe_of("x", "adapter", weights="nf4"), model, hardware)
    assert packed["weights"] == pytest.approx(0.53 * 900 + 400) and "copies that sample" not in packed
    assert needs(recipe_of("x"), model, hardware, trains=False) == {"weights": 4000}


@pytest.mark.parametrize(
    ("free", "fits"),
    [
        (100, r"--set layout=adapter takes at least 3\d.\d GiB"),
        (30, r"--set layout=adapter --set engine.weights=bf16 takes at least 15.\d GiB"),
        (12, r"--set layout=adapter --set engine.weights=nf4 takes at least 8.\d GiB"),
        (4, "no layout fits: take a smaller model, or a machine with more memory"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_what_does(large, free, fits):
    with pytest.raises(RecipeError) as error:
        check_room(recipe_of(large), free=free * GIB)
    said = str(error.value)
    assert re.search(f"^model.path: {large} has 8,030,261,248 weights; this takes at least 119.7 GiB", said)
    assert f"and {free}.0 GiB are free; " in said and re.search(fits, said) and "\n" not in said
    check_room(recipe_of(large), free=200 * GIB)
    check_room(recipe_of(large), free=0)  # nobody can say


def test_the_command_says_so_before_it_loads(large, monkeypatch, capsys, tmp_path):
    """A folder without weights would be refused otherwise, were it opened."""
    monkeypatch.setattr(room, "free_memory", lambda: 20 * GIB)
    out = str(tmp_path / "run")
    assert cli.main(["train", "desk", "--model", str(large), "--out", out]) == 2
    said = capsys.readouterr().err
    assert "8,030,261,248 weights" in said and "engine.weights=bf16" in said
    assert cli.main(["sample", str(large), "--task", "desk"]) == 2
    assert "weights 29.9" in capsys.readouterr().err


def test_memory_that_is_free(tmp_path):
    assert free_memory(tmp_path, tmp_path) == 0
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:     64 kB\n")
    assert free_memory(tmp_path, tmp_path) == 65536
    for limit, wanted in (("max", 65536), ("1000", 1000), ("9999999999", 65536)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert free_memory(tmp_path, tmp_path) == wanted


@pytest.mark.parametrize(
    ("current", "stat", "wanted"),
    [
        ("700", "anon 500\nfile 200\nactive_file 150\ninactive_file 50\nslab 3\n", 1000 - 500),
        ("700", "anon 700\n", 300),
        ("1100", "active_file 0\ninactive_file 20\n", 0),
        ("100", "active_file 90\ninactive_file 90\n", 1000),
        ("?", "", 1000),
    ],
)
def test_memory_that_a_container_has_left(tmp_path, current, stat, wanted):
    """What it holds is not free, but for copies of files, which it lets go."""
    (tmp_path / "meminfo").write_text("MemAvailable:     64 kB\n")
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text(f"{current}\n")
    (tmp_path / "memory.stat").write_text(stat)
    assert free_memory(tmp_path, tmp_path) == wanted
