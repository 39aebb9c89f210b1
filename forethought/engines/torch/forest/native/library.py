"""Compile the kernels once for this machine, and load them.

The compiler (`CC`, else cc, gcc or clang) takes a few seconds; the file is kept in the user's cache folder
(`cache.py`) under a hash of the sources, the compiler and the processor, so a shared home folder serves
several machines.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from forethought.engines.torch.forest.native import cache, instructions

SOURCES = Path(__file__).parent
# GCC would break chains of fused multiply-adds up for some processors, in one size of a tile and not in
# another: a row's bits would then depend on how many rows are beside it.
FUSED = ("-ffp-contract=fast", "--param=avoid-fma-max-bits=0")
FLAGS = (
    "-O3",
    "-std=gnu11",
    *FUSED,
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
    "-pthread",
)
# functions that return a long
LONG = (
    "ft_work",
    "ft_packed_size",
    "ft_product_work",
    "ft_transposed_work",
    "ft_attend_work",
    "ft_layer_work",
    "ft_run_work",
    "ft_choose_work",
    "ft_left_width",
)
SECONDS = 600  # for the compiler; beside many other jobs ten seconds have become two minutes
LARGE_PAGE, MADV_HUGEPAGE = 2 << 20, 14  # bytes; Linux's number of the wish for such pages


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where they cannot be had, and `why_not()` says why."""
    try:
        return _loaded()
    except (OSError, ValueError) as e:  # ValueError: a CC that is no command line
        _reason.append(" ".join(str(e).split()))
        return None


_reason: list[str] = []
_taken: list[str] = [""]  # the instructions that this process was told to take


def why_not() -> str:
    """In one line; empty where the kernels are there."""
    return "" if library() else _reason[-1]


def build() -> str:
    """The beginning of the compiled file's digest; empty where there are no kernels. Another compiler may
    round otherwise."""
    return lib.digest if (lib := library()) else ""


def take(name: str) -> None:
    """The kernels form products with these instructions from here on ("": the widest that there are).
    FORETHOUGHT_KERNELS is stronger."""
    if name == _taken[0]:
        return
    _taken[0] = name
    lib = library() if library.cache_info().currsize else None
    with contextlib.suppress(ValueError):  # `library` says it
        if lib and lib.build == instructions.build_for(_name()):
            lib.products = instructions.chosen(lib.ft_ways(), lib.ft_width(), _name())
            return
    library.cache_clear()


def rivals() -> tuple[str, ...]:
    """Names of instructions for products in bf16 among which only timing decides; one where one is asked
    for."""
    return ("",) if _name() else instructions.rivals(library().products, library().ft_ways())


def way_of(bf16: bool) -> int:
    """The number by which the kernels know the way of a product in this precision."""
    return library().products.way if bf16 else instructions.FLOATS


def address(array: torch.Tensor | np.ndarray | None) -> ctypes.c_void_p:
    """Of a contiguous tensor's or array's first number; None is a null pointer. It does not keep what it
    points to: somebody has to."""
    if array is None:
        return ctypes.c_void_p(None)
    return ctypes.c_void_p(
        array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data_ptr()
    )


def floats(*sizes: int) -> torch.Tensor:
    """Room that is not filled: float32 in the CPU's memory, whatever PyTorch's defaults are."""
    room = torch.empty(sizes, dtype=torch.float32, device="cpu")
    if room.nbytes >= 2 * LARGE_PAGE:
        large_pages(room.data_ptr(), room.nbytes)
    return room


def large_pages(begin: int, size: int) -> None:
    """Ask Linux to back these bytes with large pages where it has not backed them yet, which it does only
    where it is asked to ("madvise"): a first touch costs less, and what is read from beyond the caches comes
    about a third faster. Elsewhere nothing is asked."""
    first, end = -(-begin // LARGE_PAGE) * LARGE_PAGE, (begin + size) // LARGE_PAGE * LARGE_PAGE
    if end > first and (madvise := _madvise()):
        madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), MADV_HUGEPAGE)


@functools.cache
def _madvise() -> Callable | None:
    try:
        return ctypes.CDLL(None).madvise if sys.platform == "linux" else None
    except (OSError, AttributeError):
        return None


def _loaded() -> ctypes.CDLL:
    if os.environ.get(instructions.VARIABLE, "") == "0":
        raise OSError(f"switched off by {instructions.VARIABLE}=0")
    build = instructions.build_for(_name())
    if not (compiler := _compiler()):
        raise OSError("no C compiler (cc, gcc or clang) was found")
    file = f"kernels-{_key(compiler, build)}.so"
    target = cache.folder_of(file) / file
    if cache.whole(target):
        # whole, and not loaded here: a home that two systems share
        with contextlib.suppress(OSError, AttributeError):
            return _opened(target, build)
    _build(compiler, build, target)
    return _opened(target, build)


def _flags(build: str) -> tuple[str, ...]:
    return (*FLAGS, *instructions.BUILDS[build])


def _compiler() -> list[str]:
    return (
        shlex.split(os.environ.get("CC", ""))
        or [c for c in map(shutil.which, ("cc", "gcc", "clang")) if c][:1]
    )


def _name() -> str:
    """Of the instructions that are asked for, "" where the machine decides."""
    return instructions.asked() or _taken[0]


def _opened(path: Path, build: str) -> ctypes.CDLL:
    """`products`: with which instructions it forms them, and in which way those in bf16."""
    lib = ctypes.CDLL(str(path))
    lib.digest = cache.digest(path)[:16]  # now: a cache may be swept while a run lasts
    for function in LONG:
        getattr(lib, function).restype = ctypes.c_long
    lib.ft_squares.restype = ctypes.c_double
    lib.build = build
    lib.products = instructions.chosen(lib.ft_ways(), lib.ft_width(), _name())
    return lib


def _build(compiler: list[str], build: str, target: Path) -> None:
    if sys.stderr.isatty():
        print(
            "forethought: compiling its kernels for this machine, once (about ten seconds)",
            file=sys.stderr,
            flush=True,
        )
    # built beside and renamed: another process may be building too
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / "kernels.so"
        command = [*compiler, *_flags(build), *map(str, sorted(SOURCES.glob("*.c"))), "-o", str(made), "-lm"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
        except subprocess.TimeoutExpired as e:
            raise OSError(f"{compiler[0]} took more than {SECONDS} s for the kernels") from e
        if done.returncode or not made.exists():
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            first = next((line for line in said if "error" in line), said[-1])
            raise OSError(f"{compiler[0]} could not build the kernels: {first[:300]}")
        cache.keep(made, target)


def _key(compiler: list[str], build: str = "native") -> str:
    said = [*compiler, *_flags(build), platform.machine(), processor()]
    digest = hashlib.sha256(" ".join(said).encode())
    for path in sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def processor() -> str:
    """What `-march=native` depends on."""
    try:
        with open("/proc/cpuinfo") as f:
            return "".join(
                sorted({line for line in f if line.startswith(("model name", "flags", "Features"))})
            )
    except OSError:
        return platform.processor()
