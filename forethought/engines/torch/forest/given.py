"""A packed row of which some keys and values are known: only the other tokens are computed.

Axes: _N tokens of the whole row, _M those that are computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from forethought.engines.torch.forest.blocks import attention
from forethought.engines.torch.forest.packing import Layout

Captured = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""Layer -> keys, values [N, K, d] of the tokens of a packed row."""


@dataclass(frozen=True, slots=True)
class Given:
    """`kv`: layer -> keys, values [N, K, d], in which those of the `new_M` are still to come."""

    new_M: torch.Tensor
    kv: Captured

    def attention(
        self, layout: Layout, layer: int, q_MHd: torch.Tensor, k_MKd: torch.Tensor, v_MKd: torch.Tensor
    ) -> torch.Tensor:
        """[M, H, d] of scaled queries; the new keys and values take their places in the whole row."""
        for whole, new in zip(self.kv[layer], (k_MKd, v_MKd), strict=True):
            whole[self.new_M] = new
        q_NHd = q_MHd.new_zeros(len(self.kv[layer][0]), *q_MHd.shape[1:])
        q_NHd[self.new_M] = q_MHd
        return attention(layout, q_NHd, *self.kv[layer])[self.new_M]
