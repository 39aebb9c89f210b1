"""What a recipe will take: parameters and KV bytes of real models exactly, tokens, operations and memory of a
small one by hand."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace

import pytest

from forethought import cli
from forethought.core.errors import UserError
from forethought.estimate import HARDWARE, Assumptions, estimate, lines
from forethought.estimate.account import computes_head_again, forward_flops, training_flops
from forethought.estimate.hardware import Hardware, this_machine
from forethought.estimate.memory import CHUNK_LOGITS, GPU_CHUNKS, Numbers, activations
from forethought.estimate.shapes import KNOWN, Shape, from_config, shape_of
from forethought.estimate.show import count, duration
from forethought.estimate.tokens import evaluation_work, lengths_of, work_of
from forethought.recipe.convert import from_dict
from forethought.recipe.load import load

TINY = Shape(layers=2, width=8, heads=2, kv_heads=1, head=4, mlp=16, vocabulary=100, tied=True)
BOX = Hardware(name="box", memory=1e9, flops=1e12, bandwidth=1e11)
EXACT = Assumptions(prompt=10, used=0.5, mfu=0.5, read=0.5, layer_ms=1.0, step_ms=0.5)

# Shapes -----------------------------------------------------------------------------------------------------


def test_a_shape_by_hand():
    """A layer: q 8 x 8, k and v 8 x 4, o 8 x 8, three matrices of 8 x 16, two norms of 8."""
    layer = 64 + 32 + 32 + 64 + 3 * 128 + 16
    assert TINY.layer == layer == 592
    assert TINY.parameters == 2 * layer + 100 * 8 + 8 == 1992
    assert replace(TINY, tied=False).parameters == 1992 + 800
    assert replace(TINY, qkv_bias=True).parameters == 1992 + 2 * (8 + 4 + 4)
    assert TINY.multiplied == 2 * (layer - 16) + 800
    assert TINY.kv_bytes() == 2 * 2 * 1 * 4 * 2 == 32 and TINY.kv_bytes(4) == 64
    assert TINY.adapter(3) == 2 * 3 * ((8 + 8) + 2 * (8 + 4) + (8 + 8) + 3 * (8 + 16)) == 768
    assert TINY.adapter(3, ("q_proj", "down_proj")) == 2 * 3 * (16 + 24)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
        ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
        ("Qwen/Qwen2.5-7B-Instruct", 7_615_616_512),
        ("Qwen/Qwen3-0.6B-Base", 596_049_920),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen3-14B", 14_768_307_200),
        ("meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400),
        ("meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
    ],
)
def test_known_models_have_the_parameters_that_their_weights_have(name, parameters, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert shape_of(name).parameters == parameters


def test_the_kv_cache_of_qwen25_7b():
    """28 layers x (keys and values) x 4 heads x 128 numbers x 2 bytes."""
    assert KNOWN["qwen2.5-7b"].kv_bytes() == 57_344


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen2", {"tie_word_embeddings": False}),
        ("qwen3", {"head_dim": 16}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("mistral", {"sliding_window": None}),
    ],
)
def test_parameters_and_cache_are_counted_as_transformers_builds_them(kind, fields, tmp_path):
    torch = pytest.importorskip("torch")
    from torch_kit import model_of

    model = model_of(kind, **fields)
    model.config.save_pretrained(tmp_path)
    shape = shape_of(str(tmp_path))
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    cache = model(torch.tensor([[1, 2, 3, 4, 5]]), use_cache=True).past_key_values
    held = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    assert held == 5 * shape.kv_bytes(each=4)


@pytest.mark.parametrize(
    ("kind", "fields", "context"),
    [
        ("llama", {}, 96),
        ("qwen2", {"sliding_window": 16}, 96),
        ("qwen2", {"sliding_window": 16, "use_sliding_window": True}, 96),
        ("qwen3", {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 1}, 16),
        ("mistral", {"sliding_window": None}, 96),
        ("mistral", {"sliding_window": 16}, 16),
        ("mistral", {"sliding_window": 4096}, 96),
        ("llama", {"layer_types": ["chunked_attention", "full_attention"], "attention_chunk_size": 32}, 32),
        (
            "llama",
            {
                "layer_types": ["full_attention", "full_attention"],
                "attention_chunk_size": 32,
                "sliding_window": 16,
            },
            96,
        ),
    ],
)
def test_the_context_is_as_long_as_attention_is_full(kind, fields, context):
    """96 positions, 2 layers. Qwen2 and Qwen3 slide only if told to, and only in layers from
    `max_window_layers` (28) on."""
    sizes = {
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 16,
        "vocab_size": 100,
        "max_position_embeddings": 96,
    }
    assert from_config({"model_type": kind, **sizes, **fields}).context == context
    pytest.importorskip("torch")
    from transformers import AutoConfig

    from forethought.engines.torch.models.architecture import context_of

    assert context_of(AutoConfig.for_model(kind, **sizes, **fields)) == context  # what the engine takes


def test_a_window_that_the_file_leaves_out():
    sizes = {
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 16,
        "vocab_size": 100,
    }
    assert from_config({"model_type": "mistral", **sizes, "max_position_embeddings": 32768}).context == 4096
    assert from_config({"model_type": "llama", **sizes}).context == 0


@pytest.mark.parametrize("targets", [(), ("q_proj", "down_proj")])
def test_an_adapter_is_counted_as_peft_builds_it(targets):
    pytest.importorskip("torch")
    from torch_kit import engine_of, model_of

    engine = engine_of(model_of("qwen3", head_dim=16), rank=3, targets=targets)
    shape = from_config(engine.config.to_dict())
    engine.fork("base", "plan")
    assert shape.adapter(3, targets) == sum(p.numel() for p in engine.weights.parameters("plan").values())


def test_a_downloaded_model_is_read_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--some--thing" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    config = {
        "model_type": "llama",
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "intermediate_size": 16,
        "vocab_size": 100,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    assert shape_of("some/thing") == TINY
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "hidden_size"}))
    with pytest.raises(UserError, match="config.json: says nothing of 'hidden_size'"):
        shape_of("some/thing")
    for damaged in (
        [],
        config | {"hidden_size": "wide"},
        config | {"num_attention_heads": 0},
        config | {"head_dim": -1},
        config | {"max_position_embeddings": "long"},
        config | {"sliding_window": -1},
    ):
        (folder / "config.json").write_text(json.dumps(damaged))
        with pytest.raises(UserError, match="config.json: cannot be read as a model's configuration"):
            shape_of(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as a model's configuration"):
        shape_of("some/thing")
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    with pytest.raises(UserError, match="a model of kind 'mamba' is not estimated; known are qwen2"):
        shape_of("some/thing")
    with pytest.raises(
        UserError,
        match="the shape of other/thing is not known before it is downloaded .*qwen3-8b.*put its config.json",
    ):
        shape_of("other/thing")
    with pytest.raises(UserError, match="is not a model: it has no config.json"):
        shape_of(str(tmp_path))


# Tokens -----------------------------------------------------------------------------------------------------


def recipe_of(folder=None, **stage):
    """2 tasks a step, 4 plans x 3 acts of at most 20 and 40 tokens, 5 steps."""
    table = {"kind": "reinforce", "until": {"steps": 5}, "batch": 2, "tree": {"plan": 4, "act": 3}} | stage
    return from_dict(
        {
            "name": "made",
            "layout": "shared",
            "model": {"path": str(folder)},
            "eval": {"tasks": 7, "every": 2},
            "probes": {"kl_start": False},
            "engine": {"precision": "bf16", "pack_tokens": 50, "sample_rows": 8},
            "task": {
                "name": "math",
                "train": "t.jsonl",
                "eval": ["e.jsonl"],
                "budgets": {"plan": 20, "act": 40},
            },
            "stage": [table],
        }
    )


def rows(work) -> dict[str, int]:
    """Sequences that each role decodes."""
    return {role: wave.rows for role, wave in work.waves.items()}


def test_a_step_of_reinforcement_by_hand():
    """Plans: 4 x 20. Acts: 12 x 40. Half of it is used. Prompts are read for the plans, and once more with
    the plans for the acts."""
    recipe = recipe_of()
    work = work_of(recipe.stage[0], recipe, lengths_of(recipe, EXACT), EXACT)
    assert (work.steps, rows(work)) == (5, {"plan": 8, "act": 24})
    assert work.sampled_most == 2 * (80 + 480) and work.sampled == work.sampled_most / 2
    assert work.prefilled == 2 * (10 + 10 + 4 * 10)
    assert work.trained == 2 * (10 + 280) and work.trained_most == 2 * (10 + 560)


def test_updates_oracle_plans_and_budgets_of_the_stage():
    twice = recipe_of(updates=2)
    assert work_of(twice.stage[0], twice, lengths_of(twice, EXACT), EXACT).trained == 2 * 2 * (10 + 280)
    oracle = recipe_of(roles=["act"], tree={"oracle": ["plan"], "act": 3, "tokens": {"act": 30}})
    work = work_of(oracle.stage[0], oracle, lengths_of(oracle, EXACT), EXACT)
    assert (rows(work), work.sampled_most) == ({"act": 6}, 2 * 3 * 30)
    assert work.trained == 2 * (10 + 10 + 45) and work.trained_most == 2 * (10 + 20 + 90)


def test_imitation_distillation_and_evaluations_by_hand():
    recipe = recipe_of(kind="imitate", tree={})
    lengths = lengths_of(recipe, EXACT)
    work = work_of(recipe.stage[0], recipe, lengths, EXACT)
    assert (work.trained, work.trained_most, work.sampled) == (2 * (10 + 30), 2 * (10 + 60), 0)
    measured = evaluation_work(recipe, lengths, EXACT)  # at the start, after 2, 4 and 5 of 5 steps
    assert (measured.steps, measured.sampled_most, rows(measured)) == (4, 7 * 60, {"plan": 7, "act": 7})
    distil = from_dict(
        {
            "stage": [
                {"kind": "distill", "distill": {"summariser": "policy", "problems": 9, "plan_tokens": 12}}
            ]
        }
    ).stage[0]
    work = work_of(distil, recipe, lengths, EXACT)
    assert (work.steps, work.prefilled, work.sampled_most) == (9, 10 + 20, 12)
    assert (
        work_of(
            replace(distil, distill=replace(distil.distill, summariser="rules")), recipe, lengths, EXACT
        ).steps
        == 0
    )


# Operations, memory, time -----------------------------------------------------------------------------------


def test_operations_by_hand():
    """2 for each of 1,952 multiplied parameters, and 4 x 2 layers x 8 x context for attention."""
    assert TINY.multiplied == 1952
    assert forward_flops(TINY, 10, 5) == 10 * (2 * 1952 + 4 * 2 * 8 * 5) == 42_240
    recipe = recipe_of()
    (stage,) = recipe.stage
    head = 10 * 2 * 800
    assert training_flops(recipe, stage, TINY, 10, 5, head_again=True) == 3 * 42_240 + head
    assert training_flops(recipe, stage, TINY, 10, 5, head_again=False) == 3 * 42_240
    again = replace(recipe, engine=replace(recipe.engine, gradient_checkpointing=True))
    assert training_flops(again, stage, TINY, 10, 5, head_again=True) == 4 * 42_240
    assert training_flops(again, stage, TINY, 10, 5, head_again=False) == 4 * 42_240 - head
    assert training_flops(again, replace(stage, ref_kl=0.1), TINY, 10, 5, head_again=True) == 5 * 42_240
    assert (
        training_flops(replace(again, layout="adapters"), stage, TINY, 10, 5, head_again=False)
        == 3 * 42_240 - head
    )


def test_the_head_is_computed_again_where_it_trains_and_its_tokens_are_more_than_a_chunk():
    """A path of 70 tokens is a micro-batch. 16,777,216 / 70 = 239,674.5 words are a chunk's on a CPU; on a
    GPU 4 times as many."""
    recipe = recipe_of()

    def again(vocabulary, recipe=recipe, kind="cpu"):
        (stage,), lengths = recipe.stage, lengths_of(recipe, EXACT)
        work = work_of(stage, recipe, lengths, EXACT)
        return computes_head_again(
            recipe, stage, replace(TINY, vocabulary=vocabulary), lengths, work, replace(BOX, kind=kind)
        )

    assert not again(239_674) and again(239_675)
    assert not again(958_698, kind="cuda") and again(958_699, kind="cuda")
    lora = replace(recipe, layout="adapters")
    assert not again(239_675, lora) and again(
        239_675, replace(lora, adapter=replace(lora.adapter, targets=("q_proj", "lm_head")))
    )


def test_a_chunk_is_counted_as_the_losses_make_it():
    pytest.importorskip("torch")
    from forethought.engines.torch.loss import objectives

    assert (CHUNK_LOGITS, GPU_CHUNKS) == (objectives.CHUNK_FLOATS, objectives.GPU_CHUNKS)


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "model_type": "llama",
                "hidden_size": 8,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "num_hidden_layers": 2,
                "intermediate_size": 16,
                "vocab_size": 100,
                "tie_word_embeddings": True,
                "max_position_embeddings": 64,
            }
        )
    )
    return tmp_path


def test_memory_of_whole_weights_by_hand(tiny):
    """fp32 weights, two fp32 moments, a bf16 copy to compute with. 8 rows: 2 contexts of 4 plans, or of 3
    acts (2 x 3 rows)."""
    memory = estimate(recipe_of(tiny), BOX, EXACT).stages[0].memory
    assert memory.stays == {"weights": 4 * 1992, "moments of the optimizer": 8 * 1992}
    acts = (2 * (10 + 20) + 6 * 40) * 32
    assert memory.sampling == {
        "weights in bf16, to compute with": 2 * 1992,
        "KV cache": acts,
        "logits of a step": 28 * 6 * 100,
        "reading the contexts": 60 * 2 * (32 + 32),
    }
    layer = 2 * (4 * 16 + 4 * 8 + 4 * 4 + 2 * 8) + 16 * 8
    assert activations(TINY, Numbers(stored=4, computed=2)) == layer == 384
    tokens = 70  # a path of 10 + 20 + 40 is more than a pack of 50
    assert memory.training == {
        "weights in bf16, to compute with": 2 * 1992,
        "gradients": 4 * 1992,
        "logits of a chunk": 8 * 7000,
        "gradient of the head": 4 * 800,
        "activations of a micro-batch": tokens * 2 * layer,
        "attention of a layer": tokens * 70 * 6,
    }
    assert memory.peak == 12 * 1992 + sum(memory.training.values())


def test_memory_with_adapters_references_and_checkpointing_by_hand(tiny):
    recipe = recipe_of(tiny)
    again = replace(recipe, engine=replace(recipe.engine, gradient_checkpointing=True))
    training = estimate(again, BOX, EXACT).stages[0].memory.training
    assert training["activations of a micro-batch"] == 70 * (2 * 8 * 4 + 384)
    # the head is the largest that is cast at once
    assert training["weights in bf16, to compute with"] == 2 * 800
    held = replace(recipe, stage=(replace(recipe.stage[0], ref_kl=0.1),))
    assert estimate(held, BOX, EXACT).stages[0].memory.stays["frozen copies to compare with"] == 4 * 1992
    lora = replace(recipe, layout="adapters", adapter=replace(recipe.adapter, rank=3))
    assert "gradient of the head" not in estimate(lora, BOX, EXACT).stages[0].memory.training
    stays = estimate(lora, BOX, EXACT).stages[0].memory.stays
    assert stays == {
        "weights": 2 * 1992,
        "moments of the optimizer": 2 * 8 * 768,
        "adapters": 2 * 4 * 768,
        "copies that sample, adapter added in": 2 * 2 * 1992,
    }
    cpu = estimate(lora, replace(BOX, kind="cpu"), EXACT).stages[0].memory.stays
    assert cpu["weights"] == 4 * 1992  # a CPU keeps them in fp32
    models = replace(recipe, layout="models")
    assert estimate(models, BOX, EXACT).stages[0].memory.stays == {
        "weights": 4 * 1992,
        "moments of the optimizer": 8 * 2 * 1992,
        "models of the roles": 2 * 4 * 1992,
    }


def test_time_by_hand(tiny):
    """Training: operations over half of the peak. Decoding: 20 steps for one wave of 8 plans, 40 for each of
    4 waves of 6 acts, five times, 2.5 ms each, because starting 2 layers and a step takes longer than reading
    so small a model; reading the contexts comes on top."""
    cost = estimate(recipe_of(tiny), BOX, EXACT).stages[0]
    context = 10 + 0.5 * 60 / 2
    trained = training_flops(recipe_of(tiny), recipe_of(tiny).stage[0], TINY, 580, context, head_again=False)
    assert cost.training == pytest.approx(5 * trained / 5e11)
    read = 5 * forward_flops(TINY, 120, 10) / 5e11
    assert cost.sampling == pytest.approx(5 * (20 + 4 * 40) * 0.0025 + read)
    # 1,992 weights of 2 bytes at 0.5 MB a second: 8 ms
    slow = estimate(recipe_of(tiny), replace(BOX, bandwidth=1e6), EXACT).stages[0]
    assert slow.sampling > 5 * 180 * 0.008


def test_what_does_not_fit_is_told_with_what_to_change():
    recipe = replace(load("pta-grpo-math"), probes=replace(load("pta-grpo-math").probes, kl_start=True))
    account = estimate(recipe, HARDWARE["h100"])
    assert account.peak > account.room
    *some, last = account.remedies
    assert (
        some
        and all(r.peak > account.room for r in some)
        and last.peak <= account.room
        and last.sets[-1] == "layout=adapters"
    )
    typed = estimate(load("pta-grpo-math", ["probes.kl_start=true", *last.sets]), HARDWARE["h100"])
    assert len({s.partition("=")[0] for s in last.sets}) == len(last.sets)
    # what is said is all that was changed
    assert typed.recipe.layout == "adapters" and typed.peak == last.peak
    text = "\n".join(lines(account))
    assert (
        "does not fit" in text and "--set layout=adapters" in text and last.sets[0] == "probes.kl_start=false"
    )
    small = "\n".join(lines(estimate(recipe, replace(HARDWARE["4090"], memory=4e9))))
    assert "still too much" in small and "and then a smaller model" in small


def test_the_published_run_fits_one_h200_and_prints_every_assumption():
    account = estimate(load("pta-grpo-math"), HARDWARE["h200"])
    assert account.shape.parameters == 7_615_616_512 and account.peak <= account.room
    text = "\n".join(lines(account))
    for name in Assumptions.__slots__:
        assert f"({name})" in text
    assert "350 steps" in text and "fits" in text


def test_a_context_that_is_too_short_is_told(tiny):
    assert any(
        "take 70 tokens, the model's context is 64" in line
        for line in lines(estimate(recipe_of(tiny), BOX, EXACT))
    )


def test_a_model_from_scratch_and_one_that_is_not_known():
    account = estimate(load("desk"), BOX)
    pytest.importorskip("torch")
    from forethought.runs import run

    engine, _ = run.build(load("desk"))
    assert account.shape.parameters == engine.facts()["parameters"]
    unknown = estimate(load("pta-grpo-math", ["model.path=some/thing"]), BOX)
    assert unknown.shape is None and unknown.stages[2].work.steps == 350
    assert "tokens alone" in "\n".join(lines(unknown))


# Hardware and command line ----------------------------------------------------------------------------------


def test_this_machine_is_read_from_the_drivers_files(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:       2000 kB\n")
    assert (this_machine(tmp_path).kind, this_machine(tmp_path).memory) == ("cpu", 2000 * 1024)
    gpu = tmp_path / "driver/nvidia/gpus/0000:01:00.0"
    gpu.mkdir(parents=True)
    (gpu / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 1\n")
    assert this_machine(tmp_path) == HARDWARE["h200"]
    (gpu / "information").write_text("Model: Tesla T4\n")
    other = this_machine(tmp_path)
    assert (other.name, other.memory) == ("Tesla T4", 0)
    text = "\n".join(lines(estimate(load("desk"), other)))
    assert "name one with --hardware" in text and "fit" not in text


def test_the_dry_run_prints_it_as_comments_of_a_recipe(capsys):
    assert (
        cli.main(
            [
                "train",
                "pta-grpo-math",
                "--dry-run",
                "--print-recipe",
                "--hardware",
                "H100",
                "--assume",
                "used=1",
                "--assume",
                "prompt=200",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert (
        "# estimate for NVIDIA H100" in out
        and "turns use 1 of their budget" in out
        and "prompts have 200 tokens" in out
    )
    assert from_dict(tomllib.loads(out)) == load("pta-grpo-math")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["--hardware", "h20"], "--hardware: unknown hardware 'h20'; did you mean 'h200'"),
        (["--assume", "usd=1"], "--assume usd=1: unknown assumption 'usd'; did you mean 'used'"),
        (["--assume", "used=2"], "--assume used=2: must be greater than 0 and at most 1"),
        (["--assume", "prompt=long"], "--assume prompt=long: 'long' is not a number"),
    ],
)
def test_what_the_dry_run_cannot_read(said, message, capsys):
    assert cli.main(["train", "desk", "--dry-run", *said]) == 2
    assert message in capsys.readouterr().err


def test_a_run_takes_no_hardware(capsys):
    assert cli.main(["train", "desk", "--hardware", "h100"]) == 2
    assert "--hardware, --assume and --json are for --dry-run" in capsys.readouterr().err


def test_numbers_for_people():
    assert [count(n) for n in (7, 1234, 7.6156e9, 2.5e12)] == ["7", "1.23k", "7.62B", "2.5T"]
    assert [duration(s) for s in (59, 600, 3 * 3600, 3 * 86400)] == ["59 s", "10 min", "3.0 h", "3.0 days"]
