"""The runs that lose power, and the commands that follow: each in the folder `root`, with its data outside of it."""

import functools
import os
import re
import shutil
import signal
from dataclasses import dataclass

import cv2
import numpy as np

from tests.fault_injection.power_loss.recording import Operation
from tests.fault_injection.power_loss.server import Server
from tests.helpers.tiny_data import TINY_DATA
from tests.helpers.training_runs import ROOT, SMALL_MODEL
from utils.datasets.config import load_data_config
from utils.datasets.synthetic_shapes import ensure_shapes
from utils.training import epoch

# Draws random numbers while it trains, as every model of these tests does.
MODEL = SMALL_MODEL.replace(
    "  - [[1, 2], 1, Detect",
    "  - [-1, 1, AKConv, [16, 5]]\n  - [-1, 1, nn.Dropout2d, [0.5]]\n  - [[1, 4], 1, Detect",
)
COMMON = "--data {data}/tiny.yaml --imgsz 32 --batch-size 3 --device cpu --workers 0 --noplots --hyp {data}/hyp.yaml"
TRAIN = "train.py --exist-ok --weights= --cfg {data}/model.yaml " + COMMON
WEIGHTS = "{data}/trained/train/exp/weights/best.pt"
DETECT = (
    f"detect.py --weights {WEIGHTS} --exist-ok --save-txt --save-csv --save-crop --engine torch --imgsz 32 --max-det 4 "
    "--device cpu"
)
SCAN = "scan {data}/scanned.yaml"
COMPARE = "compare.py --cfg {data}/model.yaml {data}/other.yaml --epochs 1 --name c " + COMMON


@dataclass(frozen=True)
class Scenario:
    """A run that is recorded, and the command that is run in each state that it may leave."""

    name: str
    command: str  # recorded
    after: str  # run after the crash
    before: tuple[str, ...] = ()  # run first; `stop N` lets the next one be stopped in batch N
    again: str = ""  # run if the command says that there is nothing to resume
    states: int = 200  # at least so many are drawn
    recoveries: int = 0  # so many of what follows a crash lose power in turn
    trains: bool = False


def _train(name: str, command: str, after: str = "train.py --resume", *before: str) -> Scenario:
    again = command if "--resume" not in command else ""
    return Scenario(name, command, after, before, again=again, states=2200, recoveries=6, trains=True)


SCENARIOS = (
    _train("train", f"{TRAIN} --epochs 3 --save-period 2 --noval"),
    _train("train AdamW", f"{TRAIN} --epochs 3 --optimizer AdamW --cache disk --seed 5"),
    _train("train over", f"{TRAIN} --epochs 2", "train.py --resume", f"{TRAIN} --epochs 3 --seed 1 --save-period 1"),
    _train("train resumed", "train.py --resume", "train.py --resume", "stop 3", f"{TRAIN} --epochs 3"),
    _train("train extended", "train.py --resume --epochs 4", "train.py --resume --epochs 4", f"{TRAIN} --epochs 2"),
    Scenario(
        "detect over",
        f"{DETECT} --source {{data}}/media --conf-thres 0.00001",
        f"{DETECT} --source {{data}}/media --conf-thres 0.00001",
        (f"{DETECT} --source {{data}}/media --conf-thres 0.01",),
    ),
    Scenario("scan", SCAN, SCAN, ("copy data", SCAN, "relabel")),
    Scenario("prepare", "prepare.py {data}/voc --out datasets/new", "prepare.py {data}/voc --out datasets/new"),
    Scenario("prepare copies", *["prepare.py {data}/voc --out new --copy"] * 2),
    Scenario("export onnx", *["export.py --weights w/best.pt --include onnx --imgsz 32"] * 2, ("copy weights",)),
    Scenario(
        "export torchscript",
        *["export.py --weights w/best.pt --include torchscript --imgsz 32"] * 2,
        ("copy weights", "export.py --weights w/best.pt --include torchscript --imgsz 64"),
    ),
    Scenario("compare", COMPARE, COMPARE),
    Scenario("compare more seeds", f"{COMPARE} --seeds 0 1", f"{COMPARE} --seeds 0 1", (COMPARE,)),
)


