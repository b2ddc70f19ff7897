"""Files that come from the page, read within limits and only from the folder of uploads, removed at the end."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.datasets.image_headers import raw_size
from utils.datasets.images import VIDEO_SUFFIXES, decode_image, has_suffix, open_header
from utils.datasets.streams import Frame, ReconnectPolicy
from utils.datasets.videos import read_video
from utils.errors import DataError

MEGABYTE = 1_000_000
MAX_AGE = 3600  # seconds after which uploads and results are removed
RESULTS = "results"


@dataclass(frozen=True, kw_only=True)
class Uploads:
    """The folder of uploads and results, and the limits on what is read from it."""

    folder: Path
    max_bytes: int = 200 * MEGABYTE  # of an upload
    max_stored_bytes: int = 2000 * MEGABYTE  # of all files in the folder
    max_pixels: int = 50_000_000  # of an image, and of a video's frame
    max_files: int = 32  # of a request
    max_frames: int = 900  # of a video; further ones are left out

    def path(self, name: str) -> Path:
        """Return the path of an uploaded file; DataError if the name leads elsewhere.

        The browser sends it, so it is not trusted, links included.
        """
        with contextlib.suppress(OSError, ValueError):  # ValueError: a null byte
            path = Path(name).resolve(strict=True)
            if path.is_file() and path.is_relative_to(self.folder.resolve()):
                return path
        raise DataError("upload", "is not there any more", fix="choose the file again")

    def read_image(self, name: str) -> np.ndarray:
        """Read an uploaded image as (H, W, 3) uint8 RGB; DataError if it is too large or not an image."""
        path = self.path(name)
        self._check_bytes(path)
        data = path.read_bytes()
        header = open_header(data)
        self._check_pixels(path, header.width * header.height if header is not None else raw_size(data)[0])
        image = decode_image(data, name=path.name)
        self._check_pixels(path, image.shape[0] * image.shape[1])  # of formats whose header Pillow does not read
        return image

    def read_video(self, name: str) -> Generator[Frame, None, None]:
        """Yield the first frames of an uploaded video; DataError if it is too large or not a video."""
        path = self.path(name)
        self._check_bytes(path)
        shown = Path(path.name)
        for count, frame in enumerate(read_video(path, shown, number=0, vid_stride=1, policy=ReconnectPolicy())):
            self._check_pixels(path, frame.image.shape[0] * frame.image.shape[1])
            if count == self.max_frames:
                return
            yield frame

    def is_video(self, name: str) -> bool:
        """Return whether a file name is that of a video."""
        return has_suffix(name, VIDEO_SUFFIXES)

    def _check_bytes(self, path: Path) -> None:
        if (size := path.stat().st_size) > self.max_bytes:
            what = f"has {size / MEGABYTE:.0f} MB; at most {self.max_bytes / MEGABYTE:.0f} MB are read"
            raise DataError(path.name, what, fix="choose a smaller file")

    def _check_pixels(self, path: Path, pixels: int) -> None:
        if pixels > self.max_pixels:
            what = f"has {pixels:,} pixels; at most {self.max_pixels:,} are read"
            raise DataError(path.name, what, fix="scale it down")

    def new_folder(self) -> Path:
        """Return a new folder for results, after removing what is older than an hour."""
        self.remove_old()
        folder = self.folder / RESULTS / secrets.token_hex(16)
        folder.mkdir(parents=True)
        return folder

    def remove_old(self) -> None:
        """Remove the uploads and results of more than an hour ago, each of which is in a folder of its own."""
        before = time.time() - MAX_AGE
        for path in (*self.folder.glob("*"), *(self.folder / RESULTS).glob("*")):
            with contextlib.suppress(OSError):  # another thread may be removing it
                if path.name != RESULTS and path.stat().st_mtime < before:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def is_full(self) -> bool:
        """Return whether no upload is accepted until old files have been removed."""
        stored = 0
        for path in self.folder.rglob("*"):
            with contextlib.suppress(OSError):
                stored += path.stat().st_size
        return stored > self.max_stored_bytes
