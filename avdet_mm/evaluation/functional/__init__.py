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
from .failures import classify_detections, count_failures
from .localization import (
    PROTOCOLS,
    binarize,
    box_map,
    class_iou,
    grid_boxes,
    grid_map,
    protocol_figures,
    pseudo_heatmap,
    silent_share,
    success_rates,
    weighted_iou,
)

__all__ = [
    'PROTOCOLS',
    'adjusted_rand_index',
    'binarize',
    'box_iou',
    'box_map',
    'class_iou',
    'classify_detections',
    'cluster_entropy',
    'cluster_sizes',
    'contingency_matrix',
    'count_failures',
    'detection_ap',
    'grid_boxes',
    'grid_map',
    'hungarian_accuracy',
    'normalized_mutual_information',
    'protocol_figures',
    'pseudo_heatmap',
    'purity',
    'silent_share',
    'success_rates',
    'weighted_iou',
]
