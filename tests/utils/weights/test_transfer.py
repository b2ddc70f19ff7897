"""Weight transfer: equal entries are copied, AKConv is fitted to the convolution it replaces, the rest is logged."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from models.common import Conv
from models.config import load_model_config
from models.modules.akconv import AKConv
from models.overrides import RowKeyword
from models.sampling.offset_convolution import last_convolution
from models.yolo import DetectionModel
from tests.helpers.deterministic_init import fill_
from utils.weights.transfer import NEIGHBOUR_CORRELATION, fit_kernel, transfer_weights


class SingleLayer(nn.Module):
    """A model of one layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def fitted(num_points: int, kernel: int, stride: int, **options: object) -> tuple[nn.Module, nn.Module]:
    """A convolution with nontrivial weights, and an AKConv fitted to it."""
    conv = fill_(SingleLayer(Conv(4, 6, kernel, stride))).eval()
    ak = SingleLayer(AKConv(4, 6, num_points, stride, **options)).eval()
    transfer_weights(ak, conv.state_dict(), source="conv.pt")
    return conv, ak


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("points", ["centered", "top_left"])
def test_nine_points_equal_the_3x3_convolution(stride: int, points: str) -> None:
    conv, ak = fitted(9, 3, stride, points=points, padding="zeros")
    x = torch.randn(2, 4, 11, 14)
    assert torch.allclose(ak(x), conv(x), atol=1e-5)
    conv, ak = fitted(9, 3, stride, points=points, padding="border")
    assert torch.allclose(ak(x)[..., 1:-1, 1:-1], conv(x)[..., 1:-1, 1:-1], atol=1e-5)
    assert not torch.allclose(ak(x), conv(x), atol=1e-2)


@pytest.mark.parametrize("offsets", ["conv", "depthwise"])
@pytest.mark.parametrize("points", ["centered", "top_left"])
def test_factors_of_one_and_depthwise_offsets_keep_the_fit_exact(offsets: str, points: str) -> None:
    conv, ak = fitted(9, 3, 2, points=points, padding="zeros", modulated=True, offsets=offsets)
    x = torch.randn(2, 4, 11, 14)
    assert torch.allclose(ak(x), conv(x), atol=1e-5)
    last = last_convolution(ak.layer.p_conv)
    shift = 0.0 if points == "centered" else -1.0
    assert last.bias is not None and last.bias.tolist() == [shift] * 18 + [0.0] * 9
    assert last.weight.count_nonzero() == 0


def test_one_point_equals_the_1x1_convolution() -> None:
    conv, ak = fitted(1, 1, 1)
    x = torch.randn(2, 4, 5, 8)
    assert torch.allclose(ak(x), conv(x), atol=1e-5)


def test_an_exact_fit_copies_every_weight_unchanged() -> None:
    kernel = torch.randn(5, 3, 3, 3)
    points = torch.tensor([[r, c] for r in (-1.0, 0.0, 1.0) for c in (-1.0, 0.0, 1.0)])
    order = torch.randperm(9)
    fit = fit_kernel(kernel, points[order])
    assert fit.shift == (0.0, 0.0) and fit.explained == pytest.approx(1, abs=1e-9)
    assert torch.equal(fit.weight.squeeze(-1), kernel.flatten(2)[..., order])
    assert fit_kernel(kernel, points + torch.tensor([1.0, 3.0])).shift == (-1.0, -3.0)


def correlated_map(height: int, width: int, seed: int) -> np.ndarray:
    """White noise filtered to be correlated with its neighbours along both axes."""
    x = np.random.default_rng(seed).normal(size=(height, width))
    for axis in (0, 1):
        x = np.moveaxis(x, axis, 0)
        for i in range(1, len(x)):
            x[i] = NEIGHBOUR_CORRELATION * x[i - 1] + np.sqrt(1 - NEIGHBOUR_CORRELATION**2) * x[i]
        x = np.moveaxis(x, 0, axis)
    return x


def sampled(x: np.ndarray, row: float, column: float, margin: int) -> np.ndarray:
    """The map shifted by (row, column), bilinear, without a margin."""
    r, c = int(np.floor(row)), int(np.floor(column))
    total = np.zeros((x.shape[0] - 2 * margin, x.shape[1] - 2 * margin))
    for i, a in ((r, 1 - (row - r)), (r + 1, row - r)):
        for j, b in ((c, 1 - (column - c)), (c + 1, column - c)):
            rows, columns = slice(margin + i, i - margin or None), slice(margin + j, j - margin or None)
            total += a * b * x[rows, columns]
    return total


