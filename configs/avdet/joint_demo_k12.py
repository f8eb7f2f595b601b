# Ablation: 12 clusters for the 8 classes of the demo (Table 5).
_base_ = ['./joint_demo.py']
num_clusters = 12
model = dict(cluster_head=dict(num_clusters=num_clusters))
custom_hooks = _base_.custom_hooks
custom_hooks[-1].out_file = _base_.demo_dir + '/self_labels_k12.json'
custom_hooks[-1].dump_file = None
