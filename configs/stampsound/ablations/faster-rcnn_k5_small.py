# The detector on the self-labels of k5_small.py.
_base_ = ['../faster-rcnn_small.py']
num_clusters = 5
model = dict(
    backbone=dict(
        init_cfg=dict(
            checkpoint=_base_.run_dir + '/ablation_k5/epoch_8.pth')),
    roi_head=dict(bbox_head=dict(num_classes=num_clusters)))
train_dataloader = dict(
    dataset=dict(
        ann_file=_base_.run_dir + '/self_labels_k5.json',
        metainfo=dict(
            classes=tuple(f'cluster_{k}' for k in range(num_clusters)))))
test_evaluator = dict(matching=_base_.run_dir + '/matching_k5.json')
