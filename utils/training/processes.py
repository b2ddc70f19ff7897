"""What the processes of one run have in common: the run that they resume, their data and their options."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from utils.distributed import DistributedContext, run_to_resume
from utils.log import LOGGER
from utils.options import TrainOptions
from utils.options.command_line import check_files
from utils.options.hyperparameters import Hyperparameters
from utils.training.data import TrainingData
from utils.training.resume_checks import find_run
from utils.training.state import LAST
from utils.weights.checkpoint import Checkpoint

# Options that may differ between processes: what they name may lie elsewhere on each machine. Only the main one writes.
OWN_OPTIONS = frozenset("device workers cache data weights cfg hyp plugins resume project no_label_cache".split())
OWN_WHEN_RESUMED = frozenset("device workers cache data plugins".split())


def find_interrupted(
    options: TrainOptions, given: frozenset[str], context: DistributedContext
) -> tuple[TrainOptions, Checkpoint | None, Path | None]:
    """Return the options of the run, and the checkpoint and folder if one is resumed, also by torchrun's restart.

    Machines need not share a file system: the main process looks for the run, and sends its content to the others.
    """
    if context.size > 1 and not options.resume:
        context.agree(lambda: check_files(options))
    found, content, run_dir = context.from_main(lambda: _find(options, given, context.launch))
    if context.is_main:
        return found, content, run_dir
    if content is None:
        return options, None, run_dir
    return replace(found, **{name: getattr(options, name) for name in OWN_WHEN_RESUMED & given}), content, run_dir


def _find(
    options: TrainOptions, given: frozenset[str], launch: str
) -> tuple[TrainOptions, Checkpoint | None, Path | None]:
    if options.resume:
        return find_run(options, given)
    run_dir = run_to_resume(options.project, launch)
    if run_dir is None:
        return options, None, None
    LOGGER.warning(f"restarted by torchrun; resuming {run_dir}")
    last = run_dir / "weights" / LAST
    return find_run(replace(options, resume=str(last)), frozenset()) if last.is_file() else (options, None, run_dir)


def common_values(options: TrainOptions, hyperparameters: Hyperparameters, data: TrainingData) -> dict[str, Any]:
    """Return what must be the same in all processes, by the name that a message gives it."""
    flags = {f"--{name.replace('_', '-')}": value for name, value in asdict(options).items() if name not in OWN_OPTIONS}
    splits = {"the training split": data.train.fingerprint(), "the validation split": data.val.fingerprint()}
    return {**flags, "--hyp": asdict(hyperparameters), **splits}
