"""The measuring command: its flags, and that it measures the samples that training draws. No speeds: machines vary."""

import dataclasses

import cv2
import pytest
import torch

from tests.helpers.data_oracles import write_data_set
from utils.benchmarks import loader
from utils.benchmarks.loader import ThroughputOptions, measure, run_throughput
from utils.errors import ConfigError


@pytest.fixture(autouse=True)
def threads():
    before = cv2.getNumThreads(), torch.get_num_threads()
    yield
    cv2.setNumThreads(before[0])
    torch.set_num_threads(before[1])


def test_flag_set_is_frozen():
    assert {f.name for f in dataclasses.fields(ThroughputOptions)} == {
        "data",
        "hyp",
        "imgsz",
        "cache",
        "rounds",
        "seed",
    }


@pytest.mark.parametrize("cache", ["none", "default", "ram", "disk"])
def test_command_tells_speed_and_load(cache, tmp_path, caplog):
    data = write_data_set(tmp_path, count=3)
    with caplog.at_level("INFO"):
        result = run_throughput(ThroughputOptions(data=data, imgsz=64, repeats=1, cache=cache))
    assert result.by_clock > 0 and result.by_processor > 0
    assert f"64 px, cache {cache}: " in caplog.text and "; load " in caplog.text


def test_each_sample_of_each_epoch_is_drawn_once():
    class Counting(list):
        image_size = 64

        def __init__(self):
            super().__init__([0] * 5)
            self.asked = []

        def __getitem__(self, ref):
            self.asked.append((ref.epoch, ref.index, ref.size_hw))
            return sum(range(20_000))

    dataset = Counting()
    measure(dataset, rounds=2)
    assert dataset.asked == [(epoch, i, (64, 64)) for epoch in range(3) for i in range(5)]


def test_mistakes_are_refused():
    for wrong in ({"rounds": 0}, {"imgsz": 8}):
        with pytest.raises(ConfigError, match="--repeats"):
            ThroughputOptions(**wrong)
    assert loader.CACHES["none"] == 0
