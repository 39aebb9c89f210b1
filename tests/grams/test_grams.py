"""Strategic grams by hand: words, matches, which tokens a match covers, and the list as a file."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from conftest import TASK, node

from forethought.core.errors import UserError
from forethought.core.metrics import reduce
from forethought.core.types import Tree
from forethought.grams import listing
from forethought.grams.listing import Cluster
from forethought.grams.match import Match, Matcher, merged_spans
from forethought.grams.planning import Planning, marked
from forethought.grams.tokens import TokenSpans, incremental
from forethought.grams.words import normal, words

# words ------------------------------------------------------------------------------------------------------


def found(grams: list[str], text: str) -> list[tuple[str, str]]:
    """(gram, the piece of the text that it matched)"""
    return [(grams[m.gram], text[m.start : m.end]) for m in Matcher(grams).find(text)]


def test_words_have_their_places_and_know_their_neighbours():
    assert [tuple(w) for w in words("Let\u2019s  see: 2x")] == [
        ("let's", 0, 5, False),
        ("see", 7, 10, True),
        ("2x", 12, 14, False),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "let's check our work",
        "Let's check our work",
        "LET'S CHECK OUR WORK",
        "Let\u2019s check our work",
        "let\u02bcs check our work",
        "let's  check\tour\nwork",
        "let's check\r\n  our work",
        "\u201cLet's\u201d check, our (work)",
        "**Let's check** our `work`",
    ],
)
def test_case_spacing_markup_and_the_kind_of_apostrophe_make_no_difference(text):
    assert len(found(["let's check our work"], f"So. {text}!")) == 1
    assert found([text], "let's check our work") == [(text, "let's check our work")]  # nor in the list


@pytest.mark.parametrize(
    "text",
    [
        # whole words, all of them
        "outlet's check our work",
        "let's check our workshop",
        "lets check our work",
        "let's check our own work",
        "let's check. Our work",
        "let's check: our work",
        "let's check = our work",
        "let's check\n\nour work",
        "let's check \\(our work",
    ],
)
def test_what_is_no_match(text):
    assert found(["let's check our work"], text) == []


def test_accents_are_part_of_a_word_composed_or_not():
    assert len(found(["\u00e9tape par \u00e9tape"], "E\u0301tape par e\u0301tape")) == 1
    assert normal("double-check \u2014 it") == "double check it"


def test_every_occurrence_of_every_gram_is_found_those_that_overlap_too():
    grams = ["check our work", "let's check our", "check"]
    text = "Let's check our work. Check"
    matches = Matcher(grams).find(text)
    assert matches == [Match(1, 0, 15), Match(2, 6, 11), Match(0, 6, 20), Match(2, 22, 27)]
    assert merged_spans(matches) == [(0, 20), (22, 27)]


def test_grams_without_words_or_twice_the_same_are_refused():
    with pytest.raises(ValueError, match="gram 1 has no words"):
        Matcher(["so", "..."])
    with pytest.raises(ValueError, match="grams 0 and 1 are the same words"):
        Matcher(["so then", "So, then"])


# tokens -----------------------------------------------------------------------------------------------------


class Bytes:
    """A byte-level tokenizer by hand: each token is some bytes."""

    def __init__(self, *pieces: bytes):
        self.pieces = pieces
        self.asked = 0

    def __call__(self, ids) -> str:
        self.asked += len(ids)
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", errors="replace")


def spans_of(*pieces: bytes) -> list[str]:
    """What each token's span covers, which must not depend on the way it is found (but for bytes that are no
    character)."""
    ids = range(len(pieces))
    text, spans = TokenSpans(Bytes(*pieces))(ids)
    if "\ufffd" not in text:
        assert incremental(ids, Bytes(*pieces)) == (text, spans)
    assert text == Bytes(*pieces)(ids)
    return [text[a:b] for a, b in spans]


def test_a_tokens_span_is_what_it_wrote():
    assert spans_of(b"Let", b"'s", b" check", b" ", b"it") == ["Let", "'s", " check", " ", "it"]


def test_tokens_that_make_up_one_character_share_it_and_nothing_after_them_is_shifted():
    assert spans_of(b"caf\xc3", b"\xa9 a", b"b") == ["caf\u00e9", "\u00e9 a", "b"]
    assert spans_of(b"x", b"\xf0", b"\x9f\x98", b"\x80", b"y") == [
        "x",
        "\U0001f600",
        "\U0001f600",
        "\U0001f600",
        "y",
    ]


def test_bytes_that_are_no_character_shift_nothing():
    assert spans_of(b"a", b"\xa9", b" b", b"c") == ["a", "\ufffd", " b", "c"]
    assert spans_of(b"a\xc3", b"b", b"c") == ["a\ufffd", "b", "c"]
    assert spans_of(b"caf\xc3", b"\xa9", b"\x80\x80", b"b\xe2", b" c")[3:] == [
        "\ufffd\ufffdb\ufffd",
        "\ufffd c",
    ]
    assert spans_of(b"ab", b"\xe2") == ["ab", "\ufffd"]  # ended inside a character


def test_a_decoder_that_joins_with_spaces_or_drops_the_first_one():
    say = ["a", "bc", "d"]
    assert incremental([0, 1, 2], lambda ids: " ".join(say[i] for i in ids)) == (
        "a bc d",
        [(0, 1), (1, 4), (4, 6)],
    )
    pieces = [" Let", "'s", " ", "go"]
    trimmed = TokenSpans(lambda ids: "".join(pieces[i] for i in ids).removeprefix(" "))
    assert trimmed([0, 1, 2, 3]) == ("Let's go", [(0, 3), (3, 5), (5, 6), (6, 8)])


def test_time_grows_with_the_number_of_tokens():
    decode = Bytes(*[b"caf\xc3", b"\xa9"] * 200)
    text, spans = incremental(range(400), decode)
    assert text == "caf\u00e9" * 200 and spans[-1] == (799, 800)
    assert decode.asked < 400 * 10  # a decoding of everything for each token would ask for 80,200


def test_no_tokens_have_no_text():
    assert TokenSpans(Bytes())([]) == ("", [])


# which tokens are planning ----------------------------------------------------------------------------------


def test_a_token_is_planning_if_it_meets_a_match_in_a_character_that_is_no_space():
    text = "So let's check, ok"
    spans = [(0, 2), (2, 6), (6, 8), (8, 9), (9, 15), (15, 18)]  # So| let|'s| |check,| ok
    assert marked(text, spans, [(3, 14)]) == (False, True, True, False, True, False)
    assert marked(text, spans, []) == (False,) * 6


def spoken(*turns: str) -> Tree:
    """A plan and the acts after it; each word is a token (the place of a word in WORDS)."""
    nodes = [replace(node(0, None, None, 1), policy=None)]
    for i, text in enumerate(turns, 1):
        ids = tuple(WORDS.index(w) for w in text.split())
        nodes.append(replace(node(i, i - 1, "plan" if i == 1 else "act", len(ids)), token_ids=ids))
    return Tree(task=TASK, nodes=tuple(nodes))


WORDS = ["so", "we", "check", "it", "again", "now"]


def test_a_mask_of_each_tree_and_how_often_each_gram_occurs():
    planning = Planning(["we check", "check it", "now"], lambda ids: " ".join(WORDS[i] for i in ids))
    seen = planning.look([spoken("so we check it", "now it"), spoken("we", "check it again we check")])
    assert seen.masks[0] == {0: (False,), 1: (False, True, True, True), 2: (True, False)}
    # no gram reaches from turn to turn
    assert seen.masks[1] == {0: (False,), 1: (False,), 2: (True, True, False, True, True)}
    assert dict(seen.counts) == {0: 2, 1: 2, 2: 1}
    expected = -(2 * 0.4 * math.log(0.4) + 0.2 * math.log(0.2))
    assert reduce(seen.metrics()) == pytest.approx({"hicra/semantic_entropy": expected, "hicra/grams": 3})
    assert reduce(planning.look([spoken("so", "so")]).metrics()) == {"hicra/grams": 0}


# the list ---------------------------------------------------------------------------------------------------


def written(tmp_path, text: str | bytes):
    path = tmp_path / "grams.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_what_is_written_is_read_back(tmp_path):
    clusters = [
        Cluster(documents=9, grams=(("let's check our", 7), ("check our work", 3))),
        Cluster(documents=4, grams=(("we note that", 4),)),
    ]
    path = tmp_path / "new" / "grams.txt"
    listing.write(path, clusters, 12, {"source": "runs/a", "date": "today"})
    text = path.read_text()
    assert "# ---- cluster 1: in 9 of 12 solutions (75.0 %), 2 grams\n" in text
    assert "# ---- cluster 2: in 4 of 12 solutions (33.3 %), 1 gram\n" in text
    found = listing.read(path)
    assert [g.text for g in found.grams] == ["let's check our", "check our work", "we note that"]
    assert text.splitlines()[found.grams[2].line - 1].split("#")[0].strip() == "we note that"
    assert found.header[-2:] == ("source: runs/a", "date: today")


def test_a_list_by_hand_needs_no_comments_and_may_have_any_length_of_phrase(tmp_path):
    found = listing.read(written(tmp_path, "hmm,\r\n\n  wait, no   # twice\ndoes this make sense?\n"))
    assert [(g.text, g.line) for g in found.grams] == [
        ("hmm,", 1),
        ("wait, no", 3),
        ("does this make sense?", 4),
    ] and found.header == ()


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("# only\n# comments\n", "grams.txt:", "no grams in it"),
        ("", "grams.txt:", "no grams in it"),
        ("so then\n...\n", "grams.txt:2", "has no words"),
        ("so then\n\nSo, then\n", "grams.txt:3", "the gram of line 1 again"),
        ("so. then\n", "grams.txt:1", "can match nothing"),
        ("x = 2\n", "grams.txt:1", "can match nothing: no gram reaches over the sign before '2'"),
        ("so then\n" + "word " * 21, "grams.txt:2", "21 words"),
        (b"so then\n\xff\n", "grams.txt:2", "not UTF-8"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_with_its_line(tmp_path, text, where, says):
    with pytest.raises(UserError) as e:
        listing.read(written(tmp_path, text))
    assert where in str(e.value) and says in str(e.value)


def test_a_list_that_is_not_there(tmp_path):
    for path, says in ((tmp_path / "none.txt", "no such file"), (tmp_path, "a folder, not a file")):
        with pytest.raises(UserError, match=says):
            listing.read(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        listing.write(tmp_path / "file" / "below.txt", [], 1, {})
