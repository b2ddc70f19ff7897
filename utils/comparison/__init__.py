"""Training several models alike, judging them, and saying which is better, and at what cost."""
