"""AKConv's operator: its definition (sampling_grid), entry point (operator), and one module per implementation."""
