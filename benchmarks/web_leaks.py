"""Many episodes on web pages, one after the other, and what stays behind: memory, pages, files.

    python benchmarks/web_leaks.py [--episodes 10000] [--tasks web-12] [--every 500]
    [--events js] [--json FILE]

The oracles play the tasks in turn in one browser, as evaluations do, each episode with a seed of its own.
After every so many episodes a line says

    python      resident memory of this process, MiB
    driver      the same of Playwright's own process
    browser     memory of all processes of the browser together, pages that they share counted once (PSS)
    pages       open pages, as the pool counts them and as the browser does
    files       open files of this process

Growth is the difference of the means of the last and of the second fourth of the lines: the first fourth
loads what stays. The run fails where Python or the browser grow by more than --most MiB a thousand episodes,
where the two counts of pages differ, or where there are more pages than tasks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from forethought.envs.web import miniwob
from forethought.envs.web.browser import Browser, summed
from forethought.envs.web.page import Episode
from forethought.tasks.web.demonstrations import play

MIB = 1024


def children(pid: int) -> Iterator[int]:
    """Every process below one, by what the kernel says (Linux)."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            yield child
            yield from children(child)


def field(path: str, name: str) -> float:
    """A size of a file of the kernel, MiB; 0 where the process is gone."""
    try:
        line = next(line for line in Path(path).read_text().splitlines() if line.startswith(name))
    except (OSError, StopIteration):
        return 0.0
    return int(line.split()[1]) / MIB


def measured(browser: Browser, episodes: int, seconds: float, won: int) -> dict[str, float]:
    """One line."""
    below = list(children(os.getpid()))
    is_driver = {pid: "run-driver" in Path(f"/proc/{pid}/cmdline").read_text() for pid in below}
    return {
        "episodes": episodes,
        "seconds": seconds,
        "success": won / max(episodes, 1),
        "python": field("/proc/self/status", "VmRSS:"),
        "driver": sum(field(f"/proc/{pid}/status", "VmRSS:") for pid in below if is_driver[pid]),
        "browser": sum(field(f"/proc/{pid}/smaps_rollup", "Pss:") for pid in below if not is_driver[pid]),
        "processes": len(below),
        "pages": browser.pages,
        "pages_of_browser": browser.pages_of_browser,
        "files": len(os.listdir("/proc/self/fd")),
    }


def growth(lines: list[dict[str, float]], name: str) -> float:
    """MiB a thousand episodes, from the second fourth of the lines to the last."""
    n = len(lines) // 4
    early, late = lines[n : 2 * n], lines[-n:]
    if not n:
        return 0.0
    apart = statistics.mean(x["episodes"] for x in late) - statistics.mean(x["episodes"] for x in early)
    return (statistics.mean(x[name] for x in late) - statistics.mean(x[name] for x in early)) / apart * 1000


async def run(tasks: tuple[str, ...], episodes: int, every: int, events: str) -> list[dict[str, float]]:
    """The lines, told as they come."""
    browser, lines, won = Browser(skip=miniwob.SKIP), [], 0
    began = time.monotonic()
    print("episodes a second success  python  driver  browser pages files")
    try:
        for n in range(1, episodes + 1):
            episode = Episode(browser, miniwob.site(), events)  # type: ignore[arg-type]
            won += await play(episode, tasks[n % len(tasks)], n) is not None
            if n % every == 0 or n == len(tasks):
                one = measured(browser, n, time.monotonic() - began, won)
                lines.append(one)
                sizes = f"{one['python']:7.1f} {one['driver']:7.1f} {one['browser']:8.1f}"
                pages = f"{one['pages']:2.0f}/{one['pages_of_browser']:2.0f} {one['files']:5.0f}"
                print(f"{n:8} {n / one['seconds']:8.1f} {one['success']:7.3f} {sizes} {pages}", flush=True)
        print(summed(browser.counts))
    finally:
        await browser.close()
    return lines


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--tasks", default="web-12")
    parser.add_argument("--every", type=int, default=500, help="episodes of a line")
    parser.add_argument("--events", choices=("js", "mouse"), default="js")
    parser.add_argument("--most", type=float, default=5.0, help="MiB of growth a thousand episodes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tasks = miniwob.chosen(args.tasks if args.tasks in miniwob.LISTS else args.tasks.split(","))
    lines = asyncio.run(run(tasks, args.episodes, args.every, args.events))
    grown = {name: growth(lines, name) for name in ("python", "driver", "browser")}
    for name, mib in grown.items():
        print(f"{name} grows by {mib:+.2f} MiB a thousand episodes")
    if args.json:
        args.json.write_text(json.dumps({"lines": lines, "growth": grown}) + "\n", "utf-8")
    pages = all(x["pages"] == x["pages_of_browser"] <= len(tasks) for x in lines)
    good = pages and all(grown[name] <= args.most for name in ("python", "browser"))
    print("no leak" if good else "LEAK" if pages else "PAGES DIFFER")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
