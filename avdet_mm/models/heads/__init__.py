"""Localization and clustering heads (Sec. 3.1)."""
from .appearance_head import AppearanceHead
from .contrastive_localization_head import ContrastiveLocalizationHead
from .sk_cluster_head import SKClusterHead
from .visual_contrast_head import VisualContrastHead

__all__ = [
    'AppearanceHead', 'ContrastiveLocalizationHead', 'SKClusterHead',
    'VisualContrastHead'
]
