"""Sentences on how a model was trained, as far as its checkpoints record that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.comparison.sentences import Writer
from utils.comparison.trained_runs import BEST, OFFSET_LR, TrainedRuns
from utils.training.optim import MIN_WARMUP_STEPS, scaled_weight_decay

MOSAICS = ("mosaic", "close_mosaic", "mixup")  # the others have no effect without mosaic
AUGMENTATIONS = "copy_paste hsv degrees translate scale shear perspective flipud fliplr".split()
FLAGS = "multi_scale rect image_weights label_smoothing single_cls".split()  # of train.py, stated if they are given
Facts = dict[str, str]  # sentences by key, empty if unknown


def training_facts(model: TrainedRuns, say: Writer) -> Facts:
    """Return what is known of a model's training."""
    args, run, seeds = model.args, model.runs[0], [run.seed for run in model.runs]
    hyp = run.hyperparameters  # without `offset_lr` if the network has no offsets
    values: dict[str, Any] = {**hyp, **args, "size": run.image_size, "steps": MIN_WARMUP_STEPS}
    if "lr0" in hyp and "lrf" in hyp:
        values["final"] = hyp["lr0"] * hyp["lrf"]
    if "weight_decay" in hyp and "nbs" in hyp and "batch_size" in args:
        batch, nbs = int(args["batch_size"]), hyp["nbs"]
        values["weight_decay"] = scaled_weight_decay(hyp["weight_decay"], nbs=nbs, batch_size=batch)
    source, layers = args.get("weights"), args.get("freeze") or [0]
    weights = say.remark(Path(source or "").name, say("part", model.transferred_fraction))
    stops = 0 < args.get("patience", 0) < args.get("epochs", 0)
    accumulates = round(hyp.get("nbs", 0) / args.get("batch_size", math.inf)) > 1
    kept = all(one.path.name == BEST.name for one in model.runs) and not args.get("noval", True)
    return {
        "weights": say("random") if source == "" else say("pretrained", weights),
        "epochs": say("epochs", **values),
        "patience": say("patience", **values) if stops else "",
        "optimizer": say("SGD" if args.get("optimizer") == "SGD" else "Adam", **values),
        "nbs": say("nbs", **values) if accumulates else "",
        "warmup": say("warmup", **values) if hyp.get("warmup_epochs") else "",
        "rate": say("cosine" if args.get("cos_lr") else "linear", **values),
        OFFSET_LR: say(OFFSET_LR, **values) if hyp.get(OFFSET_LR) != 1 else "",
        "augmentation": _augmentation(values, say) if hyp else "",
        **{flag: say(flag, **values) if args.get(flag) else "" for flag in FLAGS},
        "freeze": say("freeze", say.listed(layers)) if len(layers) > 1 else say("freeze_first", layers[0] or ""),
        "best": say("best") if kept else "",
        "seeds": "" if None in seeds else say("seeds" if len(seeds) > 1 else "one_seed", say.listed(seeds)),
    }


def _augmentation(values: Mapping[str, Any], say: Writer) -> str:
    """Return the augmentations whose strength is not 0."""
    strengths = {**values, "hsv": any(values.get(f"hsv_{channel}") for channel in "hsv")}
    keys = [*(MOSAICS if values.get("mosaic") and not values.get("rect") else ()), *AUGMENTATIONS]
    known = [say(key, **values) for key in keys if strengths.get(key)]
    return say("augmentation", say.listed(known)) or say("no_augmentation")
