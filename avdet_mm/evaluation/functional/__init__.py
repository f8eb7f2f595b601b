"""Measures as plain functions of arrays, without MMEngine."""

from .clustering import (
    adjusted_rand_index,
    cluster_entropy,
    cluster_sizes,
    contingency_matrix,
    hungarian_accuracy,
    normalized_mutual_information,
    purity,
)
from .detection import box_iou, detection_ap

__all__ = [
    'adjusted_rand_index',
    'box_iou',
    'cluster_entropy',
    'cluster_sizes',
    'contingency_matrix',
    'detection_ap',
    'hungarian_accuracy',
    'normalized_mutual_information',
    'purity',
]
