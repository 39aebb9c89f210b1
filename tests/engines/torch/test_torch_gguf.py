"""A GGUF file as a start: what is read is what was written, to the bit where the file holds plain numbers,
and what cannot be read is refused by name."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from chat_kit import CUT, TEXTS
from safetensors.torch import load_file
from test_torch_loading import refusal
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch_kit import bpe_of, model_of, on_disk, plain_logits
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from forethought.core.errors import CheckpointError, UserError
from forethought.core.types import Request
from forethought.engines.gguf_families import FAMILIES, llama3_factors, llama3_of
from forethought.engines.gguf_header import read_header
from forethought.engines.torch.engine import TorchEngine
from forethought.engines.torch.export.gguf import write_gguf
from forethought.engines.torch.export.gguf_file import write_file
from forethought.engines.torch.models.chat import ends_of
from forethought.engines.torch.models.gguf import digest
from forethought.engines.torch.models.loading import from_path
from forethought.engines.torch.models.tokenizer import PROBES, begin_of
from forethought.estimate.shapes import shape_of
from forethought.recipe.schema import AdapterSpec, EngineSpec

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
KINDS = {  # name -> type in transformers, fields
    "llama": ("llama", {}),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3.2": ("llama", {"hidden_size": 64, "rope_parameters": LLAMA3}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "gemma": ("gemma", {"head_dim": 16, "tie_word_embeddings": True}),
    "phi3": ("phi3", {"sliding_window": 64}),
    "olmo2": ("olmo2", {}),
    "granite": ("granite", {}),
    "smollm3": ("smollm3", {"num_hidden_layers": 5, "no_rope_layer_interval": 4}),
}


def folder_of(path: Path, kind: str = "llama", tokenizer=None, **fields) -> Path:
    """A model of a kind with no norm at one and no bias at zero."""
    tokenizer = tokenizer or bpe_of(TEXTS, 300)
    model = model_of(kind, vocab_size=len(tokenizer), **fields)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return Path(on_disk(path, model, tokenizer))


def gguf_of(folder: Path, to: Path, precision: str = "f32") -> Path:
    write_gguf(folder, to, precision, "theirs")
    return to


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """A llama in 32-bit numbers."""
    folder = tmp_path_factory.mktemp("gguf")
    return gguf_of(folder_of(folder / "model"), folder / "m.gguf")


@pytest.mark.parametrize("name", KINDS)
def test_what_was_written_is_read_bit_for_bit(name, tmp_path):
    kind, fields = KINDS[name]
    folder = folder_of(tmp_path / "model", kind, **fields)
    ours, theirs = from_path(str(gguf_of(folder, tmp_path / "m.gguf"))), from_path(str(folder))
    own, wanted = dict(ours.model.named_parameters()), dict(theirs.model.named_parameters())
    assert own.keys() == wanted.keys()
    # a norm that is stored one larger loses the last bit
    least = 2e-7 if kind == "gemma" else 0.0
    assert all((own[key] - p).abs().max() <= least for key, p in wanted.items())
    ids = [3, 40, 7, 250, 9, 9, 31]
    with torch.no_grad():
        found, said = plain_logits(ours.model, ids), plain_logits(theirs.model, ids)
    assert (found - said).abs().max() <= (1e-4 if kind == "gemma" else 1e-6)
    if name in ("llama", "tied", "qwen2", "qwen3"):
        assert shape_of(str(tmp_path / "m.gguf")).parameters == theirs.model.num_parameters()


def spoken(path: str) -> list[tuple[int, ...]]:
    engine = TorchEngine(
        from_path(path), EngineSpec(device="cpu", precision="fp32", threads=1), AdapterSpec()
    )
    contexts = [engine.encode(text) for text in ("The lamp", "Pick the red cup, then", "user\n")]
    asked = [
        Request(policy="base", context=ids, n=1, stops=(), max_tokens=12, temperature=0.0) for ids in contexts
    ]
    return [outs[0].token_ids for outs in engine.sample(asked)]


def test_half_numbers_say_the_same(tmp_path):
    folder = folder_of(tmp_path / "model")
    gguf_of(folder, tmp_path / "m.gguf", "f16")
    own = dict(from_path(str(tmp_path / "m.gguf")).model.named_parameters())
    for key, p in load_file(folder / "model.safetensors").items():
        wanted = p.half().float() if p.dim() > 1 else p
        assert torch.equal(own[key], wanted), key
    assert spoken(str(tmp_path / "m.gguf")) == spoken(str(folder))


QUANTISED = ("Q8_0", "Q4_0", "Q5_1", "Q6_K", "BF16")


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_numbers_are_read_as_llama_cpp_reads_them(kind, tmp_path):
    gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
    folder = folder_of(tmp_path / "model", hidden_size=256, intermediate_size=256, num_attention_heads=4)
    header = read_header(gguf_of(folder, tmp_path / "plain.gguf"))
    data, writer = header.path.read_bytes(), gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    for key, value in header.fields.items():
        if key == "general.architecture":
            continue
        kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
        kinds |= {str: writer.add_string, list: writer.add_array}
        kinds[type(value)](key, value)
    wanted = {}
    for key, stored in header.tensors.items():
        raw = torch.frombuffer(bytearray(data[stored.start :][: stored.size]), dtype=torch.float32)
        tensor, number = raw.reshape(stored.shape).numpy(), gguf.GGMLQuantizationType[kind]
        if len(stored.shape) == 1:
            writer.add_tensor(key, tensor)
            continue
        try:
            packed = gguf.quantize(tensor, number)
        except NotImplementedError:  # llama.cpp's library only reads them: any bytes are numbers
            blocks, size = gguf.GGML_QUANT_SIZES[number]
            generator = torch.Generator().manual_seed(1)
            shape = (stored.shape[0], stored.shape[1] // blocks * size)
            packed = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).numpy()
            scales = packed.reshape(-1, size)[:, -2:]  # Q6_K's, at its end
            scales[:] = torch.tensor([1e-4], dtype=torch.float16).view(torch.uint8).numpy()
        writer.add_tensor(key, packed, raw_dtype=number)
        wanted[key] = torch.from_numpy(gguf.dequantize(packed, number))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded = from_path(str(tmp_path / "m.gguf"))
    state = dict(loaded.model.named_parameters())
    for name in ("token_embd", "output", "blk.1.ffn_down"):
        ours = {
            "token_embd": "model.embed_tokens",
            "output": "lm_head",
            "blk.1.ffn_down": "model.layers.1.mlp.down_proj",
        }[name]
        assert torch.equal(state[f"{ours}.weight"], wanted[f"{name}.weight"]), name
    assert f"llama, {kind} " in loaded.notes[0] and "read as float32" in loaded.notes[0]
    if kind == "Q8_0":
        assert spoken(str(tmp_path / "m.gguf")) == spoken(str(folder))


def test_without_the_extra_a_quantised_file_says_which(file, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gguf", None)
    header = read_header(file)
    raw = bytearray(file.read_bytes())
    where = raw.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4 + 16
    raw[where : where + 4] = struct.pack("<I", 8)  # Q8_0 takes less room
    (tmp_path / "m.gguf").write_bytes(raw)
    assert header.tensors["blk.0.attn_q.weight"].kind == "F32"
    assert 'needs the extra `gguf`: pip install "forethought[gguf]"' in refusal(tmp_path / "m.gguf")


# Words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_text_is_cut_as_the_tokenizer_cut_it(cut, tmp_path):
    tokenizer = bpe_of(TEXTS, 420, ["<pad>", "<eos>", "<|im_start|>", "<|im_end|>", "<bos>"])
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.bos_token = "<bos>"
    regex = CUT if cut == "llama-bpe" else CUT.replace(r"\p{L}+|\p{N}", r"\p{L}+|\p{N}")
    regex = regex.replace(r"|\p{N}|", r"|\p{N}{1,3}|") if cut == "llama-bpe" else regex
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut in ("gpt-2", "smollm"))
    before = {
        "gpt-2": [],
        "smollm": [pre_tokenizers.Digits(individual_digits=True)],
        "qwen2": [pre_tokenizers.Split(Regex(regex), "isolated")],
        "llama-bpe": [pre_tokenizers.Split(Regex(regex), "isolated")],
    }[cut]
    below = tokenizer.backend_tokenizer
    below.pre_tokenizer = pre_tokenizers.Sequence([*before, byte_level])
    if cut == "qwen2":
        below.normalizer = normalizers.NFC()
    tokenizer.add_bos_token = True
    folder = folder_of(tmp_path / "model", tokenizer=tokenizer)
    read = from_path(str(gguf_of(folder, tmp_path / "m.gguf")))
    assert read_header(tmp_path / "m.gguf").fields["tokenizer.ggml.pre"] == cut
    for text in [*PROBES, *TEXTS, "<|im_start|>user<think> 1234567<|im_end|>"]:
        wanted = tokenizer.encode(text, add_special_tokens=False)
        assert read.tokenizer.encode(text, add_special_tokens=False) == wanted, text
        assert read.tokenizer.decode(wanted) == tokenizer.decode(wanted)
    assert read.tokenizer.chat_template == tokenizer.chat_template
    assert read.tokenizer.eos_token == "<eos>" and begin_of(read.tokenizer) == (tokenizer.bos_token_id,)
    assert read.tokenizer.convert_tokens_to_ids("<think>") not in read.tokenizer.all_special_ids


def pieces() -> tuple[PreTrainedTokenizerFast, dict]:
    """SentencePiece's BPE as Llama 2 has it, and the fields with which a file describes it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([text.replace("\n", " ") for text in TEXTS], trainer)
    state = tokenizer.get_vocab()
    words = sorted(state, key=state.get)
    tokenizer = Tokenizer(  # the bytes are no added tokens
        models.BPE(
            vocab=state,
            merges=_merges(tokenizer),
            byte_fallback=True,
            fuse_unk=True,
            unk_token="<unk>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    ranks = {"".join(pair): i for i, pair in enumerate(_merges(tokenizer))}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ), {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": [float(-ranks.get(word, 0)) if word in ranks else 0.0 for word in words],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(words) - 259),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.add_bos_token": None,
    }


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def test_sentencepiece_is_read_from_scores(tmp_path):
    tokenizer, said = pieces()
    model = model_of(vocab_size=len(tokenizer))
    folder = Path(on_disk(tmp_path / "model", model, bpe_of(TEXTS, 300)))
    rewrite(gguf_of(folder, tmp_path / "m.gguf"), tmp_path / "s.gguf", said)
    read = from_path(str(tmp_path / "s.gguf")).tokenizer
    for text in [*PROBES, *TEXTS, "", " ", "a</s>b"]:
        wanted = tokenizer.encode(text, add_special_tokens=False)
        assert read.encode(text, add_special_tokens=False) == wanted, text
        assert read.decode(wanted, clean_up_tokenization_spaces=False) == tokenizer.decode(
            wanted, clean_up_tokenization_spaces=False
        )
    assert begin_of(read) == (1,)  # llama.cpp puts one there where the file does not say
    llama = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    theirs = llama.Llama(str(tmp_path / "s.gguf"), vocab_only=True, verbose=False)
    for text in [*PROBES, *TEXTS]:
        found = theirs.tokenize(text.encode(), add_bos=False, special=True)
        assert found == read.encode(text, add_special_tokens=False), text


