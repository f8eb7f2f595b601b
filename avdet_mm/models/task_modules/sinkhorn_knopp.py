"""Sinkhorn-Knopp assignment of labels with given cluster sizes (Eq. 3).

Minimizing Eq. 2 over labels under a size constraint is an optimal transport
problem. With cluster log-probabilities L (N x K), its entropic solution is
Q = exp(lambda L + u_i + v_y) with row sums 1/N and column sums r; a clip's
label is the largest entry of its row, so only the K numbers v are needed.
The iteration here runs in the log domain, so rows on which the two
modalities flatly disagree stay finite, and rows may be sharded over ranks:
only K-vectors are exchanged.
"""
import math
from typing import NamedTuple, Optional, Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from avdet_mm.registry import TASK_UTILS


class SKResult(NamedTuple):
    """What :class:`SinkhornKnopp` returns.

    Attributes:
        labels (Tensor): (N,) int64, of the local rows.
        potentials (Tensor): (K,) float64 v; the labels are
            ``argmax(lambda * log_probs + v)``.
        iterations (int): Iterations used.
        error (float): Sum of |column sum - r| over clusters.
    """
    labels: Tensor
    potentials: Tensor
    iterations: int
    error: float


@TASK_UTILS.register_module()
class SinkhornKnopp:
    """Log-domain Sinkhorn-Knopp.

    Args:
        sharpness (float): lambda; larger is closer to the unregularized
            transport problem. Defaults to 20 (SeLaVi).
        max_iters (int): Defaults to 2000 (SeLaVi).
        tolerance (float): Stop when the column sums are off by less than
            this in total; they sum to 1. Defaults to 1e-2.
    """

    def __init__(self,
                 sharpness: float = 20.,
                 max_iters: int = 2000,
                 tolerance: float = 1e-2) -> None:
        if sharpness <= 0 or max_iters < 1 or tolerance <= 0:
            raise ValueError('sharpness, max_iters and tolerance must be '
                             'positive.')
        self.sharpness = sharpness
        self.max_iters = max_iters
        self.tolerance = tolerance

    @torch.no_grad()
    def __call__(self,
                 log_probs: Tensor,
                 marginals: Optional[Sequence[float]] = None) -> SKResult:
        """Assign labels to the rows of all ranks together.

        Args:
            log_probs (Tensor): (N, K) log-probabilities of this rank's
                clips; for two modalities their mean, see
                :func:`mean_log_probs`. N may differ between ranks.
            marginals (Sequence[float], optional): K target shares, summing
                to 1. Defaults to uniform.

        Returns:
            SKResult: Labels of this rank's rows, and how the solver did.

        Raises:
            ValueError: If there are fewer clips than clusters, if a value
                is not finite, or if the marginals do not fit.
        """
        logits = self.sharpness * log_probs.double()
        num_clusters = logits.size(1)
        checks = torch.stack([
            logits.new_tensor(float(len(logits))),
            (~torch.isfinite(logits)).sum().double()
        ])
        all_reduce(checks, 'sum')
        total, bad = checks.tolist()
        if total < num_clusters:
            raise ValueError(
                f'{num_clusters} clusters cannot be filled by {int(total)} '
                'clips. Choose fewer clusters (num_clusters) or more clips.')
        if bad:
            raise ValueError(
                f'{int(bad)} log-probabilities are not finite: training has '
                'diverged. Lower the learning rate.')
        if marginals is None:
            log_r = logits.new_full((num_clusters, ), -math.log(num_clusters))
        else:
            r = torch.as_tensor(
                marginals, dtype=logits.dtype, device=logits.device)
            if (r.shape != (num_clusters, ) or not (r > 0).all()
                    or abs(r.sum().item() - 1) > 1e-6):
                raise ValueError(f'marginals must be {num_clusters} positive '
                                 f'numbers that sum to 1, got {marginals}.')
            log_r = (r / r.sum()).log()

        v = torch.zeros_like(log_r)
        for iteration in range(1, self.max_iters + 1):
            u = -torch.logsumexp(logits + v, dim=1) - math.log(total)
            column = self._logsumexp_over_ranks(logits + u[:, None])
            # Rows are exact after the update of u; the columns' error tells.
            error = (column + v).exp().sub(log_r.exp()).abs().sum().item()
            if error < self.tolerance:
                break
            v = log_r - column
        return SKResult((logits + v).argmax(dim=1), v, iteration, error)

    @staticmethod
    def _logsumexp_over_ranks(x: Tensor) -> Tensor:
        """Log-sum-exp over the rows of all ranks: (N, K) to (K,)."""
        peak = x.amax(dim=0) if len(x) else x.new_full(
            (x.size(1), ), -torch.inf)
        all_reduce(peak, 'max')
        total = (x - peak).exp().sum(dim=0)
        all_reduce(total, 'sum')
        return total.log() + peak


def mean_log_probs(visual_logits: Tensor, audio_logits: Tensor) -> Tensor:
    """Mean of both classifiers' log-probabilities, (N, K) float64.

    This is the geometric mean of the posteriors, so that the label cost is
    exactly Eq. 2. The combined label of Eq. 6 is its row-wise arg-max.
    """
    return 0.5 * (
        visual_logits.double().log_softmax(dim=1) +
        audio_logits.double().log_softmax(dim=1))
