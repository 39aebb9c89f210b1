"""One set of rules for every file of data: problems, demonstrations, solutions, phrases, distilled records,
PDDL."""

from __future__ import annotations

import gzip
import json
import os
import random
from pathlib import Path

import pytest

from forethought.core import datafiles, textfile
from forethought.core.errors import UserError
from forethought.grams import listing
from forethought.grams.sources import solutions
from forethought.stages.distill import files as guided
from forethought.tasks.blocksworld import files as blocksworld_files
from forethought.tasks.blocksworld import pddl
from forethought.tasks.math import files as math_files

PDDL = (
    "(define (problem p) (:domain blocksworld-4ops) (:objects a b) (:init (handempty) (ontable a) "
    "(ontable b) (clear a) (clear b)) "
    "(:goal (and (on a b))))"
)
ROWS = {  # reader -> (what it finds, a row for each id)
    "math": (
        lambda path: [r.id for r in math_files.read(path)],
        lambda id: {"id": id, "problem": f"P {id}", "answer": "3"},
    ),
    "blocksworld": (
        lambda path: [r.id for r in blocksworld_files.records(path)],
        lambda id: {"id": id, "pddl": PDDL},
    ),
    "guided": (
        lambda path: [r.id for r in guided.read_jsonl(path)],
        lambda id: {
            "id": id,
            "question": "Q",
            "plan": "P",
            "chain": "C",
            "answer": "3",
            "source": "S",
            "level": 1,
        },
    ),
    "solutions": (lambda path: list(solutions(path).texts), lambda id: {"text": f"text {id}"}),
}
READERS = {name: read for name, (read, _) in ROWS.items()} | {
    "grams": lambda path: [g.text for g in listing.read(path).grams],
    "domain": lambda path: pddl.parse_domain(textfile.read_text(path), str(path)),
    "problem": lambda path: pddl.read_problem(textfile.read_text(path), None, str(path)),
}


def put(folder: Path, data: bytes, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refusal(read, *args) -> str:
    with pytest.raises(UserError) as error:
        read(*args)
    assert str(error.value).isprintable()
    return str(error.value)


# Lines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_line_ends_byte_order_marks_and_blank_lines_are_the_same_everywhere(tmp_path, name, end, bom):
    read, row = ROWS[name]
    plain = put(tmp_path, "".join(json.dumps(row(f"i{n}")) + "\n" for n in (1, 2)).encode(), "plain.jsonl")
    text = end.join(["", json.dumps(row("i1")), "", "  \t", json.dumps(row("i2")), "", ""])
    assert read(put(tmp_path, bom + text.encode())) == read(plain)


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_no_other_sign_ends_a_line(tmp_path, sign):
    """str.splitlines would cut at each of these. Raw where JSON allows it in a string, else as an escape."""
    for raw in (True, False) if ord(sign) > 31 else (False,):
        said = json.dumps({"id": "x", "problem": f"one{sign}two", "answer": "3"}, ensure_ascii=not raw)
        (record,) = math_files.read(put(tmp_path, said.encode() + b"\n"))
        assert record.problem == f"one{sign}two"
    assert [number for number, _ in textfile.lines(put(tmp_path, f"one{sign}two\nthree\n".encode()))] == [
        1,
        2,
    ]


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(textfile, "MOST_LINE", 1 << 20)
    path = put(tmp_path, b'{"problem": "P", "answer": "3"}\n{"problem": "' + b"x" * (1 << 20))
    assert refusal(math_files.read, path) == f"{path}:2: a line of more than 1 MiB"


# Files that are none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_of_text_is_refused_by_name(tmp_path, name):
    read = READERS[name]
    assert "no such file" in refusal(read, tmp_path / "none.jsonl")
    if name != "solutions":  # there a folder is a run
        assert refusal(read, tmp_path).startswith(f"{tmp_path}: a folder, not a file")
        assert "no path can hold" in refusal(read, Path("a\0b.jsonl"))
        os.mkfifo(tmp_path / "pipe.jsonl")
        assert "pipe.jsonl: no regular file" in refusal(read, tmp_path / "pipe.jsonl")
    assert (
        refusal(read, put(tmp_path, gzip.compress(b"{}\n")))
        == f"{tmp_path / 'a.jsonl'}: a gzip file; unpack it first (gunzip)"
    )
    assert "a.jsonl:2: not UTF-8 (byte 3 of the line)" in refusal(read, put(tmp_path, b"\n{}\xff\n"))
    assert "a.jsonl:1: not UTF-8 (byte 1 of the line)" in refusal(
        read, put(tmp_path, "\n{}\n".encode("utf-16"))
    )


# Values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"level": NaN}', "NaN is not JSON; write null where there is no number"),
        ('{"level": -Infinity}', "-Infinity is not JSON"),
        ('{"level": 1e999}', "1e999 is too large for a number"),
        ('{"level": ' + "9" * 5000 + "}", "a whole number of thousands of digits"),
        ("[" * 200_000, "JSON nested too deeply"),
        ('{"a":' * 100_000, "JSON nested too deeply"),
        ('{"a": 1', "no JSON (Expecting"),
    ],
)
def test_json_that_is_none_is_refused_with_file_and_line(tmp_path, name, line, says):
    read, row = ROWS[name]
    path = put(tmp_path, f"{json.dumps(row('i1'))}\n\n{line}\n".encode())
    said = refusal(read, path)
    assert said.startswith(f"{path}:3: ") and says in said


