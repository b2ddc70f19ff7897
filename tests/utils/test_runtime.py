"""Choosing a device: what is not there is refused with the reason."""

import pytest
import torch

from utils.errors import ConfigError
from utils.runtime import select_device


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    count: int = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    return count


@pytest.mark.parametrize(
    ("gpus", "name", "said"),
    [
        (0, "0", "--device: '0' is not available: torch finds no CUDA device. Fix: use one of: cpu."),
        (2, "5", "--device: '5' is not available. Fix: use one of: cpu, 0, 1."),
        (0, "gpu", "--device: 'gpu' is not available: torch finds no CUDA device. Fix: use one of: cpu."),
        (
            0,
            "0,1",
            "--device: '0,1' names 2 devices, and one process uses one: torch finds no CUDA device. "
            "Fix: use one of: cpu; to train on several, start torchrun --nproc-per-node 2 train.py.",
        ),
        (
            4,
            "0, 1,2",
            "--device: '0, 1,2' names 3 devices, and one process uses one. "
            "Fix: use one of: cpu, 0, 1, 2, 3; to train on several, start torchrun --nproc-per-node 3 train.py.",
        ),
    ],
    indirect=["gpus"],
)
def test_what_is_not_there_is_refused_with_the_reason(gpus: int, name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        select_device(name)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("gpus", "name", "device"),
    [(0, "", "cpu"), (0, "CPU", "cpu"), (2, "", "cuda:0"), (2, "1", "cuda:1"), (2, "cuda:1", "cuda:1")],
    indirect=["gpus"],
)
def test_what_is_there_is_taken(gpus: int, name: str, device: str) -> None:
    assert select_device(name) == torch.device(device)
