"""A small model from scratch: a standard decoder with a word-level tokenizer (for free text:
`small_text.py`), and an initialisation under which it learns to look things up in a minute rather than in an
hour.

Why an initialisation. The tasks here need look-ups ("which parent follows this name on the screen?"). A
decoder learns them as a pair of heads: one that moves each token's content a few positions on, and one that
matches the current token against the moved content (the induction circuit, arXiv 2209.11895). From the usual
initialisation a plain decoder of this size does not form the pair within our budget. Nothing in the
architecture forbids to begin with it:
- layer 0, heads 1 to 3 attend exactly 1, 2 and 3 tokens back: query and key have biases, and under rotary
  embeddings a pair of biases is a function of distance alone; their values are written to a random subspace
  each;
- in later layers, heads 1 to 3 begin with query = the current token's content and key = the content that was
  moved 1, 2 or 3 tokens (the same random subspaces), and with values of a useful size.
With `copies` the first matching head of each later layer also begins by writing what it finds as the word
that comes next: its output undoes its values, and the model's head begins as the embedding. Without it each
word has to be learned by itself before it can be copied.
All weights train. Architecture, file and code stay those of `transformers`: the saved model opens anywhere.
In the spirit of mimetic initialisation (arXiv 2305.09828). `docs/log.md` has what was measured.
"""

from __future__ import annotations

import math

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from forethought.core.errors import RecipeError
from forethought.engines.torch.forest.attention import NAME
from forethought.recipe.schema import ModelSpec

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
SHIFTS = (1, 2, 3)
# of the shift heads: logit advantage of the right distance over its neighbour is about 0.67 times this
SHARPNESS = 20.0
SLOW = 0.02  # radians a token
EMBEDDING_STD = 0.5
MATCH = 1.0  # scale of the matching heads' queries and keys
VALUE = 0.8  # scale of the matching heads' values and outputs
# of `copies`: MATCH instead; the model's head and what is moved, as shares of what they are without it
COPY_MATCH, COPY_HEAD, COPY_MOVED = 2.0, 0.18, 0.6


Subspaces = tuple[torch.Tensor, torch.Tensor]
"""(what a shift head reads, what it writes), [head width, width] each."""


