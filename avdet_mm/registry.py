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
    'OPTIM_WRAPPERS': 'engine.optim_wrappers',
    'FUNCTIONS': 'datasets',
    'METRICS': 'evaluation.metrics',
    'VISUALIZERS': 'visualization',
}


def _child(name: str) -> root.Registry:
    parent = getattr(root, name)
    location = LOCATIONS.get(name)
    return root.Registry(
        parent.name,
        parent=parent,
        scope='avdet_mm',
        locations=[f'avdet_mm.{location}'] if location else [],
    )


DATASETS = _child('DATASETS')
TRANSFORMS = _child('TRANSFORMS')
MODELS = _child('MODELS')
TASK_UTILS = _child('TASK_UTILS')
HOOKS = _child('HOOKS')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS')
FUNCTIONS = _child('FUNCTIONS')
METRICS = _child('METRICS')
VISUALIZERS = _child('VISUALIZERS')

# Nothing of our own; without them MMEngine warns about the default scope.
RUNNERS = _child('RUNNERS')
LOOPS = _child('LOOPS')
DATA_SAMPLERS = _child('DATA_SAMPLERS')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS')
MODEL_WRAPPERS = _child('MODEL_WRAPPERS')
OPTIMIZERS = _child('OPTIMIZERS')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS')
PARAM_SCHEDULERS = _child('PARAM_SCHEDULERS')
EVALUATOR = _child('EVALUATOR')
VISBACKENDS = _child('VISBACKENDS')
LOG_PROCESSORS = _child('LOG_PROCESSORS')
