"""Language models of the three families that the published runs use, from distillation to evaluation.

Tiny random models of Qwen2.5, Qwen3 and Llama 3.2 (tied or not, norms on queries and keys, stretched rotary
positions), each with a byte-level BPE tokenizer trained here, the family's special tokens and its form of
conversation.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import torch
from conftest import lines_of, nothing
from test_torch_training import close
from torch_kit import bpe_of, engine_of, model_of, on_disk, plain_logp, same, snapshot

from forethought.core.errors import RecipeError, UserError
from forethought.core.types import Batch, Objective, Request
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.loss import objectives
from forethought.engines.torch.models.chat import ends_of
from forethought.engines.torch.models.loading import from_path
from forethought.learn.batches import demonstration_segments, targets, tree_segments
from forethought.learn.credit import assign
from forethought.learn.losses import term
from forethought.learn.rewards import reward
from forethought.recipe.convert import from_dict
from forethought.recipe.layout import trains_whole
from forethought.recipe.schema import CreditSpec, OptimSpec, TreeSpec
from forethought.runs import run

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "<|begin_of_text|>Today Date: {{ strftime_now('%d %b %Y') }}\n{% for m in messages "
    "%}<|start_header_id|>{{ m.role }}"
    "<|end_header_id|>\n\n{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA = [
    "<|end_of_text|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
]
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {  # kind of model, its fields, special tokens, the end of a turn and what else ends, template
    "qwen2.5": ("qwen2", {"tie_word_embeddings": True}, QWEN, ["<|im_end|>", "<|endoftext|>"], CHATML),
    "qwen3": (
        "qwen3",
        {"head_dim": 16, "tie_word_embeddings": False},
        QWEN,
        ["<|im_end|>", "<|endoftext|>"],
        CHATML,
    ),
    "llama3.2": (
        "llama",
        {"tie_word_embeddings": True, "rope_parameters": STRETCHED},
        LLAMA,
        ["<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"],
        HEADERS,
    ),
}


def rows(name: str, start: int, n: int = 12) -> list[dict]:
    """In the form of GSM8K, from whose solutions the rules make plans."""
    return [
        {
            "id": f"{name}-{i}",
            "question": f"Ann has {start + i} nuts and gets {i % 7} more. How many?",
            "answer": f"She adds what she gets.\n{start + i} + {i % 7} = "
            f"<<{start + i}+{i % 7}={start + i + i % 7}>>{start + i + i % 7}\n"
            f"#### {start + i + i % 7}",
        }
        for i in range(n)
    ]


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request, tmp_path_factory):
    """(name, recipe of all three stages in whole weights)"""
    kind, fields, special, ends, template = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    files = {}
    for name, start in (("train", 100), ("demos", 300), ("test", 500)):
        files[name] = str(folder / f"{name}.jsonl")
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(name, start)))
    tokenizer = bpe_of(
        [str(row) for row in rows("train", 100)]
        + ["<plan>\n1. She adds.\n</plan>\n<think>\n</think>\n\\boxed{}"] * 9,
        380,
        ["<pad>", *special],
    )
    tokenizer.chat_template, tokenizer.eos_token = template, ends[0]
    ids = tokenizer.convert_tokens_to_ids(ends)
    model = model_of(
        kind, vocab_size=len(tokenizer), max_position_embeddings=1024, **fields | {"eos_token_id": ids[0]}
    )
    model.generation_config.eos_token_id = ids
    recipe = from_dict(
        {
            "name": "path",
            "layout": "shared",
            "model": {"path": on_disk(folder / "model", model, tokenizer)},
            "engine": {"device": "cpu", "precision": "fp32", "threads": 1},
            "task": {
                "name": "math",
                "train": files["train"],
                "demos": files["demos"],
                "eval": [files["test"]],
                "graded": False,
                "grader": "exact",
                "budgets": {"plan": 30, "act": 60},
                "system": "Plan in <plan>, then think in <think>, then \\boxed{}.",
            },
            "eval": {"tasks": 3, "every": 0},
            "probes": {"every": 0, "conflict_every": 0, "kl_start": False},
            "stage": [
                {"kind": "distill", "distill": {"summariser": "rules"}},
                {
                    "kind": "imitate",
                    "until": {"steps": 40},
                    "batch": 6,
                    "optim": {"lr": 2e-2, "warmup": 2, "decay": 0.5},
                },
                {
                    "kind": "reinforce",
                    "until": {"steps": 2},
                    "batch": 3,
                    "tree": {"plan": 2, "act": 2},
                    "optim": {"lr": 1e-4},
                    "reward": {
                        "plan": {"analytic": 0.5},
                        "act": {"outcome": 1, "structure": 0.2, "length": 0.1},
                    },
                },
            ],
        }
    )
    return request.param, recipe


# Words ------------------------------------------------------------------------------------------------------


def test_what_the_model_reads_is_its_own_form_of_conversation(family):
    name, recipe = family
    engine, rollouts = run.build(recipe)
    task = rollouts.taskset.pool(0, "train")[0]
    text = engine.decode(rollouts.words.root_ids(task))
    opened = "<|start_header_id|>user<|end_header_id|>\n\n" if name == "llama3.2" else "<|im_start|>user\n"
    assert f"{opened}{task.state.problem}" in text and text.endswith("\n<plan>")
    if name == "llama3.2":
        # the same whenever the run is resumed
        assert text.startswith("<|begin_of_text|>Today Date: 26 Jul 2024\n")
    special = engine.tokenizer.convert_tokens_to_ids(FAMILIES[name][2][-1])
    # special tokens are one token, also inside a text
    assert engine.encode(FAMILIES[name][2][-1]) == (special,)


def test_every_end_of_the_family_ends_a_turn_and_is_no_text(family):
    name, recipe = family
    engine, rollouts = run.build(recipe)
    ends = engine.tokenizer.convert_tokens_to_ids(FAMILIES[name][3])
    assert engine.end == ends[0] and engine.ends == set(ends)
    task = rollouts.taskset.pool(0, "train")[0]
    rollouts.taskset.guide({t.id: ("Add.", "So.") for t in rollouts.taskset._demos})
    shown = rollouts.taskset.demonstrable(random.Random(0), [0])
    assert demonstration_segments(rollouts, shown, [{"plan", "act"}])[-1].token_ids[-1] == ends[0]
    for end in ends:  # a model that says nothing else
        speaks_only(engine, end)
        (out,) = engine.sample(
            [Request(policy="base", context=rollouts.words.root_ids(task), n=1, stops=(), max_tokens=9)]
        )[0]
        assert (out.status, out.token_ids) == ("finished", (end,))
        (tree,) = rollouts.grow([task], TreeSpec(counts={"plan": 1, "act": 0}), {"plan": "base"}, 1)
        assert (tree.nodes[1].text, tree.nodes[1].token_ids, tree.nodes[1].status) == ("", (end,), "refused")


def speaks_only(engine: TorchEngine, token: int) -> None:
    head = engine.weights.base.get_output_embeddings()
    head._forward_hooks.clear()
    head.register_forward_hook(
        lambda module, inputs, out: torch.zeros_like(out).index_fill_(-1, torch.tensor([token]), 100.0)
    )


def test_a_base_model_ends_its_turns_as_its_template_does():
    """Qwen2.5's base models end a text with <|endoftext|>, and their template a turn with <|im_end|>."""
    tokenizer = bpe_of(["a b"], 300, ["<pad>", *QWEN])
    tokenizer.eos_token, tokenizer.chat_template = "<|endoftext|>", CHATML
    model = model_of("qwen2", vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in QWEN}
    assert ends_of(tokenizer, model) == (ids["<|im_end|>"], {ids["<|im_end|>"], ids["<|endoftext|>"]})
    # writes nothing behind an answer
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    assert ends_of(tokenizer, model) == (ids["<|endoftext|>"], {ids["<|endoftext|>"]})
    tokenizer.chat_template = None
    assert ends_of(tokenizer, model)[0] == ids["<|endoftext|>"]


