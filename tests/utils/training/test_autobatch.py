"""The batch size that fits a GPU, from made-up measurements."""

from types import SimpleNamespace

import pytest
import torch

from models.config import load_model_config
from models.yolo import DetectionModel
from utils.errors import ConfigError
from utils.training import autobatch
from utils.training.autobatch import choose_batch, largest_batch, measured_memory


def test_the_batch_stays_within_the_budget() -> None:
    sizes = [1, 2, 4, 8, 16]
    used = [1e9 + 0.25e9 * size for size in sizes]
    batch = largest_batch(sizes, used, budget=8.1e9)
    assert batch == 28 and 1e9 + 0.25e9 * batch <= 8.1e9 < 1e9 + 0.25e9 * (batch + 1)
    assert largest_batch(sizes, used, budget=0.5e9) == 1
    assert largest_batch(sizes, [1e9] * 5, budget=8e9) == 16
    assert largest_batch([1], [7e9], budget=8e9, below=2) == 1
    assert largest_batch(sizes, [1e9 + 1e3 * size for size in sizes], budget=8e9) == 1024


@pytest.mark.parametrize("fitting", [2, 3, 4])
def test_the_batch_stays_below_the_first_that_did_not_fit(fitting: int) -> None:
    sizes, failed = [1, 2, 4, 8][:fitting], [1, 2, 4, 8, 16][fitting]
    for used in ([1e9 + 1e6 * size for size in sizes], [1e9] * fitting):
        assert largest_batch(sizes, used, budget=60e9, below=failed) == failed - 1
    assert largest_batch([1, 2], [1e9, 2e9], budget=8.0e9, below=4) == 3


@pytest.mark.parametrize(("fits", "expected"), [(0, None), (1, 1), (8, 15), (16, 1024)])
def test_a_batch_that_does_not_fit_is_never_chosen(
    fits: int, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(_: object, batch: int, *__: object) -> float:
        if batch > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1e9 + 1e6 * batch

    monkeypatch.setattr(autobatch, "_training_memory", measure)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80e9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    model = DetectionModel(load_model_config("yolov5n.yaml"), nc=2)
    settings = {"image_size": 640, "device": torch.device("cuda"), "amp": True}
    if expected is not None:
        assert choose_batch(model, **settings) == expected
        return
    with pytest.raises(ConfigError) as caught:
        choose_batch(model, **settings)
    assert caught.value.where == "--batch-size -1" and "\n" not in str(caught.value) and caught.value.exit_code == 2
    assert "640 px" in caught.value.what and "80.0 GB" in caught.value.what


def test_measuring_ends_where_memory_does() -> None:
    def measure(batch: int) -> float:
        if batch > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0 * batch

    assert measured_memory(measure) == ([1, 2, 4], [1.0, 2.0, 4.0])


def test_without_a_gpu_the_default_is_used_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    model = DetectionModel(load_model_config("yolov5n.yaml"), nc=2)
    with caplog.at_level("WARNING", logger="akyolo"):
        assert choose_batch(model, image_size=64, device=torch.device("cpu"), amp=False) == 16
    (record,) = caplog.records
    assert "16" in record.message and "cpu" in record.message
