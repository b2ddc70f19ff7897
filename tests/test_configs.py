"""Every shipped model yaml can be built and matches the numbers in its header; every shipped data yaml can be read.

The hyperparameter yamls have a file of their own, test_presets.py.
"""

import re
from pathlib import Path

import pytest

from models.config import SIZES, load_model_config
from models.summary import summarize
from models.yolo import DetectionModel
from utils.datasets.config import load_data_config
from utils.strict_yaml import load_yaml

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_model_yaml_matches_the_numbers_in_its_header(path: Path) -> None:
    header = re.search(
        r"# ([\d,]+) parameters, ([\d.]+) GFLOPs at 640 px with 80 classes, ([\d.]+) of them", path.read_text()
    )
    assert header is not None
    summary = summarize(DetectionModel(path.name))
    assert f"{summary.parameters:,}" == header[1]
    assert f"{summary.gflops:.2f}" == header[2]
    assert f"{summary.sampling_gflops:.2f}" == header[3]


@pytest.mark.parametrize("kind", ["light", "light4", "modulated", "modulated4"])
def test_the_light_models_cost_no_more_than_the_baseline(kind: str) -> None:
    light, plain = (summarize(DetectionModel(f"yolov5n{suffix}.yaml")) for suffix in (f"-AKConv-{kind}", ""))
    assert light.parameters <= plain.parameters and light.gflops <= plain.gflops


@pytest.mark.parametrize("path", sorted((ROOT / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_data_yaml_has_the_classes_that_it_lists(path: Path) -> None:
    config = load_data_config(path.name)
    names = load_yaml(path)["names"]
    assert list(config.names) == (list(names.values()) if isinstance(names, dict) else names) and names


@pytest.mark.parametrize("kind", ["residual", "neck", "head", "paper", "light", "light4", "modulated", "modulated4"])
def test_a_model_config_is_available_in_every_size(kind: str) -> None:
    for size, multiples in SIZES.items():
        config = load_model_config(f"YOLOv5{size}-akconv-{kind}.yaml")
        assert (config.depth_multiple, config.width_multiple) == multiples
