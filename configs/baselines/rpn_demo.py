# In place of "COCO RPN" (Table 1 of the paper), whose weights would not fit
# the demo's drawings: MMDetection's RPN on the demo detector's backbone,
# trained with the ground-truth boxes of the *training* images. It is
# supervised by boxes, as COCO's is; it knows the very objects that are
# tested, as COCO's does not.
_base_ = ['../avdet/faster-rcnn_avol-net_fpn_demo-gt.py']
model = dict(
    _delete_=True,
    type='RPN',
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=_base_.model.backbone,
    neck=_base_.model.neck,
    rpn_head=_base_.model.rpn_head,
    train_cfg=dict(rpn=_base_.model.train_cfg.rpn),
    test_cfg=dict(
        rpn=dict(
            nms_pre=300,
            max_per_img=100,
            nms=dict(type='nms', iou_threshold=0.7),
            min_bbox_size=0)))
test_evaluator = dict(matching=None, class_aware=False)
val_evaluator = test_evaluator
