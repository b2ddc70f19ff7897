"""Runs of detect.py: folders, bad files, streams, the progress bar, and options that are rejected."""

import csv
import io
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.mjpeg_server import Camera, cameras
from tests.helpers.random_model import random_model
from utils.cli import parse_options
from utils.datasets.sources import open_source
from utils.datasets.streams import stream_name
from utils.detection.run import run_detection
from utils.detection.writers import DetectionWriter
from utils.errors import ConfigError, RunError
from utils.log import LOGGER
from utils.options import DetectOptions
from utils.weights.checkpoint import describe_model, save_checkpoint, weights_of

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("ring", "cross", "a/b")


def random_image(seed: int, height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = random_model("yolov5n.yaml", len(NAMES))
    path = tmp_path_factory.mktemp("weights") / "best.pt"
    save_checkpoint(path, {**describe_model(model, NAMES), "ema": weights_of(model)})
    return path


@pytest.fixture(autouse=True)
def messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(LOGGER, "disabled", False)


def options(checkpoint: Path, source: Path, project: Path, **changes: object) -> DetectOptions:
    settings = {"imgsz": (96,), "conf_thres": 0.05, "max_det": 20, "device": "cpu", "name": "run", "exist_ok": True}
    settings |= {"weights": (str(checkpoint),)}
    return DetectOptions(source=str(source), project=str(project), **{**settings, **changes})


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image[..., ::-1])[1].tobytes())


SHAPES = [(40, 60), (60, 40), (40, 60), (48, 48), (80, 120), (60, 40), (40, 60)]


def labels(run: Path) -> dict[str, np.ndarray]:
    return {path.name: np.loadtxt(path, ndmin=2) for path in (run / "labels").iterdir()}


@pytest.mark.slow
def test_a_folder_in_batches_gives_the_same_files_as_one_by_one(weights: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "in"
    for number, shape in enumerate(SHAPES):
        write(folder / f"图{number}.png", random_image(number, *shape))
    write(folder / "图3.jpg", random_image(9, 50, 70))
    (folder / "bad.jpg").write_bytes(b"\xff\xd8 cut off")
    flags = {"save_txt": True, "save_csv": True, "save_crop": True, "save_conf": True}
    runs = {
        size: run_detection(options(weights, folder, tmp_path / str(size), batch_size=size, **flags)) for size in (1, 5)
    }
    first, second = labels(runs[1]), labels(runs[5])
    assert set(first) == set(second) == {*(f"图{n}.txt" for n in range(len(SHAPES))), "图3-2.txt"}
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=0, atol=1e-3)
    for run in runs.values():
        files = sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file())
        assert files == sorted(str(p.relative_to(runs[1])) for p in runs[1].rglob("*") if p.is_file())
        assert cv2.imdecode(np.fromfile(run / "图4.png", np.uint8), 1).shape == (80, 120, 3)
        (row,) = list(csv.reader((run / "skipped.csv").read_text().splitlines()))[1:]
        assert row[0].endswith("bad.jpg") and "truncated" in row[1]
        table = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
        assert len(table) == sum(map(len, first.values())) and {r["Prediction"] for r in table} <= set(NAMES)
        assert (run / "crops/a_b").is_dir() or "a/b" not in {r["Prediction"] for r in table}
    order = [row["Path"] for row in csv.DictReader((runs[5] / "predictions.csv").read_text().splitlines())]
    assert list(dict.fromkeys(order)) == sorted(dict.fromkeys(order))


def test_a_bad_file_is_skipped_and_listed(weights: Path, tmp_path: Path, caplog) -> None:
    write(tmp_path / "in/a.png", random_image(0, 40, 60))
    (tmp_path / "in/b.png").write_bytes(b"nothing")
    run_detection(options(weights, tmp_path / "in", tmp_path))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "b.png" in warnings[0] and sum("--max-det" in warning for warning in warnings) == 1, "20 are allowed"
    assert "1 of 2" in warnings[-1] and str(tmp_path / "run/skipped.csv") in warnings[-1]


