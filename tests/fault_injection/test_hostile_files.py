"""Hostile files given to the real commands, without a network and under an audit hook.

Nothing is executed, no program started, no byte written outside the run's folder and the cache, no connection made.
"""

import io
import itertools
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import https_server
from tests.helpers.data_oracles import tree_hash
from tests.helpers.faulty_data import FaultySet
from tests.helpers.forked_scripts import ISOLATED, ForkedScripts, Outcome, can_isolate, forked_scripts
from tests.helpers.hostile_archives import HOSTILE, tarred, zipped
from tests.helpers.hostile_pickles import corpus
from tests.helpers.small_model import small_checkpoint
from tests.helpers.training_runs import SMALL_MODEL
from utils.files import PROJECT_ROOT
from utils.strict_yaml import dump_yaml, load_yaml

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not can_isolate(), reason="needs Linux and the right to make network namespaces"),
]
PORT = 8443  # free: the namespace has no other programs
TOUCH = "touch executed"
CODE = [
    f"__import__('os').system('{TOUCH}')",
    f"__import__('subprocess').run('{TOUCH}', shell=True)",
    "open('executed', 'w')",
    "__import__('pathlib').Path('executed').touch()",
    "torch.save({}, 'executed')",
    "getattr(__builtins__, 'open')('executed', 'w')",
    "().__class__.__base__.__subclasses__()[104].load_module('os').mkdir('executed')",
    "nn.Module.__init__.__globals__['__builtins__']['open']('executed', 'w')",
    "__import__('socket').create_connection(('localhost', 8443))",
    "__import__('urllib.request').request.urlopen('https://localhost:8443/')",
]
WRAPPED = ["{}", "(lambda: {})()", "[{} for _ in (1,)]", "exec({!r})", "eval(compile({!r}, '', 'eval'))", "f'{{{}}}'"]
PAYLOADS = [wrap.format(code) for code, wrap in itertools.product(CODE, WRAPPED)]
COMMANDS = [
    *(TOUCH, f"bash -c '{TOUCH}'", "bash data/scripts/get.sh", "curl https://localhost:8443/a.zip -o executed"),
    *("import os; os.mkdir('executed')", 'python -c \'open("executed", "w")\'', f"a.zip; {TOUCH}", f"$({TOUCH})"),
    *("file:///etc/passwd", "http://localhost:8443/a.zip"),
]


def in_cfg(place: str, payload: str) -> dict:
    """A small model yaml with a payload in one place."""
    value = {"nc": 3, "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]], "head": [[[1, 2], 1, "Detect", []]]}
    row: list = [-1, 1, "Conv", [16, 3, 2]]
    if place == "module":
        row[2] = payload
    elif place == "argument":
        row[3] = [16, payload]
    elif place == "from":
        row[0] = payload
    elif place == "keyword":
        row[3] = [16, 3, {"s": payload}]
    value["backbone"] = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]], row]
    return {**value, **({place: payload} if place in ("activation", "anchors") else {})}


@pytest.fixture(scope="module")
def server() -> Iterator[ForkedScripts]:
    """Commands in a network namespace of their own, whose only host is `localhost`."""
    with forked_scripts(
        prefix=ISOLATED, env={"LOOPBACK": "1", "SSL_CERT_FILE": str(https_server.CERTIFICATE)}
    ) as server:
        yield server


class Place:
    """A folder with everything, in which a command may write `runs` and the cache only."""

    def __init__(self, folder: Path, server: ForkedScripts) -> None:
        self.folder, self.server = folder, server
        for name in ("home", "cache", "tmp"):
            (folder / name).mkdir()
        good = FaultySet(folder / "good", sizes={"train": 2, "val": 2})
        good.write_yaml(names=["car", "bus", "bike"])
        (folder / "small.yaml").write_text(SMALL_MODEL)
        small_checkpoint(folder / "best.pt", "yolov5n.yaml")

    def run(self, command: str, *writable: str) -> Outcome:
        """Run a command, and check that nothing else has changed."""
        env = {"HOME": str(self.folder / "home"), "XDG_CACHE_HOME": str(self.folder / "cache")}
        env["TMPDIR"] = str(self.folder / "tmp")
        allowed = [str(self.folder / name) for name in ("runs", "cache", "tmp", *writable)]
        before = self.hashes(writable)
        outcome = self.server.run(command.split(), cwd=self.folder, env=env, audit=allowed, timeout=600)
        assert self.hashes(writable) == before, command
        assert not [*self.folder.rglob("executed")], command
        return outcome

    def hashes(self, writable: tuple[str, ...]) -> dict[str, str]:
        left_out = {"runs", "cache", "tmp", *writable}
        return {
            p.name: tree_hash(p) if p.is_dir() else p.read_bytes().hex()
            for p in self.folder.iterdir()
            if p.name not in left_out
        }