def test_a_template_that_takes_no_system_message_is_named():
    engine = engine_of(model_of(vocab_size=300), bpe_of(["a b"], 300))
    engine.tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(
        UserError, match='refuses the conversation .System role not supported.*task.system=""'
    ):
        engine.chat([{"role": "system", "content": "x"}])


# Numbers ----------------------------------------------------------------------------------------------------


def grown(recipe, **engine):
    """(engine, batch of the policy gradient, objective): two trees of two plans and two acts each, with
    credit."""
    engine, rollouts = run.build(replace(recipe, engine=replace(recipe.engine, **engine)))
    tasks = rollouts.taskset.pool(0, "train")[:2]
    trees = []
    for tree in rollouts.grow(
        tasks, TreeSpec(counts={"plan": 2, "act": 2}), {"plan": "base", "act": "base"}, 3
    ):
        plans = [replace(n, status="finished") for n in tree.nodes if n.role == "plan"]
        acts = []
        # an untrained model closes no plan: its executions are sampled under it all the same
        for plan in plans:
            path = tree.nodes[0].token_ids + plan.token_ids
            outs = engine.sample(
                [Request(policy="base", context=path, n=2, stops=(), max_tokens=24, seed=plan.id)]
            )[0]
            acts += [
                replace(
                    plan,
                    id=10 * plan.id + k,
                    parent=plan.id,
                    branch=10 * plan.id + k,  # each its own, as a fork begins them
                    role="act",
                    token_ids=out.token_ids,
                    logprobs=out.logprobs,
                    reward_parts={"outcome": float(k), "format": 1.0},
                )
                for k, out in enumerate(outs)
            ]
        trees.append(reward(replace(tree, nodes=(tree.nodes[0], *plans, *acts)), {"act": {"outcome": 1.0}}))
    assert all([n.reward for n in tree.nodes if n.role == "act"] == [0, 1, 0, 1] for tree in trees)
    advantages = [assign(tree, CreditSpec(), ("plan", "act"), 0, None) for tree in trees]
    segments = tuple(tree_segments(rollouts, trees, advantages, "tokens"))
    return (
        engine,
        Batch(policy="base", segments=segments),
        Objective((term("grpo", targets(segments, "pg")),)),
    )


