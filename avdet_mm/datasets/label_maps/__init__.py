"""Data files that :mod:`avdet_mm.datasets.metainfo` reads."""
