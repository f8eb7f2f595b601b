# The localizer on StampSound, preset full: as localizer_small.py, with 40
# classes, smaller objects, more distractors, and six epochs more.
_base_ = ['./localizer_small.py']
data_root = '{{$AVDET_STAMPSOUND:data}}/stampsound_full/'
run_dir = ('{{$AVDET_WORK_DIRS:work_dirs}}/stampsound_full/'
           'seed{{$AVDET_SEED:0}}')
num_clusters = 40
model = dict(cluster_head=dict(num_clusters=num_clusters))
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
max_epochs = 14
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].T_max = max_epochs
custom_hooks = _base_.custom_hooks
custom_hooks[3].end_epoch = 10
custom_hooks[4].begin = 3
custom_hooks[4].num_updates = 11
custom_hooks[4].dataloader.dataset.data_root = data_root
custom_hooks[5].dataloader.dataset.data_root = data_root
custom_hooks[5].out_file = run_dir + '/self_labels.json'
custom_hooks[5].dump_file = run_dir + '/localizer_predictions.pkl'
