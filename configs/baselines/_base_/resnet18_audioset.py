# AudioSet-Instruments for the heatmap baselines of the paper's Table 2 as DSOL
# (Hu et al., NeurIPS 2020) trains them: two ResNet-18, of which the visual
# one starts from ImageNet. The paper's figures of these methods are DSOL's.
_base_ = ['../../avdet/_base_/runtime.py', '../../avdet/_base_/audioset.py']
# Channels of both backbones' outputs.
channels = 512
# DSOL trains until its authors stop it; the number of epochs is ours.
max_epochs = 50
lr = 1e-4
weight_decay = 1e-4

# The stride of the last stage is 1: frames of 224 pixels give 14 x 14 x 512.
backbone = dict(
    type='mmdet.ResNet',
    depth=18,
    strides=(1, 2, 2, 1),
    out_indices=(3, ),
    norm_cfg=dict(type='BN', requires_grad=True),
    norm_eval=False,
    style='pytorch')
model = dict(
    # DSOL's spectrogram (64 bands, 10 ms windows every 5 ms) of the paper's
    # sound (24 kHz): 64 x 199. DSOL's FFT is as short as the window, where
    # bands at low frequencies are empty.
    data_preprocessor=dict(
        type='avdet_mm.AudioVisualDataPreprocessor',
        sample_rate=24000,
        n_fft=1024,
        win_length=240,
        hop_length=120,
        n_mels=64),
    visual_backbone=dict(
        init_cfg=dict(
            type='Pretrained', checkpoint='torchvision://resnet18'),
        **backbone),
    # From scratch.
    audio_backbone=dict(in_channels=1, **backbone),
    # The paper's value, on the side that its text fits; DSOL's metrics look
    # at heatmaps.
    box_extractor=dict(
        type='avdet_mm.HeatmapBoxExtractor', beta=0.7, beta_on='mean'))

train_dataloader = dict(batch_size=32)
auto_scale_lr = dict(enable=False, base_batch_size=32)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=lr, weight_decay=weight_decay))
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=3))
custom_hooks = [
    dict(type='avdet_mm.EpochSeedHook'),
    dict(type='avdet_mm.LogMelStatsHook'),
]
# DSOL's boxes, with its measures: one sounding object in a frame, or several.
test_evaluator = [
    dict(type='avdet_mm.LocalizationMetric'),
    dict(
        type='avdet_mm.SoundLocalizationMetric',
        protocols=['dsol_single', 'dsol_multi']),
]
