"""Everything that is not the network: data sets, losses, metrics, the engine, plots, and the leaves they share.

Imports point one way: leaves <- datasets, losses, metrics, plots <- engine <- scripts (see tests/test_architecture.py).
"""

__version__ = "0.2.0"
