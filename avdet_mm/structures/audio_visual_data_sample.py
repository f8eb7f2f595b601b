"""The one output type of localizers and heatmap baselines."""
from mmdet.structures import DetDataSample


class AudioVisualDataSample(DetDataSample):
    """A :class:`mmdet.structures.DetDataSample` with audio-visual fields.

    All boxes, predicted or ground truth, are ``xyxy`` in pixels of the
    *original* frame; ``homography_matrix`` (3, 3) in the meta info maps
    original pixels to those of the network's input.

    Attributes:
        pred_instances (InstanceData): ``bboxes`` (n, 4), ``scores`` (n,)
            and ``labels`` (n,), as in MMDetection. ``labels`` are clusters.
        gt_instances (InstanceData): Ground truth for evaluation only:
            ``bboxes`` (m, 4), ``labels`` (m,), ``sounding`` (m,) bool.
        heatmap (Tensor): (h, w) cosine of the audio vector with every
            location of the network's input (Sec. 3.1).
        visual_logits (Tensor): (K,) cluster logits of the frame.
        audio_logits (Tensor): (K,) cluster logits of the sound.

    Meta info: ``clip_id``, ``sample_idx``, ``time`` (s), ``ori_shape``,
    ``img_shape``, ``homography_matrix``; ``gt_label`` (class index of the
    sounding object, evaluation only) where the clip table has it.
    """
