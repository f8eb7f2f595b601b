"""Self-labels as a COCO json, the input of the detector (Sec. 3.2-3.3)."""
import copy
import datetime
import json
import os.path as osp
import pickle
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Deque, Dict, Iterable, Iterator, List, Optional, Tuple

import numpy as np
import torch
from mmengine.dist import gather_object, is_main_process
from mmengine.logging import MMLogger
from torch import Tensor
from torch.nn import Module
from torch.utils.data import DataLoader, Dataset

from avdet_mm.datasets.clip_table import split_hash
from avdet_mm.datasets.metainfo import load_label_map
from avdet_mm.engine.utils import unwrap
from avdet_mm.models.task_modules.heatmap_box_extractor import (
    boxes_to_original,
)
from avdet_mm.utils import atomic_write
from avdet_mm.utils.progress import Progress
from avdet_mm.version import __version__

LABEL_SOURCES = ('cluster', 'ground_truth')
_THREADS = 4
# Records that are turned into Python objects at a time.
_CHUNK = 4096
Columns = Dict[str, np.ndarray]
_dumps = json.JSONEncoder(allow_nan=False).encode


@torch.no_grad()
def generate_pseudo_labels(
        model: Module,
        dataloader: DataLoader,
        out_file: str,
        dump_file: Optional[str] = None,
        info: Optional[dict] = None,
        label_source: str = 'cluster',
        label_map: Optional[str] = None) -> Dict[str, int]:
    """Label every clip of a dataloader with its self-box and a category.

    The json is an ordinary COCO file. Its categories are the clusters,
    ``cluster_k``, or, for the paper's weakly supervised variant, the classes
    of the clip table. Its images are frames: the dataset's own image files,
    or those that :class:`ExportFrame` wrote. Each image carries ``clip_id``
    and ``time``, each annotation ``score`` (largest cosine in the box) and
    ``label_score`` (posterior of the cluster; 1 for a given class). On
    several ranks each labels its share and the main process writes the file.

    A range of beta is drawn from by the place of the clip in the data set,
    so the file is the same for any batch size and number of ranks.

    Args:
        model (nn.Module): A localizer, wrapped or not.
        dataloader (DataLoader): Clips in a fixed order, deterministic
            pipeline.
        out_file (str): The json, written atomically. File names of images
            are relative to its folder.
        dump_file (str, optional): Pickle of all predictions, a list of
            dicts as MMEngine's ``DumpResults`` writes it. They are kept in
            memory until the end.
        info (dict, optional): Provenance to add to the json's ``info``.
        label_source (str): ``'cluster'``, or ``'ground_truth'`` for the
            clip's own class; clips without one are left out.
            Defaults to ``'cluster'``.
        label_map (str, optional): With ``'ground_truth'``, a label map
            (:func:`load_label_map`) that merges classes, such as
            ``'vggsound_groups'``; clips of classes that it does not have
            are left out. Defaults to None.

    Returns:
        dict: Counts ``images``, ``annotations``, ``without_box`` (constant
        heatmaps) and, with ``'ground_truth'``, ``without_label`` (clips
        that were left out); empty on other ranks than the main process.

    Raises:
        ValueError: If a sample has no image file, or if no clip has a
            label.
    """
    model = unwrap(model)
    categories, class_ids = _categories(model, dataloader.dataset,
                                        label_source, label_map)
    training = model.training
    model.eval()
    root = osp.dirname(out_file) or '.'
    records: List[Columns] = []
    dumps: Dict[int, dict] = {}

    keep = dump_file is not None

    def finish(job: Future) -> None:
        record, dump = job.result()
        records.append(record)
        dumps.update(dump)

    # Threads extract boxes while the next batches are loaded and predicted.
    with Progress(len(dataloader), 'batches',
                  is_main_process()) as progress, ThreadPoolExecutor(
                      _THREADS) as threads:
        jobs: Deque[Future] = deque()
        for batch in _predictions(model, dataloader, keep):
            jobs.append(
                threads.submit(batch.finish, model.box_extractor, class_ids,
                               root, keep))
            if len(jobs) > 2 * _THREADS:
                finish(jobs.popleft())
            progress.update(1)
        while jobs:
            finish(jobs.popleft())
    model.train(training)

    mine = _concatenate(records)
    records.clear()
    parts = gather_object(mine)
    all_dumps = gather_object(dumps) if keep else None
    if not is_main_process():
        return {}
    table = _in_order(_concatenate(parts))
    counts = dict(images=0, annotations=0, without_box=0)
    if label_source == 'ground_truth':
        labeled = table['label'] >= 0
        counts['without_label'] = int((~labeled).sum())
        if not labeled.any():
            raise ValueError(
                f'None of the {len(labeled)} clips has a label to write. '
                'Add "label" to the rows of the clip table' +
                (f'; the label map {label_map!r} has to know the class.'
                 if label_map else '.'))
        table = _take(table, np.flatnonzero(labeled))
    counts.update(
        images=len(table['label']),
        annotations=len(table['score']),
        without_box=int((table['count'] == 0).sum()))
    extractor = model.box_extractor
    _write_coco(
        out_file, table, categories,
        dict(
            description='Self-labels by audio-visual correspondence',
            generator=f'avdet_mm {__version__}',
            date_created=datetime.datetime.now().isoformat('T', 'seconds'),
            beta=list(extractor.beta_range),
            beta_on=extractor.beta_on,
            multi=extractor.multi,
            label_source=label_source,
            **(dict(label_map=label_map) if label_map else {}),
            split_hash=split_hash(c for c, _ in _texts(table)),
            **(info or {})))
    if keep:
        merged = {index: d for part in all_dumps for index, d in part.items()}
        with atomic_write(dump_file, 'wb') as file:
            pickle.dump([merged[index] for index in sorted(merged)], file)
    MMLogger.get_current_instance().info(
        f'Wrote {out_file}: {counts["images"]} images, '
        f'{counts["annotations"]} self-boxes; {counts["without_box"]} '
        'images without a box (constant heatmap)' +
        (f'; {counts["without_label"]} clips without a label left out.'
         if label_source == 'ground_truth' else '.'))
    return counts


