"""Measures as plain functions of arrays, without MMEngine."""

from .clustering import (
    cluster_entropy,
    cluster_sizes,
    contingency_matrix,
    hungarian_accuracy,
    normalized_mutual_information,
    purity,
)
from .detection import box_iou, detection_ap

__all__ = [
    'box_iou',
    'cluster_entropy',
    'cluster_sizes',
    'contingency_matrix',
    'detection_ap',
    'hungarian_accuracy',
    'normalized_mutual_information',
    'purity',
]
