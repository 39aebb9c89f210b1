"""Vision-language models of `transformers` as decoders whose prompts name pictures.

The model's own processor cuts a picture, its own vision tower makes embeddings of the patches, and its
decoder reads them in the packed forest like words: each has an id beyond the vocabulary (`pictures.py`) and a
place in rows and columns (`forest/positions.py`). Which patches the decoder reads a taskset may choose
(`core.sight.Shown`); the tower sees the whole picture in any case, and places stay what they were (ShowUI,
arXiv 2411.17465).

Adapters and whole weights train the tower too where they lie on it: it is computed anew at each forward pass.
The kernels for sampling read a table of words and positions that count tokens, so such a model samples
through PyTorch, by its own modules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from forethought.core.errors import UserError
from forethought.core.sight import MARK, Shown
from forethought.engines.torch.forest.attention import using
from forethought.engines.torch.forest.positions import Patches
from forethought.engines.torch.models import pictures
from forethought.engines.torch.models.folder import find

PROCESSOR = "preprocessor_config.json"
MOST_PIXELS = 1 << 25  # of a picture as it is cut
LARGEST = 1_000_000  # number of a picture as the tower reads it; usual ones are below 3
KEPT = 256 << 20  # bytes of pictures, as processors cut them
NAMED = re.compile(rf"({re.escape(MARK)}[^\s<]+)")  # a template may write a special token right behind it

Give = Callable[[str], Shown]
"""The picture of a name."""


@dataclass(frozen=True, slots=True)
class View:
    """A picture as the model reads it: `pixels` [cells, numbers], which the processor cut; of so many `rows`
    and `columns` of patches those `kept` [n] are read, numbered in reading order."""

    pixels: np.ndarray
    rows: int
    columns: int
    kept: np.ndarray


class Views(pictures.Pictures[View]):
    """`around`: the words that stand before and behind each picture. `merge`: a patch is so many cells wide,
    and as high. `cell`: shape of a cell's numbers (channels, times, height, width)."""

    def __init__(
        self,
        give: Give,
        processor: Any,
        first: int,
        around: tuple[int, int],
        merge: int,
        cell: tuple[int, int, int, int],
    ):
        super().__init__(first, KEPT)
        self.processor, self.around, self.merge, self.cell = processor, around, merge, cell
        self._give = give

    def showing(self, give: Give) -> Views:
        """Other pictures for the same model."""
        return Views(give, self.processor, self.first, self.around, self.merge, self.cell)

    def encode(self, text: str, words: pictures.Words) -> tuple[int, ...]:
        """Token ids of a text that names pictures. What stands between two is encoded by itself, as it is
        between the special tokens of the model's own processor."""
        ids: list[int] = []
        for piece in filter(None, NAMED.split(text)):
            before, behind = self.around
            ids += (before, *self.ids(piece), behind) if piece.startswith(MARK) else words(piece)
        return tuple(ids)

    def read(self, word: str) -> View:
        """See `Pictures.read`."""
        shown = self._give(word.removeprefix(MARK))
        pixels = np.asarray(shown.pixels)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape or pixels.dtype != np.uint8:
            kind = "a video is not supported" if pixels.ndim == 4 else "bytes [height, width, 3] are needed"
            raise ValueError(f"{word}: a picture of {pixels.dtype} {list(pixels.shape)}; {kind}")
        try:
            with np.errstate(all="ignore"):  # what comes of it is looked at
                cut = self.processor(images=[pixels], return_tensors="np", input_data_format="channels_last")
        except ValueError as e:  # sides that differ too much
            raise ValueError(f"{word}: {e}") from e
        _, high, wide = cut["image_grid_thw"][0].tolist()
        cells, rows, columns = cut["pixel_values"], high // self.merge, wide // self.merge
        if not np.abs(cells).max() < LARGEST:  # NaN is not either
            raise ValueError(f"{word}: its processor makes numbers of it that are not below {LARGEST:,}")
        kept = (
            np.ones((rows, columns), bool)
            if shown.kept is None
            else np.asarray(shown.kept(self._patches(cells, rows)))
        )
        if kept.shape != (rows, columns) or not kept.any():
            raise ValueError(f"{word}: of {rows} x {columns} patches, {kept.sum()} of {kept.shape} are read")
        return View(cells, rows, columns, np.flatnonzero(kept))

    def _patches(self, cells: np.ndarray, rows: int) -> np.ndarray:
        """[rows, columns, numbers] from 0 to 1, as the picture was before the processor normed it."""
        each = cells.reshape(rows, -1, self.merge**2, *self.cell)[
            :, :, :, :, 0
        ]  # of a picture all times are one
        told = self.processor
        if told.do_normalize:
            mean, std = (np.array(x, np.float32)[:, None, None] for x in (told.image_mean, told.image_std))
            each = each * std + mean
        scale = 1 if told.do_rescale else 1 / 255
        return np.clip(each * scale, 0, 1).reshape(*each.shape[:2], -1)

    def count(self, look: View) -> int:
        """See `Pictures.count`."""
        return len(look.kept)

    def weight(self, look: View) -> int:
        """Bytes."""
        return look.pixels.nbytes

    def patches(self, id: int) -> Patches:
        """See `positions.Grid`."""
        word, first = self.owner(id)
        view = self.look(word)
        places = np.stack([view.kept // view.columns, view.kept % view.columns])
        return Patches(first, places, max(view.rows, view.columns))


class Seeing(torch.nn.Module):
    """The embedding of words, and of patches beside it by the vision tower of `model`."""

    def __init__(self, words: torch.nn.Embedding, views: Views, model: PreTrainedModel):
        super().__init__()
        self.weight, self.grid = words.weight, views
        self._model = (model,)  # no part of this one

    def of_copy(self, model: PreTrainedModel) -> Seeing:
        """The same for a copy of the model."""
        return Seeing(model.get_input_embeddings(), self.grid, model)

    def save(self, folder: Path) -> None:
        """What cuts pictures goes where the model goes."""
        self.grid.processor.save_pretrained(folder)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[...] -> [..., H]."""
        patch = ids >= self.grid.first
        if not patch.any():
            return F.embedding(ids, self.weight)
        x = F.embedding(ids.masked_fill(patch, 0), self.weight)
        return x.index_put((patch,), self.seen(ids[patch].tolist()).to(x.dtype))

    def seen(self, ids: Sequence[int]) -> torch.Tensor:
        """[N, H] of patches; each picture goes through the tower once."""
        index, views, start = np.empty(len(ids), np.int64), [], 0
        for word, mask, own in self.grid.owners(ids):
            view = self.grid.look(word)
            index[mask] = start + view.kept[own]
            start += view.rows * view.columns
            views.append(view)
        found = features(self._model[0], views, self.grid.merge)
        return found[torch.from_numpy(index).to(found.device)]


def features(model: PreTrainedModel, views: Sequence[View], merge: int) -> torch.Tensor:
    """[patches, H] of all patches of some pictures, by the model's own function."""
    pixels, grids = tensors_of(views, merge, model.device)
    with using(None):  # the tower is no decoder
        out = model.base_model.get_image_features(pixels, grids)
    return torch.cat(list(getattr(out, "pooler_output", out)))


def tensors_of(views: Sequence[View], merge: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """`pixel_values` and `image_grid_thw`, as transformers names them."""
    pixels = torch.from_numpy(np.concatenate([view.pixels for view in views])).to(device)
    grids = [(1, view.rows * merge, view.columns * merge) for view in views]
    return pixels, torch.tensor(grids, device=device)


def with_views(model: PreTrainedModel, name: str, path: str, give: Give) -> Views:
    """A model reads pictures from here on; `give` gives them by name. `name`: its folder or hub name.
    UserError where its processor is not there, or not its own."""
    vision, config = model.config.vision_config, model.config
    processor = _processor(name, path)
    cell = (vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size)
    for key, said in (
        ("patch_size", vision.patch_size),
        ("merge_size", vision.spatial_merge_size),
        ("temporal_patch_size", vision.temporal_patch_size),
    ):
        if (own := getattr(processor, key, None)) != said or type(own) is not int:
            raise UserError(
                f"{path}: {PROCESSOR} says {key} = {own}, config.json {said}; they do not belong together"
            )
    words = model.get_input_embeddings()
    around = (config.vision_start_token_id, config.vision_end_token_id)
    if lost := [i for i in (*around, config.image_token_id) if not 0 <= i < len(words.weight)]:
        raise UserError(
            f"{path}: config.json gives the id {lost[0]} to a token of pictures; its model embeds "
            f"{len(words.weight):,}"
        )
    views = Views(give, processor, len(words.weight), around, vision.spatial_merge_size, cell)
    model.set_input_embeddings(Seeing(words, views, model))
    return views


def _processor(name: str, path: str) -> Any:
    if find(name, PROCESSOR) is None:
        raise UserError(
            f"{path} has no {PROCESSOR}, which says how pictures are cut; save the model's own beside it "
            "(processor.save_pretrained)"
        )
    try:
        import PIL  # noqa: F401 (with it transformers resizes)
    except ImportError:
        raise UserError(
            'a vision-language model needs the extra `vlm`: pip install "forethought[vlm]"'
        ) from None
    # that of both kinds; the one that AutoImageProcessor makes may need torchvision, and resize otherwise
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    try:
        processor = Qwen2VLImageProcessorPil.from_pretrained(name)
        least, most = (processor.size[key] for key in ("shortest_edge", "longest_edge"))
        if type(least) is not int or type(most) is not int:
            raise ValueError("size has no shortest_edge and longest_edge that are whole numbers")
    except Exception as e:  # what stands in a folder is a stranger's, and transformers raises anything
        said = next(iter(str(e).splitlines()), "")
        raise UserError(f"{path}: {PROCESSOR} cannot be read ({type(e).__name__}: {said})") from e
    if not 0 < least <= most <= MOST_PIXELS:
        raise UserError(
            f"{path}: {PROCESSOR} makes pictures of {least:,} to {most:,} pixels; from 1 to {MOST_PIXELS:,} "
            "are read"
        )
    if not processor.do_resize:
        raise UserError(
            f"{path}: {PROCESSOR} says do_resize = false, and pictures are no multiples of patches"
        )
    return processor
