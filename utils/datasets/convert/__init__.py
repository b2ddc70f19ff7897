"""Other data sets' labels -> YOLO's: `python -m utils.datasets.convert voc SOURCE TARGET`, likewise visdrone and coco.

files (where converters read from) -> voc, visdrone, coco with images (which file is meant; names and contents of the
files to write) -> layout (labels as text, what was left out, the data yaml).
"""
