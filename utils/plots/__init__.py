"""Arrays in, images out: boxes on images, curves, matrices, label statistics, comparisons. Nothing here computes."""
