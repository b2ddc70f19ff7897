"""A training run from its options to its last evaluation: a new one, or an interrupted one that is resumed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from models.summary import ModelSummary, summarize
from models.yolo import DetectionModel
from utils.datasets.config import DATA_FOLDER
from utils.datasets.letterbox import round_image_size
from utils.datasets.splits import class_names, open_data
from utils.distributed import (
    LAUNCH_FILE,
    DistributedContext,
    init_distributed,
    local_device,
    lost_process,
    lost_process_error,
)
from utils.errors import ConfigError
from utils.files import (
    absolute_path,
    atomic_write,
    dump_json,
    file_hash,
    load_json,
    make_run_dir,
    remove_leftovers,
    write_skipped,
)
from utils.inference.detector import torch_network
from utils.inference.nms import EVALUATION_NMS
from utils.locks import FolderLock
from utils.log import LOGGER, optional
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters, load_hyperparameters
from utils.plots.curves import plot_results
from utils.plots.labels import plot_labels
from utils.plugins import load_plugins
from utils.runtime import describe_environment, peak_memory_gb, seed_everything, select_device
from utils.strict_yaml import dump_yaml
from utils.training.autobatch import choose_batch
from utils.training.callbacks import make_callbacks, require_tensorboard
from utils.training.data import TrainingData, load_training_data, validation_loader
from utils.training.processes import common_values, find_interrupted
from utils.training.results_csv import columns_of, format_seconds
from utils.training.resume_checks import stored_hyperparameters, validate_checkpoint
from utils.training.setup import build_model, build_trainer, check_anchors, choose_config
from utils.training.state import LAST, SUMMARY, set_aside_earlier_run, to_builtin
from utils.training.trainer import Trainer
from utils.validation.evaluate import Evaluation
from utils.validation.run import evaluate_and_report
from utils.weights.checkpoint import Checkpoint, load_model, stored_network

ENVIRONMENT = "env.json"
WEIGHTS_HASH = "weights_sha256"  # in it: of the file of --weights


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Outcome of a run: its folder, the evaluation of its best model, and the content of summary.json."""

    run_dir: Path
    evaluation: Evaluation
    summary: dict[str, Any]


def run_training(options: TrainOptions, given: Iterable[str] = (), *, layers: bool = True) -> TrainingResult | None:
    """Train, as one of several processes if torchrun started this one; only the main one returns the outcome.

    `given` names the options that were set explicitly; with --resume the others come from the run. `layers` lets the
    table of the model's layers be printed.

    Raises:
        DetectorError: the input is invalid (before anything is written), or the run failed.
        RunStopped: Ctrl-C or SIGTERM; the run was saved.
    """
    context = init_distributed(options.device, timeout=options.dist_timeout)
    try:
        options, content, run_dir = find_interrupted(options, frozenset(given), context)
        device = context.agree(lambda: select_device(local_device(options.device)))
        if context.size > 1 and device.type == "cuda":
            torch.cuda.set_device(device)
        return _run(options, content, run_dir, device, context, layers=layers)
    except RuntimeError as error:
        if not lost_process(error):
            raise
        raise lost_process_error("another process has ended or cannot be reached") from error
    finally:
        context.close()


