# "Ours - weak sup.": the self-boxes of localizer_full.py with the class of
# each clip's label instead of its cluster. Nothing is trained:
#   python tools/generate_pseudo_labels.py configs/stampsound/weak_full.py \
#       work_dirs/stampsound_full/seed0/localizer/epoch_14.pth
_base_ = ['./localizer_full.py']
custom_hooks = _base_.custom_hooks[-1:]
custom_hooks[0].out_file = _base_.run_dir + '/weak_labels.json'
custom_hooks[0].dump_file = None
custom_hooks[0].label_source = 'ground_truth'
train_dataloader = None
train_cfg = None
optim_wrapper = None
param_scheduler = None
val_dataloader = None
val_cfg = None
val_evaluator = None
