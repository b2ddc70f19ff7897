"""detect.py: annotated images and videos, label files, crops, tables, and plots of AKConv's sampling points."""
