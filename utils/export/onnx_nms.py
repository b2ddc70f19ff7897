"""Append NMS to an ONNX graph, in standard operators (opset 13 and later)."""

from __future__ import annotations

from typing import Any

import numpy as np

from utils.inference.metadata import OUTPUT
from utils.inference.nms import NmsSettings
from utils.inference.onnx_session import require_package

PREDICTIONS = "predictions"
Node = tuple[str, tuple[list[str], list[str]], dict[str, Any]]  # operator, inputs and outputs, attributes
COLUMNS = 6  # x1, y1, x2, y2, score, class


def append_nms(model: Any, classes: int, nms: NmsSettings, *, max_per_class: int) -> None:  # noqa: ANN401
    """Change an `onnx.ModelProto` that outputs (B, n, 5 + classes) predictions into one that outputs detections.

    The new output is (B, min(max_detections, n), 6): x1, y1, x2, y2 in pixels, score, class; best first, padded with
    zeros. A box is detected as its best class only, as in detect.py, and each class at most `max_per_class` times per
    image; `nms.classes` and `nms.multi_label` have no effect.
    """
    onnx = require_package("onnx", "--nms")
    graph = model.graph
    for node in graph.node:
        node.output[:] = [PREDICTIONS if name == OUTPUT else name for name in node.output]
        node.input[:] = [PREDICTIONS if name == OUTPUT else name for name in node.input]
    constants = {
        "nms_conf_threshold": np.array([nms.conf_threshold], np.float32),
        "nms_iou_threshold": np.array([nms.iou_threshold], np.float32),
        "nms_max_per_class": np.array([max_per_class], np.int64),
        "nms_max_detections": np.array([nms.max_detections], np.int64),
        "nms_zero": np.array(0, np.float32),
        "nms_half": np.array(0.5, np.float32),
        "nms_one": np.array([1], np.int64),
        **({} if nms.agnostic else {"nms_class_ids": np.arange(classes, dtype=np.int64).reshape(1, classes, 1)}),
        **{f"nms_{n}": np.array([n], np.int64) for n in (0, 2, 4, 5, 5 + classes)},
    }
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    for operator, values, attributes in _nodes(classes, agnostic=nms.agnostic):
        names = [[_prefixed(name) for name in side] for side in values]
        graph.node.append(onnx.helper.make_node(operator, *names, **attributes))
    del graph.output[:]
    shape = ["batch", "detections", COLUMNS]
    graph.output.append(onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, shape))


def _prefixed(name: str) -> str:
    """Return a value's name in the graph, distinct from the network's own values."""
    return name if name in (PREDICTIONS, OUTPUT) or name.startswith("nms_") else f"nms_{name}"


def _nodes(classes: int, *, agnostic: bool) -> list[Node]:
    """Return the nodes from predictions to detections."""

    def columns(name: str, start: int, stop: int) -> Node:
        bounds = [PREDICTIONS, f"nms_{start}", f"nms_{stop}", "nms_2"]
        return "Slice", (bounds, [name]), {}

    if agnostic:  # (B, 1, n)
        class_scores: list[Node] = [("Transpose", (["best"], ["class_scores"]), {"perm": [0, 2, 1]})]
    else:
        class_scores = [
            ("Transpose", (["best"], ["best_row"]), {"perm": [0, 2, 1]}),
            ("Transpose", (["best_class"], ["class_row"]), {"perm": [0, 2, 1]}),
            ("Equal", (["class_row", "nms_class_ids"], ["is_best"]), {}),  # (B, classes, n)
            ("Where", (["is_best", "best_row", "nms_zero"], ["class_scores"]), {}),
        ]
    suppression = ["xywh", "class_scores", "nms_max_per_class", "nms_iou_threshold", "nms_conf_threshold"]
    return [
        columns("xywh", 0, 4),
        columns("objectness", 4, 5),
        columns("probabilities", 5, 5 + classes),
        ("Mul", (["probabilities", "objectness"], ["scores"]), {}),
        ("TopK", (["scores", "nms_one"], ["best", "best_class"]), {"axis": 2}),  # (B, n, 1) each
        *class_scores,
        ("NonMaxSuppression", (suppression, ["selected"]), {"center_point_box": 1}),  # (m, 3): image, class, box
        # The scores of the selected boxes at their indices, zero elsewhere: their top k are the detections.
        ("Gather", (["selected", "nms_0"], ["selected_image"]), {"axis": 1}),
        ("Gather", (["selected", "nms_2"], ["selected_box"]), {"axis": 1}),
        ("Concat", (["selected_image", "selected_box"], ["indices"]), {"axis": 1}),
        ("Squeeze", (["best", "nms_2"], ["flat_best"]), {}),
        ("GatherND", (["flat_best", "indices"], ["selected_scores"]), {}),
        ("Mul", (["flat_best", "nms_zero"], ["zeros"]), {}),
        ("ScatterND", (["zeros", "indices", "selected_scores"], ["kept"]), {}),  # (B, n)
        ("Shape", (["kept"], ["kept_shape"]), {}),
        ("Gather", (["kept_shape", "nms_one"], ["available"]), {"axis": 0}),
        ("Min", (["available", "nms_max_detections"], ["rows"]), {}),
        ("TopK", (["kept", "rows"], ["row_score", "row_box"]), {"axis": 1}),  # (B, rows), best first
        ("Unsqueeze", (["row_box", "nms_2"], ["row_index"]), {}),
        ("Unsqueeze", (["row_score", "nms_2"], ["score"]), {}),
        ("GatherND", (["xywh", "row_index"], ["row_xywh"]), {"batch_dims": 1}),
        ("GatherND", (["best_class", "row_index"], ["row_class"]), {"batch_dims": 1}),
        ("Slice", (["row_xywh", "nms_0", "nms_2", "nms_2"], ["center"]), {}),
        ("Slice", (["row_xywh", "nms_2", "nms_4", "nms_2"], ["size"]), {}),
        ("Mul", (["size", "nms_half"], ["half_size"]), {}),
        ("Sub", (["center", "half_size"], ["top_left"]), {}),
        ("Add", (["center", "half_size"], ["bottom_right"]), {}),
        ("Cast", (["row_class"], ["class"]), {"to": 1}),
        ("Concat", (["top_left", "bottom_right", "score", "class"], ["detections"]), {"axis": 2}),
        ("Greater", (["score", "nms_zero"], ["is_detection"]), {}),
        ("Where", (["is_detection", "detections", "nms_zero"], [OUTPUT]), {}),
    ]
