"""Hooks; none of them owns a training loop."""
from .annealed_pooling_hook import AnnealedPoolingHook
from .atomic_checkpoint_hook import AtomicCheckpointHook
from .class_agnostic_warmup_hook import ClassAgnosticWarmupHook
from .confidence_curriculum_hook import ConfidenceCurriculumHook
from .dsol_cluster_hook import DSOLClusterHook
from .epoch_seed_hook import EpochSeedHook
from .log_mel_stats_hook import LogMelStatsHook
from .plateau_hook import PlateauHook
from .pseudo_label_hook import PseudoLabelHook
from .self_label_hook import SelfLabelHook

__all__ = [
    'AnnealedPoolingHook', 'AtomicCheckpointHook', 'ClassAgnosticWarmupHook',
    'ConfidenceCurriculumHook', 'DSOLClusterHook', 'EpochSeedHook',
    'LogMelStatsHook', 'PlateauHook', 'PseudoLabelHook', 'SelfLabelHook'
]
