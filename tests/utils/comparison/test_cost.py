"""What a model costs, with stand-ins for CUDA's counters."""

import pytest
import torch
from torch import nn

from utils.comparison.cost import inference_cost, timed_pass


class Counters:
    """CUDA's memory of a GPU on which other networks lie, and where a pass takes some more for a while."""

    def __init__(self, standing: int, between: int) -> None:
        self.standing, self.between, self.peak = standing, between, 0
        self.order: list[str] = []

    def put_in_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.synchronize", lambda device: self.order.append("wait"))
        monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: setattr(self, "peak", self.standing))
        monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: self.standing)
        monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: self.peak)

    def hook(self, module: nn.Module, inputs: object, output: object) -> None:
        self.order.append("pass")
        self.peak = self.standing + self.between


@pytest.mark.parametrize("others", [0, 5_000_000_000])
def test_memory_is_the_models_own_whatever_else_lies_on_the_gpu(others, monkeypatch):
    network, image = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval(), torch.zeros(1, 3, 8, 6)
    own = 4 * (12 + 4) + 4 * 4 * 4 + 8 + 4 * 3 * 8 * 6  # weights, statistics, their counter of 64 bits, the image
    counters = Counters(standing=own + others, between=1000)
    counters.put_in_place(monkeypatch)
    network.register_forward_hook(counters.hook)
    milliseconds, peak = timed_pass(network, image, torch.device("cuda"))
    assert peak == own + 1000 and milliseconds > 0
    assert counters.order == ["wait", "pass", "wait"], "the clock stops when the work is done"


def test_every_model_is_timed_as_two_copies_and_turns_go_round(monkeypatch):
    made: dict[str, nn.Module] = {}
    order: list[str] = []

    def load(path):
        made[f"{path}{len(made)}"] = nn.Identity()
        return [*made.values()][-1], None

    def timed(network, image, device):
        name = next(name for name, one in made.items() if one is network)
        order.append(name)
        return {"a0": 2.0, "b1": 3.0, "a2": 2.5, "b3": 2.7}[name], {"a0": 5, "a2": 7}.get(name, 0)

    monkeypatch.setattr("utils.comparison.cost.load_model", load)
    monkeypatch.setattr("utils.comparison.cost.fused", lambda network: network)
    monkeypatch.setattr("utils.comparison.cost.to_device", lambda network, device: network)
    monkeypatch.setattr("utils.comparison.cost.timed_pass", timed)
    costs, noise = inference_cost(["a", "b"], [32, 64], device=torch.device("cpu"))
    assert [cost["inference_ms"] for cost in costs] == [2.25, 2.85] and noise == pytest.approx((0.25, 0.25))
    assert [cost["inference_ms_p95"] for cost in costs] == [2.5, 3.0]
    assert [cost["inference_memory_gb"] for cost in costs] == [7e-9, None]
    rounds = [order[start : start + 4] for start in range(0, len(order), 4)]
    assert all(sorted(one) == ["a0", "a2", "b1", "b3"] for one in rounds) and {one[0] for one in rounds} == set(made)


def test_elsewhere_memory_is_not_known():
    milliseconds, peak = timed_pass(nn.Identity(), torch.zeros(1, 3, 4, 4), torch.device("cpu"))
    assert milliseconds > 0 and peak == 0
