"""Fetch an image from its web address."""

from __future__ import annotations

import base64
import http.client
import re
import urllib.error
import urllib.request
from urllib.parse import unquote, urlsplit

from utils.errors import DataError

MAX_DOWNLOAD_BYTES = 64_000_000
DOWNLOAD_SECONDS = 15
WEB_SCHEMES = ("http://", "https://")


def fetch(url: str) -> bytes:
    """Download a file over http or https; DataError if it fails, or the file is too large."""
    where = public_address(url)
    opener = urllib.request.OpenerDirector()  # http and https only: no local files or ftp, even after a redirection
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    try:
        with opener.open(_request(url), timeout=DOWNLOAD_SECONDS) as response:
            data: bytes = response.read(MAX_DOWNLOAD_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error))[:80]
        status = f"{error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise DataError(where, f"cannot be fetched ({status}{reason})", fix="check the address") from error
    if len(data) > MAX_DOWNLOAD_BYTES:
        raise DataError(where, f"is larger than {MAX_DOWNLOAD_BYTES:,} bytes", fix="download it and pass the file")
    return data


def _request(url: str) -> urllib.request.Request:
    """Return the request of an address; a user and password in it are sent as basic authentication."""
    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host, fragment="").geturl())  # noqa: S310 - only http(s) is opened
    if credentials:
        encoded = base64.b64encode(unquote(credentials).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {encoded}")
    return request


def public_address(url: str) -> str:
    """Return an address without credentials, query and fragment."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{re.split('[?#]', rest.rpartition('@')[2])[0]}"  # a password may contain ? # @ /


def file_name(url: str) -> str:
    """Return the file name at the end of an address, "" if it has none; ValueError if the address is invalid."""
    name = unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
    return re.sub(r"[/\\\0]", "_", name)
