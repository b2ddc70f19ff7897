"""Several processes, here as threads, each evaluate a part of the validation split: the result is that of one."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.random_model import random_model
from tests.helpers.training_runs import train_options
from utils.datasets.config import load_data_config
from utils.distributed import DistributedContext
from utils.options.hyperparameters import Hyperparameters
from utils.signals import StopRequested
from utils.training.data import load_training_data
from utils.training.setup import build_trainer
from utils.training.trainer import Trainer
from utils.validation.evaluate import Evaluation


class Meeting:
    """Where threads exchange values."""

    def __init__(self, size: int) -> None:
        self.values: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=120)


@dataclass(frozen=True)
class ThreadContext(DistributedContext):
    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def gather(self, value: Any) -> list[Any]:
        self.meeting.values[self.rank] = value
        self.meeting.barrier.wait()
        values = list(self.meeting.values)
        self.meeting.barrier.wait()
        return values

    def any(self, flag: bool) -> bool:
        return any(self.gather(flag))

    def broadcast_state(self, module: torch.nn.Module) -> None:
        main = self.gather(module)[0]
        for value, other in zip(module.buffers(), main.buffers(), strict=True):
            value.copy_(other)
        self.gather(None)


@pytest.fixture
def ten_images(data: Path, tmp_path: Path) -> Path:
    """The tiny data set, validated on its ten training images."""
    path, text = tmp_path / "ten.yaml", data.read_text()
    text = text.replace("path: ", f"path: {data.parent}/").replace("val: images/val", "val: images/train")
    path.write_text("".join(line for line in text.splitlines(True) if not line.startswith("generator")))
    return path


def trainer(data: Path, folder: Path, context: DistributedContext, batch_size: int) -> Trainer:
    options = train_options(data, folder, batch_size=batch_size, imgsz=64)
    hyperparameters = Hyperparameters()
    sizes = {"image_size": 64, "stride": 32}
    loaded = load_training_data(load_data_config(str(data)), options, hyperparameters, **sizes, context=context)
    model = random_model("yolov5n-AKConv.yaml", 6)
    for name, parameter in model.named_parameters():
        if "p_conv" in name:
            torch.nn.init.normal_(parameter, 0.0, 0.05, generator=torch.Generator().manual_seed(4))
    built = build_trainer(
        options,
        hyperparameters,
        model=model,
        data=loaded,
        run_dir=folder,
        device=torch.device("cpu"),
        context=context,
    )
    built.state.ema.model.eval()
    return built


def figures(evaluation: Evaluation) -> list[Any]:
    arrays = [(i.image_id, i.boxes, i.confidences, i.classes, i.tp) for i in evaluation.images]
    return [evaluation.losses, evaluation.confusion.counts, evaluation.metrics.ap, arrays]


@pytest.mark.parametrize("size", [2, 4])  # with 3 and 2 validation batches
def test_every_process_gets_the_result_of_one(size: int, ten_images: Path, tmp_path: Path) -> None:
    whole, meeting = trainer(ten_images, tmp_path, DistributedContext(), size), Meeting(size)
    contexts = [ThreadContext(rank=rank, size=size, meeting=meeting) for rank in range(size)]
    parts = [trainer(ten_images, tmp_path, context, size) for context in contexts]
    for buffer in parts[-1].state.ema.model.buffers():  # as without --sync-bn: each has statistics of its own
        if buffer.is_floating_point() and buffer.ndim:
            buffer.mul_(1.1)
    expected = whole.validate()
    assert sum(len(image.boxes) for image in expected.images) > 20 and expected.losses["box"] > 0
    with ThreadPoolExecutor(size) as pool:
        results = list(pool.map(Trainer.validate, parts))
    for result in results:
        np.testing.assert_equal(figures(result), figures(expected))
    columns = [each._offsets.pop_columns() for each in (whole, *parts)]
    assert len(set(columns)) == 1 and columns[0][0] > 0


def test_a_signal_to_one_process_stops_all(ten_images: Path, tmp_path: Path) -> None:
    meeting = Meeting(2)
    parts = [trainer(ten_images, tmp_path, ThreadContext(rank=rank, size=2, meeting=meeting), 2) for rank in range(2)]
    parts[1]._shutdown.signal = 15

    def stops(part: Trainer) -> bool:
        try:
            part.validate()
        except StopRequested:
            return True
        return False

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(stops, parts)) == [True, True]