def gradient_of(engine: TorchEngine, batch: Batch, objective: Objective) -> dict[str, torch.Tensor]:
    engine.prepare("base", OptimSpec())
    engine.forward_backward(batch, objective)
    return {k: p.grad.clone() for k, p in engine.weights.parameters("base").items()}


def test_packed_trees_are_computed_as_the_model_computes_each_path_far_beyond_its_first_positions(family):
    """100 tokens and more: rotary positions are stretched beyond 64 in the third family."""
    engine, batch, _ = grown(family[1])
    found = engine.logprobs(batch)
    looked = [i for i, s in enumerate(batch.segments) if s.role == "act"][::3]
    for i in looked:
        plain = plain_logp(engine.weights.base, batch.segments, i)
        assert found[i] == pytest.approx(plain.tolist(), abs=2e-4)
        assert batch.segments[i].old_logprobs == pytest.approx(plain.tolist(), abs=2e-4)  # what sampling said


def test_small_micro_batches_checkpointing_and_chunks_give_the_gradient_of_one_large_batch(
    family, monkeypatch
):
    engine, batch, objective = grown(family[1])
    assert sum(len(s.token_ids) for s in batch.segments) > 350
    whole = gradient_of(engine, batch, objective)
    monkeypatch.setattr(objectives, "CHUNK_FLOATS", 20 * engine.config.vocab_size)  # 20 tokens a chunk
    again, _, _ = grown(family[1], pack_tokens=120, gradient_checkpointing=True)
    parts = gradient_of(again, batch, objective)
    close(parts, whole)


