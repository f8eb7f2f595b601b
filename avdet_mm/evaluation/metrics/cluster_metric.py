"""Agreement of clusters and classes."""

from typing import Dict, List, Optional, Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from avdet_mm.registry import METRICS

from ..functional import (
    adjusted_rand_index,
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

    ``nmi``, ``ari``, ``purity``, ``hungarian_accuracy`` and ``entropy``
    belong to the combined label, those with ``_visual`` and ``_audio`` to
    the heads. NMI is normalized by the arithmetic mean of the entropies;
    ``entropy`` is that of the cluster sizes as a share of the largest
    possible: near 0 means that the clusters have collapsed. ``left_out`` is
    the number of clips without ``gt_label``. All figures but that are nan
    if no clip has one.

    Attributes:
        details (dict): For reports: ``classes`` and, under ``combined``,
            ``visual`` and ``audio``, the ``sizes`` of the clusters and the
            ``contingency`` of clusters and classes.
    """

    default_prefix = 'cluster'
    details: Optional[dict] = None

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
        names = (self.dataset_meta or {}).get('classes')
        self.details = dict(classes=list(names) if names else None)
        metrics = {}
        for name in ('combined', 'visual', 'audio'):
            clusters = [r[name] for r in labeled]
            table = contingency_matrix(
                clusters,
                classes,
                num_clusters=num_clusters,
                num_classes=len(names) if names else None,
            )
            sizes = cluster_sizes(clusters, num_clusters)
            self.details[name] = dict(
                sizes=sizes.tolist(), contingency=table.tolist()
            )
            if labeled and name == 'combined':
                logger.info(
                    'Combined cluster sizes: %s',
                    np.array2string(sizes, threshold=400),
                )
            suffix = '' if name == 'combined' else f'_{name}'
            for figure, value in (
                ('nmi', normalized_mutual_information(table)),
                ('ari', adjusted_rand_index(table)),
                ('purity', purity(table)),
                ('hungarian_accuracy', hungarian_accuracy(table)),
                ('entropy', cluster_entropy(clusters, num_clusters)),
            ):
                metrics[figure + suffix] = value
        return dict(metrics, left_out=left_out)
