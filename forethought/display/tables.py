"""Tables of measurements for a terminal of 100 columns: text, no state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH = 100
BESIDE = ("references", "leaks")  # measures of plans in free text, each a table of its own
GROUPS = {"by_level": "by level", "by_file": "by file", "by_task": "by task"}


def evaluation_table(result: Mapping[str, Any]) -> str:
    """What `look.evaluate` found: the measures with their 95 % intervals, then by level and by file, then the
    rest in a line each."""
    rows = {name: entry for name, entry in result.items() if _is_measure(entry)}
    blocks = [_measures("", rows)] if rows else []
    for kind, title in GROUPS.items():
        groups = {name: entry[kind] for name, entry in rows.items() if kind in entry}
        names = list(dict.fromkeys(group for entry in groups.values() for group in entry))
        if len(names) > 1:
            blocks += _broken_down(title, names, groups)
    for name in BESIDE:
        if name in result:
            blocks.append(
                _measures(name, {key: entry for key, entry in result[name].items() if _is_measure(entry)})
            )
    rest = {name: entry for name, entry in result.items() if name not in rows and name not in BESIDE}
    blocks.append("\n".join(f"{name:14}{_plain(entry)}" for name, entry in rest.items()))
    return "\n\n".join(block for block in blocks if block)


def steps_table(results: Mapping[int, Mapping[str, Any]]) -> str:
    """What `look.evaluate` found at each step of a run: a row per step, a measure with its 95 % interval per
    column, as many columns at a time as the terminal is wide."""
    measures = list(
        dict.fromkeys(
            name for found in results.values() for name, entry in found.items() if _is_measure(entry)
        )
    )
    across, blocks = (WIDTH - 8) // 23, []
    for start in range(0, len(measures), across):
        some = measures[start : start + across]
        lines = [f"{'step':>7} " + "".join(f"{name:^23}" for name in some).rstrip()]
        for step, found in results.items():
            lines.append(f"{step:7} " + "".join(f"{_bounded(found.get(name)):^23}" for name in some).rstrip())
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _bounded(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "-"
    known = entry.get("low") is not None
    return f"{entry['value']:.3f}" + (f" [{entry['low']:.3f}, {entry['high']:.3f}]" if known else "")


def _is_measure(entry: Any) -> bool:
    return isinstance(entry, Mapping) and "value" in entry


def _measures(title: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        f"{title:14}{'value':>7}  {'95 % interval':^15}{'n':>7}"
        if any("n" in entry for entry in rows.values())
        else f"{title:14}{'value':>7}  {'95 % interval':^15}".rstrip()
    ]
    for name, entry in rows.items():
        known = entry.get("low") is not None
        interval = f"{entry['low']:.3f} to {entry['high']:.3f}" if known else ""
        lines.append(f"{name:14}{entry['value']:7.3f}  {interval:^15}{entry.get('n', ''):>7}".rstrip())
    return "\n".join(lines)


def _broken_down(title: str, names: Sequence[str], groups: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A row per level or file, a column per measure; as many columns at a time as the terminal is wide."""
    label = max(14, *(len(_short(name)) + 1 for name in names))
    across = (WIDTH - label - 7) // 9
    blocks, measures = [], list(groups)
    for start in range(0, len(measures), across):
        some = measures[start : start + across]
        lines = [f"{title:{label}}{'n':>7}" + "".join(f"{measure:>9}" for measure in some)]
        for name in names:
            cells = [groups[measure].get(name) for measure in some]
            n = next((cell["n"] for cell in cells if cell), "")
            lines.append(
                f"{_short(name):{label}}{n:>7}"
                + "".join(f"{cell['value']:9.3f}" if cell else f"{'-':>9}" for cell in cells)
            )
        blocks.append("\n".join(lines))
    return blocks


def _short(name: str, most: int = 40) -> str:
    return name if len(name) <= most else "..." + name[3 - most :]


def _plain(entry: Any) -> str:
    if isinstance(entry, Mapping):
        return ", ".join(f"{key} {_plain(value)}" for key, value in entry.items())
    if isinstance(entry, float):
        tiny = 0 < abs(entry) < 0.0005  # three places would show it as 0
        return f"{entry:g}" if tiny else f"{entry:.3f}".rstrip("0").rstrip(".")
    return "-" if entry is None else str(entry)


def swap_tables(tables: Iterable[Mapping[str, Any]]) -> str:
    """What `look.swap` found: for each set of tasks planners down, actors across; under a value its change,
    task by task, to the cell where both are the home's own."""
    return "\n\n".join(block for table in tables for block in _swapped(table))


def _swapped(table: Mapping[str, Any]) -> list[str]:
    home, actors = table["home"], list(next(iter(table["e2e"].values())))
    judged = table["planner"][-1]
    verdict = judged if table["exact"] else f"{judged}'s form"
    columns = [(verdict, table["valid"], False)] + [
        (_short(actor, 23), {p: row[actor] for p, row in table["e2e"].items()}, actor == home)
        for actor in actors
    ]
    label = max(16, *(len(_short(name, 24)) + 2 for name in table["e2e"]))
    across = (WIDTH - label) // 27
    blocks = [
        f"tasks of {home}: {table['task']}, {table['n']} tasks, levels "
        f"{' '.join(map(str, table['levels']))}; "
        f"a row says {' and '.join(table['planner'])}, a column {table['actor']}"
    ]
    if failed := sum(cell.get("failed", 0) for row in table["e2e"].values() for cell in row.values()):
        blocks[0] += f"; {failed} executions failed and are not counted"
    for start in range(0, len(columns), across):
        some = columns[start : start + across]
        lines = [f"{'planner / actor':{label}}" + "".join(f"{title:27}" for title, _, _ in some).rstrip()]
        for planner in table["e2e"]:
            cells = [_cell(rows[planner]) for _, rows, _ in some]
            lines += [
                f"{name:{label}}{''.join(f'{part:27}' for part in parts)}".rstrip()
                for name, parts in zip((_short(planner, 24), ""), zip(*cells, strict=True), strict=True)
            ]
        blocks.append("\n".join(lines))
    return blocks


def _cell(cell: Mapping[str, float]) -> tuple[str, str]:
    value = f" {cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"
    if "change" not in cell:
        return value, " home"
    return value, f"{cell['change']:+.3f} [{cell['change_low']:+.3f}, {cell['change_high']:+.3f}]"
