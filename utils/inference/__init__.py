"""From images to detections: preprocessing, forward pass, NMS, test-time augmentation, ensembles, and the Python API."""