@pytest.mark.parametrize("name", ROWS)
def test_half_of_a_character_is_named_with_its_field(tmp_path, name):
    read, row = ROWS[name]
    told = row("i1")
    field = next(key for key in ("problem", "pddl", "plan", "text") if key in told)
    path = put(tmp_path, json.dumps(told | {field: f"Tom \ud83d has {told[field]}"}).encode())
    assert refusal(read, path).startswith(f"{path}:1: field '{field}' holds half of a character (U+D83D)")
    # two escapes that are one character
    whole = put(tmp_path, json.dumps(told | {field: f"{told[field]} ; \U0001f600"}).encode())
    assert b"\\ud83d\\ude00" in whole.read_bytes()
    assert read(whole)


def test_half_of_a_character_is_not_written_either(tmp_path):
    row = guided.Guided(id="1", question="Q", plan="P \ud800", chain="C", answer="3", source="S", level=1)
    assert "record 1: field 'plan' holds half of a character" in refusal(
        guided.write_jsonl, tmp_path / "a.jsonl", [row]
    )
    assert list(tmp_path.iterdir()) == []


def test_half_of_a_character_in_a_field_that_nobody_reads(tmp_path):
    path = put(tmp_path, b'{"problem": "P", "answer": "3", "note": "\\ud83d"}\n')
    assert math_files.read(path)[0].problem == "P"


def test_where_a_half_is_found():
    assert datafiles.half({"a": ["x", {"b": "\udc00"}]}).startswith(
        "field 'a.1.b' holds half of a character (U+DC00)"
    )
    assert datafiles.half({"\ud800": 1}).startswith("a text holds half")
    assert datafiles.half({"a": ["x", 1, None, {"b": "é😀"}]}) is None


# Ids --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ROWS if name != "solutions"])
def test_an_id_may_be_a_whole_number_and_stands_once(tmp_path, name):
    read, row = ROWS[name]
    path = put(tmp_path, "\n\n".join(json.dumps(row(id)) for id in (1, "2", 3)).encode())
    assert read(path) == ["1", "2", "3"]
    path = put(tmp_path, "\n\n".join(json.dumps(row(id)) for id in (1, "2", "1")).encode())
    assert refusal(read, path).startswith(f"{path}:5: the id '1' was seen at {path}:1; give each")


# Fields -----------------------------------------------------------------------------------------------------

VERL = {
    "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "How many?"}],
    "reward_model": {"ground_truth": "7"},
}
PATHS = {"problem": "prompt", "answer": "reward_model.ground_truth"}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_field_inside_a_field_has_a_path(tmp_path, kind):
    if kind == "parquet":
        arrow = pytest.importorskip("pyarrow", reason="pyarrow (the extra `data`) is not installed")
        from pyarrow import parquet

        path = tmp_path / "a.parquet"
        parquet.write_table(arrow.Table.from_pylist([VERL]), path)
    else:
        path = put(tmp_path, json.dumps(VERL).encode())
    (record,) = math_files.read(path, PATHS)
    assert (record.problem, record.answer) == ("How many?", "7")
    assert math_files.read(path, PATHS | {"problem": "prompt.0.content"})[0].problem == "S"
    assert math_files.read(path, PATHS, only={"reward_model.ground_truth": "7"})[0].answer == "7"
    assert "unknown field 'prompt.2.content'" in refusal(
        math_files.read, path, PATHS | {"problem": "prompt.2.content"}
    )
    assert "a field inside a field is written outer.inner" in refusal(
        math_files.read, path, PATHS | {"answer": "reward_model.gold"}
    )


