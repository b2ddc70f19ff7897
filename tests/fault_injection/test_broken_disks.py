"""A disk that is full or broken, or a program killed, anywhere within a save: a good checkpoint is always there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_end_to_end import ROOT
from utils.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def broken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, object]]]:
    """What is left of an epoch's save when its n-th call that changes files breaks, for every n and way to break."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("broken")
    library = folder / "break_calls.so"
    subprocess.run([compiler, "-shared", "-fPIC", HERE / "break_calls.c", "-o", library, "-ldl"], check=True)
    narrow = (ROOT / "models/yolov5n.yaml").read_text()
    narrow = re.sub(r"width_multiple: \S+", "width_multiple: 0.03", narrow)
    (folder / "tiny.yaml").write_text(narrow)
    preloaded = {"LD_PRELOAD": str(library), "BREAK_CALLS": str(library), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, HERE / "every_call.py", data, folder],
        env={**os.environ, **preloaded},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_killed_at_any_call_of_a_save_a_run_goes_on(broken: dict[str, list[dict[str, object]]]) -> None:
    found = broken["SIGKILL"]
    assert len(found) >= 19
    for number, left in enumerate(found):
        assert left["ending"] == -9, number
        assert left["epochs"] in (1, 2) and left["from"] == "last.pt", number
        assert left["still"] == 0, number
    assert {left["epochs"] for left in found} == {1, 2} and any(left["leftovers"] for left in found)


@pytest.mark.parametrize("way", ["ENOSPC", "EIO"])
def test_a_disk_that_breaks_at_any_call_of_a_save_costs_one_line(
    way: str, broken: dict[str, list[dict[str, object]]]
) -> None:
    refused = 0
    for number, left in enumerate(broken[way]):
        said = str(left["said"])
        assert left["ending"] in (0, 3), (number, said)
        assert left["epochs"] == 2 or left["ending"] == 3, number
        assert left["from"] == "last.pt" and left["leftovers"] == 0, number
        if left["ending"] == 3:
            refused += 1
            assert "cannot be written" in said and "\n" not in said and len(said) < 400, number
            assert (way == "EIO") or "MB free" in said, number
    assert refused >= 12


def test_a_full_disk_ends_the_run_with_one_line_and_a_good_checkpoint(data: Path, tmp_path: Path) -> None:
    """The files of the run may grow to 12 MB: results and best.pt fit, the whole last.pt does not."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000_000, 12_000_000))

    words = ("--cfg", "yolov5n.yaml", "--data", data, "--epochs", 2, "--imgsz", 64, "--batch-size", 4, "--workers", 0)
    process = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *map(str, words), "--device", "cpu", "--noplots"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=240,
    )
    lines = [line for line in process.stderr.splitlines() if line.startswith("error:")]
    assert process.returncode == 1 and len(lines) == 1 and "cannot be written" in lines[0], process.stderr[-2000:]
    assert not list((tmp_path / "runs").rglob("*.tmp"))
    assert load_checkpoint(tmp_path / "runs/train/exp/weights/best.pt")["epoch"] == 1


@pytest.mark.long
def test_little_shared_memory_means_fewer_workers(data: Path, tmp_path: Path) -> None:
    """8 MB, in a mount namespace: DataLoader workers die of a bus error if batches do not fit."""
    alone = ["unshare", "-Urm", "sh", "-c", 'mount -t tmpfs -o size=8m tmpfs /dev/shm && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("needs a mount namespace")
    words = ("--data", data, "--epochs", 1, "--imgsz", 320, "--batch-size", 5, "--workers", 2, "--device", "cpu")
    done = subprocess.run(
        [*alone, sys.executable, str(ROOT / "train.py"), *map(str, words), "--noplots", "--cfg", "yolov5n.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "/dev/shm has 8 MB free" in done.stderr and "using 1." in done.stderr