@pytest.fixture(scope="module")
def place(server: ForkedScripts, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"), server)


def refused(outcome: Outcome, about: object) -> None:
    assert outcome.code in (1, 2) and outcome.events == [], (about, outcome)
    assert len(outcome.errors) == 1 and outcome.errors[0].startswith("error: "), (about, outcome)


def test_the_audit_hook_sees_what_payloads_do(place: Place) -> None:
    (place.folder / "plugin.py").write_text(
        f"{CODE[0]}\nopen('opened', 'w')\nimport socket\nsocket.socket().connect(('localhost', 1))"
    )
    try:
        outcome = place.server.run(
            "val.py --weights best.pt --data good/data.yaml --plugins plugin.py".split(), cwd=place.folder, audit=[]
        )
        assert {name for name, _ in outcome.events} >= {"os.system", "open", "socket.connect"}
        assert (place.folder / "executed").exists() and (place.folder / "opened").exists()
    finally:
        for name in ("executed", "opened", "plugin.py"):
            (place.folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize("where", ["module", "argument", "activation", "anchors", "from", "keyword"])
def test_code_in_a_model_yaml(where: str, place: Place) -> None:
    assert len(set(PAYLOADS)) == 60
    for payload in PAYLOADS:
        dump_yaml(place.folder / "cfg.yaml", in_cfg(where, payload))
        refused(place.run("-m models --cfg cfg.yaml"), payload)


def test_pickles(place: Place) -> None:
    buffer = io.BytesIO()
    torch.save({"model": torch.nn.Conv2d(30, 40, 3), "epoch": 3}, buffer)
    cases = corpus(buffer.getvalue())
    assert len(cases) >= 200
    for label, data, _ in cases:
        (place.folder / "hostile.pt").write_bytes(data)
        refused(place.run("detect.py --weights hostile.pt --source good/images/val --device cpu"), label)
    (place.folder / "hostile.pt").unlink()


def test_commands_under_download(place: Place) -> None:
    forms = ("{}", "|\n  {}", "[{!r}]")
    for command, form in itertools.product(COMMANDS, forms):
        text = form.format(command)
        text = json.dumps(command) if form == "{}" else text
        (place.folder / "data.yaml").write_text(f"path: absent\ntrain: a\nval: a\nnames: [a]\ndownload: {text}\n")
        refused(place.run("train.py --data data.yaml --cfg small.yaml --download"), (command, form))


def caches(honest: bytes, folder: Path) -> dict[str, Callable[[Path], object]]:
    """Ways to replace a label cache: each writes something into its place."""
    with np.load(io.BytesIO(honest)) as stored:
        arrays = dict(stored)

    def changed(**changes: object) -> Callable[[Path], object]:
        kept = {name: value for name, value in {**arrays, **changes}.items() if value is not None}
        return lambda file: np.savez(file, **kept)

    class Executed:
        def __reduce__(self) -> tuple:
            return Path.touch, (folder / "executed",)

    objects = np.array([Executed()], dtype=object)
    pickled = io.BytesIO()
    np.save(pickled, objects, allow_pickle=True)
    count = len(arrays["labels"])
    return {
        "empty": lambda file: file.write_bytes(b""),
        "half": lambda file: file.write_bytes(honest[: len(honest) // 2]),
        "noise": lambda file: file.write_bytes(np.random.default_rng(0).bytes(5000)),
        "a bare array of objects": lambda file: file.write_bytes(pickled.getvalue()),
        "a program": lambda file: file.write_bytes(f"#!/bin/sh\n{TOUCH}\n".encode()),
        "a folder": lambda file: file.mkdir(),
        "a link": lambda file: file.symlink_to("/etc/passwd"),
        "other files": lambda file: file.write_bytes(zipped(("../executed", b"x"), ("labels.npy", b"x"))),
        "compressed a thousandfold": lambda file: file.write_bytes(zipped(("labels.npy", bytes(50_000_000)))),
        "no labels": changed(labels=None),
        "more arrays": changed(executed=np.zeros(1)),
        **{f"objects as {name}": changed(**{name: objects}) for name in ("paths", "labels", "notes", "skipped")},
        "labels that are not numbers": changed(labels=np.full((count, 5), np.nan, np.float32)),
        "starts that fall": changed(starts=arrays["starts"][::-1]),
        "starts beyond the labels": changed(starts=arrays["starts"] + 2**40 * (arrays["starts"] > 0)),
        "paths in other places": changed(paths=np.array(["/etc/passwd", "../../x"])[:, None]),
        "sizes of text": changed(sizes_hw=np.full((2, 2), "x")),
        "points without end": changed(points=np.zeros((10**6, 2), np.float32)),
    }


def test_label_caches(place: Place) -> None:
    command = (
        "val.py --weights best.pt --data good/data.yaml --imgsz 64 --device cpu --workers 0 --noplots --engine torch"
    )
    expected = place.run(command)
    assert expected.code == 0, expected.err
    (file,) = (place.folder / "cache").rglob("labels/val-*.npz")
    honest = file.read_bytes()
    ways = caches(honest, place.folder)
    assert len(ways) >= 20
    for label, write in ways.items():
        file.unlink()
        write(file)
        outcome = place.run(command)
        assert outcome.code == 0 and outcome.events == expected.events, (label, outcome)
        assert not outcome.errors and (str(file) in outcome.err or label == "paths in other places"), (label, outcome)
        if file.is_dir():
            file.rmdir()
        assert file.is_file() or not file.exists(), label
        if not file.exists() or file.is_symlink():
            file.unlink(missing_ok=True)
            file.write_bytes(honest)


SERVER = """
import sys, json
sys.path.insert(0, {root!r})
from tests.fault_injection.test_hostile_files import serve_until_closed
serve_until_closed()
"""


def respond(length: int | None, body: bytes, handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(body)


def pages() -> dict[str, object]:
    """What the hostile server has under each address."""
    good = zipped(("images/train/a.txt", b"x"), ("images/val/a.txt", b"x"))
    result: dict[str, object] = {
        "server/redirect to http": f"http://localhost:{PORT + 1}/a.zip",
        "server/redirect to a file": "file:///etc/passwd",
        "server/redirect elsewhere": "https://example.org/a.zip",
        "server/redirect without end": "https://localhost:8443/server/redirect%20without%20end.zip",
        "server/truncated": partial(respond, len(good) + 100, good),
        "server/far too large": partial(respond, 10**15, good),
        "server/a page": b"<html>sign in</html>",
        "server/no answer": lambda handler: None,
        "server/a tar of links": tarred(("images/a", b"x")) + b"\xff" * 512,
    }
    result |= {f"archive/{name}": make() for name, make in HOSTILE.items() if "too many" not in name}
    return {f"/{name.replace(' ', '%20')}.zip": page for name, page in result.items()}


def serve_until_closed() -> None:
    """Serve the pages until stdin ends; print how many requests came to the other port, which nobody may ask."""
    server = https_server.Server(("127.0.0.1", PORT), https_server.Answers)
    server.pages, server.asked = pages(), []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(https_server.CERTIFICATE)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    plain = https_server.Server(("127.0.0.1", PORT + 1), https_server.Answers)
    plain.pages, plain.asked = {}, []
    for each in (server, plain):
        threading.Thread(target=each.serve_forever, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    print(len(server.asked), len(plain.asked), flush=True)


def test_servers_and_archives(place: Place) -> None:
    enter = ["nsenter", "--net", "--target", str(place.server.process.pid)]
    command = [*enter, sys.executable, "-c", SERVER.format(root=str(PROJECT_ROOT))]
    addresses = pages()
    assert len(addresses) >= 33
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hostile:
        assert hostile.stdout is not None and hostile.stdout.readline() == "ready\n"
        for number, page in enumerate(addresses):
            # A folder of its own, in which the data set would appear.
            text = f"path: sets/{number}\ntrain: images/train\nval: images/val\nnames: [a]\n"
            (place.folder / "data.yaml").write_text(f"{text}download: https://localhost:{PORT}{page}\n")
            outcome = place.run("-m utils.datasets.download data.yaml", "sets")
            reached = [event for event in outcome.events if str(PORT) in event[1]]
            elsewhere = [event for event in outcome.events if event not in reached]
            assert reached and (not elsewhere or "redirect%20elsewhere" in page), (page, outcome)
            assert outcome.code in (1, 2) and len(outcome.errors) == 1, (page, outcome)
            assert not [*(place.folder / "sets").iterdir()], page
        asked, others = hostile.communicate("")[0].split()
    assert int(asked) >= len(addresses) and int(others) == 0


def test_hyperparameters_and_sources(place: Place) -> None:
    standard = load_yaml(PROJECT_ROOT / "data/hyps/hyp.scratch-low.yaml")
    for payload in CODE:
        dump_yaml(place.folder / "hyp.yaml", {**standard, "lr0": payload})
        refused(place.run("train.py --data good/data.yaml --cfg small.yaml --hyp hyp.yaml"), payload)
        source = payload.replace(" ", "")
        refused(place.run(f"detect.py --weights best.pt --device cpu --source {source}"), payload)
