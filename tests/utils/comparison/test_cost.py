"""What a model costs, with a clock that only networks advance and stand-ins for CUDA's memory counters."""

import pytest
import torch
from torch import Tensor, nn

from utils.comparison.cost import ROUNDS, forward_memory_gb, time_networks

CPU = torch.device("cpu")


class Clock:
    """Seconds that pass only while a network runs."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(nn.Module):
    """A network that takes a given time for each pass, the last one repeatedly."""

    def __init__(self, clock: Clock, *seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds, self.seen = clock, list(seconds), 0

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        self.seen += x.numel()
        return x


def test_times_are_over_both_copies_and_their_difference_is_the_noise():
    clock = Clock()
    networks, copies = [Slow(clock, 0.002), Slow(clock, 0.003)], [Slow(clock, 0.0025), Slow(clock, 0.0027)]
    images = [torch.zeros(1), torch.zeros(3)]
    timings, noise = time_networks(networks, copies, images, device=CPU, clock=clock)
    assert [timing["inference_ms"] for timing in timings] == pytest.approx([2.25, 2.85])
    assert [timing["inference_ms_p95"] for timing in timings] == pytest.approx([2.5, 3.0])
    assert noise == pytest.approx((0.25, 0.25))
    assert [network.seen for network in networks] == [copy.seen for copy in copies]
    assert networks[1].seen == 3 * networks[0].seen >= 3 * ROUNDS


def test_warm_up_passes_are_not_measured_and_outliers_count_in_p95_only():
    clock = Clock()
    warm_up, slow = [9.0] * 5, [0.002] * (ROUNDS // 10)
    network, copy = Slow(clock, *warm_up, *slow, 0.001), Slow(clock, *warm_up, 0.001)
    (timing,), noise = time_networks([network], [copy], [torch.zeros(1)], device=CPU, clock=clock)
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


def test_memory_is_unknown_elsewhere_than_on_cuda():
    assert forward_memory_gb(nn.Identity(), torch.zeros(1, 3, 4, 4), CPU) is None
