"""The graph of patches, on pictures whose components are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from forethought.envs.screen.patches import components, cut, of_graph, random_patches, seen

S = 4


def picture(rows, side=S):
    """A picture whose patches have these grey values."""
    return np.repeat(np.repeat(np.array(rows, dtype=np.uint8), side, 0), side, 1)[..., None].repeat(3, 2)


def test_a_picture_is_cut_into_patches_and_its_edges_are_repeated():
    patches = cut(picture([[0, 255], [51, 0]])[:7, :5], S)
    assert patches.shape == (2, 2, S * S * 3) and patches.dtype == np.float32
    assert patches[0, 1].min() == 1 and np.allclose(patches[1, 0], 0.2)
    for shape in ((0, 4, 3), (4, 4), (4, 0, 3)):
        with pytest.raises(ValueError, match="no pixels"):
            cut(np.zeros(shape, dtype=np.uint8), S)


def test_components_are_what_hangs_together():
    found = components(cut(picture([[0, 0, 9, 9], [255, 0, 9, 255], [255, 255, 0, 0]]), S), alike=0.1)
    assert found.tolist() == [[0, 0, 1, 1], [2, 0, 1, 3], [2, 2, 4, 4]]
    ring = components(cut(picture([[0, 0, 0], [0, 255, 0], [0, 0, 0]]), S))
    assert ring.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    # two that look nearly alike are one, at a distance that lets them: 9 / 255 * sqrt(48)
    near = cut(picture([[0, 9]]), S)
    assert components(near, 0.25).max() == 0 and components(near, 0.24).max() == 1


@pytest.mark.parametrize("share", [0, 0.3, 0.5, 1])
def test_of_each_component_a_share_is_kept(share):
    labels = components(cut(picture([[0, 0, 9, 9], [255, 0, 9, 255], [255, 255, 0, 0]]), S), alike=0.1)
    kept = of_graph(labels, share, seed=3)
    for label in range(5):
        n = int((labels == label).sum())
        assert kept[labels == label].sum() == max(1, math.ceil(share * n))
    assert (of_graph(labels, share, seed=3) == kept).all()
    control = random_patches(labels.shape, int(kept.sum()), seed=3)
    assert control.sum() == kept.sum() and control.shape == kept.shape
    with pytest.raises(ValueError, match="from 0 to 1"):
        of_graph(labels, 1.1, 0)


def test_a_box_is_seen_where_one_of_its_patches_is_kept():
    kept = np.zeros((2, 3), dtype=bool)
    kept[1, 2] = True
    assert seen(kept, (8, 4, 1, 1), S) and seen(kept, (0, 0, 12, 8), S) and seen(kept, (9, 5, 0, 0), S)
    assert not seen(kept, (0, 0, 8, 8), S) and not seen(kept, (8, 0, 4, 4), S)