@pytest.mark.parametrize("num_points", [1, 3, 5, 13])
def test_other_numbers_of_points_give_the_least_squares_solution(num_points: int) -> None:
    kernel = torch.randn(1, 1, 3, 3)
    points = AKConv(1, 1, num_points).points
    fit = fit_kernel(kernel, points)
    x = correlated_map(500, 700, seed=num_points)
    target = sum(float(kernel[0, 0, i, j]) * sampled(x, i - 1, j - 1, 6).ravel() for i in range(3) for j in range(3))

    def regression(shift: tuple[float, float]) -> tuple[np.ndarray, float]:
        columns = np.stack([sampled(x, float(r) + shift[0], float(c) + shift[1], 6).ravel() for r, c in points], 1)
        weights, *_ = np.linalg.lstsq(columns, target, rcond=None)
        return weights, 1 - np.square(target - columns @ weights).mean() / np.square(target).mean()

    weights, explained = regression(fit.shift)
    assert fit.explained == pytest.approx(explained, abs=0.02)
    assert np.abs(weights - fit.weight.numpy().ravel()).max() < 0.05 * np.abs(weights).max()
    elsewhere = [regression((row, column))[1] for row in (-1.0, 0.0) for column in (-1.0, 0.0)]
    assert explained > max(elsewhere) - 0.01


def test_coinciding_and_distant_points_and_zero_kernels_give_finite_weights() -> None:
    same = fit_kernel(torch.randn(2, 3, 3, 3), torch.zeros(4, 2))
    assert torch.isfinite(same.weight).all() and 0 < same.explained < 1
    assert fit_kernel(torch.zeros(2, 3, 3, 3), torch.zeros(4, 2)).weight.abs().max() == 0
    far = fit_kernel(torch.randn(2, 3, 3, 3), torch.tensor([[0.0, 0.0], [9999.0, -9999.0]]))
    assert torch.isfinite(far.weight).all()


def test_an_akconv_model_is_initialized_from_a_plain_model(caplog: pytest.LogCaptureFixture) -> None:
    plain = fill_(DetectionModel("yolov5n.yaml", nc=4)).eval()
    mixed = DetectionModel("yolov5n-akconv.yaml", nc=4).eval()
    with caplog.at_level("INFO", logger="akyolo"):
        result = transfer_weights(mixed, plain.state_dict(), source="plain.pt")
    left = result.kept
    assert all(".p_conv." in name for name in left)
    assert "model.1 (3 " in caplog.text and "model.10 (1 " in caplog.text, "layers and numbers of points"
    assert mixed.state_dict()["model.23.m.0.cv2.conv.1.bias"].equal(plain.state_dict()["model.23.m.0.cv2.bn.bias"])
    parameters = dict(mixed.named_parameters())
    fraction = sum(p.numel() for n, p in parameters.items() if n not in left) / sum(
        p.numel() for p in parameters.values()
    )
    assert f"{fraction:.1%}" in caplog.text and "plain.pt" in caplog.text
    assert result.fraction == fraction and 0.5 < fraction < 1


def test_the_light_model_with_nine_points_starts_as_the_plain_model() -> None:
    plain = fill_(DetectionModel("yolov5n.yaml", nc=4)).eval()
    config = load_model_config("yolov5n-AKConv-light.yaml")
    for keyword, value in (("num_param", 9), ("modulated", True)):
        config = RowKeyword(module="AKConv", keyword=keyword).set_to(config, value)
    mixed = DetectionModel(config, nc=4).eval()
    result = transfer_weights(mixed, plain.state_dict(), source="plain.pt")
    assert result.kept and all(".p_conv." in name for name in result.kept)
    x = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(mixed(x)[0], plain(x)[0], rtol=1e-3, atol=1e-3)


def test_another_number_of_classes_keeps_the_head_and_logs_it(caplog: pytest.LogCaptureFixture) -> None:
    weights = fill_(DetectionModel("yolov5n.yaml", nc=80)).state_dict()
    weights["model.3.extra"] = torch.zeros(3)
    model = DetectionModel("yolov5n.yaml", nc=6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with caplog.at_level("INFO", logger="akyolo"):
        left = transfer_weights(model, weights, source="plain.pt").kept
    assert left == [f"model.24.m.{level}.{kind}" for level in range(3) for kind in ("weight", "bias")]
    reported = [set(re.findall(r"model\.\d+", record.getMessage())) for record in caplog.records]
    assert {"model.24"} in reported and {"model.3"} in reported, "the kept and the unused layer"
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name] if name in left or name.endswith(".anchors") else weights[name]), name


def test_an_unsuitable_convolution_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    for conv in (Conv(4, 6, 3, g=2), Conv(4, 5, 3), Conv(4, 6, 2), nn.Sequential(Conv(4, 6, 3))):
        ak = SingleLayer(AKConv(4, 6, 9))
        before = ak.layer.conv[0].weight.clone()
        with caplog.at_level("INFO", logger="akyolo"):
            left = transfer_weights(ak, SingleLayer(conv).state_dict(), source="x.pt").kept
        assert torch.equal(ak.layer.conv[0].weight, before) and len(left) == len(ak.state_dict())
    assert "initialized from" not in caplog.text
