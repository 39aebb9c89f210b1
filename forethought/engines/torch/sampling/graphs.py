"""CUDA graphs: a step of the same shapes as before is recorded once and replayed, without a launch from
Python for each kernel.

`torch.compile` is not used: what it would add to a graph are fused pointwise kernels between matrix products
that a step waits for anyway, at the price of minutes of compilation for every shape, of a C++ or Triton
toolchain at run time, and of numbers that change with its version. A graph replays exactly the kernels that
the eager step launches.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from typing import Protocol

import torch

# steps of a shape before it is recorded: they load what the kernels need, and a shape that passes by is not
# worth recording
WARM = 2

Step = Callable[[torch.Tensor], torch.Tensor]


class Recorder(Protocol):
    """What records: all that is particular to CUDA."""

    def warm(self, step: Step, given: torch.Tensor) -> torch.Tensor:
        """`step(given)`, run as a recording has to be prepared."""

    def record(self, step: Step, given: torch.Tensor) -> Step:
        """A replay of `step`: it takes inputs like `given` and returns the same tensor each time,
        overwritten."""


class Cuda:
    """By `torch.cuda.CUDAGraph`; all graphs share one pool of memory, since only one is replayed at a
    time."""

    def __init__(self, device: torch.device):
        self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def warm(self, step: Step, given: torch.Tensor) -> torch.Tensor:
        """Run a step once on the stream that will record it, so that libraries allocate before recording."""
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            out = step(given)
        torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)
        return out

    def record(self, step: Step, given: torch.Tensor) -> Step:
        """Record a step as a CUDA graph; the function returned copies its input and replays it."""
        graph, own = torch.cuda.CUDAGraph(), given.clone()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            out = step(own)

        def replay(given: torch.Tensor) -> torch.Tensor:
            own.copy_(given)
            graph.replay()
            return out

        return replay


class Graphed:
    """`step`, recorded after its first `WARM` calls. `step(given)` reads and writes tensors at fixed places,
    does not wait for the device, and may be run twice for the same `given`; nothing else may depend on
    Python. What it returns is valid until the next call."""

    def __init__(self, step: Step, recorder: Recorder):
        self.step, self.recorder = step, recorder
        self.calls = 0
        self.replay: Step | None = None

    def __call__(self, given: torch.Tensor) -> torch.Tensor:
        if self.calls < WARM:
            out = self.recorder.warm(self.step, given)
            self.calls += 1
            return out
        self.replay = self.replay or self.recorder.record(self.step, given)
        return self.replay(given)


class Graphs:
    """A graph for each key, which names all shapes of a step. Without a recorder (None: on anything but CUDA)
    steps just run."""

    def __init__(self, recorder: Recorder | None):
        self.recorder = recorder
        self.made: dict[Hashable, Graphed] = {}

    def __call__(self, key: Hashable, step: Step, given: torch.Tensor) -> torch.Tensor:
        if self.recorder is None:
            return step(given)
        graphed = self.made.setdefault(key, Graphed(step, self.recorder))
        try:
            return graphed(given)
        except RuntimeError as error:
            if graphed.calls < WARM or graphed.replay:
                raise  # the step itself has failed
            self.recorder = None
            self.made.clear()
            warnings.warn(
                f"a sampling step could not be recorded as a CUDA graph ({str(error).splitlines()[0]}); "
                "steps are launched one kernel at a time from here on, with the same result",
                RuntimeWarning,
                stacklevel=2,
            )
        return step(given)

    def clear(self) -> None:
        """Tensors that steps read have moved."""
        self.made.clear()


def graphs_on(device: torch.device) -> Graphs:
    """For one run of sampling."""
    return Graphs(Cuda(device) if device.type == "cuda" else None)
