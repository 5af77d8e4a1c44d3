"""One keep-alive connection that asks and waits: for setting up a sale, and for lone requests."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import msgspec

from ticketrush.bench.errors import BenchError

TIMEOUT_S: Final = 30
_LENGTH: Final = b"\r\ncontent-length:"


class Answer(msgspec.Struct, frozen=True):
    """One HTTP answer, header names in lower case; `size` is its length on the wire, head and body."""

    status: int
    headers: dict[str, str]
    body: bytes
    size: int


class Connection:
    """A blocking HTTP/1.1 connection with as little of its own as possible between question and answer."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.netloc
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """Send one request, return its parsed answer."""
        return parse(self.exchange(self.request_bytes(method, path, body, headers or {})))

    def request_bytes(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        """A request for this server, ready to be exchanged."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", "Content-Type: application/json"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(lines).encode("ascii") + body

    def exchange(self, request: bytes) -> bytes:
        """Send `request`, return the whole answer as it came.

        Raises:
            BenchError: the connection was closed or silent, or the answer carries no content-length.
        """
        data = b""
        try:
            self._socket.sendall(request)
            while not whole(data):
                piece = self._socket.recv(65_536)
                if not piece:
                    raise BenchError(f"http://{self._host} closed the connection after {data[:200]!r}")
                data += piece
        except OSError as error:
            raise BenchError(f"http://{self._host} did not answer: {error}") from error
        return data


def parse(data: bytes) -> Answer:
    """The parts of an answer that has come whole."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split()[1]), headers, body, len(data))


def whole(data: bytes) -> bool:
    """Whether `data` is a whole answer. Raises BenchError if it says no length."""
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        return False
    lower = head.lower()
    start = lower.find(_LENGTH)
    if start < 0:
        raise BenchError(f"an answer without content-length: {head[:200]!r}")
    return len(body) >= int(lower[start + len(_LENGTH) :].split(b"\r\n", 1)[0])
