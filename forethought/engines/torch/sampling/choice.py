"""The next token of each row: inverse-CDF sampling with the row's own uniform number; the mode where the
temperature is 0."""

from __future__ import annotations

import numpy as np
import torch

from forethought.engines.torch.forest.native.library import address, floats, library
from forethought.engines.torch.forest.native.rows import Settings
from forethought.engines.torch.forest.native.train import crew

SHARED = 1 << 17  # numbers of logits that several threads look through together

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Tokens, their log-probs at temperature 1, and under the distribution that they were drawn from; [R]
each."""


class Choice:
    """By the kernels where the logits lie in the CPU's memory, else by PyTorch."""

    def __init__(self, kernels: bool = True):
        self.lib = library() if kernels else None

    def __call__(
        self,
        logits_BV: torch.Tensor,
        repeats_B: np.ndarray | None,
        uniform_R: np.ndarray,
        settings: Settings,
    ) -> Drawn:
        """`repeats_B`: how many rows in order each line of logits is for; None: one."""
        if repeats_B is None:
            logits_RV = logits_BV
        elif len(repeats_B) and (repeats_B == 1).all():
            logits_RV = logits_BV
        else:
            logits_RV = logits_BV[
                torch.from_numpy(np.arange(len(repeats_B)).repeat(repeats_B)).to(logits_BV.device)
            ]
        if self.lib is not None and logits_RV.device.type == "cpu":
            return self._by_kernel(logits_RV.float().contiguous(), uniform_R, settings)
        return by_torch(logits_RV.float(), uniform_R, settings)

    def _by_kernel(self, logits_RV: torch.Tensor, uniform_R: np.ndarray, settings: Settings) -> Drawn:
        rows, vocabulary = logits_RV.shape
        token, logp, drawn = (
            np.empty(rows, dtype=np.int64),
            np.empty(rows, dtype=np.float32),
            np.empty(rows, dtype=np.float32),
        )
        kinds = (np.float64, np.float32, np.float32, np.float32, np.int64)
        asked = [
            np.ascontiguousarray(x, dtype=kind) for x, kind in zip((uniform_R, *settings), kinds, strict=True)
        ]
        threads = crew.threads if rows * vocabulary >= SHARED else 1
        work = floats(threads * self.lib.ft_choose_work(vocabulary))
        self.lib.ft_choose(
            rows,
            vocabulary,
            *map(address, (logits_RV, *asked, token, logp, drawn, work)),
            threads,
        )
        return token, logp, drawn


def by_torch(logits_RV: torch.Tensor, uniform_R: np.ndarray, settings: Settings) -> Drawn:
    """The same on any device. One copy there and one back: the host waits once for the device."""
    asked_5R = torch.from_numpy(np.stack([uniform_R, *settings]).astype(np.float64)).to(logits_RV.device)
    if (settings.temperature == 0).all():
        best = logits_RV.log_softmax(-1).max(-1)
        drawn = (best.indices, best.values, torch.zeros_like(best.values))
    else:
        most = settings.top_k[settings.top_k < logits_RV.shape[-1]].max(initial=0)
        drawn = _drawn(
            logits_RV,
            *asked_5R,
            flat=bool((settings.temperature == 1).all()),
            most=int(most),
            nucleus=bool((settings.top_p < 1).any()),
            share=bool((settings.min_p > 0).any()),
        )
    # exact: ids stay far below 2**53
    token_R, logp_R, drawn_logp_R = torch.stack([x.double() for x in drawn]).cpu().numpy()
    return token_R.astype(np.int64), logp_R.astype(np.float32), drawn_logp_R.astype(np.float32)


