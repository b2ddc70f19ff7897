"""Non-maximum suppression as part of an ONNX graph, by standard operators (opset 13 and later)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.inference.exported_model import OUTPUT, require_package

PREDICTIONS = "predictions"
Node = tuple[str, tuple[list[str], list[str]], dict[str, Any]]  # kind, inputs and outputs, attributes
COLUMNS = 6  # x1, y1, x2, y2, score, class


@dataclass(frozen=True, kw_only=True)
class EmbeddedNms:
    """Suppression written into a graph.

    Attributes:
        conf_threshold: keep boxes with a confidence above it.
        iou_threshold: a box is dropped if its IoU with a better box exceeds it.
        max_per_class: maximum detections per image and class.
        max_detections: maximum detections per image: rows of the output.
        agnostic: class-agnostic: boxes of different classes suppress each other.
    """

    conf_threshold: float
    iou_threshold: float
    max_per_class: int
    max_detections: int
    agnostic: bool


def with_nms(model: Any, classes: int, nms: EmbeddedNms) -> Any:  # noqa: ANN401
    """Return an ONNX model whose output is what remains after suppression.

    Each box stands for its best class, as in detect.py.

    Args:
        model: an `onnx.ModelProto` whose output is (B, n, 5 + classes) predictions.
        classes: how many classes it tells apart.
        nms: thresholds and limits.

    Returns:
        The model with the output (B, in_all or n, 6): x1, y1, x2, y2 in pixels, score, class; the best first, the rest
        zero.
    """
    onnx = require_package("onnx", "--nms")
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    graph = whole.graph
    for node in graph.node:
        node.output[:] = [PREDICTIONS if name == OUTPUT else name for name in node.output]
        node.input[:] = [PREDICTIONS if name == OUTPUT else name for name in node.input]
    numbers = {
        "nms_confidence": np.array([nms.conf_threshold], np.float32),
        "nms_overlap": np.array([nms.iou_threshold], np.float32),
        "nms_per_class": np.array([nms.max_per_class], np.int64),
        "nms_in_all": np.array([nms.max_detections], np.int64),
        "nms_class_numbers": np.arange(classes, dtype=np.int64).reshape(1, classes, 1),
        "nms_none": np.array(0, np.float32),
        "nms_half": np.array(0.5, np.float32),
        "nms_one": np.array([1], np.int64),
        **{f"nms_{n}": np.array([n], np.int64) for n in (0, 2, 4, 5, 5 + classes)},
    }
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in numbers.items())
    for kind, (inputs, outputs), attributes in _nodes(classes, nms):
        own = [[_own_name(name) for name in side] for side in (inputs, outputs)]
        graph.node.append(onnx.helper.make_node(kind, *own, **attributes))
    del graph.output[:]
    shape = ["batch", "detections", COLUMNS]
    graph.output.append(onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, shape))
    return whole


def _own_name(name: str) -> str:
    """Keep the names of these values apart from the network's."""
    return name if name in (PREDICTIONS, OUTPUT) or name.startswith("nms_") else f"nms_{name}"


def _nodes(classes: int, nms: EmbeddedNms) -> list[Node]:
    """Return the nodes from predictions to detections: kind, inputs and outputs, attributes."""

    def columns(name: str, start: int, stop: int) -> Node:
        bounds = [PREDICTIONS, f"nms_{start}", f"nms_{stop}", "nms_2"]
        return "Slice", (bounds, [name]), {}

    if nms.agnostic:
        offered: list[Node] = [
            ("Transpose", (["best"], ["offered"]), {"perm": [0, 2, 1]})  # (B, 1, n)
        ]
    else:
        offered = [
            ("Transpose", (["best"], ["best_row"]), {"perm": [0, 2, 1]}),
            ("Transpose", (["best_class"], ["class_row"]), {"perm": [0, 2, 1]}),
            ("Equal", (["class_row", "nms_class_numbers"], ["is_best"]), {}),  # (B, classes, n)
            ("Where", (["is_best", "best_row", "nms_none"], ["offered"]), {}),
        ]
    suppression = ["xywh", "offered", "nms_per_class", "nms_overlap", "nms_confidence"]
    return [
        columns("xywh", 0, 4),
        columns("objectness", 4, 5),
        columns("class_shares", 5, 5 + classes),
        ("Mul", (["class_shares", "objectness"], ["scores"]), {}),
        ("TopK", (["scores", "nms_one"], ["best", "best_class"]), {"axis": 2}),  # (B, n, 1) each
        *offered,
        ("NonMaxSuppression", (suppression, ["chosen"]), {"center_point_box": 1}),  # (m, 3): image, class, box
        # Scores of the chosen at their places, zero elsewhere: the best of these are what is asked for.
        ("Gather", (["chosen", "nms_0"], ["chosen_image"]), {"axis": 1}),
        ("Gather", (["chosen", "nms_2"], ["chosen_box"]), {"axis": 1}),
        ("Concat", (["chosen_image", "chosen_box"], ["places"]), {"axis": 1}),
        ("Squeeze", (["best", "nms_2"], ["flat_best"]), {}),
        ("GatherND", (["flat_best", "places"], ["chosen_scores"]), {}),
        ("Mul", (["flat_best", "nms_none"], ["nothing"]), {}),
        ("ScatterND", (["nothing", "places", "chosen_scores"], ["kept"]), {}),  # (B, n)
        ("Shape", (["kept"], ["kept_shape"]), {}),
        ("Gather", (["kept_shape", "nms_one"], ["available"]), {"axis": 0}),
        ("Min", (["available", "nms_in_all"], ["rows"]), {}),
        ("TopK", (["kept", "rows"], ["row_score", "row_box"]), {"axis": 1}),  # (B, rows), best first
        ("Unsqueeze", (["row_box", "nms_2"], ["row_place"]), {}),
        ("Unsqueeze", (["row_score", "nms_2"], ["score"]), {}),
        ("GatherND", (["xywh", "row_place"], ["row_xywh"]), {"batch_dims": 1}),
        ("GatherND", (["best_class", "row_place"], ["row_class"]), {"batch_dims": 1}),
        ("Slice", (["row_xywh", "nms_0", "nms_2", "nms_2"], ["centre"]), {}),
        ("Slice", (["row_xywh", "nms_2", "nms_4", "nms_2"], ["size"]), {}),
        ("Mul", (["size", "nms_half"], ["reach"]), {}),
        ("Sub", (["centre", "reach"], ["top_left"]), {}),
        ("Add", (["centre", "reach"], ["bottom_right"]), {}),
        ("Cast", (["row_class"], ["class"]), {"to": 1}),
        ("Concat", (["top_left", "bottom_right", "score", "class"], ["found"]), {"axis": 2}),
        ("Greater", (["score", "nms_none"], ["is_found"]), {}),
        ("Where", (["is_found", "found", "nms_none"], [OUTPUT]), {}),
    ]
