"""Builds the parts of a run from its options: the only place where flags and hyperparameters are combined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from models.config import MAX_ANCHORS, ModelConfig, load_model_config
from models.yolo import DetectionModel
from utils.datasets.autoanchor import fit_anchors
from utils.datasets.index import DatasetIndex
from utils.distributed import DistributedContext
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.losses.detection import DetectionLoss
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters
from utils.runtime import to_device
from utils.synced_batch_norm import sync_batch_norms
from utils.training.data import TrainingData
from utils.training.ema import ModelEma
from utils.training.epoch import EpochTrainer, LoopConfig
from utils.training.optim import Schedule, build_optimizer, parameter_groups, scaled_weight_decay
from utils.training.state import TrainState
from utils.training.trainer import Trainer
from utils.weights.checkpoint import Checkpoint, load_checkpoint, stored_network, stored_weights
from utils.weights.transfer import transfer_weights

DEFAULT_MODEL = "yolov5n.yaml"  # the baseline, as a command without --cfg means YOLOv5


def build_trainer(
    options: TrainOptions,
    hyperparameters: Hyperparameters,
    *,
    model: DetectionModel,
    data: TrainingData,
    run_dir: Path,
    device: torch.device,
    context: DistributedContext,
) -> Trainer:
    """Combine a model and its data with optimizer, schedule and loss; nothing is written yet."""
    hyp, batch_size = hyperparameters, options.batch_size
    model = to_device(model, device)
    ema = ModelEma(model)
    if options.sync_bn and context.size > 1:
        sync_batch_norms(model)
    weight_decay = scaled_weight_decay(hyp.weight_decay, nbs=hyp.nbs, batch_size=batch_size)
    groups = parameter_groups(model, weight_decay=weight_decay, offset_lr=hyp.offset_lr)
    state = TrainState(
        options=options,
        hyperparameters=hyp,
        names=data.names,
        image_size=data.image_size,
        dataset=data.train.fingerprint(),
        model=model,
        ema=ema,
        optimizer=build_optimizer(options.optimizer, groups, lr=hyp.lr0, momentum=hyp.momentum),
        scaler=torch.amp.GradScaler(device.type, enabled=device.type == "cuda" and not options.no_amp),
        context=context,
    )
    head = model.head
    settings = hyp.loss_settings(label_smoothing=options.label_smoothing)
    loss = DetectionLoss(settings, anchors=head.anchors, num_classes=head.nc)
    weights = hyp.loss_weights.scaled(levels=len(head.strides), num_classes=head.nc, image_size=data.image_size)
    schedule = Schedule(
        hyperparameters=hyp,
        epochs=options.epochs,
        batches=len(data.sampler),
        batch_size=batch_size,
        cosine=options.cos_lr,
    )
    config = LoopConfig(
        epochs=options.epochs,
        batch_size=batch_size,
        seed=options.seed,
        multi_scale=options.multi_scale,
        image_weights=options.image_weights,
        single_class=options.single_cls,
        plots=not options.noplots,
        validate_every_epoch=not options.noval,
        save_every_epoch=not options.nosave,
        save_period=options.save_period,
        patience=options.patience,
    )
    return Trainer(EpochTrainer(config, state, data, schedule, loss, weights, run_dir, device))


def choose_config(options: TrainOptions, hyperparameters: Hyperparameters) -> tuple[ModelConfig, Checkpoint | None]:
    """Return a run's model config, from --cfg or else from --weights, and the content of --weights.

    Raises:
        ConfigError: the yaml is missing or invalid, or the anchors to fit are too many or contradict --noautoanchor.
        CheckpointError: the weights cannot be read.
    """
    content = load_checkpoint(options.weights) if options.weights else None
    if options.cfg or content is None:
        config = load_model_config(options.cfg or DEFAULT_MODEL)
        if not options.cfg:
            LOGGER.info(f"Model: {DEFAULT_MODEL}, the default; --cfg chooses another, such as yolov5n-AKConv.yaml")
    else:
        config, _ = stored_network(content, options.weights)
        LOGGER.info(f"Model: {config.name}, as stored in {options.weights}; --cfg chooses another")
    count = round(hyperparameters.anchors)
    if count > MAX_ANCHORS:
        what = f"anchors is {hyperparameters.anchors:g} per level, more than {MAX_ANCHORS}"
        raise ConfigError(options.hyp, what, fix="write a small number such as 3")
    # The anchors in a checkpoint remain even if its yaml gives a count: it was trained with them.
    count_source = options.hyp if count else options.cfg or (config.name if content is None else "")
    config = replace(config, anchors=count) if count else config
    if options.noautoanchor and count_source and isinstance(config.anchors, int):
        what = f"keeps the model's anchors, but {count_source} only has a number to fit ({config.anchors} per level)"
        raise ConfigError("--noautoanchor", what, fix=f"leave it out, or write anchors into {count_source}")
    return config, content


def build_model(
    options: TrainOptions, config: ModelConfig, *, num_classes: int, content: Checkpoint | None
) -> tuple[DetectionModel, float | None]:
    """Build the network, with the weights of --weights, whose content is given, where they match, and freeze layers.

    Returns also the fraction of its parameters that comes from the checkpoint; None without one.

    Raises:
        CheckpointError: the checkpoint has no weights.
        ConfigError: a layer to freeze does not exist, or no layer remains to be trained.
    """
    model = DetectionModel(config, nc=num_classes)
    transferred = None
    if content is not None:
        transferred = transfer_weights(model, stored_weights(content, options.weights), source=options.weights).fraction
    layers, last = options.freeze, len(model.model) - 1
    given = " ".join(map(str, layers))
    if min(layers) < 0 or max(layers) > (last if len(layers) > 1 else last + 1):
        fix = f"give the number of first layers, or several indices from 0 to {last}"
        raise ConfigError("--freeze", f"names layers that do not exist (got {given})", fix=fix)
    frozen = set(layers if len(layers) > 1 else range(layers[0]))
    for index in frozen:
        model.model[index].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        what = f"leaves nothing to train of the {last + 1} layers of {config.where} (got {given})"
        raise ConfigError("--freeze", what, fix=f"freeze at most the first {last}")
    if frozen:
        LOGGER.info(f"Frozen layers: {sorted(frozen)}")
    return model, transferred


def check_anchors(model: DetectionModel, index: DatasetIndex, *, image_size: int, max_ratio: float, seed: int) -> None:
    """Fit the model's anchors to the labels, in place, if their best possible recall is too low or they are unset."""
    sizes = index.sizes_hw[:, ::-1] * (image_size / index.sizes_hw.max(1, keepdims=True))  # (n, 2) width, height
    boxes_wh = index.labels[:, 3:5] * sizes.repeat(index.starts[1:] - index.starts[:-1], axis=0)
    strides = torch.tensor(model.head.strides, dtype=torch.float32).view(-1, 1, 1)
    current = (model.head.anchors.cpu() * strides).numpy()
    unset = isinstance(model.config.anchors, int)
    fitted = fit_anchors(boxes_wh, current, max_ratio=max_ratio, image_size=image_size, seed=seed, force=unset)
    if fitted is None:
        return
    if model.head.strides[0] > model.head.strides[-1]:  # fitted anchors are sorted by size
        fitted = fitted[::-1].copy()
    with torch.no_grad():
        model.head.anchors.copy_(torch.from_numpy(fitted) / strides)
    model.config = replace(model.config, anchors=tuple(tuple(float(v) for v in level.reshape(-1)) for level in fitted))
