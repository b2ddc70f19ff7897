"""Converts other data sets to YOLO's format: `python -m utils.datasets.convert {voc,visdrone,coco} SOURCE TARGET`.

`files` is what converters read from; `voc`, `visdrone` and `coco` yield names and contents of the files to write, with
`images`, which finds the image that an annotation names, and `layout`, which formats labels, data yaml and report.
"""
