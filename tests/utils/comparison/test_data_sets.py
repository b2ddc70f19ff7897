"""Labels of data sets, and finished runs assigned to them; the runs exist only as facts."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers.comparison import CONFIG, trained_run
from utils.comparison import data_sets
from utils.comparison.data_sets import finished_models, open_data_sets, overlap_warnings
from utils.comparison.trained_runs import TrainedRun
from utils.errors import ConfigError, DataError
from utils.options import CompareOptions


@pytest.fixture
def yamls(tmp_path: Path) -> dict[str, str]:
    """Data yamls by name: two called data.yaml in folders of their own, one with another name."""
    files = {name: tmp_path / name for name in ("cells/data.yaml", "roads/data.yaml", "figures.yaml")}
    for file in files.values():
        file.parent.mkdir(exist_ok=True)
        file.write_text("train: a\nval: b\nnames: [cat, dog]\n")
    return {name: str(file) for name, file in files.items()}


def run_of(name: str, data: str, seed: int = 0, *, dataset: str = "", **facts: object) -> TrainedRun:
    run = trained_run(Path(f"runs/{name}/weights/best.pt"), args={"data": data, "seed": seed, **facts})
    return replace(run, dataset=dataset)


@pytest.fixture
def grouped(monkeypatch, yamls):
    """Return the labels of the runs on each set, by label of the model, for runs on cells/data and roads/data."""

    def group(*runs: TrainedRun, taken: tuple[str, ...] = ()) -> dict[str, dict[int, list[str]]]:
        monkeypatch.setattr(data_sets, "read_runs", lambda _: list(runs))
        sets = open_data_sets([yamls["cells/data.yaml"], yamls["roads/data.yaml"]])
        models = finished_models(["x"], sets, taken=taken)
        assert all(len({of_set.label for of_set in model.values()}) == 1 for model in models)
        return {
            next(iter(model.values())).label: {i: [run.name for run in of.runs] for i, of in sorted(model.items())}
            for model in models
        }

    return group


def test_sets_are_labelled_by_the_yaml_or_its_folder_and_not_as_other_folders(yamls, tmp_path):
    sets = open_data_sets(list(yamls.values()))
    assert [data_set.label for data_set in sets] == ["cells", "roads", "figures-2"]
    assert [data_set.label for data_set in open_data_sets([yamls["cells/data.yaml"]])] == ["data"]
    with pytest.raises(ConfigError) as error:
        open_data_sets([yamls["figures.yaml"], str(tmp_path / "cells/../figures.yaml")])
    assert error.value.where == "--data"


def test_options_of_one_set_and_as_files_hold_them():
    options = CompareOptions(cfg=("a", "b"), data=("x.yaml", "y.yaml"))
    assert options.as_json()["data"] == ("x.yaml", "y.yaml") and options.of_data_set("y.yaml", "y").data == ("y.yaml",)


def test_each_data_set_has_a_folder_in_that_of_paper():
    several = CompareOptions(cfg=("a.yaml", "b.yaml"), data=("x.yaml", "y.yaml"), paper="out")
    assert several.of_data_set("y.yaml", "y-2").paper == str(Path("out", "y-2"))
    assert replace(several, data=("x.yaml",)).of_data_set("x.yaml", "x").paper == "out"
    assert replace(several, paper="").of_data_set("x.yaml", "x").paper == ""
    assert CompareOptions(cfg=("a", "b")).as_json()["data"] == "shapes.yaml"


def test_runs_are_assigned_in_any_order_and_labelled_without_the_set(grouped, yamls):
    cells, roads = yamls["cells/data.yaml"], yamls["roads/data.yaml"]
    found = grouped(
        run_of("new-roads-seed1", roads, 1, epochs=9),
        run_of("cells-old-seed0", cells, 0, epochs=5),
        run_of("new-cells-seed0", cells, 0, epochs=9),
        run_of("roads-old-seed0", roads, 0, epochs=5),
        run_of("new-roads-seed0", roads, 0, epochs=9),
    )
    assert found == {
        "new": {0: ["new-cells-seed0"], 1: ["new-roads-seed0", "new-roads-seed1"]},
        "old": {0: ["cells-old-seed0"], 1: ["roads-old-seed0"]},
    }
    assert list(found) == ["new", "old"], "in the order of the command line"


def test_equal_trainings_are_one_model_whatever_their_names(grouped, yamls):
    cells, roads = yamls["cells/data.yaml"], yamls["roads/data.yaml"]
    found = grouped(run_of("exp3", cells), run_of("exp7", roads), taken=["yolov5n"])
    assert found == {"yolov5n-2": {0: ["exp3"], 1: ["exp7"]}}


def test_equal_names_are_one_model_only_with_the_same_network(grouped, yamls):
    cells, roads = yamls["cells/data.yaml"], yamls["roads/data.yaml"]
    longer = run_of("net", roads, epochs=300)
    assert grouped(run_of("net", cells, epochs=100), longer) == {"net": {0: ["net"], 1: ["net"]}}
    wider = replace(longer, config=replace(CONFIG, width_multiple=2.0))
    assert grouped(run_of("net", cells, epochs=100), wider) == {"net": {0: ["net"]}, "net-2": {1: ["net"]}}


def test_a_model_that_lacks_a_set_has_no_runs_there(grouped, yamls):
    cells, roads = yamls["cells/data.yaml"], yamls["roads/data.yaml"]
    found = grouped(run_of("a", cells, epochs=1), run_of("b", cells, epochs=2), run_of("b", roads, epochs=2))
    assert found == {"a": {0: ["a"]}, "b": {0: ["b"], 1: ["b"]}}


def test_the_fingerprint_tells_the_set_where_the_yaml_is_gone(grouped, monkeypatch):
    def index_of(config, split):
        if config.file.parent.name == "cells":
            raise DataError(config.file, "has no 'train' split", fix="add it")
        parts = {1.0: "f", 0.5: "half"}
        return SimpleNamespace(
            fraction=lambda fraction, **_: SimpleNamespace(
                fingerprint=lambda: parts[fraction] if split == "train" else ""
            )
        )

    monkeypatch.setattr("utils.comparison.checks.build_index", index_of)
    half = run_of("b", "/elsewhere/gone.yaml", dataset="half", fraction=0.5)
    assert grouped(half) == {"b": {1: ["b"]}}
    assert grouped(run_of("a", "/elsewhere/gone.yaml", dataset="f")) == {"a": {1: ["a"]}}
    for unknown in (run_of("a", "/elsewhere/gone.yaml", dataset="g"), run_of("a", "figures.yaml"), run_of("a", "")):
        with pytest.raises(ConfigError) as error:
            grouped(unknown)
        assert error.value.where == str(unknown.path)


def test_images_in_two_sets_are_warned_of(yamls, tmp_path):
    sets = open_data_sets(list(yamls.values()))
    files = [tmp_path / name for name in "abc"]
    for file, content in zip(files, ("1", "2", "1"), strict=True):
        file.write_text(content)
    a, b, c = map(str, files)
    (warning,) = overlap_warnings(sets, [[a], [b], [c]])
    assert "cells" in warning and "figures-2" in warning and "roads" not in warning
