"""Checkpoints of YOLOv5: written as YOLOv5 writes them, read without executing anything, used by every command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from models.yolo import DetectionModel
from tests.helpers.deterministic_init import fill_
from utils.datasets.config import load_data_config
from utils.datasets.synthetic_shapes import ensure_shapes
from utils.errors import CheckpointError
from utils.options import TrainOptions
from utils.options.hyperparameters import load_hyperparameters
from utils.training.setup import build_model, choose_config
from utils.weights.checkpoint import load_checkpoint, load_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
WRITER = ROOT / "tests/helpers/yolov5_writer.py"
NAMES = ["ring", "cross", "arc", "wave", "star", "spiral"]
TINY_DATA = """path: shapes
train: images/train
val: images/val
test: images/test
names: [ring, cross, arc, wave, star, spiral]
generator: {seed: 7, train: 8, val: 4, test: 2}
"""
VARIANTS: dict[str, dict[str, object]] = {
    "full": {"half": False},
    "full_legacy": {"half": False, "legacy": True},
    "half": {"names_as": "dict", "names": ["a", "b b", "ç", "d\ne"]},
    "half_legacy": {"legacy": True, "optimizer": True},
    "old": {"old": True, "network": "Model", "legacy": True, "yaml_file": None},
    "in_ema": {"in_ema": True},
    "bare": {"bare": True},
    "leaky": {"activation": "LeakyReLU"},
    "softplus": {"activation": "Softplus"},
    "segment": {"network": "SegmentationModel", "head": "Segment"},
    "few_names": {"names": ["a", "b"]},
    "other_strides": {"strides": [8, 16, 64]},
    "autoanchor": {"plain": "autoanchor"},
    "six": {"plain": "six", "names": NAMES},
    "wrapped": {"wrapped": True},
    "ema_with_updates": {"ema_with_updates": True},
    "expanded": {"plain": "csp", "strides": [4, 8], "half": False, "expanded": True},
    "version_3": {"plain": "csp", "strides": [4, 8], "half": False, "old": True, "activation": "Hardswish"},
    "version_4": {"plain": "csp", "strides": [4, 8], "half": False},
    "first_eps": {"plain": "csp", "strides": [4, 8], "half": False, "eps": 1e-4},
    "fused": {"plain": "csp", "strides": [4, 8], "half": False, "fused": True},
    "published_akconv": {"plain": "ldconv", "strides": [4, 8], "half": False},
}
CSP_YAML = {
    "nc": 2,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [
        [-1, 1, "Focus", [16, 3]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 2, "BottleneckCSP", [16]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "BottleneckCSP", [32, False]],
    ],
    "head": [[[2, 4], 1, "Detect", ["nc", "anchors"]]],
}
LDCONV_YAML = {
    **CSP_YAML,
    "backbone": [[-1, 1, "Conv", [16, 6, 2, 2]], [-1, 1, "LDConv", [16, 5, 2]], [-1, 1, "LDConv", [32, 7, 2]]],
    "head": [[[1, 2], 1, "Detect", ["nc", "anchors"]]],
}


def plain_file(path: Path, model: DetectionModel) -> Path:
    """Save the input of the writer: a state dict and the model yaml."""
    yaml = {
        key: value for key, value in model.config.to_dict().items() if key not in ("channel_multiple", "activation")
    }
    torch.save({"state": dict(model.state_dict()), "yaml": yaml}, path)
    return path


def small_model(yaml: dict[str, object]) -> DetectionModel:
    """A model whose batch norms have small variances, so that their epsilon matters."""
    model = fill_(DetectionModel(yaml)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.mul_(0.01)
    return model


@pytest.fixture(scope="module")
def four() -> DetectionModel:
    """The model of the reference arrays."""
    return fill_(DetectionModel("yolov5n.yaml", nc=4)).eval()


@pytest.fixture(scope="module")
def files(four: DetectionModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints written by a process without this project on its path."""
    folder = tmp_path_factory.mktemp("yolov5")
    moved = fill_(DetectionModel("yolov5n.yaml", nc=4))
    moved.head.anchors.mul_(1.5)  # YOLOv5 fits anchors to the data without touching the yaml
    plain = {
        "four": plain_file(folder / "four.plain", four),
        "autoanchor": plain_file(folder / "autoanchor.plain", moved),
        "six": plain_file(folder / "six.plain", fill_(DetectionModel("yolov5n.yaml", nc=6))),
        "csp": plain_file(folder / "csp.plain", small_model(CSP_YAML)),
        "ldconv": plain_file(folder / "ldconv.plain", small_model(LDCONV_YAML)),
    }
    jobs = [
        {
            "strides": [8, 16, 32],
            **v,
            "plain": str(plain[str(v.get("plain", "four"))]),
            "target": str(folder / f"{k}.pt"),
        }
        for k, v in VARIANTS.items()
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, str(WRITER), "jobs.json"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return folder


def corners(predictions: np.ndarray) -> np.ndarray:
    centre, size = predictions[..., :2], predictions[..., 2:4]
    return np.concatenate((centre - size / 2, centre + size / 2), -1)


@pytest.mark.parametrize("variant", ["full", "full_legacy", "half"])
def test_predictions_equal_those_of_yolov5(variant: str, files: Path, reference: Path) -> None:
    with np.load(reference / "forward_yolov5n.npz") as arrays:
        image, expected = torch.from_numpy(arrays["image"]), arrays["decoded"]
    model, _ = load_model(files / f"{variant}.pt")
    with torch.no_grad():
        got = model(image)[0].numpy()
    kept = expected[..., 4] * expected[..., 5:].max(-1) > 0.01
    assert kept.sum() > 100
    scores = [p[..., 4:5] * p[..., 5:] for p in (got, expected)]
    assert np.abs(corners(got) - corners(expected))[kept].max() < 0.5
    assert np.abs(scores[0] - scores[1])[kept].max() < (4e-3 if variant == "half" else 1e-3)


@pytest.mark.parametrize(
    "variant", ["full", "half", "half_legacy", "old", "in_ema", "bare", "leaky", "wrapped", "ema_with_updates"]
)
def test_every_format_gives_our_model_with_the_same_state(variant: str, files: Path, four: DetectionModel) -> None:
    half = VARIANTS[variant].get("half", True)
    expected = {n: t.half().float() if half and t.is_floating_point() else t for n, t in four.state_dict().items()}
    model, names = load_model(files / f"{variant}.pt")
    state = model.state_dict()
    assert list(state) == list(expected) and all(torch.equal(state[name], expected[name]) for name in expected)
    assert model.config.anchors == four.config.anchors and model.head.strides == (8, 16, 32)
    assert names == (("a", "b b", "ç", "d?e") if variant == "half" else ("class 0", "class 1", "class 2", "class 3"))
    assert model.config.name == ("old.pt" if variant == "old" else "yolov5n.yaml") and not model.training
    same = DetectionModel({**four.config.to_dict(), "activation": "nn.LeakyReLU(0.01)" if variant == "leaky" else None})
    same.load_state_dict(expected)
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(model(image)[0], same.eval()(image)[0])
        assert torch.equal(model(image)[0], four(image)[0]) == (variant == "full")


def test_anchors_are_those_in_use_not_those_of_the_yaml(files: Path, four: DetectionModel) -> None:
    model, _ = load_model(files / "autoanchor.pt")
    assert model.config.anchors == tuple(tuple(1.5 * side for side in level) for level in four.config.anchors)
    assert torch.equal(model.head.anchors, four.head.anchors * 1.5)
    assert torch.equal(DetectionModel(model.config).head.anchors, model.head.anchors)


@pytest.mark.parametrize(
    ("variant", "named"),
    [
        ("softplus", "torch.nn.modules.activation.Softplus"),
        ("segment", "models.yolo.Segment"),
        ("few_names", "4 classes"),
        ("other_strides", "[8, 16, 64]"),
    ],
)
def test_a_model_that_would_predict_differently_is_refused(variant: str, named: str, files: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_model(files / f"{variant}.pt")
    assert caught.value.where == str(files / f"{variant}.pt") and named in caught.value.what
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variant", ["expanded", "version_3", "version_4", "first_eps", "fused"])
def test_older_and_fused_networks_predict_as_written(variant: str, files: Path) -> None:
    """Releases up to 6.0 have a LeakyReLU in BottleneckCSP, 3.1 Hardswish elsewhere, the first ones another epsilon."""
    expected = small_model(CSP_YAML)
    for module in expected.modules():
        if type(module).__name__ == "Conv" and variant == "version_3":
            module.act = torch.nn.Hardswish()
        if type(module).__name__ == "BottleneckCSP":
            module.act = torch.nn.LeakyReLU(0.1)
        if isinstance(module, torch.nn.BatchNorm2d) and variant == "first_eps":
            module.eps = 1e-4
    model, _ = load_model(files / f"{variant}.pt")
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        found, wanted, other = (network(image)[0] for network in (model, expected, small_model(CSP_YAML)))
    exact = variant in ("expanded", "version_3", "version_4")
    torch.testing.assert_close(found, wanted, rtol=0 if exact else 1e-4, atol=0 if exact else 1e-4)
    assert not torch.allclose(wanted, other, rtol=1e-3)
    assert model.config.activation == ("nn.Hardswish()" if variant == "version_3" else None)


def test_hooks_and_derived_buffers_of_the_published_akconv_are_ignored_and_named(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="akyolo"):
        model, _ = load_model(files / "published_akconv.pt")
    lines = [line for line in caplog.messages if "published_akconv.pt" in line]
    assert len(lines) == 2 and "model.1.p_conv" in lines[0] and "model.1.p_n" in lines[1]
    expected, image = small_model(LDCONV_YAML), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(model(image)[0], expected(image)[0])


def test_reading_a_yolov5_checkpoint_imports_no_module(files: Path) -> None:
    program = (
        "import sys; from utils.errors import DetectorError\n"
        "from utils.weights.checkpoint import load_checkpoint\n"
        "load_checkpoint(sys.argv[1]); before = set(sys.modules); opened = []\n"
        "def hook(event, args):\n"
        "    if event in ('import', 'exec', 'pickle.find_class', 'os.system', 'subprocess.Popen', 'open'):\n"
        "        opened.append((event, str(args[0])))\n"
        "sys.addaudithook(hook); load_checkpoint(sys.argv[1])\n"
        "assert opened == [('open', sys.argv[1])], opened\n"
        "assert set(sys.modules) == before"
    )
    command = [sys.executable, "-c", program, str(files / "half.pt")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tiny.yaml"
    path.write_text(TINY_DATA)
    ensure_shapes(load_data_config(str(path)))
    return path


def script(name: str, *args: object, cwd: Path) -> str:
    """Run a command as a user does; return its stdout."""
    command = [sys.executable, str(ROOT / name), *map(str, args), "--device", "cpu"]
    result = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, env={"XDG_CACHE_HOME": str(cwd / "cache")}
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_detect_accepts_a_yolov5_checkpoint(files: Path, data: Path, tmp_path: Path) -> None:
    source = data.parent / "shapes/images/test"
    args = ("--conf-thres", 0.01, "--max-det", 5, "--save-csv", "--imgsz", 96)
    script("detect.py", "--weights", files / "half.pt", "--source", source, *args, cwd=tmp_path)
    table = pd.read_csv(tmp_path / "runs/detect/exp/predictions.csv")
    assert len(table) > 0 and set(table["Prediction"]) <= {"a", "b b", "ç", "d?e"}


def test_val_accepts_a_yolov5_checkpoint(files: Path, data: Path, tmp_path: Path) -> None:
    args = ("--data", data, "--imgsz", 96, "--batch-size", 4, "--workers", 0, "--noplots", "--verbose")
    printed = script("val.py", "--weights", files / "six.pt", *args, cwd=tmp_path)
    assert re.search(r"^ *all +4 ", printed, re.MULTILINE) and "spiral" in printed


def test_training_starts_from_a_yolov5_checkpoint_of_other_classes(files: Path, data: Path, tmp_path: Path) -> None:
    args = (
        "--data",
        data,
        "--epochs",
        1,
        "--imgsz",
        96,
        "--batch-size",
        4,
        "--workers",
        0,
        "--noplots",
        "--noautoanchor",
    )
    printed = script("train.py", "--weights", files / "autoanchor.pt", *args, "--name", "plain", cwd=tmp_path)
    assert re.search(r"\b342/349\b.*\b9\d\.\d%", printed) and re.search(r"\bmodel\.24\b", printed)
    content = load_checkpoint(tmp_path / "runs/train/plain/weights/last.pt")
    assert content["names"] == NAMES and content["config"]["anchors"][0][:2] == [15.0, 19.5]


def test_an_akconv_model_is_initialized_from_a_yolov5_checkpoint(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = str(files / "half_legacy.pt")
    options = TrainOptions(cfg="yolov5n-akconv.yaml", weights=weights)
    config, content = choose_config(options, load_hyperparameters(options.hyp))
    with caplog.at_level("INFO", logger="akyolo"):
        model, _ = build_model(options, config, num_classes=len(NAMES), content=content)
    assert "model.1 (3 " in caplog.text and re.search(r"\bmodel\.24\b", caplog.text)
    kernel = content["ema"]["model.10.conv.weight"]
    assert torch.equal(model.state_dict()["model.10.conv.0.weight"], kernel) and model.num_classes == 6
