"""Finished runs of train.py, grouped into models by what they were trained with."""

import math
from pathlib import Path

import pytest

from models.config import load_model_config
from models.yolo import DetectionModel
from utils.comparison.candidates import differing_settings
from utils.comparison.plan import training_commands
from utils.comparison.trained_runs import checkpoint_files, from_weights, last_epoch, read_run, run_folder
from utils.errors import CheckpointError, ConfigError
from utils.files import dump_json
from utils.options import CompareOptions
from utils.strict_yaml import dump_yaml
from utils.weights.checkpoint import describe_model, save_checkpoint, weights_of

NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of one model: a, b, c with seeds 0, 1, 1; d with another optimizer; plain without options.

    Also runs net-slow and net-fast, which differ in a learning rate; yamls of their runs are in different folders.
    """
    folder = tmp_path_factory.mktemp("weights")
    model = DetectionModel(load_model_config("yolov5n.yaml"), nc=2)
    content = {**describe_model(model, NAMES), "ema": weights_of(model), "image_size": 96}
    for name, seed, optimizer in (("a", 0, "SGD"), ("b", 1, "SGD"), ("c", 1, "SGD"), ("d", 2, "Adam")):
        options = {"seed": seed, "optimizer": optimizer, "name": name, "data": "cats.yaml", "device": name}
        save_checkpoint(folder / name / "weights/best.pt", {**content, "options": options, "hyperparameters": {}})
    save_checkpoint(folder / "plain.pt", content)
    runs = [("slow", 10, 0.1), ("slow", 2, 0.1), ("fast", 2, 1.0), ("fast", 3, 1.0), ("fast", 10, 1.0)]
    for name, seed, rate in runs:
        run = folder / f"net-{name}-seed{seed}"
        options = {"seed": seed, "cfg": f"{seed}/m.yaml", "hyp": f"{seed}/hyp.{name}.yaml", "epochs": 3, "data": "c"}
        kept = {**content, "options": options, "hyperparameters": {"lr0": rate, "offset_lr": 0.1}}
        save_checkpoint(run / "weights/best.pt", kept)
        dump_yaml(run / "opt.yaml", options)
        run.with_name(f"{run.name}.log").write_text("$ python train.py\n")
        if (name, seed) != ("fast", 3):
            dump_json(run / "summary.json", {})
    (folder / "net-fast-seed3/results.csv").write_text("epoch\n0\n")
    return folder


def seeds_of(model) -> list[int | None]:
    return [run.seed for run in model.runs]


def test_runs_that_differ_only_in_the_seed_are_one_model(folder):
    paths = [str(folder / name / "weights/best.pt") for name in "bad"] + [str(folder / "plain.pt")]
    models = from_weights(paths, names=NAMES)
    assert [(model.label, seeds_of(model)) for model in models] == [("yolov5n", [0, 1]), ("d", [2]), ("plain", [None])]
    assert [run.path.parts[-3] for run in models[0].runs] == ["a", "b"]
    assert [model.data for model in models] == ["cats.yaml", "cats.yaml", ""]
    assert all(model.is_finished_weights for model in models)
    assert differing_settings(models[1], models[0]) == ["--optimizer: SGD -> Adam"]


def test_the_same_seed_twice_makes_two_models(folder):
    paths = [str(folder / name / "weights/best.pt") for name in "bc"]
    assert [model.label for model in from_weights(paths, names=NAMES, taken=["b"])] == ["b-2", "c"]


@pytest.mark.slow
def test_offset_lr_separates_models_that_have_offsets(tmp_path):
    labels = {"yolov5n.yaml": ["plain"], "yolov5n-AKConv.yaml": ["deformable-seed0", "deformable-seed1"]}
    paths = []
    for cfg in labels:
        model = DetectionModel(load_model_config(cfg), nc=2)
        for seed, rate in ((0, 0.1), (1, 1.0)):
            kept = {**describe_model(model, NAMES), "ema": weights_of(model), "options": {"seed": seed}}
            path = tmp_path / f"{'plain' if 'AKConv' not in cfg else 'deformable'}-seed{seed}" / "weights/best.pt"
            save_checkpoint(path, {**kept, "hyperparameters": {"lr0": 0.01, "offset_lr": rate}})
            paths.append(str(path))
    models = from_weights(paths, names=NAMES)
    assert [model.label for model in models] == [label for each in labels.values() for label in each]


@pytest.mark.slow
def test_folders_of_runs_are_taken_as_a_shell_expands_them(folder):
    """`net-*` also matches logs. Values of hyperparameters count, paths of their yamls do not."""
    slow, fast = from_weights([str(path) for path in sorted(folder.glob("net-*"), reverse=True)], names=NAMES)
    assert (slow.label, seeds_of(slow)) == ("net-slow", [2, 10])
    assert (fast.label, seeds_of(fast)) == ("net-fast", [2, 3, 10])
    assert [run.path.parts[-3] for run in slow.runs] == ["net-slow-seed2", "net-slow-seed10"]
    assert differing_settings(slow, fast) == ["lr0: 1.0 -> 0.1"]
    assert [run.interrupted for run in fast.runs] == [False, True, False]


def test_patterns_that_no_shell_has_expanded(folder):
    files = checkpoint_files([str(folder / "net-slow-seed*"), str(folder / "a/weights"), str(folder / "plain.pt")])
    assert [str(path.relative_to(folder)) for path in files] == [
        "net-slow-seed10/weights/best.pt",
        "net-slow-seed2/weights/best.pt",
        "a/weights/best.pt",
        "plain.pt",
    ]
    assert CompareOptions(weights=(str(folder / "net-*"),)).weights
    for missing in (str(folder / "nothing*"), str(folder)):
        with pytest.raises(CheckpointError) as error:
            checkpoint_files([missing])
        assert error.value.where == missing


def test_wrong_weights_are_named(folder):
    path = str(folder / "plain.pt")
    for paths, names, kind in (
        ([path, path], NAMES, CheckpointError),
        ([path], ("a", "b", "c"), ConfigError),
        ([str(folder / "none.pt")], NAMES, CheckpointError),
    ):
        with pytest.raises(kind) as error:
            from_weights(paths, names=names)
        assert error.value.where == paths[-1]


def test_a_checkpoint_other_than_the_best_is_labelled_with_its_name(folder):
    last = folder / "net-slow-seed2/weights/last.pt"
    last.write_bytes((folder / "net-slow-seed2/weights/best.pt").read_bytes())
    models = from_weights([str(last), str(last.with_name("best.pt"))], names=NAMES)
    assert [model.label for model in models] == ["net-slow-seed2-last", "net-slow-seed2"]
    last.unlink()


def test_a_run_carries_what_its_checkpoint_and_its_files_contain(folder, tmp_path):
    path = tmp_path / "run/weights/best.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes((folder / "net-fast-seed3/weights/best.pt").read_bytes())
    bare = read_run(path)
    assert (bare.names, bare.image_size, bare.max_stride) == (NAMES, 96, 32)
    assert (bare.seed, bare.args["epochs"], bare.hyperparameters) == (3, 3, {"lr0": 1.0}), "no offsets, no offset_lr"
    assert (bare.dataset, bare.training_seconds, bare.peak_memory_gb, bare.transferred_fraction) == ("", *[None] * 3)
    dump_json(tmp_path / "run/env.json", {"dataset": "1234", "transferred_fraction": 0.5})
    assert read_run(path).transferred_fraction == 0.5, "known from the start, also of an interrupted run"
    dump_json(
        tmp_path / "run/summary.json", {"training_seconds": 5, "peak_memory_gb": 1.5, "transferred_fraction": None}
    )
    run = read_run(path)
    assert (run.dataset, run.training_seconds, run.peak_memory_gb, run.transferred_fraction) == ("1234", 5, 1.5, None)
    for damaged in ("{", "[]", '{"training_seconds": "5"}'):
        (tmp_path / "run/summary.json").write_text(damaged)
        assert read_run(path).training_seconds is None


def test_only_a_checkpoint_in_a_weights_folder_belongs_to_a_run(tmp_path):
    assert run_folder(tmp_path / "run/weights/best.pt") == tmp_path / "run"
    assert run_folder(tmp_path / "best.pt") is None and run_folder(Path("/weights/best.pt")) is None


def test_finished_epochs_are_the_rows_of_results_csv(tmp_path):
    assert last_epoch(tmp_path) == (0, pytest.approx(math.nan, nan_ok=True))
    (tmp_path / "results.csv").write_text("epoch\n0\n1\n")
    assert last_epoch(tmp_path) == (2, pytest.approx(math.nan, nan_ok=True))
    (tmp_path / "results.csv").write_text("epoch,metrics/mAP_0.5:0.95,x/lr0\n0,0.25,1\n1,0.5,1\n2,0.75,1\n")
    assert last_epoch(tmp_path) == (3, 0.75)


@pytest.mark.slow
def test_the_commands_that_trained_finished_weights(folder):
    slow, fast = from_weights([str(path) for path in sorted(folder.glob("net-*"), reverse=True)], names=NAMES)
    command, _ = training_commands([fast])[1].split("  # ")
    assert command == "python train.py --cfg 3/m.yaml --data c --hyp 3/hyp.fast.yaml --epochs 3 --seed 3"
    seeds = [line.split("--seed ")[1].split()[0] for line in training_commands([slow, fast])]
    assert seeds == ["2", "10", "2", "3", "10"]
    assert training_commands(from_weights([str(folder / "plain.pt")], names=NAMES)) == []


def test_a_command_names_hyperparameters_that_its_yaml_no_longer_contains(tmp_path):
    path = tmp_path / "best.pt"
    model = DetectionModel(load_model_config("yolov5n.yaml"), nc=2)
    content = {**describe_model(model, NAMES), "ema": weights_of(model), "options": {"seed": 2, "epochs": 3}}
    for lr0, comment in ((1.0, "lr0 1;"), (0.01, "")):
        save_checkpoint(path, {**content, "hyperparameters": {"lr0": lr0}})
        (command,) = training_commands(from_weights([str(path)], names=NAMES))
        assert command.startswith("python train.py --epochs 3 --seed 2") and ("  # " in command) == bool(comment)
        assert comment in command
