"""The names of `import forethought as ft`: what they load, and that their types are known outside."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import forethought as ft

ROOT = Path(ft.__file__).parent


def test_the_import_loads_nothing_and_each_name_is_there():
    script = """
import json, sys
before = set(sys.modules)
import forethought as ft
new = sorted(name for name in set(sys.modules) - before if not name.startswith(("importlib", "warnings")))
ft.train, ft.open, ft.Recipe, ft.Callback
print(json.dumps([new, sorted({"torch", "numpy", "transformers", "rich"} & set(sys.modules)), ft.__all__]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    new, heavy, names = json.loads(done.stdout)
    assert new == ["forethought"] and heavy == []
    assert [name for name in names if not hasattr(ft, name)] == []


def test_the_stub_has_the_same_names():
    stub = (ROOT / "__init__.pyi").read_text(encoding="utf-8")
    assert sorted(re.findall(r"import \w+ as (\w+)", stub) + ["__version__"]) == sorted(ft.__all__)
    for module, name in re.findall(r"from ([\w.]+) import (\w+) as", stub):
        assert ft._WHERE[name] == module


def test_no_name_is_a_module_of_the_package():
    """Importing forethought.x would put the module in the place of the function."""
    modules = {
        path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert modules & set(ft.__all__) == set()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'forethought' has no attribute 'trian'"):
        ft.trian  # noqa: B018
    assert "train" in dir(ft)


def test_as_a_module_it_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "forethought", "--version"], capture_output=True, text=True)
    assert done.stdout == f"forethought {ft.__version__}\n"


USER = """
import forethought as ft


class Mine(ft.Callback):
    def on_step(self, moment: ft.Moment) -> None:
        if moment.values["loss"] > 9:
            moment.stop("diverges")


def main() -> float:
    run = ft.train({"name": "mine"}, overrides={"seed": 1}, callbacks=[Mine(), lambda m: print(m.step)])
    last: ft.Checkpoint = run.checkpoints()[-1]
    rows = run.metrics()
    found = ft.evaluate(last.path, tasks=3)
    return float(rows[-1]["eval/plan"]) + float(found["plan"]["value"])


ft.train(3)
"""


def test_mypy_knows_the_types_from_outside(tmp_path):
    """`py.typed` and the stub: a right use passes, a wrong argument is found."""
    mypy = pytest.importorskip("mypy.api", reason="mypy is not installed")
    (tmp_path / "user.py").write_text(USER)
    # what the package itself imports is not looked into: mypy would read all of torch
    config = "[mypy]\nstrict = True\nignore_missing_imports = True\nfollow_imports = silent\n"
    for name in ("torch", "transformers", "peft", "numpy", "tokenizers", "safetensors", "pandas", "rich"):
        config += f"[mypy-{name}.*]\nfollow_imports = skip\n"
    (tmp_path / "mypy.ini").write_text(config)
    said, errors, _ = mypy.run(
        ["--config-file", str(tmp_path / "mypy.ini"), "--no-incremental", str(tmp_path / "user.py")]
    )
    assert errors == ""
    assert re.findall(r"user.py:(\d+): error: (.{0,38})", said) == [
        (str(USER.count("\n")), 'Argument 1 to "train" has incompatible')
    ], said
