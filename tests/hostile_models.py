"""Folders that pretend to be models: name -> (what it does to a sound folder, what is said of it; "" where it
does no harm).

Each begins as a copy of one sound folder of a few kB: a llama of 2 layers with 32 words. Code that any of
them brings would make the folder `MARK` beside the model.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

MARK = "code-ran"  # beside the folder
Attack = Callable[[Path], object]
WEIGHTS, INDEX, CONFIG, TOKENIZER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "tokenizer.json",
)


class Bomb:
    """A pickle that makes a folder when it is read."""

    def __init__(self, folder: Path):
        self.mark = str(folder.parent / MARK)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


# Tools ------------------------------------------------------------------------------------------------------


def edit(file: str, **fields) -> Attack:
    """Fields of a JSON file; None takes one out."""

    def act(folder: Path) -> None:
        path = folder / file
        record = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({k: v for k, v in (record | fields).items() if v is not None}))

    return act


def config(**fields) -> Attack:
    return edit(CONFIG, **fields)


def write(file: str, text: str | bytes) -> Attack:
    return lambda folder: (folder / file).write_bytes(text.encode() if isinstance(text, str) else text)


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Attack:
    """The weights, changed in place or replaced by what `change` returns."""

    def act(folder: Path) -> None:
        state = {k: p.clone() for k, p in load_file(folder / WEIGHTS).items()}
        replaced = change(state)
        (folder / WEIGHTS).unlink()
        save_file(
            replaced if isinstance(replaced, dict) else state, folder / WEIGHTS, metadata={"format": "pt"}
        )

    return act


def number(name: str, value: float, at: tuple[int, ...] = (9, 3)) -> Attack:
    def change(state: dict[str, torch.Tensor]) -> None:
        state[name][at] = value

    return tensors(change)


def sharded(
    weight_map: Callable[[dict[str, str]], object], shard: str = "model-00001-of-00001.safetensors"
) -> Attack:
    """One shard, and an index that `weight_map` makes of the honest one."""

    def act(folder: Path) -> None:
        names = {key: shard for key in load_file(folder / WEIGHTS)}
        (folder / WEIGHTS).rename(folder / shard)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map(names)}))

    return act


def pickled(file: str, keep: bool = False, legacy: bool = False) -> Attack:
    """A bomb in place of the weights, or beside them."""

    def act(folder: Path) -> None:
        if not keep:
            (folder / WEIGHTS).unlink()
        if legacy:
            (folder / file).write_bytes(pickle.dumps(Bomb(folder)))
        else:
            torch.save({"model.embed_tokens.weight": Bomb(folder)}, folder / file)

    return act


def honest_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def outside(folder: Path) -> None:
    """An index that reads a file beside the folder."""
    sharded(lambda names: names)(folder)
    (folder / "model-00001-of-00001.safetensors").rename(folder.parent / "outside.safetensors")
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../outside.safetensors")
    (folder / INDEX).write_text(json.dumps(index))


def absolute(folder: Path) -> None:
    outside(folder)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], str(folder.parent / "outside.safetensors"))
    (folder / INDEX).write_text(json.dumps(index))


def header(change: Callable[[dict], object]) -> Attack:
    """The header of the weights' file, changed; the numbers stay."""

    def act(folder: Path) -> None:
        raw = (folder / WEIGHTS).read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        record = json.loads(raw[8 : 8 + size])
        change(record)
        text = json.dumps(record).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])

    return act


def code(folder: Path) -> None:
    """Code of its own for everything that can have some."""
    text = f"import os\nos.mkdir({str(folder.parent / MARK)!r})\nclass It: pass\n"
    (folder / "stranger.py").write_text(text)
    config(
        model_type="strange", auto_map={"AutoConfig": "stranger.It", "AutoModelForCausalLM": "stranger.It"}
    )(folder)


def tokenizer_code(folder: Path) -> None:
    (folder / "stranger.py").write_text(
        f"import os\nos.mkdir({str(folder.parent / MARK)!r})\nclass It: pass\n"
    )
    edit(
        "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["stranger.It", "stranger.It"]},
        tokenizer_class="It",
    )(folder)


def own_generation(folder: Path) -> None:
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate/generate.py").write_text(
        f"import os\nos.mkdir({str(folder.parent / MARK)!r})\n"
    )


