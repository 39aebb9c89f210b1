"""A stage that distils, then imitation that shows what it made: on problems in free text with a tiny real
model."""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path

import pytest
from conftest import desk_recipe, lines_of, nothing
from hostile_server import ok, serving
from test_torch_math import CHAT
from torch_kit import bpe_of, model_of, on_disk

from forethought import look
from forethought.core.errors import Interrupted, RecipeError, UserError
from forethought.display.show import outline
from forethought.display.tables import evaluation_table
from forethought.recipe.check import check
from forethought.recipe.convert import from_dict
from forethought.runs import run
from forethought.stages.distill import files
from forethought.stages.distill.policy import Policy
from forethought.stages.distill.records import Summary, Usage


def gsm8k(path: Path, seed: int, n: int = 8) -> str:
    """Problems as GSM8K writes them, with marked calculations and the answer in a last line."""
    rng, lines = random.Random(seed), []
    for i in range(n):
        a, b = rng.randrange(100 * seed + 11, 100 * seed + 99), rng.randrange(2, 9)
        solution = f"Ann has {a} + {b} = <<{a}+{b}={a + b}>>{a + b} apples.\n#### {a + b}"
        lines.append(
            {
                "question": f"Problem {seed}-{i}: Ann has {a} apples and gets {b} more. How many does "
                f"she have?",
                "answer": solution,
            }
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("distil")
    train, test = gsm8k(folder / "train.jsonl", 1), gsm8k(folder / "test.jsonl", 7)
    tokenizer = bpe_of([Path(train).read_text()], 420)
    model = on_disk(
        folder / "model",
        model_of(
            "llama",
            vocab_size=len(tokenizer),
            max_position_embeddings=1024,
            eos_token_id=tokenizer.eos_token_id,
        ),
        tokenizer,
    )
    return {
        "name": "distilled",
        "layout": "adapters",
        "model": {"path": model},
        "engine": {"device": "cpu", "precision": "fp32", "threads": 1},
        "task": {
            "name": "math",
            "train": train,
            "eval": [test],
            "budgets": {"plan": 24, "act": 24},
            "grader": "exact",
        },
        "eval": {"tasks": 2, "every": 0},
        "save": {"every": 1},
        "stage": [{"kind": "distill"}, {"kind": "imitate", "until": {"steps": 2}, "batch": 2}],
    }


def recipe(tables: dict, **distill):
    return from_dict(tables | {"stage": [{"kind": "distill", "distill": distill}, *tables["stage"][1:]]})


def test_solutions_become_plans_that_imitation_shows(tables, tmp_path):
    run.train(recipe(tables), tmp_path / "run", nothing)
    rows, provenance = files.read(tmp_path / "run" / "guided" / "stage-0")
    assert len(rows) == provenance.kept == provenance.items == 8
    assert all("=" not in row.plan and row.answer not in row.plan for row in rows)
    lines = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert {"loss/sft_plan", "loss/sft_act"} <= lines[-1].keys()
    [said] = [
        d
        for d in lines_of(tmp_path / "run" / "decisions.jsonl")
        if d["name"] == "distill" and d["outcome"] == "data"
    ]
    assert (
        said["numbers"] == {"kept": 8.0, "items": 8.0}
        and "8 of 8 demonstrations have a plan now" in said["reason"]
    )
    assert "eval/act" not in lines[-1] and "eval/e2e" in lines[-1]  # test problems have no plan to act under


def test_a_run_that_is_stopped_after_it_reads_the_plans_again(tables, tmp_path):
    class Stop(BaseException):
        pass

    def watch(event):
        if event.kind == "step" and event.step == 1:
            raise Stop

    with pytest.raises(Stop):
        run.train(recipe(tables, problems=6), tmp_path / "run", watch)
    before = (tmp_path / "run/guided/stage-0/provenance.json").read_bytes()
    run.resume(tmp_path / "run", nothing)
    assert (tmp_path / "run/guided/stage-0/provenance.json").read_bytes() == before
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "done"


def test_a_signal_ends_a_distillation_at_once_and_what_was_read_is_kept(tables, tmp_path, monkeypatch):
    asked = []

    def some(policy, items):
        asked.append(len(items))
        if len(asked) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return [
            Summary(
                id=item.id, text="<plan>Add what she gets.</plan>", truncated=False, usage=Usage(requests=1)
            )
            for item in items
        ]

    monkeypatch.setattr(Policy, "_some", some)
    monkeypatch.setitem(Policy.__init__.__kwdefaults__, "batch", 4)
    with pytest.raises(
        Interrupted, match="everything is saved; continue with: forethought train --resume"
    ) as caught:
        run.train(recipe(tables, summariser="policy"), tmp_path / "run", nothing)
    assert caught.value.exit_code == 128 + signal.SIGTERM and asked == [4, 4]
    assert len((tmp_path / "run/guided/stage-0/cache.jsonl").read_text().splitlines()) == 4
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    assert lines_of(tmp_path / "run" / "decisions.jsonl")[-1]["outcome"] == "interrupt"
    run.resume(tmp_path / "run", nothing)
    assert (
        asked == [4, 4, 4] and json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "done"
    )


RL = {
    "kind": "reinforce",
    "roles": ["plan"],
    "until": {"steps": 1},
    "batch": 2,
    "tree": {"plan": 2, "act": 1},
    "skip_zero": False,
    "ref_kl": 0.1,
}


@pytest.mark.parametrize("distil", [True, False])
def test_reinforcement_needs_no_plans(tables, tmp_path, distil):
    """On raw problems nobody knows a plan: trees are saved and gradients compared without one."""
    stages = [*(tables["stage"] if distil else []), RL]
    made = from_dict(tables | {"layout": "shared", "stage": stages, "probes": {"conflict_every": 1}})
    run.train(made, tmp_path / "run", nothing)
    lines = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert lines[-1]["tokens/sampled"] > 0 and (tmp_path / "run" / "trees").is_dir()
    # plans that were distilled can be shown, and compared with
    assert ("seconds_probe/conflict" in lines[-1]) == distil


def test_a_run_that_distilled_can_be_extended(tables, tmp_path):
    run.train(recipe(tables), tmp_path / "first", nothing)
    longer = from_dict(tables | {"stage": [{"kind": "distill"}, *tables["stage"][1:], RL]})
    run.extend(longer, tmp_path / "first", tmp_path / "whole", nothing)
    assert files.read(tmp_path / "whole" / "guided" / "stage-0") == files.read(
        tmp_path / "first" / "guided" / "stage-0"
    )
    assert lines_of(tmp_path / "whole" / "metrics.jsonl")[-1]["stage"] == 2


def test_where_no_plan_is_left_it_says_what_was_dropped(tables, tmp_path):
    with pytest.raises(UserError, match="all 8 plans were dropped"):
        run.train(recipe(tables, most_chars=3), tmp_path / "run", nothing)


def test_the_model_itself_can_be_asked(tables, tmp_path):
    """A random model writes no plan; that is what the run says, and what it wrote is in the examples."""
    with pytest.raises(UserError, match="all 2 plans were dropped"):
        run.train(recipe(tables, summariser="policy", problems=2, plan_tokens=4), tmp_path / "run", nothing)
    assert len(json.loads((tmp_path / "run/guided/stage-0/provenance.json").read_text())["examples"]) > 0


def test_another_model_reads_by_its_own_tokenizer_and_template(tables, tmp_path):
    """The run's model has no chat template, the one that is asked has one, and other tokens."""
    tokenizer = bpe_of(["Problem: Solution: plan"], 300, ["<pad>", "<eos>", "<|im_start|>", "<|im_end|>"])
    tokenizer.chat_template = CHAT
    other = on_disk(
        tmp_path / "other",
        model_of(
            "qwen2",
            vocab_size=len(tokenizer),
            max_position_embeddings=2048,
            eos_token_id=tokenizer.eos_token_id,
        ),
        tokenizer,
    )
    asked = []

    def engine_of(recipe, taskset):
        engine = run.torch_engine(recipe, taskset)
        sample = engine.sample
        engine.sample = lambda requests: (
            asked.extend((recipe.model.path, engine.decode(r.context)) for r in requests) or sample(requests)
        )
        return engine

    # random weights write no plan
    with pytest.raises(UserError, match=r"all 2 plans were dropped \(truncated 2\)"):
        run.train(
            recipe(tables, summariser="model", model={"path": other}, problems=2, plan_tokens=4),
            tmp_path / "run",
            nothing,
            engine_of,
        )
    said = [text for path, text in asked if path == other]
    assert len(said) == 2 and all(
        t.startswith("<|im_start|>system\n") and t.endswith("assistant\n<plan>") for t in said
    )
    said = json.loads((tmp_path / "run/guided/stage-0/provenance.json").read_text())
    assert (said["summariser"], said["model"], said["settings"]["max_tokens"]) == ("model", f"{other}@0", 4)


def test_a_model_that_is_not_there_is_named(tables, tmp_path):
    with pytest.raises(UserError, match="nowhere is not a model"):
        run.train(recipe(tables, summariser="model", model={"path": "./nowhere"}), tmp_path / "run", nothing)


def test_plans_that_the_model_does_not_solve_under_are_dropped(tables, tmp_path):
    with pytest.raises(UserError, match=r"all 3 plans were dropped \(unsolved 3\)"):
        run.train(recipe(tables, problems=3, solver="policy", tries=2), tmp_path / "run", nothing)
    said = json.loads((tmp_path / "run/guided/stage-0/provenance.json").read_text())
    assert said["tried"]["requests"] == 6 and 0 < said["tried"]["completion_tokens"] <= 6 * 24


def test_what_imitation_could_not_show_is_dropped_and_counted(tables, tmp_path):
    """A plan of more words than its budget, a solution with a tag in it, a problem that nobody has worked
    out."""
    lines = [json.loads(line) for line in Path(tables["task"]["train"]).read_text().splitlines()]
    lines[1]["answer"] = "First " + "count and " * 12 + lines[1]["answer"]
    lines[2]["answer"] = "It is so </think> clear.\n" + lines[2]["answer"]
    lines[3] = {"problem": lines[3]["question"], "answer": "7", "level": 1}
    changed = tmp_path / "train.jsonl"
    changed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = from_dict(tables | {"task": tables["task"] | {"train": str(changed), "levels": [1]}})
    run.train(made, tmp_path / "run", nothing)
    rows, provenance = files.read(tmp_path / "run" / "guided" / "stage-0")
    assert (len(rows), provenance.items, provenance.drops) == (
        5,
        8,
        {"no_chain": 1, "unparsed": 1, "refused": 1},
    )
    assert [
        e.detail.partition("cannot be shown to a model: ")[2]
        for e in provenance.examples
        if e.reason == "refused"
    ] == ["word 25: a plan of 29 words, more than its budget of 24 tokens"]
    [said] = [
        d
        for d in lines_of(tmp_path / "run" / "decisions.jsonl")
        if d["name"] == "distill" and d["outcome"] == "data"
    ]
    assert (
        said["reason"].endswith("dropped: no_chain 1, unparsed 1, refused 1")
        and said["numbers"]["dropped: refused"] == 1.0
    )
    assert "dropped: no_chain 1, unparsed 1, refused 1" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("distill", "where"),
    [
        ({"solver": "exact"}, "stage.0.distill.solver"),
        ({"problems": -1}, "stage.0.distill.problems"),
        ({"plan_tokens": 0}, "stage.0.distill.plan_tokens"),
        ({"endpoint": {"model": "x"}}, "stage.0.distill.endpoint"),
        ({"most_chars": 0}, "stage.0.distill"),
        ({"summariser": "endpoint", "endpoint": {"url": "x"}}, "stage.0.distill.endpoint.url"),
        (
            {"summariser": "endpoint", "endpoint": {"base_url": "ftp://x", "model": "m"}},
            "stage.0.distill.endpoint",
        ),
        ({"summariser": "endpoint"}, "stage.0.distill.endpoint"),
    ],
)
def test_bad_settings_are_refused_before_a_model_is_loaded(tables, distill, where):
    with pytest.raises(RecipeError) as e:
        run.build(
            recipe(tables, **distill), engine_of=lambda recipe, taskset: pytest.fail("a model was loaded")
        )
    assert e.value.where == where


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("base_url", 5, "base_url: expected text, found the whole number 5"),
        ("base_url", "http://[", "found 'http://['"),
        ("base_url", "http://h:99999", "h:99999"),
        ("base_url", "http://h h/v1", "found 'http://h h/v1'"),
        ("base_url", "http://h/\x1b[2J", "x1b[2J"),
        ("base_url", ["http://h"], "base_url: expected text"),
        ("base_url", "http://me:hidden@[", r"found 'http://\*\*\*@['"),
        ("base_url", "http://h/v1/completions", "base_url ends in /completions"),
        ("key_env", 5, "key_env: expected text, found the whole number 5"),
        ("key_env", "sk-a-key-by-mistake", "name of an environment variable"),
        ("retries", 1.5, "retries: expected a whole number, found the number 1.5"),
        ("retries", True, "retries: expected a whole number"),
        ("temperature", 10**400, "temperature: a whole number of 1329 bits is too large"),
        ("temperature", "hot", "temperature: expected a number, found the text 'hot'"),
        ("time_limit", 1e300, "time_limit is 1e.300"),
        ("time_limit", 10**5000, "time_limit: a whole number of 16610 bits is too large"),
        ("time_limit", "x", "time_limit: expected a number"),
        ("give_up", 0, "give_up is 0; it must be above 0"),
        ("concurrency", 10**6, "concurrency is 1000000"),
        ("model", " ", "model is empty"),
        ("price_in", 1e308, "price_in is 1e.308"),
        ("tokens_field", "messages", "tokens_field is max_tokens or max_completion_tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_of_an_endpoint_are_refused_with_their_value(tables, setting, value, message):
    endpoint = {"base_url": "http://h/v1", "model": "m", "key_env": "", setting: value}
    with pytest.raises(RecipeError, match=message.replace("[", r"\[")) as e:
        run.build(
            recipe(tables, summariser="endpoint", endpoint=endpoint),
            engine_of=lambda *_: pytest.fail("a model was loaded"),
        )
    assert e.value.where.startswith("stage.0.distill.endpoint")
    assert not any(word in str(e.value) for word in ("hidden", "by-mistake", "\x1b"))


def asks(base_url: str, **fields) -> dict:
    given = {"base_url": base_url, "model": "m", "key_env": "", "concurrency": 1, "retries": 0}
    return {"summariser": "endpoint", "endpoint": given | fields}


def test_an_endpoint_that_thinks_before_its_plans(tables, tmp_path):
    pytest.importorskip("httpx", reason="the extra `distill` is not installed")
    with serving(
        [ok("<think>\nTwo parts.\n</think>\n\n<plan>Find the parts.\nAdd them.</plan>")]
    ) as base_url:
        run.train(recipe(tables, **asks(f"{base_url}/chat/completions")), tmp_path / "run", nothing)
    rows, provenance = files.read(tmp_path / "run" / "guided" / "stage-0")
    assert {row.plan for row in rows} == {"Find the parts.\nAdd them."} and provenance.kept == 8


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("I cannot \x1b]0;title\x07 plan.", r"\(unparsed 3\).*in 'I cannot \\x1b\]0;title\\x07 plan.'"),
        ("<plan>It is 3 + 4.</plan>", r"\(calculation 3\)"),
        (f"<plan>{'word ' * 40}</plan>", r"\(refused 3\)"),
    ],
)
def test_an_endpoint_that_never_gives_a_plan_is_left_at_once_and_paid_once(tables, tmp_path, content, says):
    """Also where only the task family refuses the plans: of 40 words where 24 tokens are allowed."""
    pytest.importorskip("httpx", reason="the extra `distill` is not installed")
    requests = []
    with serving([ok(content)], requests) as base_url:
        made = recipe(tables, **asks(base_url, give_up=3))
        with pytest.raises(UserError, match=f"gave no usable answer for 3 items in a row {says}") as caught:
            run.train(made, tmp_path / "run", nothing)
    assert len(requests) == 3 == len((tmp_path / "run/guided/stage-0/cache.jsonl").read_text().splitlines())
    assert str(caught.value).isprintable()


