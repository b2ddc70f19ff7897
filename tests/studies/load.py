"""Behaviour under load: `make load`, or `python -m tests.studies.load` with the names of some studies.

`python` calls the model from 8 threads and `page` asks app.py from 8 clients: are all answers those of one thread, does
memory stay flat, how long does an answer take? `streams` drops four cameras again and again: how long after its return
is a camera's first frame processed? `images` detects on, and trains on, more and more images: are processor time and
memory linear? Each prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from tests.helpers.app_server import serve
from tests.helpers.mjpeg_server import Camera, cameras
from tests.helpers.small_model import small_checkpoint
from tests.helpers.training_runs import SMALL_MODEL
from utils.cli import option, parse_options, run_script
from utils.datasets.streams import LiveStreams
from utils.errors import RunError
from utils.files import PROJECT_ROOT
from utils.inference.autoshape import load_detector
from utils.options.inference import ONNXRUNTIME, TORCH

MODEL = "yolov5n-AKConv.yaml"
STUDIES = ("python", "page", "streams", "images")
SCAN = """
import sys
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index
build_index(load_data_config(sys.argv[1]), "train")
"""
# A child's peak starts at the size of the process that started it, so that a small one has to.
MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(code)
"""
SAMPLE_SECONDS = 1.0  # between two looks at the memory


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How much load."""

    studies: tuple[str, ...] = option(STUDIES, "studies to run")
    seconds: float = option(600.0, "duration of each of python and page")
    threads: int = option(8, "threads, or clients of the page")
    inputs: int = option(2000, "different inputs")
    drops: int = option(50, "drops of each camera")
    train: tuple[int, ...] = option((1_000, 10_000, 100_000), "images to train on", kind=int)
    detect: tuple[int, ...] = option((1_000, 10_000, 20_000), "images to detect on", kind=int)
    seed: int = option(0, "seed of all inputs")


def draw(seed: int, index: int) -> np.ndarray:
    """Return an image of its own, (H, W, 3) uint8 with sides from 32 to 200 pixels."""
    rng = np.random.default_rng((seed, index))
    height, width = (int(side) for side in rng.integers(32, 200, 2))
    return cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def mixed_input(seed: int, index: int, folder: Path) -> Any:
    """Return an array, path or PIL image, or a list of several kinds."""
    kind, image = index % 4, draw(seed, index)
    if kind == 0:
        return image
    if kind == 1:
        path = folder / f"{index}.png"
        if not path.exists():
            Image.fromarray(image).save(path)
        return path
    if kind == 2:
        return Image.fromarray(image)
    return [mixed_input(seed, 1_000_000 + 16 * index + 4 * i + i % 3, folder) for i in range(2 + index % 3)]


def resident_bytes(pid: int | str = "self") -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class MemoryRecord(threading.Thread):
    """Records the memory of a process until it is stopped."""

    def __init__(self, pid: int | str = "self") -> None:
        super().__init__(daemon=True)
        self.pid, self.stopped = pid, threading.Event()
        self.samples: list[tuple[float, int]] = []

    def run(self) -> None:
        start = time.monotonic()
        while not self.stopped.wait(SAMPLE_SECONDS):
            self.samples.append((time.monotonic() - start, resident_bytes(self.pid)))

    def result(self) -> dict[str, float]:
        """Return the memory after a third, which warms up, and at the end, and the slope between, by least squares."""
        self.stopped.set()
        self.join()
        later = np.array(self.samples[len(self.samples) // 3 :], float)
        slope = float(np.polyfit(later[:, 0], later[:, 1], 1)[0]) if len(later) > 2 else 0.0
        megabytes = {name: round(float(later[i, 1]) / 1e6, 1) for name, i in (("mb_after_third", 0), ("mb_at_end", -1))}
        return {**megabytes, "mb_per_hour": round(3600 * slope / 1e6, 1)}


def percentiles(milliseconds: np.ndarray) -> dict[str, float]:
    """Return the median, two further percentiles and the largest."""
    values = np.percentile(milliseconds, (50, 90, 99, 100)).round(1).tolist()
    return dict(zip(("ms_p50", "ms_p90", "ms_p99", "ms_max"), values, strict=True))


def under_load(
    options: LoadOptions, ask: Callable[[int, int], Any], expected: Sequence[Any], pid: int | str = "self"
) -> dict[str, Any]:
    """Ask from several threads until time is up; `ask` gets the thread and the input, by number."""
    memory, lock = MemoryRecord(pid), threading.Lock()
    latencies: list[float] = []
    wrong, end, used = [], time.monotonic() + options.seconds, os.times()
    memory.start()

    def work(thread: int) -> None:
        index = thread
        while time.monotonic() < end:
            started = time.perf_counter()
            answer = ask(thread, index % len(expected))
            with lock:
                latencies.append(time.perf_counter() - started)
                if answer != expected[index % len(expected)]:
                    wrong.append(index % len(expected))
            index += options.threads + (index % 7 == 0)  # every thread meets every input

    with ThreadPoolExecutor(options.threads) as pool:
        for finished in [pool.submit(work, thread) for thread in range(options.threads)]:
            finished.result()
    return {
        "answers": len(latencies),
        "wrong": len(wrong),
        "different_inputs": len(expected),
        "objects": sum(map(len, expected)),
        "processor_seconds": round(os.times().user - used.user, 1),
        **memory.result(),
        **percentiles(1000 * np.array(latencies)),
    }


def python(options: LoadOptions, folder: Path) -> dict[str, Any]:
    """Call one model from several threads, half of the time in torch, half in ONNX Runtime."""
    weights = str(small_checkpoint(folder / "model.pt", MODEL))
    inputs = [mixed_input(options.seed, index, folder) for index in range(options.inputs)]
    results: dict[str, Any] = {}
    for engine in (TORCH, ONNXRUNTIME):
        model = load_detector(weights, device="cpu", engine=engine)

        def ask(_: int, index: int, model: Any = model) -> list[list[float]]:
            return [row for table in model(inputs[index], size=96 + 32 * (index % 3)).xyxy for row in table.tolist()]

        expected = [ask(0, index) for index in range(len(inputs))]
        results[engine] = under_load(replace(options, seconds=options.seconds / 2), ask, expected)
    return results


def page(options: LoadOptions, folder: Path) -> dict[str, Any]:
    """Ask the page of app.py from several clients, each of its own session."""
    from gradio_client import Client, handle_file

    weights = small_checkpoint(folder / "model.pt", MODEL)
    paths = [mixed_input(options.seed, 4 * index + 1, folder) for index in range(max(options.inputs // 20, 1))]
    settings = (0.25, 0.45, 0, [], "cpu")
    with serve(folder / "server", ["--weights", str(weights)]) as server:
        connection = {"verbose": False, "download_files": False, "httpx_kwargs": {"timeout": 120}}
        clients = [Client(f"{server.url}/en/", **connection) for _ in range(options.threads)]

        def ask(client: int, index: int) -> list[list[Any]]:
            answer = clients[client].predict(handle_file(str(paths[index])), "model", *settings, api_name="/detect")
            return answer[2]["data"]

        expected = [ask(0, index) for index in range(len(paths))]
        return under_load(options, ask, expected, server.process.pid)


def streams(options: LoadOptions, _: Path) -> dict[str, Any]:
    """Drop four cameras again and again, each time for up to two seconds.

    A return is measured from the moment at which a camera accepts connections, and from the first frame that it sends.
    Its image is dark or bright in turn, from connection to connection.
    """
    rng = np.random.default_rng(options.seed)
    back_at, fleet = [0.0] * 4, []
    levels = [np.full((48, 64, 3), level, np.uint8) for level in (100, 200)]
    for i in range(4):
        accepts = partial(lambda i: time.monotonic() >= back_at[i], i)
        image = partial(lambda connection, _: levels[connection % 2])
        fleet.append(Camera(12, max_connections=10**9, pause=0.02, accepts=accepts, image=image))
    seconds: list[list[tuple[float, float]]] = [[] for _ in fleet]
    with (
        cameras(**{f"cam{i}": camera for i, camera in enumerate(fleet)}) as address,
        LiveStreams(list(address.values())) as live,
    ):
        while min(map(len, seconds)) < options.drops:
            for frame in live.newest():
                now, i = time.monotonic(), int(frame.path.name[-1])
                connection = len(fleet[i].first_sent) - 1
                if connection == len(seconds[i]) and (frame.image.mean() > 150) == connection % 2:
                    seconds[i].append((now - back_at[i], now - fleet[i].first_sent[connection]))
                    back_at[i] = now + 12 * 0.02 + float(rng.uniform(0, 2))
    times = 1000 * np.array([value for values in seconds for value in values[1:]])  # without the first connection
    return {
        name: {"returns": len(column), "within_200_ms": int((column < 200).sum()), **percentiles(column)}
        for name, column in zip(("since_return", "since_first_frame"), times.T, strict=True)
    }


def write_images(folder: Path, count: int, seed: int) -> Path:
    """Write a data set of so many small images with one object each, and return its yaml."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        height, width = (int(side) for side in rng.integers(32, 65, 2))
        image = cv2.resize(rng.integers(0, 256, (3, 4, 3), np.uint8), (width, height))
        x, y = (float(v) for v in rng.uniform(0.3, 0.7, 2))
        cv2.rectangle(
            image,
            (int((x - 0.2) * width), int((y - 0.2) * height), int(0.4 * width), int(0.4 * height)),
            (255, 255, 255),
            -1,
        )
        cv2.imwrite(str(folder / f"images/{index:06d}.jpg"), image)
        (folder / f"labels/{index:06d}.txt").write_text(f"0 {x:.4f} {y:.4f} 0.4 0.4\n")
    (folder / "val.txt").write_text("".join(f"./images/{index:06d}.jpg\n" for index in range(64)))
    data = folder / "data.yaml"
    data.write_text("path: .\ntrain: images\nval: val.txt\nnames: [box]\n")
    return data


