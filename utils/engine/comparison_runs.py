"""The training runs of a comparison: train.py in processes side by side, so that no crash takes the others along."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tqdm import tqdm

from utils.engine.contestants import FREE_OPTIONS, Contestant
from utils.engine.options import CompareOptions, TrainOptions
from utils.errors import ConfigError
from utils.files import PROJECT_ROOT, load_yaml
from utils.log import LOGGER

SUMMARY = "summary.json"
POLL_SECONDS = 0.3
GRACE_SECONDS = 60.0
MEMORY_CELL = re.compile(r"^\s*\d+/\d+\s+([\d.]+(?:e[+-]?\d+)?)G\s", re.MULTILINE)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training run.

    Attributes:
        model: label of the contestant.
        seed: of all its randomness.
        options: of train.py.
    """

    model: str
    seed: int
    options: TrainOptions

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return Path(self.options.project) / self.options.name

    @property
    def log(self) -> Path:
        """Where its output goes, beside the folder."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def best(self) -> Path:
        """Its best checkpoint."""
        return self.folder / "weights" / "best.pt"

    @property
    def finished(self) -> bool:
        """Whether it needs no more training."""
        return (self.folder / SUMMARY).is_file() and self.best.is_file()

    def words(self, *, resumed: bool) -> list[str]:
        """Return the words after `python train.py`, as a user would write them."""
        if resumed:
            options = {"resume": str(self.folder / "weights" / "last.pt"), "workers": self.options.workers}
            if self.options.device:
                options["device"] = self.options.device
            return [word for key, value in options.items() for word in (f"--{key}", str(value))]
        defaults = TrainOptions()
        words: list[str] = []
        for field in fields(TrainOptions):
            value = getattr(self.options, field.name)
            if value == getattr(defaults, field.name) and field.name != "seed":
                continue
            flag = "--" + field.name.replace("_", "-")
            words += [flag] if value is True else [flag, *map(str, value if isinstance(value, tuple) else (value,))]
        return words

    def command(self) -> str:
        """Return the line that trains this model by itself."""
        return "python train.py " + shlex.join(self.words(resumed=False))


@dataclass(frozen=True, kw_only=True)
class FailedRun:
    """A run that did not come to its end: which, its exit code, the last it said, and where all of it is."""

    run: PlannedRun
    exit_code: int
    reason: str


def plan_runs(options: CompareOptions, contestants: Sequence[Contestant], folder: Path) -> list[PlannedRun]:
    """Return the runs of all yamls, every seed of all models before the next seed, so that all grow evenly.

    Raises:
        ConfigError: a run's folder holds a run with other settings.
    """
    cores = os.cpu_count() or 1
    workers = min(options.workers, max(cores // options.jobs, 1)) if options.jobs > 1 else options.workers
    runs = [
        PlannedRun(
            model=contestant.label,
            seed=seed,
            options=TrainOptions(
                cfg=contestant.cfg,
                data=options.data,
                hyp=options.hyp,
                epochs=options.epochs,
                batch_size=options.batch_size,
                imgsz=options.imgsz,
                device=options.device,
                optimizer=options.optimizer,
                workers=workers,
                cos_lr=options.cos_lr,
                seed=seed,
                no_amp=options.no_amp,
                plugins=options.plugins,
                project=str(folder),
                name=f"{contestant.label}-seed{seed}",
                exist_ok=True,
            ),
        )
        for seed in options.all_seeds
        for contestant in contestants
        if contestant.cfg
    ]
    for run in runs:
        _require_same_settings(run)
    return runs


def _require_same_settings(run: PlannedRun) -> None:
    """Check a folder that exists already.

    Raises:
        ConfigError: it holds a run with other settings.
    """
    path = run.folder / "opt.yaml"
    if not path.is_file():
        return
    present = load_yaml(path)
    wanted = json.loads(json.dumps(asdict(run.options)))
    differing = [key for key, value in wanted.items() if key not in FREE_OPTIONS and present.get(key, value) != value]
    if differing:
        flags = ", ".join("--" + key.replace("_", "-") for key in differing)
        raise ConfigError(run.folder, f"holds a run with other settings ({flags})", fix="choose another --name")


def finish_runs(runs: Sequence[PlannedRun], *, jobs: int) -> list[FailedRun]:
    """Train what is not trained yet, go on where an earlier call stopped, and wait for all.

    Args:
        runs: in the order in which they are started.
        jobs: how many at a time; each gets its share of the processor's threads.

    Returns:
        The runs that failed. The others are finished.
    """
    waiting = []
    for run in runs:
        if run.finished:
            LOGGER.info(f"{run.folder}: finished already")
        else:
            waiting.append(run)
    failed: list[FailedRun] = []
    running: list[_Job] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                slots = set(range(jobs)) - {job.slot for job in running}
                running.append(_Job(waiting.pop(0), slot=min(slots), jobs=jobs))
            time.sleep(POLL_SECONDS)
            for job in list(running):
                if job.still_runs():
                    continue
                running.remove(job)
                failure = job.close()
                if failure is not None:
                    failed.append(failure)
    except BaseException:
        _stop(running)
        raise
    return failed


class _Job:
    """A run's process, and its line of progress."""

    def __init__(self, run: PlannedRun, *, slot: int, jobs: int) -> None:
        """Start train.py; what it says goes to the run's log."""
        self.run, self.slot = run, slot
        resumed = (run.folder / "weights" / "last.pt").is_file()
        command = [sys.executable, str(PROJECT_ROOT / "train.py"), *run.words(resumed=resumed)]
        LOGGER.info(f"{run.folder.name}: {'going on with' if resumed else 'training'} {run.options.cfg}")
        run.log.parent.mkdir(parents=True, exist_ok=True)
        self._started = time.perf_counter()
        with run.log.open("ab") as log:
            log.write(f"$ {shlex.join(command)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(  # noqa: S603 - our own script, no shell
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=_environment(jobs)
            )
        self._bar = tqdm(
            total=run.options.epochs,
            desc=run.folder.name,
            position=slot,
            unit="epoch",
            leave=False,
            disable=None,  # where nobody watches, only the beginning and the end are said
        )

    def still_runs(self) -> bool:
        """Bring the line of progress up to date."""
        self._bar.n = _epochs_done(self.run)
        self._bar.refresh()
        return self.process.poll() is None

    def close(self) -> FailedRun | None:
        """Say how the run ended."""
        self._bar.close()
        name, seconds = self.run.folder.name, time.perf_counter() - self._started
        if self.process.returncode == 0 and self.run.finished:
            LOGGER.info(f"{name}: finished in {seconds:.0f} s")
            return None
        reason = last_words(self.run.log)
        LOGGER.warning(f"{name}: failed after {seconds:.0f} s: {reason} (all of it: {self.run.log})")
        return FailedRun(run=self.run, exit_code=int(self.process.returncode), reason=reason)