def test_a_chat_of_several_turns_is_not_guessed_at(tmp_path):
    two = VERL | {
        "prompt": [
            {"role": "user", "content": "A"},
            {"role": "assistant", "content": "B"},
            {"role": "user", "content": "C"},
        ]
    }
    said = refusal(math_files.read, put(tmp_path, json.dumps(two).encode()), PATHS)
    assert (
        'a chat with 2 user messages; name one by its place, such as fields = { problem = "prompt.0.content" '
        "}" in said
    )


def test_a_key_with_a_dot_in_it_is_the_key():
    assert datafiles.field({"a.b": 1, "a": {"b": 2}}, "a.b") == (True, 1)
    assert datafiles.field({"a": {"b": 2}}, "a.b") == (True, 2)
    assert (
        datafiles.field({"a": [1]}, "a.1")
        == datafiles.field({"a": [1]}, "a.-1")
        == datafiles.field({"a": 1}, "a.b")
        == (False, None)
    )


def test_an_empty_field_counts_as_not_there(tmp_path):
    """Decided: releases that were joined have both names, and one of them is empty."""
    (record,) = math_files.read(
        put(tmp_path, b'{"problem": " ", "question": "q", "answer": "", "final_answer": "4"}')
    )
    assert (record.problem, record.answer) == ("q", "4")


@pytest.mark.parametrize(
    ("written", "gold"),
    [
        ("5", "5"),
        ("5.0", "5"),
        ("5.50", "5.5"),
        ("1e-7", "0.0000001"),
        ("-1E-7", "-0.0000001"),
        ("1e5", "100000"),
        ("-0.0", "0"),
        ("0.1234567890123456789", "0.1234567890123456789"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("1e22", "10000000000000000000000"),
        ("9007199254740993.0", "9007199254740993"),
    ],
)
def test_a_gold_that_is_a_number_is_taken_as_it_is_written(tmp_path, written, gold):
    assert (
        math_files.read(put(tmp_path, f'{{"problem": "P", "answer": {written}}}'.encode()))[0].answer == gold
    )


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("true", "expected text as the answer, found 'true'"),
        ("null", "no answer"),
        ("[1, 2]", "expected text as the answer, found '[1, 2]'"),
        ("1e-2000", "the answer is a number of more than 1000 digits"),
        ("1" * 2000, "the answer is a number of more than 1000 digits"),
    ],
)
def test_a_gold_that_is_none(tmp_path, written, says):
    path = put(tmp_path, f'{{"problem": "P", "answer": {written}}}'.encode())
    assert refusal(math_files.read, path).startswith(f"{path}:1: {says}")


@pytest.mark.parametrize(
    "level", ["1" + "0" * 400, "1e300", "true", '"9999999999"', '"' + "9" * 400 + '"', "[3]"]
)
def test_a_level_that_is_none(tmp_path, level):
    path = put(tmp_path, f'{{"problem": "P", "answer": "3", "level": {level}}}'.encode())
    assert refusal(math_files.read, path).startswith(f"{path}:1: expected a level such as 3")


@pytest.mark.parametrize(
    "gold",
    [
        "First add 2 and 3. The answer is 5.",
        "The answer is 5",
        "Final answer: 5",
        "We get 5 from it",
        "Tom has 2. Ann has 3 more than he",
        "48/2 = 24 clips in May.\n48+24=72",
        "It is 5 because 2+3=5",
        "2+3=5, so the sum is 5",
    ],
)
def test_prose_in_place_of_a_gold_is_refused(tmp_path, gold):
    path = put(tmp_path, json.dumps({"question": "Q", "answer": gold}).encode())
    assert refusal(math_files.read, path).startswith(
        f"{path}:1: the answer is prose, which no solution can equal: "
    )
    kept = math_files.read(put(tmp_path, json.dumps({"question": "Q", "answer": f"{gold}\n#### 5"}).encode()))
    assert (kept[0].answer, kept[0].solution) == ("5", gold)


