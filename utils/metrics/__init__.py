"""Metrics of detections and labels: arrays in, arrays out; nothing here draws or writes."""
