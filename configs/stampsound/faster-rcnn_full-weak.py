# "Ours - weak sup.": the same detector on self-boxes with the class of their
# clip's label (weak_full.py). Nothing is matched.
_base_ = ['./faster-rcnn_full.py']
train_dataloader = dict(
    dataset=dict(
        ann_file=_base_.run_dir + '/weak_labels.json',
        metainfo=dict(classes=_base_.classes)))
test_evaluator = dict(matching=None)
