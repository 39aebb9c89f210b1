"""Mining strategic grams: where solutions come from, what is counted, and the two commands."""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from forethought import cli
from forethought.core.errors import UserError
from forethought.grams import listing
from forethought.grams.match import Matcher, merged_spans
from forethought.grams.mine import MineSpec, NGrams, mine
from forethought.grams.planning import marked
from forethought.grams.show import excerpt, show
from forethought.grams.sources import solutions
from forethought.grams.vectors import WIDTH, word_vectors
from forethought.grams.words import words

CONNECTORS = [
    "let me think about",
    "the key insight is",
    "we first need to",
    "going back to our",
    "this tells us that",
    "one way forward would be",
    "to double check everything",
    "it now follows that",
]


def corpus() -> list[str]:
    """40 solutions: every connector once in each; 12 procedures, each in 5 solutions and there 20 times."""
    rng, texts = random.Random(0), []
    for d in range(40):
        sentences = [f"{c}: " for c in CONNECTORS]
        for p in range(12):
            if d % 8 == p % 8 and d // 8 != p % 5:  # 4 or 5 of 40
                sentences += [f"multiply{p} row{p} by column{p} entry{p}. "] * 20
        rng.shuffle(sentences)
        texts.append("".join(sentences) + f"Answer {d}.")
    return texts


# n-grams ----------------------------------------------------------------------------------------------------


def test_n_grams_are_counted_by_solution_and_do_not_reach_over_the_end_of_a_sentence():
    texts = ["so we add so we add. Now", "so we add", "we add. so we"]
    found = NGrams(texts, MineSpec(shortest=2, longest=3, least=1, clusters=2))
    counts = dict(zip(found.texts, found.documents_N.tolist(), strict=True))
    assert counts == {"so we": 3, "we add": 3, "add so": 1, "so we add": 2, "we add so": 1, "add so we": 1}
    assert found.found == 6


def test_a_clusters_frequency_is_the_number_of_solutions_with_at_least_one_of_its_n_grams():
    texts = ["a b", "b c", "a b c", "x y", "x y x y"]
    found = NGrams(texts, MineSpec(shortest=2, longest=2, least=1, clusters=2))
    assert sorted(found.texts) == ["a b", "b c", "x y", "y x"]
    label_N = np.array([0 if text in ("a b", "b c") else 1 for text in found.texts])
    assert found.cluster_frequency(label_N, 3).tolist() == [3, 2, 0]  # not 2 + 2 and 2 + 1


def test_rare_n_grams_are_left_out_and_of_the_rest_the_most_widespread_are_kept():
    texts = ["a b", "a b c d", "c d", "a b e f"]
    keep = lambda **spec: sorted(NGrams(texts, MineSpec(shortest=2, longest=2, clusters=2, **spec)).texts)  # noqa: E731
    assert (
        keep(least=2) == ["a b", "c d"]
        and keep(least=3) == ["a b"]
        and keep(least=1, most=2) == ["a b", "c d"]
    )
    assert keep(least=4) == []


# clusters ---------------------------------------------------------------------------------------------------


def test_phrases_of_every_solution_are_found_and_those_of_a_few_are_not():
    pytest.importorskip("sklearn")
    texts = corpus()
    mined = mine(texts, word_vectors, MineSpec(clusters=40))
    grams = [text for cluster in mined.clusters for text, _ in cluster.grams]
    assert [c for c in CONNECTORS if c not in grams] == []  # recall 1
    assert not any(ch.isdigit() for text in grams for ch in text)
    assert (
        {cluster.documents for cluster in mined.clusters} == {40}
        and mined.threshold == 40
        and mined.documents == 40
    )
    assert mined.considered == mined.ngrams == len(NGrams(texts, MineSpec(clusters=2, least=1)).texts)
    often = sum(text.count("multiply0 row0 by column0") for text in texts)
    assert often > 40  # counted by occurrence, procedures would have come first


