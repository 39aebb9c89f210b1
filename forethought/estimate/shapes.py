"""The shape of a model: what its parameters, its KV cache and its arithmetic follow from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forethought.core.errors import UserError
from forethought.engines.gguf_families import config_of
from forethought.engines.gguf_header import file_at, lacks_model, read_header
from forethought.recipe.schema import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder with gated MLP, grouped queries and rotary positions, as Qwen2, Qwen3, Llama and Mistral
    are."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int  # numbers of one head
    mlp: int
    vocabulary: int
    tied: bool  # embedding and head are one matrix
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    context: int = 0  # tokens of a path over which its attention is full; 0: not known

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one layer: name -> (in, out)."""
        q, kv = self.heads * self.head, self.kv_heads * self.head
        return {
            "q_proj": (self.width, q),
            "k_proj": (self.width, kv),
            "v_proj": (self.width, kv),
            "o_proj": (q, self.width),
            "gate_proj": (self.width, self.mlp),
            "up_proj": (self.width, self.mlp),
            "down_proj": (self.mlp, self.width),
        }

    @property
    def layer(self) -> int:
        """Parameters of one layer, two norms of `width` among them."""
        biased = {
            **dict.fromkeys(("q_proj", "k_proj", "v_proj"), self.qkv_bias),
            "o_proj": self.out_bias,
            **dict.fromkeys(("gate_proj", "up_proj", "down_proj"), self.mlp_bias),
        }
        matrices = sum(i * o + (o if biased[name] else 0) for name, (i, o) in self.linear.items())
        return matrices + 2 * self.width + (2 * self.head if self.qk_norm else 0)

    @property
    def parameters(self) -> int:
        """All of them, a tied matrix once."""
        return self.layers * self.layer + self.vocabulary * self.width * (1 if self.tied else 2) + self.width

    @property
    def multiplied(self) -> int:
        """Parameters that a token is multiplied with: the matrices of the layers, and the head (looking an
        embedding up costs nothing)."""
        return self.layers * sum(i * o for i, o in self.linear.values()) + self.vocabulary * self.width

    def adapter(self, rank: int, targets: tuple[str, ...] = ()) -> int:
        """Parameters of a LoRA adapter (arXiv 2106.09685) on the named layers, on every linear one but the
        head where none is named."""
        sizes = [i + o for name, (i, o) in self.linear.items() if not targets or name in targets]
        return self.layers * rank * sum(sizes)

    @property
    def left(self) -> int:
        """Bytes that a token leaves for an update to read, its logits among them: in each layer its input,
        queries, keys, values, what attention gave, the sum behind it, gate and up."""
        layer = 2 * self.width + 2 * self.heads * self.head + 2 * self.kv_heads * self.head + 2 * self.mlp
        return 4 * (self.layers * layer + self.vocabulary)

    def kv_bytes(self, each: int = 2) -> int:
        """Bytes of keys and values of one token in all layers; `each`: bytes of a number."""
        return 2 * self.layers * self.kv_heads * self.head * each


def _qwen25(
    layers: int, width: int, heads: int, kv_heads: int, mlp: int, vocabulary: int, tied: bool
) -> Shape:
    return Shape(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head=width // heads,
        mlp=mlp,
        vocabulary=vocabulary,
        tied=tied,
        qkv_bias=True,
        context=32768,
    )


def _qwen3(layers: int, width: int, heads: int, mlp: int, tied: bool) -> Shape:
    return Shape(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=8,
        head=128,
        mlp=mlp,
        vocabulary=151936,
        tied=tied,
        qk_norm=True,
        context=40960,
    )


def _llama3(layers: int, width: int, heads: int, head: int, mlp: int, tied: bool) -> Shape:
    return Shape(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=8,
        head=head,
        mlp=mlp,
        vocabulary=128256,
        tied=tied,
        context=131072,
    )


# hub name without organisation and without -Base, -Instruct, in lower case: the paper's models, their
# siblings
KNOWN: dict[str, Shape] = {
    "qwen2.5-0.5b": _qwen25(24, 896, 14, 2, 4864, 151936, True),
    "qwen2.5-1.5b": _qwen25(28, 1536, 12, 2, 8960, 151936, True),
    "qwen2.5-3b": _qwen25(36, 2048, 16, 2, 11008, 151936, True),
    "qwen2.5-7b": _qwen25(28, 3584, 28, 4, 18944, 152064, False),
    "qwen2.5-14b": _qwen25(48, 5120, 40, 8, 13824, 152064, False),
    "qwen2.5-32b": _qwen25(64, 5120, 40, 8, 27648, 152064, False),
    "qwen3-0.6b": _qwen3(28, 1024, 16, 3072, True),
    "qwen3-1.7b": _qwen3(28, 2048, 16, 6144, True),
    "qwen3-4b": _qwen3(36, 2560, 32, 9728, True),
    "qwen3-8b": _qwen3(36, 4096, 32, 12288, False),
    "qwen3-14b": _qwen3(40, 5120, 40, 17408, False),
    "qwen3-32b": _qwen3(64, 5120, 64, 25600, False),
    "llama-3.2-1b": _llama3(16, 2048, 32, 64, 8192, True),
    "llama-3.2-3b": _llama3(28, 3072, 24, 128, 8192, True),
    "llama-3.1-8b": _llama3(32, 4096, 32, 128, 14336, False),
}


