"""A model is trained on packed forests only if it computes on them what it computes row by row. That is
looked at, once, when it is loaded: on a few tokens, the logits of a small forest and of sampling from it are
compared with the model's own plain forward, and once more when it gets its first adapter. What the
configuration gives away is refused before (`architecture.py`).

Four ways in which a model can be unfit, each refused by name:
- its calls of the attention say so: windows that its configuration does not tell of, sinks, caps, position
  biases, sparse choices;
- some of its layers never call the attention interface: recurrences, convolutions, attention of their own;
- a row comes out differently with other rows beside it, as where experts drop the tokens beyond their
  capacity;
- the numbers differ, for whatever other reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from forethought.core.errors import UserError
from forethought.core.types import Request, Segment
from forethought.engines.base import BASE
from forethought.engines.torch.forest.attention import NAME, Forest, Unsupported, using
from forethought.engines.torch.forest.decoder import decoder_of
from forethought.engines.torch.forest.forward import Row, hidden_of
from forethought.engines.torch.forest.heads import logits_of
from forethought.engines.torch.forest.packing import Packed, pack
from forethought.engines.torch.forest.vocabulary import masked
from forethought.engines.torch.models.architecture import INSTEAD, context_of
from forethought.engines.torch.policies.table import Policies
from forethought.engines.torch.sampling.cohorts import Cohorts
from forethought.engines.torch.sampling.sampler import KernelWeights, Sampler, Steps
from forethought.engines.torch.sampling.stops import Stops

# token ids; reduced to the vocabulary's size
ROOT, LEFT, RIGHT, TIP = (1, 6, 3, 5, 2), (4, 2, 7), (3, 7, 4, 1), (6, 5)
PATHS = (0, 1, 3), (0, 2)  # of segments
STEPS = 3  # tokens sampled from each context
REACH = 64  # positions that are looked at, and more
CROWD = 7  # rows beside one that must not notice them
# what the attention is asked for
MEANING = {"softcap": "soft-capped scores", "s_aux": "attention sinks", "sinks": "attention sinks"}


@dataclass(frozen=True, slots=True)
class Limit:
    """Largest difference of two logits that is rounding: its mean and its maximum, each as a share of what
    another context changes (mean) and a floor. The maximum finds what touches a few words of a large
    vocabulary only."""

    mean: tuple[float, float]
    most: tuple[float, float]

    def exceeded(self, found: torch.Tensor, wanted: torch.Tensor, signal: float) -> str:
        """By how much, in words; "" where it is rounding."""
        off = (found - wanted).abs()
        for what, value, (share, floor) in (
            ("logits", off.mean(), self.mean),
            ("single logits", off.max(), self.most),
        ):
            if not value <= (allowed := share * signal + floor):  # NaN is refused too
                return f"{what} differ by {value:.1e}, at most {allowed:.1e} is rounding"
        return ""


# bf16 cannot tell small errors apart
FP32, BF16 = Limit((1e-3, 1e-6), (2e-2, 1e-4)), Limit((0.2, 0.02), (2.0, 0.5))


@dataclass(frozen=True, slots=True)
class Sample:
    """A forest with two leaves: root, left, tip and root, right."""

    segments: tuple[Segment, ...]

    @classmethod
    def of(cls, vocabulary: int) -> Sample:
        """The forest of this class, with token ids spread over `vocabulary` of them."""
        tokens = (tuple(i * (vocabulary - 1) // 7 for i in ids) for ids in (ROOT, LEFT, RIGHT, TIP))
        return cls(
            tuple(Segment(parent=up, token_ids=ids) for up, ids in zip((-1, 0, 0, 1), tokens, strict=True))
        )

    @property
    def contexts(self) -> list[tuple[int, ...]]:
        """Token ids of each path."""
        return [sum((self.segments[i].token_ids for i in path), ()) for path in PATHS]

    def places(self, packed: Packed) -> list[int]:
        """Where the tokens of one path, then of the other, lie in the packed row."""
        return [
            packed.starts[i] + k
            for path in PATHS
            for i in path
            for k in range(len(self.segments[i].token_ids))
        ]


@torch.no_grad()
def check_model(model: PreTrainedModel, path: str) -> None:
    """UserError where packed forests would be computed wrongly. The model is in eval mode and on its
    device."""
    name, sample = f"{path} ({model.config.model_type})", Sample.of(model.config.get_text_config().vocab_size)
    packed = pack(sample.segments, model.device)
    try:
        forest = _looked_at(model, packed, name)
    except Unsupported as e:
        asked = next((f" ({meaning})" for word, meaning in MEANING.items() if word in str(e)), "")
        raise UserError(f"{name} {e}{asked}, which packed forests do not compute; {INSTEAD}") from e
    except UserError:
        raise
    except Exception as e:  # anything a foreign model can raise on inputs it was not written for
        raise UserError(
            f"{name} does not run on packed forests ({type(e).__name__}: "
            f"{next(iter(str(e).splitlines()), '')}); {INSTEAD}"
        ) from e
    _check_crowd(model, sample, name)
    forests = [forest] + ([_trained_on(model, sample, packed)] if decoder_of(model) else [])
    if found := _difference(model, sample, [f[sample.places(packed)] for f in forests]):
        raise UserError(
            f"{name} computes other numbers on packed forests than row by row ({found}); {INSTEAD}"
        )


@torch.no_grad()
def check_adapter(weights: Policies, adapter: str, path: str) -> None:
    """UserError where an adapter is left out, or computed otherwise than in the model's plain forward. For
    the look the adapter, which begins as nothing, gets weights; afterwards it has its own again."""
    sample = Sample.of(weights.base.config.get_text_config().vocab_size)
    packed = pack(sample.segments, weights.base.device)
    row = sample.contexts[0]
    before, elsewhere = _plain(weights.model(BASE), [row, _elsewhere(row)])
    own = {key: p.detach().clone() for key, p in weights.parameters(adapter).items()}
    generator = torch.Generator().manual_seed(0)
    try:
        for p in weights.parameters(adapter).values():
            # the factor that makes it nothing; outputs then move by about a third of what is usual
            if not p.any():
                p.copy_(
                    torch.randn(p.shape, generator=generator)
                    * (0.3 * weights.spec.rank**0.5 / weights.spec.alpha)
                )
        weights.publish(adapter)
        sampling, model = weights.sampling_model(adapter), weights.model(adapter)
        changed = not torch.equal(_plain(model, [row, _elsewhere(row)])[0], before)
        found = _difference(
            model, sample, [_trained_on(model, sample, packed)[sample.places(packed)]], sampling
        )
        kept = not limit_of(model).exceeded(
            _plain(weights.model(BASE), [row])[0], before, _signal(before, elsewhere)
        )
    finally:
        for key, p in weights.parameters(adapter).items():
            p.copy_(own[key])
        weights.merged.pop(adapter, None)  # who trains first has the room of a copy of all weights
    if not changed or not kept:
        what = "does not change what it computes" if not changed else "changes what it computes without it"
        raise UserError(
            f"{path}: an adapter on its layers {what}; name other layers in adapter.targets, or "
            f"train whole weights"
        )
    if found:
        raise UserError(
            f"{path} computes other numbers on packed forests than row by row once it has an adapter "
            f"({found}); name other layers in adapter.targets, or train whole weights"
        )


def _looked_at(model: PreTrainedModel, packed: Packed, name: str) -> torch.Tensor:
    """Logits of the forest by the model's own modules. UserError for layers and windows that do not show in
    its configuration."""
    mode, context, count = (
        Forest(packed.layout, {}, set()),
        context_of(model.config),
        model.config.get_text_config().num_hidden_layers,
    )
    with using(mode):
        hidden = model.base_model(
            input_ids=packed.ids_N[None], position_ids=packed.positions_N[None], use_cache=False
        )
    if narrow := sorted(w for w in mode.windows if w < context):
        raise UserError(
            f"{name} has a sliding window of {narrow[0]} tokens in a context of {context}, and its "
            f"configuration does not tell where; {INSTEAD}"
        )
    if sorted(mode.capture) != list(range(count)):
        raise UserError(
            f"{name}: {len(mode.capture)} of {count} layers attend through the attention interface of "
            "transformers; the others (recurrent, convolutional, or with an attention of their own) are not "
            f"supported; {INSTEAD}"
        )
    return logits_of(model)(hidden.last_hidden_state[0]).float()


def _trained_on(model: PreTrainedModel, sample: Sample, packed: Packed) -> torch.Tensor:
    """Logits of the forest by whatever training runs."""
    return logits_of(model)(hidden_of(model, Row(sample.segments, packed))).float()


def _check_crowd(model: PreTrainedModel, sample: Sample, name: str) -> None:
    """Most rows beside it repeat its last token: they fill the experts to which that token goes."""
    row = sample.contexts[0]
    alone = _plain(model, [row])[0]
    if not alone.isfinite().all():
        raise UserError(
            f"{name} computes logits that are not finite; its weights are broken, or too large "
            f"for {model.dtype}"
        )
    other, *_, beside = _plain(model, [_elsewhere(row), *[(row[-1],) * len(row)] * CROWD, row])
    if found := limit_of(model).exceeded(beside, alone, _signal(alone, other)):
        raise UserError(
            f"{name} computes a row differently with others beside it ({found}), as experts do that drop "
            "tokens beyond a capacity; its log-probs would depend on the batch. Turn the capacity off, or "
            "use a model without"
        )


def _difference(
    model: PreTrainedModel,
    sample: Sample,
    forests: list[torch.Tensor],
    sampling: PreTrainedModel | None = None,
) -> str:
    """How logits of the forest at the two paths' tokens, or the log-probs of what is sampled, differ from the
    plain forward of each path; "" where they do not. `sampling`: the model that samples, where it is another
    one."""
    pairs, limit = [_plain(model, [ids, _elsewhere(ids)]) for ids in sample.contexts], limit_of(model)
    signal = sum(_signal(plain, other) for plain, other in pairs) / len(pairs)
    for forest in forests:
        if found := limit.exceeded(forest, torch.cat([plain for plain, _ in pairs]), signal):
            return found
    for steps in _ways(sampling or model):
        if found := limit.exceeded(*_drawn(steps, model, sample.contexts), signal):
            return found.replace("logits", "log-probs of sampled tokens")
    return ""


def limit_of(model: PreTrainedModel) -> Limit:
    """How far its logits may be from those of the plain forward."""
    return FP32 if model.dtype == torch.float32 else BF16


def _elsewhere(ids: tuple[int, ...]) -> tuple[int, ...]:
    """The same end in another context."""
    return *ids[: len(ROOT)][::-1], *ids[len(ROOT) :]


def _signal(here: torch.Tensor, elsewhere: torch.Tensor) -> float:
    """What another context changes at the tokens behind it: the measure of what is a small error in this
    model."""
    return (here - elsewhere)[len(ROOT) :].abs().mean().item()


def _plain(model: PreTrainedModel, rows: list[tuple[int, ...]]) -> torch.Tensor:
    """[rows, tokens, vocabulary]: logits as the model computes them by itself, with the attention that its
    authors wrote out."""
    model.set_attn_implementation("eager")
    try:
        return masked(
            model, model(input_ids=torch.tensor(rows, device=model.device), use_cache=False).logits.float()
        )
    finally:
        model.set_attn_implementation(NAME)


def _ways(model: PreTrainedModel) -> list[Steps]:
    """Every way in which tokens may be sampled on this machine."""
    ways: list[Steps] = [Cohorts(model.base_model, logits_of(model), model.device, decoder_of(model))]
    if not torch.cuda.is_available():  # the kernels are a CPU's, and lay the weights out once more
        ways.append(KernelWeights().steps("", model, False, 1, min(context_of(model.config), REACH)))
    return ways[:1] if isinstance(ways[-1], Cohorts) else ways


def _drawn(
    steps: Steps, model: PreTrainedModel, contexts: list[tuple[int, ...]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of sampled tokens as `steps` has them, and as the plain forward of `model` has them."""
    requests = [
        Request(policy="", context=ids, n=2, stops=(), max_tokens=STEPS, seed=i)
        for i, ids in enumerate(contexts)
    ]
    found, wanted = [], []
    for request, outs in zip(
        requests, Sampler(steps, set()).run(requests, [Stops(None, ())] * len(requests), 0), strict=True
    ):
        logp = _plain(model, [request.context + out.token_ids for out in outs])[
            :, len(request.context) - 1 : -1
        ].log_softmax(-1)
        wanted.append(
            logp.gather(
                -1, torch.tensor([out.token_ids for out in outs], device=logp.device)[..., None]
            ).flatten()
        )
        found.append(torch.tensor([out.logprobs for out in outs], device=logp.device).flatten())
    return torch.cat(found), torch.cat(wanted)
