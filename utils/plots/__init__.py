"""Arrays in, images out: boxes on images, curves, matrices, label statistics, comparisons. No metrics are computed."""
