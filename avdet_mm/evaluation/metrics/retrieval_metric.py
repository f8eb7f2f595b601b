"""Do sounds find their frames among others, and frames their sounds?"""

from typing import Dict, List, Optional, Sequence, Union

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from avdet_mm.models.heads.pair_scores import pair_scores
from avdet_mm.registry import METRICS


def retrieval_ranks(scores: np.ndarray) -> np.ndarray:
    """Rank of the own item in each row, from 1; ties count half.

    Args:
        scores (np.ndarray): (N, N); the diagonal is the right answer.

    Returns:
        np.ndarray: (N,) float64.
    """
    own = np.diagonal(scores)[:, None]
    better = (scores > own).sum(axis=1)
    equal = (scores == own).sum(axis=1) - 1
    return 1 + better + equal / 2


@METRICS.register_module()
class RetrievalMetric(BaseMetric):
    """Cross-modal retrieval between frames and sounds of different clips.

    Scores are those of the contrastive loss (Eq. 1): pooled cosines of a
    frame's locations with a sound. Clips of one class cannot be told apart
    by anything but chance properties, so with classes the figure to look at
    is how often the best answer is of the right class.

    * ``v2a_r1``, ``a2v_r1``: share of frames (sounds) whose own sound
      (frame) scores best, ``v2a_r10``, ``a2v_r10``: is among the ten best.
    * ``v2a_median_rank``, ``a2v_median_rank``: of the own one, from 1.
    * ``v2a_class1``, ``a2v_class1``: share whose best *other* clip is of the
      same class; clips without a class are left out. Absent if none has one.

    Args:
        pooling (str | float): See
            :func:`~avdet_mm.models.heads.pair_scores.pair_scores`. Defaults
            to ``'max'``.
        max_clips (int): The first so many clips take part: memory and time
            grow with the square. Defaults to 1000.
        collect_device (str): Defaults to 'cpu'.
        prefix (str, optional): Defaults to None, which means 'retrieval'.
    """

    default_prefix = 'retrieval'

    def __init__(
        self,
        pooling: Union[str, float] = 'max',
        max_clips: int = 1000,
        collect_device: str = 'cpu',
        prefix: Optional[str] = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if max_clips < 2:
            raise ValueError(f'max_clips must be at least 2, got {max_clips}.')
        self.pooling = pooling
        self.max_clips = max_clips

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the embeddings of the first clips.

        Args:
            data_batch (dict): Not looked at.
            data_samples (Sequence[dict]): With ``sample_idx``,
                ``visual_embedding`` (D, h, w), ``audio_embedding`` (D,) and,
                where it is known, ``gt_label``.

        Raises:
            KeyError: If a sample has no embeddings.
        """
        for sample in data_samples:
            if sample['sample_idx'] >= self.max_clips:
                continue
            if 'visual_embedding' not in sample:
                raise KeyError(
                    'RetrievalMetric needs embeddings: set '
                    'model.keep_embeddings=True (AudioVisualLocalizer).'
                )
            label = sample.get('gt_label')
            self.results.append(
                dict(
                    visual=sample['visual_embedding'].cpu(),
                    audio=sample['audio_embedding'].cpu(),
                    label=-1 if label is None else int(label),
                )
            )

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Compare every frame with every sound.

        Args:
            results (list): What :meth:`process` kept, of all ranks.

        Returns:
            dict[str, float]: See the class.
        """
        scores = pair_scores(
            torch.stack([r['visual'] for r in results]),
            torch.stack([r['audio'] for r in results]),
            self.pooling,
        ).numpy()
        labels = np.array([r['label'] for r in results])
        metrics = {}
        for name, rows in (('v2a', scores), ('a2v', scores.T)):
            ranks = retrieval_ranks(rows)
            metrics[f'{name}_r1'] = float((ranks <= 1).mean())
            metrics[f'{name}_r10'] = float((ranks <= 10).mean())
            metrics[f'{name}_median_rank'] = float(np.median(ranks))
            known = labels >= 0
            if known.sum() > 1:
                others = rows[np.ix_(known, known)].copy()
                np.fill_diagonal(others, -np.inf)
                same = labels[known][others.argmax(axis=1)] == labels[known]
                metrics[f'{name}_class1'] = float(same.mean())
        return metrics
