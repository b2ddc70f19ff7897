"""Finished runs of train.py as candidates: grouped by what they were trained with."""

from dataclasses import replace
from pathlib import Path

import pytest

from models.config import load_model_config
from models.yolo import DetectionModel
from utils.comparison.candidates import from_configs
from utils.comparison.config_diff import differing_recipe, differing_training_args, training_commands
from utils.comparison.run import run_comparison
from utils.comparison.trained_runs import (
    checkpoint_files,
    doubts,
    from_weights,
    one_class,
    reject_unsupported_options,
    unfinished,
)
from utils.errors import CheckpointError, ConfigError
from utils.files import dump_json
from utils.options import CompareOptions
from utils.strict_yaml import dump_yaml
from utils.weights.checkpoint import describe_model, save_checkpoint, weights_of

NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of one model trained with seeds 0, 1, 1 and, with another optimizer, 2; and one without options.

    Then runs of another recipe whose yaml has changed its place, and some with another learning rate.
    """
    folder = tmp_path_factory.mktemp("weights")
    model = DetectionModel(load_model_config("yolov5n.yaml"), nc=2)
    content = {**describe_model(model, NAMES), "ema": weights_of(model), "image_size": 96}
    for name, seed, optimizer in (("a", 0, "SGD"), ("b", 1, "SGD"), ("c", 1, "SGD"), ("d", 2, "Adam")):
        options = {"seed": seed, "optimizer": optimizer, "name": name, "data": "cats.yaml", "device": name}
        kept = {**content, "options": options, "hyperparameters": {}}
        save_checkpoint(folder / name / "weights" / "best.pt", kept)
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
    (folder / "net-fast-seed3" / "results.csv").write_text("epoch\n0\n")
    return folder


def test_weights_that_differ_in_the_seed_alone_are_one_model(folder):
    paths = [str(folder / name / "weights/best.pt") for name in "bad"] + [str(folder / "plain.pt")]
    found = from_weights(paths, names=NAMES)
    assert [(one.label, one.seeds) for one in found] == [("yolov5n", (0, 1)), ("d", (2,)), ("plain", (None,))]
    assert [path.parts[-3] for path in found[0].weights] == ["a", "b"], "by seed"
    assert [one.data for one in found] == ["cats.yaml", "cats.yaml", ""] and not any(one.cfg for one in found)
    (warning,) = differing_training_args(found, {})
    assert "yolov5n being the measure" in warning and "d with --optimizer Adam instead of SGD" in warning


def test_the_same_seed_twice_is_two_models(folder):
    paths = [str(folder / name / "weights/best.pt") for name in "bc"]
    assert [one.label for one in from_weights(paths, names=NAMES, taken=["b"])] == ["b-2", "c"]


@pytest.mark.slow
def test_a_rate_of_offsets_tells_models_apart_that_have_some(tmp_path):
    kinds = {"yolov5n.yaml": ["plain"], "yolov5n-AKConv.yaml": ["alterable-seed0", "alterable-seed1"]}
    paths = []
    for cfg in kinds:
        model = DetectionModel(load_model_config(cfg), nc=2)
        for seed, rate in ((0, 0.1), (1, 1.0)):
            kept = {**describe_model(model, NAMES), "ema": weights_of(model), "options": {"seed": seed}}
            path = tmp_path / f"{'plain' if 'AKConv' not in cfg else 'alterable'}-seed{seed}" / "weights/best.pt"
            save_checkpoint(path, {**kept, "hyperparameters": {"lr0": 0.01, "offset_lr": rate}})
            paths.append(str(path))
    found = from_weights(paths, names=NAMES)
    assert [one.label for one in found] == [label for labels in kinds.values() for label in labels]


@pytest.mark.slow
def test_folders_of_runs_as_a_shell_names_them(folder):
    """`net-*` also names logs; numbers of hyperparameters count, and not where their file lies."""
    slow, fast = from_weights([str(path) for path in sorted(folder.glob("net-*"), reverse=True)], names=NAMES)
    assert (slow.label, slow.seeds) == ("net-slow", (2, 10)) and (fast.label, fast.seeds) == ("net-fast", (2, 3, 10))
    assert [path.parts[-3] for path in slow.weights] == ["net-slow-seed2", "net-slow-seed10"]
    assert differing_recipe(slow, fast) == ["lr0: 1.0 -> 0.1"] and differing_training_args([slow, fast], {}) == []
    (warning,) = unfinished([slow, fast], summary="summary.json")
    assert "net-fast-seed3 (1 of 3 epochs)" in warning and "seed2" not in warning


def test_patterns_that_no_shell_has_filled_in(folder):
    found = checkpoint_files([str(folder / "net-slow-seed*"), str(folder / "a" / "weights"), str(folder / "plain.pt")])
    assert [str(path.relative_to(folder)) for path in found] == [
        "net-slow-seed10/weights/best.pt",
        "net-slow-seed2/weights/best.pt",
        "a/weights/best.pt",
        "plain.pt",
    ]
    assert CompareOptions(weights=(str(folder / "net-*"),)).weights
    with pytest.raises(CheckpointError, match="fits no file or folder"):
        checkpoint_files([str(folder / "nothing*")])
    with pytest.raises(CheckpointError, match=r"holds no weights/best\.pt"):
        checkpoint_files([str(folder)])


def test_mistakes_are_named(folder):
    path = str(folder / "plain.pt")
    with pytest.raises(CheckpointError, match="stands twice"):
        from_weights([path, path], names=NAMES)
    with pytest.raises(ConfigError, match="tells 2 classes, but --data has 3"):
        from_weights([path], names=("a", "b", "c"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        from_weights([str(folder / "none.pt")], names=NAMES)


def test_flags_that_only_trainings_obey_are_refused_where_there_is_none():
    finished, mixed = CompareOptions(weights=("a", "b")), CompareOptions(cfg=("yolov5n.yaml",), weights=("a",))
    reject_unsupported_options(finished, {"weights", "data", "imgsz", "batch_size", "device", "workers", "name"})
    reject_unsupported_options(mixed, {"cfg", "epochs", "seeds"})
    with pytest.raises(ConfigError, match=r"^--epochs, --no-amp: changes nothing in finished --weights"):
        run_comparison(finished, {"no_amp", "imgsz", "epochs"})


def test_names_of_classes_in_another_order_are_warned_of(folder):
    plain = [str(folder / "plain.pt")]
    (warning,) = doubts(from_weights(plain, names=NAMES[::-1]), summary="summary.json", planned={})
    assert warning.startswith("plain: class 0 is 'dog' in the data set, but 'cat' in the model")
    assert doubts(from_weights(plain, names=NAMES), summary="summary.json", planned={}) == []


def test_models_of_one_class_are_not_compared_with_those_of_several(folder):
    several = from_weights([str(folder / "plain.pt")], names=NAMES)
    alone = [replace(several[0], label="alone", options={"single_cls": True})]
    trained = from_configs(["yolov5n.yaml"])
    assert one_class(alone, NAMES) and not one_class(several + trained, NAMES)
    assert not one_class(alone + several, ["cell"]), "a data set of one class is the same for both"
    for others in (several, trained):
        for candidates in (alone + others, others + alone):
            told = f"alone was trained with --single-cls, but {others[0].label} tells 2 classes apart"
            with pytest.raises(ConfigError, match=told):
                one_class(candidates, NAMES)


@pytest.mark.slow
def test_the_lines_that_trained_finished_weights_are_told(folder):
    slow, fast = from_weights([str(path) for path in sorted(folder.glob("net-*"), reverse=True)], names=NAMES)
    assert training_commands([fast])[1] == (
        "python train.py --cfg 3/m.yaml --data c --hyp 3/hyp.fast.yaml --epochs 3 --seed 3"
        "  # that --hyp is no longer there"
    )
    present = {**fast.options, "hyp": "hyp.scratch-low.yaml"}
    (told, *_) = training_commands([replace(fast, options=present)])
    assert told.endswith("  # when lr0 1 stood in --hyp, which has changed since")
    (told, *_) = training_commands([replace(fast, options=present, hyperparameters={"lr0": 0.01})])
    assert told.endswith("--epochs 3 --seed 2"), "the default, and nothing to say of it"
    seeds = [line.split("--seed ")[1].split()[0] for line in training_commands([slow, fast])]
    assert seeds == ["2", "10", "2", "3", "10"]
    assert training_commands(from_weights([str(folder / "plain.pt")], names=NAMES)) == []


def test_a_checkpoint_other_than_the_best_is_called_so(folder):
    last = folder / "net-slow-seed2/weights/last.pt"
    last.write_bytes((folder / "net-slow-seed2/weights/best.pt").read_bytes())
    found = from_weights([str(last), str(last.with_name("best.pt"))], names=NAMES)
    assert [one.label for one in found] == ["net-slow-seed2-last", "net-slow-seed2"]
    last.unlink()


def test_weights_that_were_trained_otherwise_than_the_yamls_beside_them_are_warned_of(folder):
    (fast,) = from_weights([str(folder / "net-fast-seed2")], names=NAMES)
    planned = from_configs(["yolov5n.yaml"])
    assert differing_training_args([*planned, fast], {"epochs": 3, "data": "c", "seed": 9}) == []
    (warning,) = differing_training_args([*planned, fast], {"epochs": 7, "data": "c"})
    assert "yolov5n being the measure" in warning and "net-fast-seed2 with --epochs 3 instead of 7" in warning