def _categories(
        model: Module, dataset: Dataset, label_source: str,
        label_map: Optional[str]) -> Tuple[List[str], Optional[np.ndarray]]:
    """Names of the categories.

    Returns:
        tuple: The names; with ground truth also (classes,) int64, the
        category of each class of the data set, -1 for none.
    """
    if label_source not in LABEL_SOURCES:
        raise ValueError(f'label_source must be one of {LABEL_SOURCES}, got '
                         f'{label_source!r}.')
    if label_source == 'cluster':
        if label_map is not None:
            raise ValueError(
                'label_map merges classes of the clip table; clusters have '
                "none. Remove it or set label_source='ground_truth'.")
        return [f'cluster_{k}' for k in range(model.num_clusters or 1)], None
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    if not classes:
        raise ValueError(
            "label_source='ground_truth' needs the names of the classes: "
            'list them as metainfo "classes" of the clip table.')
    if label_map is None:
        return list(classes), np.arange(len(classes))
    names = load_label_map(label_map)
    found = [names.target_of(c) for c in classes]
    if not any(found):
        raise ValueError(
            f'The label map {label_map!r} knows none of the classes of the '
            f'clip table ({", ".join(classes[:8])}'
            f'{", ..." if len(classes) > 8 else ""}).')
    return list(names.classes), np.array(
        [-1 if name is None else names.classes.index(name) for name in found])


