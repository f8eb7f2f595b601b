# "Ours - weak sup." on the demo's clips: the same detector, on self-boxes
# with the class of their clip's label (weak_demo.py). Nothing is matched.
_base_ = ['./faster-rcnn_avol-net_fpn_demo.py']
train_dataloader = dict(
    dataset=dict(
        ann_file=_base_.demo_dir + '/weak_labels.json',
        metainfo=dict(
            classes=_base_.test_dataloader.dataset.metainfo.classes)))
test_evaluator = dict(matching=None)
val_evaluator = test_evaluator
