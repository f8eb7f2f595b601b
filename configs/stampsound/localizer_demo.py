# The recipe of localizer_small.py on the demo's generated clips (make demo),
# to be compared with the demo's own localizer, configs/avdet/joint_demo.py:
#   python tools/train.py configs/stampsound/localizer_demo.py
#   python tools/test.py configs/stampsound/localizer_demo.py \
#       work_dirs/localizer_demo/epoch_8.pth
_base_ = ['./localizer_small.py']
data_root = '{{$AVDET_DEMO_DIR:work_dirs/demo}}/data/'
num_clusters = 8
model = dict(cluster_head=dict(num_clusters=num_clusters))
# Videos are decoded once and kept, as by the demo; and, as there, boxes come
# from frames of 135 pixels.
train_pipeline = _base_.train_pipeline
train_pipeline[0].cache = True
test_pipeline = _base_.test_pipeline
test_pipeline[0].cache = True
test_pipeline[1].scale = (100000, 135)
loader = dict(num_workers=0)
train_dataloader = dict(
    loader, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(
    loader, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = dict(
    loader, dataset=dict(data_root=data_root, pipeline=test_pipeline))
custom_hooks = _base_.custom_hooks[:5]
custom_hooks[4].dataloader.update(loader)
custom_hooks[4].dataloader.dataset.update(
    data_root=data_root, pipeline=test_pipeline)
