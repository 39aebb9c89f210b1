"""The code of docs/python.md runs, and the commands of docs/export.md do what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from export_kit import base_model, problems, text_run

from forethought import cli

DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_on_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(encoding="utf-8"), re.S)
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)  # noqa: S102
    said = capsys.readouterr().out
    assert len(blocks) == 10 and said.startswith("start runs/first: stages 2, steps 14\n")
    assert "stage.0.batch: must be at least 1, found 0" in said
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["plan"]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "first",
        "rewarded-1",
        "tables-1",
        "tables-2",
    }


def test_the_commands_of_the_page_on_export(tmp_path, monkeypatch, capsys):
    """GGUF apart: its extra may be absent, and then says so."""
    monkeypatch.chdir(tmp_path)
    model = base_model(tmp_path / "model", problems(tmp_path / "train.jsonl", 1))
    text_run(tmp_path / "RUN", {"path": model}, save={"every": 1, "keep": 9})
    block = re.search(r"```\n(.*?)```", (DOCS / "export.md").read_text(encoding="utf-8"), re.S)[1]
    commands = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    assert len(commands) == 5
    for words in commands:
        words = ["2" if word == "400" else word for word in words]
        code = cli.main(words)
        out, err = capsys.readouterr()
        assert code == 0, err
        assert code or out.startswith("step ")
    assert (tmp_path / "RUN" / "export" / "step-000002" / "plan" / "README.md").is_file()
    assert (tmp_path / "merged" / "act" / "model.safetensors").is_file()
