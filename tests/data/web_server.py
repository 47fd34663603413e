"""A web server on this machine that serves one content and misbehaves as it is told."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Shop:
    """What is served, and how; ``asked`` holds the headers of each question."""

    content: bytes
    ranges: bool = True  # whether it knows Range
    version: str = ""  # ETag
    tell_length: bool = True
    dies_after: list[int] = field(default_factory=list)  # bytes after which it hangs up, for one question after another
    lies: int = 0  # bytes that it announces and does not have
    statuses: list[int] = field(default_factory=list)  # instead of an answer, for one question after another
    location: str = ""  # it redirects there
    wait: threading.Event | None = None  # it says nothing before this
    wrong_start: int = 0  # its ranges begin so much later than was asked for
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def begin(self, headers) -> tuple[int, int]:
        """Status and first byte of the answer."""
        match = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", ""))
        if not match or not self.ranges or headers.get("If-Range", self.version) != self.version:
            return 200, 0
        start = int(match[1])
        return (206, start) if start < len(self.content) else (416, start)


@contextmanager
def serving(content: bytes, **how) -> Iterator[Shop]:
    """A running server."""
    shop = Shop(content, **how)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            shop.asked.append(dict(self.headers))
            if shop.wait:
                shop.wait.wait(10)
            answer(shop, self)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # whoever asked may hang up
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    shop.url = f"http://127.0.0.1:{server.server_port}/file.bin"
    try:
        yield shop
    finally:
        if shop.wait:
            shop.wait.set()
        server.shutdown()
        thread.join()
        server.server_close()


def answer(shop: Shop, handler: BaseHTTPRequestHandler) -> None:
    """Answer one question."""
    if shop.location or shop.statuses:
        handler.send_response(302 if shop.location else shop.statuses.pop(0))
        if shop.location:
            handler.send_header("Location", shop.location)
        handler.end_headers()
        return
    status, start = shop.begin(handler.headers)
    total, body = len(shop.content) + shop.lies, shop.content[start:]
    handler.send_response(status)
    if shop.version:
        handler.send_header("ETag", shop.version)
    if status == 416:
        handler.send_header("Content-Range", f"bytes */{total}")
        body = b""
    elif shop.tell_length:
        handler.send_header("Content-Length", str(total - start))
    if status == 206:
        handler.send_header("Content-Range", f"bytes {start + shop.wrong_start}-{total - 1}/{total}")
    handler.end_headers()
    handler.wfile.write(body[: shop.dies_after.pop(0)] if shop.dies_after else body)
