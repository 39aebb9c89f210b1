"""From demonstrations to a data set: policies that summarise, the cache, the filter, files and their
provenance."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import pytest

import forethought
from forethought.core.errors import UserError
from forethought.engines.fake.engine import FakeEngine
from forethought.stages.distill import files
from forethought.stages.distill.cache import Cached
from forethought.stages.distill.filter import REASONS, Drops, FilterSpec, admit, complete
from forethought.stages.distill.pipeline import distill
from forethought.stages.distill.policy import Policy
from forethought.stages.distill.prompts import Prompt, digest
from forethought.stages.distill.records import (
    Drop,
    Failure,
    Guided,
    Item,
    Provenance,
    Summary,
    Usage,
    nothing,
)
from forethought.stages.distill.rules import gsm8k
from forethought.stages.distill.stage import account

ITEM = Item(
    id="1",
    question="Of 16 eggs three are eaten. How many are left?",
    chain="16 - 3 = 13 are left",
    answer="13",
    level=1,
    source="made",
)
PLAN = "<plan>Take the eaten ones off.</plan>"
ROW = Guided(
    id="1",
    question=ITEM.question,
    plan="Take the eaten ones off.",
    chain=ITEM.chain,
    answer="13",
    level=1,
    source="made",
)


class Says:
    """A summariser that says the same about everything, or what `texts` has for an item's id, and counts what
    it is asked."""

    name, model, prompt = "endpoint", "m", "words"

    def __init__(self, text: str = PLAN, **texts: str | Failure):
        self.text, self.texts, self.asked, self.settings = text, texts, [], {"temperature": 0.0}

    def estimate(self, items):
        return Usage(requests=len(items), prompt_tokens=10 * len(items), cost=0.5 * len(items))

    def summarise(self, items, done=nothing):
        results = []
        for item in items:
            self.asked.append(item.id)
            said = self.texts.get(item.id, self.text)
            results.append(
                said
                if isinstance(said, Failure)
                else Summary(id=item.id, text=said, usage=Usage(requests=1, cost=0.25))
            )
            done(results[-1])
        return results


def items(*ids: str) -> list[Item]:
    return [replace(ITEM, id=id, question=f"{ITEM.question} ({id})") for id in ids]


# the prompt -------------------------------------------------------------------------------------------------


def test_a_prompt_is_filled_once_and_keeps_other_braces():
    prompt = Prompt("be {short}", r"{question} | {chain} | \frac{1}{2}")
    item = replace(ITEM, question="say {chain}", chain="c {question}")
    assert prompt.text(item) == r"say {chain} | c {question} | \frac{1}{2}"
    assert [m["role"] for m in prompt.messages(item)] == ["system", "user"] and prompt.messages(item)[0][
        "content"
    ] == "be {short}"
    assert [m["role"] for m in Prompt("", "{question}{chain}").messages(item)] == ["user"]
    with pytest.raises(UserError, match=r"the prompt for plans lacks \{chain\}"):
        Prompt("", "{question}")


# a policy ---------------------------------------------------------------------------------------------------

SHORT = Prompt("", "{question} {chain}")


def planner(script, **fields) -> Policy:
    engine = FakeEngine(
        [*"abcdefgh", "<plan>", "</plan>"],
        {"plan": "</plan>"},
        script=script,
        context=fields.pop("context", 64),
    )
    return Policy(engine, "small", prompt=SHORT, max_tokens=fields.pop("max_tokens", 3), **fields)


def test_a_policy_speaks_inside_its_plan_and_may_run_out_of_tokens():
    heard = []

    def script(policy, text, i, seed):
        heard.append(text)
        return "c </plan>" if text.startswith("a") else "d d d d"

    made = [
        Item(id="1", question="a", chain="b", answer="e"),
        Item(id="2", question="f", chain="g", answer="e"),
    ]
    done = []
    results = planner(script, batch=1).summarise(made, done.append)
    assert heard == ["a b <plan>", "f g <plan>"]
    assert (
        results
        == done
        == [
            Summary(
                id="1", text="<plan>c </plan>", usage=Usage(requests=1, prompt_tokens=3, completion_tokens=2)
            ),
            Summary(
                id="2",
                text="<plan>d d d",
                truncated=True,
                usage=Usage(requests=1, prompt_tokens=3, completion_tokens=3),
            ),
        ]
    )


def test_a_policy_reads_messages_where_there_is_a_template_and_says_which_weights_spoke():
    words = ["a", "b", "<plan>", "</plan>"]
    engine = FakeEngine(
        words, {"plan": "</plan>"}, script=lambda policy, text, i, seed: f"{text.split()[0]} </plan>"
    )
    seen: list = []
    engine.chat = lambda messages, own: seen.append(messages) or (1,)
    policy = Policy(engine, "m", prompt=SHORT, max_tokens=4)
    assert policy.summarise([Item(id="1", question="a", chain="a", answer="")])[0].text == "<plan>b </plan>"
    assert seen == [[{"role": "user", "content": "a a"}]]
    assert policy.model == "m@0"
    engine.publish("base")
    assert Policy(engine, "m").model == "m@1"


def test_a_prompt_that_does_not_fit_fails_alone():
    long = Item(id="long", question=" ".join("a" * 60), chain="b", answer="")
    short = Item(id="short", question="a", chain="b", answer="")
    failure, summary = planner(lambda *_: "c </plan>").summarise([long, short])
    assert (failure.id, failure.kind) == ("long", "too_long")
    assert failure.detail == "62 tokens of prompt and 3 of plan are more than the model's context of 64"
    assert summary.text == "<plan>c </plan>"


# the cache --------------------------------------------------------------------------------------------------


def test_nothing_is_paid_for_twice(tmp_path):
    path, says = tmp_path / "a" / "cache.jsonl", Says()
    with Cached(says, path) as cached:
        first = cached.summarise(items("1", "2"))
    with Cached(says, path) as cached:
        assert cached.estimate(items("1", "2", "3")) == Usage(requests=1, prompt_tokens=10, cost=0.5)
        heard = []
        again = cached.summarise(items("3", "2", "1"), heard.append)
    assert says.asked == ["1", "2", "3"]
    assert [(r.id, r.cached) for r in again] == [("3", False), ("2", True), ("1", True)]
    assert all((r.text, r.usage.cost) == (PLAN, 0.25) for r in again)
    assert not any(r.cached for r in first) and sorted(r.id for r in heard) == ["1", "2", "3"]


def test_equal_content_is_asked_and_counted_once_whatever_its_id(tmp_path):
    says = Says()
    with Cached(says, tmp_path / "c") as cached:
        results = cached.summarise(
            [ITEM, replace(ITEM, id="2", answer="other"), replace(ITEM, id="3", chain="another")]
        )
    assert says.asked == ["1", "3"]
    assert [(r.id, r.cached, r.usage.requests) for r in results] == [
        ("1", False, 1),
        ("2", True, 0),
        ("3", False, 1),
    ]


@pytest.mark.parametrize("change", ["model", "prompt", "name", "settings", "question", "chain"])
def test_the_key_is_the_content(tmp_path, change):
    says, item = Says(), ITEM
    with Cached(says, tmp_path / "c") as cached:
        before = cached.key(item)
    if change in ("question", "chain"):
        item = replace(item, **{change: "other"})
    else:
        setattr(says, change, {"temperature": 1.0} if change == "settings" else "other")
    with Cached(says, tmp_path / "c") as cached:
        assert cached.key(item) != before


def test_a_torn_last_line_is_asked_again_and_the_file_stays_whole(tmp_path):
    path, says = tmp_path / "c", Says()
    with Cached(says, path) as cached:
        cached.summarise(items("1", "2"))
    whole = path.read_bytes()
    for cut in (1, 20):  # only the line's end is missing; half of it is
        path.write_bytes(whole[:-cut])
        says.asked.clear()
        with Cached(says, path) as cached:
            assert [r.cached for r in cached.summarise(items("1", "2"))] == [True, False]
        assert says.asked == ["2"] and path.read_bytes() == whole


def changed(line: str, **fields) -> str:
    return json.dumps(json.loads(line) | fields)


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:40],
        lambda line: "[]",
        lambda line: "\x00\x00",
        lambda line: "",
        lambda line: "[" * 100_000,
        lambda line: line.replace("Add", "Sub"),
        lambda line: line.replace('"truncated": false', '"truncated": true'),
        lambda line: changed(line, key="another"),
        lambda line: changed(line, sum="0" * 16),
        lambda line: changed(line, more=1),
        lambda line: line.replace('"requests": 1', '"requests": "1"'),
        lambda line: line.replace('"requests": 1', f'"requests": {"9" * 5000}'),
        lambda line: changed(line, usage=json.loads(line)["usage"] | {"cost": 10**400}),
    ],
    ids=lambda damage: "",
)
def test_a_damaged_line_is_told_and_asked_again(tmp_path, damage):
    path, says, told = tmp_path / "c", Says(**{"1": "<plan>Add them.</plan>"}), []
    with Cached(says, path) as cached:
        cached.summarise(items("1", "2"))
    first, second = path.read_text().splitlines()
    assert "Add" in first and damage(first) != first
    path.write_text(f"{damage(first)}\n{second}\n")
    with Cached(says, path, told.append) as cached:
        assert [(r.text, r.cached) for r in cached.summarise(items("1", "2"))] == [
            ("<plan>Add them.</plan>", False),
            (PLAN, True),
        ]
    assert told == [f"{path}: 1 of 2 lines are damaged, the first is line 1; what they held is asked again"]
    with Cached(says, path) as cached:
        assert all(r.cached for r in cached.summarise(items("1", "2")))


def test_lines_of_older_versions_have_no_checksum_but_types(tmp_path):
    path, says = tmp_path / "c", Says()
    with Cached(says, path) as cached:
        key = cached.key(ITEM)
    old = {"key": key, "text": PLAN, "truncated": False, "usage": {"requests": 1, "cost": 0.25}}
    for line, cached_before in (
        (old, True),
        (old | {"text": 5}, False),
        (old | {"truncated": "no"}, False),
        (old | {"usage": {"x": 1}}, False),
        (old | {"usage": {"cost": float("nan")}}, False),
        (old | {"text": "\ud800"}, False),
    ):
        path.write_text(json.dumps(line) + "\n")
        with Cached(says, path) as cached:
            assert cached.summarise([ITEM])[0].cached is cached_before


def test_a_line_that_the_disk_has_no_room_for_leaves_nothing_behind(tmp_path, monkeypatch):
    path, says = tmp_path / "c", Says()
    with Cached(says, path) as cached:
        cached.summarise(items("1"))
        before, write, calls = path.read_bytes(), os.write, []

        def full(file, line):
            calls.append(line)
            if len(calls) > 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(file, line[:10])

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            cached.summarise(items("2"))
    assert path.read_bytes() == before


def test_two_processes_share_a_cache(tmp_path):
    """Each appends 200 long lines while the other does, and opens the file anew between them, which cuts off
    what looks torn."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]); from test_distill import "
        "Says, ITEM; "
        "from dataclasses import replace; from forethought.stages.distill.cache import Cached\n"
        "for i in range(20):\n"
        "    with Cached(Says(), Path(sys.argv[1])) as cached:\n"
        "        cached.summarise([replace(ITEM, id=str(j), question=f'{sys.argv[2]} {i} {j}' * 99) for "
        "j in range(10)])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "c")]
    pair = [
        subprocess.Popen(
            [*command, name, str(Path(__file__).parent)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for name in "ab"
    ]
    assert [process.wait(60) for process in pair] == [0, 0]
    told = []
    with Cached(Says(), tmp_path / "c", told.append) as cached:
        everything = [
            replace(ITEM, id=f"{n}{i}{j}", question=f"{n} {i} {j}" * 99)
            for n in "ab"
            for i in range(20)
            for j in range(10)
        ]
        assert not told and all(result.cached for result in cached.summarise(everything))


def test_a_cache_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="cannot read or write the cache"):
        Cached(Says(), tmp_path)


def test_failures_are_asked_again(tmp_path):
    says = Says(**{"1": Failure(id="1", kind="timeout", detail="slow", usage=Usage(requests=3))})
    with Cached(says, tmp_path / "c") as cached:
        assert cached.summarise([ITEM, replace(ITEM, id="2")]) == [
            says.texts["1"],
            Failure(id="2", kind="timeout", detail="slow"),
        ]
        says.texts.clear()
        assert cached.summarise([ITEM])[0].text == PLAN
    assert says.asked == ["1", "1"]


# the filter -------------------------------------------------------------------------------------------------


def judged(text: str, item: Item = ITEM, **fields) -> tuple[list[Guided], list[Drop]]:
    drops = Drops(3)
    result = Summary(id=item.id, text=text, truncated=fields.pop("truncated", False))
    return admit([item], [result], FilterSpec(**fields), drops), drops.examples


def test_a_plan_that_passes():
    assert judged(PLAN) == ([ROW], [])
    assert judged("\n<plan>\nStart from the 16 eggs.\n</plan> ")[0][0].plan == "Start from the 16 eggs."


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("", "empty", "the summary is empty"),
        (" \n", "empty", "the summary is empty"),
        ("<plan> </plan>", "empty", "the summary is empty"),
        (
            "Take them off.",
            "unparsed",
            "character 1: nothing may stand outside of the tags, found 'Take them off.'",
        ),
        ("<plan>a</plan></plan>", "unparsed", "character 15: '</plan>' a second time"),
        ("<plan>a</plan> <plan>b</plan>", "unparsed", "character 16: '<plan>' a second time"),
        ("<plan>a</plan><think>b</think>", "unparsed", "a think section beside the plan"),
        ("<plan>13 will be left</plan>", "answer", "the answer '13' stands in the plan"),
        ("<plan>thirteen will be left</plan>", "answer", "the answer '13' stands in the plan"),
        ("<plan>Take 16 - 3</plan>", "calculation", "'6 - 3'"),
        ("<plan>left = 16</plan>", "calculation", "'= 1'"),
        ("<plan>Use 5, then 6, 16 and 7</plan>", "numbers", "5, 6, 7 do not stand in the question"),
        (f"<plan>{'a' * 1501}</plan>", "too_long", "1501 characters, allowed are 1500"),
    ],
)
def test_a_plan_that_is_dropped(text, reason, detail):
    kept, (drop,) = judged(text)
    assert kept == [] and (drop.reason, drop.detail, drop.text) == (reason, detail, text)


