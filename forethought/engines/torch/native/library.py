"""Compile the kernels once for this machine, and load them.

`cc -march=native` takes a few seconds; the file is kept in the user's cache folder under a hash of the sources, the compiler and
the processor, so a shared home folder serves several machines.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
SECONDS = 120  # for the compiler


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where they cannot be had, and `why_not()` says why."""
    try:
        lib = ctypes.CDLL(str(_built()))
    except (OSError, subprocess.SubprocessError) as e:
        _reason.append(str(e))
        return None
    for name, kind in (("ft_work", ctypes.c_long), ("ft_packed_size", ctypes.c_long), ("ft_attend_work", ctypes.c_long), ("ft_layer_work", ctypes.c_long)):
        getattr(lib, name).restype = kind
    return lib


_reason: list[str] = []


def why_not() -> str:
    """Empty where the kernels are there."""
    return "" if library() else _reason[-1]


def address(array) -> ctypes.c_void_p:
    """Of a contiguous tensor's or array's first number; None is a null pointer."""
    if array is None:
        return ctypes.c_void_p(None)
    return ctypes.c_void_p(array.data_ptr() if hasattr(array, "data_ptr") else array.ctypes.data)


def _built() -> Path:
    if os.environ.get("FORETHOUGHT_KERNELS", "") == "0":
        raise OSError("switched off by FORETHOUGHT_KERNELS=0")
    compiler = os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise OSError("no C compiler (cc, gcc or clang) was found")
    target = _folder() / f"kernels-{_key(compiler)}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # built beside and renamed: another process may be building too
            made = Path(folder) / "kernels.so"
            command = [compiler, *FLAGS, *map(str, sorted(SOURCES.glob("*.c"))), "-o", str(made), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
            if done.returncode:
                raise OSError(f"{compiler} could not build the kernels: {done.stderr.strip()[-500:]}")
            os.replace(made, target)
    return target


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "forethought"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir()) / f"forethought-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    return folder


def _key(compiler: str) -> str:
    digest = hashlib.sha256(" ".join([compiler, *FLAGS, platform.machine(), _processor()]).encode())
    for path in sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        with open("/proc/cpuinfo") as f:
            return "".join(sorted({line for line in f if line.startswith(("model name", "flags", "Features"))}))
    except OSError:
        return platform.processor()
