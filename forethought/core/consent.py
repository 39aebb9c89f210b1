"""Consent to code that a run names: what a user has run here runs again without a question.

A recipe file that you name on the command line is yours, as a script would be, and so is a recipe that you
build in Python. A run directory may be somebody else's, and its recipe.json decides what is imported. So its
code runs only if you have run the same code here before (the same file at the same place with the same
content), or if you allow it: `--trust-code`, or `with trusting():`. What you train and what you allow is
written down in the user's state folder, by digest, where no run directory reaches.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

from forethought.core.errors import UserError
from forethought.core.named import file_of

OF_MODEL = "the code of the model "
_TRUSTING: ContextVar[bool] = ContextVar("trusting", default=False)


def ledger() -> Path:
    """The file with a line for each piece of code that has run here."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return (
        Path(state if os.path.isabs(state) else os.path.expanduser("~/.local/state")) / "forethought" / "code"
    )


@contextlib.contextmanager
def trusting(yes: bool = True) -> Iterator[None]:
    """While it lasts, the code that runs name is allowed (and written down)."""
    before = _TRUSTING.set(yes or _TRUSTING.get())
    try:
        yield
    finally:
        _TRUSTING.reset(before)


def remember(named: Mapping[str, str]) -> None:
    """Address -> code that the user runs here. Where nothing can be written, it is asked for again."""
    known = _known()
    lines = [f"{_digest(text)}  {text}\n" for text in named.values() if _digest(text) not in known]
    if not lines:
        return
    with contextlib.suppress(OSError):
        file = ledger()
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as out:
            out.write("".join(lines))


def need(named: Mapping[str, str], run: Path | str, mended: Collection[str] = ()) -> None:
    """UserError, in a line that says what would run and how it is allowed, where the recipe of a run names
    code that has not run here. `mended`: addresses of code whose change the user has accepted; what ran here
    under the same whole name before is allowed with it."""
    strange = {where: text for where, text in named.items() if _digest(text) not in _known()}
    before = _texts()
    own = {where: text for where, text in strange.items() if where in mended and text in before}
    remember(own)
    strange = {where: text for where, text in strange.items() if where not in own}
    if not strange:
        return
    if _TRUSTING.get():
        remember(strange)
        return
    for where, text in strange.items():
        path = None if text.startswith(OF_MODEL) else file_of(text, Path.cwd())
        if path is not None and not path.is_file():
            raise UserError(f"{run} names code in {path} ({where}), and there is no such file; put it back")
    first = list(strange.items())[:3]  # an address that ends with the code would say it twice
    shown = ", ".join(f"{text} ({where.removesuffix(f'.{text}')})" for where, text in first)
    more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
    changed = [text for text in strange.values() if text in before]
    why = "has changed since it last ran here" if changed else "has not run here before"
    raise UserError(
        f"{run} names code that {why}: {shown}{more}. Read it, and allow it with --trust-code "
        f"(in Python: trust_code=True)"
    )


def is_given() -> bool:
    """Whether `trusting` holds."""
    return _TRUSTING.get()


def _digest(text: str) -> str:
    """Of the name, and of the content of the file that it names; of the modules of a model's folder."""
    digest = hashlib.sha256(text.encode())
    if text.startswith(OF_MODEL):
        for file in sorted(Path(text.removeprefix(OF_MODEL)).glob("*.py")):
            with contextlib.suppress(OSError):
                digest.update(b"\0" + file.read_bytes())
        return digest.hexdigest()
    path = file_of(text, Path.cwd())
    if path is not None:
        with contextlib.suppress(OSError):
            digest.update(b"\0" + path.read_bytes())
    return digest.hexdigest()


def _rows() -> Iterable[list[str]]:
    try:
        lines = ledger().read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    return [line.split("  ", 1) for line in lines if "  " in line]


def _known() -> set[str]:
    return {row[0] for row in _rows()}


def _texts() -> set[str]:
    return {row[1] for row in _rows()}
