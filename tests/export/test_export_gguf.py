"""GGUF files: what llama.cpp says is what `forethought sample` says, and what has no counterpart is refused
by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from export_kit import PLANS, base_model, budget, greedy, problems, prompts, text_run
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch_kit import bpe_of, model_of, on_disk
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from forethought.core.errors import UserError
from forethought.engines.gguf_families import FAMILIES, ends_of
from forethought.engines.gguf_header import read_header
from forethought.engines.torch.export.gguf import ARCHITECTURES, write_gguf
from forethought.exports import export

SCRATCH = {"init": "small", "layers": 2, "width": 32, "mlp": 32, "vocabulary": 340}
BOTH = [
    {"kind": "imitate", "until": {"steps": 30}, "batch": 4, "optim": {"lr": 0.01, "warmup": 0}},
    PLANS,
]
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
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3.2": ("llama", {"hidden_size": 64, "rope_parameters": LLAMA3}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "gemma": ("gemma", {"head_dim": 16}),
    "phi3": ("phi3", {"sliding_window": None}),
    "olmo2": ("olmo2", {}),
    "granite": ("granite", {}),
    "smollm3": ("smollm3", {"num_hidden_layers": 5, "no_rope_layer_interval": 4}),
}


@pytest.fixture(scope="module")
def llama():
    return pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    """A small model from scratch on free text: its tokenizer is llama.cpp's "smollm"."""
    return text_run(tmp_path_factory.mktemp("scratch") / "run", SCRATCH, stages=BOTH)


def spoken(llama, file: Path, prompt: str, most: int) -> str:
    """What llama.cpp says, greedy, until the file's own ends."""
    model = llama.Llama(str(file), n_ctx=1024, n_threads=1, verbose=False)
    ids = model.tokenize(prompt.encode(), add_bos=False, special=True)
    out: list[int] = []
    for token in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
        out.append(token)
        if len(out) == most or llama.llama_vocab_is_eog(model._model.vocab, token):
            break
    return model.detokenize(out, special=True).decode(errors="replace").strip()


def logits(llama, file: Path, ids: list[int]) -> torch.Tensor:
    model = llama.Llama(str(file), n_ctx=256, n_threads=1, verbose=False, logits_all=True)
    model.eval(ids)
    return torch.tensor(model.scores[: len(ids)])


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_llama_cpp_says_what_sample_says(scratch, tmp_path, llama, precision):
    export(scratch, to=tmp_path / "out", gguf=precision)
    file = tmp_path / "out" / "plan" / f"plan-{precision}.gguf"
    read, most = prompts(scratch, tmp_path / "out" / "plan"), budget(scratch, "plan")
    said = [spoken(llama, file, text, most) for text in read]
    assert said == greedy(scratch, "plan")
    assert any(text.endswith("</plan>") for text in said)  # the file says where a turn ends
    text = (tmp_path / "out" / "plan" / "README.md").read_text()
    assert f"plan-{precision}.gguf --temp 0" in text and "-r '</plan>'" in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_transformers(tmp_path, llama, kind, tied):
    tokenizer = bpe_of(["one two three 17 apples, and more."], 300)
    named, fields = KINDS[kind]
    model = model_of(named, vocab_size=len(tokenizer), tie_word_embeddings=tied, **fields)
    rough(model)
    folder = Path(on_disk(tmp_path / "model", model, tokenizer))
    if FAMILIES[ARCHITECTURES[model.config.architectures[0]]].tied not in (None, tied):
        with pytest.raises(UserError, match=f"matri.*, which llama.cpp's {named} does not load"):
            write_gguf(folder, tmp_path / "m.gguf", "f32", "m")
        return
    write_gguf(folder, tmp_path / "m.gguf", "f32", "m")
    ids = tokenizer.encode("three apples and two more", add_special_tokens=False)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        wanted = plain(torch.tensor([ids])).logits[0]
    found = logits(llama, tmp_path / "m.gguf", ids)
    # llama.cpp keeps keys and values in f16
    assert (found - wanted).abs().max() < 0.02 * wanted.abs().max()
    assert found.argmax(-1).tolist() == wanted.argmax(-1).tolist()


