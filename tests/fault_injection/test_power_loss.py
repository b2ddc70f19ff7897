"""Runs that lose power: what strace records, which states a crash may leave, and a few states in full.

`make power-loss` runs all of them; see power_loss/.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault_injection.power_loss.disk import Disk, Tree
from tests.fault_injection.power_loss.recording import Operation, is_available, parse
from tests.fault_injection.power_loss.unread import UNREAD
from tests.helpers.training_runs import ROOT

needs_strace = pytest.mark.skipif(not is_available(), reason="needs strace, which may trace processes")


def states(base: Tree, *operations: Operation, end: int | None = None) -> list[Tree]:
    """All states that many draws find after a crash behind the operations."""
    found: list[Tree] = []
    for tree in Disk(base, operations).states(len(operations) if end is None else end, random.Random(0), 300):
        if tree not in found:
            found.append(tree)
    return found


def written(name: str, data: bytes) -> list[Operation]:
    return [Operation("create", name), Operation("write", name, data=data)]


def synced(path: str, begun: int) -> Operation:
    return Operation("sync", path, begun=begun)


def test_a_rename_without_fsync_may_leave_any_content_under_either_name() -> None:
    data = bytes(range(1, 201)) * 10
    found = states({"a": b"old"}, *written("t", data), Operation("rename", "t", other="a"))
    assert {"a": b"old"} in found and {"a": data} in found and {"a": b""} in found
    assert {"a": data[:512]} in found and {"a": data[:512] + bytes(1488)} in found
    assert {"a": b"old", "t": data} in found
    assert all(set(tree) <= {"a", "t"} and "a" in tree for tree in found)


def test_the_protocol_of_atomic_writing_leaves_the_old_or_the_new_content() -> None:
    steps = [*written("t", b"x" * 9000), synced("t", 2), Operation("rename", "t", other="a"), synced(".", 4)]
    for end in range(len(steps) + 1):
        for tree in states({"a": b"old"}, *steps, end=end):
            assert tree["a"] == b"old" or (end > 3 and tree == {"a": b"x" * 9000})
    assert states({"a": b"old"}, *steps) == [{"a": b"x" * 9000}]


def test_a_file_is_lost_with_its_new_folder_unless_the_parent_is_flushed() -> None:
    steps = [Operation("mkdir", "d"), *written("d/a", b"1"), synced("d/a", 3), synced("d", 4)]
    assert {} in states({}, *steps)
    assert states({}, *steps, synced(".", 5)) == [{"d": None, "d/a": b"1"}]


def test_a_flush_does_not_cover_what_happens_while_it_runs() -> None:
    """The second write comes after the fsync has begun, and before it returns."""
    steps = [*written("a", b"1"), Operation("write", "a", data=b"2", offset=1), synced("a", 2), synced(".", 4)]
    contents = {tree["a"] for tree in states({}, *steps)}
    assert {b"1", b"12"} <= contents and b"" not in contents


def test_folders_survive_independently_and_exchanges_in_one_step() -> None:
    base: Tree = {"p": None, "p/x": None, "p/x/f": b"old", "q": None, "q/n": None, "q/n/f": b"new"}
    steps = [Operation("exchange", "q/n", other="p/x"), Operation("unlink", "q/n/f")]
    found = states(base, *steps)
    assert {(tree["p/x/f"], tree.get("q/n/f")) for tree in found if "p/x/f" in tree} == {
        (b"old", b"new"),
        (b"new", b"old"),
        (b"new", None),
    }
    assert {**base, "p/x/f": b"old"} in found


def test_calls_that_strace_splits_are_joined_and_other_folders_left_out() -> None:
    def shown(text: str) -> str:
        return "".join(f"\\x{ord(letter):02x}" for letter in text)

    a, b, elsewhere = (shown(f"/{place}") for place in ("r/a b", "r/b", "other/c"))
    log = [
        f'7 openat(AT_FDCWD<{shown("/r")}>, "{a}", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0666) = 3<{a}>',
        f'7 write(3<{a}>, "\\x41\\x2c"..., 2 <unfinished ...>'.replace("...,", ","),
        f'8 mkdir("{b}", 0777) = 0',
        "7 <... write resumed>) = 2",
        f'7 write(3<{a}>, "\\x42", 1) = 1',
        f"7 fsync(3<{a}>) = 0",
        f'7 rename("{a}", "{shown("/r/b/d")}") = 0',
        f'7 unlink("{elsewhere}") = 0',
        f'7 unlink("{b}") = -1 EISDIR (Is a directory)',
        "7 +++ exited with 0 +++",
    ]
    assert parse("\n".join(log), Path("/r"), Path("/said")) == [
        Operation("create", "a b"),
        Operation("mkdir", "b"),
        Operation("write", "a b", data=b"A,"),
        Operation("write", "a b", data=b"B", offset=2),
        Operation("sync", "a b", begun=4),
        Operation("rename", "a b", other="b/d"),
    ]


def test_duplicated_handles_share_their_offset() -> None:
    def shown(text: str) -> str:
        return "".join(f"\\x{ord(letter):02x}" for letter in text)

    log, out = shown("/r/log"), shown("/dev/null")
    calls = [
        f'7 openat(AT_FDCWD<{shown("/r")}>, "{log}", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0666) = 3<{log}>',
        f'7 write(3<{log}>, "\\x41\\x42", 2) = 2',
        f"8 dup2(3<{log}>, 1<{out}>) = 1<{log}>",
        f'8 write(1<{log}>, "\\x43", 1) = 1',
        f'7 write(3<{log}>, "\\x44", 1) = 1',
    ]
    disk = Disk({}, parse("\n".join(calls), Path("/r"), Path("/said")))
    assert disk.final_tree() == {"log": b"ABCD"}


def test_reading_a_leftover_ends_a_command_and_reading_what_it_wrote_does_not(tmp_path: Path) -> None:
    code = (
        "import os; from tests.fault_injection.power_loss.unread import forbid_reading; "
        "forbid_reading({os.path.abspath('old')}); open('new', 'w').close(); "
    )

    def exit_code(action: str) -> int:
        (tmp_path / "old").touch()
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, "-c", code + action], cwd=tmp_path, env=environment).returncode

    assert exit_code("open('old')") == UNREAD
    assert exit_code("os.replace('new', 'old'); open('old')") == 0


@needs_strace
@pytest.mark.long
def test_a_training_that_loses_power_ends_with_the_same_bits(tmp_path: Path) -> None:
    """The recording also shows that all operations were seen: they make the final tree."""
    command = [sys.executable, "-m", "tests.fault_injection.power_loss", "--work", str(tmp_path / "work")]
    arguments = ("--only", "train over", "scan", "--states", "24", "--recoveries", "1", "--executed", "12")
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=900)
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (reports, done.stderr[-3000:])
    assert reports[-1]["generated"] >= 48 and reports[0]["executed"] == 12 and reports[0]["recordings"] == 2