def test_what_was_written_in_pieces_is_read_in_pieces(tmp_path):
    tokenizer, _ = pieces()
    folder = Path(on_disk(tmp_path / "model", model_of(vocab_size=len(tokenizer)), tokenizer))
    read = from_path(str(gguf_of(folder, tmp_path / "m.gguf"))).tokenizer
    for text in [*PROBES, *TEXTS, "a</s>b"]:
        wanted = tokenizer.encode(text, add_special_tokens=False)
        assert read.encode(text, add_special_tokens=False) == wanted, text


def test_every_end_of_a_turn_is_read(tmp_path):
    tokenizer = bpe_of(TEXTS, 300, ["<pad>", "<eos>", "<|im_end|>", "<|eom|>"])
    folder = folder_of(tmp_path / "model", tokenizer=tokenizer)
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 2, 3]}')
    read = from_path(str(gguf_of(folder, tmp_path / "m.gguf")))
    assert ends_of(read.tokenizer, read.model) == (1, frozenset({1, 2, 3}))


def test_rows_beyond_the_words_are_no_tokens(tmp_path):
    folder = Path(on_disk(tmp_path / "model", model_of(vocab_size=320), bpe_of(TEXTS, 300)))
    read = from_path(str(gguf_of(folder, tmp_path / "m.gguf")))
    assert len(read.tokenizer) == 300 and read.model.config.vocab_size == 320
    engine = TorchEngine(read, EngineSpec(device="cpu", precision="fp32", threads=1), AdapterSpec())
    assert any("20 of the 320 ids" in note for note in engine.notes)


