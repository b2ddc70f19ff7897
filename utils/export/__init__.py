"""Other programs' formats: written, checked against PyTorch, and run."""
