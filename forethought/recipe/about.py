"""What a recipe can say, as data: every key with its type, default, choices and meaning, read from the
records of `schema.py` and `kinds/`, and the options of shipped tasksets, losses and workflows. The meaning is
the text that stands under a field in the source."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from forethought.learn.losses import LOSSES
from forethought.recipe.convert import FLAT, NAMED, fields_of, to_text
from forethought.recipe.kinds import KINDS
from forethought.recipe.options import READERS
from forethought.recipe.options.named import LOSSES as LOSS_ROWS
from forethought.recipe.options.named import NAMED as NAMED_ROWS
from forethought.recipe.options.named import OPTIONS
from forethought.recipe.schema import Recipe, StageSpec, TrainingSpec
from forethought.recipe.speaking import SPEAKING, roles_of

STAGE = "stage.N"
CHOSEN = ("ROLE", "OPTION")  # in an address: a name that the recipe chooses


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key. `where`: its address, with N for a number in a list and a word in capitals for a name that
    the recipe chooses ("stage.N.gates.N.metric", "roles.ROLE.budget"). `kinds`: of a stage, those that read
    it; `reader`: of an option, who reads it ("the taskset text")."""

    where: str
    annotation: Any
    default: Any  # MISSING where there is none to write (a table, a list of tables)
    about: str
    kinds: tuple[str, ...] = ()
    reader: str = ""
    needed: bool = False  # an option that must be given

    @property
    def type(self) -> str:
        """In words: "a number", "true or false"."""
        return type_of(self.annotation)

    @property
    def choices(self) -> tuple[str, ...]:
        """The legal values, where they are listed."""
        kind = self.annotation
        return tuple(repr(word) for word in get_args(kind)) if get_origin(kind) is Literal else ()


MISSING = dataclasses.MISSING


