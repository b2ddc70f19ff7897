"""Everything except the networks: datasets, losses, metrics, plots, training and inference, and the leaves they share.

docs/architecture.md lists the packages; imports go down one ladder (tests/test_architecture.py).
"""

__version__ = "0.2.0"
