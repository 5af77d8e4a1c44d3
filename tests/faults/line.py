"""A keep-alive connection of one simulated buyer, that says when an answer may have been lost."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

PATIENCE_S: Final = 8.0
"""No answer may take longer: everything in the server is bounded."""


class Cut(Exception):
    """The connection ended before the answer: what was asked may or may not have happened."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The stable code of a problem document, "" for any other answer."""
        return str(self.json()["code"]) if self.status >= 400 else ""


class Line:
    """One connection to a server on this machine; opened when it is first needed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.slowest_s = 0.0
        """The longest that an answer took."""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def call(self, method: str, path: str, body: object = None, *, buyer: str = "op", key: str = "") -> Answer:
        """Ask, and wait for the answer.

        Raises:
            Cut: the connection ended first, or there is no server.
            TimeoutError: the server took longer than any answer may take.
        """
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nx-buyer: {buyer}\r\ncontent-length: {len(data)}\r\n"
        if key:
            head += f"idempotency-key: {key}\r\n"
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_S):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self.port)
                reader, writer = self._streams
                writer.write(head.encode() + b"\r\n" + data)
                answer = await _read(reader)
        except (OSError, EOFError) as error:
            self.close()
            if isinstance(error, TimeoutError):
                raise
            raise Cut(f"{method} {path}: {error!r}") from error
        self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer


async def _read(reader: asyncio.StreamReader) -> Answer:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
    return Answer(int(lines[0].split(" ")[1]), headers, await reader.readexactly(int(headers["content-length"])))
