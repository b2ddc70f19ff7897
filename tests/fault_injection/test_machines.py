"""One training on two machines, whose link is slow and loses packets, and of which one dies, hangs or is cut off."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.target_process import TIMEOUT, fingerprints, finish, start, torchrun
from tests.helpers.training_runs import SMALL_MODEL
from tests.helpers.two_nodes import Node, available, two_nodes
from utils.weights.checkpoint import load_checkpoint

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not available(), reason="needs root, network namespaces and tun devices"),
]
SILENCE = 10  # seconds, --dist-timeout
PROMISED = SILENCE + 35  # torchrun itself gives its processes 30 seconds to end


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    """Two machines 20 ms apart, in each direction; one packet in a hundred is lost."""
    with two_nodes(delay=0.02, loss=0.01) as pair:
        yield pair


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with AKConv and dropout."""
    path = tmp_path_factory.mktemp("model") / "small.yaml"
    text = SMALL_MODEL.replace(
        "[-1, 1, Conv, [16, 3, 2]]", "[-1, 1, AKConv, [16, 5, 2]]\n  - [-1, 1, nn.Dropout2d, [0.3]]"
    )
    path.write_text(text.replace("[[1, 2]", "[[1, 3]"))
    assert "AKConv" in path.read_text() and "Dropout" in path.read_text()
    return path


def arguments(data: Path, recipe: Path, model: Path, *, epochs: int) -> tuple[object, ...]:
    settings: dict[str, object] = {"cfg": model, "data": data, "hyp": recipe, "epochs": epochs, "imgsz": 64}
    settings |= {"batch-size": 4, "device": "cpu", "workers": 0, "dist-timeout": SILENCE}
    return (*(word for name, value in settings.items() for word in (f"--{name}", value)), "--noplots", "--sync-bn")


def training(
    nodes: tuple[Node, Node], folder: Path, last: Path, *words: object, **settings: int
) -> list[subprocess.Popen[str]]:
    """Start a training on both machines, which share no folder, and return once it has saved."""
    runs = [node.torchrun(folder / node.name, *words, **settings) for node in nodes]
    deadline = time.monotonic() + 300
    while not last.exists():
        assert time.monotonic() < deadline and all(run.poll() is None for run in runs)
        time.sleep(0.1)
    return runs


def errors(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("error: ")]


def ends(node: Node, run: subprocess.Popen[str], *, within: float) -> tuple[int, str]:
    """Wait for one machine's part to end, with nothing left of it; return its exit code and its only line."""
    _, stderr = run.communicate(timeout=within)
    assert not node.processes()
    lines = errors(stderr)
    assert len(lines) == 1, stderr[-3000:]
    assert "Traceback" not in stderr.split("torch/distributed")[0] and "[rank" not in stderr
    return run.returncode, lines[0]


def only_torchrun_is_left(node: Node, run: subprocess.Popen[str]) -> None:
    """Wait until the training has ended on a machine that does not reach the rendezvous.

    torchrun itself waits until the operating system gives up the connection, in Linux after a quarter of an hour.
    """
    deadline = time.monotonic() + PROMISED
    while node.processes() != {run.pid}:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_machines_compute_the_bits_of_two_processes_on_one(
    nodes: tuple[Node, Node], data: Path, recipe: Path, model: Path, tmp_path: Path
) -> None:
    words = arguments(data, recipe, model, epochs=3)
    finish(start(tmp_path, *words, prefix=torchrun()))
    runs = [node.torchrun(tmp_path / node.name, *words) for node in nodes]
    for run in runs:
        finish(run)
    expected = fingerprints(tmp_path / "runs/train/exp")
    assert fingerprints(tmp_path / "node1/runs/train/exp") == expected
    assert not (tmp_path / "node2/runs").exists()


@pytest.mark.parametrize("dies", ["all", "torchrun"])
def test_a_machine_that_dies_ends_the_run(
    dies: str, nodes: tuple[Node, Node], data: Path, recipe: Path, model: Path, tmp_path: Path
) -> None:
    last = tmp_path / "node1/runs/train/exp/weights/last.pt"
    words = arguments(data, recipe, model, epochs=500)
    first, second = training(nodes, tmp_path, last, *words, processes=2 if dies == "all" else 1)
    if dies == "all":
        nodes[1].signal(signal.SIGKILL)
    else:
        second.kill()
    code, _ = ends(nodes[0], first, within=PROMISED)
    assert code == 1 and load_checkpoint(last)["progress"]["epoch"] >= 1
    deadline = time.monotonic() + PROMISED
    while nodes[1].processes():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("number", [0, 1])
