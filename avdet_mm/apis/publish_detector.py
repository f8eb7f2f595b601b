"""A trained detector for users of MMDetection alone."""
import inspect
import os.path as osp
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import Tensor

from avdet_mm.models.data_preprocessors import SelfLabelDetDataPreprocessor
from avdet_mm.models.task_modules import ClusterMatcher
from avdet_mm.utils import atomic_write
from avdet_mm.version import __version__

OWN = 'avdet_mm.'
SELF_LABELED = f'{OWN}{SelfLabelDetDataPreprocessor.__name__}'
WARMUP = f'{OWN}ClassAgnosticWarmupLoss'
HEADER = """\
# A config of MMDetection, made from {source} by avdet_mm {version}.
# It needs MMDetection alone:
#   model = mmdet.apis.init_detector('detector.py', 'detector.pth')
#   mmdet.apis.inference_detector(model, 'picture.jpg')
"""


def publish_detector(config: str,
                     checkpoint: str,
                     out_dir: str,
                     matching: Optional[str] = None) -> Tuple[str, str]:
    """Write a detector that bare MMDetection can use.

    What training adds to stock types is taken back: the warm-up loss becomes
    ``CrossEntropyLoss``, the labeling data preprocessor
    ``DetDataPreprocessor``. Boxes, scores and labels stay what they are.

    Args:
        config (str): The detector's config; the one in its work directory
            has the overrides of its training.
        checkpoint (str): Its checkpoint.
        out_dir (str): Folder for ``detector.py`` (model, test pipeline,
            class names) and ``detector.pth`` (weights; class names and the
            text of ``detector.py`` in ``meta``, so that
            ``DetInferencer(weights='detector.pth')`` works too). The files
            are written in one step each.
        matching (str, optional): Json of :class:`ClusterMatcher`; by its
            first matching, matched
            clusters then have the names of their classes.

    Returns:
        tuple[str, str]: Paths of config and weights.

    Raises:
        FileNotFoundError: If there is no such matching.
        ValueError: If something in the model or its test pipeline is not
            MMDetection's, or config, checkpoint and matching do not belong
            together.
    """
    cfg = Config.fromfile(config)
    model, dataset = cfg.model.to_dict(), cfg.test_dataloader.dataset.to_dict()
    preprocessor = model.get('data_preprocessor') or {}
    self_labeled = preprocessor.get('type') == SELF_LABELED
    _make_stock(model)
    pipeline = dataset.get('pipeline')
    if not pipeline:
        raise ValueError(f'{config} has no test_dataloader.dataset.pipeline, '
                         'so it is not known how pictures are prepared.')
    for part, name in ((model, 'model'), (pipeline, 'test_pipeline')):
        for path, own in _own_types(part, name):
            raise ValueError(
                f'{path} is of type {own}, which MMDetection does not have; '
                'only detectors whose model and test pipeline are its own '
                'can be published.')

    loaded = torch.load(checkpoint, map_location='cpu', weights_only=True)
    sizes = num_classes_in(model)
    if len(sizes) != 1:
        raise ValueError('The model must name one num_classes for all its '
                         f'heads, it names {sorted(sizes) or None}.')
    names = _class_names(
        sizes.pop(),
        None if self_labeled else loaded.get('meta', {}).get('dataset_meta'),
        matching)

    stock = Config(_stock_config(model, pipeline, names))
    header = HEADER.format(source=osp.basename(config), version=__version__)
    text = header + stock.pretty_text
    # From the text, as it will be read.
    weights = _checked_weights(
        Config.fromstring(text, '.py').model, loaded, checkpoint)
    config_file = osp.join(out_dir, 'detector.py')
    weights_file = osp.join(out_dir, 'detector.pth')
    with atomic_write(weights_file, 'wb') as file:
        torch.save(
            dict(
                state_dict=weights,
                meta=dict(
                    cfg=text,
                    dataset_meta=dict(classes=names),
                    avdet_mm_version=__version__)), file)
    with atomic_write(config_file) as file:
        file.write(text)
    return config_file, weights_file


