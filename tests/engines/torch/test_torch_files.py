"""What a checkpoint writes opens without this library: the same logits from `transformers` and `peft`
alone."""

from __future__ import annotations

import errno
import json
import resource
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch_kit import SIZE, WORDS, engine_of, forest, model_of, on_disk, same, snapshot, stir
from transformers import GenerationConfig

from forethought.core.types import Batch, Objective
from forethought.engines.torch.models import small
from forethought.engines.torch.models.loading import from_path
from forethought.engines.torch.models.small import small_model, tokenizer_of
from forethought.engines.torch.policies import files
from forethought.engines.torch.policies.files import write_tensors
from forethought.engines.torch.policies.optim import first_not_finite
from forethought.learn.losses import term
from forethought.recipe.schema import ModelSpec, OptimSpec

IDS = [3, 9, 4, 17, 5, 28]

READER = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from peft import PeftModel
torch.set_num_threads(1)
for case in json.loads(sys.argv[1]):
    folder = Path(case["folder"])
    model = AutoModelForCausalLM.from_pretrained(case["base"])
    wanted = load_file(folder / "wanted.safetensors")
    ids = wanted.pop("ids")
    for name, logits in wanted.items():
        spoken = model
        if name == "whole":
            spoken = AutoModelForCausalLM.from_pretrained(folder / "models" / name)
            tokenizer = AutoTokenizer.from_pretrained(folder / "models" / name)
            assert tokenizer("w0 w6", add_special_tokens=False).input_ids == ids[0, :2].tolist()
        elif name != "base":
            spoken = PeftModel.from_pretrained(model, folder / "adapters" / name)
        with torch.no_grad():
            error = (spoken.eval()(input_ids=ids).logits - logits).abs().max().item()
        assert error < 1e-5, (case, name, error)
        if name not in ("base", "whole"):
            model = spoken.unload()
    held = "base" if (folder / "base").exists() else "tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(folder / held)
    said = tokenizer("w0 w6 w1", add_special_tokens=False).input_ids
    assert said == ids[0, :3].tolist(), said
    assert tokenizer.eos_token == "<eos>"
assert not [m for m in sys.modules if m.startswith("forethought")]
print("opened")
"""


def trained(engine, policy: str) -> None:
    engine.prepare(policy, OptimSpec(lr=0.02, warmup=0))
    fields = {"stream": "sft", "weight": lambda rng, n: (1.0,) * n, "role": "plan"}
    engine.forward_backward(
        Batch(policy=policy, segments=tuple(forest(1, **fields))), Objective((term("sft", 20.0),))
    )
    engine.optim_step(policy)
    engine.publish(policy)


def wanted(engine, folder) -> None:
    """The engine's own logits of every policy, beside what it saved."""
    from forethought.core.types import Segment
    from forethought.engines.torch.forest.attention import Forest, using
    from forethought.engines.torch.forest.heads import logits_of
    from forethought.engines.torch.forest.packing import pack

    out = {"ids": torch.tensor([IDS])}
    for name in engine.policies():
        model = engine.weights.model(name)
        packed = pack([Segment(parent=-1, token_ids=tuple(IDS))])
        with torch.no_grad(), using(Forest(packed.layout)):
            hidden = model.base_model(
                input_ids=packed.ids_N[None], position_ids=packed.positions_N[None], use_cache=False
            )
            out[name] = logits_of(model)(hidden.last_hidden_state)
    save_file(out, folder / "wanted.safetensors")


