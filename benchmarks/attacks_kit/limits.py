"""Too little disk, inodes, file size, open files or memory: a typed end, earlier checkpoints whole, and the
run resumed afterwards is the one that had enough.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

from attacks_kit import children, kills, runs
from attacks_kit.records import Outcome, Try, failed, held, rng_of, skipped

SUBJECT = "adapters-fp32"
DISKS = (64, 200, 400, 600, 800, 1200)  # KiB of a tmpfs; a checkpoint takes about 250
INODES = (12, 30, 45, 60)
FILE_SIZES = (4, 20, 60, 150)  # KiB of one file
OPEN_FILES = (6, 8, 10, 12, 24, 64)
ADDRESS_SPACE = (-1, 4, 10, 16, 24, 48, 100, 300, 600)  # MiB above what the process has when it begins


def tries(scale: float, seed: int) -> list[Try]:
    found = [Try(f"limits/disk of {size} KiB", functools.partial(tmpfs, f"size={size}k")) for size in DISKS]
    found += [Try(f"limits/{n} inodes", functools.partial(tmpfs, f"size=64m,nr_inodes={n}")) for n in INODES]
    found += [
        Try(f"limits/files of {size} KiB", functools.partial(limited, resource.RLIMIT_FSIZE, 1024 * size))
        for size in FILE_SIZES
    ]
    found += [
        Try(f"limits/{n} open files", functools.partial(limited, resource.RLIMIT_NOFILE, n))
        for n in OPEN_FILES
    ]
    found += [
        Try(f"limits/{size} MiB more memory", functools.partial(limited, resource.RLIMIT_AS, size << 20))
        for size in ADDRESS_SPACE
    ]
    return found if scale >= 1 else rng_of("limits", seed).sample(found, max(3, round(scale * len(found))))


def tmpfs(options: str, folder: Path) -> Outcome:
    """The run directory is a file system of this size; what is left is copied out of it and resumed where
    there is room."""
    small = folder / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", str(small)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        return skipped(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        recipe = kills._recipe(SUBJECT, folder)
        ended = children.run(["train", recipe, "--out", small / "run", "--plain"], folder / "logs")
        shutil.copytree(small / "run", folder / "run") if (small / "run").exists() else None
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)
    return resumed(ended, recipe, folder / "run", folder)


def limited(kind: int, most: int, folder: Path) -> Outcome:
    """A child under a limit of its own."""

    def before() -> None:
        size = most + _size() if kind == resource.RLIMIT_AS else most
        resource.setrlimit(kind, (size, size))

    recipe = kills._recipe(SUBJECT, folder)
    return resumed(
        children.run(["train", recipe, "--out", folder / "run", "--plain"], folder / "logs", before=before),
        recipe,
        folder / "run",
        folder,
        kind,
    )


def resumed(ended: children.Ended, recipe: Path, out: Path, folder: Path, kind: int = -1) -> Outcome:
    """What a run left that had not enough, and what comes of it when it has."""
    wanted = kills.straight_of(SUBJECT).left
    wrong = []
    aborted = kind == resource.RLIMIT_AS and ended.code == -6
    # a library that has no memory ends the process, as a kill does
    # 1 is the machine's fault, said in one line
    if (why := children.untyped(ended, fine=(0, 1, 2))) and not aborted:
        wrong.append(why)
    if ended.code == 1 and "forethought: " not in ended.text:
        wrong.append(f"exit 1 without a word of ours: {ended.last}")
    if not aborted and (
        beside := sorted(str(p.relative_to(out)) for p in out.rglob(".*") if p.name not in runs.LOCKS)
        if out.exists()
        else []
    ):
        wrong.append(f"it leaves {', '.join(beside[:3])}")
    # no memory to load ours: other last bits, and the run says so
    other = kind == resource.RLIMIT_AS and _kernels(out).startswith("torch")
    argv = (
        ["train", "--resume", out, "--plain"]
        if (out / "recipe.json").exists()
        else ["train", recipe, "--out", out, "--plain"]
    )
    if argv[1] != "--resume":
        shutil.rmtree(out, ignore_errors=True)
    again = children.run(argv, folder / "logs")
    if again.code == 2 and "nothing to resume" in again.text:
        again = children.run(["report", out], folder / "logs")
    if why := children.untyped(again, fine=(0,)):
        wrong.append(f"resumed with enough: {why}")
    elif not other and (different := runs.difference(wanted, runs.left(out))):
        wrong.append(f"resumed with enough: {different}")
    end = "a library ended the process for want of memory" if aborted else f"exit {ended.code}: {ended.last}"
    return failed(f"{'; '.join(wrong)} [{end}]") if wrong else held(reason=end)


def _kernels(out: Path) -> str:
    try:
        return str(json.loads((out / "summary.json").read_text(encoding="utf-8"))["machine"]["kernels"])
    except (OSError, ValueError, KeyError):
        return ""


def _size() -> int:
    """Address space of this process, in bytes."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 4 << 30
