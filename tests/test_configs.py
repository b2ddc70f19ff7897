"""Every shipped yaml is built or read, and the numbers in its header hold."""

import re
from pathlib import Path

import pytest

from models.config import SIZES, load_model_config
from models.summary import summarize
from models.yolo import DetectionModel
from utils.datasets.config import load_data_config
from utils.options.hyperparameters import load_hyperparameters
from utils.strict_yaml import load_yaml

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.yaml")), ids=lambda path: path.stem)
def test_model_yaml_builds_and_its_header_holds(path: Path) -> None:
    header = re.search(
        r"# ([\d,]+) parameters, ([\d.]+) GFLOPs at 640 px with 80 classes, ([\d.]+) of them", path.read_text()
    )
    assert header is not None
    summary = summarize(DetectionModel(path.name))
    assert f"{summary.parameters:,}" == header[1]
    assert f"{summary.gflops:.2f}" == header[2]
    assert f"{summary.sampling_gflops:.2f}" == header[3]


@pytest.mark.parametrize("path", sorted((ROOT / "data/hyps").glob("*.yaml")), ids=lambda path: path.stem)
def test_hyperparameter_yaml_is_read(path: Path) -> None:
    assert load_hyperparameters(path.name).lr0 > 0


@pytest.mark.parametrize("path", sorted((ROOT / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_data_yaml_is_read(path: Path) -> None:
    assert load_data_config(path.name).num_classes == len(load_yaml(path)["names"])


@pytest.mark.parametrize("kind", ["residual", "neck", "head", "paper"])
def test_a_config_serves_every_size(kind: str) -> None:
    for size, multiples in SIZES.items():
        config = load_model_config(f"YOLOv5{size}-akconv-{kind}.yaml")
        assert (config.depth_multiple, config.width_multiple) == multiples
