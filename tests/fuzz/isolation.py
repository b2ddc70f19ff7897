"""Runs cases in forked children with limits; a case that ends its child is run again alone, and reported."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.guard import Guard, line_fault
from utils.errors import DetectorError
from utils.malloc import out_of_memory

WALL_SECONDS = 90  # without an answer, after which a case hangs; much more than its CPU time, on a busy machine
ACCEPTED, REFUSED, FIND = "accepted", "refused", "find"


class WrongResultError(Exception):
    """An accepted input gives something else than the independent oracle says."""


@dataclass(frozen=True)
class Limits:
    """What one case may use."""

    seconds: float = 5.0  # of CPU time
    megabytes: int = 600  # beyond what the process had before


@dataclass(frozen=True)
class Case:
    """An input file, and what is done with it."""

    index: int
    name: str
    content: bytes


@dataclass(frozen=True)
class Verdict:
    """What became of a case: accepted, refused, or a find with the reason."""

    index: int
    kind: str
    reason: str = ""


@dataclass
class Batch:
    """Verdicts of several cases, and the CPU seconds of their processes."""

    verdicts: list[Verdict] = field(default_factory=list)
    seconds: float = 0.0


Make = Callable[[int], Case]
Check = Callable[[Path], None]  # returns if the file is accepted and right


def run_batch(indices: Sequence[int], make: Make, check: Check, limits: Limits) -> Batch:
    """Evaluate cases in one child, and alone those at which the child died."""
    batch, rest = Batch(), list(indices)
    while rest:
        verdicts, death = _fork(rest, make, check, limits, batch)
        batch.verdicts += verdicts
        rest = rest[len(verdicts) :]
        if not rest:
            break
        alone, again = _fork(rest[:1], make, check, limits, batch)
        if alone and not again and alone[0].kind != FIND:
            alone = [Verdict(rest[0], FIND, f"{death} after others of its batch, not alone")]
        batch.verdicts += alone or [Verdict(rest[0], FIND, again)]
        rest = rest[1:]
    return batch


def _fork(indices: Sequence[int], make: Make, check: Check, limits: Limits, batch: Batch) -> tuple[list[Verdict], str]:
    """Evaluate cases in a child; return the verdicts, and how the child ended if it did not evaluate all."""
    reader, writer = os.pipe()
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="fuzz-")))
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        os.close(reader)
        code = 1
        with contextlib.suppress(BaseException):
            _serve(indices, make, check, limits, folder, writer)
            code = 0
        os._exit(code)
    os.close(writer)
    received, death = b"", ""
    while not death:
        ready, _, _ = select.select([reader], [], [], WALL_SECONDS)
        if not ready:
            death = f"no answer within {WALL_SECONDS} s"
            os.kill(child, signal.SIGKILL)
        elif chunk := os.read(reader, 1 << 16):
            received += chunk
        else:
            break
    os.close(reader)
    _, status, usage = os.wait4(child, 0)
    batch.seconds += usage.ru_utime + usage.ru_stime
    shutil.rmtree(folder, ignore_errors=True)
    verdicts = [Verdict(*json.loads(line)) for line in received.splitlines(keepends=True) if line.endswith(b"\n")]
    if len(verdicts) < len(indices) and not death:
        code = os.waitstatus_to_exitcode(status)
        death = f"killed by {signal.Signals(-code).name}" if code < 0 else f"the process ended with code {code}"
    return verdicts, death


def _serve(indices: Sequence[int], make: Make, check: Check, limits: Limits, folder: Path, writer: int) -> None:
    """Evaluate cases one after the other, in a child."""
    os.chdir(folder)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    printed = os.memfd_create("printed")
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
    # Address space is not memory: torch reserves gigabytes. What a process may write to is limited instead.
    allowed = (_status("VmData") + limits.megabytes * 1024 * 3) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    guard = Guard(folder)
    for index in indices:
        try:
            case = make(index)
        except Exception:
            os.write(
                writer, json.dumps([index, FIND, f"cannot be made: {traceback.format_exc()[-400:]}"]).encode() + b"\n"
            )
            continue
        path = folder / case.name
        path.write_bytes(case.content)
        kind, reason = evaluate(path, check, limits, guard)
        if noise := os.pread(printed, 300, 0):
            kind, reason = FIND, f"{reason}; prints {noise!r}"
            os.ftruncate(printed, 0)
            os.lseek(printed, 0, os.SEEK_SET)
        os.write(writer, json.dumps([index, kind, reason]).encode() + b"\n")
        os.chdir(folder)


def evaluate(path: Path, check: Check, limits: Limits, guard: Guard) -> tuple[str, str]:
    """Check one file; return the kind of verdict, and the error or the fault."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = _status("VmRSS"), time.process_time()
    kind, reason = ACCEPTED, ""
    guard.begin()
    try:
        check(path)
    except DetectorError as error:
        kind, reason = REFUSED, str(error)
    except WrongResultError as error:
        kind, reason = FIND, f"wrong result: {error}"
    except BaseException as error:
        what = "out of memory" if out_of_memory(error) else type(error).__name__
        place = traceback.extract_tb(error.__traceback__)[-1]
        kind, reason = FIND, f"{what} at {Path(place.filename).name}:{place.lineno}: {str(error)[:200]}"
    violations = guard.end()
    seconds, megabytes = time.process_time() - start, (_status("VmHWM") - before) / 1024
    if kind == REFUSED and (fault := line_fault(reason) or _unnamed(reason, path)):
        violations.append(f"{fault}: {reason[:200]!r}")
    if seconds > limits.seconds:
        violations.append(f"takes {seconds:.1f} s")
    if megabytes > limits.megabytes:
        violations.append(f"takes {megabytes:.0f} MB")
    if kind == FIND:
        violations.insert(0, reason)
    return (FIND, "; ".join(violations)) if violations else (kind, reason)


def _unnamed(message: str, path: Path) -> str:
    """Return what is wrong with an error that does not say which file is meant; options are named by their flags."""
    named = path.name in message or path.suffix == ".options"
    return "" if named else "the error does not name the file"


def _status(key: str) -> int:
    """Return an entry of this process's status, in kilobytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    return 0
