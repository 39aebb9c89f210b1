"""The shape of the code, measured: how long, how wide, how documented, and how many nouns one training step
needs.

    python benchmarks/shape.py [REVISION ...]

A column for each revision of this repository, the last one for the files as they stand. A public function is
one whose name begins with no underscore, in a module and class of which the same is true; nested functions
are not counted. The nouns of a step are the names of this library that the modules of a reinforcement step
import: who reads the step has to know them.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEP = ("stages/reinforce.py", "stages/step.py", "stage.py")  # the first that there is
ROLE_WORDS = ("plan", "act")
SPEAKS = ("tasks/", "recipe/speaking.py", "workflows/")  # where role names are data
# what the redraw of workflows, roles and branches touched: part -> where it was, where it is
REDRAWN = {
    "a step": (
        ("stage.py", "batches.py", "schedule.py", "curriculum.py"),
        ("stages/", "learn/batches.py", "learn/schedule.py", "learn/curriculum.py"),
    ),
    "rollouts and workflows": (("rollout.py", "growing.py"), ("workflows/",)),
    "rewards and credit": (
        ("rewards.py", "credit/"),
        ("learn/rewards.py", "learn/peers.py", "learn/credit/"),
    ),
    "evaluation and gates": (("evaluate.py", "gates.py"), ("measure/",)),
    "saved trees": (("traces/",), ("traces/",)),
    "faces of an engine": (("engines/base.py", "engines/joined.py", "engines/fake"),) * 2,
}
APART = ("stages/distill/", "stages/isolation/", "measure/probes/")  # in those folders, and no part of it


def sources(revision: str) -> dict[str, str]:
    """Path below the package -> text."""
    if not revision:
        package = ROOT / "forethought"
        return {str(p.relative_to(package)): p.read_text("utf-8") for p in sorted(package.rglob("*.py"))}
    names = subprocess.check_output(
        ["git", "ls-tree", "-r", "--name-only", revision, "forethought"], cwd=ROOT, text=True
    )
    found = {}
    for name in names.splitlines():
        if name.endswith(".py"):
            text = subprocess.check_output(["git", "show", f"{revision}:{name}"], cwd=ROOT, text=True)
            found[name.removeprefix("forethought/")] = text
    return found


def quantile(values: list[int], share: float) -> int:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


Def = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> list[tuple[Def, bool]]:
    """(function, public) of a module and its classes."""
    found = [(n, not n.name.startswith("_")) for n in tree.body if isinstance(n, Def)]
    for owner in (n for n in tree.body if isinstance(n, ast.ClassDef)):
        shown = not owner.name.startswith("_")
        found += [(n, shown and not n.name.startswith("_")) for n in owner.body if isinstance(n, Def)]
    return found


def nouns(text: str) -> int:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "forethought":
            found |= {alias.asname or alias.name for alias in node.names}
    return len(found)


def statements(tree: ast.AST) -> int:
    """Statements without docstrings: the size of code, however its lines are broken."""
    bare = (n for n in ast.walk(tree) if isinstance(n, ast.stmt) and not _is_text(n))
    return sum(1 for _ in bare)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def redrawn(trees: dict[str, ast.Module]) -> dict[str, int]:
    """Part -> its statements, under the names of whichever layout a revision has."""
    new = any(name.startswith("workflows/") for name in trees)
    return {
        f"... {part}": sum(
            statements(tree)
            for name, tree in trees.items()
            if name.startswith(places[new]) and not name.startswith(APART)
        )
        for part, places in REDRAWN.items()
    }


def measure(revision: str) -> dict[str, object]:
    files = sources(revision)
    trees = {name: ast.parse(text) for name, text in files.items()}
    lines = [line for text in files.values() for line in text.splitlines()]
    widths = [len(line) for line in lines if line.strip()]
    defs = [pair for tree in trees.values() for pair in functions(tree)]
    sizes = [n.end_lineno - n.lineno + 1 for n, _ in defs]
    bare = [n for n, public in defs if public and not ast.get_docstring(n)]
    untyped = sum(
        a.annotation is None
        for n, _ in defs
        for a in [*n.args.posonlyargs, *n.args.args, *n.args.kwonlyargs]
        if a.arg not in ("self", "cls")
    )
    literals = [
        name
        for name, tree in trees.items()
        if not name.startswith(SPEAKS)
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and n.value in ROLE_WORDS
    ]
    step = next((name for name in STEP if name in files), "")
    return {
        "modules": len(files),
        "lines": len(lines),
        "statements": sum(map(statements, trees.values())),
        **redrawn(trees),
        "lines of the longest module": max(text.count("\n") for text in files.values()),
        "loose modules at the top": sum("/" not in name for name in files),
        "line width, median": statistics.median(widths),
        "line width, 90th percentile": quantile(widths, 0.9),
        "lines over 110": sum(width > 110 for width in widths),
        "functions": len(defs),
        "function length, median": statistics.median(sizes),
        "function length, 90th percentile": quantile(sizes, 0.9),
        "public functions": sum(public for _, public in defs),
        "public functions without docstring": len(bare),
        "... of more than 6 lines": sum(n.end_lineno - n.lineno >= 6 for n in bare),
        "parameters without type": untyped,
        "nouns on a step": f"{nouns(files[step])} ({step})" if step else "-",
        "role names outside tasks and workflows": len(literals),
    }


def main() -> None:
    revisions = [*sys.argv[1:], ""]
    columns = [measure(revision) for revision in revisions]
    print("| | " + " | ".join(revision or "now" for revision in revisions) + " |")
    print("|---|" + "---|" * len(revisions))
    for row in columns[0]:
        print(
            f"| {row} | "
            + " | ".join(
                f"{column[row]:,}" if isinstance(column[row], int) else str(column[row]) for column in columns
            )
            + " |"
        )


if __name__ == "__main__":
    main()
