"""Class activation maps: the published formulas, the package grad-cam, and which layers have a part in a score."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.yolo import DetectionModel
from tests.helpers.small_model import small_model
from utils.errors import ConfigError
from utils.explain.cam import activation_map, activation_maps, normalize, principal_component
from utils.explain.layers import record_maps, select_layers
from utils.explain.target import Target, choose_target
from utils.options.explain import METHODS

LAYERS = ["model.17", "model.20", "model.9.cv1"]
REFERENCE = Path(__file__).parents[2] / "reference" / "gradcam.npz"  # of `recorded_case`, by `package_map`
PACKAGE_NAMES = {"gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "layercam": "LayerCAM", "eigencam": "EigenCAM"}
SIZE_HW = (24, 36)


@pytest.fixture(scope="module", params=["yolov5n.yaml", "yolov5n-AKConv.yaml"])
def network(request: pytest.FixtureRequest) -> DetectionModel:
    return small_model(request.param).requires_grad_(False)


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(1, 3, 96, 160)


def best_of_level(network: DetectionModel, pixels: Tensor, level: int) -> Target:
    """The most confident prediction of one level of the head, of the finest if 0."""
    with torch.no_grad():
        predictions, raw = network(pixels)
    sizes = [maps[..., 0].numel() for maps in raw]
    start = sum(sizes[:level])
    scores, classes = (predictions[0, :, 4:5] * predictions[0, :, 5:]).max(1)
    row = start + int(scores[start : start + sizes[level]].argmax())
    return Target(rows=torch.tensor([row]), classes=classes[[row]], score="confidence", truth=np.zeros((0, 4)))


def arrays(channels: int = 5, size_hw: tuple[int, int] = (4, 7)) -> tuple[Tensor, Tensor]:
    return torch.randn(channels, *size_hw, dtype=torch.float64), torch.randn(channels, *size_hw, dtype=torch.float64)


def test_maps_follow_the_published_formulas_position_by_position() -> None:
    values, slopes = arrays()
    expected = {method: np.zeros((4, 7)) for method in METHODS}
    for c in range(5):
        mean = sum(float(slopes[c, i, j]) for i in range(4) for j in range(7)) / 28
        total = sum(float(values[c, i, j]) for i in range(4) for j in range(7))
        weight = 0.0
        for i in range(4):
            for j in range(7):
                g = float(slopes[c, i, j])
                weight += g**2 / (2 * g**2 + total * g**3) * max(g, 0)
        for i in range(4):
            for j in range(7):
                a, g = float(values[c, i, j]), float(slopes[c, i, j])
                expected["gradcam"][i, j] += mean * a
                expected["gradcam++"][i, j] += weight * a
                expected["layercam"][i, j] += max(g, 0) * a
    for method in ("gradcam", "gradcam++", "layercam"):
        np.testing.assert_allclose(activation_map(method, values, slopes), expected[method].clip(0), atol=1e-12)


def test_the_principal_component_holds_the_largest_variance_and_has_a_definite_sign() -> None:
    values, _ = arrays()
    projection = principal_component(values)
    rows = values.flatten(1).T - values.flatten(1).T.mean(0)
    assert float(projection.square().sum()) == pytest.approx(float(torch.linalg.matrix_norm(rows, 2) ** 2))
    assert projection.max() >= projection.min().abs()
    np.testing.assert_allclose(principal_component(-values), projection, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_maps_do_not_depend_on_the_scale_of_the_score(method: str) -> None:
    values, slopes = arrays()
    if method == "gradcam++":  # the exponent is the score's logarithm: its scale has a meaning
        values, slopes = values.abs(), slopes * 1e-6
    first, second = (normalize(activation_map(method, values, factor * slopes), (8, 14)) for factor in (1.0, 10.0))
    np.testing.assert_allclose(first, second, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_maps_stay_finite(method: str) -> None:
    for values in (torch.zeros(3, 2, 5), torch.ones(3, 2, 5), torch.full((3, 2, 5), -1.0)):
        for slopes in (torch.zeros(3, 2, 5), torch.ones(3, 2, 5)):
            heat = normalize(activation_map(method, values, slopes), (4, 10))
            assert heat.shape == (4, 10) and heat.isfinite().all() and heat.min() >= 0 and heat.max() <= 1


def test_a_layer_of_another_level_has_no_part_in_a_detection(network: DetectionModel, pixels: Tensor) -> None:
    target = best_of_level(network, pixels, level=0)
    maps = activation_maps(network, pixels, target, layers=["model.17", "model.20"], methods=METHODS)
    assert {key for key, heat in maps.items() if heat is None} == {
        ("model.20", method) for method in METHODS if method != "eigencam"
    }
    assert {heat.shape for (name, _), heat in maps.items() if heat is not None and name == "model.17"} == {(12, 20)}


def test_the_gradient_is_that_of_the_logarithm_of_the_confidence(network: DetectionModel, pixels: Tensor) -> None:
    target = best_of_level(network, pixels, level=1)
    with record_maps(network, ["model.20"]) as maps:
        predictions = network(pixels.requires_grad_())[0][0]
    row, class_id = int(target.rows[0]), int(target.classes[0])
    confidence = predictions[row, 4] * predictions[row, 5 + class_id]
    (slopes,) = torch.autograd.grad(confidence, maps["model.20"])
    expected = activation_map("layercam", maps["model.20"][0].detach(), slopes[0] / confidence.detach())
    (heat,) = activation_maps(network, pixels, target, layers=["model.20"], methods=["layercam"]).values()
    torch.testing.assert_close(heat, expected, rtol=1e-5, atol=1e-9)


def test_an_operation_in_place_behind_a_layer_does_not_change_its_map() -> None:
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1)), nn.ReLU(inplace=True))
    pixels = torch.randn(1, 3, 4, 6)
    with record_maps(network, ["0.0"]) as maps:
        network(pixels)
    assert maps["0.0"].min() < 0
    torch.testing.assert_close(maps["0.0"], network[0](pixels))


@pytest.mark.parametrize(
    "selectors", [["24"], ["99"], ["-1"], ["²"], [""], ["model"], ["modle.17"], ["model.17", "nothing"], ["../17"]]
)
def test_layers_that_do_not_exist_are_refused(selectors: list[str]) -> None:
    network = small_model("yolov5n.yaml")
    with pytest.raises(ConfigError) as caught, torch.no_grad():
        with record_maps(network, select_layers(network, selectors)):
            network(torch.zeros(1, 3, 64, 96))
    assert caught.value.where == "--layers" and caught.value.fix


def test_a_module_that_is_not_run_by_itself_is_refused() -> None:
    network = small_model("yolov5n-AKConv.yaml")
    name = next(name for name, _ in network.named_modules() if name.endswith("p_conv")).replace("p_conv", "conv.0")
    with pytest.raises(ConfigError), record_maps(network, [name]), torch.no_grad():
        network(torch.zeros(1, 3, 64, 96))


def test_by_default_the_layers_are_those_that_the_head_reads() -> None:
    assert select_layers(small_model("yolov5n.yaml"), []) == ["model.17", "model.20", "model.23"]
    assert select_layers(small_model("yolov5n.yaml"), ["17", "model.17", "model.2.cv1"]) == ["model.17", "model.2.cv1"]


class Prescribed(nn.Module):
    """A network whose layer returns given activations and whose score has a given gradient by them."""

    def __init__(self, activations: Tensor) -> None:
        super().__init__()
        self.activations, self.layer = nn.Parameter(activations), nn.Identity()

    def forward(self, _: Tensor) -> Tensor:
        return self.layer(self.activations[None])


class Predictions(nn.Module):
    """A detector that returns its predictions alone, as grad-cam expects."""

    def __init__(self, network: DetectionModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels.requires_grad_())[0]


def min_max(heat: Tensor | np.ndarray) -> np.ndarray:
    """The normalization of grad-cam, which commutes with the enlargement."""
    values = np.asarray(heat, np.float64)
    return (values - values.min()) / max(np.ptp(values), 1e-300)


def recorded_case(number: int) -> tuple[Tensor, Tensor]:
    """Activations and gradients of a case of tests/reference/gradcam.npz; the second ones are sparse."""
    rng = np.random.default_rng(number)
    values, slopes = rng.normal(0.2, 1, (2, 4 + number, 3 + number, 9 - 2 * number)).astype(np.float32)
    sparse = rng.random(slopes.shape) < (0.3 if number == 1 else 1)
    return torch.from_numpy(values), torch.from_numpy(0.05 * slopes * sparse)


def package_map(method: str, values: Tensor, slopes: Tensor) -> np.ndarray:
    """The map (24, 36) of the package grad-cam 1.5.7.

    Its Grad-CAM++ adds 1e-6 to the formula's denominator; larger gradients of smaller values, which cancel, make that
    negligible.
    """
    package = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed; see CONTRIBUTING.md")
    scale = 1e6 if method == "gradcam++" else 1.0
    network = Prescribed(values / scale)
    with getattr(package, PACKAGE_NAMES[method])(network, [network.layer]) as cam:
        return cam(torch.zeros(1, 3, *SIZE_HW), [lambda output: (output * slopes * scale).sum()])[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", range(3))
def test_maps_equal_those_of_the_package_grad_cam_as_recorded(method: str, case: int) -> None:
    with np.load(REFERENCE) as recorded:
        expected = recorded[f"{method} {case}"]
    assert_equal(method, *recorded_case(case), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", range(3, 12))
def test_maps_equal_those_of_the_package_grad_cam(method: str, case: int) -> None:
    values, slopes = recorded_case(case % 3)
    values, slopes = values[torch.randperm(len(values))], slopes[torch.randperm(len(slopes))]
    assert_equal(method, values, slopes, package_map(method, values, slopes))


def assert_equal(method: str, values: Tensor, slopes: Tensor, expected: np.ndarray) -> None:
    """Compare a map with that of grad-cam, of whose EigenCAM the sign is arbitrary."""
    ours = [activation_map(method, values, slopes)]
    if method == "eigencam":
        ours.append((-principal_component(values.double())).clamp(min=0))
    errors = [np.abs(min_max(normalize(heat, SIZE_HW)) - expected).max() for heat in ours]
    assert np.ptp(expected) > 0.9 and min(errors) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_maps_of_a_detector_equal_those_of_the_package_grad_cam(
    network: DetectionModel, pixels: Tensor, method: str
) -> None:
    package = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed; see CONTRIBUTING.md")
    with torch.no_grad():
        predictions = network(pixels)[0][0]
    compared = 0
    for kind, layer in itertools.product(("detection", "class", "image"), LAYERS):
        target = choose_target(kind, predictions, labels=None, class_id=1 if kind == "class" else None)
        assert target is not None
        (heat,) = activation_maps(network, pixels, target, layers=[layer], methods=[method]).values()
        with getattr(package, PACKAGE_NAMES[method])(Predictions(network), [network.get_submodule(layer)]) as cam:
            theirs = min_max(cam(pixels, [target.log_score])[0])
        ours = np.zeros((1, 1)) if heat is None else min_max(normalize(heat, (96, 160)))
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=f"{kind} {layer}")
        compared += bool(np.ptp(theirs) > 0)
    assert compared >= 3
