"""Where AKConv samples, told from outside: the operator itself reads, at each point, the image's own coordinates."""

import itertools
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.fuse import fused
from models.modules.akconv import AKConv
from models.sampling.operator import ak_conv2d
from tests.helpers.random_model import lively_model
from utils.cli import parse_options
from utils.comparison.report_sampling import sampling_images, shown_image
from utils.datasets.index import DatasetIndex
from utils.datasets.letterbox import letterbox
from utils.detection.run import run_detection
from utils.detection.sampling_plots import MAX_OFFSETS, NO_LAYERS, OffsetCollection
from utils.errors import ConfigError
from utils.export.run import run_export
from utils.inference.sampling_points import (
    LayerSampling,
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
from utils.log import LOGGER
from utils.options import DetectOptions, ExportOptions
from utils.plots.sampling import SampledPosition
from utils.weights.checkpoint import describe_model, save_checkpoint, weights_of

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("ring", "cross", "star")


@pytest.fixture(autouse=True)
def messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(LOGGER, "disabled", False)


def moving_model(cfg: str = "yolov5n-AKConv.yaml", scale: float = 0.03):
    model = lively_model(cfg, len(NAMES))
    generator = torch.Generator().manual_seed(2)
    for layer in akconv_layers(model).values():
        layer.p_conv.weight.data = scale * torch.randn(layer.p_conv.weight.shape, generator=generator)
    return model


def sampling(size_hw: tuple[int, int], *, points: int = 5, stride: int = 2, spread: float = 1.5) -> LayerSampling:
    height, width = ((side - 1) // stride + 1 for side in size_hw)
    layer = AKConv(4, 4, points, stride)
    return LayerSampling(
        name="model.3",
        offset=spread * torch.randn(1, 2 * points, height, width),
        points=layer.points,
        stride=stride,
        size_hw=size_hw,
    )


@pytest.mark.parametrize("image_hw", [(230, 500), (700, 300), (96, 96)])
@pytest.mark.parametrize(("cell", "stride", "points"), [(8, 2, 5), (16, 1, 3), (4, 2, 3)])
def test_points_lie_in_the_image_where_the_operator_reads_it(image_hw, cell, stride, points) -> None:
    """An image whose values are its own coordinates, fitted, pooled to a map, and sampled by the operator."""
    rows, columns = np.meshgrid(*(np.arange(side, dtype=np.float32) + 0.5 for side in image_hw), indexing="ij")
    fitted, placement = letterbox(np.stack((columns, rows, columns), -1), (320, 256), minimal=True, stride=32)
    x = F.avg_pool2d(torch.from_numpy(fitted).permute(2, 0, 1)[None, :2], cell)  # (1, 2, H, W): what each pixel covers
    layer = sampling(tuple(x.shape[2:]), points=points, stride=stride)
    select = torch.eye(2 * points).view(2 * points, points, 2).permute(0, 2, 1)[..., None]  # all values, unmixed
    read = ak_conv2d(x, layer.offset, select, points=layer.points, stride=stride)
    read_xy = read.view(points, 2, *read.shape[2:]).permute(2, 3, 0, 1).numpy()  # (h, w, N, 2)
    learned = layer.learned()[0].numpy()
    found = map_to_image(learned, cell_hw=layer.cell_size(fitted.shape[:2]), placement=placement)
    # Only where pixels touch neither the padding nor the map's border is the pooled ramp a straight one.
    margin = 1.5 * cell / min(placement.ratio_wh)
    inside = ((found > margin) & (found < np.array(image_hw[::-1]) - margin)).all(-1)
    assert inside.sum() > 20
    np.testing.assert_allclose(found[inside], read_xy[inside], atol=2e-2)


def test_initial_points_stand_where_the_kernel_has_them() -> None:
    layer = sampling((9, 14), points=5, stride=2)
    initial = layer.initial()
    assert initial.shape == (1, 5, 7, 5, 2)
    assert initial[0, 3, 4].tolist() == [[6, 8], [6, 9], [7, 8], [7, 9], [8, 8]]
    moved = layer.learned() - initial
    torch.testing.assert_close(moved[0, 3, 4, :, 0], layer.offset[0, :5, 3, 4])
    torch.testing.assert_close(moved[0, 3, 4, :, 1], layer.offset[0, 5:, 3, 4])


def test_outside_is_what_no_cell_of_the_map_covers() -> None:
    layer = sampling((6, 9))
    inside = torch.tensor([[0, 0], [5, 8], [-0.5, 8.5], [5.5, -0.5]])
    beyond = torch.tensor([[-0.51, 0], [5.51, 0], [0, -0.51], [0, 8.51], [float("nan"), 1], [1, float("inf")]])
    assert not layer.outside(inside).any() and layer.outside(beyond).all()
    assert layer.outside(beyond, margin=1.0).tolist() == [False] * 4 + [True] * 2


def test_an_output_pixel_is_the_one_whose_cell_holds_the_place() -> None:
    image = np.zeros((230, 500, 3), np.uint8)
    fitted, placement = letterbox(image, (320, 256), minimal=True, stride=32)
    input_hw = fitted.shape[:2]
    size_hw = (input_hw[0] // 16, input_hw[1] // 16)
    left, top = placement.pad_wh
    rng = np.random.default_rng(0)
    for x, y in rng.uniform(0, 1, (200, 2)) * (500, 230):
        row, column = nearest_output_pixel((x, y), size_hw, input_hw=input_hw, placement=placement)
        low_x, high_x = ((16 * (column + side) - left) / placement.ratio_wh[0] for side in (0, 1))
        low_y, high_y = ((16 * (row + side) - top) / placement.ratio_wh[1] for side in (0, 1))
        assert low_x <= x <= high_x and low_y <= y <= high_y
    for xy, expected in (((-99, -99), (0, 0)), ((9e9, 9e9), (size_hw[0] - 1, size_hw[1] - 1))):
        assert nearest_output_pixel(xy, size_hw, input_hw=input_hw, placement=placement) == expected


def test_what_was_found_is_shown_and_a_grid_where_nothing_was() -> None:
    boxes = np.array([[10, 20, 30, 60], [0, 0, 4, 2], *[[5, 5, 6, 6]] * 9], np.float32)
    locations = box_centers(boxes, [str(n) for n in range(11)], (80, 200))
    assert [location.label for location in locations] == list("012345") and locations[0] == Location(
        xy=(20, 40), label="0"
    )
    grid = box_centers(np.zeros((0, 4)), [], (90, 240))
    assert {location.xy for location in grid} == set(itertools.product((40, 120, 200), (15, 45, 75)))


def test_chosen_places_are_kept_where_the_image_has_pixels() -> None:
    chosen = [(0, 0), (119.5, 39.75), (120, 10), (10, 40), (39, 119)]
    assert [(location.xy, location.label) for location in locations_inside(chosen, (40, 120))] == [
        ((0, 0), "0,0"),
        ((119.5, 39.75), "119.5,39.75"),
    ]


def test_places_in_one_cell_are_shown_once() -> None:
    _, placement = letterbox(np.zeros((64, 96, 3), np.uint8), (64, 96))
    layer = sampling((8, 12), stride=2)
    locations = [
        Location(xy=(20, 20), label="first"),
        Location(xy=(22, 21), label="same cell"),
        Location(xy=(90, 60), label="other"),
    ]
    shown = sampled_positions(layer, locations, input_hw=(64, 96), placement=placement)
    assert [position.label for position in shown] == ["first\nsame cell", "other"]
    np.testing.assert_allclose(shown[0].initial_xy[0], (8 * 2.5, 8 * 2.5))  # the centre of pixel (2, 2), 8 px each


def test_recording_changes_nothing_and_ends() -> None:
    model = fused(moving_model())
    layers = akconv_layers(model)
    images = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        expected = model(images)[0]
        with record_sampling(layers) as found:
            watched = model(images)[0]
        after = model(images)[0]
    torch.testing.assert_close(watched, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(after, expected) and not any(layer.p_conv._forward_hooks for layer in layers.values())
    assert list(found) == list(layers) and found["model.1"].size_hw == (32, 48)
    assert found["model.1"].offset.shape == (2, 6, 16, 24) and found["model.5"].offset.abs().mean() > 0.01
    with torch.inference_mode():
        half = {}
        layers["model.1"].p_conv.register_forward_pre_hook(lambda _, inputs: half.update(x=inputs[0]))
        model(images)
        conv = layers["model.1"].p_conv
        by_hand = F.conv2d(half["x"], conv.weight, conv.bias, stride=2, padding=1)
    torch.testing.assert_close(found["model.1"].offset, by_hand)


def test_layers_are_chosen_by_level_or_by_name() -> None:
    model = moving_model()
    layers = akconv_layers(model)
    with torch.inference_mode(), record_sampling(layers) as found:
        model(torch.rand(1, 3, 64, 96))
    assert first_layer_per_level(found, height=64) == ["model.1", "model.3", "model.5", "model.7"]
    assert first_layer_per_level(found, height=64, max_layers=2) == ["model.1", "model.3"]
    assert select_layers(layers, ["17", "model.3", "3"]) == ["model.17.m.0.cv2", "model.3"]
    for word in ("2", "model.1x", "conv"):
        with pytest.raises(ConfigError, match=f"'{word}' is not an AKConv layer"):
            select_layers(layers, [word])
    assert akconv_layers(lively_model("yolov5n.yaml", 3)) == {} == akconv_layers(object())


def test_histograms_are_of_all_images_and_no_larger_than_needed() -> None:
    collection = OffsetCollection()
    small, large = sampling((6, 9)), sampling((300, 200), stride=1)
    for layer in (small, small, large):
        collection.add({"a": layer})
    (spread,) = collection.spreads()
    own = small.offset[:, :5].numel()
    assert spread.rows.shape == spread.columns.shape == (2 * own + MAX_OFFSETS,)
    np.testing.assert_array_equal(spread.rows[:own], small.offset[0, :5].flatten())
    np.testing.assert_array_equal(spread.columns[:own], small.offset[0, 5:].flatten())
    assert np.isin(spread.rows, torch.cat((small.offset[:, :5].flatten(), large.offset[:, :5].flatten()))).all()
    assert spread.mean == pytest.approx((2 * small.offset.abs().mean() + large.offset.abs().mean()).item() / 3)


# The whole of it, as users run it.


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    for name, model in (("ak", moving_model()), ("plain", lively_model("yolov5n.yaml", len(NAMES)))):
        save_checkpoint(folder / f"{name}.pt", {**describe_model(model, NAMES), "ema": weights_of(model)})
    return {name: folder / f"{name}.pt" for name in ("ak", "plain")}


def write(path: Path, seed: int, height: int, width: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))[1])


def options(weights: Path, source: Path, project: Path, **changes: object) -> DetectOptions:
    settings = {"imgsz": (96,), "conf_thres": 0.05, "device": "cpu", "name": "run", "visualize": True, "nosave": True}
    return DetectOptions(weights=str(weights), source=str(source), project=str(project), **{**settings, **changes})


@pytest.mark.slow
def test_detect_draws_what_visualize_asks_for(weights, tmp_path) -> None:
    write(tmp_path / "in/a.png", 0, 40, 60)
    flags = ["--weights", weights["ak"], "--source", "in", "--imgsz", 96, "--device", "cpu", "--visualize"]
    command = [sys.executable, str(ROOT / "detect.py"), *map(str, flags), "--conf-thres", "0.05"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "Sampling points of 1 image: runs/detect/exp/sampling" in result.stdout and "warning" not in result.stderr
    folder = tmp_path / "runs/detect/exp/sampling"
    drawn = [f"a_model.{number}.png" for number in (1, 3, 5, 7)]
    assert sorted(path.name for path in folder.iterdir()) == [*drawn, "offsets.png"]
    assert all(cv2.imread(str(path)).std() > 5 for path in folder.iterdir())


@pytest.mark.slow
def test_the_first_images_are_drawn_and_of_a_video_one_frame(weights, tmp_path, monkeypatch, caplog) -> None:
    for number in range(3):
        write(tmp_path / f"in/{number}.png", number, 40 + 20 * number, 60)
    writer = cv2.VideoWriter(str(tmp_path / "in/0.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(3):
        writer.write(np.full((48, 64, 3), 90, np.uint8))
    writer.release()
    monkeypatch.setattr("utils.detection.run.MAX_IMAGES", 3)
    caplog.set_level("INFO")
    run = run_detection(options(weights["ak"], tmp_path / "in", tmp_path, visualize_layers=("23",), batch_size=3))
    names = sorted(path.name for path in (run / "sampling").iterdir())
    assert len(names) == 4 and names[-1] == "offsets.png" and all("model.23.m.0.cv2" in name for name in names[:3])
    assert len({name.split("_model")[0] for name in names[:3]}) == 3
    assert "Sampling points of 3 images (the maximum):" in caplog.text


def test_chosen_positions_are_drawn_for_chosen_layers_and_those_outside_told(
    weights, tmp_path, monkeypatch, caplog
) -> None:
    """Layer 3, N = 3, stride 2 on cells of 4 px: an output pixel covers 8 x 8 px of the network's input."""
    write(tmp_path / "in/wide.png", 0, 40, 120)
    write(tmp_path / "in/narrow.png", 1, 120, 40)
    write(tmp_path / "in/small.png", 2, 8, 8)
    drawn: dict[str, list[SampledPosition]] = {}
    monkeypatch.setattr(
        "utils.detection.sampling_plots.plot_sampling",
        lambda image, positions, *, path, **_: drawn.update({path.name: positions}),
    )
    monkeypatch.setattr("utils.detection.sampling_plots.plot_offsets", lambda *_, **__: None)
    chosen = ["--visualize-at", "100,9", "9,100", "--visualize-layers", "3", "--conf-thres", "0.05", "--device", "cpu"]
    words = ["--weights", weights["ak"], "--source", tmp_path / "in", "--project", tmp_path, "--imgsz", 96, "--nosave"]
    with caplog.at_level("WARNING"):
        run_detection(parse_options(DetectOptions, [*map(str, words), *chosen], description="")[0])
    assert sorted(drawn) == ["narrow_model.3.png", "wide_model.3.png"]
    for name, image_hw, place in (("wide", (40, 120), (100, 9)), ("narrow", (120, 40), (9, 100))):
        (position,) = drawn[f"{name}_model.3.png"]
        _, placement = letterbox(np.zeros((*image_hw, 3), np.uint8), (96, 96), minimal=True, stride=32)
        corner = position.initial_xy[0] * placement.ratio_wh + placement.pad_wh - 2  # of the first point's cell
        within = np.array(place) * placement.ratio_wh + placement.pad_wh - corner
        assert position.label == f"{place[0]},{place[1]}" and (corner % 8 == 0).all()
        assert ((within >= 0) & (within < 8)).all(), (name, within)
        assert not np.allclose(position.learned_xy, position.initial_xy)
    told = [record.message for record in caplog.records if "--visualize-at" in record.message]
    assert sorted(told) == [
        "narrow: --visualize-at 100,9 skipped: outside the image of 40x120 pixels",
        "small: --visualize-at 100,9 9,100 skipped: outside the image of 8x8 pixels",
        "wide: --visualize-at 9,100 skipped: outside the image of 120x40 pixels",
    ]


@pytest.mark.parametrize("word", ["5", "5;6", "5,6,7", "a,6", "5,", "-1,6", "5,-0.1", "nan,6", "5,inf", ""])
def test_a_malformed_position_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"^--visualize-at: must be x,y in pixels of the image") as error:
        parse_options(DetectOptions, ["--weights", "a.pt", f"--visualize-at={word}"], description="")
    assert repr(word) in str(error.value) and "\n" not in str(error.value)


def test_more_positions_than_can_be_told_apart_are_refused() -> None:
    words = ["--weights", "a.pt", "--visualize-at", *(f"{n},1" for n in range(37))]
    assert len(parse_options(DetectOptions, words[:-1], description="")[0].visualize_at) == 36
    with pytest.raises(ConfigError, match=r"--visualize-at: must be at most 36 positions \(got 37\)"):
        parse_options(DetectOptions, words, description="")


@pytest.mark.slow
def test_a_model_without_akconv_and_an_exported_one_go_on_without(weights, tmp_path, caplog, monkeypatch) -> None:
    write(tmp_path / "in/a.png", 0, 40, 60)
    caplog.set_level("INFO")
    # Random weights with amplified signals leave float32 noise of about 1e-4, depending on the processor.
    monkeypatch.setattr("utils.export.run.TOLERANCE", 1e-3)
    export = ["--weights", str(weights["ak"]), "--include", "torchscript", "--imgsz", "96", "--project", str(tmp_path)]
    run_export(parse_options(ExportOptions, export, description="")[0])
    (exported,) = (path for folder in (tmp_path, weights["ak"].parent) for path in folder.rglob("*.torchscript"))
    for number, path in enumerate((weights["plain"], exported)):
        caplog.clear()
        run = run_detection(options(path, tmp_path / "in", tmp_path, name=f"n{number}", trust_torchscript=True))
        assert [record.message for record in caplog.records].count(NO_LAYERS) == 1
        assert "image 1/1" in caplog.text and not (run / "sampling").exists()


def test_a_wrong_layer_is_told_before_anything_is_written(weights, tmp_path) -> None:
    write(tmp_path / "in/a.png", 0, 40, 60)
    with pytest.raises(ConfigError, match=r"--visualize-layers: 'model\.2' is not an AKConv layer"):
        run_detection(options(weights["ak"], tmp_path / "in", tmp_path, visualize_layers=("model.2",)))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_report_shows_models_with_akconv_at_the_labels_of_one_image(weights, tmp_path) -> None:
    for number in range(3):
        write(tmp_path / f"in/{number}.png", number, 40, 60)
    index = DatasetIndex(
        paths=np.array([str(tmp_path / f"in/{number}.png") for number in range(3)]),
        sizes_hw=np.full((3, 2), (40, 60), np.int32),
        labels=np.tile(np.array([2, 0.5, 0.5, 0.4, 0.4], np.float32), (12, 1)),
        starts=np.array([0, 1, 3, 12]),
    )
    assert shown_image(index) == 1
    found = sampling_images(
        ["plain", "ak"], [weights["plain"], weights["ak"]], val=index, names=NAMES, folder=tmp_path / "c"
    )
    assert [image.path.name for image in found] == ["ak.jpg", "ak-offsets.jpg"]
    assert found[0].markdown(tmp_path / "c").startswith("![ak: initial and learned") and "(sampling/ak.jpg)" in (
        found[0].markdown(tmp_path / "c")
    )
    for image in found:
        assert cv2.imread(str(image.path)).std() > 5
