"""Methods to compare with, all with ``pred_instances`` as output."""

from .center_box import CenterBox

__all__ = ['CenterBox']
