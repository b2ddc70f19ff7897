"""Sampling points against the operator itself, which reads at each point the coordinates of an image of coordinates."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.fuse import fused
from models.modules import AKConv
from models.sampling.offset_convolution import last_convolution
from models.sampling.operator import ak_conv2d
from tests.helpers.random_model import random_model
from tests.helpers.sampling import model_with_offsets, random_sampling
from utils.datasets.letterbox import letterbox
from utils.errors import ConfigError
from utils.inference.sampling_points import (
    Location,
    akconv_layers,
    box_centers,
    first_layer_per_level,
    locations_inside,
    map_to_image,
    nearest_output_pixel,
    record_sampling,
    sampled_positions,
    select_layers,
)


@pytest.mark.parametrize("image_hw", [(230, 500), (700, 300), (96, 96)])
@pytest.mark.parametrize(("cell", "stride", "points"), [(8, 2, 5), (16, 1, 3), (4, 2, 3)])
def test_positions_in_the_image_are_those_that_the_operator_reads(image_hw, cell, stride, points) -> None:
    """An image whose values are its own coordinates is letterboxed, pooled to a map, and sampled by the operator."""
    rows, columns = np.meshgrid(*(np.arange(side, dtype=np.float32) + 0.5 for side in image_hw), indexing="ij")
    letterboxed, transform = letterbox(np.stack((columns, rows, columns), -1), (320, 256), stride=32)
    x = F.avg_pool2d(
        torch.from_numpy(letterboxed).permute(2, 0, 1)[None, :2], cell
    )  # (1, 2, H, W): the mean of each cell
    layer = random_sampling(tuple(x.shape[2:]), points=points, stride=stride)
    select = torch.eye(2 * points).view(2 * points, points, 2).permute(0, 2, 1)[..., None]  # copies every sample
    read = ak_conv2d(x, layer.offset, select, points=layer.points, stride=stride)
    read_xy = read.view(points, 2, *read.shape[2:]).permute(2, 3, 0, 1).numpy()  # (h, w, N, 2)
    learned = layer.learned()[0].numpy()
    image_xy = map_to_image(learned, cell_hw=layer.cell_size(letterboxed.shape[:2]), transform=transform)
    # The pooled ramp is linear only away from the padding and the map's border.
    margin = 1.5 * cell / min(transform.ratio_wh)
    inside = ((image_xy > margin) & (image_xy < np.array(image_hw[::-1]) - margin)).all(-1)
    assert inside.sum() > 20
    np.testing.assert_allclose(image_xy[inside], read_xy[inside], atol=2e-2)


def test_initial_positions_are_those_of_the_kernel() -> None:
    layer = random_sampling((9, 14), points=5, stride=2)
    initial = layer.initial()
    assert initial.shape == (1, 5, 7, 5, 2)
    assert initial[0, 3, 4].tolist() == [[6, 8], [6, 9], [7, 8], [7, 9], [8, 8]]
    shift = layer.learned() - initial
    torch.testing.assert_close(shift[0, 3, 4, :, 0], layer.offset[0, :5, 3, 4])
    torch.testing.assert_close(shift[0, 3, 4, :, 1], layer.offset[0, 5:, 3, 4])


def test_positions_outside_all_cells_are_outside() -> None:
    layer = random_sampling((6, 9))
    inside = torch.tensor([[0, 0], [5, 8], [-0.5, 8.5], [5.5, -0.5]])
    beyond = torch.tensor([[-0.51, 0], [5.51, 0], [0, -0.51], [0, 8.51], [float("nan"), 1], [1, float("inf")]])
    assert not layer.outside(inside).any() and layer.outside(beyond).all()
    assert layer.outside(beyond, margin=1.0).tolist() == [False] * 4 + [True] * 2


def test_the_nearest_output_pixel_covers_the_location() -> None:
    image = np.zeros((230, 500, 3), np.uint8)
    letterboxed, transform = letterbox(image, (320, 256), stride=32)
    input_hw = letterboxed.shape[:2]
    size_hw = (input_hw[0] // 16, input_hw[1] // 16)
    left, top = transform.pad_wh
    rng = np.random.default_rng(0)
    for x, y in rng.uniform(0, 1, (200, 2)) * (500, 230):
        row, column = nearest_output_pixel((x, y), size_hw, input_hw=input_hw, transform=transform)
        low_x, high_x = ((16 * (column + side) - left) / transform.ratio_wh[0] for side in (0, 1))
        low_y, high_y = ((16 * (row + side) - top) / transform.ratio_wh[1] for side in (0, 1))
        assert low_x <= x <= high_x and low_y <= y <= high_y
    for xy, expected in (((-99, -99), (0, 0)), ((9e9, 9e9), (size_hw[0] - 1, size_hw[1] - 1))):
        assert nearest_output_pixel(xy, size_hw, input_hw=input_hw, transform=transform) == expected


def test_locations_are_box_centers_or_a_grid() -> None:
    boxes = np.array([[10, 20, 30, 60], [0, 0, 4, 2], *[[5, 5, 6, 6]] * 9], np.float32)
    locations = box_centers(boxes, [str(n) for n in range(11)], (80, 200))
    assert [location.label for location in locations] == list("012345") and locations[0] == Location(
        xy=(20, 40), label="0"
    )
    grid = box_centers(np.zeros((0, 4)), [], (90, 240))
    assert {location.xy for location in grid} == set(itertools.product((40, 120, 200), (15, 45, 75)))


def test_locations_outside_the_image_are_dropped() -> None:
    given = [(0, 0), (119.5, 39.75), (120, 10), (10, 40), (39, 119)]
    assert [(location.xy, location.label) for location in locations_inside(given, (40, 120))] == [
        ((0, 0), "0,0"),
        ((119.5, 39.75), "119.5,39.75"),
    ]


def test_locations_in_one_cell_are_merged() -> None:
    _, transform = letterbox(np.zeros((64, 96, 3), np.uint8), (64, 96))
    layer = random_sampling((8, 12), stride=2)
    locations = [
        Location(xy=(20, 20), label="first"),
        Location(xy=(22, 21), label="same cell"),
        Location(xy=(90, 60), label="other"),
    ]
    shown = sampled_positions(layer, locations, input_hw=(64, 96), transform=transform)
    assert [position.label for position in shown] == ["first\nsame cell", "other"]
    np.testing.assert_allclose(shown[0].initial_xy[0], (8 * 2.5, 8 * 2.5))  # the center of pixel (2, 2), 8 px each


@pytest.mark.parametrize(
    "form", [{"modulated": True}, {"offsets": "depthwise"}, {"offsets": "depthwise", "modulated": True}]
)
def test_the_offsets_of_any_form_are_recorded_without_factors(form: dict[str, Any]) -> None:
    layer = AKConv(4, 6, 5, 2, **form).eval()
    torch.nn.init.normal_(last_convolution(layer.p_conv).weight)
    x = torch.randn(2, 4, 9, 14)
    with record_sampling({"layer": layer}) as samplings, torch.inference_mode():
        layer(x)
        expected = layer.p_conv(x)[:, :10]
    sampling = samplings["layer"]
    torch.testing.assert_close(sampling.offset, expected)
    shift = sampling.learned() - sampling.initial()
    torch.testing.assert_close(shift.permute(0, 4, 3, 1, 2).flatten(1, 2), expected, rtol=1e-4, atol=1e-4)


def test_recording_does_not_change_predictions_and_ends() -> None:
    model = fused(model_with_offsets())
    layers = akconv_layers(model)
    images = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        expected = model(images)[0]
        with record_sampling(layers) as samplings:
            recorded = model(images)[0]
        after = model(images)[0]
    torch.testing.assert_close(recorded, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(after, expected) and not any(layer.p_conv._forward_hooks for layer in layers.values())
    assert list(samplings) == list(layers) and samplings["model.1"].size_hw == (32, 48)
    assert samplings["model.1"].offset.shape == (2, 6, 16, 24) and samplings["model.5"].offset.abs().mean() > 0.01
    with torch.inference_mode():
        captured = {}
        layers["model.1"].p_conv.register_forward_pre_hook(lambda _, inputs: captured.update(x=inputs[0]))
        model(images)
        conv = layers["model.1"].p_conv
        expected_offset = F.conv2d(captured["x"], conv.weight, conv.bias, stride=2, padding=1)
    torch.testing.assert_close(samplings["model.1"].offset, expected_offset)


def test_layers_are_selected_by_level_or_name() -> None:
    model = model_with_offsets()
    layers = akconv_layers(model)
    with torch.inference_mode(), record_sampling(layers) as samplings:
        model(torch.rand(1, 3, 64, 96))
    assert first_layer_per_level(samplings, height=64) == ["model.1", "model.3", "model.5", "model.7"]
    assert first_layer_per_level(samplings, height=64, max_layers=2) == ["model.1", "model.3"]
    assert select_layers(layers, ["17", "model.3", "3"]) == ["model.17.m.0.cv2", "model.3"]
    for selector in ("2", "model.1x", "conv"):
        with pytest.raises(ConfigError) as error:
            select_layers(layers, [selector])
        assert error.value.where == "--visualize-layers" and repr(selector) in error.value.what and error.value.fix
    assert akconv_layers(random_model("yolov5n.yaml", 3)) == {}