def _run(
    options: TrainOptions,
    content: Checkpoint | None,
    run_dir: Path | None,
    device: torch.device,
    context: DistributedContext,
    *,
    layers: bool,
) -> TrainingResult | None:
    """Build the parts, train, and evaluate the best model."""
    seed_everything(options.seed, device)
    hyperparameters = context.agree(lambda: _load_settings(options, content))
    if options.batch_size == -1:
        options = replace(options, batch_size=_measured_batch(options, hyperparameters, device, context))
    # The main process downloads or draws the images before the others look for them.
    context.from_main(lambda: open_data(options.data, download=options.download) and None)
    context.agree(lambda: open_data(options.data) if context.leads_node else None)
    model, data, transferred = context.agree(lambda: _build_parts(options, hyperparameters, content, context))
    context.require_same(common_values(options, hyperparameters, data), options.data)
    typed, options = options, _with_absolute_paths(options, data.file)
    if run_dir is None:
        run_dir = context.from_main(lambda: make_run_dir(options.project, options.name, exist_ok=options.exist_ok))
    with contextlib.ExitStack() as stack:
        context.from_main(lambda: _claim(run_dir, context.launch, stack))
        trainer = build_trainer(
            options, hyperparameters, model=model, data=data, run_dir=run_dir, device=device, context=context
        )
        context.broadcast_state(trainer.model)
        context.broadcast_state(trainer.state.ema.model)
        if content is None and context.is_main:
            _describe_run(trainer, typed, transferred)
        cost = summarize(trainer.state.ema.model, (data.image_size, data.image_size))
        LOGGER.info(cost.table() if layers else cost.totals())
        processes = f"{context.size} processes with " if context.size > 1 else ""
        workers = f"{processes}{data.train_loader.workers} data loader workers{' each' * bool(processes)}"
        LOGGER.info(f"Run folder: {run_dir}\nDevice: {device}, {workers}")
        if content is not None:
            _resume(trainer, content)
        trainer.train(make_callbacks(run_dir, tensorboard=options.tensorboard) if context.is_main else ())
        result = _finish(trainer, cost) if context.is_main else None
        context.leave_together()  # torchrun on another node would not wait long for the main process
        return result


def _load_settings(options: TrainOptions, content: Checkpoint | None) -> Hyperparameters:
    """Load the plugins, and return the hyperparameters."""
    load_plugins(options.plugins)
    if options.tensorboard:
        require_tensorboard()
    return stored_hyperparameters(content, options.resume) if content else load_hyperparameters(options.hyp)


def _claim(run_dir: Path, launch: str, stack: contextlib.ExitStack) -> None:
    """Lock a run's folder until the stack is closed, and prepare it."""
    stack.callback(FolderLock(run_dir).release)
    remove_leftovers(run_dir)
    if launch:
        atomic_write(run_dir / LAUNCH_FILE, launch)


def _measured_batch(
    options: TrainOptions, hyperparameters: Hyperparameters, device: torch.device, context: DistributedContext
) -> int:
    """Return the batch size over all processes for --batch-size -1."""

    def measure() -> int:
        model = DetectionModel(choose_config(options, hyperparameters)[0])
        image_size = round_image_size(options.imgsz, model.max_stride)
        return choose_batch(model, image_size=image_size, device=device, amp=not options.no_amp)

    return context.from_main(measure) * context.size


def _build_parts(
    options: TrainOptions, hyperparameters: Hyperparameters, content: Checkpoint | None, context: DistributedContext
) -> tuple[DetectionModel, TrainingData, float | None]:
    """Build the model, then the data, since an invalid model yaml is found sooner than a data set is scanned.

    Returns also the fraction of the model's parameters that --weights supplied.
    """
    if content is None:
        config, weights = choose_config(options, hyperparameters)
    else:
        (config, _), weights = stored_network(content, options.resume), None
    dataset = open_data(options.data)
    names = class_names(dataset, single_class=options.single_cls)
    model, transferred = build_model(options, config, num_classes=len(names), content=weights)
    image_size = round_image_size(options.imgsz, model.max_stride)
    data = load_training_data(
        dataset, options, hyperparameters, image_size=image_size, stride=model.max_stride, context=context
    )
    if content is None:
        if not options.noautoanchor:
            ratio = hyperparameters.anchor_t
            check_anchors(model, data.train, image_size=image_size, max_ratio=ratio, seed=options.seed)
    elif content["dataset"] != data.train.fingerprint():
        what = "the training split changed since the run was interrupted"
        raise ConfigError(options.data, what, fix="restore it, or start a new run")
    return model, data, transferred


def _resume(trainer: Trainer, content: Checkpoint) -> None:
    """Validate and restore the state of an interrupted run."""
    state, options, batches = trainer.state, trainer.state.options, len(trainer.data.sampler)
    state.load_state_dict(validate_checkpoint(content, state, batches=batches, path=options.resume))
    progress = state.progress
    trainer.checkpoints.saved_epochs = progress.epoch
    within = f" and {progress.batch} batches" if progress.batch else ""
    LOGGER.info(f"Resumed after epoch {progress.epoch} of {options.epochs}{within}")


