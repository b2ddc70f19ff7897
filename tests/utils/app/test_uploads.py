"""Uploads: only files of the folder, within limits, removed when they are old."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.encoded_images import encoded, smooth_pixels
from utils.app.uploads import MAX_AGE, Uploads
from utils.errors import DataError


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return Uploads(folder=folder, max_bytes=100_000, max_pixels=2000, max_stored_bytes=50_000)


def upload(uploads: Uploads, name: str, data: bytes) -> str:
    path = uploads.folder / "hash" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return str(path)


def test_an_image_is_read(uploads: Uploads) -> None:
    pixels = smooth_pixels()
    assert np.array_equal(uploads.read_image(upload(uploads, "a.png", encoded(pixels, "PNG"))), pixels)


def test_files_outside_the_folder_are_not_read(uploads: Uploads, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(smooth_pixels(), "PNG"))
    link = uploads.folder / "link.png"
    link.symlink_to(secret)
    beside = tmp_path / "uploads-of-others.png"
    beside.write_bytes(secret.read_bytes())
    inside_out = f"{uploads.folder}/../secret.png"
    for name in (str(secret), str(link), str(beside), inside_out, str(uploads.folder), "a\0b", "http://a/b.png", ""):
        with pytest.raises(DataError) as raised:
            uploads.read_image(name)
        assert raised.value.where == "upload"


def test_limits_of_bytes_and_pixels(uploads: Uploads) -> None:
    with pytest.raises(DataError) as raised:
        uploads.read_image(upload(uploads, "a.png", bytes(100_001)))
    assert raised.value.where == "a.png"
    for form in ("PNG", "JPEG", "BMP"):
        with pytest.raises(DataError) as raised:
            uploads.read_image(upload(uploads, f"b.{form.lower()}", encoded(np.zeros((30, 70, 3), np.uint8), form)))
        assert "2,100" in raised.value.what


def test_old_files_are_removed(uploads: Uploads) -> None:
    old, new = Path(upload(uploads, "a.png", b"1")), uploads.new_folder()
    (new / "b.jpg").write_bytes(b"2")
    results = uploads.new_folder()
    for folder in (old.parent, results):
        os.utime(folder, (0, os.stat(folder).st_mtime - MAX_AGE - 1))
    uploads.remove_old()
    assert not old.exists() and not results.exists() and (new / "b.jpg").exists()


def test_the_folder_is_full(uploads: Uploads) -> None:
    assert not uploads.is_full()
    upload(uploads, "a.png", bytes(50_001))
    assert uploads.is_full()
