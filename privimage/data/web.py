"""Asking a web server for a file, or for the rest of it; whatever goes wrong is said in words."""

from __future__ import annotations

import re
import socket
import ssl
import string
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from urllib import request
from urllib.error import URLError
from urllib.parse import quote, urljoin, urlsplit

from privimage import __version__
from privimage.data.record import printable

TIMEOUT = 60.0  # seconds without a byte
MAX_REDIRECTS = 10
PIECE = 2**16  # bytes
REDIRECTS = (301, 302, 303, 307, 308)
WHOLE, REST, OUT_OF_RANGE = 200, 206, 416
PASSING = (408, 425, 429)  # besides 5xx: the server asks to come again
STATUS = {401: "it asks for a log-in", 403: "it refuses access", 404: "it has no such file", 410: "it has no such file"}


class Trouble(Exception):
    """One try failed: why, whether another may go better, and whether what was sent is not the published file."""

    def __init__(self, why: str, again: bool, wrong: bool = False) -> None:
        super().__init__(why)
        self.why, self.again, self.wrong = why, again, wrong


@dataclass(frozen=True)
class Answer:
    """A server's answer: a whole file, the rest of one, or that nothing is left of it to send.

    ``start`` is where in the file the answer begins and ``total`` the file's size, both in bytes and None where the
    server does not say so; ``version`` tells this version of the file from others, and is empty where nothing does.
    """

    response: HTTPResponse
    status: int
    start: int | None
    total: int | None
    version: str

    def pieces(self) -> Iterator[bytes]:
        """The bytes, as they arrive.

        Raises:
            Trouble: if the connection fails; an early end of it may go unnoticed here.
        """
        while piece := _read(self.response):
            yield piece


def ask(url: str, start: int = 0, version: str = "") -> Answer:
    """The server's answer to the question for a file from byte ``start`` on; the caller closes its response.

    With a ``version``, a server that has another one by now is to send that from its beginning.

    Raises:
        Trouble: if there is no answer, or it is none that a file could come from.
    """
    headers = {"User-Agent": f"privimage/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version:
            headers["If-Range"] = version
    response = _open(url, headers)
    if response.status not in (WHOLE, REST, OUT_OF_RANGE):
        response.close()
        told = STATUS.get(response.status, "it fails" if response.status >= 500 else "it does not give the file")
        again = response.status in PASSING or response.status >= 500
        raise Trouble(f"{told} (HTTP {response.status})", again)
    return _understood(response)


def _understood(response: HTTPResponse) -> Answer:
    headers = response.headers
    match = re.fullmatch(r"bytes (?:(\d{1,18})-\d+|\*)/(?:(\d{1,18})|\*)", headers.get("Content-Range", ""))
    start, total = (int(text) if text else None for text in (match.groups() if match else ("", "")))
    if response.status == WHOLE:
        length = headers.get("Content-Length", "")
        start, total = 0, int(length) if re.fullmatch(r"\d{1,18}", length) else None
    tag = headers.get("ETag", "")  # a weak one, W/"…", vouches for no bytes
    version = tag if tag.startswith('"') else headers.get("Last-Modified", "")
    return Answer(response, response.status, start, total, version)


def _open(url: str, headers: dict[str, str]) -> HTTPResponse:
    """What the server says, whatever its status, after redirections."""
    opener = request.OpenerDirector()  # these handlers alone: neither files nor FTP
    for handler in (request.ProxyHandler, request.HTTPHandler, request.HTTPSHandler):
        opener.add_handler(handler())
    for _ in range(MAX_REDIRECTS + 1):
        try:
            response = opener.open(request.Request(url, headers=headers), timeout=TIMEOUT)
        except (OSError, HTTPException, ValueError) as error:
            raise _trouble(error) from error
        if response.status not in REDIRECTS:
            return response
        response.close()
        url = _redirected(url, response.headers.get("Location", ""))
    raise Trouble("it redirects without an end", again=False)


def _redirected(url: str, location: str) -> str:
    """The address that a redirection leads to: over the web, and never from https to what anyone may change."""
    try:
        target = urljoin(url, quote(location, safe=string.punctuation, encoding="iso-8859-1"))
        parts = urlsplit(target)
        good = bool(parts.hostname) and (parts.scheme == "https" or parts.scheme == urlsplit(url).scheme == "http")
    except ValueError:
        good = False
    if not good:
        raise Trouble(f"it redirects to `{printable(location)}`, which is not followed", again=False)
    return target


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(PIECE)
    except (OSError, HTTPException, ValueError) as error:
        raise _trouble(error) from error


def _trouble(error: Exception) -> Trouble:
    """In words, what the network did."""
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, socket.gaierror):
        return Trouble("the name of the server cannot be looked up, as where there is no network", again=True)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Trouble("its certificate cannot be trusted", again=False)
    if isinstance(reason, TimeoutError):
        return Trouble(f"no answer for {TIMEOUT:g} s", again=True)
    if isinstance(reason, ConnectionRefusedError):
        return Trouble("the connection was refused", again=True)
    if isinstance(reason, ValueError):
        return Trouble(f"its address or answer makes no sense ({printable(str(reason))})", again=False)
    return Trouble(f"the connection failed ({printable(str(reason)) or type(reason).__name__})", again=True)
