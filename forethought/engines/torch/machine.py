"""What the engine runs on: device, threads, precision."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from dataclasses import dataclass

import torch

from forethought import cores
from forethought.engines.torch.threads import choose
from forethought.errors import RecipeError
from forethought.recipe.schema import EngineSpec


@dataclass(frozen=True, slots=True)
class Machine:
    device: torch.device
    threads: int
    bf16: bool
    why: str = ""  # the reason for so many threads
    sampling: int = 1  # threads that sample rows by the kernels

    @property
    def dtype(self) -> torch.dtype:
        """Of the products."""
        return torch.bfloat16 if self.bf16 else torch.float32

    @property
    def number(self) -> int:
        """Bytes of one number as it is computed with."""
        return 2 if self.bf16 else 4

    def autocast(self, keep: bool = True):
        """`keep`: hold the bf16 copy of each weight until the end of the context, instead of making it again for every use. Threads are a
        process's: an engine that was made later may have set another number."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=keep) if self.bf16 else contextlib.nullcontext()

    def facts(self) -> dict[str, object]:
        chip = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_name()
        return {"device": self.device.type, "chip": chip, "cores": cores.usable(), "threads": self.threads, "threads/why": self.why,
                "threads/sampling": self.sampling, "precision": "bf16" if self.bf16 else "fp32", "torch": torch.__version__,
                "python": platform.python_version()}


def prepare(spec: EngineSpec, parameters: int, config: object | None = None) -> Machine:
    """Set threads and memory up for this process, for a model of so many parameters with this text config: without one, nothing is
    measured. RecipeError for a device or precision the machine does not have."""
    if spec.device not in ("auto", "cpu") and not spec.device.startswith("cuda"):
        raise RecipeError("engine.device", f"expected auto, cpu or cuda, found {spec.device!r}")
    if spec.device.startswith("cuda") and not torch.cuda.is_available():
        raise RecipeError("engine.device", "no CUDA device is visible to PyTorch here; use cpu")
    device = torch.device("cuda" if spec.device == "auto" and torch.cuda.is_available() else spec.device.replace("auto", "cpu"))
    if device.type == "cpu":
        _keep_memory()
    bf16 = spec.precision == "bf16" or (spec.precision == "auto" and (device.type == "cuda" or _fast_bf16()))
    threads = choose(spec.asked, device, parameters, config, torch.bfloat16 if bf16 else torch.float32)
    torch.set_num_threads(threads.number)
    sampling = cores.most_threads() if spec.sample_threads == "auto" else spec.sample_threads
    return Machine(device, threads.number, bf16, threads.why, sampling)


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as f:
            return next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine())
    except OSError:
        return platform.processor() or platform.machine()


def _fast_bf16() -> bool:
    """bf16 pays where the CPU multiplies it in hardware; elsewhere it is emulated and slower than fp32."""
    capability = torch.backends.cpu.get_cpu_capability()
    try:
        with open("/proc/cpuinfo") as f:
            flags = next((line for line in f if line.startswith("flags")), "")
    except OSError:
        flags = ""
    return "AVX512" in capability and ("avx512_bf16" in flags or "amx_bf16" in flags)


def _keep_memory() -> None:
    """Let glibc keep large blocks instead of giving each tensor's pages back: fresh pages cost more than the arithmetic here."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        return  # not glibc: nothing to set, nothing lost but speed
