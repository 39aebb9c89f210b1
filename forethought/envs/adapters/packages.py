"""Why a library of an adapter cannot be imported: it is not installed, or it is broken."""

from __future__ import annotations

from forethought.core.errors import RecipeError


def missing(where: str, package: str, extra: str, error: ImportError) -> RecipeError:
    """The error for the user at the address `where`: which extra to install, or what importing it raised."""
    absent = isinstance(error, ModuleNotFoundError) and error.name == package
    if absent:
        install = f'pip install "forethought[{extra}]"'
        return RecipeError(where, f"{extra}: needs the package {package}, which is not installed; {install}")
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return RecipeError(where, f"{extra}: the package {package} is installed, but importing it raised {said}")