@pytest.mark.parametrize(
    "gold",
    [
        "Monday",
        "3 p.m. Eastern Time",
        r"\text{the line through } A \text{ and } B",
        "no real solutions",
        "x = 3 or x = 5",
        "3!",
        "5.5",
        "(A)",
        "1, 2, 3",
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        "$3.50",
        "St. Louis",
        "x=1\ny=2",
        "5 June 2024",
        "0.\\overline{3}",
    ],
)
def test_golds_in_words_are_golds(tmp_path, gold):
    assert (
        math_files.read(put(tmp_path, json.dumps({"question": "Q", "answer": gold}).encode()))[0].answer
        == gold
    )


# PDDL -------------------------------------------------------------------------------------------------------


def test_large_pddl_is_read_in_one_pass(tmp_path):
    """Each look-up counts as one step here: a list that is read from its start for each fact would take
    200,000,000."""

    class Word(str):
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other):
            Word.compared += 1
            return str.__eq__(self, other)

    n = 20_000
    names = dict.fromkeys(Word(f"o{i}") for i in range(n))
    facts = [
        pddl._fact(expr, None, names, "object")
        for expr in pddl._expressions(" ".join(f"(p o{i})" for i in range(n)), "s")
    ]
    assert len(facts) == n and Word.compared < 20 * n
    objects = " ".join(names)
    problem = pddl.read_problem(
        f"(define (problem p) (:domain d) (:objects {objects}) (:init "
        f"{' '.join(f'(p {o})' for o in names)}) (:goal (p o1)))"
    )
    assert len(problem.objects) == len(problem.init) == n
    said = refusal(
        pddl.read_problem,
        f"(define (problem p) (:domain d) (:objects {objects}) (:init (p stranger)) (:goal (p o1)))",
    )
    assert "unknown object 'stranger'" in said and "and 19940 more" in said and len(said) < 2000
    parameters = " ".join(f"?x{i}" for i in range(n))
    domain = (
        f"(define (domain d) (:predicates (p ?x)) (:action a :parameters ({parameters}) :effect (p ?x1)))"
    )
    assert len(pddl.parse_domain(domain).actions["a"].parameters) == n
    assert "'?x5' is not a new parameter" in refusal(pddl.parse_domain, domain.replace(f"?x{n - 1})", "?x5)"))


# Anything at all --------------------------------------------------------------------------------------------


def noise(rng: random.Random, seed: bytes) -> bytes:
    """Bytes near a good file: pieces cut, doubled, swapped, and signs that readers have stumbled over."""
    odd = [
        b"\xef\xbb\xbf",
        b"\xff",
        b"\0",
        b"\r",
        b"\n",
        b"\n\n",
        "\u2028".encode(),
        b'"\\ud83d"',
        b"NaN",
        b"1e999",
        b"9" * 5000,
        b"null",
        b"[" * 3000,
        b"{",
        b"}",
        b"(",
        b")",
        b"\\",
        b'"',
        b"-",
        b"#",
        b"not",
        b"and",
        b":",
        b",",
        b"true",
        b"[]",
        b"{}",
        b"\x1f\x8b",
        b"1e-7",
        b"10" * 200,
        "é".encode(),
        b";",
    ]
    data = seed
    for _ in range(rng.randrange(1, 5)):
        at, upto = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        data = rng.choice(
            (
                data[:at] + rng.choice(odd) + data[at:],
                data[:at] + rng.choice(odd) + data[upto:],
                data[:at] + data[upto:],
                data[:upto] + data[at:],
                data[:at] + bytes(rng.randrange(256) for _ in range(3)) + data[at:],
            )
        )[:20_000]
    return data


SEEDS = {
    **{name: "\n".join(json.dumps(row(id)) for id in (1, "b")).encode() for name, (_, row) in ROWS.items()},
    "grams": b"# a list\n\nlet me check # 3\nwait, what\n# ---- cluster\nso then\n",
    "problem": PDDL.encode(),
    "domain": b"(define (domain d) (:requirements :strips) (:predicates (on ?x ?y) (clear ?x))\n; "
    b"words\n(:action a :parameters (?x ?y) "
    b":precondition (and (on ?x ?y)) :effect (and (not (on ?x ?y)) (clear ?y))))",
}


