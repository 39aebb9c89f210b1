"""What a machine has: memory, arithmetic, bandwidth. From data sheets (dense bf16, no sparsity), or from what
this machine says of itself."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    name: str
    memory: float  # bytes that a process can use
    flops: float  # a second, bf16 (a CPU: fp32)
    bandwidth: float  # bytes per second
    kind: str = "cuda"
    here: bool = False  # it is the machine that estimates, which can be timed


HARDWARE = {  # memory: what the driver leaves of the nominal size
    "h200": Hardware(name="NVIDIA H200", memory=139.8 * GIB, flops=989e12, bandwidth=4.8e12),
    "h100": Hardware(name="NVIDIA H100 SXM 80 GB", memory=79.1 * GIB, flops=989e12, bandwidth=3.35e12),
    "a100": Hardware(name="NVIDIA A100 80 GB", memory=79.1 * GIB, flops=312e12, bandwidth=2.04e12),
    "4090": Hardware(name="NVIDIA RTX 4090", memory=23.5 * GIB, flops=165e12, bandwidth=1.01e12),
}
CORE_FLOPS = 160e9  # fp32 of one CPU core with AVX-512: 32 multiply-adds a cycle at 2.5 GHz
CPU_BANDWIDTH = 20e9


def this_machine(proc: Path = Path("/proc")) -> Hardware:
    """The first GPU that the NVIDIA driver lists, if it is one of HARDWARE, else the CPU. Files of the kernel
    only: nothing is loaded or started. A GPU of another kind has no known numbers: its memory is 0."""
    for entry in sorted(proc.glob("driver/nvidia/gpus/*/information")):
        found = re.search(r"^Model:\s*(.+)$", entry.read_text(encoding="utf-8", errors="replace"), re.M)
        model = found[1].strip() if found else "a GPU without a name"
        known = next((h for key, h in HARDWARE.items() if re.search(rf"\b{key}\b", model, re.I)), None)
        return known or Hardware(name=model, memory=0, flops=0, bandwidth=0)
    return cpu(proc)


def cpu(proc: Path = Path("/proc")) -> Hardware:
    """This machine as hardware: memory from /proc, arithmetic as cores times a typical core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        total = re.search(r"^MemTotal:\s*(\d+) kB", (proc / "meminfo").read_text(encoding="utf-8"), re.M)
    except OSError:
        total = None
    return Hardware(
        name=f"this machine's CPU ({cores} cores)",
        memory=int(total[1]) * 1024 if total else 0,
        flops=cores * CORE_FLOPS,
        bandwidth=CPU_BANDWIDTH,
        here=True,
        kind="cpu",
    )