def test_a_share_of_the_clusters_is_kept_with_those_that_are_level():
    """Ten phrases in 1, 2, ..., 10 solutions, one cluster each: the top 20 % are 9 and 10; level ones come
    along."""
    pytest.importorskip("sklearn")
    names = "abcdefghij"
    phrase = lambda c: f"{c}{c} {c}{c}{c} {c}{c}{c}{c}"  # noqa: E731
    texts = [". ".join([f"only{d}", *(phrase(c) for i, c in enumerate(names) if d <= i)]) for d in range(10)]
    mined = lambda top: mine(texts, word_vectors, MineSpec(clusters=10, least=1, longest=3, top=top))  # noqa: E731
    kept = lambda top: [cluster.documents for cluster in mined(top).clusters]  # noqa: E731
    assert kept(0.2) == [10, 9] and kept(1) == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    same = [". ".join(phrase(c) for c in names) + f". {d}" for d in range(3)]
    assert len(mine(same, word_vectors, MineSpec(clusters=10, longest=3)).clusters) == 10


def test_the_same_seed_gives_the_same_list_and_a_large_source_is_drawn_from():
    pytest.importorskip("sklearn")
    one, two = (mine(corpus(), word_vectors, MineSpec(clusters=20, solutions=30, seed=3)) for _ in range(2))
    assert one == two and one.documents == 30


def test_dropping_a_random_third_of_the_grams_changes_little():
    """N-grams of one phrase overlap: what one of them covers, others cover too (the paper's curves stay the
    same)."""
    pytest.importorskip("sklearn")
    texts = corpus()
    grams = [
        text
        for cluster in mine(texts, word_vectors, MineSpec(clusters=40)).clusters
        for text, _ in cluster.grams
    ]
    covered = lambda chosen: sum(map(sum, (mask_of(Matcher(chosen), text) for text in texts)))  # noqa: E731
    whole = covered(grams)
    assert whole == 40 * sum(len(c.split()) for c in CONNECTORS)
    for seed in range(3):
        kept = random.Random(seed).sample(grams, round(0.7 * len(grams)))
        assert 0.8 * whole < covered(kept) < whole + 1


def mask_of(matcher: Matcher, text: str) -> tuple[bool, ...]:
    return marked(text, [(w.start, w.end) for w in words(text)], merged_spans(matcher.find(text)))


def test_too_few_n_grams_for_the_clusters():
    with pytest.raises(
        UserError,
        match="2 n-grams of 3 to 5 words stand in at least 2 of 2 solutions, too few for 100 clusters",
    ):
        mine(["we do this. a b c", "we do this. a b c. D"], word_vectors, MineSpec())
    with pytest.raises(UserError, match="^0 n-grams"):
        mine(["...", "!"], word_vectors, MineSpec())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"shortest": 0}, "shortest must be at least 1, found 0"),
        ({"shortest": 4, "longest": 3}, "longest must be at least 4, found 3"),
        ({"clusters": 1}, "clusters must be at least 2"),
        ({"top": 0}, "top is a share"),
        ({"top": 1.5}, "found 1.5"),
        ({"least": 0}, "least must be at least 1"),
        ({"seed": -1}, "seed must be at least 0, found -1"),
        ({"seed": 1 << 32}, "seed must be at most 4294967295"),
    ],
)
def test_settings_that_cannot_work(settings, says):
    with pytest.raises(UserError, match=says):
        MineSpec(**settings)


def test_word_vectors_are_of_length_1_and_near_for_phrases_that_share_rare_words():
    texts = [
        "the prime factor",
        "the prime factors",
        "the other side",
        *(f"the {a}{b} {b}{a}" for a in "qwrt" for b in "xzvk"),
    ]
    rows = word_vectors(texts)
    assert rows.shape == (19, WIDTH) and np.linalg.norm(rows, axis=1) == pytest.approx([1] * 19)
    assert rows[0] @ rows[1] > 0.4 > 0.1 > abs(rows[0] @ rows[2])  # "the" is in all of them and says nothing
    assert np.array_equal(rows, word_vectors(texts))