# Where the file lies ----------------------------------------------------------------------------------------


def test_a_folder_with_one_file_is_that_file(file, tmp_path):
    shutil.copy(file, tmp_path / "only.gguf")
    (tmp_path / "README.md").write_text("a model")
    assert from_path(str(tmp_path)).fingerprint.config == digest(file)
    assert shape_of(str(tmp_path)).layers == 2
    shutil.copy(file, tmp_path / "other.gguf")
    assert "holds 2 GGUF files (only.gguf, other.gguf); name the one to begin with" in refusal(tmp_path)


def test_safetensors_beside_a_gguf_are_taken(file, tmp_path):
    folder = folder_of(tmp_path / "model", "qwen2")
    shutil.copy(file, folder / "m.gguf")
    assert from_path(str(folder)).model.config.model_type == "qwen2"
    assert from_path(str(folder / "m.gguf")).model.config.model_type == "llama"


def test_a_file_on_the_hub(file, tmp_path, monkeypatch):
    """As its cache has it, without a network."""
    from huggingface_hub import constants

    snapshot = tmp_path / "models--some--theirs/snapshots/0123456789012345678901234567890123456789"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--some--theirs/refs").mkdir()
    (tmp_path / "models--some--theirs/refs/main").write_text(snapshot.name)
    shutil.copy(file, snapshot / "m.gguf")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    loaded = from_path("some/theirs/m.gguf")
    assert loaded.source == "some/theirs/m.gguf" and loaded.fingerprint.config == digest(file)
    with pytest.raises(UserError, match="some/theirs/no.gguf cannot be loaded as a causal language model"):
        from_path("some/theirs/no.gguf")


