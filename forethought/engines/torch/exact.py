"""A model is trained on packed forests only if it computes on them what it computes row by row. That is looked at, once, when it is
loaded: on a few tokens, the logits of a small forest and of sampling from it are compared with the model's own plain forward.

Three ways in which a model can be unfit, each refused by name:
- its configuration or its calls of the attention say so: sliding windows and chunks, sinks, caps, position biases, sparse choices;
- some of its layers never call the attention interface: recurrences, convolutions, attention of their own;
- the numbers differ, for whatever other reason.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from forethought.engines.torch.attention import NAME, Forest, Unsupported, using
from forethought.engines.torch.decoder import decoder_of
from forethought.engines.torch.heads import logits_of
from forethought.engines.torch.packing import pack
from forethought.engines.torch.sampling import Sampler
from forethought.engines.torch.stops import Stops
from forethought.errors import UserError
from forethought.types import Request, Segment

ROOT, LEFT, RIGHT, TIP = (1, 6, 3, 5, 2), (4, 2, 7), (3, 7, 4, 1), (6, 5)  # token ids; reduced to the vocabulary's size
STEPS = 3  # tokens sampled from each context
MOST = 1e-3  # largest mean error, as a share of what another context changes; bf16 cannot tell such small ones apart
MOST_BF16, FLOOR_BF16 = 0.2, 0.02


def check_config(config, path: str) -> None:
    """UserError for what the configuration itself gives away. Cheap: before any weight is read."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"]) - {"full_attention", "attention"}
    if kinds:
        raise UserError(f"{path} ({config.model_type}) has layers of kind {', '.join(sorted(kinds))}; only full attention is supported")
    if not isinstance(getattr(text, "max_position_embeddings", None), int):
        raise UserError(f"{path} ({config.model_type}) does not say how long its context is (max_position_embeddings); "
                        "only decoders with full attention over a known context are supported")


@torch.no_grad()
def check_model(model: PreTrainedModel, path: str) -> None:
    """UserError where packed forests would be computed wrongly. The model is in eval mode and on its device."""
    name = f"{path} ({model.config.model_type})"
    text = model.config.get_text_config()
    size = text.vocab_size
    root, left, right, tip = (tuple(i * (size - 1) // 7 for i in ids) for ids in (ROOT, LEFT, RIGHT, TIP))
    contexts = [root + left + tip, root + right]
    try:
        forest, layers, windows = _on_forest(model, [Segment(parent=-1, token_ids=root), Segment(parent=0, token_ids=left),
                                                     Segment(parent=0, token_ids=right), Segment(parent=1, token_ids=tip)])
    except Unsupported as e:
        raise UserError(f"{name} {e}, which packed forests do not compute; use a model with plain full attention") from e
    except Exception as e:  # anything a foreign model can raise on inputs it was not written for
        raise UserError(f"{name} does not run on packed forests ({type(e).__name__}: {next(iter(str(e).splitlines()), '')})") from e
    if narrow := sorted(w for w in windows if w < text.max_position_embeddings):
        raise UserError(f"{name} has a sliding window of {narrow[0]} tokens in a context of {text.max_position_embeddings}; "
                        "only full attention is supported")
    if layers != list(range(text.num_hidden_layers)):
        raise UserError(f"{name}: {len(set(layers))} of {text.num_hidden_layers} layers attend through the attention interface of "
                        "transformers; the others (recurrent, convolutional, or with an attention of their own) are not supported")
    n = len(root)
    order = {0: [*range(n), *range(n, n + 3), *range(n + 7, n + 9)], 1: [*range(n), *range(n + 3, n + 7)]}
    pairs = [_plain(model, [ids, (*root[::-1], *ids[n:])]) for ids in contexts]  # each with another context before its end
    error = torch.cat([(forest[order[i]] - plain).abs().mean(-1) for i, (plain, _) in enumerate(pairs)]).mean().item()
    signal = torch.cat([(other[n:] - plain[n:]).abs().mean(-1) for plain, other in pairs]).mean().item()
    error = max(error, _sampling_error(model, contexts))
    most = MOST * signal + 1e-6 if model.dtype == torch.float32 else MOST_BF16 * signal + FLOOR_BF16
    if not error <= most:  # NaN is refused too
        raise UserError(f"{name} computes other numbers on packed forests than row by row (logits differ by {error:.1e}, at most "
                        f"{most:.1e} is rounding); only decoders with plain full attention are supported")


def _on_forest(model: PreTrainedModel, segments: list[Segment]) -> tuple[torch.Tensor, list[int], set[int]]:
    """(logits, the layers that called the attention, the windows they asked for)."""
    packed = pack(segments, model.device)
    mode = Forest(packed.layout, {}, set())
    with using(mode):
        hidden = model.base_model(input_ids=packed.ids_N[None], position_ids=packed.positions_N[None], use_cache=False)
    return logits_of(model)(hidden.last_hidden_state[0]).float(), sorted(mode.capture), mode.windows


def _plain(model: PreTrainedModel, rows: list[tuple[int, ...]]) -> torch.Tensor:
    """[rows, tokens, vocabulary]: logits as the model computes them by itself, with the attention that its authors wrote out."""
    model.set_attn_implementation("eager")
    try:
        return model(input_ids=torch.tensor(rows, device=model.device), use_cache=False).logits.float()
    finally:
        model.set_attn_implementation(NAME)


def _sampling_error(model: PreTrainedModel, contexts: list[tuple[int, ...]]) -> float:
    """Mean difference between the log-probs of sampled tokens and those of the plain forward over the same tokens."""
    sampler = Sampler(model.base_model, logits_of(model), model.device, set(), decoder_of(model))
    requests = [Request(policy="", context=ids, n=2, stops=(), max_tokens=STEPS, seed=i) for i, ids in enumerate(contexts)]
    total, count = 0.0, 0
    for request, outs in zip(requests, sampler.wave(requests, [Stops(None, ())] * 2, 0), strict=True):
        plain = _plain(model, [request.context + out.token_ids for out in outs])
        for out, logits in zip(outs, plain, strict=True):
            logp = logits[len(request.context) - 1 : -1].log_softmax(-1)
            found = logp.gather(-1, torch.tensor(out.token_ids, device=logp.device)[:, None])[:, 0]
            total += (found - torch.tensor(out.logprobs, device=logp.device)).abs().sum().item()
            count += len(out.token_ids)
    return total / count
