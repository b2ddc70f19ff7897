"""The training runs of a comparison: train.py in processes side by side, so that no crash takes the others along."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from utils.engine.comparison_logs import epochs_done, last_words
from utils.engine.comparison_plan import PlannedRun
from utils.files import PROJECT_ROOT
from utils.log import LOGGER

POLL_SECONDS = 0.3
GRACE_SECONDS = 60.0
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
        self._bar.n = epochs_done(self.run.folder)
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
