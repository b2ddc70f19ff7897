"""Training of several models, evaluation of their runs, and reports on which model is better and at what cost."""