# --------------------------------------------------------------------------
# Predictions
# --------------------------------------------------------------------------
class _Batch:
    """Predictions of a batch on their way to the CPU.

    Args:
        samples (list[AudioVisualDataSample]): Of the clips.
        size (tuple[int, int]): Height and width of the input.
        tensors (dict[str, Tensor]): ``heatmap`` (B, h, w); with clusters
            ``label`` and ``label_score`` (B,); others for the dump.
    """

    def __init__(self, samples: list, size: Tuple[int, int],
                 tensors: Dict[str, Tensor]) -> None:
        self.samples = samples
        self.size = size
        self._event = None
        device = tensors['heatmap'].device
        # On CUDA into pinned memory, without waiting for the result.
        self._tensors = {
            name: tensor.to('cpu', non_blocking=device.type == 'cuda')
            for name, tensor in tensors.items()
        }
        if device.type == 'cuda':
            self._event = torch.cuda.current_stream(device).record_event()

    @property
    def tensors(self) -> Dict[str, Tensor]:
        """The tensors on the CPU."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensors

    def finish(self, extractor, class_ids: Optional[np.ndarray], root: str,
               keep: bool) -> Tuple[Columns, Dict[int, dict]]:
        """Wait for the predictions; the arguments are of :meth:`record`.

        Args:
            keep (bool): Whether to return all predictions too.

        Returns:
            tuple: :meth:`record`; and :meth:`dump`, empty if not wanted.
        """
        record = self.record(extractor, class_ids, root)
        return record, dict(self.dump(record) if keep else ())

    def record(self, extractor, class_ids: Optional[np.ndarray],
               root: str) -> Columns:
        """What the json needs of each clip.

        Args:
            extractor (HeatmapBoxExtractor): Of the model.
            class_ids (np.ndarray, optional): See :func:`_categories`.
            root (str): Folder that image files are named relative to.

        Returns:
            dict[str, np.ndarray]: ``index``, ``time``, ``size`` (height,
            width), ``label``, ``count`` (boxes) and ``length`` (of the
            text) by clip; ``bbox``, ``score`` and ``label_score`` by box;
            ``text``, json of clip id and image file.
        """
        samples = self.samples
        index = np.array([s.sample_idx for s in samples], np.int64)
        found = extractor.extract(self.tensors['heatmap'], self.size, index)
        sizes = np.array([s.ori_shape[:2] for s in samples], np.int32)
        owner = np.repeat(np.arange(len(samples)), found.counts)
        bboxes = boxes_to_original(
            torch.from_numpy(found.bboxes),
            np.stack([s.homography_matrix for s in samples])[owner],
            sizes[owner]).numpy()
        if class_ids is not None:
            given = (s.get('gt_label') for s in samples)
            label = np.array([-1 if g is None else class_ids[g]
                              for g in given], np.int32)
            label_score = np.ones_like(found.scores)
        elif 'label' in self.tensors:
            label = self.tensors['label'].numpy().astype(np.int32)
            label_score = self.tensors['label_score'].numpy()[owner]
        else:
            # One category for all; the box's score stands in.
            label = np.zeros(len(samples), np.int32)
            label_score = found.scores
        texts = [_text(s, root) for s in samples]
        return dict(
            index=index,
            time=np.array([s.time for s in samples], np.float64),
            size=sizes,
            label=label,
            count=found.counts.astype(np.int32),
            length=np.array([len(t) for t in texts], np.int32),
            bbox=bboxes,
            score=found.scores,
            label_score=label_score,
            text=np.frombuffer(b''.join(texts), np.uint8))

    def dump(self, record: Columns) -> Iterator[Tuple[int, dict]]:
        """Predictions as the model's predict mode has them, by clip."""
        ends = np.cumsum(record['count'])
        for i, sample in enumerate(self.samples):
            boxes = slice(ends[i] - record['count'][i], ends[i])
            instances = dict(
                bboxes=torch.from_numpy(record['bbox'][boxes]),
                scores=torch.from_numpy(record['score'][boxes]))
            instances['labels'] = torch.zeros_like(
                instances['scores'], dtype=torch.long)
            # Copies: what a loader's process sent holds a file open.
            data = copy.deepcopy(sample.cpu()).to_dict()
            for name, tensor in self.tensors.items():
                # Copies: a pickled view would carry the batch along.
                if name in ('label', 'label_score'):
                    instances[f'{name}s'] = tensor[i].repeat(
                        len(instances['scores']))
                else:
                    data[name] = tensor[i].clone()
            data['pred_instances'] = instances
            yield int(record['index'][i]), data


def _predictions(model: Module, dataloader: DataLoader,
                 keep: bool) -> Iterator[_Batch]:
    """Predict; on a GPU without waiting for it.

    Args:
        model (nn.Module): The localizer.
        dataloader (DataLoader): The clips.
        keep (bool): Whether the logits are wanted too.
    """
    for batch in dataloader:
        data = model.data_preprocessor(batch, False)
        outs = model(data['inputs'], mode='tensor')
        tensors = dict(heatmap=model.heatmaps(outs))
        classified = model.classify(outs)
        if classified is not None:
            tensors['label'], tensors['label_score'] = classified
            if keep:
                for name in ('visual_logits', 'audio_logits'):
                    tensors[name] = outs[name]
        yield _Batch(data['data_samples'],
                     tuple(data['inputs']['frame'].shape[2:]), tensors)


