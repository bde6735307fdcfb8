"""An S3 server on the loopback (moto's), and a proxy before it that counts and breaks requests."""

import http.client
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("unavailable", "timeout", "reset", "truncated", "lying put")
"""503; no answer; the connection is cut; half of the body; done, but said to have failed."""


@dataclass
class Proxy:
    """Requests that passed, and the faults that are still to come.

    Attributes:
        faults: What happens to the next requests that a fault fits; ``lying put`` to the next
            writing one, ``truncated`` to the next reading one, the others to any.
        injected: Faults that have happened.
        requests: Passed requests, by method.
        paths: The same, by method and path.
        nbytes: Bytes of the answers that passed.
    """

    url: str = ""
    faults: list[str] = field(default_factory=list)
    injected: list[str] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    paths: Counter[tuple[str, str]] = field(default_factory=Counter)
    nbytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, part: str) -> int:
        """Requests for objects whose path holds ``part``."""
        return sum(number for (_, path), number in self.paths.items() if part in path)

    def next_fault(self, method: str, path: str) -> str | None:
        with self.lock:
            self.requests[method] += 1
            self.paths[method, path] += 1
            for fault in self.faults:
                fits = {"lying put": ("PUT", "POST"), "truncated": ("GET",)}.get(fault, (method,))
                if method in fits:
                    self.faults.remove(fault)
                    self.injected.append(fault)
                    return fault
        return None


def _handler(proxy: Proxy, target: tuple[str, int], patience: float) -> type:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else None
            fault = proxy.next_fault(self.command, self.path)
            if fault == "timeout":
                time.sleep(patience)
            if fault in ("timeout", "reset"):
                self._cut()
                return
            if fault == "unavailable":
                self._answer(503, [], b"slow down")
                return
            status, headers, data = _forward(target, self, body)
            with proxy.lock:
                proxy.nbytes += len(data)
            if fault == "lying put":
                self._answer(500, [], b"it was done, though")
            elif fault == "truncated" and len(data) > 1:
                self._head(status, headers, len(data))
                self.wfile.write(data[: len(data) // 2])
                self._cut()
            else:
                self._answer(status, headers, data)

        def _head(self, status: int, headers: list[tuple[str, str]], length: int) -> None:
            self.send_response_only(status)
            skip = {"transfer-encoding", "content-length", "connection"}
            for name, value in headers:
                if name.lower() not in skip:
                    self.send_header(name, value)
            promised = dict(headers).get("Content-Length", "0")
            self.send_header("Content-Length", promised if self.command == "HEAD" else str(length))
            self.end_headers()

        def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
            self._head(status, headers, len(data))
            if self.command != "HEAD":
                self.wfile.write(data)

        def _cut(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    return Handler


def _forward(
    target: tuple[str, int], request: BaseHTTPRequestHandler, body: bytes | None
) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection(*target, timeout=60)
    headers = {k: v for k, v in request.headers.items() if k.lower() != "connection"}
    connection.request(request.command, request.path, body=body, headers=headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, answer.getheaders(), data


@contextmanager
def serve_proxy(target: tuple[str, int], *, patience: float) -> Iterator[Proxy]:
    """A proxy on 127.0.0.1 before ``target``; a request that times out hangs for ``patience``."""
    proxy = Proxy()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that goes away is what is being tested."""

    server = Server(("127.0.0.1", 0), _handler(proxy, target, patience))
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serve_s3() -> Iterator[tuple[str, int]]:
    """moto's S3 server on 127.0.0.1, with one bucket named ``bucket``."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    connection = http.client.HTTPConnection(host, port, timeout=60)
    connection.request("PUT", "/bucket")
    assert connection.getresponse().status == 200
    connection.close()
    try:
        yield host, port
    finally:
        server.stop()
