"""Checkpoints of this program and of YOLOv5, read without executing anything, and weights transferred to a model."""
