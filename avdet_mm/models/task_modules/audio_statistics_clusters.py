"""First labels from simple statistics of the sounds (ours)."""
from typing import Callable, Sequence

import numpy as np
import torch
from mmengine.dist import all_reduce, broadcast, is_main_process
from torch import Tensor

from avdet_mm.registry import TASK_UTILS

from .kmeans import kmeans
from .sinkhorn_knopp import SKResult


@TASK_UTILS.register_module()
class AudioStatisticsClusters:
    """Cluster clips by how they sound, before anything has been trained.

    The paper's first labels come from networks with random weights, so that
    both heads have to find the clusters together. Kinds of sounds differ in
    how loud each band of the spectrum is when it is loud, which needs no
    network; with such labels sound teaches sight from the first step.

    For each clip the percentiles of every band of the log-mel spectrogram
    over time are taken, without the clip's overall loudness, and reduced to
    their principal components. K-means clusters them; then labels by
    Sinkhorn-Knopp, which have the wanted sizes, and centers follow one
    another for a few rounds.

    Args:
        percentiles (Sequence[float]): In (0, 100]. Defaults to (50, 75, 90,
            97).
        num_components (int): Defaults to 32.
        rounds (int): Defaults to 10.
        max_fit (int): Most clips that k-means looks at, drawn at random;
            the rounds after it look at all. Defaults to 50000.
    """

    def __init__(self,
                 percentiles: Sequence[float] = (50, 75, 90, 97),
                 num_components: int = 32,
                 rounds: int = 10,
                 max_fit: int = 50000) -> None:
        if not percentiles or not all(0 < p <= 100 for p in percentiles):
            raise ValueError('percentiles must be at least one number in '
                             f'(0, 100], got {percentiles}.')
        if min(num_components, rounds, max_fit) < 1:
            raise ValueError('num_components, rounds and max_fit must be '
                             'positive.')
        self.percentiles = tuple(percentiles)
        self.num_components = num_components
        self.rounds = rounds
        self.max_fit = max_fit

    def features(self, log_mel: Tensor) -> Tensor:
        """Statistics of spectrograms.

        Args:
            log_mel (Tensor): (B, 1, n_mels, T).

        Returns:
            Tensor: (B, len(percentiles) * n_mels) float32.
        """
        shares = log_mel.new_tensor(self.percentiles).float() / 100
        values = log_mel[:, 0].float().quantile(shares, dim=2)
        values = values.transpose(0, 1).flatten(1)
        return values - values.mean(dim=1, keepdim=True)

    def __call__(self, index: Tensor, features: Tensor, num_clips: int,
                 num_clusters: int, assign: Callable[[Tensor], SKResult],
                 generator: np.random.Generator) -> SKResult:
        """Cluster the clips of all ranks together.

        Args:
            index (Tensor): (n,) int64 indices of this rank's clips. A clip
                is on one rank only.
            features (Tensor): (n, F) of these clips, on the CPU.
            num_clips (int): N, of all ranks.
            num_clusters (int): K, at most N.
            assign (Callable): From this rank's (n, K) log-probabilities to
                its labels.
            generator (np.random.Generator): Of all random choices, in the
                same state on all ranks.

        Returns:
            SKResult: Of the last round, with the labels of this rank's
            clips.
        """
        rows = features.double()
        mean = rows.sum(dim=0)
        all_reduce(mean)
        rows = rows - mean / num_clips
        gram = rows.T @ rows
        all_reduce(gram)
        _, directions = torch.linalg.eigh(gram)  # ascending
        broadcast(directions)
        rows = rows @ directions[:, -self.num_components:]
        size = min(max(self.max_fit, num_clusters), num_clips)
        place = torch.full((num_clips, ), -1)
        place[torch.from_numpy(generator.permutation(num_clips)[:size])] = (
            torch.arange(size))
        place = place[index]
        fitted = rows.new_zeros(size, rows.size(1))
        fitted[place[place >= 0]] = rows[place >= 0]
        # One rank has the row, the others add zeros.
        all_reduce(fitted)
        centers = rows.new_zeros(num_clusters, rows.size(1))
        if is_main_process():
            labels = kmeans(fitted, num_clusters, generator)
            centers = _sums(fitted, labels, num_clusters)
            centers = centers[:, :-1] / centers[:, -1:]
        # Not left to the ranks, which may run on different processors.
        broadcast(centers)
        for _ in range(self.rounds):
            distances = torch.cdist(rows, centers).square()
            # Distances have no unit; with this one, sizes matter.
            moments = torch.stack(
                [distances.sum(), distances.square().sum()])
            all_reduce(moments)
            average, square = (moments / (num_clips * num_clusters)).tolist()
            scale = max(square - average**2, 1e-24)**0.5 / 3
            result = assign((-distances / scale).log_softmax(dim=1))
            sums = _sums(rows, result.labels, num_clusters)
            all_reduce(sums)
            counts = sums[:, -1:]
            centers = torch.where(counts > 0,
                                  sums[:, :-1] / counts.clamp(min=1), centers)
        return result


def _sums(rows: Tensor, labels: Tensor, num_clusters: int) -> Tensor:
    """Sum of each cluster's rows and, last, their number: (K, F + 1)."""
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    return rows.new_zeros(num_clusters, rows.size(1)).index_add_(
        0, labels, rows)
