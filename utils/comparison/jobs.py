"""The training runs of a comparison: train.py in processes side by side, so that no crash takes the others along."""

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

from tqdm import tqdm

from utils.comparison.logs import epochs_done, last_error
from utils.comparison.plan import PlannedRun
from utils.errors import RunStopped
from utils.files import PROJECT_ROOT
from utils.log import LOGGER
from utils.signals import GracefulShutdown

POLL_SECONDS = 0.3
STOPPED_CODES = (143, -signal.SIGTERM)  # saved in the middle of an epoch; ended before or after its training
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class FailedRun:
    """A run that did not come to its end: which, its exit code, the last it said, and where all of it is."""

    run: PlannedRun
    exit_code: int
    reason: str


def finish_runs(runs: Sequence[PlannedRun], *, jobs: int) -> list[FailedRun]:
    """Train what is not trained yet, go on where an earlier call stopped, and wait for all.

    Args:
        runs: in the order in which they are started.
        jobs: how many at a time; each gets its share of the processor's threads.

    Returns:
        The runs that failed. The others are finished.

    Raises:
        RunStopped: Ctrl-C, SIGTERM or the closing of the terminal. Each training was asked once to save itself, and was
            waited for; a second signal ends them at once.
    """
    waiting = []
    for run in runs:
        if run.finished:
            LOGGER.info(f"{run.folder}: finished already")
        else:
            waiting.append(run)
    failed: list[FailedRun] = []
    running: list[_Job] = []
    with GracefulShutdown(hang_up=True) as stop:
        try:
            while running or (waiting and stop.signal is None):
                while waiting and len(running) < jobs and stop.signal is None:
                    slots = set(range(jobs)) - {job.slot for job in running}
                    running.append(_Job(waiting.pop(0), slot=min(slots), jobs=jobs))
                time.sleep(POLL_SECONDS)
                if stop.signal is not None and _ask_to_stop(running):
                    LOGGER.info("Stopping as soon as the trainings have saved; a second Ctrl-C ends them at once")
                for job in list(running):
                    if job.is_running():
                        continue
                    running.remove(job)
                    failure = job.close()
                    if failure is not None:
                        failed.append(failure)
        except KeyboardInterrupt as error:
            _end_at_once(running)
            raise _stopped(runs, stop.exit_code, others="as of their last checkpoint") from error
        except BaseException:
            _save_and_end(running)
            raise
    if stop.signal is not None:
        raise _stopped(runs, stop.exit_code, others="saved as far as they came")
    return failed


class _Job:
    """A run's process, and its line of progress."""

    def __init__(self, run: PlannedRun, *, slot: int, jobs: int) -> None:
        """Start train.py; what it says goes to the run's log."""
        self.run, self.slot, self.asked = run, slot, False
        command = [sys.executable, str(PROJECT_ROOT / "train.py"), *run.words(resumed=run.begun)]
        LOGGER.info(f"{run.folder.name}: {'going on with' if run.begun else 'training'} {run.options.cfg}")
        run.log.parent.mkdir(parents=True, exist_ok=True)
        self._started = time.perf_counter()
        with run.log.open("ab") as log:
            log.write(f"$ {shlex.join(command)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(  # noqa: S603 - our own script, no shell
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=_environment(jobs),
                start_new_session=True,  # a second signal ends a saving training, so the terminal must not send one too
            )
        self._bar = tqdm(
            total=run.options.epochs,
            desc=run.folder.name,
            position=slot,
            unit="epoch",
            leave=False,
            disable=None,  # where nobody watches, only the beginning and the end are said
        )

    def is_running(self) -> bool:
        """Bring the line of progress up to date."""
        self._bar.n = epochs_done(self.run.folder)
        self._bar.refresh()
        return self.process.poll() is None

    def terminate(self) -> None:
        """Let the training save and end itself; asked again, it would end without."""
        self.asked = True
        self.process.terminate()

    def kill(self) -> None:
        """Kill the training together with its data processes."""
        self._bar.close()
        if not hasattr(os, "killpg"):  # Windows
            self.process.kill()
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> FailedRun | None:
        """Say how the run ended."""
        self._bar.close()
        name, seconds = self.run.folder.name, time.perf_counter() - self._started
        if self.process.returncode == 0 and self.run.finished:
            LOGGER.info(f"{name}: finished in {seconds:.0f} s")
            return None
        if self.asked and self.process.returncode in STOPPED_CODES:
            LOGGER.info(f"{name}: stopped after {epochs_done(self.run.folder)} of {self.run.options.epochs} epochs")
            return None
        reason = last_error(self.run.log)
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


def _ask_to_stop(running: Sequence[_Job]) -> bool:
    """Ask those that were not asked yet; return whether there were any."""
    unasked = [job for job in running if not job.asked]
    for job in unasked:
        job.terminate()
    return bool(unasked)


def _save_and_end(running: Sequence[_Job]) -> None:
    """Wait for trainings to save themselves without a word, as it may be the words that cannot be written."""
    try:
        _ask_to_stop(running)
        for job in running:
            job.process.wait()
    except KeyboardInterrupt:
        _end_at_once(running)


def _end_at_once(running: Sequence[_Job]) -> None:
    """End trainings without their saving anything."""
    for job in running:
        job.kill()
    for job in running:
        job.process.wait()


def _stopped(runs: Sequence[PlannedRun], exit_code: int, *, others: str) -> RunStopped:
    """Return what ends a comparison that was asked to stop."""
    finished = sum(run.finished for run in runs)
    what = f"with {finished} of {len(runs)} runs finished, the others {others}"
    return RunStopped("stopped", what, fix="go on with the same command", exit_code=exit_code)
