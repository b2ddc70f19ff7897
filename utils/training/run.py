"""A whole training run: its folder, a fresh start or a resumed one, the training, and the last judgement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from models.yolo import DetectionModel
from utils.datasets.splits import class_names, open_data, round_image_size
from utils.distributed import (
    DistributedContext,
    destroy_distributed,
    init_distributed,
    launch_id,
    local_device,
    run_to_resume,
)
from utils.errors import CheckpointError, ConfigError
from utils.files import FolderLock, atomic_write, dump_json, load_json, make_run_dir, remove_leftovers, write_skipped
from utils.inference.nms import EVALUATION_NMS
from utils.log import LOGGER, optional
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters, load_hyperparameters
from utils.plots.curves import plot_results
from utils.plots.labels import plot_labels
from utils.plugins import load_plugins
from utils.runtime import describe_environment, seed_everything, select_device, to_device
from utils.strict_yaml import dump_yaml
from utils.training.autobatch import choose_batch
from utils.training.callbacks import require_tensorboard
from utils.training.console import peak_memory_gb
from utils.training.results_csv import columns_of
from utils.training.resume_checks import check_run, fitted, stored_hyperparameters
from utils.training.saving import restore_run
from utils.training.setup import TrainingData, build_model, check_anchors, choose_config, training_data
from utils.training.state import TrainState, plain
from utils.training.trainer import Trainer
from utils.validation.evaluate import Evaluation
from utils.validation.run import evaluate_and_report
from utils.weights.checkpoint import Checkpoint, load_checkpoint, load_model, stored_config

CHANGEABLE = frozenset(
    ("resume", "epochs", "device", "workers", "patience", "save_period", "nosave", "noval", "noplots", "cache")
)
SUMMARY = "summary.json"
ENVIRONMENT = "env.json"
BACKUPS = ("last.bak.pt", "last.prev.pt")  # the second of runs before version 0.2.0


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a run ends with: its folder, the last judgement of its best model, and the figures in summary.json."""

    run_dir: Path
    evaluation: Evaluation
    summary: dict[str, Any]


def run_training(options: TrainOptions, given: Iterable[str] = ()) -> TrainingResult | None:
    """Train as the options say, together with other processes if torchrun started this one.

    Args:
        options: of train.py.
        given: names of the options that were given, which matters with --resume.

    Returns:
        What the run ended with; None in a process other than the first.

    Raises:
        DetectorError: something in the input is wrong (before anything is written), or the run failed.
        RunStopped: Ctrl-C or SIGTERM; the run was saved.
    """
    content: Checkpoint | None = None
    run_dir: Path | None = None
    restarted = run_to_resume(options.project)
    if restarted is not None:
        LOGGER.warning(f"torchrun started its processes anew; going on in {restarted}")
        run_dir, last = restarted, restarted / "weights" / "last.pt"
        if last.is_file():
            options, content, run_dir = _resumed(replace(options, resume=str(last)), frozenset())
    elif options.resume:
        options, content, run_dir = _resumed(options, frozenset(given))
    device = select_device(local_device(options.device))
    team = init_distributed(device)
    try:
        return _run_in_team(options, content, run_dir, device, team)
    finally:
        destroy_distributed()


def _run_in_team(
    options: TrainOptions,
    content: Checkpoint | None,
    run_dir: Path | None,
    device: torch.device,
    team: DistributedContext,
) -> TrainingResult | None:
    """Make the parts, train, and judge the best model."""
    seed_everything(options.seed, device)
    load_plugins(options.plugins)
    if options.tensorboard:
        require_tensorboard()
    if content is None:
        hyperparameters = load_hyperparameters(options.hyp)
    else:
        hyperparameters = stored_hyperparameters(content, options.resume)
    if options.batch_size == -1:
        options = replace(options, batch_size=_measured_batch(options, hyperparameters, device, team))
    model, data, image_size, transferred = _parts(options, hyperparameters, content, team)
    if run_dir is None:
        made = make_run_dir(options.project, options.name, exist_ok=options.exist_ok) if team.is_main else None
        run_dir = Path(team.broadcast(str(made)))
    lock = FolderLock(run_dir) if team.is_main else None
    try:
        if team.is_main:
            remove_leftovers(run_dir)
            atomic_write(run_dir / ".launch", launch_id())
            if content is None:
                _describe_run(run_dir, options, hyperparameters, device, data, transferred)
        trainer = Trainer(
            options=options,
            hyperparameters=hyperparameters,
            model=model,
            data=data,
            run_dir=run_dir,
            device=device,
            image_size=image_size,
            team=team,
        )
        LOGGER.info(trainer.summary.table())
        processes = f"{team.size} processes, " if team.size > 1 else ""
        LOGGER.info(
            f"Run folder: {run_dir}\nDevice: {device}, {processes}{data.train_batches.workers} data processes each"
        )
        if content is not None:
            restore_run(trainer, fitted(content, trainer, options.resume))
            within = f" and {trainer.progress.batch} batches" if trainer.progress.batch else ""
            LOGGER.info(f"Resumed after epoch {trainer.progress.epoch} of {options.epochs}{within}")
        trainer.train()
        return _finish(trainer) if team.is_main else None
    finally:
        if lock is not None:
            lock.release()


