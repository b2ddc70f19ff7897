"""NMS in an ONNX graph against PyTorch's."""

import numpy as np
import pytest
import torch

from tests.helpers.exports import METADATA, UNTRACED_SHAPES, random_input_and_output
from tests.helpers.small_model import SMALL_NAMES
from utils.export.formats import add_nms
from utils.inference.exported_model import open_onnx
from utils.inference.nms import NmsSettings, non_max_suppression

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("limit", [5, 1000])
def test_nms_in_the_graph_finds_what_pytorch_finds(agnostic: bool, limit: int, onnx_file: bytes) -> None:
    settings = NmsSettings(conf_threshold=0.02, iou_threshold=0.45, max_detections=limit, agnostic=agnostic)
    with_nms = open_onnx(add_nms(onnx_file, METADATA, settings, max_per_class=limit), CPU, path="a")
    images, predictions = random_input_and_output(open_onnx(onnx_file, CPU, path="b"), UNTRACED_SHAPES[1])
    detections = non_max_suppression(predictions, settings)
    rows = with_nms._run(images)
    assert sum(len(expected) for expected in detections) > 10 and rows.shape[2] == 6
    for expected, image in zip(detections, rows, strict=True):
        kept = image[image[:, 4] > 0]
        torch.testing.assert_close(kept[:, 4], torch.from_numpy(expected.scores), atol=1e-6, rtol=0)
        order, expected_order = (
            np.lexsort((classes, scores.round(4)))
            for classes, scores in ((kept[:, 5].numpy(), kept[:, 4].numpy()), (expected.classes, expected.scores))
        )
        torch.testing.assert_close(kept[order, :4], torch.from_numpy(expected.boxes[expected_order]), atol=1e-3, rtol=0)
        assert kept[order, 5].tolist() == expected.classes[expected_order].tolist()
        assert not image[len(kept) :].any(), "padding is zero"
    repeated = non_max_suppression(with_nms(images)[0], settings)
    assert [len(image) for image in repeated] == [len(image) for image in detections], "a second NMS changes nothing"


def test_the_limit_per_class_holds_for_each_class(onnx_file: bytes) -> None:
    settings = NmsSettings(conf_threshold=0.02, iou_threshold=0.45, max_detections=100)
    with_nms = open_onnx(add_nms(onnx_file, METADATA, settings, max_per_class=2), CPU, path="a")
    images = torch.rand(UNTRACED_SHAPES[1], generator=torch.Generator().manual_seed(1))
    for image in with_nms._run(images):
        classes = image[image[:, 4] > 0, 5].long()
        assert len(classes) > 2 and classes.bincount().max() == 2


def test_no_confident_box_gives_only_padding(onnx_file: bytes) -> None:
    settings = NmsSettings(conf_threshold=0.999, iou_threshold=0.45, max_detections=10)
    with_nms = open_onnx(add_nms(onnx_file, METADATA, settings, max_per_class=10), CPU, path="a")
    _, predictions = random_input_and_output(with_nms, (2, 3, 32, 64))
    assert predictions.shape == (2, 10, 5 + len(SMALL_NAMES)) and not predictions[..., :5].any()
