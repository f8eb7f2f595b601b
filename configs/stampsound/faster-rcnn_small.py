# The detector on StampSound's self-labels, preset small: MMDetection's Faster
# R-CNN FPN. Everything is stock but the backbone, the localizer's visual
# encoder with its weights; few channels and proposals keep a CPU busy for
# minutes instead of hours.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/default_runtime.py'
]
custom_imports = dict(imports=['avdet_mm'], allow_failed_imports=False)
data_root = '{{$AVDET_STAMPSOUND:data}}/stampsound_small/'
run_dir = ('{{$AVDET_WORK_DIRS:work_dirs}}/stampsound_small/'
           'seed{{$AVDET_SEED:0}}')
randomness = dict(seed=int('{{$AVDET_SEED:0}}'))
num_clusters = 10
classes = ('drumkit', 'firetruck', 'frog', 'hen', 'hornet', 'penguin', 'tiger',
           'toucan', 'violin', 'zebra')
image_size = (112, 112)
channels = 64

model = dict(
    data_preprocessor=dict(pad_size_divisor=8),
    backbone=dict(
        _delete_=True,
        type='avdet_mm.AVOLNet',
        base_channels=32,
        pooled_stages=(0, 1),
        out_indices=(1, 3),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=run_dir + '/localizer/epoch_8.pth',
            prefix='visual_backbone.')),
    neck=dict(in_channels=[64, 256], out_channels=channels, num_outs=4),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(
            scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=channels, featmap_strides=[4, 8], finest_scale=32),
        bbox_head=dict(
            in_channels=channels,
            fc_out_channels=256,
            num_classes=num_clusters)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(
        rpn=dict(nms_pre=300, max_per_img=50),
        rcnn=dict(score_thr=0.01)))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor')),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=False,
    worker_init_fn=dict(type='avdet_mm.seed_worker'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='CocoDataset',
        ann_file=run_dir + '/self_labels.json',
        data_prefix=dict(img=run_dir),
        metainfo=dict(
            classes=tuple(f'cluster_{k}' for k in range(num_clusters))),
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
        pipeline=train_pipeline))
test_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        ann_file='test_coco.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test_pipeline))
test_evaluator = dict(
    type='avdet_mm.MatchedCocoMetric',
    ann_file=data_root + 'test_coco.json',
    matching=run_dir + '/matching.json')

# The detector is evaluated once, by tools/test.py.
max_epochs = 3
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
val_cfg = None
val_dataloader = None
val_evaluator = None
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10.))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        eta_min=1e-5,
        convert_to_iter_based=True),
]
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(
        type='avdet_mm.AtomicCheckpointHook', interval=1, max_keep_ckpts=1))
custom_hooks = [dict(type='avdet_mm.EpochSeedHook')]