def test_bounds_of_the_filter():
    assert judged("<plan>Use 5 and 6</plan>")[1] == []
    assert judged("<plan>Use 5</plan>", most_numbers=0)[1][0].reason == "numbers"
    assert judged(PLAN, truncated=True)[1][0].reason == "truncated"
    told = replace(ITEM, question="Are 13 left of 16?")
    assert judged("<plan>See whether 13 are left</plan>", told)[1] == []  # the question says the answer
    with pytest.raises(UserError, match="most_chars is 0; it must be at least 1"):
        FilterSpec(most_chars=0)


def test_demonstrations_that_lack_something_are_dropped_before_they_cost():
    drops = Drops(1)
    parts = (("a", "answer", " "), ("b", "chain", ""), ("c", "question", "\n"), ("d", "answer", ""))
    lacking = [replace(ITEM, id=id, **{name: text}) for id, name, text in parts]
    assert complete([*lacking, ITEM], drops) == [ITEM]
    assert drops.by_reason() == {"no_question": 1, "no_chain": 1, "no_answer": 2}
    assert [d.id for d in drops.examples] == ["a", "b", "c"]  # the first of each


def test_a_solver_is_asked_about_what_is_left():
    asked, drops = [], Drops(3)
    made = items("1", "2", "3")
    results = Says(**{"2": "no tags"}).summarise(made)

    def solve(pairs):
        asked.extend((item.id, plan) for item, plan in pairs)
        return [True, False]

    assert [row.id for row in admit(made, results, FilterSpec(), drops, solve)] == ["1"]
    assert asked == [("1", ROW.plan), ("3", ROW.plan)]
    assert drops.by_reason() == {"unparsed": 1, "unsolved": 1}
    with pytest.raises(ValueError, match="shorter|longer"):
        admit(made, results, FilterSpec(), Drops(0), lambda pairs: [True])
    with pytest.raises(ValueError, match="the result for '3' says that it is for '2'"):
        admit(made[2:], results[1:2], FilterSpec(), Drops(0))


