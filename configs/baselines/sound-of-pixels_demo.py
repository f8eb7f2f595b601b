# Sound of Pixels on the demo's clips, with a U-Net of their size: 64 x 64
# cells of 1.49 s at the public code's sampling rate.
_base_ = ['./_base_/demo.py', './_base_/avol-net_small.py']
work_dir = _base_.demo_dir + '/sound-of-pixels'
sample_rate = 11025
audio_duration = 16383 / sample_rate  # clips have 1.625 s
model = dict(
    type='avdet_mm.SoundOfPixels',
    data_preprocessor=dict(
        _delete_=True, type='avdet_mm.WaveformDataPreprocessor'),
    # The public code's frame trunk starts from ImageNet, and six epochs from
    # scratch teach it next to nothing; ours starts from that of
    # configs/avdet/pretrain_demo.py, also learned without labels.
    visual_backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint=_base_.demo_dir + '/pretrain/epoch_6.pth',
            prefix='visual_backbone.')),
    audio_backbone=dict(
        _delete_=True,
        type='avdet_mm.SoundUNet',
        out_channels=16,
        base_channels=8,
        num_levels=5),
    visual_channels=_base_.channels,
    # Ours: at first hardly any location sounds (PyTorch's scale of weights,
    # but a bias of -2); maximum pooling then raises few of them.
    init_cfg=dict(
        type='Normal',
        layer=[],
        override=dict(type='Normal', name='visual_conv', std=0.017, bias=-2)),
    n_fft=510,
    hop_length=256,
    num_bins=64)
# The pipelines' first step loads the sound.
load_clip = dict(sample_rate=sample_rate, audio_duration=audio_duration)
train_pipeline = [
    dict(_base_.train_pipeline[0], **load_clip), *_base_.train_pipeline[1:]
]
label_pipeline = [
    dict(_base_.label_pipeline[0], **load_clip), *_base_.label_pipeline[1:]
]
train_dataloader = dict(
    batch_size=16, dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=label_pipeline))
# The rate of the trunk is a tenth of the others', as in the public code.
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(visual_backbone=dict(lr_mult=0.1))))
# No log-mel, so no statistics of it.
custom_hooks = [dict(type='avdet_mm.EpochSeedHook')]
