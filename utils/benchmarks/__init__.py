"""Puts the rooms together: options, training, validation, prediction, comparison."""