def pipe(file: str) -> Attack:
    def act(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return act


def endless(file: str) -> Attack:
    def act(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to("/dev/zero")

    return act


def words(change: Callable[[dict], object]) -> Attack:
    """tokenizer.json, changed."""

    def act(folder: Path) -> None:
        record = json.loads((folder / TOKENIZER).read_text())
        change(record)
        (folder / TOKENIZER).write_text(json.dumps(record))

    return act


def negative(record: dict) -> None:
    record["model"]["vocab"]["w5"] = -1


def huge(record: dict) -> None:
    record["model"]["vocab"]["w5"] = 1 << 31


def beyond(record: dict) -> None:
    record["model"]["vocab"]["w5"] = 32


def links(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder.parent / "elsewhere")


def bpe_at_random(folder: Path) -> None:
    from torch_kit import bpe_of

    bpe_of(["w0 w1"], 258).save_pretrained(folder)
    words(lambda record: record["model"].update(dropout=0.5))(folder)


DEEP = "[" * 100_000 + "]" * 100_000
EMBED, HEAD, Q = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.self_attn.q_proj.weight"
SCALED = {"rope_type": "linear", "rope_theta": 1e4}

FOLDERS: dict[str, tuple[Attack, str]] = {
    # code and pickles
    "pickle": (pickled("pytorch_model.bin"), r"pickles only \(pytorch_model.bin\)"),
    "pickle, legacy": (pickled("pytorch_model.bin", legacy=True), "pickles only"),
    "pickle, honest": (honest_pickle, "pickles only .* convert it to safetensors"),
    "pickle beside safetensors": (pickled("pytorch_model.bin", keep=True), ""),
    "pickle of training arguments": (pickled("training_args.bin", keep=True), ""),
    "pickle called pt": (pickled("model.pt"), "pickles only"),
    "pickle called safetensors": (pickled(WEIGHTS), "cannot be loaded"),
    "pickle in the index": (
        sharded(lambda names: dict.fromkeys(names, "pytorch_model.bin")),
        "'pytorch_model.bin'; weights are read from",
    ),
    "code of its own": (code, "trust_remote_code"),
    "code of its own for the tokenizer": (tokenizer_code, ""),  # tokenizer.json needs none
    "code of its own for generation": (own_generation, ""),
    "adapter": (
        write("adapter_config.json", '{"base_model_name_or_path": "/", "peft_type": "LORA"}'),
        "is an adapter",
    ),
    "quantised": (
        config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        "is quantised",
    ),
    # files
    "index outside": (outside, "'../outside.safetensors', which lies outside"),
    "index absolute": (absolute, "which lies outside of the folder"),
    "index inside": (sharded(lambda names: names), ""),
    "index of files that are not there": (
        sharded(lambda names: dict.fromkeys(names, "no.safetensors")),
        "'no.safetensors', which is not",
    ),
    "index with numbers": (sharded(lambda names: dict.fromkeys(names, 7)), "no weight_map"),
    "index as a list": (sharded(list), "no weight_map"),
    "index that is empty": (sharded(lambda names: {}), "no weight_map"),
    "index with NUL": (sharded(lambda names: dict.fromkeys(names, "a\0.safetensors")), "outside"),
    # the shard holds the rest all the same
    "index that lists less": (sharded(lambda names: dict(list(names.items())[:2])), ""),
    "weights named by the configuration": (
        config(transformers_weights="../outside.safetensors"),
        "transformers_weights",
    ),
    "weights behind a link": (links, ""),
    "weights missing": (lambda folder: (folder / WEIGHTS).unlink(), "has no model.safetensors"),
    "weights empty": (write(WEIGHTS, b""), "cannot be loaded"),
    "weights torn": (lambda folder: os.truncate(folder / WEIGHTS, 3000), "cannot be loaded"),
    "weights as text": (write(WEIGHTS, "hello" * 99), "cannot be loaded"),
    "weights as a pipe": (pipe(WEIGHTS), "neither a file nor a folder"),
    "tokenizer as a pipe": (pipe(TOKENIZER), "neither a file nor a folder"),
    "tokenizer without an end": (endless(TOKENIZER), "neither a file nor a folder"),
    "header of 2^60 bytes": (
        lambda folder: (folder / WEIGHTS).write_bytes(struct.pack("<Q", 1 << 60) + b"{}"),
        "cannot be loaded",
    ),
    "header of other places": (header(lambda h: h[Q].update(data_offsets=[0, 1 << 40])), "cannot be loaded"),
    "header of tensors in one place": (
        header(lambda h: h[Q].update(data_offsets=h[EMBED]["data_offsets"])),
        "cannot be loaded",
    ),
    "header of another type": (
        header(lambda h: h[Q].update(dtype="I32")),
        "stored as I32; weights are read as one of",
    ),
    # JSON
    "config as a list": (write(CONFIG, "[1]"), "holds no table but a list"),
    "config torn": (write(CONFIG, '{"model_type": "lla'), "cannot be read as JSON"),
    "config empty": (write(CONFIG, ""), "cannot be read as JSON"),
    "config deep": (write(CONFIG, f'{{"model_type": {DEEP}}}'), "cannot be read as JSON"),
    "config with a number of 5000 digits": (
        write(CONFIG, f'{{"model_type": "llama", "vocab_size": {"9" * 5000}}}'),
        "cannot be read as JSON",
    ),
    "config of no encoding": (write(CONFIG, b"\xff\xfe{}"), "cannot be read as JSON"),
    "config without a kind": (config(model_type=None), "cannot be loaded"),
    "config of a kind with no name": (config(model_type=["llama"]), "cannot be loaded"),
    # numbers
    "positions 10^12": (
        config(max_position_embeddings=10**12),
        "max_position_embeddings = 1000000000000 is not a whole number from 1",
    ),
    "positions 2^25": (config(max_position_embeddings=1 << 25), ""),
    "positions -5": (config(max_position_embeddings=-5), "max_position_embeddings = -5"),
    "positions true": (config(max_position_embeddings=True), "max_position_embeddings = True"),
    "layers 10^7": (config(num_hidden_layers=10**7), "num_hidden_layers = 10000000"),
    "layers 8000": (config(num_hidden_layers=8000), r"says 8,000 layers .* its files hold \d+ tensors"),
    "layers 3": (config(num_hidden_layers=3), "lacks weights of LlamaForCausalLM: model.layers.2"),
    "layers 1": (config(num_hidden_layers=1), ""),  # said in a note
    "layers 0": (config(num_hidden_layers=0), "num_hidden_layers = 0"),
    "layers 1.5": (config(num_hidden_layers=1.5), "num_hidden_layers = 1.5"),
    "head_dim 10^6": (config(head_dim=10**6), "head_dim = 1000000"),
    "head_dim 16384": (config(head_dim=16384), r"has the shape \[32, 32\] in the files and"),
    "head_dim as text": (config(head_dim="8"), "head_dim = '8'"),
    "heads 0": (config(num_attention_heads=0), "num_attention_heads = 0"),
    "heads 3": (config(num_attention_heads=3, head_dim=None), "cannot be loaded"),
    "heads 4.0": (config(num_attention_heads=4.0), "num_attention_heads = 4.0"),
    "kv heads 0": (config(num_key_value_heads=0), "num_key_value_heads = 0"),
    "kv heads 3": (config(num_key_value_heads=3), r"has the shape \[16, 32\] in the files and"),
    "kv heads 10^9": (config(num_key_value_heads=10**9), "num_key_value_heads = 1000000000"),
    "hidden_size as text": (config(hidden_size="x"), "hidden_size = 'x'"),
    "hidden_size as a list": (config(hidden_size=[32]), r"hidden_size = \[32\]"),
    "hidden_size 10^15": (config(hidden_size=10**15), "hidden_size = 1000000000000000"),
    "hidden_size 2^20": (config(hidden_size=1 << 20), r"has the shape \[.*\] in the files and"),
    "intermediate_size 2^20": (
        config(intermediate_size=1 << 20),
        r"has the shape \[.*\] in the files and "
        r"\[1048576, 32\]",
    ),
    "intermediate_size -48": (config(intermediate_size=-48), "intermediate_size = -48"),
    "vocab_size 10^10": (config(vocab_size=10**10), "vocab_size = 10000000000"),
    "vocab_size 2^24": (
        config(vocab_size=1 << 24),
        r"has the shape \[32, 32\] in the files and \[16777216, "
        r"32\]",
    ),
    "vocab_size 10^40": (config(vocab_size=10**40), "vocab_size = a number of more than 30 digits"),
    "vocab_size 5": (config(vocab_size=5), "do not belong together"),
    "tie as text": (config(tie_word_embeddings="x"), "tie_word_embeddings = 'x'"),
    "dtype float8": (config(dtype="float8"), "dtype = 'float8' is not a type"),
    "dtype as a number": (config(dtype=16), "dtype = 16 is not a type"),
    "eps NaN": (config(rms_norm_eps=float("nan")), "rms_norm_eps = nan"),
    "eps as text": (config(rms_norm_eps="1e-6"), "rms_norm_eps = '1e-6'"),
    "theta 0": (
        config(rope_parameters={"rope_type": "default", "rope_theta": 0}),
        "rope_theta = 0 is not a positive number",
    ),
    "theta infinite": (
        config(rope_parameters={"rope_type": "default", "rope_theta": float("inf")}),
        "rope_theta = inf",
    ),
    "rope of no kind": (config(rope_parameters={"rope_type": "astral", "rope_theta": 1e4}), "."),
    "rope factor NaN": (
        config(rope_parameters=SCALED | {"factor": float("nan")}),
        "factor = nan is not finite",
    ),
    "rope factor as text": (config(rope_parameters=SCALED | {"factor": "2"}), "."),
    "activation of no kind": (config(hidden_act="no-such"), "cannot be loaded"),
    "activation as a number": (config(hidden_act=5), "cannot be loaded"),
    "layer types as a number": (config(layer_types=5), "."),
    "eos as text": (config(eos_token_id="x"), "eos_token_id = 'x' is not a token id"),
    "eos 10^15": (config(eos_token_id=10**15), "eos_token_id"),
    "eos beyond the rows": (edit("generation_config.json", eos_token_id=[1, 99999]), ""),
    "eos of generation as text": (edit("generation_config.json", eos_token_id="x"), ""),
    "generation config as a list": (write("generation_config.json", "[]"), "holds no table but a list"),
    "generation config torn": (
        write("generation_config.json", '{"eos_token_id": [1,'),
        "generation_config.json cannot be read as JSON",
    ),
    # weights
    "inf in an embedding": (number(EMBED, float("inf")), f"{EMBED} holds numbers that are not finite"),
    "minus inf in the head": (number(HEAD, float("-inf")), f"{HEAD} holds numbers that are not finite"),
    "NaN in a query": (number(Q, float("nan")), f"{Q} holds numbers that are not finite"),
    "NaN in a norm": (
        number("model.norm.weight", float("nan"), (3,)),
        "model.norm.weight holds numbers that are not finite",
    ),
    "numbers too large to compute": (
        tensors(lambda s: s | {HEAD: torch.full((32, 32), 3e38)}),
        "logits that are not finite",
    ),
    "a tensor missing": (
        tensors(lambda s: {k: p for k, p in s.items() if k != Q}),
        f"lacks weights of LlamaForCausalLM: {Q}",
    ),
    "a head missing": (
        tensors(lambda s: {k: p for k, p in s.items() if k != HEAD}),
        f"lacks weights of LlamaForCausalLM: {HEAD}",
    ),
    # said in a note
    "a tensor too much": (tensors(lambda s: s | {"model.layers.7.spare": torch.zeros(4)}), ""),
    "a tensor in place of another": (
        tensors(lambda s: {k.replace("q_proj", "z_proj"): p for k, p in s.items()}),
        "lacks weights",
    ),
    "tensors of nothing": (tensors(lambda s: {k: p[:0] for k, p in s.items()}), r"has the shape \[0, 32\]"),
    "no tensors": (tensors(lambda s: {"x": torch.zeros(1)}), "."),
    "names that move the cursor": (tensors(lambda s: s | {"\x1b]0;TITLE\x07": torch.zeros(4)}), ""),
    # words
    "tokenizer missing": (
        lambda folder: [(folder / f).unlink() for f in (TOKENIZER, "tokenizer_config.json")],
        "has no tokenizer",
    ),
    "tokenizer id -1": (words(negative), "tokenizer.json cannot be read"),
    "tokenizer id 2^31": (words(huge), "has a token with the id 2147483648, its model embeds 32"),
    "tokenizer id beyond the rows": (words(beyond), "has a token with the id 32, its model embeds 32"),
    "tokenizer as a list": (write(TOKENIZER, "[]"), "tokenizer.json cannot be read"),
    "tokenizer deep": (write(TOKENIZER, DEEP), "cannot be loaded"),
    "tokenizer of no kind": (
        words(lambda record: record["model"].update(type="Astral")),
        "tokenizer.json cannot be read",
    ),
    "tokenizer that cuts at random": (bpe_at_random, "cuts words at random"),
    "tokenizer_config as a list": (write("tokenizer_config.json", "[]"), "cannot be loaded"),
    "tokenizer_config deep": (write("tokenizer_config.json", DEEP), "cannot be loaded"),
    "tokenizer class of no kind": (edit("tokenizer_config.json", tokenizer_class="NoSuch"), ""),
    "tokenizer with other ids": (
        edit("tokenizer_config.json", added_tokens_decoder={"7": {"content": "<x>", "special": True}}),
        "id 7",
    ),
    "tokenizer elsewhere": (
        edit("tokenizer_config.json", tokenizer_file="/etc/hostname", vocab_file="/etc/hostname"),
        "",
    ),
    "end of text as a number": (edit("tokenizer_config.json", eos_token=5), "."),
    "end of text that is no word": (
        edit("tokenizer_config.json", eos_token="<nowhere>"),
        r"has 33 tokens, its model embeds 32 \('<nowhere>' has the id 32\)",
    ),
    "template as a number": (edit("tokenizer_config.json", chat_template=5), "*"),
    "template that loads": (
        edit("tokenizer_config.json", chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        "",
    ),
}
