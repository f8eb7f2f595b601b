"""AVOL-Net encoders (App. B)."""
from .avol_net import AVOLNet

__all__ = ['AVOLNet']
