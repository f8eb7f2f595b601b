# PCL (Table 1 of the paper) on the demo's clips: the frames and classes of
# weak_labels.json, never its boxes. Backbone and initialization are those of
# configs/avdet/faster-rcnn_avol-net_fpn_demo.py, so that only the supervision
# differs; one feature map, without FPN, as in the authors' code.
_base_ = ['../avdet/faster-rcnn_avol-net_fpn_demo.py']
classes = _base_.test_dataloader.dataset.metainfo.classes

model = dict(
    _delete_=True,
    type='FastRCNN',
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=dict(_base_.model.backbone, out_indices=(3, )),
    roi_head=dict(
        type='avdet_mm.PCLRoIHead',
        num_classes=len(classes),
        in_channels=128,
        fc_channels=128,
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=5, sampling_ratio=1),
            out_channels=128,
            featmap_strides=[8])),
    train_cfg=None,
    test_cfg=dict(
        rcnn=dict(
            score_thr=0.001,
            nms=dict(type='nms', iou_threshold=0.3),
            max_per_img=100)))

# OpenCV needs its module ximgproc (opencv-contrib-python).
proposals = dict(
    type='avdet_mm.SelectiveSearchProposals',
    cache_dir=_base_.demo_dir + '/selective_search',
    max_proposals=200)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    # Half of them, to save time.
    dict(proposals, max_proposals=100),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='ProposalBroadcaster',
        transforms=[
            dict(type='Resize', scale=_base_.image_size, keep_ratio=True),
            dict(type='RandomFlip', prob=0.5),
        ]),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    proposals,
    dict(
        type='ProposalBroadcaster',
        transforms=[
            dict(type='Resize', scale=_base_.image_size, keep_ratio=True),
        ]),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor')),
]
train_dataloader = dict(
    dataset=dict(
        ann_file=_base_.demo_dir + '/weak_labels.json',
        metainfo=dict(classes=classes),
        pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader
test_evaluator = dict(matching=None)
val_evaluator = test_evaluator
