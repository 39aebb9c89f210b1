"""With which instructions the kernels form products: what the processor has, what the system lets this
process use, and what is asked for.

Each name is a build of the kernels and a way of its products (`product.h`). A wider one is chosen before a
narrower one. `FORETHOUGHT_KERNELS=NAME` takes another one that the machine can execute, so that each can be
tested and measured on it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from typing import NamedTuple

FLOATS, ROUNDED, DOTS, TILES = range(4)  # ways of a product, as `product.h` numbers them
X86 = platform.machine().lower() in ("x86_64", "amd64")
NATIVE = "-mcpu=native" if platform.machine().lower() in ("arm64", "aarch64") else "-march=native"
# not every clang on ARM takes -march
BUILDS: dict[str, tuple[str, ...]] = {  # flags that say for which processor
    "native": (NATIVE,),
    "avx2": (NATIVE, "-mno-avx512f"),
    "plain": ("-march=x86-64", "-mtune=native"),
}
NARROWER = {16: "avx512", 8: "avx2", 4: "plain"}  # by the floats of a vector: without bfloat16 instructions
NAMES = ("amx", "avx512_bf16", "avx512", "avx2", "plain")  # the widest first
VARIABLE = "FORETHOUGHT_KERNELS"
ARCH_GET_PERMISSION, ARCH_ASK_PERMISSION, TILE_DATA = 0x1022, 0x1023, 18
ARCH_PRCTL = 158  # the number of the call on x86-64


class Chosen(NamedTuple):
    """`way`: of products in bf16. `note`: why it is not what was asked for, or not the widest; empty where it
    is."""

    name: str
    way: int
    note: str = ""


def asked() -> str:
    """The name that FORETHOUGHT_KERNELS has, empty where the machine decides. ValueError for another word."""
    word = os.environ.get(VARIABLE, "").strip().lower()
    if word in ("", "1", "auto"):
        return ""
    if word not in NAMES:
        raise ValueError(f"{VARIABLE}={word}: expected 0, auto, {', '.join(NAMES[:-1])} or {NAMES[-1]}")
    return word


def build_for(name: str) -> str:
    """The build that has these instructions, of BUILDS. ValueError where this machine cannot execute it."""
    if name not in ("avx2", "plain"):
        return "native"
    if not X86:
        raise ValueError(f"{name}: these are instructions of x86-64, and this is {platform.machine()}")
    return name


def chosen(ways: int, width: int, name: str = "") -> Chosen:
    """What a build offers with these ways (a bit each) and floats in a vector, under the name that is asked
    for (empty: the widest)."""
    narrow = NARROWER[width]
    refused = tiles_refused() if ways & 1 << TILES else ""
    can = {narrow: ROUNDED}
    if ways & 1 << DOTS:
        can = {"avx512_bf16": DOTS} | can
    if ways & 1 << TILES and not refused:
        can = {"amx": TILES} | can
    taken = name if name in can else next(iter(can))
    if name and name != taken:
        why = refused if name == "amx" and refused else "this machine does not have it"
        return Chosen(taken, can[taken], f"not {name}: {why}")
    return Chosen(taken, can[taken], refused if not name else "")


def rivals(taken: Chosen, ways: int) -> tuple[str, ...]:
    """Where AMX is taken, AVX512-BF16 may be faster for narrow matrices. "": what is taken."""
    return ("amx", "avx512_bf16") if taken.way == TILES and ways & 1 << DOTS else ("",)


@functools.cache
def tiles_refused() -> str:
    """Why the system does not let this process use AMX's tiles, or "". Linux has to be asked: their state is
    8 KiB a thread. Threads that are made later have the permission too."""
    if sys.platform != "linux":
        return f"AMX is not used on {sys.platform}"
    call = ctypes.CDLL(None, use_errno=True).syscall
    if call(ARCH_PRCTL, ARCH_ASK_PERMISSION, TILE_DATA):
        return f"the system gives no permission for AMX ({os.strerror(ctypes.get_errno())})"
    given = ctypes.c_uint64()
    if call(ARCH_PRCTL, ARCH_GET_PERMISSION, ctypes.byref(given)) or not given.value >> TILE_DATA & 1:
        return "the system gave permission for AMX and took it back"
    return ""
