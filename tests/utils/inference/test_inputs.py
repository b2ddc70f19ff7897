"""Inputs of the Python API: the same image in every form, orientation and alpha, web addresses, what is rejected."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from utils.errors import DataError
from utils.inference.inputs import parse_inputs

HEIGHT, WIDTH = 64, 96


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def test_every_form_of_an_image_gives_the_same_pixels(source, tmp_path):
    file = tmp_path / "a 细.png"
    Image.fromarray(source).save(file)
    tensor = torch.from_numpy(source).permute(2, 0, 1)
    with Image.open(file) as opened:
        items = [
            str(file),
            file,
            opened,
            Image.fromarray(source),
            source,
            source.transpose(2, 0, 1),
            tensor,
            tensor / 255,
        ]
        inputs = parse_inputs(items)
    assert [one.file for one in inputs] == ["a 细.png"] * 3 + [f"image{index}.jpg" for index in range(3, 8)]
    for one in inputs:
        np.testing.assert_array_equal(one.image, source)
    assert [one.pixels is not None for one in inputs] == [False] * 6 + [True] * 2
    torch.testing.assert_close(inputs[6].pixels, tensor / 255)
    pair = parse_inputs(torch.stack((tensor, tensor.flip(2))))
    assert len(pair) == 2 and (pair[1].image == source[:, ::-1]).all()
    deep = parse_inputs(source.astype(np.uint16) * 257)[0]
    np.testing.assert_array_equal(deep.image, source)


def test_orientation_alpha_and_grey_are_treated_as_in_files(source, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(source).save(tmp_path / "rotated.png", exif=exif)
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:30] = 0
    with_alpha = np.concatenate((source, alpha), 2)
    Image.fromarray(with_alpha).save(tmp_path / "transparent.png")
    on_black = np.where(alpha, source, 0).astype(np.uint8)
    for name, expected in (("rotated", np.rot90(source, -1)), ("transparent", on_black)):
        with Image.open(tmp_path / f"{name}.png") as opened:
            for one in parse_inputs([tmp_path / f"{name}.png", opened]):
                np.testing.assert_array_equal(one.image, expected)
    np.testing.assert_array_equal(parse_inputs(with_alpha)[0].image, on_black)
    grey = source[..., 0]
    for one in parse_inputs([grey, Image.fromarray(grey)]):
        np.testing.assert_array_equal(one.image, np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize(
    ("item", "where", "value"),
    [
        ("missing.jpg", "missing.jpg", ""),
        (["missing.jpg"], "missing.jpg", ""),
        (np.zeros((6, 5, 7), np.uint8), "image0.jpg", "(6, 5, 7)"),
        (np.zeros((0, 5, 3), np.uint8), "image0.jpg", "(0, 5, 3)"),
        (torch.zeros(4, 8, 8), "image0.jpg", "(4, 8, 8)"),
        (torch.full((3, 8, 8), 2.0), "image0.jpg", "2"),
        (torch.full((3, 8, 8), float("nan")), "image0.jpg", "nan"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "image0.jpg", "int64"),
        (7, "image0.jpg", "int"),
        ([[1, 2]], "image0.jpg", "list"),
    ],
)
def test_what_is_not_an_image_is_rejected_in_one_line(item: object, where: str, value: str) -> None:
    with pytest.raises(DataError) as error:
        parse_inputs(item)
    assert error.value.where == where and value in error.value.what and error.value.fix
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def server(source: np.ndarray) -> Iterator[str]:
    """A web server with an image, a redirection into the file system, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/to-file"):
                self.send_response(302)
                self.send_header("Location", "file:///etc/hostname")
                self.end_headers()
            elif self.path.startswith("/a"):
                data = cv2.imencode(".png", source[..., ::-1])[1].tobytes()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(data)
            else:
                self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_a_web_address_is_fetched_only_if_allowed(source: np.ndarray, server: str, monkeypatch) -> None:
    with pytest.raises(DataError) as error:
        parse_inputs(f"{server}/a.png")
    assert error.value.where == f"{server}/a.png" and "allow_urls" in error.value.fix
    (fetched,) = parse_inputs(f"{server}/a.png?size=1", allow_urls=True)
    assert (fetched.image == source).all() and fetched.file == "a.png"
    for path in ("to-file", "nothing"):
        with pytest.raises(DataError) as error:
            parse_inputs(f"{server}/{path}", allow_urls=True)
        assert error.value.where == f"{server}/{path}"
    monkeypatch.setattr("utils.datasets.remote.MAX_DOWNLOAD_BYTES", 100)
    with pytest.raises(DataError) as error:
        parse_inputs(f"{server}/a.png", allow_urls=True)
    assert "100 bytes" in error.value.what


def test_local_files_are_not_fetched_as_addresses(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        parse_inputs("file:///etc/hostname", allow_urls=True)
