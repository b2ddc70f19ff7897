"""The network: image -> raw predictions.

config (yaml, checked) -> registry (name -> module) -> yolo.parse_model -> DetectionModel, which ends in head.Detect.
Blocks are in common, AKConv and users' own modules in modules/; summary and fuse look at and prepare a built model.
"""
