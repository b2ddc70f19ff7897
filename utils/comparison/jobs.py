"""The training runs of a comparison: parallel processes of train.py, so that a crash of one leaves the others alone."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from utils.comparison.candidates import ToTrain
from utils.comparison.plan import PlannedRun
from utils.comparison.trained_runs import TrainedRuns, last_epoch, read_run
from utils.errors import RunError, RunStopped
from utils.files import PROJECT_ROOT, make_folder
from utils.log import LOGGER
from utils.signals import GracefulShutdown
from utils.text_table import clip
from utils.training.results_csv import format_duration, format_seconds

POLL_SECONDS = 0.3
STOPPED_CODES = (143, -signal.SIGTERM)  # saved within an epoch; terminated before or after the training itself
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
MAX_NAME_COLUMNS = 18  # of a run in its bar, which with all else takes less than 80
BAR = "{desc} |{bar:5}| {n_fmt}/{total_fmt}{postfix}"


@dataclass(frozen=True, kw_only=True)
class FailedRun:
    """A run that failed, with the exit code of its process and the last error in its log."""

    run: PlannedRun
    exit_code: int
    reason: str


def finish_runs(runs: Sequence[PlannedRun], *, jobs: int) -> list[FailedRun]:
    """Train what is not finished yet, resuming what an earlier call interrupted, and return the runs that failed.

    At most `jobs` processes run in parallel and divide the threads of the processor. RunStopped is raised on Ctrl-C,
    SIGTERM or SIGHUP, once every training has saved its state; a second signal kills them.
    """
    waiting = [run for run in runs if not run.is_finished]
    for run in runs:
        if run not in waiting:
            LOGGER.info(f"{run.folder}: already finished")
    progress = _Progress(runs, jobs=jobs)
    failed: list[FailedRun] = []
    running: list[_Job] = []
    unfinished = "saved within their epochs"
    with GracefulShutdown(hang_up=True) as stop, progress.bar:
        try:
            while running or (waiting and stop.signal is None):
                while waiting and len(running) < jobs and stop.signal is None:
                    slots = set(range(jobs)) - {job.slot for job in running}
                    running.append(_Job(waiting.pop(0), progress, slot=min(slots), jobs=jobs))
                time.sleep(POLL_SECONDS)
                if stop.signal is not None and _terminate(running):
                    LOGGER.info("Stopping as soon as the trainings have saved their state; a second Ctrl-C kills them")
                for job in list(running):
                    if not job.is_running():
                        running.remove(job)
                        failed += job.close()
        except KeyboardInterrupt:
            unfinished = "as of their last checkpoints"
            _kill(running)
        except BaseException:
            _terminate_and_wait(running)
            raise
    if stop.signal is not None:
        what = f"{sum(run.is_finished for run in runs)} of {len(runs)} runs finished, the others {unfinished}"
        raise RunStopped("interrupted", what, fix="continue with the same command", exit_code=stop.exit_code)
    return failed


def failure_of_all(failed: Sequence[FailedRun], folder: Path, *, count: int) -> RunError:
    """Return the error with which a comparison in a folder ends if some of its runs failed; `count` is that of all."""
    reasons = ", ".join(f"{f.run.title} ({f.reason.split('. Fix: ')[0]})" for f in failed)
    what = f"{len(failed)} of {count} runs failed: {reasons}"
    return RunError(folder, what, fix="fix the errors in the logs and rerun; finished runs are skipped")


def trained_models(
    to_train: Sequence[ToTrain], runs: Sequence[PlannedRun], failed: Sequence[FailedRun]
) -> list[TrainedRuns]:
    """Read the runs that have finished, and return the models that have any."""
    lost = [failure.run for failure in failed]
    models = []
    for model in to_train:
        finished = tuple(read_run(run.best) for run in runs if run.model == model.label and run not in lost)
        if finished:
            trained = TrainedRuns(
                label=model.label,
                runs=finished,
                config=model.config,
                hyperparameters=model.hyperparameters,
                is_finished_weights=False,
            )
            models.append(trained)
    return models


class _Progress:
    """How far all runs of a comparison are, with a bar below those of the running jobs."""

    def __init__(self, runs: Sequence[PlannedRun], *, jobs: int) -> None:
        self.runs = runs
        self._started, self._before = time.perf_counter(), self._epochs_left()
        self._total = sum(run.options.epochs for run in runs)
        self.bar = _bar(f"all {len(runs)} runs", total=self._total, initial=self._total - self._before, position=jobs)

    def position(self, run: PlannedRun) -> str:
        """Return which of the runs this is, such as `run 2 of 6`."""
        return f"run {self.runs.index(run) + 1} of {len(self.runs)}"

    def update(self) -> str:
        """Show the finished epochs, and return the time left for all runs."""
        left = self._epochs_left()
        time_left = _time_left(self._started, done=self._before - left, left=left)
        self.bar.n = self._total - left
        self.bar.set_postfix_str(f"{time_left} left")
        return time_left

    def _epochs_left(self) -> int:
        unfinished = (run for run in self.runs if not run.is_finished)
        return sum(max(run.options.epochs - last_epoch(run.folder)[0], 0) for run in unfinished)


def _bar(text: str, *, total: int, initial: int, position: int) -> tqdm[NoReturn]:
    """Return a bar of epochs in a line of its own; it shows only on a terminal."""
    return tqdm(desc=text, total=total, initial=initial, position=position, bar_format=BAR, leave=False, disable=None)


def _time_left(started: float, *, done: int, left: int) -> str:
    """Return the time for the epochs that are left, at the speed of those done since then; "?" before the first."""
    return format_duration((time.perf_counter() - started) * left / done) if done > 0 else "?"


class _Job:
    """The process of a run, and its progress: a bar on a terminal, and a line for each epoch elsewhere."""

    def __init__(self, run: PlannedRun, progress: _Progress, *, slot: int, jobs: int) -> None:
        """Start train.py; its console output is appended to the run's log."""
        self.run, self.slot, self.terminated = run, slot, False
        self._progress, self._before = progress, last_epoch(run.folder)[0]
        self._epochs = self._before
        resume = run.last.is_file()
        command = [sys.executable, str(PROJECT_ROOT / "train.py"), *run.argv(resume=resume)]
        action = f"{'resuming' if resume else 'training'} {Path(run.options.cfg).name}"
        LOGGER.info(f"{progress.position(run)}, {run.title}: {action}; log: {run.log}")
        make_folder(run.log.parent)
        self._started = time.perf_counter()
        with run.log.open("ab") as log:
            log.write(f"$ {shlex.join(command)}\n".encode("utf-8", "backslashreplace"))
            log.flush()
            self.process = subprocess.Popen(  # noqa: S603 - our own script, no shell
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=_environment(jobs),
                start_new_session=True,  # a second signal interrupts saving, so the terminal must not send one too
            )
        text = f"{progress.position(run)}, {clip(run.title, MAX_NAME_COLUMNS)}"
        self.bar = _bar(text, total=run.options.epochs, initial=self._epochs, position=slot)

    def is_running(self) -> bool:
        """Show the finished epochs; return whether the process still runs."""
        epochs, map50_95 = last_epoch(self.run.folder)
        if epochs != self._epochs:
            self._epochs, total, for_all = epochs, self.run.options.epochs, self._progress.update()
            left = _time_left(self._started, done=epochs - self._before, left=total - epochs)
            self.bar.set_postfix_str(f"mAP50-95 {map50_95:.3f}, {left} left", refresh=False)
            if self.bar.disable or not sys.stdout.isatty():
                epoch = f"epoch {epochs}/{total}, mAP50-95 {map50_95:.3f}"
                position = self._progress.position(self.run)
                LOGGER.info(f"{position}, {self.run.title}: {epoch}; about {for_all} left for all runs")
        self.bar.n = epochs
        self.bar.refresh()
        return self.process.poll() is None

    def close(self) -> list[FailedRun]:
        """Log how the run ended; return the failure if it did not finish and was not stopped."""
        self.bar.close()
        name, seconds = self.run.title, format_seconds(time.perf_counter() - self._started)
        epochs, map50_95 = last_epoch(self.run.folder)
        if self.process.returncode == 0 and self.run.is_finished:
            LOGGER.info(f"{name}: finished in {seconds}, mAP50-95 {map50_95:.3f} in the last epoch")
            return []
        if self.terminated and self.process.returncode in STOPPED_CODES:
            LOGGER.info(f"{name}: stopped after {epochs} of {self.run.options.epochs} epochs")
            return []
        reason = last_error(self.run.log)
        LOGGER.warning(f"{name}: failed after {seconds}: {reason} (see {self.run.log})")
        return [FailedRun(run=self.run, exit_code=int(self.process.returncode), reason=reason)]