# sources ----------------------------------------------------------------------------------------------------


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def a_run(folder: Path) -> Path:
    """One tree: plan 1 with a right and a wrong execution, plan 2 refused, plan 3 whose execution the
    environment broke."""

    def say(id, parent, role, text, status="finished", **parts):
        return {
            "id": id,
            "parent": parent,
            "role": role,
            "text": text,
            "status": status,
            "reward_parts": parts,
        }

    nodes = [
        say(0, None, None, "GOAL", "given"),
        say(1, 0, "plan", "go left", valid=1.0),
        say(2, 1, "act", "left", outcome=1.0),
        say(3, 1, "act", "right", outcome=0.0),
        say(4, 0, "plan", "???", "refused", valid=0.0),
        say(5, 0, "plan", "go on", valid=1.0),
        say(6, 5, "act", "on", "failed"),
    ]
    (folder / "trees").mkdir(parents=True)
    for step in (5, 25):
        with gzip.open(folder / "trees" / f"step-{step:06d}.jsonl.gz", "wt") as file:
            file.write(json.dumps({"task": "t", "nodes": nodes}) + "\n")
    return folder


def test_a_run_gives_the_executions_that_succeeded_each_with_its_plan(tmp_path):
    found = solutions(a_run(tmp_path / "run"))
    assert found.texts == ("go left\n\nleft",) and (found.read, found.wrong, found.again) == (6, 4, 1)
    assert (
        found.summary()
        == f"{tmp_path / 'run'} (trees of 2 steps, 5 to 25) (6 read, left out: 4 wrong, 1 seen before)"
    )
    assert solutions(tmp_path / "run", correct=False).texts == ("go left\n\nleft", "go left\n\nright", "???")


def test_a_file_gives_its_texts_under_any_of_their_names(tmp_path):
    path = lines(
        tmp_path / "a.jsonl",
        {"text": "one", "solution": "not this"},
        {"chain": "two", "plan": "first"},
        "",
        {"solution": "three"},
        {"question": "q", "answer": "four"},
        {"text": "five", "correct": False},
        {"text": "one", "correct": 1},
    )
    found = solutions(path)
    assert found.texts == ("one", "first\n\ntwo", "three", "four") and (
        found.read,
        found.wrong,
        found.again,
    ) == (6, 1, 1)
    folder = tmp_path / "guided"
    folder.mkdir()
    lines(
        folder / "guided.jsonl",
        {"id": "a", "question": "q", "plan": "1. Add.", "chain": "2 + 2", "answer": "4", "level": 0},
    )
    assert solutions(folder).texts == ("1. Add.\n\n2 + 2",)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"question": "q"}], ":1: needs one of the fields text, chain, solution, answer; found question"),
        ([{"text": "a"}, "{"], ":2: no JSON"),
        ([[1]], ":1: needs one of the fields"),
        ([{"text": 3}], ":1: a solution is text, found '3'"),
        ([{"text": "a", "correct": "no"}], ":1: correct is true or false, found 'no'"),
        ([], "nothing is in it"),
        ([{"text": "a", "correct": False}], "none of its 1 succeeded"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, rows, says):
    with pytest.raises(UserError) as e:
        solutions(lines(tmp_path / "a.jsonl", *rows))
    assert says in str(e.value)


def test_what_is_no_source(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "run" / "trees").mkdir(parents=True)
    for source, says in (
        (tmp_path / "none", "no such file or folder"),
        (tmp_path / "a.txt", "found '.txt'"),
        (tmp_path / "run", "neither a run with saved trees"),
    ):
        with pytest.raises(UserError, match=says):
            solutions(source)
    damaged = a_run(tmp_path / "damaged") / "trees" / "step-000025.jsonl.gz"
    damaged.write_bytes(damaged.read_bytes()[:-12])
    with pytest.raises(UserError, match="step-000025.jsonl.gz: damaged"):
        solutions(tmp_path / "damaged")
    with gzip.open(damaged, "wt") as file:
        file.write('{"task": "t", "nodes": [{"id": 1}]}\n')
    with pytest.raises(UserError, match="step-000025.jsonl.gz:1: no tree of rollouts"):
        solutions(tmp_path / "damaged")


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([(0, None), (1, 0), (0, 1), (2, 1)], "an id stands twice"),
        ([(0, 1), (1, 0), (2, 1)], "its nodes go round in a circle"),
        ([(0, None), ([], 0)], "TypeError"),
        ([(0, []), (1, 0)], "TypeError"),
    ],
)
def test_nodes_that_lead_back_to_themselves_end(tmp_path, ids, says):
    fields = {"role": "act", "text": "x", "status": "finished", "reward_parts": {"outcome": 1.0}}
    nodes = [{"id": id, "parent": parent, **fields} for id, parent in ids]
    (tmp_path / "trees").mkdir()
    for name in ("step-000005", "step-abc"):  # of another name, no run's
        with gzip.open(tmp_path / "trees" / f"{name}.jsonl.gz", "wt") as file:
            file.write(json.dumps({"task": "t", "nodes": nodes}) + "\n")
    with pytest.raises(UserError, match=rf"step-000005.jsonl.gz:1: no tree of rollouts.*{says}"):
        solutions(tmp_path)


