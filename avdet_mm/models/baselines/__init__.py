"""Methods to compare with, all with ``pred_instances`` as output."""

from .attention import AttentionLocalizer
from .center_box import CenterBox
from .dmc import DMC
from .dsol import DSOL, DSOLStageTwo
from .objects_that_sound import ObjectsThatSound
from .pcl import PCLRoIHead
from .selective_search import SelectiveSearch
from .sound_of_pixels import SoundOfPixels, SoundUNet

__all__ = [
    'AttentionLocalizer',
    'CenterBox',
    'DMC',
    'DSOL',
    'DSOLStageTwo',
    'ObjectsThatSound',
    'PCLRoIHead',
    'SelectiveSearch',
    'SoundOfPixels',
    'SoundUNet',
]
