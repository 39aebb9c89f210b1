"""What a recipe says of models and of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# what engine.pack_tokens and engine.sample_rows are for "auto" on a CPU
PACK_TOKENS, SAMPLE_ROWS = 8192, 1024
# what engine.share_from is for "auto", in models of so many parameters and more
SHARE_FROM, SHARE_ABOVE = 32, 4_000_000
REUSES_FROM = 8_000_000  # parameters of a model whose updates read what sampling has left, unless told
# An update that reads what sampling left compares nothing with it. So of so many versions of a policy one is
# computed anew, and the gap between sampler and trainer is measured there.
CHECKED = 16
SPARE = 2  # rows end before their budget: they may ask for so many times what may be kept
LEFT = 4  # of the memory, one part in so many may be left for updates


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """`init = "small"`: a small decoder from scratch in the given size. `path`: any causal LM on disk
    or by hub name."""

    init: Literal["small", ""] = "small"
    """`small`: a small decoder from scratch in the size given here. Empty: only `path` counts."""
    path: str = ""
    """A causal language model: a folder of Hugging Face's, a GGUF file, or a name on the hub. It wins over
    `init`."""
    adapter: str = ""
    """A PEFT adapter on `path` (a folder, or a name on the hub) that is added into its weights before the run
    begins; one that was trained on another base is refused. Checkpoints then hold the base."""
    layers: int = 4
    """Layers of a model from scratch."""
    width: int = 128
    """Width of a model from scratch. It divides into `heads` heads of an even width."""
    heads: int = 4
    """Attention heads of a model from scratch."""
    mlp: int = 256
    """Width of the feed-forward layers of a model from scratch."""
    copies: bool = False
    """A model from scratch begins with heads that say again what follows the same word elsewhere. For tasks
    whose answers stand in their prompts, in words that mean nothing by themselves."""
    masks_absent: bool = False
    """Of the words that a taskset draws anew for each prompt (slots and ids of `web`), a model from scratch
    says only those that stand before: the others have probability 0, in sampling and in training."""
    vocabulary: int = 2048
    """Tokens of a model from scratch on a task in free text: a byte-level BPE, trained on the training
    problems."""
    trust_remote_code: bool = False
    """Whether a model may bring code of its own and run it. Somebody else's run asks for `--trust-code`
    beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSpec:
    """LoRA (arXiv 2106.09685) for layout "adapters"."""

    rank: int = 16
    """Rank of the adapters."""
    alpha: float = 32.0
    """Scale of the adapters: their product is multiplied by alpha / rank."""
    targets: tuple[str, ...] = ()
    """Names of the modules that get an adapter. Empty: every linear layer but the head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the products (autocast). `auto`: bf16 on a GPU; on a CPU what is faster there, which is timed
    when the run begins and kept by a resumed run."""
    layers: Literal["auto", "c", "torch"] = "auto"
    """What computes the layers of a training step on a CPU: the kernels in C, or PyTorch. `auto`: what
    is faster, timed when the run begins and kept by a resumed run."""
    sampling: Literal["auto", "c", "torch"] = "auto"
    """What samples rows on a CPU: the kernels in C, or PyTorch. `auto`: what is faster, timed when the run
    begins and kept by a resumed run."""
    products: Literal["auto", "amx", "avx512_bf16", "avx512", "avx2", "plain"] = "auto"
    """Instructions of the products in C. `auto`: the widest that the processor has and the system allows,
    kept by a resumed run."""
    weights: Literal["auto", "fp32", "bf16", "nf4"] = "auto"
    """How the weights of a loaded model are kept. `auto`: fp32 where a stage trains whole models (a bf16
    number loses most of a small update), else as its files say (fp32 on a CPU). `nf4`: four bits a number,
    for adapters alone (QLoRA; docs/models.md)."""
    threads: int | Literal["auto"] = "auto"
    """Threads of PyTorch on the CPU. `auto` (or 0): one below 4M parameters; for a larger model what is
    fastest when the run begins. The number changes the last bits of sums."""
    kernel_threads: int | Literal["auto"] = "auto"
    """Threads of the kernels in C, which sample rows and train layers on a CPU. They change no bit;
    `auto`: one for each core, and no more than OMP_NUM_THREADS says."""
    pack_tokens: int | Literal["auto"] = "auto"
    """Most tokens of one forward and backward pass. `auto`: 8192, on a GPU what its free memory is
    estimated to hold; where memory runs out, half, with the same gradient. A number that does not fit
    stops the run."""
    sample_rows: int | Literal["auto"] = "auto"
    """Most sequences decoded together. `auto`: 1024, on a GPU what its free memory is estimated to hold;
    where memory runs out, half, with the same samples."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Computes activations again in the backward pass, layer by layer, instead of keeping them: less memory,
    more time, the same gradient to the bit. `auto`: where those of a pass are estimated not to fit what is
    free, of models whose layers are written out here (Llama, Qwen2, Qwen3, Mistral)."""
    reuse_forward: Literal["auto", "on", "off"] = "auto"
    """Whether an update reads the activations that sampling on the same weights has left, instead of
    computing its forward pass again; every sixteenth update computes it, and measures the gap between
    sampler and trainer. `auto`: from 8M parameters on, on a CPU."""
    prefix_cache: int | Literal["auto"] = "auto"
    """MiB of keys and values that stay between calls, so that a turn costs its own tokens. 0: none.
    `auto`: a sixteenth of the machine's memory, or of its GPU's."""
    share_from: int | Literal["auto"] = "auto"
    """Least tokens with which prompts of a training batch have to begin alike so that these are computed once
    for all of them: the same gradient but for its last bits. `auto`: 32 from 4M parameters on, and nothing
    below. 0: nothing."""

    @property
    def asked(self) -> int:
        """`threads`, 0 for auto."""
        return 0 if self.threads == "auto" else self.threads

    @property
    def tokens(self) -> int:
        """`pack_tokens`, or what auto is where nothing is known of the memory."""
        return PACK_TOKENS if self.pack_tokens == "auto" else self.pack_tokens

    def shared(self, parameters: int) -> int:
        """`share_from` for a model of so many parameters."""
        if self.share_from == "auto":
            return SHARE_FROM if parameters >= SHARE_ABOVE else 0
        return self.share_from

    def reuses(self, parameters: int) -> bool:
        """Whether updates of a model of so many parameters are to read what sampling has left. Who computes
        layers again to save memory keeps nothing either."""
        wanted = parameters >= REUSES_FROM if self.reuse_forward == "auto" else self.reuse_forward == "on"
        return wanted and self.gradient_checkpointing is not True

    @property
    def rows(self) -> int:
        """`sample_rows`, or what auto is where nothing is known of the memory."""
        return SAMPLE_ROWS if self.sample_rows == "auto" else self.sample_rows
