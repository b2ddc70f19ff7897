"""app.py over HTTP: answers, downloads, hostile uploads, several users at once, and its end."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.helpers.app_server import AppServer, needs_gradio, serve
from tests.helpers.finished_comparison import finished_comparison
from tests.helpers.hostile_archives import header_bomb
from tests.helpers.hostile_pickles import corpus
from tests.helpers.small_model import small_checkpoint
from utils.app.detect import COLUMNS
from utils.app.models import Settings, open_models
from utils.datasets.images import read_image

pytestmark = [needs_gradio, pytest.mark.slow]
PLAIN, AKCONV = "yolov5n.yaml", "yolov5n-AKConv.yaml"
SETTINGS = (0.25, 0.45, 0, [], "cpu")  # 0: the size that the model was trained with


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("weights")
    return [str(small_checkpoint(folder / f"{name}.pt", cfg)) for name, cfg in (("plain", PLAIN), ("akconv", AKCONV))]


@pytest.fixture(scope="module")
def server(weights: list[str], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    folder = tmp_path_factory.mktemp("server")
    comparison = finished_comparison(data, folder / "comparison")
    arguments = ["--weights", *weights, "--upload-mb", "2", "--comparison", str(comparison)]
    with serve(folder, arguments) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: AppServer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from gradio_client import Client

    return Client(f"{server.url}/en/", verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


def image_file(folder: Path, seed: int, size_hw: tuple[int, int] = (72, 96)) -> str:
    """Write an image of its own, as PNG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    path = folder / f"image{seed}.png"
    cv2.imwrite(str(path), cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC))
    return str(path)


def handed(path: str) -> Any:
    from gradio_client import handle_file

    return handle_file(path)


def boxes_of(table: dict[str, Any]) -> list[list[Any]]:
    return table["data"]


def expected_rows(weights: list[str], label: str, path: str) -> list[list[Any]]:
    model = open_models(weights)[label]
    image = read_image(path)
    detections, _ = model.detect(image, Settings())
    columns = detections.boxes.tolist(), detections.scores.tolist(), detections.classes.tolist()
    return [
        [model.metadata.names[c], round(score, 3), *(round(value, 1) for value in box)]
        for box, score, c in zip(*columns, strict=True)
    ]


