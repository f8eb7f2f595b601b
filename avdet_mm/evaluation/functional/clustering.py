"""Quality of a clustering against class labels."""

from typing import Optional, Sequence, Union

import numpy as np
from scipy.optimize import linear_sum_assignment

Labels = Union[Sequence[int], np.ndarray]


def _as_labels(labels: Labels, name: str) -> np.ndarray:
    array = np.asarray(labels)
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f'{name} must be a flat sequence of integers, got '
            f'shape {array.shape} and type {array.dtype}.'
        )
    if array.min() < 0:
        raise ValueError(
            f'{name} must not be negative, got {array.min()}; '
            'leave unlabeled samples out first.'
        )
    return array.astype(np.int64)


def contingency_matrix(
    clusters: Labels,
    classes: Labels,
    num_clusters: Optional[int] = None,
    num_classes: Optional[int] = None,
) -> np.ndarray:
    """Count how often every cluster meets every class.

    Args:
        clusters (Sequence[int]): (N,) cluster of each sample.
        classes (Sequence[int]): (N,) class of each sample.
        num_clusters (int, optional): K. Defaults to the largest cluster + 1.
        num_classes (int, optional): C. Defaults to the largest class + 1.

    Returns:
        np.ndarray: (K, C) int64, number of samples of each pair.

    Raises:
        ValueError: If the two differ in length, hold anything but whole
            numbers of at least 0, or exceed the given sizes.
    """
    clusters = _as_labels(clusters, 'clusters')
    classes = _as_labels(classes, 'classes')
    if len(clusters) != len(classes):
        raise ValueError(
            f'{len(clusters)} cluster labels were given for '
            f'{len(classes)} class labels; pass one of each for '
            'every sample.'
        )
    shape = []
    for array, size, name in (
        (clusters, num_clusters, 'cluster'),
        (classes, num_classes, 'class'),
    ):
        found = int(array.max()) + 1 if len(array) else 0
        size = found if size is None else size
        if found > size:
            raise ValueError(
                f'{name} label {found - 1} does not fit the '
                f'given number of {size}.'
            )
        shape.append(size)
    table = np.zeros(shape, dtype=np.int64)
    np.add.at(table, (clusters, classes), 1)
    return table


def _entropy(counts: np.ndarray) -> float:
    """Entropy in nats of the distribution that ``counts`` describe."""
    counts = counts[counts > 0]
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def normalized_mutual_information(contingency: np.ndarray) -> float:
    """Normalized mutual information of clusters and classes.

    The mutual information is divided by the *arithmetic mean* of the two
    entropies (the default of scikit-learn; others divide by the geometric
    mean, the larger or the smaller one). Two constant labelings agree
    perfectly and give 1; one constant labeling carries no information and
    gives 0.

    Args:
        contingency (np.ndarray): (K, C) from :func:`contingency_matrix`.

    Returns:
        float: Between 0 and 1, or nan without samples.
    """
    total = contingency.sum()
    if total == 0:
        return float('nan')
    entropy_k = _entropy(contingency.sum(axis=1))
    entropy_c = _entropy(contingency.sum(axis=0))
    if entropy_k == 0 and entropy_c == 0:
        return 1.0
    mutual = entropy_k + entropy_c - _entropy(contingency.ravel())
    return float(np.clip(2 * mutual / (entropy_k + entropy_c), 0, 1))


def adjusted_rand_index(contingency: np.ndarray) -> float:
    """Pairs of samples that clusters and classes treat alike.

    The share of such pairs, adjusted so that random labelings with the same
    sizes have 0 on average (Hubert and Arabie, 1985).

    Args:
        contingency (np.ndarray): (K, C) from :func:`contingency_matrix`.

    Returns:
        float: At most 1, or nan without samples.
    """

    def pairs(counts: np.ndarray) -> float:
        counts = counts.astype(np.float64)
        return float((counts * (counts - 1)).sum() / 2)

    total = contingency.sum()
    if total == 0:
        return float('nan')
    both = pairs(contingency)
    in_clusters = pairs(contingency.sum(axis=1))
    in_classes = pairs(contingency.sum(axis=0))
    everything = pairs(np.array([total]))
    expected = in_clusters * in_classes / everything if everything else 0.0
    largest = (in_clusters + in_classes) / 2
    if largest == expected:  # one group each, or only groups of one
        return 1.0
    return (both - expected) / (largest - expected)


def purity(contingency: np.ndarray) -> float:
    """Share of samples that belong to the main class of their cluster.

    Args:
        contingency (np.ndarray): (K, C) from :func:`contingency_matrix`.

    Returns:
        float: Between 0 and 1, or nan without samples.
    """
    total = contingency.sum()
    return float(contingency.max(axis=1).sum() / total) if total else np.nan


def hungarian_accuracy(contingency: np.ndarray) -> float:
    """Share of samples that are right under the best one-to-one matching.

    The matching is fitted on the very samples that are scored, so this
    describes a clustering and is no test accuracy. Rectangular tables are
    fine: surplus clusters or classes stay unmatched and count as wrong.

    Args:
        contingency (np.ndarray): (K, C) from :func:`contingency_matrix`.

    Returns:
        float: Between 0 and 1, or nan without samples.
    """
    total = contingency.sum()
    if total == 0:
        return float('nan')
    pairs = linear_sum_assignment(contingency, maximize=True)
    return float(contingency[pairs].sum() / total)


def cluster_sizes(clusters: Labels, num_clusters: int) -> np.ndarray:
    """Number of samples in every cluster.

    Args:
        clusters (Sequence[int]): (N,) cluster of each sample.
        num_clusters (int): K.

    Returns:
        np.ndarray: (K,) int64.
    """
    return np.bincount(
        _as_labels(clusters, 'clusters'), minlength=num_clusters
    )


def cluster_entropy(clusters: Labels, num_clusters: int) -> float:
    """Entropy of the cluster sizes, divided by that of equal sizes.

    Args:
        clusters (Sequence[int]): (N,) cluster of each sample.
        num_clusters (int): K.

    Returns:
        float: From 0 (one cluster holds everything) to 1 (all are equally
        large); 1 for K = 1, nan without samples.
    """
    sizes = cluster_sizes(clusters, num_clusters)
    if sizes.sum() == 0:
        return float('nan')
    return _entropy(sizes) / np.log(num_clusters) if num_clusters > 1 else 1.0