def measured(command: Sequence[object], folder: Path) -> dict[str, float]:
    """Run a script of the project, and return its processor time and its largest resident memory."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    words = [sys.executable, "-S", "-c", MEASURE, sys.executable, *map(str, command)]
    with (folder / "log.txt").open("a") as log:
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
    if done.returncode:
        raise RunError(command[0], f"ended with status {done.returncode}", fix=f"see {folder / 'log.txt'}")
    seconds, kilobytes = map(float, done.stdout.split())
    return {"processor_seconds": round(seconds, 1), "peak_mb": round(kilobytes / 1000, 1)}


def images(options: LoadOptions, folder: Path) -> dict[str, Any]:
    """Detect on and train on more and more images, each training with its first scan, and scan them again."""
    results: dict[str, Any] = {"train": {}, "detect": {}}
    hyp = (PROJECT_ROOT / "data/hyps/hyp.scratch-low.yaml").read_text()
    (folder / "hyp.yaml").write_text(hyp.replace("mosaic: 1.0", "mosaic: 0.0"))
    (folder / "small.yaml").write_text(SMALL_MODEL)
    weights = small_checkpoint(folder / "model.pt", "yolov5n.yaml")
    for count in sorted({*options.train, *options.detect}):
        data = write_images(folder / str(count), count, options.seed)
        if count in options.detect:
            words = (
                "detect.py",
                "--weights",
                weights,
                "--source",
                data.parent / "images",
                "--project",
                folder / "detect",
            )
            results["detect"][count] = measured((*words, "--device", "cpu"), folder)
        if count in options.train:
            cold = measured(("-c", SCAN, data), folder)
            again = measured(("-c", SCAN, data), folder)
            words = (
                "train.py",
                "--cfg",
                folder / "small.yaml",
                "--data",
                data,
                "--hyp",
                folder / "hyp.yaml",
                "--epochs",
                1,
            )
            words += (
                "--imgsz",
                32,
                "--batch-size",
                64,
                "--workers",
                0,
                "--device",
                "cpu",
                "--noplots",
                "--noautoanchor",
            )
            trained = measured((*words, "--project", folder / "train"), folder)
            results["train"][count] = {"scan": cold, "scan_again": again, "epoch": trained}
        found = {name: result[count] for name, result in results.items() if count in result}
        print(json.dumps({"images": count, **found}), file=sys.stderr, flush=True)  # the next takes longer
    return results


def main() -> None:
    """Run the studies that the command line names."""
    options, _ = parse_options(LoadOptions, None, description=__doc__ or "")
    if unknown := set(options.studies) - set(STUDIES):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; the studies are {', '.join(STUDIES)}")
    for name in options.studies:
        with tempfile.TemporaryDirectory() as folder:
            result = {"python": python, "page": page, "streams": streams, "images": images}[name](options, Path(folder))
            print(json.dumps({"study": name, "seed": options.seed, **result}), flush=True)


if __name__ == "__main__":
    run_script(main)