def rough(model) -> None:
    """No norm is one and no bias zero: a part in the wrong place changes something."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(0.2 * torch.randn(p.shape, generator=generator))


def test_its_tokenizer_cuts_text_as_ours(scratch, tmp_path, llama):
    export(scratch, to=tmp_path / "out", gguf="f16", role="plan")
    folder = tmp_path / "out" / "plan"
    ours = AutoTokenizer.from_pretrained(folder)
    theirs = llama.Llama(str(folder / "plan-f16.gguf"), vocab_only=True, verbose=False)
    for text in (
        "Ann has 650841823 apples and\n\n gets 7 more.",
        "don't I'LL  two  spaces\tand a tab ",
        "na\u00efve caf\u00e9 \u6771\u4eac \U0001f600",
        "<plan>1. Add. </plan> x</act>",
    ):
        assert theirs.tokenize(text.encode(), add_bos=False, special=True) == ours.encode(
            text, add_special_tokens=False
        ), text


def test_the_file_says_the_ends_of_a_turn(scratch, tmp_path):
    export(scratch, to=tmp_path / "out", gguf="f16", role="plan")
    folder = tmp_path / "out" / "plan"
    header = read_header(folder / "plan-f16.gguf")
    said = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    assert ends_of(header) == said and len(said) == 2
    assert header.fields["tokenizer.chat_template"] == AutoTokenizer.from_pretrained(folder).chat_template
    weights = {name: tensor.kind for name, tensor in header.tensors.items()}
    assert weights["blk.0.attn_q.weight"] == "F16" and weights["output_norm.weight"] == "F32"


# Tokenizers of SentencePiece's kind -------------------------------------------------------------------------

FIRST = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
STYLES = {  # how they rewrite text, and cut it: Llama 2, Mistral 0.3, Gemma
    "llama": (
        normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]),
        None,
    ),
    "mistral": (None, FIRST),
    "gemma": (normalizers.Replace(" ", "\u2581"), pre_tokenizers.Split(" ", "merged_with_previous")),
}
LINES = ["one two three 17 apples, and more apples for Ann.", "Ann has two apples; Bob had three more."] * 3


def pieces_of(style: str, drop: int = 0) -> PreTrainedTokenizerFast:
    """A tokenizer as transformers makes it of a tokenizer.model: a merge for each pair that makes a piece, by
    the piece's rank. `drop`: so many of the last merges are missing."""
    rewrite, cut = STYLES[style]
    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.Replace(" ", "\u2581")
    # as there, a piece may have a space at its start alone
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    learned.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=90, show_progress=False))
    made = [pair[0] + pair[1] for pair in json.loads(learned.to_str())["model"]["merges"]]
    single = sorted({letter for word in learned.get_vocab() for letter in word})
    words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *single, *dict.fromkeys(made)]
    known = {word: i for i, word in enumerate(words)}
    merges = [(w[:i], w[i:]) for w in dict.fromkeys(made) for i in range(1, len(w))]
    merges = [pair for pair in merges if pair[0] in known and pair[1] in known]
    merges = merges[: len(merges) - drop]
    inner = Tokenizer(models.BPE(known, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if rewrite is not None:
        inner.normalizer = rewrite
    if cut is not None:
        inner.pre_tokenizer = cut
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    inner.decoder = decoders.Sequence(steps if style == "gemma" else [*steps, decoders.Strip(" ", 1, 0)])
    inner.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )


@pytest.mark.parametrize("style", STYLES)
def test_sentencepiece_cuts_text_as_ours(tmp_path, llama, style):
    tokenizer = pieces_of(style)
    kind, fields = ("gemma", {"head_dim": 8}) if style == "gemma" else ("llama", {})
    model = model_of(kind, vocab_size=len(tokenizer), **fields)
    folder = Path(on_disk(tmp_path / "model", model, tokenizer))
    write_gguf(folder, tmp_path / "m.gguf", "f32", "m")
    theirs = llama.Llama(str(tmp_path / "m.gguf"), vocab_only=True, verbose=False)
    for text in (
        "Ann has two apples",
        "three  more\n\napples; and\ta tab ",
        "na\u00efve \u6771\u4eac \U0001f600 applesapples",
        "<plan>1. Add. </plan> x</act>",
        "two</s>",
    ):
        assert theirs.tokenize(text.encode(), add_bos=True, special=True) == tokenizer.encode(text), text
    ids = tokenizer.encode("Ann has three apples for two")
    assert len(ids) < 14  # pieces, not letters
    with torch.no_grad():
        wanted = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0]
    found = logits(llama, tmp_path / "m.gguf", ids)
    assert (found - wanted).abs().max() < 0.02 * wanted.abs().max()
    assert theirs.detokenize(ids[1:]).decode().strip() == "Ann has three apples for two"


