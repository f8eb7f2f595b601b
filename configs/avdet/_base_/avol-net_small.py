# A quarter-width AVOL-Net with a heatmap of stride 8, for small frames on a
# CPU. The audio front end has 64 bands every 20 ms instead of 257 every 10.
channels = 128
model = dict(
    type='avdet_mm.AudioVisualLocalizer',
    data_preprocessor=dict(
        type='avdet_mm.AudioVisualDataPreprocessor',
        n_mels=64,
        win_length=960,
        hop_length=480),
    visual_backbone=dict(
        type='avdet_mm.AVOLNet', base_channels=16, pooled_stages=(0, 1)),
    audio_backbone=dict(
        type='avdet_mm.AVOLNet', in_channels=1, base_channels=16),
    localization_head=dict(
        type='avdet_mm.ContrastiveLocalizationHead',
        visual_channels=channels,
        audio_channels=channels,
        hidden_channels=128,
        embed_channels=128,
        pooling='mean',
        temperature=0.05),
    # The paper's value, on the side that its text fits.
    box_extractor=dict(
        type='avdet_mm.HeatmapBoxExtractor', beta=0.7, beta_on='mean'))
