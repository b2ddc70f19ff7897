"""Fused implementations of the resampling behind AKConv, one module for each backend."""