def test_bf16_keeps_the_sampler_near_the_trainer(family):
    engine, batch, objective = grown(family[1], precision="bf16", gradient_checkpointing=True)
    engine.prepare("base", OptimSpec())
    metrics = engine.forward_backward(batch, objective)
    assert metrics["gap/sampler"].value() < 0.02
    assert all(
        p.dtype == p.grad.dtype == torch.float32
        for p in engine.weights.parameters("base").values()
        if p.grad is not None
    )


# Weights in bf16 --------------------------------------------------------------------------------------------


def test_small_updates_of_whole_models_reach_weights_that_were_saved_in_bf16(family, tmp_path):
    """At 1e-6 an AdamW update is less than the last bit of nearly every bf16 weight: kept in bf16, the model
    would not move."""
    _, recipe = family
    loaded = from_path(recipe.model.path)
    on_disk(tmp_path, loaded.model.to(torch.bfloat16), loaded.tokenizer)
    recipe = replace(
        recipe,
        model=replace(recipe.model, path=str(tmp_path)),
        engine=replace(recipe.engine, precision="bf16"),
    )
    assert trains_whole(recipe) and not trains_whole(replace(recipe, layout="adapters"))
    engine, batch, objective = grown(recipe)
    before = snapshot(engine, "base")
    engine.prepare("base", OptimSpec(lr=1e-6, warmup=0, weight_decay=0.01))
    engine.forward_backward(batch, objective)
    engine.optim_step("base")
    inside = {k: p for k, p in snapshot(engine, "base").items() if "mlp" in k}
    moved = torch.cat([(p != before[k]).flatten() for k, p in inside.items()]).float().mean()
    moved_bf16 = (
        torch.cat([(p.bfloat16() != before[k].bfloat16()).flatten() for k, p in inside.items()])
        .float()
        .mean()
    )
    assert moved > 0.95 and moved_bf16 < 0.02


def test_adapters_on_bf16_weights_are_fp32_and_train(family):
    _, recipe = family
    with pytest.raises(RecipeError, match="engine.weights: a stage trains whole models here"):
        run.build(replace(recipe, engine=replace(recipe.engine, weights="bf16")))
    engine, batch, objective = grown(replace(recipe, layout="adapters"), weights="bf16", precision="bf16")
    assert {p.dtype for p in engine.weights.parameters("base").values()} == {torch.bfloat16}
    engine.fork("base", "plan")
    engine.prepare("plan", OptimSpec(lr=1e-3))
    before, base = snapshot(engine, "plan"), snapshot(engine, "base")
    engine.forward_backward(replace(batch, policy="plan"), objective)
    engine.optim_step("plan")
    after = snapshot(engine, "plan")
    assert {p.dtype for p in after.values()} == {torch.float32}
    assert all(not torch.equal(p, before[k]) for k, p in after.items() if "lora_B" in k)
    assert all(torch.equal(p, base[k]) for k, p in snapshot(engine, "base").items())


# Room -------------------------------------------------------------------------------------------------------


def test_a_prompt_beyond_the_context_is_told_before_anything_trains(family, tmp_path):
    _, recipe = family
    long = {"id": "long", "question": "nuts " * 2000, "answer": "So. #### 2"}
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows("a", 900, 40), long])
    )
    task = replace(recipe.task, options=recipe.task.options | {"train": str(tmp_path / "train.jsonl")})
    with pytest.raises(
        UserError,
        match=r"math at level 0 takes prompts of \d{4} tokens and 90 for .*; the "
        r"model's context is 1024",
    ):
        run.build(replace(recipe, task=task))


# The whole path ---------------------------------------------------------------------------------------------