@cache
def texts_of(kind: type) -> Mapping[str, str]:
    """Field -> the text under it in the source, of a record and those that it derives from. Empty where the
    source cannot be read."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(one):
            continue
        try:
            [node] = ast.parse(inspect.cleandoc("\n" + inspect.getsource(one))).body
        except (OSError, TypeError, SyntaxError, ValueError):
            continue
        body = node.body if isinstance(node, ast.ClassDef) else []
        for field, text in zip(body, body[1:], strict=False):
            said = (
                text.value.value
                if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                else None
            )
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(said, str)
            ):
                found[field.target.id] = " ".join(said.split())
    return found


@cache
def keys() -> tuple[Key, ...]:
    """Every key of a recipe, in reading order; the keys of a stage once, with the kinds that read them."""
    return tuple(_keys(Recipe, ""))


@cache
def options() -> tuple[Key, ...]:
    """Every option of a shipped taskset, workflow or loss, once for each that reads it."""
    found: list[Key] = []
    for reader, kind in READERS.items():
        found += (replace(key, reader=reader) for key in _keys(kind, "task"))
    for name, speaks in SPEAKING.items():
        found += _of_row(f"the workflow {name}", "workflow", speaks.options)
    for name in LOSS_ROWS:
        found += _of_row(f"the loss {name}", "stage.N.loss", LOSSES[name].options())
    return tuple(found)


def _of_row(reader: str, where: str, given: Mapping[str, Any]) -> Iterator[Key]:
    for name, default in given.items():
        about = OPTIONS.get(name, "")
        yield Key(
            where=f"{where}.{name}", annotation=type(default), default=default, about=about, reader=reader
        )


def rows(name: str) -> dict[str, str]:
    """Key -> what the word `name` means as its value; {} for a word that none knows."""
    return {where: words[name] for where, words in NAMED_ROWS.items() if name in words}


def read_by(name: str) -> list[Key]:
    """The options of the taskset, workflow, loss or adapter of that name."""
    return [key for key in options() if key.reader.split()[-1].strip("`:") == name.strip(":")]


def of_kind(name: str) -> list[Key]:
    """The keys of a stage of the shipped kind `name`, those below its tables left out: its own first. Empty
    for what is no kind."""
    if name not in KINDS:
        return []
    depth = len(f"{STAGE}.".split("."))
    inside = [key for key in keys() if key.where.startswith(f"{STAGE}.") and key.where.count(".") < depth]
    read = [key for key in inside if not key.kinds or name in key.kinds]
    return sorted(read, key=lambda key: len(key.kinds) or len(KINDS) + 1)


def matching(asked: str) -> list[Key]:
    """The keys that `asked` means: an address as `--set` has it ("stage.1.optim.lr"), or the end of one
    ("optim.lr", "gates.max_drop", "lr"). Empty for what is none, and for a name that the recipe may choose
    but that is nearly a key ("tree.temprature")."""
    parts = [part for part in asked.strip().split(".") if part and part != "N" and not part.isdecimal()]
    known = (*keys(), *options())
    found = [key for key in known if _words(key) == parts]
    if not found and parts:
        found = [key for key in known if _words(key)[-len(parts) :] == parts]
    if found or len(parts) < 2:
        return found
    chosen = [key for key in keys() if _is_chosen(_words(key), parts)]
    return [key for key in chosen if _words(key)[-1] == parts[-1] or not _near(parts[-1], key)]


def nearest(asked: str) -> list[str]:
    """Addresses of at most two keys whose address, or the end of it, is nearly what was asked."""
    known = (*options(), *reversed(keys()))  # a key of every recipe counts before an option
    ends = {".".join(_words(key)[i:]): key.where for key in known for i in range(len(_words(key)))}
    words = [part for part in asked.split(".") if not part.isdecimal()]
    for text, cutoff in ((".".join(words), 0.8), (words[-1], 0.6)):
        if near := difflib.get_close_matches(text, ends, n=2, cutoff=cutoff):
            return list(dict.fromkeys(ends[one] for one in near))
    return []


def _words(key: Key) -> list[str]:
    return [part for part in key.where.split(".") if part != "N"]


def _is_chosen(where: list[str], parts: list[str]) -> bool:
    """Whether the address, or the end of it, is meant, in which a word in capitals stands for a name that the
    recipe chooses."""
    end = where[-len(parts) :]
    return len(end) == len(parts) and all(
        known == part or (known in CHOSEN and i)
        for i, (known, part) in enumerate(zip(end, parts, strict=True))
    )


def _near(name: str, key: Key) -> bool:
    """Whether the name is nearly that of a key which stands beside this one."""
    above = key.where.rpartition(".")[0]
    known = (*keys(), *options())
    beside = [one.where.rpartition(".")[2] for one in known if one.where.rpartition(".")[0] == above]
    return bool(difflib.get_close_matches(name, beside, n=1, cutoff=0.75))


def below(key: Key) -> list[Key]:
    """The keys of a table."""
    depth = key.where.count(".") + 1
    inside = [one for one in keys() if one.where.startswith(key.where + ".")]
    place = (f"{key.where}.N.", f"{key.where}.ROLE.")
    return [one for one in inside if one.where.count(".") == depth + one.where.startswith(place)]


def _keys(kind: type, where: str, kinds: tuple[str, ...] = ()) -> Iterator[Key]:
    """The keys of a record, each before those below it."""
    said = texts_of(kind)
    for field in dataclasses.fields(kind):
        annotation = fields_of(kind).get(field.name)
        here = f"{where}.{field.name}" if where else field.name
        default = _default(field)
        if field.name == FLAT.get(kind):
            annotation, default = (int, MISSING) if field.name == "counts" else (Any, MISSING)
            here = f"{where}.{'ROLE' if field.name == 'counts' else 'OPTION'}"
        text = said.get(field.name, "")
        needed = field.default is MISSING and field.default_factory is MISSING
        yield Key(where=here, annotation=annotation, default=default, about=text, kinds=kinds, needed=needed)
        yield from _below(annotation, here, kinds)


def _below(annotation: Any, here: str, kinds: tuple[str, ...]) -> Iterator[Key]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is tuple and args and args[0] is StageSpec:
        yield from _stage_keys(f"{here}.N")
    elif origin is tuple and args and dataclasses.is_dataclass(args[0]):
        yield from _keys(args[0], f"{here}.N", kinds)  # type: ignore[arg-type]  # a class
    elif origin is dict and dataclasses.is_dataclass(args[1]):
        yield from _keys(args[1], f"{here}.ROLE", kinds)  # type: ignore[arg-type]  # a class
    elif isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        yield from _keys(annotation, here, kinds)


def _stage_keys(where: str) -> Iterator[Key]:
    """Those of every stage, of every stage that trains, and of each kind with the kinds made of it."""
    trains = tuple(name for name, kind in KINDS.items() if issubclass(kind, TrainingSpec))
    yield from _keys(StageSpec, where)
    seen = {field.name for field in dataclasses.fields(StageSpec)}
    made = [(kind, tuple(n for n, one in KINDS.items() if issubclass(one, kind))) for kind in KINDS.values()]
    for kind, kinds in ((TrainingSpec, trains), *made):
        own = {field.name for field in dataclasses.fields(kind)} - seen
        depth = where.count(".") + 1
        yield from (key for key in _keys(kind, where, kinds) if key.where.split(".")[depth] in own)
        seen |= own


def _default(field: dataclasses.Field) -> Any:
    made = field.default_factory() if field.default_factory is not MISSING else field.default
    return MISSING if dataclasses.is_dataclass(made) else made


def type_of(annotation: Any) -> str:
    """An annotation of the schema in words."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(f'"{word}"' for word in args)
    if origin in (Union, UnionType):
        return " or ".join(type_of(one) for one in args if one is not NoneType)
    if origin is tuple and dataclasses.is_dataclass(args[0]):
        return "a list of tables"
    if origin is tuple:
        many = {int: "whole numbers", float: "numbers", str: "texts"}[args[0]]
        return f"a list of {many}" if args[-1] is Ellipsis else f"a list of {len(args)} {many}"
    if origin is dict or dataclasses.is_dataclass(annotation):
        return "text, or a table" if annotation in NAMED else "a table"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Any: "any value"}
    return words[annotation]


def shown(default: Any) -> str:
    """A default as TOML writes it; "" where there is none, or nothing."""
    return "" if default is MISSING or default is None else to_text(default)


def example(key: Key) -> str:
    """How it is set on the command line, with another value than the default; "" for what is better written
    in a file."""
    other = [word for word in get_args(key.annotation) if isinstance(word, str) and word != key.default]
    if (
        dataclasses.is_dataclass(key.annotation)
        or get_origin(key.annotation) is dict
        or key.where.endswith("OPTION")
    ):
        return ""
    if key.where.endswith(".gates"):
        value = '[{ metric = "eval/act", max_drop = 0.01 }]'
    elif key.type == "a list of tables":
        return ""
    elif key.choices:
        value = other[0]
    elif key.annotation is bool:
        value = to_text(not key.default)
    elif key.default in (MISSING, None, "", 0, ()):
        usual = {"a number": "0.1", "a whole number": "10", "a list of texts": '["NAME"]'}
        value = usual.get(key.type, "[1, 2]" if key.type.startswith("a list") else "NAME")
    else:
        value = key.default if isinstance(key.default, str) else to_text(key.default)
    text = f"{key.where.replace('.N', '.0').replace('ROLE', roles_of(Recipe())[-1])}={value}"
    return f"--set {shlex.quote(text)}"
