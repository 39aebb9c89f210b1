"""Losses: pure functions from what is known of a token to its loss. One row serves every engine.

A new one is a function `(tokens, *, options) -> (loss [N], measurements)` and a row in `LOSSES`, or, outside
of the library, a row in a file of one's own that the recipe names: `loss = "losses.py:MINE"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from forethought.core.errors import RecipeError
from forethought.core.named import find
from forethought.core.types import Term
from forethought.learn.losses.cispo import cispo
from forethought.learn.losses.clipped import dapo, grpo
from forethought.learn.losses.divergence import k3, kl
from forethought.learn.losses.gspo import gspo
from forethought.learn.losses.likelihood import sft
from forethought.learn.losses.row import Loss, Need
from forethought.learn.losses.webrl import webrl, webrl_released

_CLIP = {"clip_low": (0, 1), "clip_high": (0, inf)}
_RATIO: frozenset[Need] = frozenset({"advantage", "old"})
_SHARE = ("clip/share",)
_REGRESSED: frozenset[Need] = frozenset({"advantage", "ref", "sequences"})
_BETA = (0, inf)

LOSSES: dict[str, Loss] = {
    "grpo": Loss(per_token=grpo, needs=_RATIO, measures=_SHARE, bounds=_CLIP),
    "dapo": Loss(per_token=dapo, needs=_RATIO, measures=_SHARE, bounds=_CLIP),
    "gspo": Loss(per_token=gspo, needs=frozenset({*_RATIO, "sequences"}), measures=_SHARE, bounds=_CLIP),
    "cispo": Loss(per_token=cispo, needs=_RATIO, measures=_SHARE, bounds=_CLIP),
    "webrl": Loss(per_token=webrl, needs=_REGRESSED, measures=("webrl/ratio",), bounds={"beta": _BETA}),
    "webrl_released": Loss(
        per_token=webrl_released,
        needs=_REGRESSED,
        measures=("webrl/kept",),
        bounds={"beta": _BETA, "beta_sure": _BETA, "sure": (0, 1)},
    ),
    "sft": Loss(per_token=sft, stream="sft", by_role=True),
    "k3": Loss(per_token=k3, needs=frozenset({"ref"}), metric="kl/ref"),
    "kl": Loss(per_token=kl, needs=frozenset({"distributions"}), stream="keep", metric="kl/keep"),
}


def row(name: str, where: str = "loss", *, again: bool = False) -> Loss:
    """The row of this name, or that `file.py:NAME`, `package.module:NAME` or an installed package holds (a
    file's path is whole, or relative to the working directory). RecipeError, at the address `where`, if there
    is none. `again`: read it anew, even if it was found before."""
    if name in LOSSES:
        return LOSSES[name]
    found = find("losses", name, LOSSES, where, "loss", again=again)
    if not isinstance(found, Loss):
        raise RecipeError(
            where,
            f"{name} is a {type(found).__name__}, not a row of losses; write "
            "NAME = Loss(per_token=function, needs={...}), from forethought.learn.losses.row",
        )
    return found


def term(
    loss: str,
    denominator: float,
    *,
    stream: str = "",
    weight: float = 1.0,
    options: Mapping[str, float] | None = None,
    reference: str = "",
) -> Term:
    """A term of an objective, on the stream that its loss reads by itself unless another is given."""
    return Term(
        loss=loss,
        stream=stream or row(loss).stream,
        denominator=denominator,
        weight=weight,
        options=options or {},
        reference=reference,
    )
