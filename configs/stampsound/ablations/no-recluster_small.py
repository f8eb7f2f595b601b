# The labels with which the heads take over are their own, not those of sounds
# clustered again by their embeddings.
_base_ = ['../localizer_small.py']
# No self-boxes for a detector.
custom_hooks = _base_.custom_hooks[:5]
custom_hooks[4].update(recluster=False)
