"""The server of app.py: its folder of uploads, what it answers, and how it ends."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from pathlib import Path

from utils.app.browse import REPORT, open_comparison
from utils.app.gate import Gate
from utils.app.models import open_models
from utils.app.uploads import MEGABYTE, Uploads
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.options.app import AppOptions
from utils.plugins import load_plugins
from utils.signals import GracefulShutdown

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LANGUAGES = ("en", "zh")
SECONDS_TO_CLOSE = 2


def run_app(options: AppOptions) -> None:
    """Serve the page until Ctrl-C or SIGTERM, then remove all uploads.

    Raises:
        DetectorError: weights or the comparison cannot be used, gradio is missing, or the port is not free.
    """
    load_plugins(options.plugins)
    models = open_models(options.weights)
    comparison = open_comparison(Path(options.comparison)) if options.comparison else None
    folder = Path(tempfile.mkdtemp(prefix="akyolo-app-"))
    uploads = Uploads(folder=folder, max_bytes=options.upload_mb * MEGABYTE)
    # Gradio reads these when it is imported.
    os.environ.update(GRADIO_TEMP_DIR=str(folder), GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")
    try:
        with GracefulShutdown() as shutdown, _listen(options.host, options.port) as listening:
            try:
                import gradio as gr
                import uvicorn
                from fastapi import FastAPI
                from fastapi.responses import FileResponse

                from utils.app.page import build_page
                from utils.app.widgets import STYLE, theme
            except ImportError as error:
                fix = "install it: pip install -r requirements-app.txt"
                raise ConfigError("app.py", f"{error.name} is not installed", fix=fix) from error
            app = FastAPI(openapi_url=None)
            if comparison is not None:
                report = comparison.folder / REPORT
                app.get(f"/{REPORT}")(lambda: FileResponse(report, media_type="text/html"))
            off = {name: False for name in ("run_history", "ssr_mode", "mcp_server", "enable_monitoring")}
            look = {"theme": theme(), "css": STYLE, "footer_links": []}
            for lang in LANGUAGES:
                page = build_page(models, uploads, comparison, lang=lang)
                app = gr.mount_gradio_app(app, page, f"/{lang}", max_file_size=uploads.max_bytes, **off, **look)
            gate = Gate(app, uploads, lang=options.lang, local=options.host in LOOPBACK)
            config = uvicorn.Config(gate, log_level=logging.ERROR, timeout_graceful_shutdown=SECONDS_TO_CLOSE)
            host, port = listening.getsockname()[:2]
            if options.host not in LOOPBACK:
                LOGGER.warning(
                    f"--host {options.host}: anyone who reaches this address can use the page and its models"
                )
            LOGGER.info(f"http://{'localhost' if host in LOOPBACK else host}:{port}  (Ctrl-C stops it)")
            uvicorn.Server(config).run(sockets=[listening])
            LOGGER.info("stopped" if shutdown.signal else "ended")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; ConfigError if the address cannot be used."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError("--port", f"{host}:{port} cannot be used ({reason})", fix="choose another --port") from error
