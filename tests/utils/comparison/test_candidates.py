import pytest

from utils.comparison.candidates import from_configs, has_offsets
from utils.errors import ConfigError


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match=r"yolov9\.yaml does not exist"):
        from_configs(["yolov9.yaml"])
    with pytest.raises(ConfigError, match=r"hyp\.none\.yaml does not exist"):
        from_configs(["yolov5n.yaml"], hyps=["hyp.none.yaml"])


def test_names_are_kept_apart():
    assert [one.label for one in from_configs(["yolov5n.yaml"] * 2, taken=["yolov5n-2"])] == [
        "yolov5n",
        "yolov5n-3",
    ]


def test_the_numbers_of_a_hyperparameter_yaml_come_along():
    low, high = from_configs(["yolov5n.yaml"], hyps=["hyp.scratch-low.yaml", "hyp.scratch-high.yaml"])
    assert (low.label, high.label) == ("yolov5n-scratch-low", "yolov5n-scratch-high")
    assert low.hyperparameters["scale"] == 0.5 and high.hyperparameters["scale"] == 0.9
    (alone,) = from_configs(["yolov5n.yaml"], hyps=["hyp.scratch-high.yaml"])
    assert alone.label == "yolov5n" and alone.hyp == "hyp.scratch-high.yaml"
    (twice, again) = from_configs(["yolov5n.yaml"], hyps=["hyp.scratch-low.yaml"] * 2)
    assert twice.hyperparameters == again.hyperparameters and again.label.endswith("-2"), "luck alone, on purpose"


def test_who_has_offsets():
    plain, akconv = from_configs(["yolov5n.yaml", "yolov5n-AKConv-residual.yaml"])
    assert not has_offsets(plain.config) and has_offsets(akconv.config)
