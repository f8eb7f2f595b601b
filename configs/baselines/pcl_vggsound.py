# PCL of the paper's Table 1 on VGGSound: the frames and classes of
# weak_labels.json (configs/avdet/weak_vggsound.py), never its boxes.
#
# The paper found that PCL does not learn from clips whose instrument is not
# to be seen, and kept only frames in which a supervised detector finds one.
# The same here, with any detector of MMDetection that knows instruments:
#   python tools/dataset_converters/pseudo_ground_truth.py DETECTOR.py \
#       DETECTOR.pth --clips data/vggsound/mappable_train.json \
#       --class-map openimages_instruments --out data/vggsound/pcl_train.json
# and, for the training,
#   --cfg-options \
#       train_dataloader.dataset.ann_file=data/vggsound/pcl_train_coco.json \
#       train_dataloader.dataset.data_prefix.img=data/vggsound
# Classes are then those that the detector finds, not those of the clips:
# if anything more help than in the paper, where it already is "unfair".
#
# The authors' code starts from a VGG16 that has learned from ImageNet's
# labels. Here the backbone is the ResNet-50 by SimCLR of the paper's
# detector, as a single map of stride 16 (theirs: 8) with a dilated last stage
# (as theirs): PCL and detector then differ in supervision and not in what
# they start from, and no weights are needed that other configs do not need.
_base_ = ['../avdet/faster-rcnn_r50-simclr_fpn_vggsound-weak.py']
work_dir = _base_.work_root + '/pcl_vggsound'
classes = _base_.classes
channels = 512
# The authors' code, also where the rate falls: 70,000 iterations of 4 images
# are about 12 epochs of 23,000 images.
max_epochs = 12
lr = 1e-3
momentum = 0.9
weight_decay = 5e-4
train_scales = [(2000, s) for s in (480, 576, 688, 864, 1200)]
test_scale = (2000, 688)

model = dict(
    _delete_=True,
    type='FastRCNN',
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=dict(
        _base_.model.backbone,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        out_indices=(3, )),
    # As many channels as VGG16 has.
    neck=dict(
        type='ChannelMapper',
        in_channels=[2048],
        out_channels=channels,
        kernel_size=1,
        act_cfg=None,
        num_outs=1),
    roi_head=dict(
        type='avdet_mm.PCLRoIHead',
        num_classes=len(classes),
        in_channels=channels,
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
            out_channels=channels,
            featmap_strides=[16])),
    train_cfg=None,
    test_cfg=dict(
        rcnn=dict(
            score_thr=0.001,
            nms=dict(type='nms', iou_threshold=0.3),
            max_per_img=100)))

# OpenCV needs its module ximgproc (opencv-contrib-python).
proposals = dict(
    type='avdet_mm.SelectiveSearchProposals',
    cache_dir=_base_.work_root + '/selective_search')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    proposals,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='ProposalBroadcaster',
        transforms=[
            dict(
                type='RandomChoiceResize',
                scales=train_scales,
                keep_ratio=True),
            dict(type='RandomFlip', prob=0.5),
        ]),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    proposals,
    dict(
        type='ProposalBroadcaster',
        transforms=[dict(type='Resize', scale=test_scale, keep_ratio=True)]),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor')),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader

train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(
    optimizer=dict(lr=lr, momentum=momentum, weight_decay=weight_decay),
    paramwise_cfg=dict(bias_lr_mult=2.))
param_scheduler = [
    dict(
        type='MultiStepLR',
        by_epoch=True,
        milestones=[max_epochs * 5 // 7],
        gamma=0.1)
]
auto_scale_lr = dict(base_batch_size=4)
# The first hook alone: no epochs without classes.
custom_hooks = _base_.custom_hooks[:1]
