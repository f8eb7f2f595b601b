"""Small helpers shared by hooks and tools."""
from mmengine.model import is_model_wrapper
from torch.nn import Module


def unwrap(model: Module) -> Module:
    """The model itself, with or without a (DDP) wrapper around it."""
    return model.module if is_model_wrapper(model) else model
