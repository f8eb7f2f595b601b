# The detector on the self-labels of joint_demo_k6.py.
_base_ = ['./faster-rcnn_avol-net_fpn_demo.py']
num_clusters = 6
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint=_base_.demo_dir + '/joint_k6/epoch_7.pth')),
    roi_head=dict(bbox_head=dict(num_classes=num_clusters)))
train_dataloader = dict(
    dataset=dict(
        ann_file=_base_.demo_dir + '/self_labels_k6.json',
        metainfo=dict(
            classes=tuple(f'cluster_{k}' for k in range(num_clusters)))))
test_evaluator = dict(matching=_base_.demo_dir + '/matching_k6.json')
val_evaluator = test_evaluator