def test_a_chat_of_mistral_has_no_space_after_a_special_token(tmp_path):
    """`first`: the tokenizer puts one before a text's first word alone, and a chat begins with a token."""
    tokenizer = pieces_of("mistral")
    for chat, wanted in ((None, True), ("{{ bos_token }}{{ messages[0]['content'] }}", False)):
        tokenizer.chat_template = chat
        folder = Path(on_disk(tmp_path / "m", model_of(vocab_size=len(tokenizer)), tokenizer))
        write_gguf(folder, tmp_path / "m.gguf", "f32", "m")
        fields = read_header(tmp_path / "m.gguf").fields
        assert fields["tokenizer.ggml.add_space_prefix"] is wanted
        assert fields["tokenizer.ggml.add_bos_token"] is True


def test_sentencepiece_that_llama_cpp_would_cut_otherwise_is_named(tmp_path):
    def refused(tokenizer, why: str) -> None:
        with pytest.raises(UserError, match=f"would cut text otherwise than the tokenizer of m: .*{why}"):
            write_gguf(made(tmp_path / "m", tokenizer=tokenizer), tmp_path / "m.gguf", "f16", "m")

    refused(pieces_of("llama", drop=1), "make a token, and no merge says so")
    rewriting = pieces_of("gemma")
    rewriting.backend_tokenizer.normalizer = normalizers.NFKC()
    refused(rewriting, "how it rewrites and cuts text has no counterpart there .*NFKC")
    inner = pieces_of("gemma").backend_tokenizer
    said = json.loads(inner.to_str())
    said["model"]["vocab"] = {w.replace("<0x41>", "<0x4>"): i for w, i in said["model"]["vocab"].items()}
    short = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(said)), eos_token="</s>")
    refused(short, "it has tokens for 255 of the 256 bytes")


# What has no counterpart ------------------------------------------------------------------------------------


def made(folder: Path, kind: str = "llama", tokenizer=None, **fields) -> Path:
    tokenizer = tokenizer or bpe_of(["one two three"], 300)
    return Path(on_disk(folder, model_of(kind, vocab_size=len(tokenizer), **fields), tokenizer))


@pytest.mark.parametrize("kind", ["phi", "gpt2", "mixtral"])
def test_an_architecture_without_a_converter_is_named(tmp_path, kind):
    folder = made(tmp_path / "theirs", kind)
    with pytest.raises(UserError, match="--gguf: theirs is a [A-Z].*, for which there is no converter here"):
        write_gguf(folder, tmp_path / "m.gguf", "f16", "m")
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "stretches its positions .*'yarn'"),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 8}, "attends in sliding windows"),
        ({"hidden_act": "gelu"}, "uses gelu"),
        ({"architectures": None}, "is a none"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_named(tmp_path, change, why):
    folder = made(tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=f"--gguf: theirs {why}"):
        write_gguf(folder, tmp_path / "m.gguf", "f16", "m")


def test_a_tokenizer_that_cuts_otherwise_is_named(tmp_path):
    odd = bpe_of(["one two three"], 300)
    odd.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(UserError, match="cuts text into words .* has no counterpart here"):
        write_gguf(made(tmp_path / "a", tokenizer=odd), tmp_path / "m.gguf", "f16", "m")
    low = bpe_of(["one two three"], 300)
    low.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(UserError, match="rewrites its text first"):
        write_gguf(made(tmp_path / "b", tokenizer=low), tmp_path / "m.gguf", "f16", "m")


def test_a_weight_without_a_place_is_named(tmp_path):
    folder = made(tmp_path / "theirs")
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.layers.0.extra.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="has a weight 'model.layers.0.extra.weight', which has no place"):
        write_gguf(folder, tmp_path / "m.gguf", "f16", "m")


def test_a_real_base_with_an_adapter(tmp_path, llama):
    """Somebody's own model, merged with the run's adapter."""
    folder = tmp_path
    model = base_model(folder / "model", problems(folder / "train.jsonl", 1))
    run = text_run(folder / "run", {"path": model})
    export(run, to=folder / "out", gguf="f32", role="plan")
    read, most = prompts(run, folder / "out" / "plan"), budget(run, "plan")
    said = [spoken(llama, folder / "out" / "plan" / "plan-f32.gguf", text, most) for text in read]
    wanted = greedy(run, "plan")
    assert [text.split("</plan>")[0] for text in said] == [text.split("</plan>")[0] for text in wanted]
