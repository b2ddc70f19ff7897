"""The measure of difference between an export and PyTorch, and what exceeds its tolerance."""

import pytest
import torch
from torch import Tensor, nn

from utils.errors import ConfigError, RunError
from utils.export.parity_check import Reference, check_nms, check_parity
from utils.inference.exported_model import ExportedModel
from utils.inference.metadata import ModelMetadata
from utils.inference.nms import NmsSettings
from utils.inference.parity import max_difference

CPU = torch.device("cpu")
METADATA = ModelMetadata(names=("a",), stride=32)


class Constant(nn.Module):
    """A network with one box, of objectness 0.5, per image."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([50.0, 40, 20, 10, 0.5, 1]).expand(len(images), 1, 6)


def exported(change: float = 0.0) -> ExportedModel:
    return ExportedModel(lambda images: Constant()(images) + torch.tensor([0.0, 0, 0, 0, change, 0]), METADATA)


def test_difference_is_relative_above_one_and_infinite_if_shapes_or_nans_differ() -> None:
    expected = torch.tensor([0.5, 1000.0, torch.nan])
    assert max_difference(expected, expected) == 0
    assert max_difference(expected, torch.tensor([0.5, 1000.1, torch.nan])) == pytest.approx(1e-4, rel=1e-2)
    assert max_difference(expected, torch.tensor([0.6, 1000.0, torch.nan])) == pytest.approx(0.1)
    assert max_difference(expected, torch.tensor([0.5, 1000.0, 1.0])) == float("inf")
    assert max_difference(expected, expected[:2]) == float("inf")


def test_a_difference_within_the_tolerance_passes_and_a_larger_one_fails() -> None:
    reference = Reference(Constant(), [(1, 3, 32, 32), (2, 3, 32, 64)])
    check_parity("onnx", reference, exported(5e-5), device=CPU)
    with pytest.raises(RunError) as error:
        check_parity("onnx", reference, exported(3e-3), device=CPU)
    assert error.value.where == "onnx" and "3.0e-03" in error.value.what and error.value.exit_code == 1
    check_parity("onnx", reference, exported(3e-3), device=CPU, tolerance=0.01)


def test_an_error_of_the_runtime_names_the_format_and_the_shape() -> None:
    def fail(images: Tensor) -> Tensor:
        raise RuntimeError("no such operator\nsecond line")

    reference = Reference(Constant(), [(1, 3, 32, 32)])
    with pytest.raises(RunError) as error:
        check_parity("onnx", reference, ExportedModel(fail, METADATA), device=CPU)
    assert (
        error.value.where == "onnx" and "no such operator" in error.value.what and "(1, 3, 32, 32)" in error.value.what
    )
    assert "\n" not in str(error.value)

    def typed(images: Tensor) -> Tensor:
        raise ConfigError("a.onnx", "own error", fix="nothing")

    with pytest.raises(ConfigError):
        check_parity("onnx", reference, ExportedModel(typed, METADATA), device=CPU)


def test_nms_in_a_graph_must_find_the_same_scores() -> None:
    reference, settings = Reference(Constant(), [(2, 3, 32, 32)]), NmsSettings()
    rows = torch.tensor([[40.0, 35, 60, 45, 0.5, 0], [0, 0, 0, 0, 0, 0]]).expand(2, 2, 6)
    metadata = ModelMetadata(names=("a",), stride=32, nms=True)
    check_nms(exported(), ExportedModel(lambda _: rows, metadata), settings, reference, max_per_class=300)
    wrong = ExportedModel(lambda _: rows * 0.9, metadata)
    with pytest.raises(RunError):
        check_nms(exported(), wrong, settings, reference, max_per_class=300)
    check_nms(exported(), wrong, settings, reference, max_per_class=1)  # not comparable: PyTorch has no such limit
