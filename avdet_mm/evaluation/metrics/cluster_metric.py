"""Agreement of clusters and classes."""

from typing import Dict, List, Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from avdet_mm.registry import METRICS

from ..functional import (
    cluster_entropy,
    cluster_sizes,
    contingency_matrix,
    hungarian_accuracy,
    normalized_mutual_information,
    purity,
)


@METRICS.register_module()
class ClusterMetric(BaseMetric):
    """Clusters of clips against the classes of their sounding objects.

    The combined label of a clip is the arg max of the sum of both
    modalities' log-softmax, as in self-labeling (eq. 6); those of the heads
    alone are the arg max of their logits. Clips without ``gt_label`` are
    left out and counted.

    ``nmi``, ``purity`` and ``hungarian_accuracy`` belong to the combined
    label, ``nmi_visual`` and ``nmi_audio`` to the heads; NMI is normalized
    by the arithmetic mean of the entropies. ``entropy`` is that of the
    combined cluster sizes as a share of the largest possible: near 0 means
    that the clusters have collapsed. ``left_out`` is the number of clips
    without ``gt_label``. All figures but that are nan if no clip has one.
    """

    default_prefix = 'cluster'

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the three cluster labels and the class of every clip.

        Args:
            data_batch (dict): Not looked at.
            data_samples (Sequence[dict]): With ``visual_logits`` and
                ``audio_logits`` (K,), and ``gt_label`` where it is known.

        Raises:
            KeyError: If a sample has no logits.
        """
        for sample in data_samples:
            if 'visual_logits' not in sample or 'audio_logits' not in sample:
                raise KeyError(
                    'ClusterMetric needs `visual_logits` and `audio_logits`: '
                    'the model must have a cluster head.'
                )
            visual = torch.as_tensor(sample['visual_logits']).double()
            audio = torch.as_tensor(sample['audio_logits']).double()
            both = visual.log_softmax(-1) + audio.log_softmax(-1)
            label = sample.get('gt_label')
            self.results.append(
                dict(
                    num_clusters=len(visual),
                    gt_label=-1 if label is None else int(label),
                    combined=int(both.argmax()),
                    visual=int(visual.argmax()),
                    audio=int(audio.argmax()),
                )
            )

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Compare all labels.

        Args:
            results (list[dict]): What :meth:`process` kept, of all ranks.

        Returns:
            dict[str, float]: See the class.
        """
        logger = MMLogger.get_current_instance()
        labeled = [r for r in results if r['gt_label'] >= 0]
        left_out = len(results) - len(labeled)
        if left_out:
            logger.warning(
                '%d of %d clips have no class label and are left '
                'out of the cluster metrics.',
                left_out,
                len(results),
            )
        num_clusters = max((r['num_clusters'] for r in results), default=0)
        classes = [r['gt_label'] for r in labeled]
        tables, clusters = {}, {}
        for name in ('combined', 'visual', 'audio'):
            clusters[name] = [r[name] for r in labeled]
            tables[name] = contingency_matrix(
                clusters[name], classes, num_clusters=num_clusters
            )
        if labeled:
            logger.info(
                'Combined cluster sizes: %s',
                np.array2string(
                    cluster_sizes(clusters['combined'], num_clusters),
                    threshold=400,
                ),
            )
        return dict(
            nmi=normalized_mutual_information(tables['combined']),
            nmi_visual=normalized_mutual_information(tables['visual']),
            nmi_audio=normalized_mutual_information(tables['audio']),
            purity=purity(tables['combined']),
            hungarian_accuracy=hungarian_accuracy(tables['combined']),
            entropy=cluster_entropy(clusters['combined'], num_clusters),
            left_out=left_out,
        )
