# "Selective search" of the paper's Table 1 on its test images:
#   python tools/test.py configs/baselines/selective-search_vggsound.py
# Proposals are kept in the folder that is named here; pcl_vggsound.py reads
# them there. OpenCV needs its module ximgproc (opencv-contrib-python).
_base_ = ['./_base_/vggsound_test.py']
work_dir = _base_.work_root + '/selective-search_vggsound'
model = dict(type='avdet_mm.SelectiveSearch')
test_dataloader = dict(
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        # 100 boxes of an image count; the paper does not tell its number.
        dict(
            type='avdet_mm.SelectiveSearchProposals',
            cache_dir=_base_.work_root + '/selective_search',
            max_proposals=100),
        dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
    ]))
