"""Models: encoders, heads, losses, localizers, baselines, task modules."""
from .backbones import *  # noqa: F401,F403
from .baselines import *  # noqa: F401,F403
from .data_preprocessors import *  # noqa: F401,F403
from .heads import *  # noqa: F401,F403
from .localizers import *  # noqa: F401,F403
from .losses import *  # noqa: F401,F403
from .task_modules import *  # noqa: F401,F403