def test_a_run_goes_on_with_its_file_alone(file, tmp_path):
    """Checkpoints hold the base, which transformers opens; another file is refused."""
    shutil.copy(file, tmp_path / "m.gguf")
    spec = EngineSpec(device="cpu", precision="fp32", threads=1)
    engine = TorchEngine(from_path(str(tmp_path / "m.gguf")), spec, AdapterSpec(rank=2))
    assert f"SHA-256 {digest(file)[:16]}" in engine.notes[0]
    engine.fork("base", "plan")
    (tmp_path / "saved").mkdir()
    engine.save(tmp_path / "saved")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved/base")
    assert torch.equal(plain.model.norm.weight, engine.weights.base.model.norm.weight)
    TorchEngine(from_path(str(tmp_path / "m.gguf")), spec, AdapterSpec(rank=2)).load(tmp_path / "saved")
    rewrite(file, tmp_path / "m.gguf", {"general.name": "another"})
    with pytest.raises(CheckpointError, match="was saved on another base"):
        TorchEngine(from_path(str(tmp_path / "m.gguf")), spec, AdapterSpec(rank=2)).load(tmp_path / "saved")


# What is refused --------------------------------------------------------------------------------------------


def rewrite(file: Path, to: Path, change: dict, drop: tuple[str, ...] = (), **tensors: torch.Tensor) -> None:
    """The file again, with other fields and further tensors."""
    header, data = read_header(file), file.read_bytes()
    own = {}
    for key, stored in header.tensors.items():
        raw = torch.frombuffer(bytearray(data[stored.start :][: stored.size]), dtype=torch.float32)
        own[key] = raw.reshape(stored.shape)
    fields = {key: value for key, value in (header.fields | change).items() if value is not None}
    own = {key: p for key, p in (own | tensors).items() if key not in drop}
    write_file(to, fields, own.items)


def bytes_of(change: Callable[[bytearray], object]) -> Callable[[Path, Path], None]:
    def act(file: Path, to: Path) -> None:
        raw = bytearray(file.read_bytes())
        to.write_bytes(change(raw) or raw)

    return act


def fields(drop: tuple[str, ...] = (), **change) -> Callable[[Path, Path], None]:
    return lambda file, to: rewrite(file, to, {k.replace("__", "."): v for k, v in change.items()}, drop)


def put(at: int, code: str, *values: int) -> Callable[[Path, Path], None]:
    return bytes_of(lambda raw: struct.pack_into(f"<{code}", raw, at, *values))


def kind_of(name: bytes, number: int) -> Callable[[Path, Path], None]:
    def change(raw: bytearray) -> None:
        at = raw.index(name) + len(name) + 4 + 16
        raw[at : at + 4] = struct.pack("<I", number)

    return bytes_of(change)


