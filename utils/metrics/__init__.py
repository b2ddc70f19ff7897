"""Detections and labels -> numbers. Arrays in, arrays out; nothing here draws or writes.

matching pairs detections with labels; average_precision makes P, R, F1 and AP of the pairs; confusion counts who is
taken for whom.
"""