def _measured_batch(
    options: TrainOptions, hyperparameters: Hyperparameters, device: torch.device, team: DistributedContext
) -> int:
    """Return the batch for --batch-size -1, over all processes."""
    config, _ = choose_config(options, hyperparameters)
    model = DetectionModel(config)
    image_size = round_image_size(options.imgsz, model.max_stride)
    batch = choose_batch(model, image_size=image_size, device=device, amp=not options.no_amp)
    return int(team.broadcast(batch)) * team.size


def _parts(
    options: TrainOptions, hyperparameters: Hyperparameters, content: Checkpoint | None, team: DistributedContext
) -> tuple[DetectionModel, TrainingData, int, float | None]:
    """Build model and data, the model first, since a wrong yaml is told sooner than a data set is scanned."""
    if content is None:
        config, weights = choose_config(options, hyperparameters)
    else:
        config, weights = stored_config(content, options.resume), None
    # One process fetches and draws, the others find it there.
    if team.is_main:
        open_data(options.data, download=options.download)
    team.barrier()
    dataset = open_data(options.data)
    names = class_names(dataset, single_class=options.single_cls)
    model, transferred = build_model(
        config, names=names, content=weights, weights=options.weights, freeze=options.freeze
    )
    image_size = round_image_size(options.imgsz, model.max_stride)
    data = training_data(
        dataset,
        options,
        hyperparameters=hyperparameters,
        image_size=image_size,
        stride=model.max_stride,
        team=team,
    )
    if content is None:
        if not options.noautoanchor:
            max_ratio = hyperparameters.anchor_t
            check_anchors(model, data.train, image_size=image_size, max_ratio=max_ratio, seed=options.seed)
    elif content["dataset"] != data.train.fingerprint():
        raise ConfigError(
            options.data, "the training split changed since the run was interrupted", fix="restore it, or start anew"
        )
    return model, data, image_size, transferred


