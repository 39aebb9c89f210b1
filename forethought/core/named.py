"""Code that a recipe names: a row of ours ("react"), `package.module:name`, `file.py:name` beside the recipe,
or a name that an installed package declares as an entry point of a group (`forethought.workflows`, ...).

`find` is the one way from such a name to the object. What it has found is held: a run that is under way keeps
the code it began with, whatever happens to the file; `again` reads it anew, where a recipe is loaded or
checked.

A file is loaded once for its content: two recipes that name the same file share its module, and a file that
was changed is a new one. It is not put under its own name into `sys.modules`, so that `rewards.py` of one
recipe never stands in for that of another; what lies next to it can be imported by it while it loads.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from forethought.core.errors import RecipeError, unknown
from forethought.core.places import place_of

SAYS = "package.module:name or file.py:name"
GROUPS = (
    "tasks",
    "environments",
    "workflows",
    "rewards",
    "graders",
    "credits",
    "losses",
    "trackers",
    "schedules",
)
"""Entry-point groups: `forethought.tasks` and so on."""

HERE = "in_this_process"  # the module of what was given to this process and no other can find
_HELD: dict[tuple[str, str], Any] = {}  # (group, whole name) -> what was found


def hold_here(name: str, value: Any) -> None:
    """From now on `in_this_process:name` means `value`, in this process."""
    setattr(sys.modules.setdefault(HERE, ModuleType(HERE)), name, value)
    for key in [key for key in _HELD if key[1] == f"{HERE}:{name}"]:
        del _HELD[key]


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


def names_code(text: str) -> bool:
    """Whether `text` is written as code is: `package.module:name` or `file.py:name`."""
    try:
        split(text, "")
    except RecipeError:
        return False
    return True


def file_of(text: str, base: Path) -> Path | None:
    """The file that `text` names, also after the prefix of an adapter, or None where it names a module."""
    origin, _, _ = bare(text).rpartition(":")
    return (base / Path(origin).expanduser()) if origin.endswith(".py") else None


def bare(text: str) -> str:
    """Without the prefix of an adapter: trl:file.py:Class."""
    prefix, _, rest = text.partition(":")
    return rest if prefix.isalpha() and len(prefix) > 1 and rest.rpartition(":")[0].endswith(".py") else text


def load_named(text: str, base: Path, where: str) -> Any:
    """What `text` names. `base`: the folder that a file is relative to; `where`: the address of the recipe
    key.

    Imports it, so this runs the code. RecipeError with the address where there is no such module, file or
    attribute, and where importing it raises: then with the file and line.
    """
    origin, name = split(text, where)
    if origin == HERE and not hasattr(sys.modules.get(HERE), name):
        raise RecipeError(
            where,
            f"{name} was given to the Python process that began the run, and no file holds it: go on from "
            f"Python, ft.train(resume=RUN, functions=[{name}])",
        )
    path = file_of(text, base)
    module = _module(origin, where) if path is None else _file(path, where)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [n for n in vars(found) if not n.startswith("_")]
            raise RecipeError(where, f"{origin} has no {name}: {unknown('name', part, known)}")
        found = getattr(found, part)
    return found


def find(
    group: str,
    name: str,
    shipped: Mapping[str, Any],
    where: str,
    what: str,
    *,
    again: bool = False,
    more: Iterable[str] = (),
) -> Any:
    """What `name` means: a row of `shipped`, code in a module or file (a file's path is whole, or relative to
    the working directory), or an entry point of the group `forethought.GROUP`.

    `where`: the address of the recipe key; `what`: the kind of thing, in words ("workflow"). `more`: names
    that somebody else resolves, to be listed. `again`: load it, even if it was found before. RecipeError for
    a name that nobody knows (with those that are known), and as `load_named` for what does not load.
    """
    if name in shipped:
        return shipped[name]
    key = (group, name)
    if is_named(name):
        path = file_of(name, Path.cwd())
        key = (group, name if path is None else f"{path}:{name.rpartition(':')[2]}")
    if again or key not in _HELD:
        _HELD[key] = (
            load_named(name, Path.cwd(), where)
            if is_named(name)
            else _installed(group, name, where, what, [*shipped, *more])
        )
    return _HELD[key]


def is_known(group: str, name: str, shipped: Iterable[str] = ()) -> bool:
    """Whether `name` is a row, names code, or is installed; nothing is loaded."""
    return name in shipped or is_named(name) or name in installed(group)


@cache
def installed(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Name -> entry points of `forethought.GROUP` that the installed packages declare; none is loaded."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=f"forethought.{group}"):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def _installed(group: str, name: str, where: str, what: str, known: Iterable[str]) -> Any:
    points = installed(group).get(name, ())
    if not points:
        message = f"{unknown(what, name, [*known, *installed(group)])}; code of your own: {SAYS}"
        raise RecipeError(where, message)
    if len({point.value for point in points}) > 1:
        said = " and ".join(f"{_package(point)} ({point.value})" for point in points)
        raise RecipeError(where, f"{name!r} is declared by {said}; name the code itself: {SAYS}")
    try:
        return points[0].load()
    except (Exception, SystemExit) as error:
        said = _broke(points[0].value, error)
        raise RecipeError(where, f"{what} {name!r} of {_package(points[0])} does not load: {said}") from error


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name} {point.dist.version}" if point.dist else "a package"


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
            raise RecipeError(where, message + _taken_for(origin, error.name)) from None
        raise RecipeError(where, _broke(origin, error)) from error
    except Exception as error:
        raise RecipeError(where, _broke(origin, error)) from error


def _taken_for(origin: str, missing: str) -> str:
    """Where a package of the name was found that is not the one meant: a folder here stands before what is
    installed."""
    above = missing.rpartition(".")[0]
    found = sys.modules.get(above) if above else None
    places = [str(place) for place in getattr(found, "__path__", ())]
    if not places:
        return ""
    name = origin.split(".")[len(above.split("."))]
    return f" ({above!r} is {places[0]}, which has no {name})"


def module_of(path: Path, where: str) -> ModuleType:
    """The module in a file, whose code is run. RecipeError as `load_named`."""
    return _file(path, where)


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
        place = place_of(error) or origin
    message = " ".join(str(error).split())[:200]
    return f"importing {origin} raised {type(error).__name__}{f': {message}' if message else ''} ({place})"
