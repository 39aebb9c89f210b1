"""Real models, tiny ones, looked at from the command line: without a chat template, with one, and a run from
scratch on another task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import desk_recipe, nothing
from torch_kit import WORDS, bpe_of, model_of, on_disk

from forethought import cli
from forethought.core.paired import paired_difference
from forethought.engines.torch.models.small import tokenizer_of
from forethought.look import evaluate, find, find_all, swap
from forethought.runs import run

CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt "
    "%}assistant: {% endif %}"
)
TEXTS = ["Ann has 3 apples and gets 4 more. <plan> Add them. </plan> <think> 3 + 4 = 7 </think> \\boxed{7}"]
HERE = ["--set", "engine.device=cpu", "--set", "engine.precision=fp32", "--set", "engine.threads=1"]


@pytest.fixture(scope="module")
def problems(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("problems") / "test.jsonl"
    rows = [
        {"problem": f"Ann has {n} apples and gets 2 more. How many?", "answer": str(n + 2)} for n in range(3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def model(folder: Path, chat: bool) -> str:
    tokenizer = bpe_of(TEXTS, 400)
    tokenizer.chat_template = CHAT if chat else None
    fields = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 1024,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return on_disk(folder, model_of("qwen2", **fields), tokenizer)


@pytest.mark.parametrize("chat", [False, True])
def test_a_model_on_disk_is_sampled_and_measured(chat, problems, tmp_path, capsys):
    argv = [
        model(tmp_path / "m", chat),
        "--task",
        "math",
        "--problems",
        str(problems),
        *HERE,
        "--set",
        "task.budgets={ plan = 6, act = 6 }",
        "--set",
        "task.grader=exact",
        "--json",
    ]
    assert cli.main(["eval", *argv, "--samples", "3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["avg@3"]["n"] == 3 and found["settings"]["temperature"] == 0.6 and "act" not in found
    # weights at random
    assert found["tokens"]["plan"] <= 6 and found["truncated"]["plan"] + found["refused"] == pytest.approx(
        1.0
    )
    assert cli.main(["sample", *argv, "--n", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2 and all(
        row["turns"][0]["status"] in ("truncated", "refused") and not row["success"] for row in rows
    )


def test_a_tokenizer_that_cannot_write_the_task(tmp_path, problems, capsys):
    path = on_disk(tmp_path / "words", model_of("qwen2"), tokenizer_of(WORDS))
    assert cli.main(["eval", path, "--task", "desk", *HERE]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert cli.main(["eval", path, "--task", "math", "--problems", str(problems), *HERE]) == 2
    assert "cannot write 1 special tokens of the task: </plan>" in capsys.readouterr().err


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> dict[str, Path]:
    """Two runs from scratch whose words differ in their order and in a tag."""
    folder = tmp_path_factory.mktemp("runs")
    for name, tags in (("plain", {}), ("steps", {"plan": "steps"})):
        recipe = desk_recipe(
            {"kind": "imitate", "until": {"steps": 2}, "batch": 4},
            model={"layers": 2, "width": 32, "heads": 4, "mlp": 16},
            task={"name": "desk", "levels": [1], "widgets": 4, "tags": tags},
            engine={"device": "cpu", "precision": "fp32", "threads": 1},
            probes={"every": 0, "conflict_every": 0, "kl_start": False},
        )
        run.train(recipe, folder / name, nothing)
    return {name: folder / name for name in ("plain", "steps")}


def test_a_run_from_scratch_keeps_its_words_on_another_task(scratch, capsys):
    """It is opened with the tokenizer that it was saved with: a tokenizer made for the other task would give
    its weights other words."""
    own = evaluate(find(scratch["plain"]))
    line = [json.loads(line) for line in (scratch["plain"] / "metrics.jsonl").read_text().splitlines()][-1]
    assert own["e2e"]["value"] == line["eval/e2e"] and own["tokens"]["plan"] > 0
    assert evaluate(find(scratch["plain"], None, ["task.levels=[2]"]))["e2e"]["by_level"].keys() == {"2"}
    assert cli.main(["eval", str(scratch["plain"]), "--task", str(scratch["steps"])]) == 2
    assert "cannot write 2 special tokens of the task: <steps>, </steps>" in capsys.readouterr().err


def test_runs_from_scratch_are_swapped(scratch, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.symlink_to(scratch["plain"])
    (table,) = swap(find_all([scratch["plain"], copy]))
    _, low, high = paired_difference([0] * table["n"], [0] * table["n"])  # nothing changed: never a point
    assert table["e2e"]["plain"]["copy"] == table["e2e"]["copy"]["plain"] | {
        "change": 0.0,
        "change_low": low,
        "change_high": high,
    }
    assert table["e2e"]["plain"]["plain"]["value"] == evaluate(find(scratch["plain"]))["e2e"]["value"]
    assert cli.main(["swap", str(scratch["plain"]), str(scratch["steps"])]) == 2
    assert "cannot write" in capsys.readouterr().err