def tokenizer_of(words: list[str]) -> PreTrainedTokenizerFast:
    """One token per word, words separated by spaces."""
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys([PAD, EOS, UNK, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
    )


def small_model(spec: ModelSpec, vocabulary: int, context: int, seed: int) -> LlamaForCausalLM:
    """A decoder in the recipe's size. RecipeError where the size cannot hold the circuit (4 heads, 2 layers
    at least)."""
    if spec.width % spec.heads or (spec.width // spec.heads) % 2:
        raise RecipeError("model.width", f"{spec.width} must be an even multiple of heads = {spec.heads}")
    if spec.heads <= len(SHIFTS) or spec.layers < 2:
        raise RecipeError(
            "model",
            f"a small model needs at least {len(SHIFTS) + 1} heads and 2 layers, "
            f"found heads = {spec.heads}, layers = {spec.layers}",
        )
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=spec.width,
        intermediate_size=spec.mlp,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        attn_implementation=NAME,
    )
    threads = torch.get_num_threads()
    # factorisations of small matrices take longer on several, and give other last bits
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Qwen2ForCausalLM(config)
            reads = _begin_with_lookup(model, config)
            if spec.copies:
                _begin_with_copies(model, config, reads)
    finally:
        torch.set_num_threads(threads)
    return _as_llama(model)


def _as_llama(model: Qwen2ForCausalLM) -> LlamaForCausalLM:
    """The same function, tensor by tensor, under Llama's name.

    `transformers` opens the tokenizer of any folder whose model is a qwen2 as Qwen's own, whatever its files
    say, and that one finds no words in ours. Llama with biases has one that Qwen2 lacks, on the attention's
    output: it is zero and never trains.
    """
    own = LlamaConfig().to_dict().keys() - {
        "model_type",
        "architectures",
        "transformers_version",
        "attention_bias",
    }
    config = LlamaConfig(
        **{k: v for k, v in model.config.to_dict().items() if k in own},
        attention_bias=True,
        attn_implementation=model.config._attn_implementation,
    )
    with torch.device("meta"):
        llama = LlamaForCausalLM(config)
    for layer in llama.model.layers:
        del layer.self_attn.o_proj.bias
        layer.self_attn.o_proj.register_buffer("bias", torch.zeros(config.hidden_size))
    llama.load_state_dict(model.state_dict(), strict=False, assign=True)
    llama.model.rotary_emb = LlamaRotaryEmbedding(config)
    llama.generation_config = model.generation_config
    return llama


@torch.no_grad()
def _begin_with_lookup(model: Qwen2ForCausalLM, config: Qwen2Config) -> list[Subspaces]:
    """Begin with the look-up; the subspace that each shift reads, and the one that it writes."""
    d = config.hidden_size // config.num_attention_heads
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_STD)
    frequency = _frequency(config, d)
    # slow rotations cannot tell neighbours apart
    size = math.sqrt(SHARPNESS * math.sqrt(d)) * (frequency > SLOW)
    orthogonal = lambda: torch.nn.init.orthogonal_(torch.empty(d, config.hidden_size))  # noqa: E731
    first = model.model.layers[0].self_attn
    reads, writes = [], []
    for head, shift in enumerate(SHIFTS):
        rows = slice(head * d, (head + 1) * d)
        for projection in (first.q_proj, first.k_proj):
            projection.weight[rows] *= 0.1  # content must not blur the distance
        first.k_proj.bias[rows] = torch.cat([size, torch.zeros(d // 2)])
        first.q_proj.bias[rows] = torch.cat(
            [size * torch.cos(-shift * frequency), size * torch.sin(-shift * frequency)]
        )
        read, write = orthogonal(), orthogonal()
        first.v_proj.weight[rows], first.o_proj.weight[:, rows] = read, write.T
        reads.append(read)
        writes.append(write)
    for layer in model.model.layers[1:]:
        attention = layer.self_attn
        for head in range(config.num_attention_heads):
            rows = slice(head * d, (head + 1) * d)
            if head < len(SHIFTS):
                attention.q_proj.weight[rows] = MATCH * reads[head]
                attention.k_proj.weight[rows] = MATCH * writes[head]
            attention.v_proj.weight[rows] = VALUE * orthogonal()
            attention.o_proj.weight[:, rows] = VALUE * orthogonal().T
    return list(zip(reads, writes, strict=True))


@torch.no_grad()
def _begin_with_copies(model: Qwen2ForCausalLM, config: Qwen2Config, shifts: list[Subspaces]) -> None:
    """The heads that match the word before: each layer's copies another part of the embedding's space."""
    width, d = config.hidden_size, config.hidden_size // config.num_attention_heads
    model.lm_head.weight.copy_(COPY_HEAD * model.model.embed_tokens.weight)
    moved = model.model.layers[0].self_attn.o_proj.weight[:, : len(shifts) * d]
    moved *= COPY_MOVED  # a token's own content must stand out from what was moved to it
    basis = torch.nn.init.orthogonal_(torch.empty(width, width))
    # what turns fast under rotary embeddings matches at some distances only
    slow = (_frequency(config, d) <= SLOW).repeat(2)[:, None]
    read, write = (COPY_MATCH * slow * part for part in shifts[0])
    for i, layer in enumerate(model.model.layers[1:]):
        attention, start = layer.self_attn, i * d % width
        part = basis[start : start + d]
        attention.q_proj.weight[:d], attention.k_proj.weight[:d] = read, write
        attention.v_proj.weight[:d], attention.o_proj.weight[:, :d] = part, part.T


def _frequency(config: Qwen2Config, d: int) -> torch.Tensor:
    """Radians a token of each pair of a head's dimensions."""
    return config.rope_parameters["rope_theta"] ** (-torch.arange(0, d, 2).float() / d)