def make_data(server: Server) -> None:
    """Write data set, models, trained weights and images."""
    data = server.data
    (data / "tiny.yaml").write_text(TINY_DATA.replace("train: 10, val: 6", "train: 6, val: 3"))
    (data / "scanned.yaml").write_text((data / "tiny.yaml").read_text().replace("path: shapes", "path: scanned"))
    ensure_shapes(load_data_config(str(data / "tiny.yaml")))
    # Two batches for each step and epoch, and warm-up.
    recipe = (ROOT / "data/hyps/hyp.scratch-low.yaml").read_text().replace("mixup: 0.0", "mixup: 0.5")
    (data / "hyp.yaml").write_text(recipe + "nbs: 6\n")
    (data / "model.yaml").write_text(MODEL)
    (data / "other.yaml").write_text(MODEL.replace("[16, 5]", "[16, 3]"))
    server.must(f"{TRAIN} --epochs 1 --project {{data}}/trained/train")
    media = data / "media"
    media.mkdir()
    for number, image in enumerate(sorted((data / "shapes/images/val").glob("*.jpg"))):
        (media / f"{number}.jpg").write_bytes(image.read_bytes())
    writer = cv2.VideoWriter(str(media / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for shade in range(4):
        writer.write(np.full((48, 64, 3), 60 * shade, np.uint8))
    writer.release()
    voc = data / "voc"
    voc.mkdir()
    for number, image in enumerate(sorted((data / "shapes/images/train").glob("*.jpg"))):
        (voc / f"{number}.jpg").write_bytes(image.read_bytes())
        height, width = cv2.imread(str(image)).shape[:2]
        box = f"<xmin>5</xmin><ymin>6</ymin><xmax>{width // 2}</xmax><ymax>{height // 2}</ymax>"
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        objects = f"<object><name>{'cat' if number % 2 else 'dog'}</name><bndbox>{box}</bndbox></object>"
        (voc / f"{number}.xml").write_text(f"<annotation><filename>{number}.jpg</filename>{size}{objects}</annotation>")


def stop_in_batch(batch: int) -> None:
    """Let this process, a child, get SIGTERM in a batch of its training."""
    count, set_rates = [0], epoch.set_rates

    @functools.wraps(set_rates)
    def stop(*arguments: object) -> None:
        count[0] += 1
        if count[0] == batch:
            os.kill(os.getpid(), signal.SIGTERM)
        set_rates(*arguments)  # type: ignore[arg-type]

    epoch.set_rates = stop  # type: ignore[assignment]


def set_up(server: Server, scenario: Scenario) -> None:
    """Bring an empty root to the state in which the recorded run begins."""
    batch = 0
    for command in scenario.before:
        if command.startswith("stop"):
            batch = int(command.split()[1])
        elif command == "copy weights":
            (server.root / "w").mkdir()
            (server.root / "w/best.pt").write_bytes((server.data / "trained/train/exp/weights/best.pt").read_bytes())
        elif command == "copy data":
            shutil.rmtree(server.data / "scanned", ignore_errors=True)
            shutil.copytree(server.data / "shapes", server.data / "scanned")
        elif command == "relabel":
            labels = sorted((server.data / "scanned/labels/train").glob("*.txt"))[0]
            labels.write_text("".join(labels.read_text().splitlines(keepends=True)[1:]))
        else:
            server.must(command, first=functools.partial(stop_in_batch, batch) if batch else None)
            batch = 0


def promised(operations: list[Operation], scenario: Scenario) -> list[int]:
    """Return for each crash point, before an operation, how many epochs the run has said to be finished.

    The number of all epochs plus one means that the run has said where its results are.
    """
    epochs, text, points = 0, b"", [0]
    for operation in operations:
        if operation.kind == "say":
            text += operation.data
            lines = re.findall(rb"^ +(\d+)/\d+ .* \d+:\d\d$", text, re.MULTILINE)
            epochs = max([epochs, *(int(number) + 1 for number in lines)])
        points.append(epochs if scenario.trains else 0)
    return points
