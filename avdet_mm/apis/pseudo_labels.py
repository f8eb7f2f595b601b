"""Self-labels as a COCO json, the input of the detector (Sec. 3.2-3.3)."""
import datetime
import os.path as osp
import pickle
from typing import Dict, Optional

import mmengine
import torch
from mmengine.dist import gather_object, is_main_process
from mmengine.logging import MMLogger
from torch.nn import Module
from torch.utils.data import DataLoader

from avdet_mm.datasets.coco import to_coco
from avdet_mm.engine.utils import unwrap
from avdet_mm.utils import atomic_write, dump_json
from avdet_mm.version import __version__


@torch.no_grad()
def generate_pseudo_labels(model: Module,
                           dataloader: DataLoader,
                           out_file: str,
                           dump_file: Optional[str] = None,
                           info: Optional[dict] = None) -> Dict[str, int]:
    """Label every clip of a dataloader with its self-box and cluster.

    The json is an ordinary COCO file with one category ``cluster_k`` per
    cluster. Its images are frames: the dataset's own image files, or those
    that :class:`ExportFrame` wrote. Each image carries ``clip_id`` and
    ``time``, each annotation ``score`` (largest cosine in the box) and
    ``label_score`` (posterior of the cluster). On several ranks each labels
    its share and the main process writes the file.

    Args:
        model (nn.Module): A localizer, wrapped or not.
        dataloader (DataLoader): Clips in a fixed order, deterministic
            pipeline.
        out_file (str): The json, written atomically. File names of images
            are relative to its folder.
        dump_file (str, optional): Pickle of all predictions, a list of
            dicts as MMEngine's ``DumpResults`` writes it.
        info (dict, optional): Provenance to add to the json's ``info``.

    Returns:
        dict: Counts ``images``, ``annotations``, and ``without_box``
        (constant heatmaps); empty on other ranks than the main process.

    Raises:
        ValueError: If a sample has no image file.
    """
    model = unwrap(model)
    training = model.training
    model.eval()
    results = {}
    batches = mmengine.track_iter_progress(
        (dataloader, len(dataloader))) if is_main_process() else dataloader
    for batch in batches:
        data = model.data_preprocessor(batch, False)
        for sample in model(**data, mode='predict'):
            sample = sample.cpu()
            results[sample.sample_idx] = (
                _record(sample), sample.to_dict() if dump_file else None)
    model.train(training)

    # Keyed by clip, so neither sharding nor padding by the sampler matters.
    parts = gather_object(results)
    if not is_main_process():
        return {}
    merged = {index: r for part in parts for index, r in part.items()}
    records, dumps = zip(*(merged[index] for index in sorted(merged)))
    extractor = model.box_extractor
    num_clusters = model.cluster_head.num_clusters if model.cluster_head else 1
    coco = to_coco(
        (_coco_image(r, osp.dirname(out_file)) for r in records),
        [f'cluster_{k}' for k in range(num_clusters)],
        info=dict(
            description='Self-labels by audio-visual correspondence',
            generator=f'avdet_mm {__version__}',
            date_created=datetime.datetime.now().isoformat('T', 'seconds'),
            beta=list(extractor.beta_range),
            beta_on=extractor.beta_on,
            multi=extractor.multi,
            **(info or {})))
    dump_json(coco, out_file)
    if dump_file is not None:
        with atomic_write(dump_file, 'wb') as file:
            pickle.dump(list(dumps), file)
    counts = dict(
        images=len(records),
        annotations=sum(len(r['bboxes']) for r in records),
        without_box=sum(not r['bboxes'] for r in records))
    MMLogger.get_current_instance().info(
        f'Wrote {out_file}: {counts["images"]} images, '
        f'{counts["annotations"]} self-boxes; {counts["without_box"]} '
        'images without a box (constant heatmap).')
    return counts


def _record(sample) -> dict:
    if sample.get('img_path') is None:
        raise ValueError(
            f'Clip {sample.clip_id} has no image file for the detector to '
            "train on. Put dict(type='avdet_mm.ExportFrame', out_dir=...) "
            'behind LoadClip in the pipeline.')
    pred = sample.pred_instances
    return dict(
        clip_id=sample.clip_id,
        time=float(sample.time),
        img_path=sample.img_path,
        ori_shape=tuple(int(x) for x in sample.ori_shape[:2]),
        bboxes=pred.bboxes.tolist(),
        scores=pred.scores.tolist(),
        labels=pred.labels.tolist(),
        label_scores=pred.get('label_scores', pred.scores).tolist())


def _coco_image(record: dict, root: str) -> dict:
    """A record as :func:`to_coco` takes it; cluster names as labels."""
    height, width = record['ori_shape']
    return dict(
        file_name=osp.relpath(record['img_path'], root or '.'),
        height=height,
        width=width,
        clip_id=record['clip_id'],
        time=record['time'],
        instances=[
            dict(
                bbox=box,
                label=f'cluster_{label}',
                score=score,
                label_score=label_score) for box, score, label, label_score in
            zip(record['bboxes'], record['scores'], record['labels'],
                record['label_scores'])
        ])
