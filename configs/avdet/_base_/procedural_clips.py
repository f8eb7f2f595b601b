# Procedural clips (tools/dataset_converters/procedural_clips.py), as the
# demo writes them. The environment variable moves the whole demo elsewhere.
demo_dir = '{{$AVDET_DEMO_DIR:work_dirs/demo}}'
data_root = demo_dir + '/data/'
frame_size = 108
crop_size = 96

# The decoded clips stay in memory (1.6 GB), so no loader workers are needed.
# Larger sets: cache=False, num_workers=8 (say) and
# worker_init_fn=dict(type='avdet_mm.seed_worker').
train_pipeline = [
    dict(type='avdet_mm.LoadClip', frame_time='random', cache=True),
    dict(type='mmdet.Resize', scale=(100000, frame_size), keep_ratio=True),
    dict(
        type='mmdet.RandomCrop',
        crop_size=(crop_size, crop_size),
        crop_type='absolute'),
    dict(type='mmdet.RandomFlip', prob=0.5),
    dict(type='avdet_mm.RandomAudioGain'),
    dict(type='avdet_mm.PackAudioVisualInputs'),
]
# Whole frames: the encoder is fully convolutional.
test_pipeline = [
    dict(type='avdet_mm.LoadClip', frame_time='middle', cache=True),
    dict(type='mmdet.Resize', scale=(100000, frame_size), keep_ratio=True),
    dict(type='avdet_mm.PackAudioVisualInputs'),
]
# Self-boxes come from larger frames, whose heatmaps are finer. Of 108, 135
# and 162 pixels, the boxes of a frame and of its mirror image agree best at
# 135; no ground truth is needed to see that.
label_size = 135
label_pipeline = [
    dict(type='avdet_mm.LoadClip', frame_time='middle', cache=True),
    dict(type='mmdet.Resize', scale=(100000, label_size), keep_ratio=True),
    dict(type='avdet_mm.PackAudioVisualInputs'),
]
train_dataset = dict(
    type='avdet_mm.AudioVisualDataset',
    ann_file='train.json',
    data_root=data_root)
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(pipeline=train_pipeline, **train_dataset))
# All training clips in a fixed order: self-labels and pseudo-labels.
label_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(pipeline=test_pipeline, test_mode=True, **train_dataset))
# The quality of heatmaps and clusters, on some training clips. The ground
# truth is only printed; nothing is chosen by it.
val_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        pipeline=test_pipeline,
        test_mode=True,
        indices=256,
        **train_dataset))
test_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='avdet_mm.AudioVisualDataset',
        ann_file='test.json',
        data_root=data_root,
        pipeline=label_pipeline,
        test_mode=True))
