"""Two machines as network namespaces, joined by a link that delays and loses packets, or is cut.

Kernels are often built without `tc netem`, so a thread carries the packets between two tun devices: each waits, and a
seeded part of them is lost. It needs root.
"""

import contextlib
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.training_runs import ROOT

ADDRESSES = ("10.87.0.1", "10.87.0.2")
PORT = 29871
MTU = 9000
_NEW_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # without it torchrun 2.14 cannot replace a machine
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def available() -> bool:
    """Whether this system lets namespaces and tun devices be made."""
    if os.geteuid() or not Path("/dev/net/tun").exists():
        return False
    name = f"probe{os.getpid()}"
    with contextlib.suppress(OSError):
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
        return made and subprocess.run(["ip", "netns", "del", name]).returncode == 0
    return False


class Node:
    """One machine; its host name is `node1` or `node2`."""

    def __init__(self, number: int) -> None:
        self.name, self.address = f"node{number}", ADDRESSES[number - 1]
        self.namespace, self.device = f"ak{os.getpid()}n{number}", f"ak{os.getpid()}t{number}"
        self._ip("netns", "add", self.namespace)
        self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.tun, _TUNSETIFF, struct.pack("16sH22x", self.device.encode(), _IFF_TUN | _IFF_NO_PI))
        self._ip("link", "set", self.device, "netns", self.namespace)
        inside = ("-n", self.namespace)
        self._ip(*inside, "addr", "add", f"{self.address}/24", "dev", self.device)
        self._ip(*inside, "link", "set", self.device, "mtu", str(MTU), "up")
        self._ip(*inside, "link", "set", "lo", "up")

    @staticmethod
    def _ip(*words: str) -> str:
        return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout

    def set_link(self, state: str) -> None:
        """Pull the plug (`down`) or put it back (`up`)."""
        self._ip("-n", self.namespace, "link", "set", self.device, state)

    def processes(self) -> set[int]:
        """Ids of all processes on this machine, except zombies."""
        pids = map(int, self._ip("netns", "pids", self.namespace).split())
        return {pid for pid in pids if _state(pid) not in ("Z", "")}

    def signal(self, number: int) -> None:
        """Send a signal to everything on this machine."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def torchrun(
        self, folder: Path, *arguments: object, restarts: int = 0, processes: int = 1, hidden: Path | None = None
    ) -> subprocess.Popen[str]:
        """Start this machine's part of a training; a `hidden` folder is empty on it."""
        folder.mkdir(exist_ok=True)
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{a} node{i + 1}\n" for i, a in enumerate(ADDRESSES)))
        hide = f"mount -t tmpfs none '{hidden}'; " if hidden else ""
        hide += f"mount --bind '{hosts}' /etc/hosts; "
        enter = ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "--mount", "sh", "-c"]
        launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", str(processes)]
        launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:{PORT}", "--rdzv-id", "nodes"]
        launch += ["--local-addr", self.address, "--max-restarts", str(restarts), str(ROOT / "train.py")]
        return subprocess.Popen(
            [*enter, f'hostname {self.name}; {hide}exec "$@"', "sh", *launch, *map(str, arguments)],
            cwd=folder,
            env={**os.environ, "GLOO_SOCKET_IFNAME": self.device, "OMP_NUM_THREADS": "1", **_NEW_STORE},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def remove(self) -> None:
        self.signal(9)
        os.close(self.tun)
        self._ip("netns", "del", self.namespace)


@contextlib.contextmanager
def two_nodes(*, delay: float = 0.0, loss: float = 0.0, seed: int = 0) -> Iterator[tuple[Node, Node]]:
    """Yield two machines whose link takes `delay` seconds in each direction and loses a fraction of the packets."""
    first, second = Node(1), Node(2)
    stopped = threading.Event()
    carrier = threading.Thread(target=_carry, args=(first.tun, second.tun, delay, loss, seed, stopped), daemon=True)
    carrier.start()
    try:
        yield first, second
    finally:
        stopped.set()
        carrier.join()
        first.remove()
        second.remove()


def _carry(first: int, second: int, delay: float, loss: float, seed: int, stopped: threading.Event) -> None:
    rng = random.Random(seed)
    under_way: deque[tuple[float, int, bytes]] = deque()
    while not stopped.is_set():
        wait = max(under_way[0][0] - time.monotonic(), 0.0) if under_way else 0.1
        for source in select.select([first, second], [], [], wait)[0]:
            with contextlib.suppress(OSError):  # the device is down
                packet = os.read(source, MTU + 100)
                if rng.random() >= loss:
                    under_way.append((time.monotonic() + delay, second if source == first else first, packet))
        while under_way and under_way[0][0] <= time.monotonic():
            with contextlib.suppress(OSError):
                os.write(under_way[0][1], under_way[0][2])
            under_way.popleft()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""
