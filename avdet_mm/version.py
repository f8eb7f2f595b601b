"""Version of avdet_mm."""
__version__ = '0.1.0'
