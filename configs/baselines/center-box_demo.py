# Baseline without training: one centered box per test clip.
_base_ = [
    '../avdet/_base_/runtime.py', '../avdet/_base_/procedural_clips.py'
]
model = dict(type='avdet_mm.CenterBox', side=0.6)
train_dataloader = None
val_dataloader = None
test_cfg = dict(type='TestLoop')
test_evaluator = [dict(type='avdet_mm.MatchedCocoMetric', class_aware=False)]
