"""What a training shows on a terminal of 80 columns, and in a file; run times; fewer epochs than are done."""

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.training_runs import SMALL_MODEL, stop_in_batch, train_options
from utils.errors import ConfigError, RunStopped
from utils.log import LOGGER, _Console
from utils.options import TrainOptions
from utils.text_table import display_width
from utils.training import epoch
from utils.training.run import run_training
from utils.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture
def options(data: Path, tmp_path: Path) -> TrainOptions:
    """A run of two epochs with three batches each."""
    (tmp_path / "small.yaml").write_text(SMALL_MODEL)
    return train_options(data, tmp_path, name="run", cfg=str(tmp_path / "small.yaml"), imgsz=64, epochs=2)


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logger prints, as in a script."""
    monkeypatch.setattr(LOGGER, "handlers", [_Console()])
    monkeypatch.setattr(LOGGER, "propagate", False)
    monkeypatch.setattr(LOGGER, "level", 20)
    LOGGER._cache.clear()  # type: ignore[attr-defined]


def on_a_terminal(options: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> str:
    """Train with both streams on a terminal of 80 columns; return what it was sent."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    sent: list[bytes] = []
    set_rates = epoch.set_rates  # a bar is drawn every 0.1 s

    def read() -> None:
        while data := os.read(master, 65536):
            sent.append(data)
            if data.endswith(b"\0"):
                return

    reader = threading.Thread(target=read)
    reader.start()
    with monkeypatch.context() as patch, open(slave, "w", encoding="utf-8") as terminal:
        patch.setattr(epoch, "set_rates", lambda *arguments: time.sleep(0.11) or set_rates(*arguments))
        patch.setattr(sys, "stderr", terminal)
        patch.setattr(sys, "stdout", terminal)
        run_training(options)
        terminal.write("\0")
        terminal.flush()
        reader.join(30)
    os.close(master)
    return b"".join(sent).decode().removesuffix("\0")


def test_a_terminal_of_80_columns_shows_bar_time_left_and_metrics(
    options: TrainOptions, console: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [line for line in re.split(r"[\r\n]+", on_a_terminal(options, monkeypatch)) if line.strip()]
    assert max(display_width(line) for line in shown if options.project not in line) < 80
    bars = [line for line in shown if re.match(r" +\d/1 .*\d+%\|[█▏▎▍▌▋▊▉ ]{6}\| \d\d:\d\d, all \d+:\d\d$", line)]
    assert any(" 67%|" in line for line in bars), "\n".join(line for line in shown if "%|" in line)
    (header,) = (line.split() for line in shown if "box_loss" in line)
    epochs = [
        dict(zip(header, line.split(), strict=False)) for line in shown if re.match(r" +\d/1( +[\w.:]+){9}$", line)
    ]
    assert [cells["Epoch"] for cells in epochs] == ["0/1", "1/1"]
    assert all(0 <= float(cells["mAP50-95"]) <= 1 and cells["Left"].startswith("0:") for cells in epochs)


def test_a_file_has_one_line_for_each_epoch_and_no_carriage_return(
    options: TrainOptions, console: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(sys, "stdout", file)
    run_training(options)
    text = file.getvalue()
    assert "\r" not in text and "%|" not in text
    assert len(re.findall(r"^ +\d/1 ", text, re.MULTILINE)) == 2
    assert re.search(r"^2 epochs in \d+\.\d s; ", text, re.MULTILINE)


def test_a_stopped_epoch_counts_its_time_and_cannot_be_taken_back(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(RunStopped) as stopped:
        stop_in_batch(patch, 2)
        run_training(replace(options, epochs=3))
    last = stopped.value.fix.split()[-1]
    assert str(stopped.value).endswith(f" --resume {last}"), "to be copied"
    assert load_checkpoint(last)["progress"]["seconds"] > 0
    with monkeypatch.context() as patch, pytest.raises(RunStopped):
        stop_in_batch(patch, 3)
        run_training(TrainOptions(resume=last), {"resume"})
    progress = load_checkpoint(last)["progress"]
    assert (progress["epoch"], progress["batch"]) == (1, 2)
    with pytest.raises(ConfigError) as refused:
        run_training(TrainOptions(resume=last, epochs=1), {"resume", "epochs"})
    assert refused.value.where == "--epochs"
    result = run_training(TrainOptions(resume=last, epochs=2), {"resume", "epochs"})
    assert result is not None and result.summary["epochs"] == 2