def _with_absolute_paths(options: TrainOptions, data_file: Path) -> TrainOptions:
    """Return the options as checkpoints hold them, so that a run can be resumed in any working directory."""
    file = os.path.abspath(data_file)
    return replace(
        options,
        data=options.data if DATA_FOLDER in Path(file).parents else file,
        weights=absolute_path(options.weights),
        cfg=absolute_path(options.cfg),
        hyp=absolute_path(options.hyp),
        plugins=tuple(map(absolute_path, options.plugins)),
    )


def _describe_run(trainer: Trainer, options: TrainOptions, transferred: float | None) -> None:
    """Write what is needed to understand and repeat a run; `options` are as typed."""
    run_dir, data = trainer.run_dir, trainer.data
    facts = {"seed": options.seed, "dataset": trainer.state.dataset, "transferred_fraction": transferred}
    if options.weights:
        facts[WEIGHTS_HASH] = file_hash(trainer.state.options.weights)  # which may be of the earlier run in this folder
    set_aside_earlier_run(run_dir)
    dump_yaml(run_dir / "opt.yaml", to_builtin(asdict(options)))
    dump_yaml(run_dir / "hyp.yaml", asdict(trainer.state.hyperparameters))
    dump_json(run_dir / ENVIRONMENT, describe_environment(trainer.device) | facts)
    write_skipped(run_dir, [*data.train.skipped, *data.val.skipped])
    if not options.noplots:
        # The labels keep the classes of their files even with --single-cls.
        class_ids = range(int(data.train.labels[:, 0].max()) + 1)
        names = tuple(map(str, class_ids)) if options.single_cls else data.names
        with optional():
            plot_labels(data.train.labels, names, run_dir / "labels.jpg")


def _finish(trainer: Trainer, cost: ModelSummary) -> TrainingResult:
    """Evaluate the best model with all plots, and write the run's summary."""
    state, run_dir, data, device = trainer.state, trainer.run_dir, trainer.data, trainer.device
    progress, plots = state.progress, not state.options.noplots
    peak_memory = peak_memory_gb(device)  # of the training, before the evaluation adds its own
    best = trainer.checkpoints.folder / "best.pt"
    if not best.is_file():  # the run was resumed from a last.pt that was moved without it
        LOGGER.warning(f"{best} does not exist; evaluating {LAST}")
        best = trainer.checkpoints.last
    model = load_model(best)[0]
    network = torch_network(model, device=device, half=state.scaler.is_enabled())
    val_loader = data.val_loader
    if state.context.size > 1:  # this process's part
        sizes = {"image_size": data.image_size, "stride": data.stride}
        val_loader = validation_loader(data.val, state.options, **sizes, context=DistributedContext())
    epochs = f"{progress.epoch} epoch{'s' * (progress.epoch != 1)}"
    LOGGER.info(f"\n{epochs} in {format_seconds(progress.seconds)}; evaluating {best}")
    evaluation = evaluate_and_report(
        network,
        val_loader,
        index=data.val,
        names=data.names,
        nms=EVALUATION_NMS,
        run_dir=run_dir if plots else None,
        verbose=True,
    )
    if plots:
        with optional():
            plot_results(columns_of(progress.rows), run_dir / "results.png")
    metrics = evaluation.metrics
    # A resumed run does not read --weights again.
    environment = load_json(run_dir / ENVIRONMENT) if (run_dir / ENVIRONMENT).is_file() else None
    summary = {
        "config": model.config.name,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "parameters": cost.parameters,
        "gflops": cost.gflops,
        "sampling_gflops": cost.sampling_gflops,
        "image_size": data.image_size,
        "fraction": state.options.fraction,
        "training_images": len(data.train),
        "training_objects": len(data.train.labels),
        "precision": metrics.mean_precision,
        "recall": metrics.mean_recall,
        "map50": metrics.map50,
        "map50_95": metrics.map50_95,
        "training_seconds": progress.seconds,
        "peak_memory_gb": peak_memory,
        "transferred_fraction": environment.get("transferred_fraction") if isinstance(environment, dict) else None,
    }
    dump_json(run_dir / SUMMARY, summary)
    LOGGER.info(f"Results: {run_dir}")
    return TrainingResult(run_dir=run_dir, evaluation=evaluation, summary=summary)
