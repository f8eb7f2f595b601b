"""K-means, by SciPy."""
import warnings

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

# Runs, of which the best is taken.
_RUNS = 10


def kmeans(rows: Tensor, num_clusters: int,
           generator: np.random.Generator) -> Tensor:
    """K-means by Lloyd from k-means++, the best of ten runs.

    A cluster that is empty at the end gets the row that is farthest from its
    own center.

    Args:
        rows (Tensor): (N, C), N >= K.
        num_clusters (int): K.
        generator (np.random.Generator): Of the starting points.

    Returns:
        Tensor: (N,) int64 clusters, none of them empty.
    """
    data = rows.double().numpy()
    best, least = None, np.inf
    for _ in range(_RUNS):
        # Empty clusters are dealt with below, and equal rows are no error.
        with warnings.catch_warnings(), np.errstate(invalid='ignore'):
            warnings.filterwarnings('ignore', message='.*clusters is empty.*')
            centers, labels = kmeans2(
                data, num_clusters, iter=50, minit='++', seed=generator)
        distances = np.square(data - centers[labels]).sum(axis=1)
        if distances.sum() < least:
            best, least, far = labels, distances.sum(), distances
    labels = best.astype(np.int64)
    sizes = np.bincount(labels, minlength=num_clusters)
    for cluster in np.flatnonzero(sizes == 0):
        row = np.where(sizes[labels] > 1, far, -1).argmax()
        sizes[labels[row]] -= 1
        labels[row], far[row] = cluster, 0
        sizes[cluster] = 1
    return torch.from_numpy(labels)
