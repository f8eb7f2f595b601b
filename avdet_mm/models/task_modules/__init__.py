"""Sinkhorn-Knopp, cluster sizes, box extraction, cluster matching."""
from .audio_statistics_clusters import AudioStatisticsClusters
from .cluster_matcher import ClusterMatcher
from .guided_filter import GuidedFilter
from .heatmap_box_extractor import HeatmapBoxExtractor
from .marginals import GaussianMarginals
from .sinkhorn_knopp import SinkhornKnopp

__all__ = [
    'AudioStatisticsClusters', 'ClusterMatcher', 'GaussianMarginals',
    'GuidedFilter', 'HeatmapBoxExtractor', 'SinkhornKnopp'
]
