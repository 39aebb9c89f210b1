"""Command lines of single modules end as `forethought` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from forethought.core.errors import UserError
from forethought.core.scripts import ended


def raising(error: Exception):
    def work() -> None:
        raise error

    return work


def test_a_mistake_is_one_line_and_an_exit_code(capsys, tmp_path):
    assert ended(lambda: None) == 0 and capsys.readouterr().err == ""
    assert ended(raising(UserError("no such run"))) == 2 and capsys.readouterr().err == "no such run\n"
    out = tmp_path / "absent" / "file"
    assert ended(lambda: out.write_text("x"), out) == 2
    assert capsys.readouterr().err == f"--out: {out} cannot be written: No such file or directory\n"


def test_a_fault_that_is_not_about_the_file_it_writes_is_not_hidden():
    with pytest.raises(OSError, match="of ours"):
        ended(raising(OSError("of ours")))
    with pytest.raises(KeyError):
        ended(raising(KeyError("of ours")), Path("out"))
