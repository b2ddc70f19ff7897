"""Who takes part in a comparison: model yamls to be trained, each with its hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from models.config import ModelConfig, load_model_config
from models.yolo import DetectionModel
from utils.errors import ConfigError
from utils.files import unique_name
from utils.log import LOGGER
from utils.options.hyperparameters import Hyperparameters, check_hyperparameters, load_hyperparameters
from utils.strict_yaml import dump_yaml, load_yaml
from utils.training.optim import OFFSET_CONVOLUTION

# Settings that do not change what a run learns.
NON_SEMANTIC_OPTIONS = frozenset(
    "project name exist_ok resume device workers cache noplots nosave save_period tensorboard download "
    "no_label_cache".split()
)
# Files whose content is compared instead of their name, and the seed.
COMPARED_BY_CONTENT = frozenset(("cfg", "hyp", "seed"))
DEFAULT_HYP = "hyp.scratch-low.yaml"
OFFSET_LR = "offset_lr"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One model of a comparison.

    Attributes:
        label: short distinct name.
        cfg: model yaml to train; empty for finished weights.
        config: the checked yaml.
        hyp: hyperparameter yaml to train with; empty for finished weights.
        hyperparameters: the numbers of that yaml, or those in the weights; empty if not known.
        weights: finished checkpoints, one for each seed; empty for a yaml.
        seeds: of the weights, None where not known; empty for a yaml.
        data: data yaml the weights were trained on, as far as is known.
        options: of train.py, which the weights were trained with, as far as is known.
        disagreement: on the name of a class, between the data set and the weights; empty without any.
    """

    label: str
    cfg: str = ""
    config: ModelConfig
    hyp: str = ""
    hyperparameters: Mapping[str, float] = field(default_factory=dict)
    weights: tuple[Path, ...] = ()
    seeds: tuple[int | None, ...] = ()
    data: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    disagreement: str = ""


def from_configs(
    cfgs: Sequence[str], *, hyps: Sequence[str] = (DEFAULT_HYP,), taken: Sequence[str] = ()
) -> list[Candidate]:
    """Check model yamls and hyperparameter yamls, pair each of the former with each of the latter, and name them apart.

    A pair that would train to the same bits as one before is left out: another `offset_lr` means nothing to a model
    without AKConv.

    Raises:
        ConfigError: a yaml does not exist, or cannot be built.
    """
    recipes = [(hyp, load_hyperparameters(hyp)) for hyp in hyps]
    candidates: list[Candidate] = []
    for cfg in cfgs:
        config = load_model_config(cfg)
        require_buildable(config)
        all_count = len(hyps) == 1 or has_offsets(config)
        own: list[Hyperparameters] = []
        for hyp, hyperparameters in recipes:
            alike = [other for other in own if other != hyperparameters and _same(other, hyperparameters)]
            if alike and not all_count:
                LOGGER.info(f"{cfg} with {hyp}: left out, offset_lr changes nothing in a model without AKConv")
                continue
            own.append(hyperparameters)
            stem = Path(cfg).stem if len(hyps) == 1 else f"{Path(cfg).stem}-{Path(hyp).stem.removeprefix('hyp.')}"
            label = unique_name(stem, [*taken, *(c.label for c in candidates)])
            numbers = asdict(hyperparameters)
            candidates.append(Candidate(label=label, cfg=cfg, config=config, hyp=hyp, hyperparameters=numbers))
    return candidates


def _same(one: Hyperparameters, other: Hyperparameters) -> bool:
    """Tell whether hyperparameters differ in nothing but `offset_lr`."""
    return asdict(one) | {OFFSET_LR: 1.0} == asdict(other) | {OFFSET_LR: 1.0}


def has_offsets(config: ModelConfig) -> bool:
    """Tell whether a model has offset convolutions, for which `offset_lr` is."""
    return learns_offsets(DetectionModel(config))


def learns_offsets(model: nn.Module) -> bool:
    """Tell whether a network has offset convolutions, without which `offset_lr` changes nothing."""
    return any(OFFSET_CONVOLUTION in name.split(".") for name, _ in model.named_modules())


def require_buildable(config: ModelConfig) -> None:
    """Build the network once, so that a wrong row is told before the first hour of training.

    Raises:
        ConfigError: it cannot be built.
    """
    DetectionModel(config)


def config_file(folder: Path, label: str) -> Path:
    """Return where a comparison keeps the model yaml of a candidate."""
    return folder / "configs" / f"{label}.yaml"


def hyp_file(folder: Path, label: str) -> Path:
    """Return where a comparison keeps the hyperparameter yaml of a candidate."""
    return folder / "configs" / f"{label}.hyp.yaml"


def keep_configs(folder: Path, candidates: Sequence[Candidate]) -> None:
    """Write each yaml as it was read to `configs/`, so that a folder never mixes runs of two versions of a file.

    Raises:
        ConfigError: the folder holds another version.
    """
    for candidate in candidates:
        if not candidate.cfg:
            continue
        path, hyp = config_file(folder, candidate.label), hyp_file(folder, candidate.label)
        plain, numbers = candidate.config.to_dict(), dict(candidate.hyperparameters)
        if not path.is_file():
            dump_yaml(path, plain)
        elif ModelConfig.from_dict(load_yaml(path), name=path.name).to_dict() != plain:
            raise _changed(candidate.cfg, folder)
        if not hyp.is_file():
            dump_yaml(hyp, numbers)
        elif asdict(check_hyperparameters(load_yaml(hyp), where=str(hyp))) != numbers:
            raise _changed(candidate.hyp, folder)


def _changed(file: str, folder: Path) -> ConfigError:
    return ConfigError(file, f"has changed since the runs in {folder} were started", fix="choose another --name")