def _drawn(
    logits_RV: torch.Tensor,
    uniform_R: torch.Tensor,
    temperature_R: torch.Tensor,
    top_p_R: torch.Tensor,
    min_p_R: torch.Tensor,
    top_k_R: torch.Tensor,
    flat: bool,
    most: int,
    nucleus: bool,
    share: bool,
):
    """`flat`: every temperature is 1; `most`: the largest top-k that leaves tokens out (0: none does);
    `nucleus`: some top-p is below 1; `share`: some min-p is above 0."""
    temperature_R, top_p_R = temperature_R.float(), top_p_R.float()
    logp_RV, greedy_R = logits_RV.log_softmax(-1), temperature_R == 0
    heat_R1 = torch.where(greedy_R, 1.0, temperature_R)[:, None]
    p_RV = logp_RV.exp() if flat else (logits_RV / heat_R1).softmax(-1)
    if most:
        p_RV = _top_k(p_RV, top_k_R.long()[:, None], most)
    if nucleus:
        p_RV = _top_p(p_RV, top_p_R.double()[:, None])
    if share:
        weight_RV = ((logits_RV - logits_RV.amax(-1, keepdim=True)) / heat_R1).exp()
        p_RV = torch.where(weight_RV >= min_p_R.float()[:, None], p_RV, 0.0)
    cdf_RV = p_RV.double().cumsum(-1)
    target = (uniform_R[:, None] * cdf_RV[:, -1:]).contiguous()
    drawn_R = torch.searchsorted(cdf_RV, target, right=True)[:, 0].clamp(max=logits_RV.shape[-1] - 1)
    token_R = torch.where(greedy_R, logits_RV.argmax(-1), drawn_R)
    gathered_R = p_RV.gather(-1, token_R[:, None])[:, 0] / cdf_RV[:, -1]
    logp_R = logp_RV.gather(-1, token_R[:, None])[:, 0]
    return token_R, logp_R, torch.where(greedy_R, 0.0, gathered_R.log().float())


def at_hand(x: torch.Tensor) -> bool:
    """Whether the host can look at numbers without waiting for a device."""
    return x.device.type == "cpu"


def _top_k(p_RV: torch.Tensor, top_k_R1: torch.Tensor, most: int) -> torch.Tensor:
    """Zero for all tokens but the `top_k` likeliest; of equals the first ones stay. `most`: the largest
    top-k that is looked at; a larger one, or 0, leaves its row as it is."""
    p_RK = p_RV.topk(most).values
    kept_RK = torch.arange(most, device=p_RV.device) < top_k_R1
    return _heaviest(p_RV, p_RK, kept_RK, (top_k_R1 < 1) | (top_k_R1 > most))


def _top_p(p_RV: torch.Tensor, top_p_R1: torch.Tensor) -> torch.Tensor:
    """Zero for all tokens but the fewest, likeliest first, that hold `top_p` of the sum; of equals the first
    ones stay. Where the host may look, only so many are sorted as can be among them: those that are lighter
    than the mean of what may be left out hold less than that together."""
    total_R1 = p_RV.sum(-1, keepdim=True, dtype=torch.float64)
    whole_R1 = top_p_R1 >= 1
    if at_hand(p_RV):
        rest_R1 = (1 - top_p_R1) * total_R1 / p_RV.shape[-1]
        p_RK = p_RV.topk(max(1, int(((p_RV > 0.5 * rest_R1) & ~whole_R1).sum(-1).max()))).values
    else:
        p_RK = p_RV.sort(-1, descending=True).values
    kept_RK = p_RK.double().cumsum(-1) - p_RK.double() < top_p_R1 * total_R1
    return _heaviest(p_RV, p_RK, kept_RK, whole_R1)


def _heaviest(
    p_RV: torch.Tensor, p_RK: torch.Tensor, kept_RK: torch.Tensor, whole_R1: torch.Tensor
) -> torch.Tensor:
    """Zero for all but those of the likeliest tokens (`p_RK`, descending) that are kept; of equals the
    first ones stay. `whole`: rows that stay as they are."""
    lightest_R1 = p_RK.gather(-1, (kept_RK.sum(-1, keepdim=True) - 1).clamp(min=0))
    equals_RV = p_RV == lightest_R1
    needed_R1 = (kept_RK & (p_RK == lightest_R1)).sum(-1, keepdim=True)
    kept_RV = (p_RV > lightest_R1) | (equals_RV & (equals_RV.cumsum(-1) <= needed_R1))
    return torch.where(kept_RV | whole_R1, p_RV, 0.0)
