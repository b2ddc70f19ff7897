"""What a model costs, with a clock that only networks advance and stand-ins for CUDA's memory counters."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.helpers.small_model import SMALL_NAMES, small_model
from utils.comparison.cost import ROUNDS, file_mb, forward_memory_gb, time_networks
from utils.datasets.letterbox import letterbox
from utils.inference.nms import NmsSettings
from utils.weights.checkpoint import describe_model, load_model, save_checkpoint, weights_of

CPU = torch.device("cpu")


class Clock:
    """Seconds that pass only while a network runs."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(nn.Module):
    """A network that takes a given time for each pass, the last one repeatedly, and detects nothing."""

    def __init__(self, clock: Clock, *seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds, self.seen = clock, list(seconds), []

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        self.clock.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        self.seen.append(x)
        return torch.zeros(1, 4, 7), None


IMAGES = [np.full((30, 40, 3), 50, np.uint8), np.full((50, 20, 3), 200, np.uint8)]


def test_times_are_over_both_copies_and_their_difference_is_the_noise():
    clock = Clock()
    networks, copies = [Slow(clock, 0.002), Slow(clock, 0.003)], [Slow(clock, 0.0025), Slow(clock, 0.0027)]
    timings, noise = time_networks(networks, copies, [64, 96], IMAGES, device=CPU, clock=clock)
    assert [timing["inference_ms"] for timing in timings] == pytest.approx([2.25, 2.85])
    assert [timing["inference_ms_p95"] for timing in timings] == pytest.approx([2.5, 3.0])
    assert noise == pytest.approx((0.25, 0.25))
    assert [len(network.seen) for network in networks] == [len(copy.seen) for copy in copies]
    assert len(networks[1].seen) == len(networks[0].seen) >= ROUNDS
    assert {network.seen[0].shape for network in networks} == {(1, 3, 64, 64), (1, 3, 96, 96)}


def test_every_image_is_letterboxed_and_scaled_in_turn():
    clock = Clock()
    network = Slow(clock, 0.001)
    time_networks([network], [Slow(clock, 0.001)], [64], IMAGES, device=CPU, clock=clock)
    means = {round(float(x.mean()), 3) for x in network.seen[-4:]}
    assert len(means) == 2, "both images"
    (wide,) = (x for x in network.seen[:1])
    assert wide[0, :, 32, 32] == pytest.approx(torch.full((3,), 50 / 255)) and wide[0, 0, 0, 0] == 114 / 255


def test_phases_add_up_to_the_frames_per_second(monkeypatch):
    clock = Clock()

    def slow_letterbox(image, size_hw):
        clock.now += 0.004
        return letterbox(image, size_hw)

    def slow_nms(predictions, settings):
        clock.now += 0.002
        assert settings == NmsSettings()

    monkeypatch.setattr("utils.comparison.cost.letterbox", slow_letterbox)
    monkeypatch.setattr("utils.comparison.cost.non_max_suppression", slow_nms)
    (timing,), noise = time_networks([Slow(clock, 0.01)], [Slow(clock, 0.01)], [64], IMAGES, device=CPU, clock=clock)
    assert [timing[key] for key in ("preprocess_ms", "inference_ms", "nms_ms")] == pytest.approx([4, 10, 2])
    assert timing["fps_network"] == pytest.approx(100) and timing["fps_end_to_end"] == pytest.approx(62.5)
    assert noise == pytest.approx((0, 0), abs=1e-6), "of inference alone"


def test_warm_up_passes_are_not_measured_and_outliers_count_in_p95_only():
    clock = Clock()
    warm_up, slow = [9.0] * 6, [0.002] * (ROUNDS // 10)  # one pass prepares the first round
    network, copy = Slow(clock, *warm_up, *slow, 0.001), Slow(clock, *warm_up, 0.001)
    (timing,), noise = time_networks([network], [copy], [64], IMAGES, device=CPU, clock=clock)
    assert timing["inference_ms"] == pytest.approx(1) and noise[0] == pytest.approx(0, abs=1e-6)
    assert 1 < timing["inference_ms_p95"] <= 2 and noise[1] == pytest.approx(0.5)


class Counters:
    """CUDA's memory counters, with other networks on the device and a temporary allocation in each pass."""

    def __init__(self, allocated: int, temporary: int) -> None:
        self.allocated, self.temporary, self.peak = allocated, temporary, 0
        self.order: list[str] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.synchronize", lambda device: self.order.append("wait"))
        monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: setattr(self, "peak", self.allocated))
        monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: self.allocated)
        monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: self.peak)

    def hook(self, module: nn.Module, inputs: object, output: object) -> None:
        self.order.append("pass")
        self.peak = self.allocated + self.temporary


@pytest.mark.parametrize("others", [0, 5_000_000_000])
def test_memory_is_that_of_the_network_alone(others, monkeypatch):
    network, image = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval(), torch.zeros(1, 3, 8, 6)
    fixed = 4 * (12 + 4) + 4 * 4 * 4 + 8 + 4 * 3 * 8 * 6  # weights, statistics, their counter of 64 bits, the image
    counters = Counters(allocated=fixed + others, temporary=1000)
    counters.install(monkeypatch)
    network.register_forward_hook(counters.hook)
    assert forward_memory_gb(network, image, torch.device("cuda")) == (fixed + 1000) / 1e9
    assert counters.order == ["pass", "wait"]


def test_memory_on_the_cpu_is_what_is_alive_at_the_same_time():
    first, second = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 16, 1, bias=False)
    image = torch.zeros(1, 3, 80, 60)
    fixed, pixels = 4 * (12 + 64) + image.nbytes, 4 * 80 * 60
    network = nn.Sequential(first, nn.SiLU(), second).eval()
    assert forward_memory_gb(network, image, CPU) == pytest.approx((fixed + (4 + 16) * pixels) / 1e9, rel=0.02)
    assert forward_memory_gb(nn.Identity(), image, CPU) == image.nbytes / 1e9


def test_memory_is_unknown_elsewhere():
    assert forward_memory_gb(nn.Identity(), torch.zeros(1, 3, 4, 4), torch.device("mps")) is None


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 4), (torch.float16, 2)])
def test_the_size_is_that_of_a_checkpoint_that_loads(dtype, width, tmp_path):
    model = small_model("yolov5n-AKConv.yaml")
    size = file_mb(model, SMALL_NAMES, dtype)
    weights = {name: t.to(dtype) if t.is_floating_point() else t for name, t in weights_of(model).items()}
    save_checkpoint(tmp_path / "model.pt", {**describe_model(model, SMALL_NAMES), "ema": weights})
    assert size == (tmp_path / "model.pt").stat().st_size / 1e6
    values = sum(tensor.numel() for tensor in weights.values() if tensor.is_floating_point())
    assert values * width / 1e6 < size < (values * width + 400_000) / 1e6
    loaded, names = load_model(tmp_path / "model.pt")
    assert names == SMALL_NAMES and {p.dtype for p in loaded.parameters()} == {torch.float32}
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, weights[name].to(tensor.dtype))
