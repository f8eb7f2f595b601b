"""Sinkhorn-Knopp, box extraction, cluster matching."""
from .cluster_matcher import ClusterMatcher
from .heatmap_box_extractor import HeatmapBoxExtractor
from .sinkhorn_knopp import SinkhornKnopp

__all__ = ['ClusterMatcher', 'HeatmapBoxExtractor', 'SinkhornKnopp']