def _resumed(options: TrainOptions, given: frozenset[str]) -> tuple[TrainOptions, Checkpoint, Path]:
    """Return the options of an interrupted run, with what may be changed taken from the command line.

    Raises:
        CheckpointError: no such run, or it has nothing left to do, or holds what no run writes.
        ConfigError: an option was given that would make it another run.
    """
    path = Path(options.resume)
    if options.resume == "newest":
        found = sorted(Path(options.project).rglob("last.pt"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise CheckpointError("--resume", f"no last.pt below {options.project}", fix="name the file")
        path = found[-1]
    content, path = _intact(path)
    if "optimizer" not in content:
        raise CheckpointError(path, "holds a model but no run to go on with", fix="resume last.pt, not best.pt")
    fixed = sorted(given - CHANGEABLE - {"project"})
    if fixed:
        flags = ", ".join("--" + name.replace("_", "-") for name in fixed)
        raise ConfigError("--resume", f"takes the run's own options; {flags} cannot change", fix="leave them out")
    stored = check_run(content, path)
    changed = {name: getattr(options, name) for name in given & CHANGEABLE}
    restored = replace(stored, **{**changed, "resume": str(path)})
    done = TrainState.from_dict(content["progress"]).epoch
    run_dir = path.resolve().parent.parent
    if path.resolve().parent.name != "weights":  # its run would be written into a folder that has nothing to do with it
        raise CheckpointError(path, "lies outside its run's folder", fix="put it back as weights/last.pt of its run")
    if done >= restored.epochs and _summed_up(run_dir) == done:
        raise CheckpointError(
            path, f"has finished its {restored.epochs} epochs", fix="extend it with --epochs, or start a new run"
        )
    return restored, content, run_dir


def _summed_up(run_dir: Path) -> int:
    """Return the epochs that a run's summary is of, 0 without one: a run may be stopped in its last judgement."""
    path = run_dir / SUMMARY
    summary = load_json(path) if path.is_file() else {}
    return summary.get("epochs", 0) if isinstance(summary, dict) else 0


def _intact(path: Path) -> tuple[Checkpoint, Path]:
    """Read the checkpoint to go on from, or the one before it if it is damaged; return also which.

    Raises:
        CheckpointError: neither can be read.
    """
    try:
        return load_checkpoint(path), path
    except CheckpointError as error:
        backup = next((p for p in map(path.with_name, BACKUPS) if p.is_file()), None)
        if backup is None:
            raise
        LOGGER.warning(f"{error} Resuming from backup {backup}, one epoch earlier")
        return load_checkpoint(backup), backup


def _describe_run(
    run_dir: Path,
    options: TrainOptions,
    hyperparameters: Hyperparameters,
    device: torch.device,
    data: TrainingData,
    transferred: float | None,
) -> None:
    """Write what a run needs to be understood and repeated."""
    (run_dir / SUMMARY).unlink(missing_ok=True)  # of an earlier run, under --exist-ok
    dump_yaml(run_dir / "opt.yaml", plain(asdict(options)))
    dump_yaml(run_dir / "hyp.yaml", asdict(hyperparameters))
    environment = {**describe_environment(device), "seed": options.seed, "dataset": data.train.fingerprint()}
    dump_json(run_dir / ENVIRONMENT, {**environment, "transferred_fraction": transferred})
    write_skipped(run_dir, [*data.train.skipped, *data.val.skipped])
    with optional():
        if not options.noplots:
            plot_labels(data.train.labels, class_names_of(data, options), run_dir / "labels.jpg")


def class_names_of(data: TrainingData, options: TrainOptions) -> tuple[str, ...]:
    """Return names for the label statistics, which show the file's classes even with --single-cls."""
    if not options.single_cls:
        return data.names
    return tuple(str(number) for number in range(int(data.train.labels[:, 0].max()) + 1))


def _finish(trainer: Trainer) -> TrainingResult:
    """Judge the best model once more, draw everything, and write the run's summary."""
    progress, run_dir, options = trainer.progress, trainer.run_dir, trainer.options
    peak_memory = peak_memory_gb(trainer.device)  # of the training, before the evaluation adds its own
    best = trainer.checkpoints.folder / "best.pt"
    if not best.is_file():  # the run went on from a last.pt that was brought here alone
        LOGGER.warning(f"{best} is not there; judging last.pt")
        best = best.with_name("last.pt")
    model, _ = load_model(best)
    model = to_device(model, trainer.device)
    LOGGER.info(f"\n{progress.epoch} epochs in {progress.seconds / 3600:.3f} hours; judging {best}")
    evaluation = evaluate_and_report(
        model,
        trainer.data.val_loader,
        index=trainer.data.val,
        names=trainer.data.names,
        nms=EVALUATION_NMS,
        device=trainer.device,
        half=trainer.amp,
        run_dir=None if options.noplots else run_dir,
        verbose=True,
    )
    with optional():
        if not options.noplots:
            plot_results(columns_of(progress.rows), run_dir / "results.png")
    cost = trainer.summary
    metrics = evaluation.metrics
    summary = {
        "config": model.config.name,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "parameters": cost.parameters,
        "gflops": cost.gflops,
        "sampling_gflops": cost.sampling_gflops,
        "image_size": trainer.image_size,
        "precision": metrics.mean_precision,
        "recall": metrics.mean_recall,
        "map50": metrics.map50,
        "map50_95": metrics.map50_95,
        "training_seconds": progress.seconds,
        "peak_memory_gb": peak_memory,
        "transferred_fraction": _transferred_fraction(run_dir),
    }
    dump_json(run_dir / SUMMARY, summary)
    LOGGER.info(f"Results: {run_dir}")
    return TrainingResult(run_dir=run_dir, evaluation=evaluation, summary=summary)


def _transferred_fraction(run_dir: Path) -> float | None:
    """Return the fraction of parameters that --weights gave a run at its start, also if it was resumed since."""
    path = run_dir / ENVIRONMENT
    value = load_json(path) if path.is_file() else None
    return value.get("transferred_fraction") if isinstance(value, dict) else None