# all of it, and files ---------------------------------------------------------------------------------------


def test_distillation_and_its_provenance(tmp_path):
    told = []
    made = [*items("1", "2", "3"), replace(ITEM, id="4", answer="", source="other")]
    says = Says(
        **{
            "2": "<plan>13</plan>",
            "3": Failure(id="3", kind="timeout", detail="slow", usage=Usage(requests=3)),
        }
    )
    with Cached(says, tmp_path / "c") as cached:
        cached.summarise(made[:1])
        rows, provenance = distill(made, cached, today=date(2026, 11, 20), tell=told.append)
    assert rows == [replace(ROW, question=made[0].question)]
    assert provenance == Provenance(
        summariser="endpoint",
        model="m",
        prompt="words",
        prompt_hash=digest("words"),
        settings={"temperature": 0.0, "most_chars": 1500, "most_numbers": 2, "solver": "none"},
        version=forethought.__version__,
        date="2026-11-20",
        sources=("made", "other"),
        items=4,
        kept=1,
        drops={"no_answer": 1, "failed": 1, "answer": 1},
        examples=(
            Drop(id="4", reason="no_answer", detail="its answer is empty", text=""),
            Drop(
                id="2", reason="answer", detail="the answer '13' stands in the plan", text="<plan>13</plan>"
            ),
            Drop(id="3", reason="failed", detail="timeout: slow", text=""),
        ),
        paid=Usage(requests=4, cost=0.25),
        paid_before=Usage(requests=1, cost=0.25),
    )
    assert account(provenance) == (
        "1 of 4 demonstrations have a plan now, by endpoint (m); dropped: no_answer 1, failed 1, answer 1",
        {
            "kept": 1.0,
            "items": 4.0,
            "dropped: no_answer": 1.0,
            "dropped: failed": 1.0,
            "dropped: answer": 1.0,
            # what earlier runs paid for it included
            "requests": 5.0,
            "prompt_tokens": 0.0,
            "completion_tokens": 0.0,
            "cost": 0.5,
        },
    )
    assert digest("words") == "dba36bffa5cab0f922d087a3aeb179f9d4e745df40b323e1b1471402848c8a3e"
    assert told == [
        "3 of 4 demonstrations to summarise with m, at most 2 requests, 20 + 0 tokens, cost 1.0000",
        "1 kept; dropped: no_answer 1, failed 1, answer 1; spent 4 requests, 0 + 0 tokens, cost "
        "0.2500; "
        "paid before: 1 requests, 0 + 0 tokens, cost 0.2500",
    ]


