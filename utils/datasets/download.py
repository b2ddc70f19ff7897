"""Fetch a missing data set: `python -m utils.datasets.download coco128.yaml`.

Only over https, only archives, checked before anything is taken out of them; what a yaml says is never run.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, cast
from urllib.parse import urljoin, urlsplit

from tqdm import tqdm

from utils.cli import OneLineParser, run_script
from utils.datasets.archives import open_archive
from utils.datasets.catalog import KNOWN, Part, Source, without_top_folder
from utils.datasets.config import DataConfig, load_data_config
from utils.datasets.convert.files import Joined
from utils.datasets.convert.layout import FileEntry
from utils.errors import ConfigError, DataError, RunError
from utils.files import atomic_write_folder
from utils.log import LOGGER

TIMEOUT_SECONDS = 60
MAX_REDIRECTS = 5
CHUNK_BYTES = 1_000_000
_PINNED = re.compile(r"sha256=([0-9a-fA-F]{64})")


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, and none away from https."""

    max_redirections = MAX_REDIRECTS

    def http_error_302(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
    ) -> Any:  # noqa: ANN401 - as in the base class
        """Refuse before the base class looks at the address."""
        target = headers.get("location") or headers.get("uri") or ""
        if urlsplit(urljoin(req.full_url, target)).scheme != "https":
            raise DataError(req.full_url, f"redirects away from https (to {target[:60]!r})", fix="do not use it")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that knows https and nothing else: no http, ftp, file or data addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(),
        _HttpsOnly(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "akyolo"), ("Accept-Encoding", "identity")]
    return opener


def download(source: Source, file: BinaryIO) -> None:
    """Copy what lies at an https address into a file open for writing, and check it.

    Raises:
        DataError: not https, larger than allowed, shorter than announced, or of another hash than it should be.
        RunError: the server cannot be reached, or the disk is full.
    """
    if urlsplit(source.url).scheme != "https":
        raise DataError(source.url, "is no https address", fix="correct `download`")
    digest = hashlib.sha256()
    try:
        with _opener().open(source.url, timeout=TIMEOUT_SECONDS) as response:
            length = _announced(response, source)
            LOGGER.info(f"Fetching {source.url} ({f'{length / 1e6:.1f} MB' if length else 'unknown size'})")
            with tqdm(total=length, unit="B", unit_scale=True, leave=False) as bar:
                received = 0
                while chunk := response.read(CHUNK_BYTES):
                    received += len(chunk)
                    if received > source.max_bytes:
                        raise DataError(source.url, f"is larger than {source.max_bytes:,} bytes", fix="do not use it")
                    digest.update(chunk)
                    _write(file, chunk)
                    bar.update(len(chunk))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise RunError(source.url, f"cannot be fetched ({reason})", fix="check the connection and try again") from error
    if length is not None and received != length:
        raise DataError(source.url, f"is truncated ({received:,} of {length:,} bytes)", fix="try again")
    if not source.sha256:
        LOGGER.info(f"SHA-256 of {source.url}: {digest.hexdigest()} (not known beforehand, so not checked)")
    elif digest.hexdigest() != source.sha256.lower():
        raise DataError(
            source.url,
            f"has SHA-256 {digest.hexdigest()}, not {source.sha256}",
            fix="do not use it, or correct the hash",
        )


def _announced(response: http.client.HTTPResponse, source: Source) -> int | None:
    """Return the length that the server announces, having checked it.

    Raises:
        DataError: more than allowed.
    """
    text = response.headers.get("Content-Length", "")
    length = int(text) if text.isascii() and text.isdigit() else None
    if length is not None and length > source.max_bytes:
        raise DataError(
            source.url, f"is larger than {source.max_bytes:,} bytes ({length:,} announced)", fix="do not use it"
        )
    return length


def _write(file: BinaryIO, chunk: bytes) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise RunError(tempfile.gettempdir(), f"cannot be written ({error.strerror})", fix="free space") from error


def fetch(config: DataConfig, *, max_bytes: int | None = None) -> None:
    """Fetch a data set that is not there, into the folder that its yaml names; it appears whole or not at all.

    Args:
        config: the data yaml; `download` says where from. An address may end in `#sha256=` and the hash of the archive.
        max_bytes: a bound on the archive of an address, in place of the usual 50 GB.

    Raises:
        ConfigError: the yaml has no `download`, or its folder holds something else.
        DataError: the archive is refused, or does not hold the set.
        RunError: the network or the disk fails.
    """
    if not config.download:
        raise ConfigError(config.file, "has no `download`", fix="fetch the set by hand and correct `path`")
    if not _missing(config):
        LOGGER.info(f"{config.file}: the data set is there already")
        return
    folder = config.roots[0]
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            config.file, f"{folder} exists without {_missing(config)}", fix="move it away or correct `path`"
        )
    parts = KNOWN.get(config.download) or (_from_address(config.download, max_bytes),)
    atomic_write_folder(folder, _entries(parts, folder.parent))
    if missing := _missing(config):
        raise DataError(config.file, f"what was fetched into {folder} lacks {missing}", fix="correct the yaml's paths")
    LOGGER.info(f"{config.file}: fetched into {folder}")


def _missing(config: DataConfig) -> str:
    """Return the first split that is given and not there, or ""."""
    for split, entries in config.splits.items():
        if entries:
            try:
                config.locate(split)
            except DataError:
                return split
    return ""


def _from_address(url: str, max_bytes: int | None) -> Part:
    """Return the one part of a set that is an archive somewhere."""
    address, _, fragment = url.partition("#")
    pinned = _PINNED.fullmatch(fragment)
    if fragment and pinned is None:
        raise ConfigError("download", f"{fragment[:40]!r} is no `sha256=` and 64 digits", fix="correct `download`")
    source = Source(url=address, sha256=pinned[1] if pinned else "")
    if max_bytes is not None:
        source = Source(url=address, sha256=source.sha256, max_bytes=max_bytes)
    return Part(sources=(source,), convert=without_top_folder)


def _entries(parts: Sequence[Part], place: Path) -> Iterator[FileEntry]:
    """Yield all files of a data set, part by part; a part's archives are nameless files that go when it is done."""
    for part in parts:
        with contextlib.ExitStack() as stack:
            archives = []
            for source in part.sources:
                file = cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile(dir=place)))
                download(source, file)
                archives.append(open_archive(file, where=source.url))
                if archives[-1].left_out:
                    LOGGER.info(
                        f"{source.url}: {archives[-1].left_out} files that are no data were left in the archive"
                    )
            yield from part.convert(Joined(archives))


def main() -> None:
    """Fetch the set of the data yaml named on the command line."""
    parser = OneLineParser(prog="python -m utils.datasets.download", description=__doc__, allow_abbrev=False)
    parser.add_argument("data", help="data yaml, by path or bare name")
    parser.add_argument("--debug", action="store_true", help="show the full trace of an error")
    fetch(load_data_config(parser.parse_args().data))


if __name__ == "__main__":
    run_script(main)
