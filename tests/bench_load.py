"""The scripts of benchmarks/ as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[1] / "benchmarks"


def script(name: str) -> ModuleType:
    """Under a name of its own: some are called like a module of somebody else."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))  # they share bench_kit
    own = f"benchmark_{name}"
    if own not in sys.modules:
        spec = importlib.util.spec_from_file_location(own, FOLDER / f"{name}.py")
        sys.modules[own] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[own])
    return sys.modules[own]


def run(module: ModuleType, monkeypatch, *args: str) -> int:
    """Its main, in this process."""
    monkeypatch.setattr(sys, "argv", [module.__file__, *args])
    return module.main()
