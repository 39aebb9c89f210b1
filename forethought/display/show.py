"""What the command line prints about a recipe and about samples: text for people, no state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING, Any

from forethought.core.printable import printable
from forethought.recipe.schema import GateSpec, Recipe

if TYPE_CHECKING:
    from rich.text import Text


def outline(recipe: Recipe) -> str:
    """The stages of a recipe in words, as comment lines, so that a recipe may follow them in one TOML
    file."""
    steps = sum(stage.steps for stage in recipe.stage)
    lines = [
        f"{recipe.name}: stages {len(recipe.stage)}, steps at most {steps}, layout {recipe.layout}, "
        f"seed {recipe.seed}"
    ]
    for i, stage in enumerate(recipe.stage):
        lines.append(f"stage {i + 1}/{len(recipe.stage)} {stage.outline(recipe)}")
        lines += [f"  gate: {_gate(gate)}" for gate in stage.gates]
    return "\n".join(f"# {line}" for line in lines)


def _gate(gate: GateSpec) -> str:
    names = ("at_least", "at_most", "max_drop", "max_rise", "max_slope_down")
    condition = ", ".join(
        f"{name} {getattr(gate, name)}" for name in names if getattr(gate, name) is not None
    )
    then = {
        "stop": " and stop",
        "isolate": f" and run it again isolated ({gate.isolate})",
        "lower_rate": f" and run it again with {gate.rate:g} of its rate",
    }.get(gate.then, "")
    return f"{gate.metric} {condition}, else {gate.on_fail}{then if gate.on_fail == 'roll_back' else ''}"


def samples(rows: Iterable[Mapping[str, Any]], stream: IO[str]) -> None:
    """Write tasks with the turns that policies wrote and what the verifiers said; colour only on a
    terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False, soft_wrap=True)
    for row in rows:
        console.print(Text(printable(f"task {row['task']}  level {row['level']}"), style="bold"))
        shown = row.get("shown") or {}
        for name in ("context", "prompt"):
            if row.get(name):
                console.print(_line(name, shown.get(name, row[name]), "dim"))
        for text in shown.get("oracle", row["oracle"]).values():
            console.print(_line("oracle", text, "dim"))
        texts = shown.get("turns") or [turn["text"] for turn in row["turns"]]
        for turn, text in zip(row["turns"], texts, strict=True):
            line = _line(turn["role"], text)
            if turn["valid"] is not None or turn["status"] != "finished":
                line.append_text(_verdict(turn["valid"] or 0.0, turn["reason"], turn["status"]))
            console.print(line)
        console.print(
            _line("result", "").append_text(
                _verdict(row.get("success"), row.get("reason"), row.get("status"))
            )
        )
        console.print()


def _line(name: str, text: Any, style: str = "") -> Text:
    from rich.text import Text

    lines = printable(text if text is not None else "-", keep="\n").split("\n")
    return Text(f"  {printable(name):8}", style="dim").append(f"\n{'':10}".join(lines), style=style)


def _verdict(good: Any, reason: Any, status: Any = None) -> Text:
    """Scores and truths alike: 1.0 and True are right; nothing is not known; what its budget has cut off is
    not judged either."""
    from rich.text import Text

    if good is None:
        word, style = "not judged", "dim"
    elif status == "failed":
        word, style = "broke", "yellow"
    elif status in ("truncated", "overlong"):
        word, style = "cut off" if status == "truncated" else "no room", "magenta"
    else:
        word, style = ("right", "green") if good >= 1 else ("wrong", "red")
    return Text("  [").append(word, style=style).append(f": {printable(reason)}]" if reason else "]")
