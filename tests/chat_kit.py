"""What tests of conversations build from: tokenizers with the special tokens of published models and their
chat templates, each with a tiny model, and what a template makes of a whole conversation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import AddedToken, Regex, pre_tokenizers
from torch_kit import bpe_of, engine_of, model_of
from transformers import PreTrainedTokenizerFast

from forethought.engines.torch.engine import TorchEngine

TEMPLATES = Path(__file__).parent / "fixtures" / "templates"
TEXTS = [
    "user\n\nassistant\nThe lamp is on.\n\n\n  Pick the red cup, then système naïve 東京 🙂 <|im_end|>\r\n"
] * 4
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"]
SYSTEM = "Answer with one action."
# how Llama 3 and Qwen cut text: newlines stand apart from the word behind them
CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Family:
    special: list[str]
    end: str  # with which the template ends a turn
    others: list[str]  # with which the model may end it too
    begin: str | None = None
    words: list[str] = field(default_factory=list)  # added tokens that are not special
    system: bool = True
    tool: bool = True


FAMILIES = {
    "qwen2_5": Family(CHATML, "<|im_end|>", ["<|endoftext|>"], words=["<tool_call>", "</tool_call>"]),
    "qwen3": Family(
        CHATML, "<|im_end|>", ["<|endoftext|>"], words=["<think>", "</think>", "<tool_response>"]
    ),
    "llama3_2": Family(
        [*LLAMA, "<|eot_id|>", "<|eom_id|>"],
        "<|eot_id|>",
        ["<|eom_id|>", "<|end_of_text|>"],
        "<|begin_of_text|>",
    ),
    "gemma": Family(
        ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
        "<end_of_turn>",
        ["<eos>"],
        begin="<bos>",
        system=False,
        tool=False,
    ),
    "smollm2": Family(CHATML, "<|im_end|>", ["<|endoftext|>"]),
}
SYSTEMS = [
    (name, system) for name, f in FAMILIES.items() for system in ("", SYSTEM) if f.system or not system
]


def engine(name: str, template: str = "") -> TorchEngine:
    family = FAMILIES[name]
    tokenizer = bpe_of(TEXTS, 360, ["<pad>", *family.special])
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in family.words])
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CUT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.bos_token = family.begin
    tokenizer.eos_token = family.end
    tokenizer.chat_template = (TEMPLATES / f"{template or name}.jinja").read_text()
    model = model_of(vocab_size=len(tokenizer), max_position_embeddings=2048)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids([family.end, *family.others])
    return engine_of(model, tokenizer)


def own(tokenizer: PreTrainedTokenizerFast, messages: list[dict], **said) -> tuple[int, ...]:
    """What the template makes of a whole conversation, without anything of ours."""
    said = {"date_string": "26 Jul 2024", "add_generation_prompt": True} | said
    return tuple(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **said))


def start(system: str) -> list[dict]:
    asked = {"role": "user", "content": "Turn the lamp on."}
    return [{"role": "system", "content": system}, asked] if system else [asked]
