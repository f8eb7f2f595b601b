# The ceiling: the same detector trained on ground-truth boxes.
_base_ = ['./faster-rcnn_small.py']
train_dataloader = dict(
    dataset=dict(
        ann_file=_base_.data_root + 'train_coco.json',
        data_prefix=dict(img=_base_.data_root),
        metainfo=dict(classes=_base_.classes)))
test_evaluator = dict(matching=None)
