"""The AKConv operator on NVIDIA GPUs, as Triton kernels."""