def status_of(url: str, *, host: str = "", body: bytes | None = None) -> int:
    request = urllib.request.Request(url, data=body, headers={"Host": host} if host else {})
    try:
        return urllib.request.urlopen(request, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code


def test_detections_and_downloads_are_those_of_the_model(
    client: Any, weights: list[str], tmp_path: Path, server: AppServer
) -> None:
    path = image_file(tmp_path, 1)
    line, shown, table, files = client.predict(handed(path), "akconv", *SETTINGS, api_name="/detect")
    expected = expected_rows(weights, "akconv", path)
    assert len(expected) > 3 and boxes_of(table) == expected
    assert str(len(expected)) in line and read_image(shown).shape == (72, 96, 3)
    by_suffix = {Path(file).suffix: Path(file) for file in files}
    assert set(by_suffix) == {".jpg", ".txt", ".csv", ".json"}
    assert len(by_suffix[".txt"].read_text().splitlines()) == len(expected)
    assert by_suffix[".csv"].read_text().splitlines()[0] == ",".join(COLUMNS)
    content = json.loads(by_suffix[".json"].read_text())
    assert [row["class"] for row in content] == [row[0] for row in expected]


def test_thresholds_and_classes_filter(client: Any, weights: list[str], tmp_path: Path) -> None:
    path = image_file(tmp_path, 1)
    expected = expected_rows(weights, "plain", path)
    name = expected[0][0]
    threshold = sorted(row[1] for row in expected)[len(expected) // 2]
    _, _, table, _ = client.predict(handed(path), "plain", threshold, 0.45, 0, [name], "cpu", api_name="/detect")
    rows = boxes_of(table)
    assert rows and all(row[0] == name and row[1] >= threshold - 0.001 for row in rows)


def test_files_and_a_video(client: Any, tmp_path: Path) -> None:
    video = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for seed in range(4):
        writer.write(cv2.imread(image_file(tmp_path, seed, (48, 64))))
    writer.release()
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    names = [image_file(tmp_path, 7), str(video), str(tmp_path / "broken.jpg")]
    chosen = [handed(name) for name in names]
    line, gallery, table, files = client.predict(chosen, "plain", *SETTINGS, api_name="/detect_files")
    assert "broken.jpg" in line and len(gallery) == 2
    assert {row[1] for row in boxes_of(table) if row[0] == "clip"} <= {0, 1, 2, 3, "0", "1", "2", "3"}
    archive = next(file for file in files if file.endswith(".zip"))
    with zipfile.ZipFile(archive) as content:
        assert {Path(name).suffix for name in content.namelist()} == {".jpg", ".txt", ".webm", ".csv", ".json"}
        content.extract("clip.webm", tmp_path)
    capture = cv2.VideoCapture(str(tmp_path / "clip.webm"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)) == 64 and capture.read()[0]


def test_two_models(client: Any, weights: list[str], tmp_path: Path) -> None:
    path = image_file(tmp_path, 3)
    _, first, second, table, files = client.predict(handed(path), "plain", "akconv", *SETTINGS, api_name="/compare")
    rows = boxes_of(table)
    counts = [sum(row[column] not in ("", None) for row in rows) for column in (1, 3)]
    assert counts == [len(expected_rows(weights, label, path)) for label in ("plain", "akconv")]
    assert len(files) == 3 and read_image(first).shape == read_image(second).shape == (72, 96, 3)
    _, _, _, same, _ = client.predict(handed(path), "plain", "plain", *SETTINGS, api_name="/compare")
    assert {row[0] for row in boxes_of(same)} == {"both"}


def explain(client: Any, path: str, label: str, x: float, y: float, views: list[str]) -> tuple[str, str]:
    layers = ["model.1", "model.7"]
    return client.predict(handed(path), label, x, y, layers, views, "gradcam", *SETTINGS, api_name="/explain")


def test_a_position_is_explained(client: Any, tmp_path: Path) -> None:
    path = image_file(tmp_path, 4)
    line, html = explain(client, path, "akconv", 40, 30, ["sampling", "offsets", "cam", "field"])
    assert html.count("<figure>") == 5 and "40, 30" in line
    line, html = explain(client, path, "plain", 40, 30, ["sampling", "offsets"])
    assert "<figure>" not in (html or "") and "plain" in line
    line, html = explain(client, path, "akconv", 96, 30, ["sampling"])
    assert not html and "96" in line


def test_a_finished_comparison_is_browsed(client: Any, server: AppServer) -> None:
    line, html = client.predict("all", "", "", "", 1, api_name="/browse")
    assert "6 of 6" in line and html.count("<h4>") == 6 and html.count("<figure>") == 18
    line, html = client.predict("false negative", "second", "0", "small", 9, api_name="/browse")
    assert "1 of 6" in line and html.count("<figure>") == 2
    address = re.findall(r'src="([^"]+)"', html)[1]
    with urllib.request.urlopen(f"{server.url}/en/{address}") as answer:
        assert answer.headers["Content-Type"] == "image/jpeg"
    with urllib.request.urlopen(f"{server.url}/report.html") as answer:
        assert b"<title>report" in answer.read()
    assert status_of(f"{server.url}/results.json") == 404


def test_eight_users_get_the_answers_to_their_own_images(server: AppServer, weights: list[str], tmp_path: Path) -> None:
    from gradio_client import Client

    def use(number: int) -> tuple[int, list[list[Any]], str]:
        client = Client(f"{server.url}/{'zh' if number % 2 else 'en'}/", verbose=False, download_files=False)
        path = image_file(tmp_path, 100 + number, (48 + 8 * number, 96))
        label = ("plain", "akconv")[number % 2]
        rows = []
        for _ in range(3):
            rows.append(boxes_of(client.predict(handed(path), label, *SETTINGS, api_name="/detect")[2]))
        assert rows[0] == rows[1] == rows[2]
        # Sampling is recorded by hooks on the model that all users share; the size of the map shows whose it was.
        line, _ = explain(client, path, "akconv", 10 + number, 20, ["offsets"])
        return number, rows[0], line

    with ThreadPoolExecutor(8) as pool:
        for number, rows, line in pool.map(use, range(8)):
            path = str(tmp_path / f"image{100 + number}.png")
            assert rows == expected_rows(weights, ("plain", "akconv")[number % 2], path)
            assert f"{10 + number}, 20" in line


def test_hostile_uploads_become_a_line(client: Any, weights: list[str], tmp_path: Path) -> None:
    contents = {name: data for name, data, _ in corpus(Path(weights[0]).read_bytes())[::6]}
    honest = Path(image_file(tmp_path, 5)).read_bytes()
    contents |= {
        "empty": b"",
        "text": b"<svg onload=alert(1)>",
        "cut": honest[:200],
        "archive": header_bomb(),
        "wide": honest[:16] + (60_000).to_bytes(4, "big") * 2 + honest[24:],
        "noise": np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes(),
    }
    for number, (name, data) in enumerate(contents.items()):
        path = tmp_path / f"{number}.{'mp4' if number % 5 == 4 else 'jpg'}"
        path.write_bytes(data)
        line, *rest = client.predict([handed(str(path))], "plain", *SETTINGS, api_name="/detect_files")
        assert line.startswith("Not done") and "internal" not in line, (name, line)
        assert not rest[0] and not rest[-1]
    path = image_file(tmp_path, 6)
    assert boxes_of(client.predict(handed(path), "plain", *SETTINGS, api_name="/detect")[2])


def test_limits(client: Any, server: AppServer, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.new("1", (8000, 8000)).save(large)
    line, shown, *_ = client.predict(handed(str(large)), "plain", *SETTINGS, api_name="/detect")
    assert "64,000,000" in line and shown is None
    many = [handed(image_file(tmp_path, seed, (32, 32))) for seed in range(33)]
    line, gallery, *_ = client.predict(many, "plain", *SETTINGS, api_name="/detect_files")
    assert "33" in line and not gallery
    heavy = tmp_path / "heavy.png"
    heavy.write_bytes(b"\x89PNG" + bytes(2_100_000))
    with pytest.raises(Exception, match=r"413|size"):
        client.predict(handed(str(heavy)), "plain", *SETTINGS, api_name="/detect")
    with pytest.raises(Exception, match=r"0\.99"):
        client.predict(handed(image_file(tmp_path, 1)), "plain", 2.0, 0.45, 0, [], "cpu", api_name="/detect")


def call(server: AppServer, name: str, data: list[Any]) -> str:
    """Call a handler as a browser does, with names of files of one's own choice: gradio_client would upload them."""
    url, body = f"{server.url}/en/gradio_api/call/{name}", json.dumps({"data": data}).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        event = json.load(answer)["event_id"]
    with urllib.request.urlopen(f"{url}/{event}", timeout=60) as answer:
        return answer.read().decode()


def test_no_path_or_address_from_the_page_is_read(server: AppServer, tmp_path: Path) -> None:
    secret = Path(image_file(tmp_path, 9))
    before = server.uploads()
    for path in (str(secret), "http://127.0.0.1:1/x.png", "../../etc/passwd", f"{secret}\0"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "x.png"}
        for name, data in (("detect", file), ("detect_files", [file]), ("detect", {**file, "url": path})):
            answer = call(server, name, [data, "plain", *SETTINGS])
            assert "event: error" in answer or "Not done" in answer, answer
    assert server.uploads() == before
    for page in ("file=/etc/passwd", f"file={secret}", "file=http://127.0.0.1:1/", "proxy=http://127.0.0.1:1/", "runs"):
        assert status_of(f"{server.url}/en/gradio_api/{page}") in (403, 404)
    assert status_of(f"{server.url}/en/gradio_api/file={server.temporary}/../app.log") in (403, 404)


def test_only_this_machine_is_answered(server: AppServer) -> None:
    assert status_of(f"{server.url}/en/") == 200
    assert status_of(f"{server.url}/en/", host="attacker.example") == 403
    assert status_of(f"{server.url}/docs") == 404
    assert status_of(f"{server.url}/en/gradio_api/queue/join", body=bytes(2_000_000)) == 413


def test_the_page_names_nothing_from_elsewhere(server: AppServer) -> None:
    with urllib.request.urlopen(f"{server.url}/zh/") as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'") and "http" not in policy
    with urllib.request.urlopen(f"{server.url}/zh/theme.css") as answer:
        assert not set(re.findall(rb"https?://[\w.]+", answer.read())) - {b"http://www.w3.org"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_removes_uploads(weights: list[str], tmp_path: Path, number: int) -> None:
    from gradio_client import Client

    with serve(tmp_path, ["--weights", weights[0]]) as running:
        client = Client(f"{running.url}/en/", verbose=False, download_files=False)
        client.predict(handed(image_file(tmp_path, 1)), "plain", *SETTINGS, api_name="/detect")
        assert running.uploads()
        assert running.stop(number) == 0
        assert not running.uploads() and not list(running.temporary.glob("akyolo-app-*"))


def test_a_port_in_use_is_one_line(weights: list[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with (
            pytest.raises(RuntimeError, match=f"--port: 127.0.0.1:{port}"),
            serve(tmp_path, ["--weights", weights[0], "--port", port]),
        ):
            pass
    assert not list((tmp_path / "temporary").glob("akyolo-app-*"))
