"""A save that fails or is killed at any call, on a full or broken disk: a valid checkpoint always remains."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.training_runs import ROOT
from utils.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def outcomes(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, object]]]:
    """Outcome of an epoch's save when its n-th call that changes files fails, for every n and kind of failure."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler")
    folder = tmp_path_factory.mktemp("failing")
    library = folder / "fail_calls.so"
    subprocess.run([compiler, "-shared", "-fPIC", HERE / "fail_calls.c", "-o", library, "-ldl"], check=True)
    narrow = (ROOT / "models/yolov5n.yaml").read_text()
    narrow = re.sub(r"width_multiple: \S+", "width_multiple: 0.03", narrow)
    (folder / "tiny.yaml").write_text(narrow)
    environment = {"LD_PRELOAD": str(library), "FAIL_CALLS": str(library), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, HERE / "fail_every_call.py", data, folder],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_a_run_killed_at_any_call_of_a_save_can_be_resumed(outcomes: dict[str, list[dict[str, object]]]) -> None:
    killed = outcomes["SIGKILL"]
    assert len(killed) >= 18
    for call, outcome in enumerate(killed):
        assert outcome["exit_code"] == -9, call
        assert outcome["epochs"] in (1, 2) and outcome["from"] == "last.pt", call
        assert outcome["not_removed"] == 0, call
    assert {outcome["epochs"] for outcome in killed} == {1, 2} and any(outcome["leftovers"] for outcome in killed)


@pytest.mark.parametrize("failure", ["ENOSPC", "EIO"])
def test_a_write_error_at_any_call_of_a_save_is_a_one_line_error(
    failure: str, outcomes: dict[str, list[dict[str, object]]]
) -> None:
    refused = 0
    for call, outcome in enumerate(outcomes[failure]):
        message = str(outcome["message"])
        assert outcome["exit_code"] in (0, 3), (call, message)
        assert outcome["epochs"] == 2 or outcome["exit_code"] == 3, call
        assert outcome["from"] == "last.pt" and outcome["leftovers"] == 0, call
        if outcome["exit_code"] == 3:
            refused += 1
            assert "\n" not in message and len(message) < 400, call
            assert re.search(r"(weights/\w+\.pt|weights/last\.bak\.pt|results\.csv|/weights|/exp)", message), message
            assert failure == "EIO" or len(re.findall(r"[\d.]+ MB", message)) == 2, call
    assert refused >= 12


def test_a_full_disk_ends_the_run_with_one_line_and_a_valid_checkpoint(data: Path, tmp_path: Path) -> None:
    """Files are limited to 12 MB: results.csv and best.pt fit, last.pt does not."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000_000, 12_000_000))

    flags = (
        "--cfg",
        "yolov5n.yaml",
        "--data",
        data,
        "--epochs",
        2,
        "--imgsz",
        64,
        "--batch-size",
        4,
        "--workers",
        0,
    )
    process = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *map(str, flags), "--device", "cpu", "--noplots"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=240,
    )
    lines = [line for line in process.stderr.splitlines() if line.startswith("error:")]
    assert process.returncode == 1 and len(lines) == 1 and "last.pt" in lines[0], process.stderr[-2000:]
    assert not list((tmp_path / "runs").rglob("*.tmp"))
    assert load_checkpoint(tmp_path / "runs/train/exp/weights/best.pt")["epoch"] == 1


@pytest.mark.long
def test_little_shared_memory_means_fewer_workers(data: Path, tmp_path: Path) -> None:
    """8 MB, in a mount namespace: DataLoader workers die of a bus error if batches do not fit."""
    namespace = ["unshare", "-Urm", "sh", "-c", 'mount -t tmpfs -o size=8m tmpfs /dev/shm && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("needs a mount namespace")
    flags = ("--data", data, "--epochs", 1, "--imgsz", 320, "--batch-size", 5, "--workers", 2, "--device", "cpu")
    done = subprocess.run(
        [
            *namespace,
            sys.executable,
            str(ROOT / "train.py"),
            *map(str, flags),
            "--noplots",
            "--cfg",
            "yolov5n.yaml",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "/dev/shm has 8 MB free" in done.stderr and "using 1." in done.stderr