def test_libraries_print_nothing_about_damaged_files(weights: Path, tmp_path: Path, capfd) -> None:
    def damage(path: Path, *, at: float, length: int) -> None:
        data = bytearray(path.read_bytes())
        del data[int(len(data) * at) : int(len(data) * at) + length]
        path.write_bytes(data)

    for suffix in ("jpg", "png", "tiff", "webp", "bmp", "jp2"):
        write(tmp_path / f"in/{suffix}.{suffix}", random_image(0, 40, 60))
        damage(tmp_path / f"in/{suffix}.{suffix}", at=0.6, length=20)
    for name, codec in (("a.avi", "MJPG"), ("b.avi", "XVID"), ("c.mp4", "mp4v")):
        writer = cv2.VideoWriter(str(tmp_path / "in" / name), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
        for number in range(4):
            writer.write(random_image(number, 48, 64))
        writer.release()
        damage(tmp_path / "in" / name, at=0.4, length=300)
    write(tmp_path / "in/good.png", random_image(1, 40, 60))
    (tmp_path / "in/no.mp4").write_bytes(b"no video")
    capfd.readouterr()
    run_detection(options(weights, tmp_path / "in", tmp_path, nosave=True, imgsz=(64,)))
    assert capfd.readouterr() == ("", ""), "the program's own messages go to the logger"


def test_the_image_size_is_that_of_the_checkpoint_unless_given(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO", logger="akyolo")
    model = random_model("yolov5n.yaml", len(NAMES))
    save_checkpoint(tmp_path / "a.pt", {**describe_model(model, NAMES), "ema": weights_of(model), "image_size": 96})
    write(tmp_path / "in/a.png", random_image(1, 40, 60))
    found = []
    for size in ((), (96,), (160,)):
        caplog.clear()
        run = run_detection(options(tmp_path / "a.pt", tmp_path / "in", tmp_path / "runs", save_txt=True, imgsz=size))
        found.append(labels(run)["a.txt"])
        assert ("96 px" in caplog.text) == (size == ())
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


def test_frames_per_second_are_those_of_the_three_phases(weights: Path, tmp_path: Path, caplog, monkeypatch) -> None:
    caplog.set_level("INFO", logger="akyolo")
    for number in range(3):
        write(tmp_path / f"in/{number}.png", random_image(number, 40, 60))
    slow = DetectionWriter.write
    monkeypatch.setattr(DetectionWriter, "write", lambda *given: (time.sleep(0.3), slow(*given)))
    run_detection(options(weights, tmp_path / "in", tmp_path, imgsz=(64,)))
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Speed:")]
    *phases, rate, count, seconds = map(float, re.findall(r"[\d.]+(?= )", line))
    assert len(phases) == 3 and rate == pytest.approx(1000 / sum(phases), rel=0.2)
    assert count == 3 and seconds >= 0.9


def test_a_run_without_a_readable_file_fails(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.jpg"):
        (tmp_path / "in" / name).write_bytes(b"nothing")
    with pytest.raises(RunError) as error:
        run_detection(options(weights, tmp_path / "in", tmp_path))
    assert error.value.where == str(tmp_path / "in/a.png") and error.value.exit_code == 1
    rows = list(csv.reader((tmp_path / "run/skipped.csv").read_text().splitlines()))
    assert [Path(path).name for path, _ in rows[1:]] == ["a.png", "b.jpg"]


def test_an_output_that_cannot_be_written_stops_the_run(weights: Path, tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / f"in/{number}.png", random_image(number, 40, 60))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/labels").write_text("a file where a folder should be")
    with pytest.raises(RunError) as error:
        run_detection(options(weights, tmp_path / "in", tmp_path, save_txt=True, nosave=True))
    assert Path(error.value.where).parent == tmp_path / "run/labels"


def test_a_terminal_shows_a_bar_with_the_remaining_time(weights: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for number in range(6):
        write(tmp_path / f"in/{number}.png", random_image(number, 40, 60))
    writer = cv2.VideoWriter(str(tmp_path / "in/v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(5):
        writer.write(random_image(0, 48, 64))
    writer.release()
    for terminal in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr("tqdm.std.tqdm.mininterval", 0, raising=False)
        run_detection(options(weights, tmp_path / "in", tmp_path, nosave=True, vid_stride=2, batch_size=2))
        text = terminal.getvalue()
        shown = re.findall(r"(\d+)/(\d+) \[\d\d:\d\d<(?:\d\d:\d\d|\?)", text)
        if isinstance(terminal, Terminal):
            assert shown and shown[0] == ("0", "7") and {total for _, total in shown} <= {"7", "9"}, text
        else:
            assert not shown and "%" not in text


@pytest.mark.slow
def test_streams_are_annotated_until_they_end(weights: Path, tmp_path: Path) -> None:
    with cameras(a=Camera(12, max_connections=2, pause=0.05), b=Camera(12, max_connections=1, pause=0.05)) as address:
        listed = [url.replace("//", "//me:secret@") for url in address.values()]
        (tmp_path / "all.streams").write_text("\n".join(listed))
        flags = ["--imgsz", "64", "--conf-thres", "0.05", "--save-txt", "--stream-timeout", "1", "--device", "cpu"]
        command = [
            sys.executable,
            str(ROOT / "detect.py"),
            "--weights",
            str(weights),
            "--source",
            "all.streams",
            *flags,
        ]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0].startswith("error: --source: ")
    ours = [line for line in (result.stdout + result.stderr).splitlines() if not line.startswith("[")]
    assert "secret" not in "\n".join(ours) and "reconnecting in" in result.stderr
    run = tmp_path / "runs/detect/exp"
    for url in address.values():
        capture = cv2.VideoCapture(str(run / f"{stream_name(url)}.mp4"))
        frames = 0
        while capture.grab():
            frames += 1
        assert frames == len(list((run / "labels").glob(f"{stream_name(url)}_*.txt"))) > 0


def test_flags_of_yolov5_are_rejected_or_ignored_with_a_warning(caplog) -> None:
    with pytest.raises(ConfigError) as error:
        parse_options(DetectOptions, ["--weights", "a.pt", "--update"], description="")
    assert error.value.where == "--update"
    parsed, _ = parse_options(DetectOptions, ["--weights", "a.pt", "--dnn", "--half"], description="")
    assert parsed.half and "--dnn" in caplog.text
    for words in (["--batch-size", "0"], ["--stream-timeout", "0"]):
        with pytest.raises(ConfigError) as error:
            parse_options(DetectOptions, ["--weights", "a.pt", *words], description="")
        assert error.value.where == words[0]


def test_a_window_without_a_display_is_rejected(weights: Path, tmp_path: Path, monkeypatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    write(tmp_path / "in/a.png", random_image(0, 40, 60))
    with pytest.raises(ConfigError) as error:
        run_detection(options(weights, tmp_path / "in", tmp_path, view_img=True))
    assert error.value.where == "--view-img"
    assert not (tmp_path / "run").exists()


def test_class_ids_and_names_must_be_those_of_the_model(weights: Path, tmp_path: Path) -> None:
    write(tmp_path / "in/a.png", random_image(0, 40, 60))
    data = tmp_path / "two.yaml"
    data.write_text("path: .\ntrain: in\nval: in\nnames: [a, b]\n")
    for changes, where in (({"classes": (0, 3)}, "--classes"), ({"data": str(data)}, str(data))):
        with pytest.raises(ConfigError) as error:
            run_detection(options(weights, tmp_path / "in", tmp_path, **changes))
        assert error.value.where == where
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_several_weights_form_an_ensemble(weights: Path, tmp_path: Path) -> None:
    write(tmp_path / "in/a.png", random_image(3, 48, 80))
    other = random_model("yolov5n.yaml", len(NAMES), objectness=-1)
    save_checkpoint(tmp_path / "other.pt", {**describe_model(other, NAMES), "ema": weights_of(other)})
    found = {}
    for name, paths in (("one", (weights,)), ("twice", (weights, weights)), ("two", (weights, tmp_path / "other.pt"))):
        settings = {"weights": tuple(map(str, paths)), "save_txt": True, "save_conf": True, "max_det": 100}
        settings |= {"engine": "torch"}  # which runs ensembles
        found[name] = labels(run_detection(options(weights, tmp_path / "in", tmp_path / name, **settings)))["a.txt"]
    np.testing.assert_allclose(found["twice"], found["one"], atol=1e-5)  # NMS drops the second of each pair
    assert not np.array_equal(found["two"], found["one"])
    with pytest.raises(ConfigError) as caught:
        options(weights, tmp_path, tmp_path, weights=("a.pt", "b.pt"), visualize=True)
    assert caught.value.where == "--visualize"


def test_the_sample_images_are_found_in_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    default, _ = parse_options(DetectOptions, ["--weights", "a.pt"], description="")
    assert {path.parent for path in open_source(default.source).files} == {ROOT / "data/images"}
    assert len(open_source(default.source).files) == 2
    write(Path("data/images/mine.png"), random_image(0, 8, 9))
    assert open_source(default.source).files == [Path("data/images/mine.png")]
