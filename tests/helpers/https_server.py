"""A local web server over TLS, honest or not, that records the requested paths."""

import contextlib
import http.server
import ssl
import threading
from pathlib import Path

CERTIFICATE = Path(__file__).parent / "localhost.pem"


class Answers(http.server.BaseHTTPRequestHandler):
    """Serves the server's `pages`: bytes, an address to redirect to, or a function that handles the request."""

    def do_GET(self):
        self.server.asked.append(self.path)
        page = self.server.pages.get(self.path)
        if callable(page):
            page(self)
        elif isinstance(page, bytes):
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
        elif page is not None:
            self.send_response(302)
            self.send_header("Location", page)
            self.end_headers()
        else:
            self.send_error(404)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """Ignore clients that disconnect: they are part of the tests."""


@contextlib.contextmanager
def serving(pages, *, tls=True):
    """Yield the address of a server of `pages`, and the list of requested paths."""
    server = Server(("127.0.0.1", 0), Answers)
    server.pages, server.asked = pages, []
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http{'s' * tls}://localhost:{server.server_address[1]}", server.asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
