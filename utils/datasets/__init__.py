"""Data set on disk -> Sample -> augment -> Batch.

config (data yaml) -> scan -> index (with its cache) -> dataset (samples: mosaic, transforms) -> batching -> loader.
sources are the inputs of detect.py; synthetic_shapes draws the embedded data set; autoanchor fits anchors to labels.
"""