@pytest.mark.parametrize("name", SEEDS)
def test_whatever_a_file_holds_the_end_is_a_value_or_an_error_with_its_address(tmp_path, name):
    rng, path, read = random.Random(name), tmp_path / "a.jsonl", 0
    for _ in range(2000):
        path.write_bytes(noise(rng, SEEDS[name]))
        try:
            READERS[name](path)
            read += 1
        except UserError as error:
            assert str(error).startswith(str(path)), error
    assert 20 < read < 1900  # the noise is near enough to good files, and far enough


NODES = [
    {"id": 0, "parent": None, "role": None, "status": "ok", "text": "", "reward_parts": {}},
    {"id": 1, "parent": 0, "role": "plan", "status": "ok", "text": "P", "reward_parts": {"valid": 1.0}},
    {"id": 2, "parent": 1, "role": "act", "status": "ok", "text": "A", "reward_parts": {"outcome": 1.0}},
]


def trees(folder: Path, data: bytes) -> Path:
    (folder / "trees").mkdir(exist_ok=True)
    (folder / "trees" / "step-abc.jsonl.gz").touch()  # of nobody
    (folder / "trees" / "step-000001.jsonl.gz").write_bytes(data)
    return folder


def test_a_circle_in_a_tree_is_an_error_and_no_loop(tmp_path):
    circle = [
        {**NODES[1], "id": 1, "parent": 2},
        {**NODES[2], "id": 2, "parent": 1},
        {**NODES[2], "id": 3, "parent": 2},
    ]
    said = refusal(solutions, trees(tmp_path, gzip.compress(json.dumps({"nodes": circle}).encode())))
    assert "step-000001.jsonl.gz:1: no tree of rollouts" in said and "in a circle" in said


def test_whatever_a_file_of_trees_holds(tmp_path):
    rng, whole, read = random.Random(0), "\n".join([json.dumps({"step": 1, "nodes": NODES})] * 2).encode(), 0
    assert solutions(trees(tmp_path, gzip.compress(whole))).texts == ("P\n\nA",)
    for n in range(2000):
        data = gzip.compress(noise(rng, whole), 1) if n % 4 else noise(rng, gzip.compress(whole, 1))
        try:
            solutions(trees(tmp_path, data))
            read += 1
        except UserError as error:
            assert str(error).startswith(str(tmp_path)), error
    assert 20 < read < 1900


def test_whatever_a_parquet_file_holds(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow (the extra `data`) is not installed")
    from pyarrow import parquet

    whole, path, rng, read = tmp_path / "whole.parquet", tmp_path / "a.parquet", random.Random(0), 0
    values = [
        None,
        "P",
        "7",
        3,
        2.5,
        float("nan"),
        float("inf"),
        True,
        b"\xff",
        [1],
        {"a": "x"},
        10**18,
        "The answer is 5.",
    ]
    for n in range(400):
        column = [[rng.choice(values)] * 2 for _ in range(3)]
        parquet.write_table(
            arrow.table(dict(zip(("question", "answer", "level"), map(arrow.array, column), strict=True))),
            whole,
        )
        data = bytearray(whole.read_bytes())
        if n % 2:
            data = data[: rng.randrange(len(data))]
        path.write_bytes(data)
        try:
            math_files.read(path)
            read += 1
        except UserError as error:
            assert str(error).startswith(str(path)), error
    assert read


def test_rows_of_a_csv_file(tmp_path):
    file = tmp_path / "made.csv"
    file.write_text('\ufeffquestion,answer\n"a, b",1\n\n"two\nlines",\n', encoding="utf-8")
    assert list(datafiles.rows(file)) == [
        (f"{file}:2", {"question": "a, b", "answer": "1"}),
        (f"{file}:4", {"question": "two\nlines", "answer": ""}),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1\n", r":2: 1 cells, and 2 columns"),
        ("a,b\n1,2,3\n", r":2: 3 cells, and 2 columns"),
        ("a,a\n1,2\n", r":1: the first line names the columns, each once; found 'a'"),
        ("a,\n1,2\n", r":1: the first line names the columns, each once; found ''"),
        ('a,b\n"1,2\n', r":2: no readable CSV"),
    ],
)
def test_csv_files_that_are_none(tmp_path, text, said):
    file = tmp_path / "made.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        list(datafiles.rows(file))
