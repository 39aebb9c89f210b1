"""The attack suite: its verdicts on runs made by hand, and a short part of every attack on the library as it
is."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
if sys.platform != "linux":
    pytest.skip("attacks fork, and look at /proc", allow_module_level=True)

from bench_load import script  # noqa: E402

attacks = script("attacks")

from attacks_kit import (  # noqa: E402
    children,
    damage,
    environments,
    fuzz,
    kills,
    models,
    moments,
    mutate,
    records,
    runs,
    texts,
    writers,
)
from attacks_kit.children import Ended  # noqa: E402
from attacks_kit.wounds import DAMAGES, Wound  # noqa: E402

# --- a run by hand ---


@pytest.fixture
def made(tmp_path) -> Path:
    return make_run(tmp_path / "run")


def make_run(out: Path) -> Path:
    newest = out / "checkpoints" / "step-000004"
    (newest / "engine").mkdir(parents=True)
    (newest / "engine" / "model.safetensors").write_bytes(b"weights")
    (newest / "engine" / "optimizer.safetensors").write_bytes(b"moments")
    (newest / "state.json").write_text(
        json.dumps({"progress": {"step": 4, "seconds": 1.5}, "logs": {"metrics.jsonl": 7}})
    )
    (newest / "manifest.json").write_text("{}")
    rows = [
        {
            "step": i,
            "kind": "reinforce",
            "seconds": i / 3,
            "seconds_probe/held": 0.1,
            "loss/pg": 0.5 / (i + 1),
            "grad_norm/base": float(i > 2),
        }
        for i in range(5)
    ]
    (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    decisions = [
        {"step": 0, "kind": "run", "name": "x", "outcome": "start", "reason": ""},
        {"step": 3, "kind": "gate", "name": "eval/act", "outcome": "pass", "reason": "fine"},
    ]
    (out / "decisions.jsonl").write_text("".join(json.dumps(d) + "\n" for d in decisions))
    (out / "trees").mkdir()
    (out / "trees" / "step-000003.jsonl.gz").write_bytes(gzip.compress(b'{"step": 3}\n', mtime=0))
    (out / "summary.json").write_text(
        json.dumps({"status": "done", "seconds": 3.2, "machine": {"threads": 1}})
    )
    (out / "recipe.json").write_text("{}")
    (out / "report.html").write_text("<html>" + "x" * 20_000)
    return out


def test_two_runs_that_only_clocks_tell_apart_are_equal(made, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(made, other)
    rows = [row | {"seconds": 99.0, "seconds_probe/held": 7.0} for row in runs.rows(other / "metrics.jsonl")]
    (other / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open(other / "decisions.jsonl", "a") as file:
        file.write(
            json.dumps({"step": 3, "kind": "run", "name": "x", "outcome": "resume", "reason": ""}) + "\n"
        )
    (other / "trees" / "step-000003.jsonl.gz").write_bytes(gzip.compress(b'{"step": 3}\n', 1, mtime=5))
    (other / ".lock").write_text("")
    assert runs.difference(runs.left(made), runs.left(other)) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda out: (out / "checkpoints/step-000004/engine/model.safetensors").write_bytes(b"weightz"),
            "checkpoint: engine/model.safetensors differs",
        ),
        (
            lambda out: (out / "checkpoints/step-000004/engine/optimizer.safetensors").write_bytes(b""),
            "optimizer.safetensors differs",
        ),
        (
            lambda out: shutil.copytree(out / "checkpoints/step-000004", out / "checkpoints/step-000002"),
            "checkpoints: [2] too many, [] missing",
        ),
        (lambda out: edit(out, 2, {"loss/pg": 0.1}), "different from row 2 on in loss/pg"),
        (lambda out: edit(out, 2, None), "4 for 5, different from row 2 on"),
        (
            lambda out: (out / "trees/step-000003.jsonl.gz").write_bytes(gzip.compress(b'{"step": 4}\n')),
            "trees: step-000003.jsonl.gz differs",
        ),
        (lambda out: (out / "trees/step-000003.jsonl.gz").unlink(), "trees: step-000003.jsonl.gz is missing"),
        (lambda out: (out / "report.html").unlink(), "report.html is missing"),
        (lambda out: (out / ".report.html.x").write_text(""), "names: ['.report.html.x'] too many"),
        (lambda out: (out / "error.txt").write_text(""), "names: ['error.txt'] too many"),
        (lambda out: (out / "decisions.jsonl").write_text(""), "decisions: 0 for 1"),
        (lambda out: (out / "summary.json").write_text('{"status": "running"}'), "summary differs"),
    ],
)
def test_every_difference_is_named(made, change, said):
    wanted = runs.left(made)
    change(made)
    assert said in runs.difference(wanted, runs.left(made))


def edit(out: Path, at: int, fields: dict | None) -> None:
    rows = runs.rows(out / "metrics.jsonl")
    rows[at : at + 1] = [] if fields is None else [rows[at] | fields]
    (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_resume_tests_the_promise_only_where_a_gradient_flows_after_it(made):
    assert [runs.gradients_after(made, step) for step in (-1, 2, 3, 4)] == [2, 2, 1, 0]


# --- verdicts ---


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        (Ended(0, "done", 1), ""),
        (Ended(2, "forethought: x: no", 1), ""),
        (Ended(None, "", 60), "hangs: killed after 60 s"),
        (Ended(1, "forethought: odd", 1), "exit 1: forethought: odd"),
        (Ended(-11, "", 1), "signal 11"),
        (Ended(135, "", 1), "exit 135"),
        (Ended(2, "unexpected KeyError\nThis is a bug: report", 1), "This is a bug"),
        (Ended(0, "Traceback (most recent call last):\n", 1), "Traceback"),
    ],
)
def test_an_end_that_no_user_may_be_given(ended, said):
    assert (said in children.untyped(ended)) if said else children.untyped(ended) == ""


WOUND = Wound("a line less", lambda run, other, rng: None, ("metrics.jsonl",))


def test_damage_that_touches_nothing(made):
    assert damage.judge(Ended(0, "done", 1), made, runs.left(made), WOUND) == ("no effect", "")


def test_a_silent_use_of_damage_fails(made):
    wanted = runs.left(made)
    edit(made, 2, {"loss/pg": 0.1})
    how, why = damage.judge(Ended(0, "done", 1), made, wanted, WOUND)
    assert how == "failed" and why.startswith("silent: metric rows")


def test_what_is_said_of_damage_counts_where_the_weights_are_the_same(made):
    wanted = runs.left(made)
    edit(made, 2, None)
    assert damage.judge(Ended(0, "note: metrics.jsonl has lost a line", 1), made, wanted, WOUND) == (
        "said",
        "",
    )
    assert (
        damage.judge(Ended(0, "note: metrics.jsonl as usual", 1), made, wanted, WOUND, usual="metrics.jsonl")[
            0
        ]
        == "failed"
    )
    (made / "checkpoints/step-000004/engine/model.safetensors").write_bytes(b"other")
    how, why = damage.judge(Ended(0, "note: metrics.jsonl has lost a line", 1), made, wanted, WOUND)
    assert how == "failed" and "the weights differ" in why


@pytest.mark.parametrize(
    ("ended", "how"),
    [
        (Ended(2, "forethought: run/metrics.jsonl is shorter than its checkpoint says", 1), "refused"),
        (Ended(2, "forethought: something is wrong", 1), "failed"),
        (Ended(1, "This is a bug: metrics.jsonl", 1), "failed"),
        (Ended(None, "", 60), "failed"),
        (Ended(-9, "", 60), "failed"),
    ],
)
def test_a_refusal_names_what_is_damaged(made, ended, how):
    assert damage.judge(ended, made, runs.left(made), WOUND)[0] == how


@pytest.mark.parametrize(
    ("codes", "text", "said"),
    [
        ((0, 2), "forethought: run is being written by process 12 on host", ""),
        ((2, 0), "forethought: process 11 holds it", ""),
        ((0, 0), "", "2 of two ended well"),
        ((2, 2), "process 12", "0 of two ended well"),
        ((0, 2), "forethought: in use", "does not say"),
        ((0, 2), "process 99 writes", "does not say that process 12"),
        ((0, 2), "run is finished; there is nothing to resume", ""),
        ((0, 1), "process 12", "exit 1"),
        ((0, None), "", "hangs"),
    ],
)
def test_one_of_two_writes_and_the_other_says_who(codes, text, said):
    found = writers.judge(
        ("train", "resume"), [Ended(code, text, 1) for code in codes], [12, 13] if codes[0] == 0 else [10, 11]
    )
    assert (said in found) if said else found == ""


@pytest.mark.parametrize(
    ("code", "calls", "rows", "verdict"),
    [
        (0, 3, {"failed/act": 0.2}, "held"),
        (0, 3, {"failed/act": 0.0}, "failed"),
        (0, 0, {}, "idle"),
        (2, 3, {}, "held"),
        (1, 3, {}, "failed"),
    ],
)
def test_what_an_environment_did_wrong_is_counted_or_stops_the_run(
    made, tmp_path, code, calls, rows, verdict
):
    edit(made, 1, rows)
    (tmp_path / "calls").write_bytes(b"x" * calls)
    assert (
        environments.judged(Ended(code, "forethought: odd", 1), tmp_path / "calls", made).verdict == verdict
    )


def test_what_failed_is_never_rewarded(made):
    (made / "trees/step-000003.jsonl.gz").write_bytes(
        gzip.compress(json.dumps({"nodes": [{"status": "failed", "reward": 0.0}]}).encode())
    )
    assert "has the reward 0.0" in environments.rewarded(made)


def test_a_hostile_model_is_refused_by_its_name():
    refused, loaded = Ended(2, "forethought: /x/model-here has pickles only", 1), Ended(0, "", 1)
    assert models.judge("pickles alone", refused, False, "model-here").verdict == "held"
    assert models.judge("pickles alone", loaded, False, "model-here").verdict == "failed"
    assert models.judge("pickles alone", refused, True, "model-here").reason == "its code ran"
    assert (
        models.judge("pickles alone", Ended(2, "forethought: no", 1), False, "model-here").verdict == "failed"
    )
    assert (
        models.judge("", loaded, False, "model-here").verdict == "held"
        and models.judge("", refused, False, "model-here").verdict == "failed"
    )


def test_a_folder_of_the_list_loads_or_is_refused_with_its_words():
    refused, loaded = Ended(2, "forethought: /x/model-here: eps = nan", 1), Ended(0, "", 1)
    verdict = lambda said, ended, ran=False: models.judge_listed(said, ended, ran, "model-here").verdict  # noqa: E731
    assert (
        verdict("eps = nan", refused)
        == verdict("", loaded)
        == verdict("*", loaded)
        == verdict("*", refused)
        == "held"
    )
    assert (
        verdict("eps = 5", refused)
        == verdict("", refused)
        == verdict("eps = nan", loaded)
        == verdict("", loaded, True)
        == "failed"
    )
    assert (
        verdict("eps", Ended(2, "forethought: eps", 1))
        == verdict("*", Ended(1, "forethought: model-here", 1))
        == "failed"
    )


def test_there_are_as_many_as_are_promised():
    assert len(models.tries(1.0, 0)) >= 60 and len(environments.cases()) >= 40


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("plain\n\ttext é 漢 \\x1b[31m", False),
        ("a\x1b[31m", True),
        ("a\x07", True),
        ("\x9b31m", True),
        ("\u202egnp", True),
        ("a\rb", True),
    ],
)
def test_control_characters_on_the_terminal(text, bad):
    assert bool(texts.raw(text)) is bad


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("", ""),
        ("<p>&lt;img src=x&gt;</p>", ""),
        ("<img src=x>", "an <img>"),
        ("<p onclick='x'>", "p onclick"),
        ("\x1b", "raw"),
        ("\u2067", "raw"),
        ('<script type="application/json">{"a": </script>', "not JSON"),
        ('<script type="application/json">{"a": 1}</script>', ""),
    ],
)
def test_a_page(tmp_path, inside, said):
    (tmp_path / "page.html").write_text(f"<html><body>{inside}</body></html>", encoding="utf-8")
    found = texts.page(tmp_path / "page.html")
    assert (said in found) if said else found == ""


# --- how it attacks ---


@pytest.mark.parametrize("what", DAMAGES)
def test_every_damage_changes_its_file(made, tmp_path, what):
    other = make_run(tmp_path / "of another" / "run")
    edit(other, 0, {"loss/pg": 9.0})
    path = made / "metrics.jsonl"
    before = path.read_bytes()
    DAMAGES[what](path, other / "metrics.jsonl", records.rng_of("x"))
    assert path.is_symlink() if what == "a symlink" else not path.is_file() or path.read_bytes() != before


@pytest.mark.parametrize(
    ("event", "arguments", "name"),
    [
        (
            "os.rename",
            ("/r/checkpoints/.step-000002.tmp", "/r/checkpoints/step-000002"),
            "a checkpoint's rename",
        ),
        ("open", ("/r/checkpoints/.step-000002.tmp/state.json", "w", 0), "a temporary checkpoint"),
        ("shutil.rmtree", ("/r/checkpoints/step-000002",), "an old checkpoint's removal"),
        ("open", (Path("/r/metrics.jsonl"), "a", 0), "a log's line"),
        ("os.rename", ("/r/.report.html.x", "/r/report.html"), "the report"),
        ("open", ("/r/guided/stage-0/cache.jsonl", "a", 0), "guided/"),
        ("os.rename", ("/r/recipe.json.new", "/r/recipe.json"), "recipe.json"),
        ("open", ("/elsewhere/metrics.jsonl", "a", 0), ""),
        ("exec", ("/r/x",), ""),
        ("open", (3, "r", 0), ""),
    ],
)
def test_a_moment_has_a_name(event, arguments, name):
    assert moments.name_of(event, arguments, "/r") == name


@pytest.mark.parametrize("count", [1, 2, 4, 9])
def test_a_kill_under_way_has_a_checkpoint_before_it_and_work_after_it(count):
    numbers = {
        moments.under_way(records.rng_of(n), {"a checkpoint's rename": count}).number for n in range(60)
    }
    assert numbers == set(range(2, max(2, count - 2) + 1))


def test_a_child_is_killed_at_the_named_moment(tmp_path):
    """Before the second line of a log, and no sooner."""
    out = tmp_path / "run"
    out.mkdir()

    def work() -> int:
        for i in range(4):
            with open(out / "metrics.jsonl", "a") as file:
                file.write(f"{i}\n")
        return 0

    moment = moments.Moment("a log's line", 3, 0.0, "KILL")
    ended = children.Child(work, tmp_path / "log", moments.at(moment, out)).end(20)
    assert ended.code == -signal.SIGKILL and ended.code in moment.codes()
    assert (out / "metrics.jsonl").read_text() == "0\n1\n"


def test_a_child_is_interrupted_by_the_system_before_its_command_begins_and_then_by_python(tmp_path):
    def interrupt() -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    early, late = (
        children.Child(lambda: 0, tmp_path / "1", interrupt).end(20),
        children.Child(interrupt, tmp_path / "2").end(20),
    )
    assert early.code == -signal.SIGINT and early.text == ""
    assert late.code == 70 and "KeyboardInterrupt" in late.text  # which a command must not let out


def test_a_child_that_hangs_is_ended(tmp_path):
    ended = children.Child(lambda: signal.pause() and 0, tmp_path / "log").end(0.2)
    assert ended.code is None and "hangs" in children.untyped(ended)


def test_the_same_id_is_the_same_input():
    one, other = (mutate.text(records.rng_of("fuzz", "desk words", 0, 7), ["a b c"]) for _ in range(2))
    assert (
        one == other
        and len({mutate.text(records.rng_of("fuzz", "x", 0, n), ["a b c"]) for n in range(50)}) > 30
    )


class Odd(Exception):
    pass


def test_the_fuzzer_finds_a_crash_a_hang_and_a_death(monkeypatch, tmp_path):
    from forethought.core.errors import UserError

    def make(folder):
        number = iter(range(100))

        def feed(rng):
            n = next(number)
            if n == 1:
                raise Odd("crash")
            if n == 2:
                raise UserError("file.jsonl:3: no JSON; mend the line")
            if n == 3:
                signal.pause()
            if n == 5:
                raise UserError("")

        return feed

    monkeypatch.setitem(fuzz.TARGETS, "made", fuzz.TARGETS["tags"].__class__(make, 1, 0.2))
    found = fuzz.batch("made", 0, 0, 8, tmp_path)
    assert found.verdict == "failed" and (found.count, found.wrong) == (8, 3)
    assert (
        "fuzz/made/0.1: Odd: 'crash'" in found.reason
        and "fuzz/made/0.3: takes more than 0.2 s" in found.reason
    )
    assert "0.5: an error that says" in found.reason


def test_numbers_add_up_and_the_table_says_them(tmp_path):
    outcomes = [
        records.held(3, kills=3),
        records.failed("x", count=10, wrong=2),
        records.idle("y", count=4),
        records.skipped("z"),
    ]
    t = records.total(outcomes)
    assert (t["tries"], t["held"], t["failed"], t["idle"], t["skipped"], t["kills"]) == (18, 11, 2, 4, 1, 3)
    page, facts = (
        tmp_path / "page.md",
        attacks.machine() | {"scale": 0.5, "seed": 0, "workers": 1, "minutes": 2.0},
    )
    page.write_text(f"before\n{attacks.MARKS[0]}\nold\n{attacks.MARKS[1]}\nafter\n")
    attacks.write(page, {"kills": outcomes}, facts)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| kills | 18 | 11 | 2 | 4 | 1 | 0 | 3 kills |" in text and facts["date"] in text


def test_tries_are_spread_over_workers_in_their_order():
    tries = [
        records.Try(str(n), lambda folder, n=n: records.held(n + 1) if n != 3 else 1 / 0) for n in range(7)
    ]
    found = records.attempt_all(tries, workers=2)
    assert [o.id for o in found] == [str(n) for n in range(7)] and [
        o.count for o in found if o.verdict == "held"
    ] == [1, 2, 3, 5, 6, 7]
    assert found[3].verdict == "failed" and "ZeroDivisionError" in found[3].reason


def test_the_subjects_cover_every_layout_precision_and_kind_of_stage():
    from forethought.recipe.check import check
    from forethought.recipe.convert import from_dict

    recipes = {name: from_dict(tables) for name, (tables, _) in kills.cases().items()}
    for recipe in recipes.values():
        check(recipe)
    stages = [stage for recipe in recipes.values() for stage in recipe.stage]
    assert {r.engine.layers for r in recipes.values()} >= {"auto", "torch"}
    assert {(r.layout, r.engine.precision) for r in recipes.values()} >= {
        (a, b) for a in ("shared", "adapters", "mixed", "models") for b in ("fp32", "bf16")
    }
    assert {s.kind for s in stages} == {"imitate", "reinforce", "distill"} and max(
        getattr(s, "updates", 1) for s in stages
    ) > 1
    assert {g.then for s in stages for g in s.gates} == {"skip", "isolate", "lower_rate"}
    assert {s.adaptive.to for s in stages if s.kind != "distill"} == {
        "off",
        "adapter",
        "model",
        "replay",
        "keep_kl",
    }


# --- a short part of each attack; the whole is `python benchmarks/attacks.py` ---


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("kills", 0.002),
        ("damage", 0.002),
        ("fuzz", 0.001),
        ("models", 0.03),
        ("environments", 0.005),
        ("limits", 0.025),
        ("writers", 0.05),
        ("texts", 0.02),
    ],
)
def test_a_short_attack(name, scale, capsys):
    code = attacks.main(["--only", name, "--scale", str(scale), "--seed", "5"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert f"| {name} |" in said