class Watched:
    """What a run sampled and what it trained on."""

    def __init__(self, monkeypatch):
        self.sampled, self.trained = {}, []
        sample, forward_backward = TorchEngine.sample, TorchEngine.forward_backward

        def sampling(engine, requests):
            outs = sample(engine, requests)
            self.sampled |= {
                r.context + out.token_ids: out for r, some in zip(requests, outs, strict=True) for out in some
            }
            return outs

        def training(engine, batch, objective):
            self.trained.append(batch)
            return forward_backward(engine, batch, objective)

        monkeypatch.setattr(TorchEngine, "sample", sampling)
        monkeypatch.setattr(TorchEngine, "forward_backward", training)

    def check(self) -> tuple[int, int]:
        """Token for token: a trained turn is one that was sampled in this very context. (plans, acts) that
        trained."""
        counted = {"plan": 0, "act": 0}
        for batch in self.trained:
            paths: list[tuple[int, ...]] = []
            for s in batch.segments:
                paths.append((paths[s.parent] if s.parent >= 0 else ()) + s.token_ids)
                if s.stream == "pg":
                    assert self.sampled[paths[-1]].logprobs == s.old_logprobs
                    counted[s.role] += 1
        return counted["plan"], counted["act"]


@pytest.mark.parametrize("how", ["shared", "adapters in bf16, layers computed again, small micro-batches"])
def test_from_distillation_to_evaluation(family, how, tmp_path, monkeypatch):
    _, recipe = family
    if how != "shared":
        engine = replace(recipe.engine, precision="bf16", gradient_checkpointing=True, pack_tokens=300)
        distil, imitate, reinforce = recipe.stage
        few = replace(imitate, until=replace(imitate.until, steps=6), batch=2)
        recipe = replace(
            recipe, layout="adapters", engine=engine, stage=(distil, few, replace(reinforce, batch=1))
        )
    watched = Watched(monkeypatch)
    run.train(recipe, tmp_path / "run", nothing)
    lines = lines_of(tmp_path / "run" / "metrics.jsonl")
    imitated = [line for line in lines if "loss/sft_plan" in line]
    least = 1.0 if how == "shared" else 0.05
    assert all(
        imitated[-1][f"loss/sft_{role}"] < imitated[0][f"loss/sft_{role}"] - least for role in ("plan", "act")
    )
    reinforced = [line for line in lines if line["kind"] != "distill" and "tokens/sampled" in line]
    assert len(reinforced) == 2 and {"truncated/plan", "reward/plan.analytic"} <= reinforced[0].keys()
    assert {"eval/plan", "eval/e2e"} <= lines[-1].keys()
    plans, acts = watched.check()
    if how == "shared":  # 40 steps teach whole weights the form, so that plans are closed and executed
        assert (
            plans
            and acts
            and {"truncated/act", "reward/act.length", "gap/sampler_max"} <= reinforced[0].keys()
        )
        assert reinforced[0]["gap/sampler_max"] < 1e-3
    assert all(line["gap/sampler"] < 0.05 for line in reinforced if "gap/sampler" in line)


def test_a_turn_that_runs_out_of_tokens_is_truncated_and_counted(family):
    from forethought.stages.outcome import tree_metrics

    engine, rollouts = run.build(family[1])
    token = engine.encode("nuts")[0]
    speaks_only(engine, token)
    trees = rollouts.grow(
        rollouts.taskset.pool(0, "train")[:2],
        TreeSpec(counts={"plan": 2, "act": 2}),
        {"plan": "base", "act": "base"},
        1,
    )
    plans = [n for tree in trees for n in tree.nodes if n.role == "plan"]
    assert {(n.status, len(n.token_ids)) for n in plans} == {("truncated", 30)} and len(plans) == 4
    # what was cut off is not executed
    assert not [n for tree in trees for n in tree.nodes if n.role == "act"]
    assert tree_metrics(trees, ("plan",))["truncated/plan"].value() == 1.0


def test_what_is_saved_and_loaded_goes_on_bit_for_bit(family, tmp_path):
    """Tied matrices, norms on queries and keys, stretched positions."""
    engine, batch, objective = grown(family[1])
    gradient_of(engine, batch, objective)
    engine.optim_step("base")
    engine.save(tmp_path / "a")
    other, _ = run.build(family[1])
    other.load(tmp_path / "a")
    assert same(snapshot(engine, "base"), snapshot(other, "base"))
    for one in (engine, other):
        one.forward_backward(batch, objective)
        one.optim_step("base")
    assert same(snapshot(engine, "base"), snapshot(other, "base"))
