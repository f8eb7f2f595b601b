# 5 clusters for ten classes.
_base_ = ['../localizer_small.py']
num_clusters = 5
model = dict(cluster_head=dict(num_clusters=num_clusters))
custom_hooks = _base_.custom_hooks
custom_hooks[5].out_file = _base_.run_dir + '/self_labels_k5.json'
custom_hooks[5].dump_file = None