_COUNTS = ("layers", "width", "heads", "kv_heads", "head", "mlp", "vocabulary")  # of a shape; at least 1 each


def shape_of(path: str) -> Shape:
    """Of a folder with a config.json, of a model that the hub's cache holds, or of one of KNOWN. UserError
    where none of them helps."""
    local = Path(path).expanduser()
    if (shape := _of_gguf(path)) is not None:
        return shape
    if (local / "config.json").is_file():
        return read_config(local / "config.json")
    if lacks_model(path):
        raise UserError(f"{path} is not a model: it has no config.json, and is no GGUF file")
    cached = sorted(_cache().glob(f"models--{path.replace('/', '--')}/snapshots/*/config.json"))
    if cached:
        return read_config(cached[-1])
    name = path.split("/")[-1].lower().removesuffix("-instruct").removesuffix("-base")
    if name not in KNOWN:
        raise UserError(
            f"the shape of {path} is not known before it is downloaded (known: {', '.join(KNOWN)}); put its "
            "config.json into a folder and give that folder as --model for the dry run"
        )
    return KNOWN[name]


def _of_gguf(path: str) -> Shape | None:
    """Of a GGUF file, or a folder with one; None where there is none."""
    try:
        found = file_at(path)
        return None if found is None else from_config(config_of(read_header(found)))
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as a model: {error}") from None


def _cache() -> Path:
    """Where huggingface_hub keeps what it has downloaded."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def read_config(path: Path) -> Shape:
    """UserError for a file that is not JSON, lacks a number, has one that cannot be, or belongs to a kind of
    model that is built otherwise."""
    try:
        shape = from_config(json.loads(path.read_text(encoding="utf-8")))
        if wrong := next(
            (f"{n} {of}" for of in _COUNTS if type(n := getattr(shape, of)) is not int or n < 1), ""
        ):
            raise ValueError(f"{wrong}, where a whole number above 0 is needed")
        if type(shape.context) is not int or shape.context < 0:
            raise ValueError(f"a context of {shape.context!r} tokens")
        return shape
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        ZeroDivisionError,
        OverflowError,
        RecursionError,
    ) as error:
        raise UserError(f"{path}: cannot be read as a model's configuration ({error})") from None
    except KeyError as error:
        raise UserError(f"{path}: says nothing of {error}, so its parameters cannot be counted") from None


def from_config(config: Mapping[str, object]) -> Shape:
    """The Hugging Face configuration of a qwen2, qwen3, llama or mistral. KeyError for a number that is
    missing."""
    kind = config.get("model_type")
    if kind not in ("qwen2", "qwen3", "llama", "mistral"):
        raise UserError(
            f"a model of kind {kind!r} is not estimated; known are qwen2, qwen3, llama and mistral"
        )
    width, heads = config["hidden_size"], config["num_attention_heads"]
    bias = bool(config.get("attention_bias", False))
    return Shape(
        layers=config["num_hidden_layers"],
        width=width,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head=config.get("head_dim") or (128 if kind == "qwen3" else width // heads),
        mlp=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=kind == "qwen2" or bias,
        out_bias=bias and kind != "qwen2",
        mlp_bias=bool(config.get("mlp_bias", False)),
        qk_norm=kind == "qwen3",
        context=_context(kind, config),
    )


def _context(kind: str, config: Mapping[str, object]) -> int:
    """The positions, or the narrowest window or chunk of a layer where that is less: the engine takes no
    longer paths, because it attends fully. What the file leaves out is what `transformers` takes for a model
    of this kind."""
    kinds, qwen = set(config.get("layer_types") or ()), kind in ("qwen2", "qwen3")
    layers_slide = (
        "sliding_attention" in kinds
        if kinds
        else not qwen or config.get("max_window_layers", 28) < config["num_hidden_layers"]
    )
    bounds = [config.get("max_position_embeddings")]
    if layers_slide and (not qwen or config.get("use_sliding_window", False)):
        bounds.append(config.get("sliding_window", None if kind == "llama" else 4096))
    if "chunked_attention" in kinds:
        bounds.append(config.get("attention_chunk_size"))
    return min((bound for bound in bounds if bound), default=0)


def from_scratch(spec: ModelSpec, vocabulary: int) -> Shape:
    """The small model of a recipe, for as many tokens."""
    return Shape(
        layers=spec.layers,
        width=spec.width,
        heads=spec.heads,
        kv_heads=spec.heads,
        head=spec.width // spec.heads,
        mlp=spec.mlp,
        vocabulary=vocabulary,
        tied=False,
        qkv_bias=True,
    )
