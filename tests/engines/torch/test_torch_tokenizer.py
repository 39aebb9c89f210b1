"""The tokenizer that the files describe is the one that runs, whatever class they name for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from forethought.engines.torch.models.tokenizer import PROBES, decode, encode, read_tokenizer

TEXT = "<think>\nOkay, 650841823 and 2023 eggs.\n</think>\n\\boxed{13}"
# cl100k's
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| "
    r"?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def written() -> Tokenizer:
    """Byte-level BPE that cuts numbers in threes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<pad>", "<eos>", "</s>", "<|endoftext|>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([TEXT] * 20, trainer)
    return tokenizer


def folder_of(written: Tokenizer, folder: Path, kind: str, **said) -> str:
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    written.save(str(folder / "tokenizer.json"))
    model = json.loads(written.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"])
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return str(folder)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "smollm3", "gpt2", "gemma"])
@pytest.mark.parametrize(
    "named",
    [
        None,
        "GPT2Tokenizer",
        "LlamaTokenizerFast",
        "Qwen2Tokenizer",
        "PreTrainedTokenizerFast",
        "NoSuchTokenizer",
    ],
)
def test_tokenizer_json_is_what_runs_and_what_is_saved(kind, named, written, tmp_path):
    said = {"eos_token": "<eos>"} | ({"tokenizer_class": named} if named else {})
    tokenizer = read_tokenizer(folder_of(written, tmp_path, kind, **said), False)
    wanted = written.encode(TEXT, add_special_tokens=False).ids
    assert tokenizer.encode(TEXT, add_special_tokens=False) == wanted and tokenizer.decode(wanted) == TEXT
    tokenizer.save_pretrained(tmp_path / "again")
    assert read_tokenizer(str(tmp_path / "again"), False).encode(TEXT, add_special_tokens=False) == wanted
    assert tokenizer.eos_token == "<eos>"


def test_a_class_alone_would_build_another_one(written, tmp_path):
    """So the file has to be asked for: what this file is for."""
    path = folder_of(written, tmp_path, "llama", eos_token="<eos>", tokenizer_class="GPT2Tokenizer")
    other = AutoTokenizer.from_pretrained(path)
    assert other.encode(TEXT, add_special_tokens=False) != written.encode(TEXT, add_special_tokens=False).ids


def test_an_end_that_only_the_class_knows_is_taken_where_it_is_a_token(written, tmp_path):
    assert (
        read_tokenizer(
            folder_of(written, tmp_path, "qwen2", tokenizer_class="Qwen2Tokenizer"), False
        ).eos_token
        == "<|endoftext|>"
    )
    assert (
        read_tokenizer(
            folder_of(written, tmp_path, "qwen2", tokenizer_class="PreTrainedTokenizerFast"), False
        ).eos_token
        is None
    )


def test_words_that_the_configuration_adds_are_tokens(written, tmp_path):
    tokenizer = read_tokenizer(
        folder_of(written, tmp_path, "llama", eos_token="<eos>", extra_special_tokens=["<plan>"]), False
    )
    number = tokenizer.convert_tokens_to_ids("<plan>")
    assert (
        number == written.get_vocab_size()
        and tokenizer.encode("a<plan>", add_special_tokens=False)[-1] == number
    )


def test_a_truncation_in_the_file_cuts_no_text(written, tmp_path):
    cut = Tokenizer.from_str(written.to_str())
    cut.enable_truncation(5)
    cut.enable_padding(length=7)
    tokenizer = read_tokenizer(folder_of(cut, tmp_path, "llama", eos_token="<eos>"), False)
    assert (
        tokenizer.encode(TEXT, add_special_tokens=False) == written.encode(TEXT, add_special_tokens=False).ids
    )


@pytest.mark.parametrize("split", [False, True])
def test_what_the_library_below_writes_and_reads_is_what_transformers_does(written, tmp_path, split):
    tokenizer = read_tokenizer(folder_of(written, tmp_path, "llama", eos_token="<eos>"), False)
    tokenizer.split_special_tokens = split
    told = [*PROBES, TEXT, "", "a<eos> b</s>", " <pad>", "I 'm here ."]
    wanted = [tuple(tokenizer.encode(text, add_special_tokens=False)) for text in told]
    assert [encode(tokenizer, text) for text in told] == wanted
    for ids in wanted:
        assert decode(tokenizer, ids) == tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
    below = tokenizer.backend_tokenizer
    below.enable_truncation(3)
    assert [encode(tokenizer, text) for text in told] == wanted
    below.encode_special_tokens = not split
    assert [encode(tokenizer, text) for text in told] == wanted


def test_a_tokenizer_with_a_way_of_its_own_is_asked(written, tmp_path):
    tokenizer = read_tokenizer(folder_of(written, tmp_path, "llama", eos_token="<eos>"), False)

    class Own(type(tokenizer)):
        def encode(self, text, **_):
            return [5]

        def _decode(self, token_ids, **_):
            return "mine"

    tokenizer.__class__ = Own
    assert encode(tokenizer, "a") == (5,) and decode(tokenizer, (6,)) == "mine"


def test_without_special_tokens_the_text_is_what_trl_gives_to_reward_functions():
    from torch_kit import bpe_of

    tokenizer = bpe_of([TEXT])
    ids = [*tokenizer("  a 7 ")["input_ids"], tokenizer.eos_token_id]
    assert decode(tokenizer, ids, special=False) == "  a 7 "  # white space stays
    assert decode(tokenizer, ids, special=False) == tokenizer.batch_decode([ids], skip_special_tokens=True)[0]
    assert decode(tokenizer, ids) == "  a 7 <eos>"
