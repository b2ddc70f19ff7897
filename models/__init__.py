"""The network: image -> raw predictions.

config (yaml, checked) -> registry (name -> module) -> build.parse_model -> DetectionModel, which ends in head.Detect.
Blocks are in common, AKConv and users' own modules in modules/; summary and fuse work on a built model.
"""
