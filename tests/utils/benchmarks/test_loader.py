"""The loader benchmark: its flags, and that it loads the samples of training. No speeds, since machines vary."""

import dataclasses

import cv2
import pytest
import torch

from tests.helpers.data_oracles import write_data_set
from utils.benchmarks import loader
from utils.benchmarks.loader import ThroughputOptions, measure, run_throughput
from utils.errors import ConfigError
from utils.options.hyperparameters import Hyperparameters
from utils.strict_yaml import dump_yaml


@pytest.fixture(autouse=True)
def threads():
    before = cv2.getNumThreads(), torch.get_num_threads()
    yield
    cv2.setNumThreads(before[0])
    torch.set_num_threads(before[1])


def test_flag_set_is_frozen():
    flags = {"data", "hyp", "imgsz", "cache", "repeats", "seed"}
    assert {f.name for f in dataclasses.fields(ThroughputOptions)} == flags


@pytest.mark.parametrize(("cache", "decoded"), [("none", None), ("default", 3), ("ram", 3), ("disk", 0)])
def test_each_cache_mode_decodes_as_often_as_it_says(cache, decoded, tmp_path, monkeypatch):
    """Two epochs of three images: a cache decodes each once, the disk cache before, and no cache each time."""
    data = write_data_set(tmp_path, count=3)
    calls, decode, real = [], cv2.imdecode, loader.measure
    monkeypatch.setattr(cv2, "imdecode", lambda *args: (calls.append(1), decode(*args))[1])

    def measure_only(dataset, *, rounds):
        calls.clear()
        return real(dataset, rounds=rounds)

    monkeypatch.setattr(loader, "measure", measure_only)
    hyp = tmp_path / "hyp.yaml"
    dump_yaml(hyp, {**dataclasses.asdict(Hyperparameters()), "mosaic": 0.0, "mixup": 0.0, "copy_paste": 0.0})
    result = run_throughput(ThroughputOptions(data=data, hyp=str(hyp), imgsz=64, repeats=1, cache=cache))
    assert len(calls) == (2 * 3 if decoded is None else decoded)
    assert result.wall_clock > 0 and result.processor > 0


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


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"imgsz": 8}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError) as caught:
        ThroughputOptions(**wrong)
    assert caught.value.where == "--" + "".join(wrong)
