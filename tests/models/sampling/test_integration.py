"""AKConv in the company it must keep: compilers, copies, averages, several processes, mixed precision."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from models.config import load_model_config
from models.modules import AKConv, C3_AKConv
from models.sampling.sampling_grid import SamplingGrid
from models.yolo import DetectionModel
from utils.training.ema import ModelEma

SHAPE = (2, 3, 64, 96)


def moving(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, AKConv):
            torch.nn.init.normal_(part.p_conv.weight, std=0.05)
            torch.nn.init.normal_(part.p_conv.bias, std=0.5)  # type: ignore[arg-type]
    return module


def model() -> DetectionModel:
    return moving(DetectionModel(load_model_config("yolov5n-AKConv.yaml"), nc=3))  # type: ignore[return-value]


@pytest.mark.slow
@pytest.mark.parametrize("training", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_compiler_sees_the_whole_model_as_one_graph(training: bool) -> None:
    # fullgraph makes a break in the graph an error; what the backend makes of the graph is tested below.
    network, x = model().double().train(training), torch.rand(SHAPE, dtype=torch.float64)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    maps, expected = (compiled(x), network(x)) if training else (compiled(x)[1], network(x)[1])
    for found, level in zip(maps, expected, strict=True):
        torch.testing.assert_close(found, level, rtol=1e-9, atol=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("training", [False, True])
def test_a_compiled_layer_is_the_layer(training: bool) -> None:
    torch._dynamo.reset()
    layer = moving(C3_AKConv(8, 12, 2)).train(training).double()
    x = torch.randn(2, 8, 13, 10, dtype=torch.float64)
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x), rtol=1e-9, atol=1e-9)
    if training:
        compiled(x).square().sum().backward()
        layer(x).square().sum().backward()
        for found, expected in zip(compiled.parameters(), layer.parameters(), strict=True):
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-7, atol=1e-7)


def test_a_copy_and_an_average_are_models_of_their_own() -> None:
    network, x = model().eval(), torch.rand(SHAPE)
    average, duplicate = ModelEma(network), copy.deepcopy(network)
    with torch.no_grad():
        before = network(x)[0]
        for parameter in network.parameters():
            parameter.add_(0.01)
        assert torch.equal(duplicate(x)[0], before)
        assert torch.equal(average.model.eval()(x)[0], before)
        assert not torch.equal(network(x)[0], before)
        average.update(network)
        assert not torch.equal(average.model(x)[0], before)


def test_gradients_pass_through_distributed_training(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        layer, x = moving(AKConv(3, 4, 5, 2)), torch.rand(2, 3, 9, 14)
        duplicate = DistributedDataParallel(copy.deepcopy(layer))
        layer(x).square().sum().backward()
        duplicate(x).square().sum().backward()
        for expected, found in zip(layer.parameters(), duplicate.parameters(), strict=True):
            torch.testing.assert_close(found.grad, expected.grad)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_offsets_in_half_precision_give_exact_positions(dtype: torch.dtype) -> None:
    offset = torch.full((1, 2, 1, 2100), 0.25, dtype=dtype)
    rows, columns = SamplingGrid(torch.zeros(1, 2)).positions(offset)
    assert rows.dtype == columns.dtype == torch.float32
    assert torch.equal(columns.flatten(), torch.arange(2100) + 0.25) and bool((rows == 0.25).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_positions_stay_in_single_precision(dtype: torch.dtype) -> None:
    # On a map of 320 columns half precision cannot represent a quarter of a pixel, which the image of a ramp shows.
    layer = AKConv(1, 1, 1, act=False).eval()
    torch.nn.init.ones_(layer.conv[0].weight)  # type: ignore[arg-type]
    layer.conv[1] = torch.nn.Identity()
    with torch.no_grad():
        layer.p_conv.bias[1] = 0.25  # type: ignore[index]
    x = (torch.arange(320) % 2).float().expand(1, 1, 4, 320)
    with warnings.catch_warnings(), torch.autocast("cpu", dtype=dtype):
        warnings.simplefilter("ignore")
        training = layer(x)
        with torch.inference_mode():
            inference = layer(x)
    expected = 0.75 * x + 0.25 * (1 - x)
    for found in (training, inference):
        torch.testing.assert_close(found[..., :-1].float(), expected[..., :-1], atol=2e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision_trains(dtype: torch.dtype) -> None:
    network = model().train()
    with torch.autocast("cpu", dtype=dtype):
        maps = network(torch.rand(SHAPE))
    torch.stack([level.float().square().mean() for level in maps]).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
