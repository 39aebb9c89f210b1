"""How a recipe names an environment, as text, and which files that text names."""

from __future__ import annotations

import shlex

from forethought.recipe.schema import Change, named_with

SCRIPTS = (".py", ".js", ".mjs", ".ts", ".sh")  # words of a command that name a file of the user's
CODE = ("gym", "trl", "verifiers")  # prefixes before `file.py:Class`
NAMED = ("environment", "observe")  # options of the task that name code


def named_task_option(change: Change, where: str, key: str, text: str) -> str:
    """An option of the task `environment` that names code, with the paths in it changed: `file.py:Class`,
    `gym:file.py:Class`, and the scripts of `mcp:COMMAND`."""
    prefix, colon, rest = text.partition(":")
    if key == "environment" and colon:
        if prefix in CODE:
            return f"{prefix}:{named_with(change, where, rest)}"
        if prefix == "openenv":
            return text
        if prefix == "mcp":
            return (
                text if rest.startswith(("http://", "https://")) else f"mcp:{_command(change, where, rest)}"
            )
    return named_with(change, where, text)


def _command(change: Change, where: str, text: str) -> str:
    """A command whose scripts are paths; one that no shell would read stays as it is, and is refused where it
    is run."""
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    scripts = [word.endswith(SCRIPTS) and not word.startswith("-") for word in words]
    if not any(scripts):
        return text
    return shlex.join(
        change(where, word) if script else word for word, script in zip(words, scripts, strict=True)
    )
