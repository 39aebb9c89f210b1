"""k-means. The one place that imports scikit-learn, which the extra `grams` brings."""

from __future__ import annotations

import numpy as np

from forethought.core.errors import UserError


def check_extra() -> None:
    """UserError without the extra; to be asked before anything that takes long."""
    _kmeans()


def kmeans(rows_ND: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """[N] the cluster of each row, from 0 to `clusters` - 1: Lloyd's algorithm from a k-means++ start.
    UserError without the extra."""
    return _kmeans()(n_clusters=clusters, n_init=1, random_state=seed).fit(rows_ND).labels_.astype(np.int64)


def _kmeans() -> type:
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise UserError(
            "mining grams needs scikit-learn; install it with: pip install 'forethought[grams]'"
        ) from error
    return KMeans
