"""A training run: setup, the loop over epochs and batches, its state and checkpoints, resumption, and evolution."""
