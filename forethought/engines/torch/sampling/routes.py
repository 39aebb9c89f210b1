"""Several policies in one run of sampling: rows of all of them are in the making together, so that the batch
stays full.

Adapters on one base that is too large to be kept twice go through it together, in one `Steps` that knows them
by name. Policies with weights of their own (the base where kernels read it, merged adapters, copies) have a
`Steps` each, side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Route:
    """Where a policy's rows are computed, and how its contexts enter there."""

    steps: Any  # `sampling.Steps`
    enter: Callable[[Sequence[tuple[int, ...]], Sequence[int], Sequence[int]], torch.Tensor]


class Routes:
    """`routes`: by policy; those that are computed together have the same `steps`. Rows are in the order in
    which they entered."""

    def __init__(self, routes: Mapping[str, Route]):
        self.routes = routes
        self.steps = list({id(route.steps): route.steps for route in routes.values()}.values())
        self._route_R = np.zeros(0, dtype=np.int64)  # which of the steps computes each row
        self._order_R: torch.Tensor | None = None
        # where each row stands in the steps' results one after another
        # whether rows can go on without the sampler
        self.advances = all(hasattr(steps, "advance") for steps in self.steps)

    def enter(
        self,
        contexts: Sequence[tuple[int, ...]],
        n: Sequence[int],
        room: Sequence[int],
        policies: Sequence[str],
    ) -> torch.Tensor:
        """As `Steps.enter`, with who speaks after each context. One computation for neighbours with one
        policy."""
        logits, start, self._order_R = [], 0, None
        for policy, same in groupby(policies):
            end = start + len(list(same))
            route = self.routes[policy]
            logits.append(route.enter(contexts[start:end], n[start:end], room[start:end]))
            self._route_R = np.append(self._route_R, np.full(sum(n[start:end]), self._index(route)))
            start = end
        return torch.cat(logits)

    def step(self, token_R: np.ndarray) -> torch.Tensor:
        """The next token of each row: the logits [R, V] after it."""
        logits = [steps.step(token_R[own_R]) for steps, own_R in self._present()]
        if len(logits) == 1:
            return logits[0]
        if self._order_R is None:
            self._order_R = torch.from_numpy(self._route_R.argsort(kind="stable").argsort()).to(
                logits[0].device
            )
        return torch.cat(logits)[self._order_R]

    def keep(self, rows: np.ndarray) -> None:
        """Go on with these rows (a mask) alone."""
        for steps, own_R in self._present():
            if not rows[own_R].all():
                steps.keep(rows[own_R])
        self._route_R, self._order_R = self._route_R[rows], None

    def advance(self, rows: Any, live: np.ndarray, few: int) -> None:
        """See `NativeSteps.advance`; each route leaves its share of the few."""
        for steps, own_R in self._present():
            steps.advance(rows, live[own_R], few * int(own_R.sum()) // len(live))

    def end(self, rows: Any, live: np.ndarray) -> None:
        """See `NativeSteps.end`."""
        for steps, own_R in self._present():
            if hasattr(steps, "end"):
                steps.end(rows, live[own_R])

    def _present(self) -> list[tuple[Any, np.ndarray]]:
        """The steps that have rows, and which (a mask)."""
        masks = [self._route_R == i for i in range(len(self.steps))]
        return [(steps, own_R) for steps, own_R in zip(self.steps, masks, strict=True) if own_R.any()]

    def _index(self, route: Route) -> int:
        return next(i for i, steps in enumerate(self.steps) if steps is route.steps)
