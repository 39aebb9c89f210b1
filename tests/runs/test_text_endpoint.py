"""A model behind an endpoint on this machine: it judges answers by a row of the recipe, and writes the plans
that a run on prompts of one's own imitates."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import desk_recipe, fake_desk, lines_of, nothing

from forethought.core.errors import RecipeError
from forethought.recipe.convert import from_dict, to_dict
from forethought.recipe.load import load, write_resolved
from forethought.runs import functions, run

PLAN = "<plan> First take the larger number, then add. </plan>"
STAGE = {"kind": "reinforce", "until": {"steps": 2}, "batch": 2, "tree": {"plan": 2, "act": 2}}


@pytest.fixture
def endpoint():
    """(its address, what it was asked): it answers by the last message."""
    asked: list[dict] = []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self):
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(said)
            text = said["messages"][-1]["content"]
            answer = str(len(text) % 11) if "How good" in text else PLAN
            choice = {"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 5, "completion_tokens": 2}
            body = json.dumps({"choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
        server.shutdown()


def judged(tmp_path, address, **more):
    table = {"endpoint": address, "model": "m", "prompt": "How good is {completion}?", "key_env": ""}
    table |= {"scale": [0, 10], "cache": str(tmp_path / "cache.jsonl")} | more
    found = to_dict(desk_recipe(STAGE))
    found["stage"][0] |= {"reward": {"act": {"good": 1.0}}, "judges": {"good": table}}
    return found


def test_a_judge_is_a_row_of_the_recipe(tmp_path, endpoint):
    pytest.importorskip("httpx", reason="the extra `distill` is not installed")
    address, asked = endpoint
    recipe = from_dict(judged(tmp_path, address))
    run.train(recipe, tmp_path / "run", nothing, fake_desk())
    lines = [line for line in lines_of(tmp_path / "run" / "metrics.jsonl") if "reward/act.good" in line]
    assert len(lines) == 2 and all(0 <= line["reward/act.good"] <= 1 for line in lines)
    assert lines[0]["log/judge/requests"] == len(asked) - lines[1]["log/judge/requests"] > 0
    assert all("How good is " in one["messages"][-1]["content"] for one in asked)
    write_resolved(recipe, tmp_path / "again.json")
    assert load(tmp_path / "again.json") == recipe


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"modle": "m"},
            r"stage\.0\.judges\.good\.modle: unknown setting of a judge 'modle'; did you mean 'model'",
        ),
        ({"model": 3}, r"stage\.0\.judges\.good\.model: missing"),
        ({"prompt": "no place"}, r"stage\.0\.judges\.good: the prompt of a judge says \{completion\}"),
        ({"scale": [3]}, r"stage\.0\.judges\.good: "),
        ({"retries": -1}, r"stage\.0\.judges\.good: "),
        ({"key_env": "NO_SUCH_KEY_HERE"}, r"stage\.0\.judges\.good: .*NO_SUCH_KEY_HERE"),
    ],
)
def test_a_judge_that_cannot_work_is_refused_before_anything_trains(tmp_path, endpoint, more, said):
    with pytest.raises(RecipeError, match=f"^{said}"):
        run.train(from_dict(judged(tmp_path, endpoint[0], **more)), tmp_path / "run", nothing, fake_desk())
    assert not (tmp_path / "run").exists() and not endpoint[1]


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"reward": {"act": {"outcome": 1.0}}}, r"stage\.0\.judges\.good: no role is paid for it"),
        (
            {"reward": {"act": {"goood": 1.0}}},
            r"stage\.0\.judges\.good: no role is paid|.*did you mean 'good'",
        ),
        ({"parts": {"good": "r.py:f"}}, r"stage\.0\.judges\.good: good is a part already"),
    ],
)
def test_a_judge_is_paid_for_by_its_own_name(tmp_path, stage, said):
    found = judged(tmp_path, "http://127.0.0.1:9/v1")
    found["stage"][0] |= stage
    from forethought.recipe.check import check

    with pytest.raises(RecipeError, match=said):
        check(from_dict(found))


def test_plans_of_an_endpoint_are_imitated_on_prompts_of_ones_own(tmp_path, endpoint):
    pytest.importorskip("httpx", reason="the extra `distill` is not installed")
    address, asked = endpoint
    rows = [
        {
            "question": f"{a} + {b} = ?",
            "answer": str(a + b),
            "solution": f"Add {b} to {a}. The answer is {a + b}.",
        }
        for a in range(6)
        for b in range(4)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "text", "train": str(tmp_path / "data.jsonl"), "prompt": "{question}", "plan": "tags"}
    task |= {
        "answer": "answer",
        "grader": "number",
        "solution": "solution",
        "budgets": {"plan": 64, "act": 64},
    }
    distill = {"summariser": "endpoint", "problems": 6}
    distill["endpoint"] = {"base_url": address, "model": "m", "key_env": "", "first_pause": 0.0}
    tables = {
        "name": "planned",
        "layout": "shared",
        "task": task,
        "model": {"layers": 2, "width": 32, "heads": 4, "mlp": 64, "vocabulary": 300},
        "eval": {"tasks": 2, "every": 0},
        "stage": [
            {"kind": "distill", "distill": distill},
            {"kind": "imitate", "until": {"steps": 2}, "batch": 4},
        ],
    }
    run.train(from_dict(tables), tmp_path / "run", nothing)
    assert len(asked) == 6
    [file] = (tmp_path / "run" / "guided").rglob("guided.jsonl")
    assert {row["plan"] for row in lines_of(file)} == {"First take the larger number, then add."}
    assert lines_of(tmp_path / "run" / "metrics.jsonl")[-1]["loss/sft"] > 0


def test_a_judge_without_httpx_is_refused_before_anything_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(functions, "find_spec", lambda name: None)
    with pytest.raises(
        RecipeError, match=r"judges.good: a judge behind an endpoint needs httpx: pip install"
    ):
        run.train(
            from_dict(judged(tmp_path, "http://127.0.0.1:9/v1")), tmp_path / "run", nothing, fake_desk()
        )