def test_a_run_does_not_go_on_with_other_problems(tables, tmp_path):
    """Ids are line numbers: the plans in `guided/` would show other questions."""
    train = tmp_path / "train.jsonl"
    train.write_text(Path(tables["task"]["train"]).read_text())
    own = tables | {"task": tables["task"] | {"train": str(train)}}
    run.train(recipe(own), tmp_path / "run", nothing)
    gsm8k(train, 3)
    for go_on in (
        lambda: run.resume(tmp_path / "run", nothing),
        lambda: run.extend(
            from_dict(own | {"stage": [*own["stage"], own["stage"][-1]]}),
            tmp_path / "run",
            tmp_path / "x",
            nothing,
        ),
    ):
        with pytest.raises(
            UserError, match=f"run cannot go on: task.train: {train} has changed since the run began"
        ):
            go_on()
    assert not (tmp_path / "x").exists()
    measured = look.evaluate(look.find(tmp_path / "run"))
    assert measured["note"].startswith(f"task.train: {train} has changed since the run began")
    assert "has changed since the run began" in evaluation_table(measured)


def test_a_stage_that_distils_trains_nothing_and_takes_no_such_settings():
    for change in ({"optim": {"lr": 0.1}}, {"roles": ["plan"]}, {"until": {"steps": 5}}):
        with pytest.raises(RecipeError, match="unknown key of distill"):
            check(desk_recipe({"kind": "distill"} | change))
    with pytest.raises(RecipeError, match="stage.0.distill: unknown key of imitate"):
        check(desk_recipe({"kind": "imitate", "distill": {"problems": 3}}))


def test_the_outline_says_what_is_distilled(tables):
    assert "distill: plans for 6 training problems, by rules; trains nothing" in outline(
        recipe(tables, problems=6)
    )


@pytest.mark.parametrize(
    ("name", "damage"), [("guided.jsonl", b"x"), ("guided.jsonl", None), ("provenance.json", b"{}")]
)
def test_guided_data_that_is_not_what_was_distilled_stops_a_resume(tables, tmp_path, name, damage):
    class Stop(BaseException):
        pass

    def watch(event):
        if event.kind == "step" and event.step == 1:
            raise Stop

    with pytest.raises(Stop):
        run.train(recipe(tables, problems=6), tmp_path / "run", watch)
    path = tmp_path / "run" / "guided" / "stage-0" / name
    path.write_bytes(damage) if damage is not None else path.unlink()
    with pytest.raises(UserError, match=f"guided/stage-0/{name} is damaged: it "):
        run.resume(tmp_path / "run", nothing, engine_of=None)  # nothing is loaded before it is found
