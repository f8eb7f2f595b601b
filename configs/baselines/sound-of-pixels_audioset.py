# Sound of Pixels (Zhao et al., ECCV 2018) on AudioSet-Instruments, trained as
# its public code is on MUSIC: 4 GPUs with 20 clips each.
_base_ = ['./_base_/resnet18_audioset.py']
work_dir = '{{$AVDET_WORK_DIRS:work_dirs}}/sound-of-pixels_audioset'
sample_rate = 11025
audio_duration = 65535 / sample_rate  # 256 windows of 1022 every 256
max_epochs = 100
lr = 1e-3
model = dict(
    type='avdet_mm.SoundOfPixels',
    data_preprocessor=dict(
        _delete_=True, type='avdet_mm.WaveformDataPreprocessor'),
    # The last stage is dilated instead of strided. (Here the first of a
    # block's two convolutions is, in the public code all but the stage's
    # first.)
    visual_backbone=dict(dilations=(1, 1, 1, 2)),
    audio_backbone=dict(
        _delete_=True,
        type='avdet_mm.SoundUNet',
        out_channels=32,
        base_channels=64,
        num_levels=7),
    visual_channels=_base_.channels,
    n_fft=1022,
    hop_length=256,
    num_bins=256)
# The pipelines' first step loads the sound, of 5.94 s.
load_clip = dict(sample_rate=sample_rate, audio_duration=audio_duration)
train_pipeline = [
    dict(_base_.train_pipeline[0], **load_clip),
    *_base_.train_pipeline[1:4],
    dict(type='avdet_mm.RandomAudioGain', gain_range=(0.5, 1.5)),
    _base_.train_pipeline[5],
]
whole_pipeline = [
    dict(_base_.whole_pipeline[0], **load_clip), *_base_.whole_pipeline[1:]
]
train_dataloader = dict(
    batch_size=20, dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=whole_pipeline))
auto_scale_lr = dict(enable=False, base_batch_size=80)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True, type='SGD', lr=lr, momentum=0.9, weight_decay=1e-4),
    # The frame network's trunk, which starts from ImageNet, learns slowly.
    paramwise_cfg=dict(custom_keys=dict(visual_backbone=dict(lr_mult=0.1))))
param_scheduler = [
    dict(type='MultiStepLR', milestones=[40, 80], gamma=0.1)
]
# No log-mel, so no statistics of it.
custom_hooks = [dict(type='avdet_mm.EpochSeedHook')]