def test_a_machine_that_hangs_ends_the_run_and_ends_itself_once_it_goes_on(
    number: int, nodes: tuple[Node, Node], data: Path, recipe: Path, model: Path, tmp_path: Path
) -> None:
    last = tmp_path / "node1/runs/train/exp/weights/last.pt"
    runs = training(nodes, tmp_path, last, *arguments(data, recipe, model, epochs=500))
    nodes[number].signal(signal.SIGSTOP)
    if number == 1:
        assert ends(nodes[0], runs[0], within=PROMISED)[0] == 1
    else:
        only_torchrun_is_left(nodes[1], runs[1])
    nodes[number].signal(signal.SIGCONT)
    for node, run in [*zip(nodes, runs, strict=True)][number:]:
        assert ends(node, run, within=PROMISED)[0] == 1


def test_a_cut_link_ends_both_parts(
    nodes: tuple[Node, Node], data: Path, recipe: Path, model: Path, tmp_path: Path
) -> None:
    last = tmp_path / "node1/runs/train/exp/weights/last.pt"
    runs = training(nodes, tmp_path, last, *arguments(data, recipe, model, epochs=500))
    nodes[1].set_link("down")
    assert ends(nodes[0], runs[0], within=PROMISED)[0] == 1
    only_torchrun_is_left(nodes[1], runs[1])
    nodes[1].set_link("up")
    assert ends(nodes[1], runs[1], within=PROMISED)[0]


def test_a_machine_that_died_is_replaced_and_the_run_goes_on_to_the_same_bits(
    nodes: tuple[Node, Node], data: Path, recipe: Path, model: Path, tmp_path: Path
) -> None:
    words = arguments(data, recipe, model, epochs=10)
    finish(start(tmp_path, *words, prefix=torchrun()))
    last = tmp_path / "node1/runs/train/exp/weights/last.pt"
    first, second = training(nodes, tmp_path, last, *words, restarts=2)
    nodes[1].signal(signal.SIGKILL)
    second.wait()
    another = nodes[1].torchrun(tmp_path / "node2", *words, restarts=2)
    for run, lost in ((first, 1), (another, 0)):
        _, stderr = run.communicate(timeout=TIMEOUT)
        assert run.returncode == 0 and len(errors(stderr)) == lost, stderr[-3000:]
    assert fingerprints(last.parent.parent) == fingerprints(tmp_path / "runs/train/exp")
    assert [path.name for path in (tmp_path / "node1/runs/train").iterdir()] == ["exp"]


@pytest.mark.parametrize("missing", [0, 1])
def test_data_that_one_machine_lacks_are_reported_on_both(
    missing: int, nodes: tuple[Node, Node], data: Path, recipe: Path, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "set"
    shutil.copytree(data.parent, copy)
    text = (copy / data.name).read_text()
    (copy / data.name).write_text(
        "".join(line for line in text.splitlines(True) if not line.startswith(("generator", "  ")))
    )
    (tmp_path / "here.yaml").write_text((copy / data.name).read_text().replace("path:", "#") + f"path: {copy}/shapes\n")
    words = arguments(tmp_path / "here.yaml", recipe, model, epochs=2)
    runs = [
        node.torchrun(tmp_path / node.name, *words, hidden=copy if number == missing else None)
        for number, node in enumerate(nodes)
    ]
    lines = []
    for node, run in zip(nodes, runs, strict=True):
        code, line = ends(node, run, within=600)
        assert code
        lines.append(line)
    assert lines[0] == lines[1] and f"node{missing + 1}" in lines[0] and str(copy) in lines[0]


def test_data_that_differ_are_reported_on_both(
    nodes: tuple[Node, Node], data: Path, recipe: Path, model: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(data.parent, changed)
    next(changed.rglob("labels/train/*.txt")).write_text("0 0.5 0.5 0.25 0.25\n")
    runs = [
        node.torchrun(tmp_path / node.name, *arguments(each, recipe, model, epochs=2))
        for node, each in zip(nodes, (data, changed / data.name), strict=True)
    ]
    lines = [ends(node, run, within=600)[1] for node, run in zip(nodes, runs, strict=True)]
    assert lines[0].partition(": ")[2].partition(": ")[2] == lines[1].partition(": ")[2].partition(": ")[2]
    assert "node2" in lines[0]
