"""The detection loss: which predictions are matched to which objects, and named losses of these, without weights."""
