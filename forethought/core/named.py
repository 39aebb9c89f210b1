"""Code that a recipe names: `package.module:name`, or `file.py:name` beside the recipe.

A file is loaded once for its content: two recipes that name the same file share its module, and a file that
was changed is a new one. It is not put under its own name into `sys.modules`, so that `rewards.py` of one
recipe never stands in for that of another; what lies next to it can be imported by it while it loads.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from forethought.core.errors import RecipeError, unknown

SAYS = "package.module:name or file.py:name"


def is_named(text: str) -> bool:
    """Whether `text` names code rather than a row of one of our tables."""
    return ":" in text


def split(text: str, where: str) -> tuple[str, str]:
    """(module or file, attribute). RecipeError where it names neither."""
    origin, _, name = text.rpartition(":")
    parts = name.split(".")
    if not origin or not all(part.isidentifier() for part in parts):
        raise RecipeError(where, f"{text!r} names no code; write {SAYS}")
    if not origin.endswith(".py") and not all(part.isidentifier() for part in origin.split(".")):
        raise RecipeError(where, f"{origin!r} is neither a module nor a .py file; write {SAYS}")
    return origin, name


def file_of(text: str, base: Path) -> Path | None:
    """The file that `text` names, or None where it names a module."""
    origin, _, _ = text.rpartition(":")
    return (base / Path(origin).expanduser()) if origin.endswith(".py") else None


def load_named(text: str, base: Path, where: str) -> Any:
    """What `text` names. `base`: the folder that a file is relative to; `where`: the address of the recipe
    key.

    Imports it, so this runs the code. RecipeError with the address where there is no such module, file or
    attribute, and where importing it raises: then with the file and line.
    """
    origin, name = split(text, where)
    path = file_of(text, base)
    module = _module(origin, where) if path is None else _file(path, where)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [n for n in vars(found) if not n.startswith("_")]
            raise RecipeError(where, f"{origin} has no {name}: {unknown('name', part, known)}")
        found = getattr(found, part)
    return found


def digest_of(text: str, base: Path) -> str:
    """SHA-256 of the file that `text` names, for the run's record; "" for a module, which its package
    versions."""
    path = file_of(text, base)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else ""


def _module(origin: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(origin)
    except ModuleNotFoundError as error:
        if error.name and (origin == error.name or origin.startswith(error.name + ".")):
            message = f"no module {origin!r} can be imported here; install it, or name a file: file.py:name"
            raise RecipeError(where, message) from None
        raise RecipeError(where, _broke(origin, error)) from error
    except Exception as error:
        raise RecipeError(where, _broke(origin, error)) from error


def _file(path: Path, where: str) -> ModuleType:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RecipeError(
            where,
            f"{path} does not exist; a recipe's file names are taken from its folder, those of --set "
            "from the working directory",
        ) from None
    except OSError as error:
        raise RecipeError(where, f"{path} cannot be read: {error.strerror or error}") from None
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode() + b"|" + content).hexdigest()
    name = f"forethought_named_{digest[:16]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RecipeError(where, f"{path} is not a Python file; its name ends in .py")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look there
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception | SystemExit):  # Ctrl-C is the user's
            raise RecipeError(where, _broke(path.name, error)) from error
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module


def _broke(origin: str, error: BaseException) -> str:
    """What importing it raised, with the line in the named code."""
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}:{error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
        place = f"{own[-1].filename}:{own[-1].lineno}" if own else origin
    message = " ".join(str(error).split())[:200]
    return f"importing {origin} raised {type(error).__name__}{f': {message}' if message else ''} ({place})"
