"""Choosing a device, and the refusal of one that does not exist."""

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
    ("gpus", "name", "fix"),
    [
        (0, "0", "use one of: cpu"),
        (2, "5", "use one of: cpu, 0, 1"),
        (0, "gpu", "use one of: cpu"),
        (0, "0,1", "use one of: cpu; to train on several, start torchrun --nproc-per-node 2 train.py"),
        (4, "0, 1,2", "use one of: cpu, 0, 1, 2, 3; to train on several, start torchrun --nproc-per-node 3 train.py"),
    ],
    indirect=["gpus"],
)
def test_a_device_that_does_not_exist_is_refused_with_those_that_do(gpus: int, name: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        select_device(name)
    assert caught.value.where == "--device" and caught.value.fix == fix
    assert repr(name) in caught.value.what
    assert (": " in caught.value.what) == (gpus == 0), "the reason"


@pytest.mark.parametrize(
    ("gpus", "name", "device"),
    [(0, "", "cpu"), (0, "CPU", "cpu"), (2, "", "cuda:0"), (2, "1", "cuda:1"), (2, "cuda:1", "cuda:1")],
    indirect=["gpus"],
)
def test_an_existing_device_is_selected(gpus: int, name: str, device: str) -> None:
    assert select_device(name) == torch.device(device)
