"""One matrix as the kernels read it, for a product by itself: to time and to test them."""

from __future__ import annotations

import torch

from forethought.engines.torch.forest.native.library import address, floats, library, way_of


class Packed:
    """w [outputs, inputs], packed in panels. `bf16`: products round both factors to bfloat16. `threads`: each
    has columns of its own; no bit depends on them."""

    def __init__(self, w: torch.Tensor, bf16: bool, threads: int = 1):
        self.threads = threads
        self.lib, self.way, (self.rows, self.columns) = library(), way_of(bf16), w.shape
        w = w.detach().float().contiguous()
        self.panels = floats(self.lib.ft_packed_size(*w.shape, self.way)).zero_()
        self.lib.ft_pack_rows(0, *w.shape, address(w), address(self.panels), self.way)
        self.work = floats(threads * self.lib.ft_product_work(self.columns, self.way))

    def times(self, x: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """x [n, inputs] -> [n, outputs], float32."""
        n = len(x)
        out = floats(n, self.rows) if out is None else out
        given = address(x), address(self.panels), address(out), None, 0, address(self.work)
        self.lib.ft_product(self.threads, self.way, n, self.rows, self.columns, *given)
        return out
