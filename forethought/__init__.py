"""Staged post-training of models that plan before they act.

    import forethought as ft

    run = ft.train("desk", out="runs/first")
    run.metrics()[-1]["eval/plan"]

What the command line does, from Python (docs/python.md). The names below load when they are first used, so
that the import itself costs nothing; their types stand in `__init__.pyi`.
"""

import importlib

__version__ = "0.1.0"

_FROM = {
    "forethought.api": (
        "Callback",
        "CallbackError",
        "Checkpoint",
        "Moment",
        "Run",
        "compare",
        "evaluate",
        "export",
        "open",
        "sample",
        "swap",
        "train",
    ),
    "forethought.core.errors": ("ForethoughtError", "GateStop", "Interrupted", "RecipeError", "UserError"),
    "forethought.recipe.schema": ("Recipe",),
}
_WHERE = {name: module for module, names in _FROM.items() for name in names}
__all__ = [*sorted(_WHERE), "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
