"""From images to detections: preprocessing, forward pass, NMS, test-time augmentation, ensembles, Python API."""
