"""The gate: what reaches Gradio, called as a server calls it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from utils.app.gate import Gate
from utils.app.uploads import Uploads

HTML = b"<html><head></head></html>"


def call(gate: Gate, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    given = {"host": "127.0.0.1:7860", **{name.replace("_", "-"): value for name, value in headers.items()}}
    encoded = [(name.encode(), value.encode()) for name, value in given.items()]
    asyncio.run(gate({"type": "http", "method": method, "path": path, "headers": encoded}, receive, send))
    fields = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], fields, b"".join(message.get("body", b"") for message in sent[1:])


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"26")]})
    await send({"type": "http.response.body", "body": HTML[:10], "more_body": True})
    await send({"type": "http.response.body", "body": HTML[10:]})


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(folder=tmp_path, max_stored_bytes=1000)


@pytest.fixture
def gate(uploads: Uploads) -> Gate:
    return Gate(application, uploads, lang="auto", local=True)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/zh/", 200),
        ("GET", "/en/assets/index.js", 200),
        ("GET", "/en/gradio_api/file=/tmp/a.png", 200),
        ("GET", "/report.html", 200),
        ("GET", "/en/gradio_api/file=http://example.org/", 404),
        ("GET", "/en/gradio_api/proxy=http://example.org/", 404),
        ("GET", "/fr/", 404),
        ("GET", "/en/gradio_api/custom_component/1/server/a/b", 404),
        ("POST", "/en/gradio_api/process_recording", 404),
        ("POST", "/en/", 404),
        ("DELETE", "/en/gradio_api/upload", 404),
        ("GET", "/en/monitoring", 404),
    ],
)
def test_only_what_the_page_needs(gate: Gate, method: str, path: str, status: int) -> None:
    assert call(gate, method, path)[0] == status


def test_a_name_that_leads_here_is_refused_on_loopback_only(gate: Gate, uploads: Uploads) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil:1", ""):
        assert call(gate, "GET", "/en/", host=host)[0] == 403
    for host in ("localhost", "[::1]:7860"):
        assert call(gate, "GET", "/en/", host=host)[0] == 200
    assert call(Gate(application, uploads, lang="auto", local=False), "GET", "/en/", host="192.168.0.7")[0] == 200


@pytest.mark.parametrize(("accepted", "lang"), [("zh-CN,zh;q=0.9", "zh"), ("ZH", "zh"), ("en-US,zh", "en"), ("", "en")])
def test_the_first_page_has_the_language_of_the_browser(gate: Gate, accepted: str, lang: str) -> None:
    status, headers, _ = call(gate, "GET", "/", accept_language=accepted)
    assert (status, headers["location"]) == (307, f"/{lang}/")


def test_the_flag_decides_the_language(uploads: Uploads) -> None:
    _, headers, _ = call(Gate(application, uploads, lang="zh", local=True), "GET", "/", accept_language="en")
    assert headers["location"] == "/zh/"


def test_pages_get_a_policy_and_the_language_of_gradios_words(gate: Gate) -> None:
    _, headers, body = call(gate, "GET", "/zh/")
    assert b'"zh-CN"' in body and body.startswith(HTML[:12]) and body.endswith(HTML[12:])
    assert headers["content-length"] == str(len(body))
    assert "content-security-policy" in headers
    assert call(gate, "GET", "/zh/config")[2] == HTML


def test_bodies_are_limited(gate: Gate, uploads: Uploads) -> None:
    join, upload = "/en/gradio_api/queue/join", "/en/gradio_api/upload"
    assert call(gate, "POST", join, content_length="100")[0] == 200
    for length in ("1000001", "", "-1", "1e3", "9" * 40, "²"):
        assert call(gate, "POST", join, content_length=length)[0] == 413
    assert call(gate, "POST", upload, content_length="1000")[0] == 200
    assert call(gate, "POST", upload, content_length="1001")[0] == 413
    (uploads.folder / "a").write_bytes(bytes(1001))
    assert call(gate, "POST", upload, content_length="10")[0] == 507
