"""benchmarks.py: interleaved timings of AKConv, NMS, the data loader and exported formats."""
