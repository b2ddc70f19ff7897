"""What the server lets through to Gradio: only what the page needs, from this machine's pages, within limits."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from utils.app.uploads import Uploads

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

# Gradio also fetches web addresses, forwards requests and records; none of it is needed here.
_GET = re.compile(
    r"/report\.html|/(zh|en)/(config|theme\.css|(assets|static|svelte)/.*|favicon\.ico|manifest\.json)?"
    r"|/(zh|en)/gradio_api/(info|startup-events|app_id|theme\.css|queue/data|upload_progress|heartbeat/\w+|file=/.*"
    r"|call/\w+/\w+)"
)
_POST = re.compile(r"/(zh|en)/gradio_api/(queue/join|cancel|reset|upload|call/\w+)/?")
_PAGE = re.compile(r"/(zh|en)/")
_LOCAL = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")
MAX_BODY = 1_000_000  # bytes of a request that is not an upload
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"  # nothing from elsewhere
)
NAVIGATOR = '<script>Object.defineProperty(navigator, "language", {{get: () => "{}"}});</script>'


class Gate:
    """An ASGI application around another."""

    def __init__(self, app: Application, uploads: Uploads, *, lang: str, local: bool) -> None:
        """Wrap an application.

        Args:
            app: the application.
            uploads: its folder of uploads.
            lang: language of the page at `/`, or `auto`: the browser's.
            local: the server listens on this machine only. Then requests must name it: otherwise a page from elsewhere,
                whose name is made to lead here, could read the answers.
        """
        self._app, self._uploads, self._lang, self._local = app, uploads, lang, local

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method, path = scope["method"], scope["path"]
        if self._local and not _LOCAL.fullmatch(headers.get("host", "")):
            await _answer(send, 403, "this page is for the machine on which it runs")
        elif path == "/" and method in ("GET", "HEAD"):
            await _answer(send, 307, "", location=f"/{self._language(headers.get('accept-language', ''))}/")
        elif method in ("GET", "HEAD") and _GET.fullmatch(path):
            await self._app(scope, receive, _translating(send, path[1:3]) if _PAGE.fullmatch(path) else send)
        elif method == "POST" and _POST.fullmatch(path):
            is_upload = path.rstrip("/").endswith("/upload")
            length = headers.get("content-length", "")
            room = self._uploads.max_stored_bytes if is_upload else MAX_BODY
            if not re.fullmatch(r"[0-9]{1,15}", length) or int(length) > room:
                await _answer(send, 413, "the request is too large")
            elif is_upload and self._is_full():
                await _answer(send, 507, "too many files are stored; try again later")
            else:
                await self._app(scope, receive, send)
        else:
            await _answer(send, 404, "there is no such page")

    def _language(self, accepted: str) -> str:
        if self._lang != "auto":
            return self._lang
        return "zh" if re.match(r"\s*zh\b", accepted, re.IGNORECASE) else "en"

    def _is_full(self) -> bool:
        self._uploads.remove_old()
        return self._uploads.is_full()


async def _answer(send: Send, status: int, text: str, **headers: str) -> None:
    fields = {"content-type": "text/plain; charset=utf-8", **headers}
    encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": text.encode()})


def _translating(send: Send, lang: str) -> Send:
    """Return a `send` that puts Gradio's own words, those of the browser, in a language, and adds a policy."""
    held: list[Message] = []
    body = bytearray()

    async def translated(message: Message) -> None:
        if message["type"] == "http.response.start":
            held.append(message)
            return
        body.extend(message.get("body", b""))
        if message.get("more_body"):
            return
        start = held.pop()
        script = NAVIGATOR.format({"zh": "zh-CN"}.get(lang, lang)).encode()
        content = bytes(body).replace(b"<head>", b"<head>" + script, 1)
        headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        headers += [(b"content-length", str(len(content)).encode()), (b"content-security-policy", POLICY.encode())]
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return translated
