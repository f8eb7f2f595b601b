# "Ours - weak sup.": the same detector on self-boxes with the class of their
# clip's label (weak_small.py). Nothing is matched.
_base_ = ['./faster-rcnn_small.py']
train_dataloader = dict(
    dataset=dict(
        ann_file=_base_.run_dir + '/weak_labels.json',
        metainfo=dict(classes=_base_.classes)))
test_evaluator = dict(matching=None)
