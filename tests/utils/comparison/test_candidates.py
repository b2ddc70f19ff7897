"""Models to train, and how models differ."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.config import ModelConfig, load_model_config
from tests.helpers.comparison import index_of, trained_model, trained_run
from utils.comparison.candidates import (
    differing_rows,
    differing_settings,
    from_configs,
    header,
    named_labels,
    write_configs,
)
from utils.errors import ConfigError
from utils.options import CompareOptions

ROOT = Path(__file__).resolve().parents[3]
PLAIN = load_model_config("yolov5n.yaml")


def test_missing_yamls_are_named():
    for cfg, hyp in (("yolov9.yaml", "hyp.scratch-low.yaml"), ("yolov5n.yaml", "hyp.none.yaml")):
        with pytest.raises(ConfigError) as error:
            from_configs([cfg], hyps=[hyp])
        assert cfg in error.value.what or (error.value.where, hyp in error.value.what) == ("--hyp", True)


def test_labels_are_unique():
    labels = [model.label for model in from_configs(["yolov5n.yaml"] * 2, taken=["yolov5n-2"])]
    assert labels == ["yolov5n", "yolov5n-3"]


def test_models_carry_the_values_of_their_hyperparameter_yaml():
    low, high = from_configs(["yolov5n.yaml"], hyps=["hyp.scratch-low.yaml", "hyp.scratch-high.yaml"])
    assert (low.label, high.label) == ("yolov5n-scratch-low", "yolov5n-scratch-high")
    assert low.hyperparameters["scale"] == 0.5 and high.hyperparameters["scale"] == 0.9
    (alone,) = from_configs(["yolov5n.yaml"], hyps=["hyp.scratch-high.yaml"])
    assert alone.label == "yolov5n" and alone.hyp == "hyp.scratch-high.yaml"


def test_a_hyperparameter_yaml_listed_twice_is_trained_twice():
    first, second = from_configs(["yolov5n.yaml"], hyps=["hyp.scratch-low.yaml"] * 2)
    assert first.hyperparameters == second.hyperparameters and second.label == f"{first.label}-2"


def test_models_with_offset_convolutions_are_recognized():
    plain, akconv = from_configs(["yolov5n.yaml", "yolov5n-AKConv-residual.yaml"])
    assert not plain.has_offsets and akconv.has_offsets


def test_a_changed_yaml_is_not_mixed_with_runs_of_the_old_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, hyps = (ROOT / "models/yolov5n.yaml").read_text(), ROOT / "data/hyps"
    Path("mine.yaml").write_text(source)
    write_configs(tmp_path / "runs", from_configs(["mine.yaml"]))
    write_configs(tmp_path / "runs", from_configs(["mine.yaml"]))
    Path("mine.yaml").write_text(source.replace("width_multiple: 0.25", "width_multiple: 0.5"))
    with pytest.raises(ConfigError) as error:
        write_configs(tmp_path / "runs", from_configs(["mine.yaml"]))
    assert error.value.where == "mine.yaml"
    Path("hyp.yaml").write_text((hyps / "hyp.scratch-low.yaml").read_text())
    write_configs(tmp_path / "others", from_configs(["yolov5n.yaml"], hyps=["hyp.yaml"]))
    Path("hyp.yaml").write_text((hyps / "hyp.scratch-high.yaml").read_text())
    with pytest.raises(ConfigError) as error:
        write_configs(tmp_path / "others", from_configs(["yolov5n.yaml"], hyps=["hyp.yaml"]))
    assert error.value.where == "hyp.yaml"


def changed(**rows: list) -> ModelConfig:
    """The plain yaml with other rows, by section and index such as backbone_1."""
    content = copy.deepcopy(PLAIN.to_dict())
    for place, row in rows.items():
        section, index = place.split("_")
        content[section][int(index)] = row
    return ModelConfig.from_dict(content, name="changed.yaml")


def test_a_row_with_another_module_is_listed_without_its_inputs():
    plain = PLAIN.to_dict()["backbone"][1]
    other = changed(backbone_1=[plain[0], plain[1], "AKConv", [128, 3, 2]])
    assert differing_rows(other, PLAIN) == [f"row 1: Conv {plain[3]} -> AKConv [128, 3, 2]"]
    assert differing_rows(PLAIN, PLAIN) == []


def test_other_repeats_and_inputs_are_listed():
    content = PLAIN.to_dict()
    repeated, joined = content["backbone"][2], content["head"][2]
    other = changed(backbone_2=[repeated[0], 9, *repeated[2:]], head_2=[[11, 4], *joined[1:]])
    first, second = differing_rows(other, PLAIN)
    assert first == f"row 2: {repeated[0]} {repeated[1]} C3 {repeated[3]} -> {repeated[0]} 9 C3 {repeated[3]}"
    before, after = second.split(" -> ")
    assert before == f"row 12: {joined[0]} 1 Concat {joined[3]}" and after == f"[11, 4] 1 Concat {joined[3]}"


def test_added_and_removed_rows_are_listed():
    content = copy.deepcopy(PLAIN.to_dict())
    content["backbone"].append([-1, 1, "Conv", [77, 3, 1]])
    for row in content["head"]:
        sources = row[0] if isinstance(row[0], list) else [row[0]]
        moved = [source + 1 if source >= 10 else source for source in sources]
        row[0] = moved if isinstance(row[0], list) else moved[0]
    content["depth_multiple"] = 0.5
    longer = ModelConfig.from_dict(content, name="longer.yaml")
    rows = len(PLAIN.layers)
    assert differing_rows(longer, PLAIN) == [
        f"depth_multiple: {PLAIN.depth_multiple} -> 0.5",
        f"{rows + 1} rows instead of {rows}",
        "row 10: Conv [77, 3, 1] added",
    ]
    assert "row 10: Conv [77, 3, 1] removed" in differing_rows(PLAIN, longer)


def test_hyperparameters_and_training_options_that_differ_are_listed():
    baseline = trained_model("a", args={"epochs": 3, "seed": 0, "workers": 1}, hyperparameters={"lr0": 0.1})
    model = trained_model("b", args={"epochs": 5, "seed": 1, "workers": 2, "rect": True}, hyperparameters={"lr0": 1.0})
    assert differing_settings(model, baseline) == ["lr0: 0.1 -> 1.0", "--epochs: 3 -> 5"]
    assert differing_settings(trained_model("c"), model) == differing_settings(model, trained_model("c")) == []


def describe(*models, **options) -> str:
    trained = not all(model.is_finished_weights for model in models) or not models
    defaults = {"cfg": ("a.yaml", "b.yaml")} if trained else {"weights": ("a", "b")}
    split = index_of([1], [0], [1])
    given = CompareOptions(**defaults | options)  # type: ignore[arg-type]
    return header(given, split, models, device=torch.device("cpu"), sizes=set())


def test_the_header_gives_the_settings_of_trainings_and_of_finished_weights():
    trained = describe()
    assert "from scratch" in trained and "640 px" in trained and "finished" not in trained
    same = {"imgsz": 96, "epochs": 2, "batch_size": 4}
    finished = describe(
        trained_model("a", args={**same, "optimizer": "SGD"}), trained_model("b", args={**same, "optimizer": "Adam"})
    )
    assert "96 px, 2 epochs, batch 4." in finished and "SGD" not in finished and "Adam" not in finished


def test_the_header_gives_pretrained_weights_and_further_settings_of_the_trainings():
    start = trained_model("a", is_finished_weights=False).runs[0]
    runs = {"a": (replace(start, transferred_fraction=0.99, training_images=9, training_objects=41),)}
    runs["b"] = (replace(start, transferred_fraction=0.951, training_images=9, training_objects=47),)
    models = [replace(trained_model(label, is_finished_weights=False), runs=of) for label, of in runs.items()]
    plain = describe(*models)
    assert "from scratch" in plain and "--" not in plain and " 9 " not in plain
    text = describe(
        *models, pretrained="w.pt", fraction=0.1, freeze=(0, 2), rect=True, workers=0, device="cpu", strict=True
    )
    assert "from w.pt (it provides 99.0% of a, 95.1% of b)" in text and "from scratch" not in text
    assert "--fraction 0.1, --rect, --freeze 0 2, seeds 0" in text and "workers" not in text and "strict" not in text
    assert " 9 training images" in text and "41 to 47 objects" in text


def test_names_label_the_models_in_order():
    models = [*from_configs(["yolov5n.yaml"]), trained_model("finished")]
    assert named_labels(models, ()) == {"yolov5n": "yolov5n", "finished": "finished"}
    assert named_labels(models, ("baseline", "+AKConv 细胞")) == {"yolov5n": "baseline", "finished": "+AKConv 细胞"}
    for wrong in (("a",), ("a", "b", "c"), ("a", "a"), ("a", ""), ("a", "w/o b"), ("..", "b"), ("a", "b\n")):
        with pytest.raises(ConfigError) as error:
            named_labels(models, wrong)
        assert error.value.where == "--names"


def test_the_header_gives_what_finished_weights_were_trained_from():
    scratch, other = (trained_model(label, args={"weights": ""}) for label in "ab")
    assert describe(scratch, other).endswith("The finished weights were trained from scratch.")
    unknown = trained_model("e", args={})
    run = trained_run(Path("c.pt"), args={"weights": "d/best.pt"})
    transferred = replace(unknown, label="c", runs=(replace(run, transferred_fraction=2 / 3),))
    assert describe(replace(unknown, runs=(run,))).endswith("trained from d/best.pt.")
    assert describe(scratch, transferred, unknown).endswith(
        "a from scratch, c from d/best.pt (66.7% of the parameters), e from unknown weights."
    )
    assert "from" not in describe(unknown)