def test_a_checkpoint_opens_in_a_process_that_never_heard_of_this_library(tmp_path):
    cases = []
    for kind, fields in [
        ("small", {}),
        ("qwen3", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("gpt2", {"tie_word_embeddings": True}),
        ("granite", {}),
        ("mixtral", {}),
        ("qwen3_moe", {}),
    ]:
        model = (
            small_model(ModelSpec(layers=2, width=32, mlp=48), SIZE, 64, 0)
            if kind == "small"
            else model_of(kind, **fields)
        )
        engine = engine_of(model)
        trained(engine, "base")
        for name in ("plan", "act"):
            engine.fork("base", name)
            stir(engine, name, seed=len(name))
        trained(engine, "plan")
        engine.fork("base", "whole", "model")
        trained(engine, "whole")
        folder = tmp_path / kind
        engine.save(folder)
        wanted(engine, folder)
        cases.append({"folder": str(folder), "base": str(folder / "base")})
        assert json.loads((folder / "base/config.json").read_text())["architectures"] == [
            type(engine.weights.base).__name__
        ]
    source = on_disk(tmp_path / "source", model_of("llama", 5).to(torch.bfloat16))
    for kind in ("adapter on what was loaded", "base that moved"):  # a bf16 file, trained in fp32
        loaded = from_path(source)
        engine = engine_of(loaded.model, loaded.tokenizer)
        engine.source = loaded.source
        if kind == "base that moved":
            trained(engine, "base")
        engine.fork("base", "plan")
        stir(engine, "plan")
        engine.fork("base", "whole", "model")
        stir(engine, "whole")
        folder = tmp_path / kind
        engine.save(folder)
        wanted(engine, folder)
        moved = (folder / "base/model.safetensors").exists()
        assert moved == (kind == "base that moved")
        named = json.loads((folder / "adapters/plan/adapter_config.json").read_text())[
            "base_model_name_or_path"
        ]
        assert named == ("../../base" if moved else source)
        if moved:
            cases.append({"folder": str(folder), "base": str(folder / "base")})
            assert json.loads((folder / "base/config.json").read_text())["dtype"] == "float32"
        else:  # opened in fp32, as it was run
            model_of("llama", 5).to(torch.bfloat16).float().save_pretrained(tmp_path / "in fp32")
            cases.append({"folder": str(folder), "base": str(tmp_path / "in fp32")})
    done = subprocess.run(
        [sys.executable, "-c", READER, json.dumps(cases)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stdout.strip() == "opened", done.stderr[-3000:]


def test_a_tied_weight_stands_in_the_file_once_and_experts_stand_there_as_on_the_hub(tmp_path):
    for kind, tied in [("llama", True), ("llama", False), ("mixtral", False)]:
        engine = engine_of(model_of(kind, tie_word_embeddings=tied))
        engine.fork("base", "plan")
        engine.fork("base", "ref", "frozen")
        engine.save(tmp_path / f"{kind}{tied}")
        model_of(kind, tie_word_embeddings=tied).save_pretrained(tmp_path / "hub")
        base = load_file(tmp_path / f"{kind}{tied}/base/model.safetensors")
        hub = load_file(tmp_path / "hub/model.safetensors")
        assert {k: tuple(v.shape) for k, v in base.items()} == {k: tuple(v.shape) for k, v in hub.items()}
        assert all(torch.equal(base[k], hub[k]) for k in hub)
        assert ("lm_head.weight" in base) != tied
        assert ("lm_head.weight" in load_file(tmp_path / f"{kind}{tied}/copies/ref.safetensors")) != tied


def test_nothing_in_a_checkpoint_is_a_pickle_and_adapters_hold_their_own_tensors_alone(tmp_path):
    engine = engine_of()
    engine.fork("base", "plan")
    trained(engine, "plan")
    engine.save(tmp_path / "a")
    names = {p.suffix for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert names <= {".json", ".safetensors", ".jinja", ".md"}
    state = load_file(tmp_path / "a/adapters/plan/adapter_model.safetensors")
    assert len(state) == 28 and all(".lora_A.weight" in k or ".lora_B.weight" in k for k in state)
    with safe_open(tmp_path / "a/base/model.safetensors", "pt") as f:
        assert f.metadata() == {"format": "pt"}  # `transformers` refuses files without it


def test_a_generation_config_that_the_hub_has_and_transformers_would_not_save_is_kept(tmp_path):
    model = model_of()
    model.generation_config = GenerationConfig(
        do_sample=False, temperature=0.9, top_p=0.6, eos_token_id=[1, 4]
    )
    with pytest.raises(ValueError, match="temperature"):
        model.generation_config.save_pretrained(tmp_path)
    engine_of(model).save(tmp_path / "a")
    assert GenerationConfig.from_pretrained(tmp_path / "a/base").eos_token_id == [1, 4]


def test_a_full_disk_is_an_os_error_with_its_number(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise files.SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError, match="cannot write tensors") as e:
        write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)})
    assert e.value.errno == 28 and e.value.filename == str(tmp_path / "x.safetensors")


def test_a_write_that_the_system_refuses_is_one_too(tmp_path):
    """For real: no file of this process may grow beyond 4 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="cannot write tensors") as e:
            write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1 << 16)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert e.value.errno == errno.EFBIG


def test_a_small_model_is_opened_by_its_own_library_too(tmp_path):
    """As `--model` takes it: the words of the recipe, one token each."""
    engine = engine_of(small_model(ModelSpec(layers=2, width=32, mlp=48), SIZE, 64, 0))
    engine.save(tmp_path / "a")
    loaded = from_path(str(tmp_path / "a/base"))
    again = engine_of(loaded.model, loaded.tokenizer)
    again.check_words(WORDS, ["w1"])
    assert again.encode("w0 w6 w1") == tuple(IDS[:3]) and again.context == 64
    batch = Batch(policy="base", segments=tuple(forest(1, stream="sft")))
    assert again.logprobs(batch) == engine.logprobs(batch)


def test_the_name_of_a_small_model_changes_no_number(monkeypatch):
    """It is drawn as a Qwen2 and runs as a Llama, so that its tokenizer opens anywhere: the same bits,
    trained ones too."""
    results = []
    for dress in (small._as_llama, lambda model: model):
        monkeypatch.setattr(small, "_as_llama", dress)
        engine = engine_of(small_model(ModelSpec(layers=2, width=32, mlp=48), SIZE, 64, 0))
        for _ in range(2):
            trained(engine, "base")
        results.append((type(engine.weights.base).__name__, snapshot(engine, "base")))
    assert [name for name, _ in results] == ["LlamaForCausalLM", "Qwen2ForCausalLM"]
    assert same(results[0][1], results[1][1])


def test_the_tokenizer_of_the_kit_is_that_of_small_models():
    assert tokenizer_of(WORDS).encode("w0 w6 w1") == IDS[:3]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_engine_says_whose_weights_are_not_finite(value):
    """An adapter, a model of its own and the base, each for itself; frozen copies do not train and are not
    asked."""
    engine = engine_of()
    engine.fork("base", "plan", "adapter")
    engine.fork("base", "act", "model")
    engine.fork("base", "kept", "frozen")
    for name in ("base", "plan", "act"):
        engine.prepare(name, OptimSpec())
    assert engine.finite() == ""
    for name in ("plan", "act", "base"):
        with torch.no_grad():
            parameter = next(iter(engine.weights.parameters(name).values()))
            before = parameter.clone()
            parameter.view(-1)[-1] = value
        assert engine.finite().endswith(f"of policy {name!r}")
        with torch.no_grad():
            parameter.copy_(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_numbers_are_finite(dtype):
    """A sum would overflow where no number does."""
    assert first_not_finite({"w": torch.full((64,), torch.finfo(dtype).max, dtype=dtype)}) == ""
    assert first_not_finite({"w": torch.tensor([1.0, float("nan")], dtype=dtype)}) == "w"
