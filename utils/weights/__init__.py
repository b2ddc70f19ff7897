"""What is kept of a network: our checkpoints, YOLOv5's own, and how they reach a model."""
