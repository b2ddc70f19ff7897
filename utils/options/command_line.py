"""From the command line to options whose files exist: all that can be checked before torch, which takes seconds."""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any, TypeVar

from models.config import load_model_config
from utils.cli import parse_options
from utils.datasets.config import load_data_config
from utils.errors import ConfigError
from utils.files import find_file
from utils.log import LOGGER
from utils.options.ablation import parse_switches
from utils.options.base import HYP_FOLDER
from utils.options.export import ExportOptions
from utils.options.inference import DetectOptions, ValOptions
from utils.options.preparation import PrepareOptions
from utils.options.training import CompareOptions, TrainOptions
from utils.plugins import find_plugin
from utils.strict_yaml import load_yaml
from utils.weights_file import unreadable_weights

Options = TypeVar("Options", bound=object)


def read_options(options_class: type[Options], *, description: str | None) -> tuple[Options, frozenset[str]]:
    """Parse `sys.argv`, check the files that it names, and log what was given; see `parse_options`, `check_files`.

    Several processes of a training check the files together, once they have met.
    """
    options, given = parse_options(options_class, None, description=description or "")
    if not isinstance(options, TrainOptions) or os.environ.get("WORLD_SIZE", "1") == "1":
        check_files(options)
    if os.environ.get("RANK", "0") == "0":  # at once: the import of torch takes seconds
        values = {name: getattr(options, name) for name in vars(options) if name in given}
        listed = [f"{name}={' '.join(map(str, v)) if isinstance(v, tuple) else v}" for name, v in values.items()]
        public = re.sub(r"://\S*@", "://", ", ".join(listed))  # without passwords of streams
        LOGGER.info(f"{Path(sys.argv[0]).stem}: {public or 'default options'}")
    return options, given


def check_files(options: object) -> None:
    """Raise the error of a missing file, as the command itself would, without importing torch.

    Raises:
        DetectorError: a plugin, checkpoint, yaml, split or source does not exist, or a yaml is invalid.
    """
    for name in _values(options, "plugins"):
        find_plugin(name)
    if isinstance(options, TrainOptions):
        if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
            fix = "install it: pip install tensorboard"
            raise ConfigError("--tensorboard", "tensorboard is not installed", fix=fix)
        if options.resume:  # the other files are named by the run
            if options.resume != "newest" and not os.path.exists(options.resume):
                raise unreadable_weights(Path(options.resume))
            return
    from_scratch = "leave --weights out to train from random weights" if isinstance(options, TrainOptions) else ""
    for name in (*_values(options, "weights"), *_values(options, "pretrained")):
        is_pattern = isinstance(options, CompareOptions) and glob.has_magic(name)
        if not is_pattern and not os.path.exists(name):
            raise unreadable_weights(Path(name), alternative=from_scratch)
    for name in _values(options, "cfg"):
        load_model_config(name, log=False)
    if isinstance(options, CompareOptions) and options.cfg:
        for switch in parse_switches(options.ablation, need_settings=True):
            for name in switch.yamls:
                load_model_config(name, log=False)
    for name in _values(options, "hyp"):
        load_yaml(find_file(name, folders=[HYP_FOLDER], flag="--hyp"))
    for name in _values(options, "data"):
        config = load_data_config(name)
        # The embedded data set is drawn when it is needed, and a download fetches the images.
        if config.generator is None and not getattr(options, "download", False):
            for split in _splits(options):
                config.locate(split)
    if isinstance(options, PrepareOptions) and options.check and not os.path.isdir(options.source):
        load_data_config(options.source)
    if isinstance(options, DetectOptions) and not os.path.exists(os.path.expanduser(options.source)):
        from utils.datasets.sources import open_source

        open_source(options.source)


def _values(options: object, field: str) -> tuple[str, ...]:
    """Return the values of an option that a command may lack, none or several of which may be given."""
    value: Any = getattr(options, field, ())
    return tuple(filter(None, (value,) if isinstance(value, str) else value))


def _splits(options: object) -> tuple[str, ...]:
    """Return the splits of --data that a command reads."""
    if isinstance(options, TrainOptions):
        return ("train", "val")
    if isinstance(options, CompareOptions):
        return tuple(dict.fromkeys(("train", "val", options.task) if options.cfg else (options.task,)))
    if isinstance(options, ValOptions):
        return ("val" if options.task == "speed" else options.task,)
    return ("val",) if isinstance(options, ExportOptions) and options.benchmark else ()
