"""What the torch tests build from: tiny models of many kinds, tokenizers, random forests, and the plain
forward to compare with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from forethought.core.types import Segment
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.forest.attention import NAME
from forethought.engines.torch.models.loading import Loaded
from forethought.engines.torch.models.small import tokenizer_of
from forethought.recipe.schema import AdapterSpec, EngineSpec

torch.set_num_threads(1)

WORDS = [f"w{i}" for i in range(29)]  # with <pad>, <eos> and <unk> a vocabulary of 32
SIZE = 32
MOE = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
KINDS: dict[str, dict] = {  # model type -> what its config needs beyond `config_of`'s own numbers
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "llama": {},
    "mistral": {"sliding_window": None},
    "gemma": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8, "layer_types": ["full_attention"] * 2},
    "phi": {},
    "phi3": {},
    "gpt_neox": {},
    "gpt2": {},
    "granite": {
        "logits_scaling": 3.0,
        "attention_multiplier": 0.3,
        "residual_multiplier": 0.5,
        "embedding_multiplier": 2.0,
    },
    "cohere": {"logit_scale": 0.25},
    "deepseek_v3": MOE
    | {
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "num_key_value_heads": 4,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "first_k_dense_replace": 1,
    },
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": MOE | {"num_experts": 4, "shared_expert_intermediate_size": 16},
    "qwen3_moe": MOE | {"num_experts": 4, "head_dim": 8},
}


def config_of(kind: str, **fields):
    base = {
        "vocab_size": SIZE,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 96,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 1,
        "initializer_range": 0.1,
    }
    return AutoConfig.for_model(kind, **(base | KINDS.get(kind, {}) | fields))


def model_of(kind: str = "llama", seed: int = 0, **fields) -> PreTrainedModel:
    torch.manual_seed(seed)
    return (
        AutoModelForCausalLM.from_config(config_of(kind, **fields), attn_implementation=NAME).float().eval()
    )


def engine_of(
    model: PreTrainedModel | None = None, tokenizer=None, rank: int = 2, targets: tuple[str, ...] = (), **spec
) -> TorchEngine:
    tokenizer = tokenizer or tokenizer_of(WORDS)
    # layers: not as they happen to be timed
    spec = {"device": "cpu", "precision": "fp32", "layers": "c", "threads": 1} | spec
    return TorchEngine(
        Loaded(model or model_of(), tokenizer, ""),
        EngineSpec(**spec),
        AdapterSpec(rank=rank, alpha=4.0, targets=targets),
    )


def stir(engine: TorchEngine, policy: str, seed: int = 0, scale: float = 0.1) -> None:
    """Give a policy weights of its own: an adapter begins as nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in engine.weights.parameters(policy).values():
            p.add_(scale * torch.randn(p.shape, generator=generator))
    engine.publish(policy)


def snapshot(engine: TorchEngine, policy: str) -> dict[str, torch.Tensor]:
    return {k: p.detach().clone() for k, p in engine.weights.parameters(policy).items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit, NaN and all."""
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].numpy().tobytes() == b[k].numpy().tobytes() for k in a
    )


# Forests ----------------------------------------------------------------------------------------------------


def forest(seed: int, roots: int = 2, segments: int = 12, longest: int = 6, **fields) -> list[Segment]:
    """Random trees: every shape of branching, chains included. `fields` go to all but the roots; a callable
    gets (rng, tokens)."""
    rng = random.Random(seed)
    out = []
    for i in range(segments):
        n = rng.randint(1, longest)
        ids = tuple(rng.randrange(3, SIZE) for _ in range(n))
        own = {k: f(rng, n) if callable(f) else f for k, f in fields.items()} if i >= roots else {}
        out.append(Segment(parent=rng.randrange(i) if i >= roots else -1, token_ids=ids, **own))
    return out


def path_to(segments: Sequence[Segment], i: int) -> tuple[int, ...]:
    """Token ids from the root to segment `i`, both included."""
    ids: tuple[int, ...] = ()
    while i >= 0:
        ids, i = segments[i].token_ids + ids, segments[i].parent
    return ids


def plain_logits(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    """[tokens, vocabulary] of one row, by the model itself with the attention its authors wrote out."""
    model.set_attn_implementation("eager")
    try:
        return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float()
    finally:
        model.set_attn_implementation(NAME)


def plain_logp(model: PreTrainedModel, segments: Sequence[Segment], i: int) -> torch.Tensor:
    """log p of the tokens of segment `i`, each predicted from everything before it on its path."""
    ids, n = path_to(segments, i), len(segments[i].token_ids)
    logp = plain_logits(model, ids).log_softmax(-1)[-n - 1 : -1]
    return logp.gather(-1, torch.tensor(ids[-n:])[:, None])[:, 0]


# Tokenizers and files ---------------------------------------------------------------------------------------


def bpe_of(
    texts: Sequence[str], size: int = 300, special: Sequence[str] = ("<pad>", "<eos>")
) -> PreTrainedTokenizerFast:
    """Byte-level BPE, trained here. A small `size` leaves most words, and the stops, in several pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>" if "<eos>" in special else None
    )


def on_disk(folder: Path, model: PreTrainedModel, tokenizer=None) -> str:
    """What `--model` takes."""
    model.save_pretrained(folder)
    (tokenizer or tokenizer_of(WORDS)).save_pretrained(folder)
    return str(folder)