def _environment(jobs: int) -> dict[str, str]:
    """Return the environment of a job: its share of the threads, unless the user allows fewer."""
    environment = dict(os.environ)
    if jobs > 1:
        share = max((os.cpu_count() or 1) // jobs, 1)
        for variable in THREAD_VARIABLES:
            given = environment.get(variable, "")
            environment[variable] = str(min(share, int(given)) if given.isdigit() and int(given) else share)
    return environment


def _epochs_done(run: PlannedRun) -> int:
    """Return how many epochs a run's results.csv holds."""
    try:
        return max((run.folder / "results.csv").read_text(encoding="utf-8").count("\n") - 1, 0)
    except OSError:
        return 0


def _stop(running: Sequence[_Job]) -> None:
    """Ask processes to stop and save themselves, then insist."""
    for job in running:
        with contextlib.suppress(OSError):
            job.process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for job in running:
        try:
            job.process.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            job.process.kill()


def last_words(log: Path) -> str:
    """Return the error that a log ends with, or else its last line."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return "no output"
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    told = [line for line in lines if line]
    return (errors or told or ["no output"])[-1]


def peak_memory_gb(log: Path) -> float | None:
    """Return the most memory that a training said it took, in GB: reserved on CUDA, else of the whole process."""
    try:
        cells = MEMORY_CELL.findall(log.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return max(map(float, cells)) if cells else None
