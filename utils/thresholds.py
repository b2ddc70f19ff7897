"""Default thresholds of detection and evaluation; they equal YOLOv5's."""

CONF_THRESHOLD = 0.25
IOU_THRESHOLD = 0.45
MAX_DETECTIONS = 1000
# mAP integrates over all confidences, so evaluation keeps detections of nearly every one.
EVAL_CONF_THRESHOLD = 0.001
EVAL_IOU_THRESHOLD = 0.6
EVAL_MAX_DETECTIONS = 300
