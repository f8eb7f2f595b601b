# The demo's ceiling: the same detector trained on ground-truth boxes of the
# sounding objects instead of self-labels.
_base_ = ['./faster-rcnn_avol-net_fpn_demo.py']
data_root = '{{$AVDET_DEMO_DIR:work_dirs/demo}}/data/'
train_dataloader = dict(
    dataset=dict(
        ann_file=data_root + 'train_coco.json',
        data_prefix=dict(img=data_root + 'train_images/'),
        metainfo=dict(classes={{_base_.test_dataloader.dataset.metainfo.classes}})))
test_evaluator = dict(matching=None)
val_evaluator = test_evaluator
