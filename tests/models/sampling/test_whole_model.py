"""The implementations inside a whole network: the same outputs and gradients, whatever the number of threads."""

from collections.abc import Iterator

import pytest
import torch

from models.config import load_model_config
from models.sampling.dispatch import VARIABLE
from models.sampling.training_kernel import load
from models.yolo import DetectionModel

pytestmark = pytest.mark.kernels


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.slow
def test_gradients_of_a_whole_network_agree(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # float64, since in single precision batch norm's sums are too coarse to separate a fault from rounding. Offsets are
    # moved off zero, where the gradient towards the next pixel is a convention.
    torch.manual_seed(0)
    model = DetectionModel(load_model_config("yolov5n-AKConv.yaml"), nc=3).double().train()
    for name, parameter in model.named_parameters():
        if "p_conv" in name:
            torch.nn.init.normal_(parameter, 0.0, 0.05)
    model = model.to(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 96, 160, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    weights = None
    found = []
    for implementation in ("gather", "embedding_bag", *(("cpu_kernel",) if load(torch.float64) else ())):
        monkeypatch.setenv(VARIABLE, implementation)
        model.zero_grad()
        raw = model(images)
        weights = weights or [torch.randn_like(level) for level in raw]
        torch.stack([(level * w).sum() for level, w in zip(raw, weights, strict=True)]).sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append(([level.detach() for level in raw], gradients))
    raw_a, gradients_a = found[0]
    assert len(gradients_a) == len(list(model.parameters()))
    for raw_b, gradients_b in found[1:]:
        for level_a, level_b in zip(raw_a, raw_b, strict=True):
            torch.testing.assert_close(level_a, level_b, rtol=1e-9, atol=1e-9)
        for name, gradient in gradients_a.items():
            assert (gradients_b[name] - gradient).norm() <= 1e-8 * gradient.norm(), name
