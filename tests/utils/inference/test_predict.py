"""Predictions of many images: batches of equal shape give what single images give."""

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.random_model import random_model
from utils.inference.detector import TorchNetwork, prepare
from utils.inference.nms import NmsSettings
from utils.inference.predict import InferenceConfig, predict, preprocess
from utils.inference.tta import TtaModel

CPU = torch.device("cpu")
SHAPES = [(40, 60), (60, 40), (40, 60), (48, 48), (80, 120), (60, 40), (40, 60)]


def test_images_of_equal_shape_form_batches_and_results_keep_their_order() -> None:
    batches = []

    class Finder:
        """Finds one box whose width is the mean of the image."""

        num_classes, max_stride = 1, 32

        def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
            batches.append(tuple(batch.shape))
            rows = torch.zeros(len(batch), 1, 6)
            rows[..., :4] = torch.tensor((48.0, 32.0, 1.0, 10.0))
            rows[..., 2] = batch.mean((1, 2, 3))[:, None] * 20 + 1
            rows[..., 4:] = 0.9
            return rows, []

    config = InferenceConfig(size_hw=(96, 96), stride=32, nms=NmsSettings())
    levels = [10 + 30 * index for index in range(len(SHAPES))]
    images = [
        preprocess(np.full((*shape, 3), value, np.uint8), config) for shape, value in zip(SHAPES, levels, strict=True)
    ]
    network = TorchNetwork(detector=Finder())
    results = predict(network, images, config)
    assert sorted(batches) == [(1, 3, 96, 96), (2, 3, 96, 64), (4, 3, 64, 96)]
    for (detections, timings), image in zip(results, images, strict=True):
        width = (detections.boxes[0, 2] - detections.boxes[0, 0]) * image.transform.ratio_wh[0]
        assert float(width) == pytest.approx(image.image.mean() / 255 * 20 + 1, abs=0.05)
        assert set(timings) == {"pre", "inference", "nms"} and all(value >= 0 for value in timings.values())
        assert timings["pre"] >= image.milliseconds
    assert predict(network, [], config) == []


@pytest.mark.parametrize("cfg", ["yolov5n.yaml", "yolov5n-AKConv.yaml"])
@pytest.mark.parametrize("augment", [False, True])
def test_a_batch_gives_what_single_images_give(cfg: str, augment: bool) -> None:
    nms = NmsSettings(conf_threshold=0.05, max_detections=20)
    config = InferenceConfig(size_hw=(96, 96), stride=32, nms=nms)
    network = prepare(random_model(cfg, 3), device=CPU)
    detector = TorchNetwork(detector=TtaModel(network) if augment else network)
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (7, 9, 3), dtype=np.uint8) for _ in SHAPES]
    images = [
        preprocess(cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC), config)
        for one, (height, width) in zip(noise, SHAPES, strict=True)
    ]
    together = predict(detector, images, config)
    for image, (detections, _) in zip(images, together, strict=True):
        ((alone, _),) = predict(detector, [image], config)
        assert 0 < len(alone) == len(detections) and alone.classes.tolist() == detections.classes.tolist()
        assert detections.boxes == pytest.approx(alone.boxes, rel=0, abs=0.05)
        assert detections.scores == pytest.approx(alone.scores, rel=0, abs=1e-3)