HOSTILE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "no magic": (bytes_of(lambda raw: b"GGML" + raw[4:]), "does not begin with the word GGUF"),
    "one byte": (bytes_of(lambda raw: b"G"), "does not begin with the word GGUF"),
    "magic alone": (bytes_of(lambda raw: raw[:4]), "torn: it ends within its header"),
    "version 1": (put(4, "I", 1), "is a GGUF of version 1; versions 2 and 3 are read"),
    "other byte order": (put(4, "I", 3 << 24), r"\(its bytes are in the other order\)"),
    "2^60 tensors": (put(8, "Q", 1 << 60), "more than it has bytes"),
    "2^60 fields": (put(16, "Q", 1 << 60), "more than it has bytes"),
    "more fields than there are": (put(16, "Q", 500), "."),
    "a name of 2^40 characters": (put(24, "Q", 1 << 40), "more than it has bytes"),
    "a name that is no UTF-8": (put(32, "H", 0xFFFF), "not UTF-8"),
    "torn in the header": (bytes_of(lambda raw: raw[:300]), "torn: it ends within its header"),
    "torn in the weights": (bytes_of(lambda raw: raw[:-200]), "torn: tensor .* beyond its end"),
    "a type of numbers that nobody knows": (kind_of(b"blk.0.attn_q.weight", 99), "type with the number 99"),
    "a type that was taken out": (kind_of(b"blk.0.attn_q.weight", 4), "type with the number 4"),
    "a row that is no whole block": (kind_of(b"blk.0.attn_q.weight", 12), "which Q4_K cannot hold"),
    "split": (fields(split__count=3), "one of 3 parts; join them first .llama-gguf-split --merge"),
    "no architecture": (fields(general__architecture=None), "of which architecture it is"),
    "mamba": (
        fields(general__architecture="mamba"),
        "architecture 'mamba', which is not read .*known: llama,",
    ),
    "experts": (fields(llama__expert_count=8), "llama of experts"),
    "no heads": (fields(llama__attention__head_count=None), "says nothing for llama.attention.head_count"),
    "stretched": (fields(**{"llama__rope__scaling__type": "yarn"}), "stretches its positions .*'yarn'"),
    "no width": (fields(llama__embedding_length=None), "says nothing for llama.embedding_length"),
    "layers 10^7": (fields(llama__block_count=10**7), "."),
    "layers 3": (fields(llama__block_count=3), "lacks weights of LlamaForCausalLM: model.layers.2"),
    "layers 1": (fields(llama__block_count=1), "a tensor blk.1.* that a llama has no place for"),
    "width 64": (fields(llama__embedding_length=64), "has the shape"),
    "a tensor missing": (fields(("blk.1.ffn_up.weight",)), "lacks weights of LlamaForCausalLM"),
    "no embedding": (fields(("token_embd.weight",)), "has no embedding"),
    "a tokenizer of another kind": (fields(tokenizer__ggml__model="rwkv"), "its tokenizer is 'rwkv'"),
    "text cut in an unknown way": (
        fields(tokenizer__ggml__pre="chatglm-bpe"),
        "cuts text into words as 'chatglm-bpe' does",
    ),
    "text cut in no way": (fields(tokenizer__ggml__pre=None), "as None does"),
    "no words": (fields(tokenizer__ggml__tokens=None), "has no tokens"),
    "fewer kinds than words": (fields(tokenizer__ggml__token_type=[1, 1]), "and 2 kinds of them"),
    "merges of three": (fields(tokenizer__ggml__merges=["a b c"]), "a merge of 3 parts"),
    "merges of no words": (fields(tokenizer__ggml__merges=["\u00e9q zz"]), "its tokenizer cannot be made"),
    "no end": (fields(tokenizer__ggml__eos_token_id=None), "has no end-of-text token"),
    "an end that is no token": (
        fields(tokenizer__ggml__eos_token_id=5000),
        "ends a text with the token 5000",
    ),
    "frequencies of nobody": (
        lambda file, to: rewrite(file, to, {}, **{"rope_freqs.weight": torch.tensor([1.0, 3.0, 2.0, 9.0])}),
        "otherwise than Llama 3",
    ),
    "a weight that is no number": (
        lambda file, to: rewrite(file, to, {}, **{"output_norm.weight": torch.full((32,), float("nan"))}),
        "holds numbers that are not finite",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_cannot_be_read_is_refused_by_name(name, file, tmp_path):
    act, said = HOSTILE[name]
    act(file, tmp_path / "m.gguf")
    with pytest.raises(UserError, match=said) as error:
        from_path(str(tmp_path / "m.gguf"))
    assert str(tmp_path / "m.gguf") in str(error.value) and "\n" not in str(error.value)


def test_llama_3s_frequencies_are_found_again():
    for old, factor, size in ((8192, 8.0, 128), (8192, 32.0, 64), (4096, 16.0, 128)):
        rope = LLAMA3 | {"factor": factor, "original_max_position_embeddings": old}
        assert llama3_of(llama3_factors(rope, size), 5e5, size) == rope
    assert set(FAMILIES) >= {"llama", "qwen2", "qwen3"}