def last_error(log: Path) -> str:
    """Return the last error in a log, or else its last line."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return "no output"
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or [line for line in lines if line] or ["no output"])[-1]


def _environment(jobs: int) -> dict[str, str]:
    """Return the environment of a job: logs in UTF-8, and its part of the threads, unless the user allows fewer."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    if jobs > 1:
        threads = max((os.cpu_count() or 1) // jobs, 1)
        for variable in THREAD_VARIABLES:
            limit = environment.get(variable, "")
            environment[variable] = str(min(threads, int(limit)) if limit.isdigit() and int(limit) else threads)
    return environment


def _terminate(running: Sequence[_Job]) -> bool:
    """Ask trainings to save their state and exit, each only once; return whether any had not been asked before."""
    jobs = [job for job in running if not job.terminated]
    for job in jobs:
        job.terminated = True  # asking twice would stop the saving
        job.process.terminate()
    return bool(jobs)


def _terminate_and_wait(running: Sequence[_Job]) -> None:
    """Let trainings save their state, without logging, which may be what failed."""
    try:
        _terminate(running)
        for job in running:
            job.process.wait()
    except KeyboardInterrupt:
        _kill(running)


def _kill(running: Sequence[_Job]) -> None:
    """Kill trainings together with their data workers."""
    for job in running:
        job.bar.close()
        if not hasattr(os, "killpg"):  # Windows
            job.process.kill()
            continue
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.process.pid, signal.SIGKILL)
    for job in running:
        job.process.wait()
