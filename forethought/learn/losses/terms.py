"""A term of an objective on tokens: its sum, and its metrics. The same for every engine. Axes: _N tokens."""

from __future__ import annotations

from collections.abc import Mapping

from forethought.core.errors import CodeFault, ForethoughtError, is_machines
from forethought.core.metrics import Max, Mean, Metric
from forethought.core.places import said_of
from forethought.core.types import Objective, Term
from forethought.learn.losses import row
from forethought.learn.losses.row import Loss, Numbers, Tokens

NEEDS_OF = {
    "advantage": "advantage",
    "old": "old",
    "ref": "ref",
    "mean": "sequences",
    "size": "sequences",
    "kl": "distributions",
}
"""Field of the tokens -> the need that a row declares for it."""

GAPS = ("gap/sampler", "gap/sampler_max")
"""How far log-probs of the trainer are from those of the sampler, where both were computed."""


def measure(term: Term, t: Tokens) -> tuple[Numbers, dict[str, Metric]]:
    """(sum over the tokens of weight x loss, with its gradient; the loss's metrics, as sums over sums)."""
    own = row(term.loss)
    loss_N, found = _of_each(term, own, t)
    weight_N = t.weight
    total = (weight_N * loss_N).sum()
    count = float(weight_N.sum())
    metrics: dict[str, Metric] = {own.metric or f"loss/{term.stream}": Mean(total.item(), count)}
    for name, x_N in found.items():
        metrics[name] = Mean((weight_N * x_N).sum().item(), count)
    if "old" in own.needs:
        gap_N = (t.logp.detach() - t.old).abs() * weight_N
        metrics[GAPS[0]] = Mean(gap_N.sum().item(), count)
        metrics[GAPS[1]] = Max(gap_N.max().item())
    for role in t.roles() if own.by_role else ():
        own_N = t.of_role(role) * weight_N
        metrics[f"loss/{term.stream}_{role}"] = Mean((own_N * loss_N).sum().item(), float(own_N.sum()))
    return total, metrics


class _Declared:
    """The tokens, where a loss may read what its row says that it needs, and nothing else: the rest is not
    there, or not right (`mean` on a part of a response)."""

    def __init__(self, t: Tokens, own: Loss, name: str):
        self._t, self._own, self._name = t, own, name

    def __getattr__(self, field: str) -> Numbers:
        need = NEEDS_OF.get(field)
        if need and need not in self._own.needs:
            raise _fault(f"{self._name} reads t.{field}; its row must say needs={{{need!r}, ...}}")
        return getattr(self._t, field)


def _of_each(term: Term, own: Loss, t: Tokens) -> tuple[Numbers, Mapping[str, Numbers]]:
    """What the function of a row returns. CodeFault where it raises, or that is not one number per token."""
    try:
        given = own.per_token(_Declared(t, own, term.loss), **term.options)
    except ForethoughtError:
        raise
    except Exception as error:
        if is_machines(error):
            raise  # the engine mends itself where memory runs out
        raise _fault(said_of(term.loss, error)) from error
    if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[1], Mapping):
        raise _fault(f"{term.loss} must return (loss of each token, {{name: number of each token}})")
    size = len(t.logp)
    for what, x_N in {"the loss": given[0], **given[1]}.items():
        if not hasattr(x_N, "detach") or not getattr(x_N, "shape", (size,)) or len(x_N) != size:
            raise _fault(f"{term.loss} must give {what} as one number for each of {size} tokens")
    return given


def _fault(said: str) -> CodeFault:
    return CodeFault("loss", said)


def needs(term: Term, what: str) -> bool:
    """Whether the term's loss reads `what` ("ref", "old", "sequences", ...)."""
    return what in row(term.loss).needs


def reads_sequences(objective: Objective) -> bool:
    """Whether a batch must not split a sequence into packs."""
    return any(needs(term, "sequences") for term in objective.terms)


def split(objective: Objective, policy: str, streams: set[str]) -> tuple[list[Term], list[Term]]:
    """The terms that a batch with these streams has tokens for: those that read log-probs of given tokens,
    and those that read whole distributions. ValueError where a stream is in no term, or a reference is
    missing."""
    if lost := sorted(streams - {term.stream for term in objective.terms}):
        raise ValueError(f"the objective has no loss for the {lost[0]} stream")
    used = [term for term in objective.terms if term.stream in streams]
    for term in used:
        if needs(term, "distributions") and term.reference in ("", policy):
            raise ValueError(
                f"the {term.stream} stream needs a policy other than {policy!r} to keep to "
                f"(here {term.reference!r})"
            )
    whole = [term for term in used if needs(term, "distributions")]
    return [term for term in used if term not in whole], whole
