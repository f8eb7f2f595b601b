# Selective search (Table 1 of the paper) on the test images.
_base_ = ['./faster-rcnn_small.py']
model = dict(_delete_=True, type='avdet_mm.SelectiveSearch')
train_dataloader = None
train_cfg = None
optim_wrapper = None
param_scheduler = None
test_dataloader = dict(
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        # 100 boxes of an image count; the paper does not tell its number.
        dict(
            type='avdet_mm.SelectiveSearchProposals',
            cache_dir=_base_.run_dir + '/../selective_search',
            max_proposals=100),
        dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
    ]))
test_evaluator = dict(matching=None, class_aware=False)
