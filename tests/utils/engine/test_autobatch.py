"""The batch that fits a GPU, from measurements that a test makes up."""

import pytest
import torch

from models.config import load_model_config
from models.yolo import DetectionModel
from utils.engine.autobatch import choose_batch, fitting_batch, measured_memory


def test_the_batch_stays_within_the_budget() -> None:
    sizes = [1, 2, 4, 8, 16]
    used = [1e9 + 0.25e9 * size for size in sizes]
    batch = fitting_batch(sizes, used, budget=8.1e9)
    assert batch == 28 and 1e9 + 0.25e9 * batch <= 8.1e9 < 1e9 + 0.25e9 * (batch + 1)
    assert fitting_batch(sizes, used, budget=0.5e9) == 1
    assert fitting_batch(sizes, [1e9] * 5, budget=8e9) == 16
    assert fitting_batch([], [], budget=8e9) == 16 and fitting_batch([1], [7e9], budget=8e9) == 1


def test_measuring_ends_where_memory_does() -> None:
    def measure(batch: int) -> float:
        if batch > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0 * batch

    assert measured_memory(measure) == ([1, 2, 4], [1.0, 2.0, 4.0])


def test_without_a_gpu_the_usual_batch_is_taken_and_said(caplog: pytest.LogCaptureFixture) -> None:
    model = DetectionModel(load_model_config("yolov5n.yaml"), nc=2)
    with caplog.at_level("WARNING", logger="akyolo"):
        assert choose_batch(model, image_size=64, device=torch.device("cpu"), amp=False) == 16
    assert "16 is used" in caplog.text
