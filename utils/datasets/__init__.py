"""Data set on disk -> Sample -> augment -> Batch.

config (data yaml) -> index (scan, labels, cache) -> dataset (one sample; mosaic and transforms) -> batching -> loader.
sources are the inputs of detect.py; shapes draws the embedded data set; autoanchor fits anchors to labels.
"""
