"""Plans beside the sub-questions that people wrote: benchmarks/guidance.py, on two problems counted by
hand."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from forethought.stages.distill import files, rules
from forethought.stages.distill.pipeline import distill

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "guidance.py"
SOCRATIC = [
    {
        "question": "Ann has 3 red apples and 4 green apples, each worth 2 coins.",
        "answer": "How many apples are there? ** There are 3+4=<<3+4=7>>7 apples.\n"
        "How many coins are paid? ** The coins paid are 7*2=<<7*2=14>>14\n#### 14",
    },
    {
        "question": "A train of 5 wagons has 9 seats a wagon; 6 seats broke.",
        "answer": "How many seats exist? ** The wagons hold 5*9=<<5*9=45>>45 seats\n"
        "How many work? ** So 45-6=<<45-6=39>>39 seats work\n#### 39",
    },
]


@pytest.fixture(scope="module")
def guidance():
    spec = importlib.util.spec_from_file_location("guidance", SCRIPT)
    module = sys.modules["guidance"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path: Path, records: list) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def both(tmp_path):
    """(solutions as GSM8K has them, the same with sub-questions)"""
    plain = [
        r | {"answer": "\n".join(line.split(" ** ")[-1] for line in r["answer"].splitlines())}
        for r in SOCRATIC
    ]
    plain.append({"question": "Nobody has solved it.", "answer": "She has 2 of them."})
    return write(tmp_path / "train.jsonl", plain), write(tmp_path / "socratic.jsonl", SOCRATIC)


def test_the_comparison_by_hand(guidance):
    """Content words of the second plan: {wagons, hold, seats} {seats, work}; of its questions: {seats, exist}
    {work}. In order that is 2/5 + 2/3; with the steps exchanged only one pair is left, 2/3."""
    same = ("Count the apples.", "The coins paid.")
    first = guidance.Pair(same, same)
    second = guidance.Pair(
        ("The wagons hold ? seats.", "? seats work."), ("How many seats exist?", "How many work?")
    )
    found = guidance.compare([first, second], seed=0)
    whole = 2 * (2 / 5 + 2 / 3) / 4
    assert found == pytest.approx(
        {
            "plans": 2,
            "steps": 2,
            "sub-questions": 2,
            "as many steps as sub-questions": 1.0,
            "F1": (1 + whole) / 2,
            "F1 of another problem's plan": 0.0,
            "sub-questions covered": 1.0,
            "covered by another problem's plan": 0.0,
            "F1 of plans of several steps": (1 + whole) / 2,
            "F1 of these, steps in another order": (2 * 1 / 4 + 2 * (2 / 3) / 4) / 2,
        }
    )


def test_the_command(guidance, both, tmp_path, capsys):
    train, socratic = both
    out = tmp_path / "numbers.json"
    assert guidance.main(["--train", str(train), "--references", str(socratic), "--json", str(out)]) == 0
    said = json.loads(out.read_text())
    assert (said["items"], said["kept"], said["drops"], said["plans"]) == (3, 2, {"no_answer": 1}, 2)
    assert 0.5 < said["F1"] < 1 and said["sub-questions covered"] == 1.0
    text = capsys.readouterr().out
    assert text.startswith(
        "3 solutions of train.jsonl: 2 plans kept\n  dropped, no_answer: 1\n2 plans beside the sub-questions"
    )
    assert (
        "F1 of another problem's plan           0.000" in text
        and "covered by another problem's plan      0.000" in text
    )


def test_plans_that_a_run_has_made(guidance, both, tmp_path):
    train, socratic = both
    rows, provenance = distill([ref.item for ref in guidance.references(socratic)], rules.gsm8k())
    folder = tmp_path / "guided"
    files.write(folder, rows, provenance, "jsonl")
    out = tmp_path / "numbers.json"
    assert (
        guidance.main(
            [
                "--train",
                str(train),
                "--references",
                str(socratic),
                "--guided",
                str(folder),
                "--json",
                str(out),
            ]
        )
        == 0
    )
    assert json.loads(out.read_text())["plans"] == 2
    files.write(folder, rows[:1], distill([guidance.references(socratic)[0].item], rules.gsm8k())[1], "jsonl")
    # one plan has no control
    assert guidance.main(["--train", str(train), "--references", str(socratic), "--guided", str(folder)]) == 2


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [{"question": "q", "answer": "a step\n#### 1"}],
            "record 1 has a step without a sub-question before ' [*][*] '",
        ),
        ([{"question": "q"}], "record '1' has no text in its field 'answer'"),
        ([[1]], "record 1 is not an object"),
        ([], "has no records"),
    ],
)
def test_files_that_are_something_else(guidance, both, tmp_path, capsys, records, message):
    wrong = write(tmp_path / "wrong.jsonl", records)
    assert guidance.main(["--train", str(both[0]), "--references", str(wrong)]) == 2
    assert re.search(message, capsys.readouterr().err)
    (tmp_path / "broken.jsonl").write_text("{")
    for missing in (tmp_path / "none.jsonl", tmp_path / "broken.jsonl"):
        assert guidance.main(["--train", str(missing), "--references", str(both[1])]) == 2
        assert f"cannot read {missing} as JSON lines" in capsys.readouterr().err
