"""Registries of avdet_mm: children of MMEngine's root registries.

In configs every type of this package is written ``avdet_mm.X``, at every
depth; MMEngine then imports the right sub-package by itself, whatever the
default scope is, so the configs also run through stock MMDetection tools.
"""
from mmengine import registry as root

LOCATIONS = {
    'DATASETS': 'datasets',
    'TRANSFORMS': 'datasets.transforms',
    'MODELS': 'models',
    'TASK_UTILS': 'models.task_modules',
    'HOOKS': 'engine.hooks',
    'FUNCTIONS': 'datasets',
    'METRICS': 'evaluation.metrics',
    'VISUALIZERS': 'visualization',
}


def _child(name: str) -> root.Registry:
    parent = getattr(root, name)
    return root.Registry(
        parent.name,
        parent=parent,
        scope='avdet_mm',
        locations=[f'avdet_mm.{LOCATIONS[name]}'])


DATASETS = _child('DATASETS')
TRANSFORMS = _child('TRANSFORMS')
MODELS = _child('MODELS')
TASK_UTILS = _child('TASK_UTILS')
HOOKS = _child('HOOKS')
FUNCTIONS = _child('FUNCTIONS')
METRICS = _child('METRICS')
VISUALIZERS = _child('VISUALIZERS')
