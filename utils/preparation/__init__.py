"""Prepares data sets: any folder in, a checked YOLO data set with splits out (`prepare.py`)."""
