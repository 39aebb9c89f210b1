"""Math problems from disk: the releases' own field names, refusals with file and line, and test problems that
were trained on."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from forethought.core.errors import UserError
from forethought.tasks.math.files import Record, read
from forethought.tasks.text.overlap import Overlap, overlap, words

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(
    not (DATA / "gsm8k").exists(), reason=f"GSM8K and the contests are not at {DATA}"
)


def write(path: Path, *rows: object) -> Path:
    """One row a line: text as it is, anything else as JSON."""
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


# Releases ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "record"),
    [
        (
            {"question": "How many?", "answer": "2*3=<<2*3=6>>6\n6+1=<<6+1=7>>7\n#### 7"},
            # GSM8K
            Record(
                id="1", problem="How many?", answer="7", solution="2*3=<<2*3=6>>6\n6+1=<<6+1=7>>7", level=2
            ),
        ),
        (
            {"problem": "P", "level": "Level 5", "type": "Algebra", "solution": r"so $\boxed{\frac{1}{2}}$."},
            # MATH
            Record(
                id="1",
                problem="P",
                answer=r"\frac{1}{2}",
                solution=r"so $\boxed{\frac{1}{2}}$.",
                level=5,
                subject="Algebra",
            ),
        ),
        (
            {
                "problem": "P",
                "solution": r"\boxed{3}",
                "answer": "3",
                "subject": "Geometry",
                "level": 2,
                "unique_id": "test/7.json",
            },
            # MATH-500
            Record(
                id="test/7.json", problem="P", answer="3", solution=r"\boxed{3}", level=2, subject="Geometry"
            ),
        ),
        (
            {"ID": "2024-I-1", "Problem": "P", "Solution": "S", "Answer": 204},
            Record(id="2024-I-1", problem="P", answer="204", solution="S"),
        ),  # AIME
        (
            {"id": 0, "problem": "P", "answer": 27.0, "url": "u"},
            Record(id="0", problem="P", answer="27"),
        ),  # AMC
        (
            {"question": "P", "final_answer": "3", "difficulty": 4.5, "topic": "T"},
            Record(id="1", problem="P", answer="3", level=4, subject="T"),
        ),  # DeepMath
        ({"problem": "P", "answer": "3", "level": "Level ?"}, Record(id="1", problem="P", answer="3")),
        (
            {"question": "P", "answer": "3", "plan": "Think.", "chain": "1+2=3"},
            Record(id="1", problem="P", answer="3", plan="Think.", chain="1+2=3"),
        ),  # distilled
    ],
)
def test_the_fields_of_the_releases(tmp_path, row, record):
    path = write(tmp_path / "a.jsonl", row)
    (found,) = read(path)
    assert found.where == f"{path}:1"
    assert found == Record(
        **{name: getattr(record, name) for name in Record.__slots__ if name != "where"}, where=found.where
    )


def test_other_names_are_given(tmp_path):
    path = write(tmp_path / "a.jsonl", {"task": "P", "gold": "3", "answer": "not this"})
    (record,) = read(path, {"problem": "task", "answer": "gold"})
    assert (record.problem, record.answer) == ("P", "3")
    with pytest.raises(UserError, match=r"a.jsonl:1: unknown field 'tusk'; did you mean 'task'\?"):
        read(path, {"problem": "tusk"})
    with pytest.raises(UserError, match=r"unknown part of a problem 'porblem'; did you mean 'problem'\?"):
        read(path, {"porblem": "task"})


@needs_data
def test_the_real_files():
    gsm8k = read(DATA / "gsm8k" / "test.jsonl")
    assert len(gsm8k) == 1319
    assert (gsm8k[0].id, gsm8k[0].answer, gsm8k[0].level) == ("1", "18", 2)
    aime, amc = (read(DATA / "math-contests" / f"{name}.jsonl") for name in ("aime24", "amc23"))
    assert (len(aime), aime[0].id, aime[0].answer, len(amc), amc[0].answer) == (30, "60", "204", 40, "27")


# Refusals ---------------------------------------------------------------------------------------------------

GOOD = {"problem": "P", "answer": "3"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", ":2: no JSON (Expecting property name"),
        ("[1]", ":2: expected an object with a problem and its answer, found '[1]'"),
        ({"answer": "3"}, ":2: no problem text; its fields are answer. Known are problem, question"),
        ({"problem": "  ", "answer": "3"}, ":2: no problem text"),
        (
            {"problem": "P"},
            ":2: no answer: character 1: found the end of the text, expected a final answer in",
        ),
        (
            {"problem": "P", "solution": r"so \boxed{3"},
            r":2: no answer: character 4: the last \boxed{ is never "
            r"closed",
        ),
        (
            {"problem": "P", "answer": "many steps\n####"},
            ":2: no answer: character 16: found no last line '#### ANSWER'",
        ),
        ({"problem": ["P"], "answer": "3"}, ":2: expected text as the problem, found '[\"P\"]'"),
        ({"problem": "P", "answer": True}, ":2: expected text as the answer, found 'true'"),
        (
            '{"problem": "P", "answer": NaN}',
            ":2: no JSON (NaN is not JSON; write null where there is no number)",
        ),
        (
            {"problem": "P", "answer": "3", "level": "hard"},
            ":2: expected a level such as 3 or 'Level 3', found 'hard'",
        ),
        (
            {"problem": "P", "answer": "3", "level": True},
            ":2: expected a level such as 3 or 'Level 3', found 'True'",
        ),
    ],
)
def test_a_line_that_is_no_problem(tmp_path, row, reason):
    path = write(tmp_path / "a.jsonl", GOOD, row, GOOD)
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}{reason}")


def test_one_id_twice_names_both_lines(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD | {"id": "x"}, GOOD | {"id": "y"}, GOOD | {"id": "x"})
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value) == f"{path}:3: the id 'x' was seen at {path}:1; give each its own"


def test_bytes_that_are_no_utf8(tmp_path):
    path = tmp_path / "a.jsonl"
    # a byte order mark is fine
    path.write_bytes(b'\xef\xbb\xbf{"problem": "P", "answer": "3"}\n{"problem": "\xff"}\n')
    with pytest.raises(UserError, match="a.jsonl:2: not UTF-8"):
        read(path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(
        UserError, match="missing.jsonl: no such file; name a .jsonl, .csv or .parquet file, or hub:"
    ):
        read(tmp_path / "missing.jsonl")
    with pytest.raises(UserError, match="a folder, not a file"):
        read(tmp_path)
    with pytest.raises(UserError, match="no problems in it"):
        read(write(tmp_path / "empty.jsonl"))
    with pytest.raises(UserError, match=r"unknown kind of file '.json'; did you mean '.jsonl'\?"):
        read(write(tmp_path / "a.json", GOOD))


# Parquet and the hub ----------------------------------------------------------------------------------------


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow (the extra `data`) is not installed")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"question": ["P", "Q"], "answer": ["1", "2"], "level": [None, 3]}), path)
    assert [(r.problem, r.answer, r.level, r.where) for r in read(path)] == [
        ("P", "1", 0, f"{path}:1"),
        ("Q", "2", 3, f"{path}:2"),
    ]
    path.write_bytes(b"PAR1 not")
    with pytest.raises(UserError, match="a.parquet: no readable Parquet file"):
        read(path)


def test_without_the_extra_the_message_names_it(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    path.touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in (str(path), "hub:openai/gsm8k:main:test"):
        with pytest.raises(
            UserError,
            match=r'needs the extra `data`: pip install "forethought\[data\]", or '
            r"write the problems as JSONL",
        ):
            read(source)


def test_the_hub_through_datasets(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # which reading would set where there is no network
    asked = []

    def load_dataset(name, *config, split):
        asked.append((name, *config, split))
        if name == "no/such":
            raise ConnectionError("offline")
        return [GOOD, GOOD]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert [r.where for r in read("hub:openai/gsm8k:main:test")] == [
        "hub:openai/gsm8k:main:test:1",
        "hub:openai/gsm8k:main:test:2",
    ]
    assert len(read("hub:HuggingFaceH4/MATH-500:test")) == 2
    assert asked == [("openai/gsm8k", "main", "test"), ("HuggingFaceH4/MATH-500", "test")]
    read("hub:zwhe99/DeepMath-103K:train[:60000]")
    read("hub:a/b:main:train[10%:20%]")
    assert asked[2:] == [("zwhe99/DeepMath-103K", "train[:60000]"), ("a/b", "main", "train[10%:20%]")]
    with pytest.raises(UserError, match="hub:no/such:test: ConnectionError: 'offline'"):
        read("hub:no/such:test")
    for source in (
        "hub:",
        "hub:name",
        "hub:name:",
        "hub:a:b:c:d",
        "hub:a::test",
        "hub:a:train[:5",
        "hub:a:b:c[1]:d",
    ):
        with pytest.raises(UserError, match=r"is written hub:NAME\[:CONFIG\]:SPLIT"):
            read(source)


# Contamination ----------------------------------------------------------------------------------------------


def test_words():
    said = words("Sells 1,234 clips, for $3.50 each: $x^2 \\cdot 3$!")
    assert said == ("sells", "1234", "clips", "for", "3.50", "each", "x", "^", "2", "cdot", "3")


def test_equal_words_overlap_however_short_and_other_operators_do_not():
    train = {"t1": "What is  2 + 3?", "t2": "What is 2 - 3?"}
    assert overlap(train, {"e": "what is $2+3$"}) == [Overlap(train="t1", test="e", share=1.0)]


def test_the_share_of_common_grams():
    """A test problem of 17 words has 5 13-grams; the training problem holds its first 15 words, which are 3
    of them."""
    letters = [chr(ord("a") + i) for i in range(17)]
    test = {"e": " ".join(letters)}
    train = {"t": "so: " + " ".join(letters[:15]) + " and then something else"}
    assert overlap(train, test, threshold=0.6) == [Overlap(train="t", test="e", share=0.6)]
    assert overlap(train, test, threshold=0.61) == []
    # of the longer one's 19 - 12 = 7 (so, a..o, and then something else) it holds fewer
    assert overlap(test, train) == []
    assert str(Overlap(train="t", test="e", share=0.6)) == "t repeats e (60%)"


@pytest.mark.parametrize("threshold", [0, 1.1, -1])
def test_a_threshold_that_is_no_share(threshold):
    with pytest.raises(ValueError, match=f"found {threshold}"):
        overlap({}, {}, threshold)


@needs_data
def test_gsm8k_trains_on_none_of_its_test_problems():
    train, test = (
        {r.id: r.problem for r in read(DATA / "gsm8k" / f"{split}.jsonl")} for split in ("train", "test")
    )
    assert overlap(train, test) == []
    assert [(o.train, o.test) for o in overlap(train, test, threshold=0.5)] == [
        ("1315", "603"),
        ("5163", "603"),
    ]


def test_a_gold_that_nothing_can_match_is_named_with_its_line(tmp_path):
    path = tmp_path / "golds.jsonl"
    path.write_text(
        '{"question": "q", "answer": "5"}\n{"question": "r", "answer": "' + "x" * 5000 + '"}\n', "utf-8"
    )
    with pytest.raises(
        UserError,
        match=r"golds\.jsonl:2: no answer can equal the gold answer 'xxx.*at most "
        r"400 of an answer are read",
    ):
        read(path)
    skipped: list[str] = []
    assert [record.answer for record in read(path, skipped=skipped)] == ["5"] and len(skipped) == 1


@pytest.mark.parametrize("gold", ["?", "...", "N/A", "n/a", "TBD", "nan", "\u2014", "\\ldots", "$?$"])
def test_a_gold_that_stands_for_none_is_refused_with_its_line(tmp_path, gold):
    path = tmp_path / "golds.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": gold}) + "\n", "utf-8")
    with pytest.raises(UserError, match=r"golds\.jsonl:1: no answer can equal .* it stands for an answer"):
        read(path)


@pytest.mark.parametrize("gold", ["-", "<", "none", "unknown", "undefined", "no solution", "A", "0"])
def test_a_gold_that_looks_like_none_and_may_be_an_answer_is_taken(tmp_path, gold):
    path = tmp_path / "golds.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": gold}) + "\n", "utf-8")
    assert [record.answer for record in read(path)] == [gold]
