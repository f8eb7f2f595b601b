"""Which class a cluster stands for."""

import json
import os
import re
from typing import Dict, Optional, Sequence, Tuple, Union

import numpy as np
from scipy.optimize import linear_sum_assignment

from avdet_mm.evaluation.functional import contingency_matrix
from avdet_mm.registry import TASK_UTILS
from avdet_mm.utils import dump_json


@TASK_UTILS.register_module()
class ClusterMatcher:
    """Map clusters to classes by how often they meet (Sec. 4.3, Table 5).

    The statistic is the number of *training* clips that carry self-label k
    and class label c; neither boxes nor anything of a test set is used.

    A cluster stays unmatched (-1) when there is no clip to support its
    match: with ``'hungarian'`` also when there are more clusters than
    classes and others fit better.

    All matchings of the paper's Table 5 are in one json::

        {"info": {...},                      # where they come from
         "classes": ["bell", ...],           # C names
         "num_clusters": 8,                  # K
         "contingency": [[...], ...],        # K rows of C counts, all clips
         "matchings": {"hungarian": {"0": "bell", ...}, "1-shot": ...}}

    Unmatched clusters are absent; the first matching is the main one.

    Args:
        method (str): ``'hungarian'`` matches one to one and maximizes the
            number of clips that agree; ``'majority'`` gives every cluster
            its most frequent class (the first of equals), many to one;
            ``'<k>-shot'`` does so with the labels of the k clips alone that
            belong to a cluster with the most confidence (of equal classes
            that of the more confident clip); ``'manual'`` is ``'majority'``
            on classes that someone has grouped. Defaults to 'hungarian'.

    Attributes:
        contingency (np.ndarray): (K, C) int64, clips of each pair, of those
            whose labels were read; after :meth:`from_json` that of the main
            matching, if the json has it.
        matching (np.ndarray): (K,) int64, class of each cluster or -1.
        classes (list[str], optional): The C names, after :meth:`from_json`.

    Example:
        >>> matcher = ClusterMatcher().fit([0, 0, 1], [1, 1, 0], 2, 2)
        >>> matcher.map([0, 1, 1])
        array([1, 0, 0])
    """

    def __init__(self, method: str = 'hungarian') -> None:
        shot = re.fullmatch(r'([1-9]\d*)-shot', method)
        if not shot and method not in ('hungarian', 'majority', 'manual'):
            raise ValueError(
                f'Matching method {method!r} is unknown; choose hungarian, '
                'majority, manual, or a number of labeled clips per cluster '
                'such as 10-shot.'
            )
        self.method = method
        self.shots: Optional[int] = int(shot[1]) if shot else None
        self.contingency: Optional[np.ndarray] = None
        self.matching: Optional[np.ndarray] = None
        self.classes: Optional[list] = None

    def fit(
        self,
        cluster_labels: Sequence[int],
        class_labels: Sequence[int],
        num_clusters: int,
        num_classes: int,
        scores: Optional[Sequence[float]] = None,
    ) -> 'ClusterMatcher':
        """Fit the matching.

        Args:
            cluster_labels (Sequence[int]): (N,) cluster of each clip.
            class_labels (Sequence[int]): (N,) class of each clip.
            num_clusters (int): K.
            num_classes (int): C; may differ from K.
            scores (Sequence[float], optional): (N,) confidence that a clip
                belongs to its cluster; k-shot matching needs it.

        Returns:
            ClusterMatcher: Itself.

        Raises:
            ValueError: If there is no clip, labels do not fit the sizes, or
                scores are missing.
        """
        if len(cluster_labels) == 0:
            raise ValueError(
                'No labeled clips were given, so clusters cannot '
                'be matched to classes.'
            )
        if self.shots is None:
            counts = contingency_matrix(
                cluster_labels, class_labels, num_clusters, num_classes
            )
            votes = counts
        else:
            counts, votes = self._count_best(
                cluster_labels, class_labels, num_clusters, num_classes, scores
            )
        matching = np.full(num_clusters, -1, dtype=np.int64)
        if self.method == 'hungarian':
            rows, cols = linear_sum_assignment(counts, maximize=True)
        else:
            rows, cols = np.arange(num_clusters), votes.argmax(axis=1)
        supported = counts[rows, cols] > 0
        matching[rows[supported]] = cols[supported]
        self.contingency, self.matching = counts, matching
        return self

    def _count_best(
        self,
        cluster_labels: Sequence[int],
        class_labels: Sequence[int],
        num_clusters: int,
        num_classes: int,
        scores: Optional[Sequence[float]],
    ) -> Tuple[np.ndarray, np.ndarray]:
        """Count the most confident clips of each cluster.

        No other label is looked at.

        Returns:
            tuple: (K, C) int64 counts; and the same as votes, in which of
            equal counts that of the more confident clip is larger.
        """
        if scores is None or len(scores) != len(cluster_labels):
            raise ValueError(
                f'{self.method} matching needs the confidence of every clip: '
                'give `scores`, as many as clips.'
            )
        clusters = np.asarray(cluster_labels)
        # Best first, in the order of the clips where scores are equal.
        order = np.argsort(-np.asarray(scores, np.float64), kind='stable')
        order = order[np.argsort(clusters[order], kind='stable')]
        begins = np.searchsorted(clusters[order], np.arange(num_clusters))
        rank = np.arange(len(order)) - begins[clusters[order]]
        best, rank = order[rank < self.shots], rank[rank < self.shots]
        shown = [class_labels[i] for i in best]
        counts = contingency_matrix(
            clusters[best], shown, num_clusters, num_classes
        )
        # Less than one vote more, for the class of the more confident clip.
        lead = np.zeros(counts.shape)
        np.maximum.at(lead, (clusters[best], shown), 1 / (rank + 2))
        return counts, counts + lead

    def rename(
        self, new_classes: Sequence[int], num_classes: int
    ) -> 'ClusterMatcher':
        """Replace the classes by those of another list, after fitting.

        The paper matches all classes of VGGSound and keeps the clusters of
        those that stand for a test label (App. C).

        Args:
            new_classes (Sequence[int]): (C,) what each class becomes, or -1:
                clusters matched to it are unmatched from now on.
            num_classes (int): Length of the new list.

        Returns:
            ClusterMatcher: Itself.

        Raises:
            RuntimeError: If there is no matching yet.
            ValueError: If there is not one new class for each.
        """
        if self.contingency is None:
            raise RuntimeError(
                'There is no matching to rename: call `fit` first.'
            )
        new = np.asarray(new_classes, dtype=np.int64)
        if new.shape != (self.contingency.shape[1],) or not (
            -1 <= new.min() and new.max() < num_classes
        ):
            raise ValueError(
                f'new_classes must name one of {num_classes} classes, or -1, '
                f'for each of {self.contingency.shape[1]}.'
            )
        counts = np.zeros((len(self.matching), num_classes), dtype=np.int64)
        for old in np.flatnonzero(new >= 0):
            counts[:, new[old]] += self.contingency[:, old]
        self.matching = np.where(self.matching >= 0, new[self.matching], -1)
        self.contingency = counts
        return self

    def map(self, labels: Union[Sequence[int], np.ndarray]) -> np.ndarray:
        """Turn clusters into classes.

        Args:
            labels (Sequence[int]): (n,) clusters.

        Returns:
            np.ndarray: (n,) int64 classes, -1 for an unmatched cluster.

        Raises:
            RuntimeError: If there is no matching yet.
            ValueError: If a label is not one of the K clusters.
        """
        if self.matching is None:
            raise RuntimeError(
                'This ClusterMatcher has no matching yet: call '
                '`fit` or `from_json` first.'
            )
        labels = np.asarray(labels, dtype=np.int64)
        num_clusters = len(self.matching)
        if labels.size and not (
            0 <= labels.min() and labels.max() < num_clusters
        ):
            raise ValueError(
                f'Labels {labels.min()} to {labels.max()} do not fit the '
                f'{num_clusters} clusters of the matching; it belongs to '
                'another model.'
            )
        return self.matching[labels]

    def to_json(
        self,
        path: str,
        classes: Sequence[str],
        info: Optional[dict] = None,
        others: Sequence['ClusterMatcher'] = (),
    ) -> None:
        """Write matchings, completely or not at all.

        Args:
            path (str): File to write; its folder is made if necessary.
            classes (Sequence[str]): The C class names.
            info (dict, optional): Where the matching comes from.
            others (Sequence[ClusterMatcher]): More matchings of the same
                clusters and classes, by other methods.

        Raises:
            RuntimeError: If there is no matching yet.
            ValueError: If the number of names is not C, or a method is there
                twice.
        """
        matchers = [self, *others]
        for matcher in matchers:
            if matcher.matching is None:
                raise RuntimeError(
                    'There is no matching to write: call `fit` first.'
                )
            if len(classes) != matcher.contingency.shape[1]:
                raise ValueError(
                    f'{len(classes)} class names were given for '
                    f'{matcher.contingency.shape[1]} classes.'
                )
        if len({m.method for m in matchers}) < len(matchers):
            raise ValueError('A json has one matching of each method.')
        content = dict(
            info=info or {},
            classes=list(classes),
            num_clusters=len(self.matching),
            contingency=self.contingency.tolist(),
            matchings={
                matcher.method: {
                    str(k): classes[c]
                    for k, c in enumerate(matcher.matching)
                    if c >= 0
                }
                for matcher in matchers
            },
        )
        dump_json(content, path, indent=1)

    @classmethod
    def from_json(cls, path: str) -> Dict[str, 'ClusterMatcher']:
        """Read what :meth:`to_json` wrote.

        Args:
            path (str): The file.

        Returns:
            dict[str, ClusterMatcher]: Matchings by method, the main one
            first.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a matching.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f'There is no matching of clusters and classes at {path}. '
                'Write it with tools/match_clusters.py.'
            )
        with open(path, encoding='utf-8') as file:
            try:
                content = json.load(file)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f'{path} is not valid json: {error}.'
                ) from error
        keys = ('classes', 'num_clusters', 'matchings')
        missing = [
            key
            for key in keys
            if not isinstance(content, dict) or not content.get(key)
        ]
        if missing:
            raise ValueError(
                f'{path} is not a matching of clusters and classes: it lacks '
                f'{", ".join(missing)}. Write it with '
                'tools/match_clusters.py.'
            )
        matchers = {}
        for method, matching in content['matchings'].items():
            matcher = matchers[method] = cls(method)
            matcher.classes = list(content['classes'])
            if 'contingency' in content:
                matcher.contingency = np.array(content['contingency'])
            matcher.matching = np.full(content['num_clusters'], -1, np.int64)
            for cluster, name in matching.items():
                if (
                    name not in matcher.classes
                    or not 0 <= int(cluster) < content['num_clusters']
                ):
                    raise ValueError(
                        f'{path} matches cluster {cluster} to {name!r}, but '
                        f'names {content["num_clusters"]} clusters and the '
                        f'classes {matcher.classes}.'
                    )
                matcher.matching[int(cluster)] = matcher.classes.index(name)
        return matchers
