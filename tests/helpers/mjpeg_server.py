"""A fake network camera: a sequence of images over http, with connections that break as requested."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

HEIGHT, WIDTH = 48, 64
DARKEST = 90  # no pixel of these cameras is darker, except by JPEG artefacts


def camera_image(number: int) -> np.ndarray:
    """Return a bright image, noisy so that its JPEG is long, with its number as the grey level of a corner."""
    image = np.random.default_rng(number).integers(DARKEST + 40, 256, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    image[:16, :16] = DARKEST + 40 + number % 100
    return image.repeat(3, 2)


class Camera:
    """The camera at one address.

    Attributes:
        connections: number of connections.
        sent: number of complete images sent.
        first_sent: when each accepted connection had its first image, by `time.monotonic`.
    """

    def __init__(
        self,
        frames: int,
        *,
        max_connections: int,
        pause: float = 0.004,
        accepts: Callable[[], bool] = lambda: True,
        image: Callable[[int, int], np.ndarray] = lambda connection, number: camera_image(number),
    ) -> None:
        """Send `frames` images per connection, the last one truncated.

        Args:
            frames: images per connection.
            max_connections: later connections are refused.
            pause: seconds between two images.
            accepts: whether the next connection is accepted.
            image: of a connection, from 0, by its number over all connections.
        """
        self.frames, self.max_connections, self.pause, self.accepts = frames, max_connections, pause, accepts
        self.image = image
        self.connections = self.sent = 0
        self.first_sent: list[float] = []

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        self.connections += 1
        if self.connections > self.max_connections or not self.accepts():
            handler.send_error(503)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        for number in range(self.frames):
            data = cv2.imencode(".jpg", self.image(len(self.first_sent) - (number > 0), self.sent))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            complete = number < self.frames - 1
            handler.wfile.write(head + (data + b"\r\n" if complete else data[: len(data) * 3 // 4]))
            handler.wfile.flush()
            if not number:
                self.first_sent.append(time.monotonic())
            self.sent += complete
            time.sleep(self.pause)


@contextmanager
def cameras(**named: Camera) -> Iterator[dict[str, str]]:
    """Serve cameras; yield their addresses by name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.close_connection = True
            try:
                named[self.path.strip("/").split("?")[0]].serve(self)
            except OSError:
                pass  # the client has closed the connection

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {name: f"http://127.0.0.1:{server.server_address[1]}/{name}" for name in named}
        server.shutdown()
