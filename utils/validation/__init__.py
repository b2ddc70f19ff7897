"""Validation: predictions become detections, detections meet labels, and figures and files come of it."""