# commands ---------------------------------------------------------------------------------------------------


def test_mine_writes_a_list_that_show_reads(tmp_path, capsys):
    pytest.importorskip("sklearn")
    source = lines(
        tmp_path / "solutions.jsonl",
        *({"text": text} for text in corpus()),
        {"text": "bad", "correct": False},
    )
    out = tmp_path / "grams.txt"
    assert (
        cli.main(
            [
                "grams",
                "mine",
                str(source),
                "--embed",
                "words",
                "--out",
                str(out),
                "--n",
                "3-4",
                "--clusters",
                "30",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert (
        "40 different solutions" in said
        and "1 wrong" in said
        and "each in at least 40 of 40 solutions" in said
    )
    header = " ".join(listing.read(out).header)
    assert (
        "shortest 3, longest 4, clusters 30, top 0.2, least 2" in header
        and "words (hashed words and letters, no model)" in header
    )
    assert cli.main(["grams", "mine", str(source), "--embed", "words", "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert cli.main(["grams", "show", str(out), "--on", str(source), "--examples", "1"]) == 0
    said = capsys.readouterr().out
    assert (
        "in 40 of 41 texts (97.6 %)" in said
        and "100.0 %" not in said
        and "\u00ablet me think about\u00bb" in said
    )


def test_show_counts_by_hand(tmp_path):
    """Two texts: "let us see" three times, in both; "no way" never; 9 of 12 words."""
    path, out = tmp_path / "grams.txt", io.StringIO()
    path.write_text("# by hand\nlet us see\nno way\n")
    source = lines(
        tmp_path / "a.jsonl",
        {"text": "Let us see. Let  us see again"},
        {"text": "and let us see it now", "correct": False},
    )
    assert show(path, source, "", 3, out) == 0
    said = out.getvalue()
    assert "2 grams: 1 of 2 words, 1 of 3 words" in said
    assert "3 occurrences of 1 grams, in 2 of 2 texts (100.0 %); semantic entropy 0.00 nats" in said
    assert "3 times, in 100.0 % of the texts  let us see" in said and "1 never occur: no way" in said
    assert (
        "9 of 13 words (69.2 %) are planning" in said
        and "\u00abLet us see\u00bb. \u00abLet us see\u00bb again" in said
    )
    with pytest.raises(UserError, match="--on"):
        show(path, None, "some/model", 3, out)


def test_an_excerpt_begins_before_the_first_match_and_ends():
    text = "x " * 100 + "let us\nsee " + "y " * 400
    shown = excerpt(text, Matcher(["let us see"]).find(text))
    assert (
        shown.startswith("... x x")
        and " \u00ablet us see\u00bb y" in shown
        and shown.endswith("y ...")
        and len(shown) < 320
    )


def test_without_the_extra_nothing_is_read(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    assert cli.main(["grams", "mine", "none.jsonl", "--embed", "words", "--out", "g.txt"]) == 2
    assert "pip install 'forethought[grams]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["mine", "none.jsonl", "--embed", "words", "--out", "g.txt"], ["show", "none.txt"]]
)
def test_a_users_mistake_is_one_line(argv, capsys):
    pytest.importorskip("sklearn")
    assert cli.main(["grams", *argv]) == 2
    said = capsys.readouterr().err
    assert said.startswith("forethought: none.") and said.count("\n") == 1
