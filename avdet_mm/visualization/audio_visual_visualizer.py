"""Heatmap, self-box and ground truth of a clip, side by side."""

from typing import List, Optional

import mmcv
import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.visualization import Visualizer

from avdet_mm.registry import VISUALIZERS
from avdet_mm.structures import AudioVisualDataSample

from .drawing import GRAY, GREEN, ORANGE, draw_boxes, enlarge, heatmap_overlay


@VISUALIZERS.register_module()
class AudioVisualVisualizer(Visualizer):
    """Draw outputs of localizers and baselines.

    The left panel shows the frame with the ground truth (sounding objects
    green, silent ones gray), the right one the heatmap with the predicted
    boxes (orange). A panel that has nothing to show is left out.

    Args:
        name (str): Name of the instance. Defaults to 'visualizer'.
        vis_backends (list, optional): Configs of MMEngine's backends.
        save_dir (str, optional): Folder of the backends.
        min_side (int): Frames with a shorter side are enlarged to about
            this many pixels. Defaults to 320.
    """

    def __init__(
        self,
        name: str = 'visualizer',
        vis_backends: Optional[List[dict]] = None,
        save_dir: Optional[str] = None,
        min_side: int = 320,
    ) -> None:
        super().__init__(
            name=name, vis_backends=vis_backends, save_dir=save_dir
        )
        self.min_side = min_side

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: Optional[AudioVisualDataSample] = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: Optional[str] = None,
        pred_score_thr: float = 0.0,
        step: int = 0,
    ) -> None:
        """Draw one clip and show it, write it or hand it to the backends.

        Args:
            name (str): Title of the window and name in the backends.
            image (np.ndarray): (H, W, 3) uint8 RGB, the original frame.
            data_sample (AudioVisualDataSample, optional): What to draw; all
                boxes in pixels of the original frame.
            draw_gt (bool): Whether to draw ``gt_instances``.
                Defaults to True.
            draw_pred (bool): Whether to draw ``pred_instances`` and
                ``heatmap``. Defaults to True.
            show (bool): Whether to open a window. Defaults to False.
            wait_time (float): Seconds until the window closes; 0 waits for a
                key. Defaults to 0.
            out_file (str, optional): Image file to write instead of handing
                the picture to the backends.
            pred_score_thr (float): Boxes below are left out. Defaults to 0.
            step (int): Step in the backends. Defaults to 0.
        """
        panels = []
        if data_sample is not None:
            if draw_gt and 'gt_instances' in data_sample:
                panels.append(self._ground_truth(image, data_sample))
            if draw_pred and (
                'pred_instances' in data_sample or 'heatmap' in data_sample
            ):
                panels.append(
                    self._prediction(image, data_sample, pred_score_thr)
                )
        drawn = np.concatenate(
            panels or [enlarge(image, self.min_side)[0]], axis=1
        )
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(drawn[..., ::-1], out_file)
        else:
            self.add_image(name, drawn, step)

    def _ground_truth(
        self, image: np.ndarray, sample: AudioVisualDataSample
    ) -> np.ndarray:
        gt = sample.gt_instances
        panel, factor = enlarge(image, self.min_side)
        sounding = gt.get('sounding', torch.ones(len(gt), dtype=torch.bool))
        classes = (self.dataset_meta or {}).get('classes')
        texts = None
        if classes and 'labels' in gt:
            texts = [classes[i] for i in gt.labels.tolist()]
        return draw_boxes(
            panel,
            gt.bboxes.cpu().numpy() * factor,
            [GREEN if s else GRAY for s in sounding.tolist()],
            texts,
        )

    def _prediction(
        self,
        image: np.ndarray,
        sample: AudioVisualDataSample,
        score_thr: float,
    ) -> np.ndarray:
        if 'heatmap' in sample:
            image = heatmap_overlay(
                image,
                sample.heatmap,
                sample.get('img_shape'),
                sample.get('homography_matrix'),
            )
        panel, factor = enlarge(image, self.min_side)
        if 'pred_instances' not in sample:
            return panel
        pred = sample.pred_instances
        pred = pred[pred.scores >= score_thr].cpu()
        texts = [
            f'{label} | {score:.2f}'
            for label, score in zip(pred.labels.tolist(), pred.scores.tolist())
        ]
        return draw_boxes(panel, pred.bboxes.numpy() * factor, ORANGE, texts)
