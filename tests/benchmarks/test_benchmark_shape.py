"""`benchmarks/shape.py`: what it counts, by hand, and the numbers that the package is held to."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "shape.py"
MODULE = '''
def documented(a: int) -> int:
    """One."""
    return a


def bare(a, b: int, *, c=0):
    return a


def long_and_bare(a: int):
    a += 1
    a += 2
    a += 3
    a += 4
    a += 5
    return a


def _private(x):
    return x


class Public:
    def method(self):
        return 1


class _Private:
    def method(self):
        return 2
'''


@pytest.fixture(scope="module")
def shape():
    spec = importlib.util.spec_from_file_location("shape", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_public_functions_docstrings_and_types_are_counted(shape, monkeypatch):
    monkeypatch.setattr(shape, "sources", lambda revision: {"core/x.py": MODULE})
    found = shape.measure("")
    assert (found["functions"], found["public functions"]) == (6, 4)
    assert found["public functions without docstring"] == 3  # bare, long_and_bare, Public.method
    assert found["... of more than 6 lines"] == 1
    assert found["parameters without type"] == 3  # a and c of bare, x of _private; self needs none


def test_statements_are_counted_without_docstrings_and_by_part(shape, monkeypatch):
    files = {"workflows/x.py": MODULE, "stages/isolation/y.py": MODULE, "rollout.py": MODULE}
    monkeypatch.setattr(shape, "sources", lambda revision: files)
    found = shape.measure("")
    assert found["statements"] == 3 * 19  # 2 + 2 + 7 + 2 of the functions, 3 of each class
    assert (found["... rollouts and workflows"], found["... a step"]) == (19, 0)
    monkeypatch.setattr(shape, "sources", lambda revision: {"rollout.py": MODULE, "stage.py": MODULE})
    found = shape.measure("")  # a revision from before there were workflows
    assert (found["... rollouts and workflows"], found["... a step"]) == (19, 19)


def test_the_package_says_what_its_functions_give(shape):
    found = shape.measure("")
    assert found["public functions without docstring"] < 60
    assert found["... of more than 6 lines"] == 0, "long public functions need a docstring"
    assert found["parameters without type"] < 30
