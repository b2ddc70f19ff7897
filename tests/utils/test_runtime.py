"""Choosing a device, the refusal of one that does not exist, and the seeds of a step."""

import platform
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.errors import ConfigError
from utils.runtime import describe_environment, processor_name, seed_step, select_device


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
        (0, "0,1", "use one of: cpu, or leave --device out"),
        (4, "0, 1,2", "use one of: cpu, 0, 1, 2, 3; to train on several, start torchrun --nproc-per-node 3 train.py"),
    ],
    indirect=["gpus"],
)
def test_a_device_that_does_not_exist_is_refused_with_those_that_do(
    gpus: int, name: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ConfigError) as caught:
        select_device(name)
    assert caught.value.where == "--device" and caught.value.fix == fix
    assert repr(name) in caught.value.what
    assert ("torch finds" in caught.value.what) == (gpus == 0), "the reason"


@pytest.mark.parametrize("gpus", [0], indirect=True)
@pytest.mark.parametrize("name", ["0", "cuda", "cuda:0", "0,1"])
def test_a_torch_without_cuda_names_where_to_get_one_that_has_it(
    gpus: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ConfigError) as caught:
        select_device(name)
    assert "torch.version.cuda" in caught.value.what and "https://download.pytorch.org/whl/" in caught.value.fix


@pytest.mark.parametrize(("gpus", "count"), [(0, "0"), (1, "1")], indirect=["gpus"])
def test_under_torchrun_too_few_gpus_are_counted_and_torchrun_is_not_advised(
    gpus: int, count: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError) as caught:
        select_device("0,1")
    assert "2" in caught.value.what and caught.value.what.endswith(count) and "torchrun" not in str(caught.value)


@pytest.mark.parametrize(
    ("gpus", "name", "device"),
    [(0, "", "cpu"), (0, "CPU", "cpu"), (2, "", "cuda:0"), (2, "1", "cuda:1"), (2, "cuda:1", "cuda:1")],
    indirect=["gpus"],
)
def test_an_existing_device_is_selected(gpus: int, name: str, device: str) -> None:
    assert select_device(name) == torch.device(device)


def test_the_environment_names_the_processor(monkeypatch):
    name = describe_environment(torch.device("cpu"))["processor"]
    cpuinfo = Path("/proc/cpuinfo")
    assert name and (not cpuinfo.exists() or name in cpuinfo.read_text() or name == platform.machine())
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    assert processor_name() in (platform.processor(), platform.machine()) and processor_name()


def test_what_a_model_draws_is_a_function_of_seed_step_and_rank() -> None:
    def drawn(*key: int) -> tuple[float, ...]:
        seed_step(*key)
        return (*torch.rand(2).tolist(), float(np.random.random()), random.random())

    keys = [(seed, step, rank) for seed in (0, 7) for step in (0, 1, 2**20) for rank in (0, 1)]
    first = [drawn(*key) for key in keys]
    torch.rand(5)
    assert [drawn(*key) for key in reversed(keys)] == first[::-1]
    assert len({*first}) == len(keys) and all(len({*column}) == len(keys) for column in zip(*first, strict=True))
