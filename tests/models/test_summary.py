"""Operations counted in closed form: two for each multiply-add, AKConv's sampling included."""

import pytest
import torch
from torch import nn

from models.common import Conv
from models.config import ModelConfig
from models.modules.akconv import AKConv
from models.modules.c3tr import TransformerBlock
from models.summary import count_flops, model_flops, model_line, summarize
from models.yolo import DetectionModel


def on_meta(*shape):
    return torch.empty(shape, device="meta")


def test_convolution():
    # 8 channels of 6 x 10 values, each a sum of 3 * 3 * 3 products.
    assert count_flops(Conv(3, 8, 3), on_meta(1, 3, 6, 10)) == (2 * 8 * 60 * 27, 0)


def test_strided_convolution():
    # 7 x 12 at stride 2 gives 4 x 6.
    assert count_flops(Conv(5, 16, 3, 2), on_meta(1, 5, 7, 12)) == (2 * 16 * 24 * 45, 0)


def test_grouped_convolution():
    # 2 of 6 channels for each value.
    assert count_flops(Conv(6, 9, 3, g=3), on_meta(1, 6, 5, 8)) == (2 * 9 * 40 * 18, 0)


def test_matrix_product():
    assert count_flops(nn.Linear(7, 4), on_meta(3, 7)) == (2 * 3 * 7 * 4, 0)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(("stride", "pixels"), [(1, 7 * 12), (2, 4 * 6), (3, 3 * 4)])
@pytest.mark.parametrize("points", [1, 5])
def test_akconv(batch_size, stride, pixels, points):
    outputs = batch_size * pixels
    offsets = 2 * outputs * (2 * points) * (9 * 4)
    columns = 2 * outputs * 6 * (points * 4)
    # For each point 7 per channel (4 products, 3 sums) and 18 for its position: 4 sums, 4 comparisons, 2 floors, 4
    # differences, 4 products.
    sampling = outputs * points * (7 * 4 + 18)
    found = count_flops(AKConv(4, 6, points, stride), on_meta(batch_size, 4, 7, 12))
    assert found == (offsets + columns + sampling, sampling)


def test_forms_of_akconv():
    # 4 channels, 7 x 12 at stride 2 gives 24 pixels; 5 points; depthwise 3 x 3, then 10 or 15 outputs of 4 channels.
    columns, sampling = 2 * 24 * 6 * 20, 24 * 5 * 46
    depthwise = 2 * 24 * (4 * 9 + 10 * 4)
    found = count_flops(AKConv(4, 6, 5, 2, offsets="depthwise"), on_meta(1, 4, 7, 12))
    assert found == (columns + depthwise + sampling, sampling)
    # A factor of a sample: an exponential, a sum, a division and a product, and 4 products with the weights.
    sampling += 24 * 5 * 8
    found = count_flops(AKConv(4, 6, 5, 2, modulated=True), on_meta(1, 4, 7, 12))
    assert found == (columns + 2 * 24 * 15 * 36 + sampling, sampling)


def test_akconv_as_one_number():
    assert count_flops(AKConv(4, 6, 5, 2), on_meta(1, 4, 7, 12)) == (17280 + 5760 + 5520, 5520)


def test_layers_add_up():
    # Conv: 3 -> 4 channels, 9 x 14 to 5 x 7. AKConv of 3 points: 4 -> 2 channels at 5 x 7. Conv 1 x 1: 2 -> 1 channel.
    model = nn.Sequential(Conv(3, 4, 3, 2), AKConv(4, 2, 3), Conv(2, 1, 1))
    sampling = 35 * 3 * 46
    convolutions = 2 * 35 * (4 * 27 + 6 * 36 + 2 * 12 + 1 * 2)
    assert count_flops(model, on_meta(1, 3, 9, 14)) == (convolutions + sampling, sampling)


def test_counting_leaves_the_module():
    model = nn.Sequential(Conv(3, 4, 3), AKConv(4, 2, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = count_flops(model, on_meta(2, 3, 9, 14))
    assert count_flops(model, on_meta(2, 3, 9, 14)) == first
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(layer.training and not layer._forward_hooks for layer in model.modules())


@pytest.mark.parametrize(
    ("layer", "args"), [("C3", [32]), ("C3TR", [32]), ("AKConv", [32, 5, 1]), ("C3_AKConv", [32, 3])]
)
def test_small_images_give_the_operations_of_a_large_one(layer, args):
    content = {
        "nc": 2,
        "anchors": [[10, 13, 16, 30]],
        "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 2, layer, args]],
        "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
    }
    model = DetectionModel(ModelConfig.from_dict(content, name="small.yaml")).eval()
    for size_hw in ((64, 96), (200, 4)):
        expected = count_flops(model, on_meta(1, 3, *size_hw))
        assert model_flops(model, size_hw) == expected
        assert count_flops(model, torch.zeros(1, 3, *size_hw)) == expected, "with the compiled kernel, if there is one"
    assert (model_flops(model, (64, 96))[1] > 0) == ("AKConv" in layer)


def test_attention_is_counted():
    # 6 x 5 tokens of 8 channels: two products of tokens x channels x tokens beyond the linear layers.
    block = TransformerBlock(8, 8, 4, 1)
    linear = 2 * 30 * 64 * (1 + 3 + 3 + 1 + 2)  # position, q k v, their projections, out, fc1 fc2
    assert count_flops(block, torch.zeros(1, 8, 6, 5)) == (linear + 2 * 2 * 30 * 30 * 8, 0)


@pytest.mark.parametrize(("size", "parameters", "gflops"), [("n", "1,867,405", "4.5"), ("s", "7,225,885", "16.4")])
def test_the_line_has_the_figures_that_yolov5_publishes(size, parameters, gflops):
    line = model_line(DetectionModel(f"yolov5{size}.yaml"))
    assert line == f"yolov5{size}.yaml: 157 layers, {parameters} parameters, {gflops} GFLOPs at 640x640 px"


def test_summary_of_a_model():
    content = {
        "nc": 2,
        "anchors": [[10, 13, 16, 30]],
        "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "AKConv", [16, 3, 2]]],
        "head": [[[1], 1, "Detect", ["nc", "anchors"]]],
    }
    summary = summarize(DetectionModel(ModelConfig.from_dict(content, name="small.yaml")), (64, 96))
    # 8 * 27 + 2 * 8; 6 * 8 * 9 + 6, 16 * 8 * 3 and 2 * 16; a 1 x 1 convolution to 2 anchors of 7 values, with bias.
    assert [row.parameters for row in summary.layers] == [232, 438 + 384 + 32, 14 * 16 + 14]
    assert [row.sources for row in summary.layers] == [(-1,), (0,), (1,)]
    assert [row.index for row in summary.layers] == [0, 1, 2]
    assert [row.module for row in summary.layers] == ["Conv", "AKConv", "Detect"]
    assert summary.parameters == 232 + 854 + 238
    # 32 x 48 pixels after the first layer, 16 x 24 = 384 after the second.
    sampling = 384 * 3 * (7 * 8 + 18)
    convolutions = 2 * (1536 * 8 * 27 + 384 * 6 * 72 + 384 * 16 * 24 + 384 * 14 * 16)
    assert summary.sampling_gflops == pytest.approx(sampling / 1e9, rel=1e-12)
    assert summary.gflops == pytest.approx((convolutions + sampling) / 1e9, rel=1e-12)
    assert summary.size_hw == (64, 96)
