"""Converts other data sets to YOLO's format: `python -m utils.datasets.convert {voc,visdrone,coco} SOURCE TARGET`.

`voc`, `visdrone` and `coco` yield names and contents of the files to write; `images` finds the image that an annotation
names, and `layout` holds what all of them read and write: files by name, labels, data yaml and report.
"""
