"""Strategic grams with a real tokenizer (byte-level BPE, trained here), and the embedder."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from conftest import TASK
from torch_kit import bpe_of, model_of, on_disk

from forethought import cli
from forethought.core.errors import UserError
from forethought.core.types import Node, Tree
from forethought.engines.torch.models.embed import Embedder, codec
from forethought.grams.planning import Planning
from forethought.grams.tokens import TokenSpans, incremental

SPOKEN = [
    "Let's check our work. So let's check our work again, and Let's check.",
    "The cat\u2019s \u221a2 \u2264 caf\u00e9 \U0001f600!",
    "now we add",
]
GRAMS = ["let's check our work"]


@pytest.fixture(scope="module", params=[262, 300], ids=["letters", "pieces"])
def tokenizer(request):
    return bpe_of(SPOKEN * 20, request.param)


def planning_in(tokenizer, text: str) -> str:
    """The characters that planning tokens wrote or had a part in."""
    ids = tuple(tokenizer.encode(text, add_special_tokens=False))
    tree = Tree(
        task=TASK, nodes=(Node(id=1, parent=None, role="plan", text="", token_ids=ids, policy="base"),)
    )
    mask = Planning(GRAMS, tokenizer.decode).look([tree]).masks[0][1]
    read_back, spans = TokenSpans(tokenizer.decode)(ids)
    assert read_back == text
    return "".join(
        text[i] for i in sorted({i for (a, b), m in zip(spans, mask, strict=True) if m for i in range(a, b)})
    )


@pytest.mark.parametrize(
    "text",
    [
        "Let's check our work.",
        " Let's check our work.",
        "So let's check our work.",
        "\U0001f600\u221a\U0001f600 Let\u2019s check our work \u2264 caf\u00e9.",
    ],
)
def test_the_same_phrase_is_found_wherever_it_stands(tokenizer, text):
    found = planning_in(tokenizer, text)  # a space that is a token of its own is not a part of it
    assert found.lower().replace(" ", "").replace("\u2019", "'") == GRAMS[0].replace(" ", "")


def test_the_ids_of_a_phrase_are_others_inside_a_sentence():
    """The defect of a published port: it looks for the ids of "Let's check" and does not find " Let's
    check"."""
    tokenizer = bpe_of(SPOKEN * 20, 300)
    alone, inside = (
        tokenizer.encode(text, add_special_tokens=False)
        for text in ("Let's check our work", "and Let's check our work")
    )
    assert not any(inside[i : i + len(alone)] == alone for i in range(len(inside)))
    assert planning_in(tokenizer, "and Let's check our work").strip() == "Let's check our work"


def test_spans_of_random_text_are_those_of_its_bytes(tokenizer):
    rng = random.Random(0)
    for _ in range(50):
        text = "".join(
            rng.choice("ab '\u2019\u00e9\u221a\u2264\U0001f600\n") for _ in range(rng.randrange(1, 30))
        )
        ids = tokenizer.encode(text, add_special_tokens=False)
        at, starts = 0, []  # the character that each byte belongs to
        for i, c in enumerate(text):
            starts += [i] * len(c.encode())
        wanted = []
        for id in ids:
            size = len(tokenizer.convert_ids_to_tokens(id))  # byte-level: one sign a byte
            wanted.append((starts[at], starts[at + size - 1] + 1))
            at += size
        assert TokenSpans(tokenizer.decode)(ids) == incremental(ids, tokenizer.decode) == (text, wanted)


# The embedder -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tokenizer = bpe_of(SPOKEN * 20, 300)
    return on_disk(tmp_path_factory.mktemp("model"), model_of("qwen2", vocab_size=len(tokenizer)), tokenizer)


def test_an_embedding_is_the_mean_of_the_last_hidden_states_and_does_not_see_its_neighbours(model):
    embed = Embedder(model, "cpu")
    texts = ["let's check our work", "now", "we add", "and let's check our work again"]
    rows = embed(texts)
    for text, row in zip(texts, rows, strict=True):
        with torch.no_grad():
            hidden = embed.model(torch.tensor([embed.tokenizer.encode(text)])).last_hidden_state[0].mean(0)
        assert row == pytest.approx((hidden / hidden.norm()).numpy(), abs=1e-5)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(4)) and rows.dtype == np.float32


def test_padding_is_masked_where_a_tokenizer_has_none_of_its_own(model, tmp_path):
    embed = Embedder(model, "cpu")
    tokenizer = bpe_of(SPOKEN * 20, 300)
    tokenizer.pad_token = None
    bare = Embedder(on_disk(tmp_path, model_of("qwen2", vocab_size=len(tokenizer)), tokenizer), "cpu")
    assert bare.tokenizer.pad_token_id is not None
    assert bare(["now", "we add it all"]) == pytest.approx(embed(["now", "we add it all"]), abs=1e-5)


def test_grams_are_mined_with_a_model_and_counted_in_its_tokens(model, tmp_path, capsys):
    pytest.importorskip("sklearn")
    source, out = tmp_path / "a.jsonl", tmp_path / "grams.txt"
    source.write_text("".join(f'{{"text": "Let\'s check our work. So we add {i}."}}\n' for i in range(4)))
    assert (
        cli.main(
            [
                "grams",
                "mine",
                str(source),
                "--embed",
                model,
                "--out",
                str(out),
                "--clusters",
                "3",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    assert f"# embedder: {model}\n" in out.read_text()
    out.write_text("let's check our work\n")
    assert cli.main(["grams", "show", str(out), "--on", str(source), "--tokenizer", model]) == 0
    encode, _ = codec(model)
    whole = sum(len(encode(f"Let's check our work. So we add {i}.")) for i in range(4))
    assert f" of {whole} tokens (" in capsys.readouterr().out


def test_a_path_that_is_no_model_is_refused(tmp_path, model):
    for path, says in ((str(tmp_path / "none"), "no such folder"), (str(tmp_path), "cannot be loaded")):
        with pytest.raises(UserError, match=says):
            Embedder(path)
        with pytest.raises(UserError, match=says):
            codec(path)
    with pytest.raises(UserError, match="--device: unknown device 'tpu'"):
        Embedder(model, "tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device"):
            Embedder(model, "cuda")