def _make_stock(node: Any) -> None:
    """Take back, in place, what training changes in a stock model."""
    if isinstance(node, dict):
        # Weights to start from are not needed, and may not exist elsewhere.
        node.pop('init_cfg', None)
        if node.get('type') == SELF_LABELED:
            stock = inspect.signature(DetDataPreprocessor).parameters
            for key in set(node) - set(stock):
                del node[key]
            node['type'] = DetDataPreprocessor.__name__
        elif node.get('type') == WARMUP:
            node['type'] = 'CrossEntropyLoss'
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return
    for value in node:
        _make_stock(value)


def _own_types(node: Any, path: str) -> Iterator[Tuple[str, str]]:
    """Path and name of every type of this package in a config."""
    if isinstance(node, dict):
        if str(node.get('type')).startswith(OWN):
            yield path, node['type']
        node = node.items()
    elif isinstance(node, (list, tuple)):
        node = enumerate(node)
    else:
        return
    for key, value in node:
        yield from _own_types(value, f'{path}.{key}')


def _checked_weights(model: ConfigDict, loaded: dict,
                     checkpoint: str) -> Dict[str, Tensor]:
    """The weights, after the stock model was built and has taken them."""
    weights = {
        key: value.detach().clone()
        for key, value in loaded.get('state_dict', {}).items()
    }
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(model)
    try:
        detector.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f'{checkpoint} does not fit the config. If it was trained with '
            '--cfg-options, give the config in its work directory. The '
            f'cause: {error}') from error
    return weights


def num_classes_in(node: Any) -> Set[int]:
    """All values of ``num_classes`` in a model."""
    if isinstance(node, (list, tuple)):
        return set().union(*map(num_classes_in, node))
    if not isinstance(node, dict):
        return set()
    found = num_classes_in(list(node.values()))
    return found | {node['num_classes']} if 'num_classes' in node else found


def _class_names(num_classes: int, dataset_meta: Optional[dict],
                 matching: Optional[str]) -> List[str]:
    """Names of the detector's labels.

    Args:
        num_classes (int): K.
        dataset_meta (dict, optional): Of the training set, whose
            ``classes`` are those of the detector; None for clusters.
        matching (str, optional): Path.
    """
    names = list((dataset_meta or {}).get('classes') or
                 (f'cluster_{k}' for k in range(num_classes)))
    if len(names) != num_classes:
        raise ValueError(
            f'The detector has {num_classes} classes, but was trained with '
            f'the names of {len(names)}; set num_classes of the box head to '
            'the number of classes that the training set has.')
    if matching is not None:
        matcher = next(iter(ClusterMatcher.from_json(matching).values()))
        if len(matcher.matching) != num_classes:
            raise ValueError(
                f'{matching} matches {len(matcher.matching)} clusters, but '
                f'the detector has {num_classes}; it belongs to another '
                'model.')
        names = [
            name if c < 0 else matcher.classes[c]
            for name, c in zip(names, matcher.matching)
        ]
    return names


def _stock_config(model: dict, pipeline: list, names: List[str]) -> dict:
    """What MMDetection's inference and its tools/test.py read.

    The test set is left open: COCO's, by ``--cfg-options``.
    """
    ann_file = ''
    return dict(
        default_scope='mmdet',
        model=model,
        test_dataloader=dict(
            batch_size=1,
            num_workers=2,
            persistent_workers=False,
            drop_last=False,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='CocoDataset',
                ann_file=ann_file,
                data_prefix=dict(img=''),
                metainfo=dict(classes=tuple(names)),
                test_mode=True,
                pipeline=pipeline)),
        test_evaluator=dict(
            type='CocoMetric', ann_file=ann_file, metric='bbox'),
        test_cfg=dict(type='TestLoop'),
        default_hooks=dict(visualization=dict(type='DetVisualizationHook')),
        visualizer=dict(
            type='DetLocalVisualizer',
            vis_backends=[dict(type='LocalVisBackend')]))
