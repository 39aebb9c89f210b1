"""What a loss is: a function of the tokens of one stream, and what it needs to know of them.

The function is written with methods and operators that an engine's numbers have (a tensor's, or those of the
fake engine), so one row serves every engine and this folder knows none:

    + - * /  < >  .exp() .expm1() .log() .sigmoid() .abs() .clamp(low, high) .minimum(x) .maximum(x) .detach()

Axes: _N tokens of the stream.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from forethought.core.errors import unknown

Numbers = Any  # one number per token, [N]
Need = Literal["advantage", "old", "ref", "sequences", "distributions"]
"""advantage: credit by token; old: log-probs under the policy that sampled; ref: log-probs under a reference
(tokens without them are left out); sequences: `mean` and `size`, and with them all tokens of a response at
once;
distributions: `kl`, over the whole vocabulary, to the reference that the term names."""

PerToken = Callable[..., tuple[Numbers, Mapping[str, Numbers]]]
"""(tokens, *, options) -> (loss of each token [N], what else is measured of each: name -> [N])"""


class Tokens(Protocol):
    """What a loss sees of the tokens of its stream, [N] each, log-probs in nats. Only `logp` and `kl` have
    gradients."""

    weight: Numbers  # of each token in the sum, which the engine takes
    logp: Numbers  # under the policy that trains
    old: Numbers  # under the policy that sampled; where nobody knows it, logp without its gradient
    ref: Numbers  # under the reference
    advantage: Numbers
    kl: Numbers  # KL(reference || policy) at each token, exact

    def mean(self, x: Numbers) -> Numbers:
        """`x` averaged over the tokens (of weight other than 0) of each one's sequence: the turns of one
        response, those that the same branch of a tree holds."""

    def size(self) -> Numbers:
        """How many tokens (of weight other than 0) each one's sequence has: `mean` x `size` is a sum."""

    def of_role(self, role: str) -> Numbers:
        """1 on the tokens of a role, else 0."""

    def roles(self) -> list[str]:
        """Roles that occur, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A row of `LOSSES`. The options are the function's keyword-only parameters; what it returns per token is
    weighted, summed and divided by the engine. ValueError for a need that nobody knows, and for bounds of an
    option that there is not."""

    per_token: PerToken
    needs: frozenset[Need] | set[Need] = frozenset()
    stream: str = "pg"  # the segments that it reads where nobody says otherwise
    metric: str = ""  # the name of its own mean; "": loss/STREAM
    measures: tuple[str, ...] = ()  # what else the function measures, by name
    by_role: bool = False  # its mean is also a metric of each role
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # option -> (above, at most)

    def __post_init__(self) -> None:
        for what, names, known in (
            ("need", self.needs, get_args(Need)),
            ("option", self.bounds, self.options()),
        ):
            if strange := sorted(set(names) - set(known)):
                raise ValueError(f"Loss of {self.per_token.__name__}: {unknown(what, strange[0], known)}")

    def options(self) -> dict[str, float]:
        """Name -> default."""
        parameters = inspect.signature(self.per_token).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def bounds_of(self, option: str) -> tuple[float, float]:
        """Lowest and highest value of an option; without bounds, any number."""
        return self.bounds.get(option, (-math.inf, math.inf))
