# The detector on StampSound's self-labels, preset full: as
# faster-rcnn_small.py, with 40 classes.
_base_ = ['./faster-rcnn_small.py']
data_root = '{{$AVDET_STAMPSOUND:data}}/stampsound_full/'
run_dir = ('{{$AVDET_WORK_DIRS:work_dirs}}/stampsound_full/'
           'seed{{$AVDET_SEED:0}}')
num_clusters = 40
classes = ('bear', 'bison', 'camel', 'chimp', 'cow', 'crow', 'dog', 'dolphin',
           'donkey', 'drumkit', 'duck', 'elephant', 'firetruck', 'fox', 'frog',
           'goat', 'goose', 'grasshopper', 'hen', 'hippopotamus', 'hornet',
           'horse', 'koala', 'lion', 'orca', 'owl', 'penguin', 'rooster',
           'sea_lion', 'seagull', 'sheep', 'squirrel', 'tiger', 'toilet',
           'toucan', 'turkey', 'violin', 'vulture', 'whale', 'zebra')
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint=run_dir + '/localizer/epoch_14.pth')),
    roi_head=dict(bbox_head=dict(num_classes=num_clusters)))
train_dataloader = dict(
    dataset=dict(
        ann_file=run_dir + '/self_labels.json',
        data_prefix=dict(img=run_dir),
        metainfo=dict(
            classes=tuple(f'cluster_{k}' for k in range(num_clusters)))))
test_dataloader = dict(
    dataset=dict(data_root=data_root, metainfo=dict(classes=classes)))
test_evaluator = dict(
    ann_file=data_root + 'test_coco.json',
    matching=run_dir + '/matching.json')
