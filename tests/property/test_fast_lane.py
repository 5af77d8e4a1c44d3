"""Any bytes, cut anywhere, mean the same with and without the fast lane: as many answers, and the same ones.

The two protocol classes run in this process, each before a ledger of its own, on real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import uvicorn
import uvloop
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from tests.property.profiles import PROFILE
from tests.wire import request
from ticketrush.http.app import create_app
from ticketrush.http.fastlane import FastLane
from ticketrush.http.protocol import SteadyProtocol
from ticketrush.http.server import build
from ticketrush.settings import Settings

FUZZ: Final = settings(PROFILE, derandomize=True, max_examples=10 * PROFILE.max_examples)
SALE: Final = "fuzz"
BODY: Final = b'{"item":"second"}'
PATIENCE_S: Final = 10.0
PURCHASE: Final = b"POST /v1/sales/fuzz/reservations HTTP/1.1"


class Told:
    """Says how much of what was sent a connection has been told."""

    told = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)  # type: ignore[misc]
        self.told += len(data)


class ToldLane(Told, FastLane):
    pass


class ToldSteady(Told, SteadyProtocol):
    pass


class House:
    """A ledger with one open sale, and connections to it by a protocol class."""

    def __init__(self, folder: Path, runner: asyncio.Runner, kind: type[SteadyProtocol]) -> None:
        self._runner, self._kind = runner, kind
        folder.mkdir()
        self._services = build(Settings(ledger=f"sqlite:///{folder / 'tickets.db'}", durability="memory", open=True))
        self._open = contextlib.AsyncExitStack()
        runner.run(self._start())

    async def _start(self) -> None:
        await self._open.enter_async_context(self._services.running())
        app = create_app(self._services, running=True)
        self._config = uvicorn.Config(app, loop="uvloop", ws="none", lifespan="off", log_config=None, access_log=False)
        self._config.load()
        who = {"X-Buyer": "operator"}
        sale = {
            "items": [{"id": "second", "capacity": 1_000_000}],
            "hold_window_s": 86_400,
        }  # what is bought stays held
        assert (await self._said(request("PUT", f"/v1/sales/{SALE}", json.dumps(sale).encode(), who), []))[0] == "201"
        assert (await self._said(request("POST", f"/v1/sales/{SALE}/open", b"", who), []))[0] == "200"

    def close(self) -> None:
        self._runner.run(self._open.aclose())

    def says(self, data: bytes, cuts: list[int]) -> list[str]:
        """The answers to `data`, sent in pieces, as status and code; and how much was bought."""
        return self._runner.run(self._said(data, cuts))

    async def _said(self, data: bytes, cuts: list[int]) -> list[str]:
        before = self._held()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        state: dict[str, Any] = {"lane": self._services.lane}
        with ours:
            transport, protocol = await loop.connect_accepted_socket(
                lambda: self._kind(self._config, ServerState(), state), theirs
            )
            async with asyncio.timeout(PATIENCE_S):
                for start, end in pairwise([0, *(cut for cut in sorted(cuts) if 0 < cut < len(data)), len(data)]):
                    with contextlib.suppress(BrokenPipeError):
                        await loop.sock_sendall(ours, data[start:end])
                    while protocol.told < end and not transport.is_closing():  # type: ignore[attr-defined]  # noqa: ASYNC110
                        await asyncio.sleep(0)
                ours.shutdown(socket.SHUT_WR)
                answers = b""
                with contextlib.suppress(ConnectionResetError):
                    while piece := await loop.sock_recv(ours, 1 << 16):
                        answers += piece
        return [*statuses(answers), f"bought {self._held() - before}"]

    def _held(self) -> int:
        stock = self._services.engine.stock(SALE)
        return stock.levels[0].held if stock else 0


def statuses(answers: bytes) -> Iterator[str]:
    """Status, and the code of a problem, of each answer but interim ones."""
    while answers:
        head, end, answers = answers.partition(b"\r\n\r\n")
        found = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
        assert found, head
        assert end, head
        status = found[1].decode()
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        body, answers = (answers[: int(length[1])], answers[int(length[1]) :]) if length else (b"", answers)
        code = re.search(rb'"code":"([a-z_]+)"', body)
        if status != "100":
            yield f"{status} {code[1].decode()}" if code else status


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[House]]:
    folder = tmp_path_factory.mktemp("houses")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        both = [House(folder / kind.__name__, runner, kind) for kind in (ToldLane, ToldSteady)]
        yield both
        for house in both:
            house.close()


def purchase(*lines: bytes, body: bytes = BODY, start: bytes = PURCHASE) -> bytes:
    return b"\r\n".join([start, b"Host: 127.0.0.1", b"X-Buyer: ada", *lines, b"", b""]) + body


PLAIN: Final = purchase(b"Content-Length: 17")
CLOSE: Final = purchase(b"Connection: close", b"Content-Length: 17")
UPGRADE: Final = purchase(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 17")
GOOD: Final = (
    PLAIN,
    CLOSE,
    UPGRADE,
    purchase(b"Idempotency-Key: k", b"Content-Length: 17"),
    purchase(b"Transfer-Encoding: chunked", body=b'11\r\n{"item":"second"}\r\n0\r\n\r\n'),
    purchase(b"Content-Length: 16", body=b'{"item":"third"}'),
    purchase(b"Content-Length: 0", body=b""),
    purchase(b"Expect: 100-continue", b"Content-Length: 17"),
    *(purchase(b"Content-Length: 17", start=PURCHASE.replace(b"1.1", version)) for version in (b"1.0", b"2.0", b"0.9")),
    purchase(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", start=PURCHASE.replace(b"1.1", b"1.0")),
    PLAIN * 60,
    b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    b"PUT /v1/sales/fuzz/reservations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}",
)
ODD: Final = (
    b"Transfer-Encoding: chunked\r\n|Transfer-Encoding: identity\r\n|Content-Length: 0\r\n|Content-Length: +17\r\n|"
    b"Host: b\r\n|Host: \r\n|X: a\r\n b\r\n|X: a\0\r\n|X: a\n|\n|\r|\r\n|\r\n\r\n| |\t|:|\0|\xff|0\r\n\r\n|"
    b"5\r\nabcde\r\n|Connection: close\r\n|Expect: 100-continue\r\n|Upgrade: h2c\r\n|POST / HTTP/1.1\r\n|"
    b" HTTP/1.0\r\n| HTTP/2.0\r\n"
).split(b"|")

edits = st.tuples(st.integers(0, 400), st.integers(0, 30), st.one_of(st.sampled_from(ODD), st.binary(max_size=3)))
lines = st.tuples(st.integers(1, 6), st.sampled_from(ODD))
cuts = st.lists(st.integers(0, 900), max_size=4)


def edited(requests: list[bytes], edits: list[tuple[int, int, bytes]], lines: list[tuple[int, bytes]]) -> bytes:
    """The requests one after the other, with bytes replaced, and odd lines put between those of the first one."""
    first = requests[0].split(b"\r\n")
    for at, line in lines:
        first.insert(at, line.removesuffix(b"\r\n"))
    data = b"".join([b"\r\n".join(first), *requests[1:]])
    for at, size, new in edits:
        data = data[:at] + new + data[at + size :]
    return data


@FUZZ
@given(
    st.lists(st.sampled_from(GOOD), min_size=1, max_size=4),
    st.lists(edits, max_size=2),
    st.lists(lines, max_size=1),
    cuts,
)
@example([PLAIN] * 4, [], [], [])
@example([PLAIN, UPGRADE, PLAIN], [], [], [150, 300])
@example([PLAIN], [], [(2, b"Transfer-Encoding: identity"), (3, b"Transfer-Encoding: chunked")], [])
def test_any_bytes_mean_the_same_with_and_without_the_fast_lane(
    houses: list[House],
    requests: list[bytes],
    edits: list[tuple[int, int, bytes]],
    lines: list[tuple[int, bytes]],
    cuts: list[int],
) -> None:
    data = edited(requests, edits, lines)
    fast, slow = (house.says(data, cuts) for house in houses)

    assert fast == slow


@FUZZ
@given(st.binary(min_size=1, max_size=600), cuts)
def test_so_do_bytes_that_are_nothing(houses: list[House], data: bytes, cuts: list[int]) -> None:
    fast, slow = (house.says(data, cuts) for house in houses)

    assert fast == slow
    assert set(fast) <= {"400 malformed", "bought 0"}
