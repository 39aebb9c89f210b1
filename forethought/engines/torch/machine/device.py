"""What the engine runs on: device, threads, precision."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import platform
from dataclasses import dataclass

import torch

from forethought.core import cores
from forethought.core.errors import RecipeError
from forethought.engines.torch.forest.native import library as native
from forethought.engines.torch.forest.native.train import crew
from forethought.engines.torch.machine import ways
from forethought.engines.torch.machine.threads import MEASURED_FROM, choose
from forethought.recipe.schema import EngineSpec

HEAP = (1 << 30) - (1 << 20)  # bytes of memory that is asked to have large pages; more would be given back


@dataclass(frozen=True, slots=True)
class Machine:
    device: torch.device
    threads: int
    bf16: bool
    why: str = ""  # the reason for so many threads
    kernels: int = 1  # threads of the kernels
    layers: bool = True  # the kernels compute the layers of a training step, where they can
    way: str = ""  # the reason for this precision and these layers
    products: str = ""  # instructions of the kernels' products; empty: the widest
    sampling: bool = True  # the kernels sample rows, where they can
    sampling_why: str = ""

    @property
    def dtype(self) -> torch.dtype:
        """Of the products."""
        return torch.bfloat16 if self.bf16 else torch.float32

    @property
    def number(self) -> int:
        """Bytes of one number as it is computed with."""
        return 2 if self.bf16 else 4

    def autocast(self, keep: bool = True):
        """`keep`: hold the bf16 copy of each weight until the end of the context, instead of making it again
        for every use."""
        self.settle()
        return (
            torch.autocast(self.device.type, torch.bfloat16, cache_enabled=keep)
            if self.bf16
            else contextlib.nullcontext()
        )

    def settle(self) -> None:
        """Set this process to what was chosen: an engine that was made later may have set it otherwise."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        crew.threads, crew.layers, crew.sampling = self.kernels, self.layers, self.sampling
        native.take(self.products)

    def facts(self) -> dict[str, object]:
        """Device, threads, precision and versions, each choice with its reason."""
        taken = native.library().products if self.device.type == "cpu" and native.library() else None
        chip = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_name()
        return {
            "device": self.device.type,
            "chip": chip,
            "cores": cores.usable(),
            "threads": self.threads,
            "threads/why": self.why,
            "threads/kernels": self.kernels,
            "precision": "bf16" if self.bf16 else "fp32",
            "precision/why": self.way,
            "layers": "c" if self.layers else "torch",
            "sampling": "c" if self.sampling else "torch",
            "sampling/why": self.sampling_why,
            "products": taken.name if taken else "",
            "products/why": taken.note if taken else "",
            "torch": torch.__version__,
            "python": platform.python_version(),
        }


def prepare(spec: EngineSpec, model: torch.nn.Module) -> Machine:
    """Set threads and memory up for this process, and choose how this model is computed. RecipeError for a
    device that the machine does not have."""
    if spec.device not in ("auto", "cpu") and not spec.device.startswith("cuda"):
        raise RecipeError("engine.device", f"expected auto, cpu or cuda, found {spec.device!r}")
    if spec.device.startswith("cuda") and not torch.cuda.is_available():
        raise RecipeError("engine.device", "no CUDA device is visible to PyTorch here; use cpu")
    device = torch.device(
        "cuda" if spec.device == "auto" and torch.cuda.is_available() else spec.device.replace("auto", "cpu")
    )
    if device.type == "cpu":
        _keep_memory()
        kernels = cores.most_threads() if spec.kernel_threads == "auto" else spec.kernel_threads
        # at most: they are measured below
        native.take(spec.products.replace("auto", ""))
        others = spec.asked or (1 if model.num_parameters() < MEASURED_FROM else cores.most_threads())
        way, why = ways.choose(
            ways.ways(spec.precision, spec.layers, model, _fast_bf16()), model, kernels, others
        )
        products = way.products or spec.products.replace("auto", "")
        native.take(products)
        sampling, sampling_why = ways.choose_sampling(spec.sampling, way, model, kernels, others)
    else:
        kernels, products, sampling, sampling_why = 1, "", False, "a GPU computes"
        way, why = (
            ways.Way(spec.precision != "fp32", False),
            "a GPU computes" if spec.precision == "auto" else "given by the recipe",
        )
    threads = choose(
        spec.asked,
        device,
        model.num_parameters(),
        model.config.get_text_config(),
        torch.bfloat16 if way.bf16 else torch.float32,
    )
    torch.set_num_threads(threads.number)
    return Machine(
        device,
        threads.number,
        way.bf16,
        threads.why,
        kernels,
        way.kernels,
        why,
        products,
        sampling,
        sampling_why,
    )


def cpu_name() -> str:
    """Model name of the processor, or the architecture where the system does not say."""
    try:
        with open("/proc/cpuinfo") as f:
            return next(
                (line.split(":", 1)[1].strip() for line in f if line.startswith("model name")),
                platform.machine(),
            )
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


@functools.cache
def _keep_memory() -> None:
    """Let glibc keep large blocks instead of giving each tensor's pages back: fresh pages cost more than the
    arithmetic here. And let Linux back what it takes next with large pages."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
        libc.malloc.restype = ctypes.c_void_p
        if block := libc.malloc(ctypes.c_size_t(HEAP)):
            native.large_pages(block, HEAP)
            libc.free(ctypes.c_void_p(block))  # it stays with malloc, untouched, and so does what was asked
    except (OSError, AttributeError):
        return  # not glibc: nothing to set, nothing lost but speed