def test_duplicate_ids_are_refused_before_anything_is_asked():
    says = Says()
    with pytest.raises(
        UserError, match="demonstrations: record 3 has the id '1' of record 1; give each its own"
    ):
        distill(items("1", "2", "1"), says)
    assert says.asked == []


def made_set() -> tuple[list[Guided], Provenance]:
    rows, provenance = distill([replace(ITEM, id="ä\n"), replace(ITEM, id="2", answer="")], gsm8k())
    assert rows[0].plan == "? are left"
    return rows, provenance


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("empty", [False, True])
def test_reading_back_gives_equal_records(tmp_path, form, empty):
    if form == "parquet":
        pytest.importorskip("datasets", reason="the extra `data` is not installed")
    rows, provenance = ([], distill([], gsm8k())[1]) if empty else made_set()
    assert files.write(tmp_path / "d", rows, provenance, form) == tmp_path / "d" / f"guided.{form}"
    assert files.read(tmp_path / "d") == (rows, provenance)
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == [f"guided.{form}", "provenance.json"]


def test_a_parquet_file_of_something_else(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra `data` is not installed")
    rows, provenance = made_set()
    path = files.write(tmp_path, rows, provenance, "parquet")
    kinds = {name: datasets.Value("int64" if name == "level" else "string") for name in asdict(ROW)}
    nothing_said = datasets.Dataset.from_dict(
        {name: [None] for name in kinds}, features=datasets.Features(kinds)
    )
    nothing_said.to_parquet(str(path))
    with pytest.raises(UserError, match="or empty places in them"):
        files.read(tmp_path)
    datasets.Dataset.from_list([{"a": 1}]).to_parquet(str(path))
    with pytest.raises(
        UserError,
        match=r"has the columns a \(int64\), or empty places in them; a guided "
        r"data set has id \(string\)",
    ):
        files.read(tmp_path)
    with pytest.raises(UserError, match="cannot write .*guided.parquet"):
        files.write(tmp_path, [replace(rows[0], plan="\ud800")], provenance, "parquet")  # half a character
    path.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="cannot read .*guided.parquet as Parquet"):
        files.read(tmp_path)


