"""The web service of docs/python.md, started as written there: right boxes, and one line for what is wrong."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.doc_commands import ROOT, python_block
from tests.helpers.random_model import random_model
from utils.inference.autoshape import load_detector
from utils.weights.checkpoint import describe_model, save_checkpoint, weights_of

INSTALLED = all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn"))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INSTALLED, reason="needs fastapi and uvicorn")]
MAX_BYTES = 10_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server")
    model = random_model("yolov5n.yaml", 3, objectness=-3)
    save_checkpoint(folder / "best.pt", {**describe_model(model, ("ring", "cross", "arc")), "ema": weights_of(model)})
    (folder / "server.py").write_text(python_block("docs/python.md", "# server.py"))
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "street.png"), cv2.resize(noise, (180, 120)))
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "uvicorn", "server:app", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stderr is not None
        try:
            lines = iter(server.stderr.readline, "")
            yield next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        finally:
            server.terminate()


def post(address: str, data: bytes, query: str = "") -> tuple[int, object]:
    """Return status and content of the answer to a POST of an image."""
    request = urllib.request.Request(f"{address}/detect{query}", data=data, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_service_answers_with_the_detections(folder: Path, address: str) -> None:
    expected = load_detector(folder / "best.pt", device="cpu")(folder / "street.png").pandas().xyxy[0]
    median = float(expected["confidence"].median())
    image = (folder / "street.png").read_bytes()
    for query, rows in (("", expected), (f"?conf={median}", expected[expected["confidence"] >= median])):
        status, found = post(address, image, query)
        assert status == 200 and isinstance(found, list) and len(found) == len(rows) > 0
        for box, row in zip(found, rows.to_dict("records"), strict=True):
            assert box == pytest.approx(row, abs=1e-3)


def test_what_is_wrong_gets_one_line_and_the_service_goes_on(folder: Path, address: str) -> None:
    image = (folder / "street.png").read_bytes()
    for data, status in ((b"", 400), (b"<svg/>", 400), (image[: len(image) // 2], 400), (bytes(MAX_BYTES + 1), 413)):
        code, answer = post(address, data)
        assert code == status and isinstance(answer, dict)
        assert answer["detail"] and "\n" not in answer["detail"]
    assert post(address, image, "?conf=high")[0] == 422
    assert post(address, image)[0] == 200
