"""Download a missing data set: `python -m utils.datasets.download coco128.yaml`.

Only archives, only over https, validated before anything is extracted. Commands in a yaml are never executed.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, BinaryIO, cast
from urllib.parse import urljoin, urlsplit

from tqdm import tqdm

from utils.cli import OneLineParser, run_script
from utils.datasets.archives import open_archive
from utils.datasets.catalog import DEFAULT_MAX_BYTES, KNOWN, DatasetPart, RemoteArchive, without_top_folder
from utils.datasets.config import DataConfig, load_data_config
from utils.datasets.convert.layout import FileEntry
from utils.errors import ConfigError, DataError, RunError
from utils.folders import atomic_write_folder
from utils.log import LOGGER

TIMEOUT_SECONDS = 60
MAX_REDIRECTS = 5
CHUNK_BYTES = 1_000_000
_PINNED = re.compile(r"sha256=([0-9a-fA-F]{64})")


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, only to https."""

    max_redirections = MAX_REDIRECTS

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage
    ) -> Any:  # noqa: ANN401 - as in the base class
        """Refuse other schemes before the base class opens the address."""
        target = headers.get("location") or headers.get("uri") or ""
        try:
            address = urlsplit(urljoin(req.full_url, target))
            is_address = bool(target and address.hostname) and address.port != 0
        except ValueError:
            is_address = False
        if not is_address:
            raise DataError(req.full_url, f"redirects to no address ({target[:60]!r})", fix="do not use it")
        if address.scheme != "https":
            raise DataError(req.full_url, f"redirects away from https (to {target[:60]!r})", fix="do not use it")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for https addresses only, not http, ftp, file or data."""
    opener = urllib.request.OpenerDirector()
    request = urllib.request
    handlers = (request.ProxyHandler(), request.HTTPSHandler(), _HttpsOnly(), request.HTTPErrorProcessor())
    for handler in (*handlers, request.HTTPDefaultErrorHandler()):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "akyolo"), ("Accept-Encoding", "identity")]
    return opener


def download(archive: RemoteArchive, file: BinaryIO) -> None:
    """Download an archive into a file open for writing, and verify its size and hash.

    Raises:
        DataError: not https, too large, shorter than announced, or of another hash.
        RunError: the server cannot be reached, or the disk is full.
    """
    digest = hashlib.sha256()
    for chunk in _chunks(archive):
        digest.update(chunk)
        try:
            file.write(chunk)
        except OSError as error:
            raise RunError(archive.url, f"cannot be saved ({error.strerror})", fix="free disk space") from error
    if not archive.sha256:
        LOGGER.info(f"SHA-256 of {archive.url}: {digest.hexdigest()} (not verified: no expected hash is known)")
    elif digest.hexdigest() != archive.sha256.lower():
        what = f"has SHA-256 {digest.hexdigest()}, not {archive.sha256}"
        raise DataError(archive.url, what, fix="do not use it, or correct the hash")


def _chunks(archive: RemoteArchive) -> Iterator[bytes]:
    """Yield the bytes of an archive from its server, with a progress bar, and verify their number."""
    if urlsplit(archive.url).scheme != "https":
        raise DataError(archive.url, "is not an https address", fix="correct `download`")
    too_large = DataError(archive.url, f"is larger than {archive.max_bytes:,} bytes", fix="do not use it")
    received = 0
    try:
        with _opener().open(archive.url, timeout=TIMEOUT_SECONDS) as response:
            announced = response.headers.get("Content-Length", "")
            length = int(announced) if announced.isascii() and announced.isdigit() else None
            if length is not None and length > archive.max_bytes:
                raise too_large
            LOGGER.info(f"Downloading {archive.url} ({f'{length / 1e6:.1f} MB' if length else 'unknown size'})")
            with tqdm(total=length, unit="B", unit_scale=True, leave=False, disable=None) as bar:
                while chunk := response.read(CHUNK_BYTES):
                    received += len(chunk)
                    if received > archive.max_bytes:
                        raise too_large
                    yield chunk
                    bar.update(len(chunk))
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a host name that cannot be encoded
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        what = f"cannot be downloaded ({reason[:100]})"
        raise RunError(archive.url, what, fix="check the connection and try again") from error
    if length is not None and received != length:
        raise DataError(archive.url, f"is truncated ({received:,} of {length:,} bytes)", fix="try again")


def fetch(config: DataConfig, *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
    """Download a missing data set into the folder of its yaml. The folder appears complete or not at all.

    Args:
        config: the data yaml. `download` names a known data set or an https address, which may end in `#sha256=` and
            the hash of the archive.
        max_bytes: largest archive accepted from an address.

    Raises:
        ConfigError: the yaml has no `download`, or its folder contains something else.
        DataError: the archive is refused, or does not contain the data set.
        RunError: the network or the disk fails.
    """
    if not _missing(config):
        LOGGER.info(f"{config.file}: the data set exists already")
        return
    if not config.download:
        what = "'download' is not an archive or data set that can be fetched"
        raise ConfigError(config.file, what, fix="download the data set yourself and correct `path`")
    folder = config.roots[0]
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        what = f"{folder} exists without {_missing(config)}"
        raise ConfigError(config.file, what, fix="move it away or correct `path`")
    parts = KNOWN.get(config.download) or (_part_of_address(config.download, max_bytes),)
    atomic_write_folder(folder, chain.from_iterable(part_entries(part, folder.parent) for part in parts))
    if missing := _missing(config):
        raise DataError(config.file, f"the download into {folder} has no {missing}", fix="correct the yaml's paths")
    LOGGER.info(f"{config.file}: downloaded into {folder}")


def _missing(config: DataConfig) -> str:
    """Return the first split whose files are missing, or ""."""
    for split, entries in config.splits.items():
        if entries:
            try:
                config.locate(split)
            except DataError:
                return split
    return ""


def _part_of_address(url: str, max_bytes: int) -> DatasetPart:
    """Return the only part of a data set that is one archive."""
    address, _, fragment = url.partition("#")
    pinned = _PINNED.fullmatch(fragment)
    if fragment and pinned is None:
        raise ConfigError("download", f"{fragment[:40]!r} is not `sha256=` and 64 digits", fix="correct `download`")
    archive = RemoteArchive(address, sha256=pinned[1] if pinned else "", max_bytes=max_bytes)
    return DatasetPart(archives=(archive,), convert=without_top_folder)


def part_entries(part: DatasetPart, folder: Path) -> Iterator[FileEntry]:
    """Yield the files of a part; its archives are temporary files in `folder`. Of equal names the first is used."""
    with contextlib.ExitStack() as stack:
        files: dict[str, Callable[[], bytes]] = {}
        for archive in part.archives:
            file = cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile(dir=folder)))
            download(archive, file)
            for name, read in open_archive(file, where=archive.url).items():
                files.setdefault(name, read)
        if not files:
            what = "has no images, labels or text files"
            raise DataError(part.archives[0].url, what, fix="check the address under `download`")
        yield from part.convert(files)


def main() -> None:
    """Download the data set of the yaml named on the command line."""
    parser = OneLineParser(prog="python -m utils.datasets.download", description=__doc__, allow_abbrev=False)
    parser.add_argument("data", help="data yaml, by path or name")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    fetch(load_data_config(parser.parse_args().data))


if __name__ == "__main__":
    run_script(main)
