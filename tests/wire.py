"""HTTP/1.1 byte by byte: a client for tests that sends exactly what it is told."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


class ConnectionEnded(Exception):
    """The server closed (or reset) the connection before a whole answer; the text has what came."""


@dataclass(frozen=True)
class Answer:
    """One HTTP response. `headers` have lower-case names, in the order in which they came."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    version: str = "HTTP/1.1"

    def header(self, name: str) -> str | None:
        """The value of a header that must not come twice."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The stable code of a problem document, after checking that it is a whole one."""
        assert self.header("content-type") == "application/problem+json", self
        document = self.json()
        assert document["status"] == self.status, self
        assert document["type"] == f"urn:ticketrush:problem:{document['code']}", self
        assert document["title"], self
        assert document["detail"], self
        return str(document["code"])


def request(
    method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, *, version: str = "HTTP/1.1"
) -> bytes:
    """A request with a Content-Length, unless `headers` say Transfer-Encoding or there is nothing to say."""
    names = {name.lower() for name in headers or {}}
    lines = [f"{method} {path} {version}", *(() if "host" in names else ("Host: 127.0.0.1",))]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if not names & {"content-length", "transfer-encoding"} and (body or method in {"POST", "PUT"}):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Wire:
    """One raw connection to a server on this machine."""

    def __init__(self, port: int, *, timeout_s: float = 10.0, receive_buffer: int = 0) -> None:
        """`receive_buffer` bounds what the system takes in for us, for clients that do not read."""
        self._socket = socket.socket()
        self._socket.settimeout(timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.connect(("127.0.0.1", port))
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def end_of_sending(self) -> None:
        """Say that no more will be sent, and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        self._socket.sendall(data)

    def send_some(self, data: bytes) -> int:
        """Send as much of `data` as the connection takes now; how much. Raises TimeoutError if it takes none."""
        return self._socket.send(data)

    def patience(self, timeout_s: float) -> None:
        """How long to wait for the server from now on."""
        self._socket.settimeout(timeout_s)

    def answer(self, *, has_body: bool = True) -> Answer:
        """The next response, interim ones too. Raises ConnectionEnded, or TimeoutError if none comes."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status = first.split(" ", 2)[:2]
        pairs = [line.partition(":") for line in lines]
        headers = tuple((name.lower(), value.strip()) for name, _, value in pairs)
        answer = Answer(int(status), headers, b"", version)
        if not has_body or answer.status < 200 or answer.status in {204, 304}:
            return answer
        return Answer(answer.status, headers, self._body(answer), version)

    def answers(self, count: int) -> list[Answer]:
        """The next `count` responses."""
        return [self.answer() for _ in range(count)]

    def rest(self) -> bytes:
        """Everything until the server closes. Raises ConnectionResetError if it resets, TimeoutError if neither."""
        data, self._buffer = self._buffer, b""
        while piece := self._socket.recv(1 << 16):
            data += piece
        return data

    def is_silent(self, for_s: float) -> bool:
        """Whether nothing comes, not even the end, for this many seconds."""
        if self._buffer:
            return False
        before = self._socket.gettimeout()
        self._socket.settimeout(for_s)
        try:
            self._buffer = self._socket.recv(1 << 16)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(before)
        return False

    def _body(self, answer: Answer) -> bytes:
        if answer.header("transfer-encoding") == "chunked":
            return self._chunks()
        length = answer.header("content-length")
        if length is None:
            return self.rest()
        return self._take(int(length))

    def _chunks(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self._buffer:
                self._more()
            size, _, self._buffer = self._buffer.partition(b"\r\n")
            piece = self._take(int(size, 16) + 2)[:-2]
            if not piece:
                return body
            body += piece

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _more(self) -> None:
        try:
            piece = self._socket.recv(1 << 16)
        except ConnectionError as error:
            raise ConnectionEnded(f"{error} after {self._buffer!r}") from error
        if not piece:
            raise ConnectionEnded(f"end after {self._buffer!r}")
        self._buffer += piece