def test_without_datasets_the_message_names_the_extra_and_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'forethought\[data\]', or write JSON lines"):
        files.write(tmp_path, *made_set())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_holds_one_set_whole(tmp_path):
    rows, provenance = made_set()
    with pytest.raises(
        UserError, match="is no guided data set: it needs guided.jsonl or guided.parquet, and provenance.json"
    ):
        files.read(tmp_path)
    files.write(tmp_path, rows, provenance, "jsonl")
    with pytest.raises(UserError, match="holds guided.jsonl already"):
        files.write(tmp_path, rows, provenance, "parquet")
    with pytest.raises(UserError, match="record 2 has the id"):
        files.write(tmp_path, rows * 2, provenance, "jsonl")
    assert files.read(tmp_path) == (rows, provenance)
    files.write_jsonl(tmp_path / "guided.jsonl", [])
    with pytest.raises(UserError, match="has 0 records and provenance.json says 1: they are of two runs"):
        files.read(tmp_path)
    (tmp_path / "provenance.json").write_text("{}")
    with pytest.raises(UserError, match="provenance.json is damaged"):
        files.read(tmp_path)


GOOD = json.dumps(asdict(ROW))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD[:-3], "a.jsonl:1: no JSON"),
        (
            f"{GOOD}\n[1]",
            "a.jsonl:2: a guided record has the fields id, question, plan, chain, answer, level, "
            "source; found list",
        ),
        (
            GOOD.replace('"plan"', '"plam"'),
            r"a.jsonl:1: a guided record .* found \['answer', 'chain', 'id', "
            r"'level', 'plam'",
        ),
        (GOOD.replace('"level": 1', '"level": true'), "a.jsonl:1: level is True; it must be a whole number"),
        (GOOD.replace('"13"', "13"), "a.jsonl:1: answer is 13; it must be a text"),
        (f"{GOOD}\n\n{GOOD}", "a.jsonl:3: the id '1' was seen at "),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, message):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        files.read_jsonl(path)


def test_files_that_are_not_there_or_not_text(tmp_path):
    with pytest.raises(UserError, match="none.jsonl: no such file"):
        files.read_jsonl(tmp_path / "none.jsonl")
    (tmp_path / "b").write_bytes(b"\xff")
    with pytest.raises(UserError, match="b:1: not UTF-8"):
        files.read_jsonl(tmp_path / "b")


def test_every_reason_has_its_meaning():
    with pytest.raises(ValueError, match="no reason to drop is called 'other'"):
        Drops(1).add(Drop(id="1", reason="other", detail="", text=""))
    assert list(REASONS)[:3] == ["no_question", "no_chain", "no_answer"]
