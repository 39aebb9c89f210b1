"""Whether a vision-language model computes pictures in packed forests as it does by itself: looked at when it
is loaded, as `exact.py` looks at words. Logits of a small forest that reads two pictures of different sizes
are compared with the model's own forward of each path, which is given the pictures, not their places."""

from __future__ import annotations

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel

from forethought.core.errors import UserError
from forethought.core.sight import MARK, Shown
from forethought.core.types import Segment
from forethought.engines.torch.forest.attention import NAME
from forethought.engines.torch.forest.forward import hidden_of, row_of
from forethought.engines.torch.forest.heads import logits_of
from forethought.engines.torch.forest.vocabulary import masked
from forethought.engines.torch.models.architecture import context_of
from forethought.engines.torch.models.exact import limit_of
from forethought.engines.torch.models.vlm import Give, Seeing, Views, tensors_of

SIDES = {"wide": (2, 3), "high": (3, 2)}  # patches of the pictures that are looked at


@torch.no_grad()
def check_pictures(model: PreTrainedModel, views: Views, path: str) -> None:
    """UserError where packed forests would read pictures wrongly. The model is in eval mode."""
    embed: Seeing = model.get_input_embeddings()
    look = views.showing(_painted(views))
    embed.grid = look
    try:
        found = _difference(model, look)
    finally:
        embed.grid = views
    if found:
        raise UserError(
            f"{path} ({model.config.model_type}) reads pictures otherwise in packed forests than by itself "
            f"({found}); transformers {transformers.__version__} may place them wrongly: take a newer one"
        )


def _painted(views: Views) -> Give:
    side = views.merge * views.cell[-1]

    def give(name: str) -> Shown:
        rows, columns = SIDES[name]
        rng = np.random.default_rng(len(name) + rows)
        return Shown(rng.integers(0, 256, (rows * side, columns * side, 3), dtype=np.uint8))

    return give


def _difference(model: PreTrainedModel, views: Views) -> str:
    last, picture = model.config.get_text_config().vocab_size - 1, model.config.image_token_id
    word = lambda *ids: tuple(i * last // 7 - (i * last // 7 == picture) for i in ids)  # noqa: E731
    shown = {name: views.encode(MARK + name, lambda text: ()) for name in SIDES}
    segments = (
        Segment(parent=-1, token_ids=word(1, 6) + shown["wide"] + word(3)),
        Segment(parent=0, token_ids=word(4, 2)),
        Segment(parent=0, token_ids=word(2) + shown["high"] + word(7, 1)),
    )
    if sum(len(s.token_ids) for s in segments) > context_of(model.config):
        return ""  # its processor makes more of a small picture than the context holds
    row = row_of(segments, model.device, context_of(model.config), views)
    forest = logits_of(model)(hidden_of(model, row)).float()
    plain, at, starts = [], [], row.packed.starts
    for path in ((0, 1), (0, 2)):
        ids = sum((segments[i].token_ids for i in path), ())
        plain.append(plain_logits(model, views, ids))
        at += [starts[i] + k for i in path for k in range(len(segments[i].token_ids))]
    signal = (plain[0] - plain[0].roll(1, 0)).abs().mean().item()
    return limit_of(model).exceeded(forest[at], torch.cat(plain), signal)


@torch.no_grad()
def plain_logits(model: PreTrainedModel, views: Views, ids: tuple[int, ...]) -> torch.Tensor:
    """[tokens, vocabulary] of a path that reads pictures whole, as the model computes them by itself: from
    pixels, its own tokens for pictures, and its own places."""
    patch = np.array(ids) >= views.first
    here = torch.tensor([np.where(patch, model.config.image_token_id, ids).tolist()], device=model.device)
    asked = {"input_ids": here, "use_cache": False}
    starts = [i for i in ids if i >= views.first and views.owner(i)[1] == i]
    if starts:
        looks = [views.look(views.name(i)) for i in starts]
        asked["pixel_values"], asked["image_grid_thw"] = tensors_of(looks, views.merge, model.device)
        asked["mm_token_type_ids"] = torch.from_numpy(patch[None].astype(np.int32)).to(model.device)
    model.set_attn_implementation("eager")
    try:
        return masked(model, model(**asked).logits[0].float())
    finally:
        model.set_attn_implementation(NAME)
        model.base_model.rope_deltas = None  # of a path that is over
