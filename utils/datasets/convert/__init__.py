"""Converts other data sets to YOLO's format: `python -m utils.datasets.convert {voc,visdrone,coco} SOURCE TARGET`.

`voc`, `visdrone` and `coco` yield names and contents of the files to write. They take `files`, the data set as
published; `labels_only`, to yield no images; and `report`, which counts what is converted and skipped. `images` finds
the image that an annotation names; `layout` holds what all read and write: files by name, labels, data yaml and report.
"""
