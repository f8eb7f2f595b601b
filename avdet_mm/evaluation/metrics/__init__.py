"""Registered metrics."""

from .cluster_metric import ClusterMetric
from .localization_metric import LocalizationMetric
from .matched_coco_metric import MatchedCocoMetric
from .retrieval_metric import RetrievalMetric
from .sound_localization_metric import SoundLocalizationMetric

__all__ = [
    'ClusterMetric',
    'LocalizationMetric',
    'MatchedCocoMetric',
    'RetrievalMetric',
    'SoundLocalizationMetric',
]
