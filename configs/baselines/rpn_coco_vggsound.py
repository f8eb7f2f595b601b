# "COCO RPN" of the paper's Table 1 on its test images: MMDetection's RPN with
# its weights from COCO, 100 boxes after NMS at 0.7. Nothing is trained:
#   python tools/test.py configs/baselines/rpn_coco_vggsound.py WEIGHTS
# with WEIGHTS of rpn/rpn_r50_fpn_1x_coco.py from MMDetection's model zoo.
_base_ = [
    'mmdet::_base_/models/rpn_r50_fpn.py', './_base_/vggsound_test.py'
]
work_dir = _base_.work_root + '/rpn_coco_vggsound'
model = dict(
    # WEIGHTS has the backbone.
    backbone=dict(init_cfg=None),
    test_cfg=dict(rpn=dict(max_per_img=100)))
test_dataloader = dict(
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(1333, 800), keep_ratio=True),
        dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                       'scale_factor')),
    ]))