# --------------------------------------------------------------------------
# Records: arrays, for a million clips
# --------------------------------------------------------------------------
def _text(sample, root: str) -> bytes:
    """Clip id and image file as json."""
    if sample.get('img_path') is None:
        raise ValueError(
            f'Clip {sample.clip_id} has no image file for the detector to '
            "train on. Put dict(type='avdet_mm.ExportFrame', out_dir=...) "
            'behind LoadClip in the pipeline.')
    return json.dumps(
        [sample.clip_id, osp.relpath(sample.img_path, root)]).encode()


def _texts(table: Columns) -> Iterator[Tuple[str, str]]:
    """Clip id and image file of every record."""
    text = table['text'].data
    for start, length in _python(table, ('start', 'length')):
        yield json.loads(text[start:start + length].tobytes())


def _concatenate(parts: Iterable[Columns]) -> Columns:
    """One table of several; those of no records have no columns."""
    parts = [part for part in parts if part]
    if len(parts) == 1:
        return parts[0]
    return {
        key: np.concatenate([part[key] for part in parts])
        for key in (parts[0] if parts else ())
    }


def _in_order(table: Columns) -> Columns:
    """Records by clip, each once, whatever the sampler repeated."""
    table['start'] = _starts(table['length'])
    return _take(table, np.unique(table['index'], return_index=True)[1])


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Where each of some ranges starts that follow each other."""
    return np.cumsum(lengths, dtype=np.int64) - lengths


def _take(table: Columns, rows: np.ndarray) -> Columns:
    """Some of the records, in the given order, with their boxes."""
    counts = table['count'][rows]
    # Place in the result minus place in the table: one number per record.
    shift = _starts(table['count'])[rows] - _starts(counts)
    boxes = np.arange(counts.sum()) + np.repeat(shift, counts)
    by_box = ('bbox', 'score', 'label_score')
    return {
        key: values if key == 'text' else values[boxes if key in
                                                 by_box else rows]
        for key, values in table.items()
    }


def _write_coco(path: str, table: Columns, categories: List[str],
                info: dict) -> None:
    """Write the records as :func:`to_coco` lays them out, one by one."""
    with atomic_write(path) as file:
        file.write(f'{{"info": {_dumps(info)}, "images": [')
        _write_rows(file, _images(table))
        file.write('], "annotations": [')
        _write_rows(file, _annotations(table))
        names = [dict(id=i, name=name) for i, name in enumerate(categories)]
        file.write(f'], "categories": {_dumps(names)}}}')


def _write_rows(file: IO, rows: Iterable[dict]) -> None:
    """Write the members of a list."""
    separator = '\n'
    for row in rows:
        file.write(separator + _dumps(row))
        separator = ',\n'


def _images(table: Columns) -> Iterator[dict]:
    """Images of the json; ids count from 0."""
    numbers = _python(table, ('size', 'time'))
    for i, ((name, path), ((height, width), time)) in enumerate(
            zip(_texts(table), numbers)):
        yield dict(
            file_name=path,
            height=height,
            width=width,
            clip_id=name,
            time=time,
            id=i)


def _annotations(table: Columns) -> Iterator[dict]:
    """Annotations of the json; ids count from 1, as pycocotools needs."""
    owner = np.repeat(np.arange(len(table['count'])), table['count'])
    boxes = dict(table, image=owner, label=table['label'][owner])
    keys = ('bbox', 'score', 'label_score', 'image', 'label')
    for i, (box, score, label_score, image,
            label) in enumerate(_python(boxes, keys)):
        x1, y1, x2, y2 = box
        if not (x2 > x1 and y2 > y1):
            raise ValueError(
                f'The self-box {box} of image {image} is empty in its '
                'original frame: the crop of the pipeline lies outside.')
        yield dict(
            iscrowd=0,
            score=score,
            label_score=label_score,
            id=i + 1,
            image_id=image,
            category_id=label,
            bbox=[x1, y1, x2 - x1, y2 - y1],
            area=(x2 - x1) * (y2 - y1))


def _python(table: Columns, keys: Iterable[str]) -> Iterator[tuple]:
    """Rows of columns as Python numbers, a few at a time."""
    columns = [table[key] for key in keys]
    for start in range(0, len(columns[0]), _CHUNK):
        yield from zip(*(c[start:start + _CHUNK].tolist() for c in columns))
