# Quarter-width AVOL-Nets for the baselines on the demo's clips: those of the
# localizer (configs/avdet/_base_/avol-net_small.py), so that methods differ
# and networks do not.
channels = 128
model = dict(
    data_preprocessor=dict(
        type='avdet_mm.AudioVisualDataPreprocessor',
        n_mels=64,
        win_length=960,
        hop_length=480),
    visual_backbone=dict(
        type='avdet_mm.AVOLNet', base_channels=16, pooled_stages=(0, 1)),
    audio_backbone=dict(
        type='avdet_mm.AVOLNet', in_channels=1, base_channels=16))
