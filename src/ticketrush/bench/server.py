"""ticketrush as it is served: a process of its own, with one sale that is ready to be loaded."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from ticketrush.bench.buyers import Issuer
from ticketrush.bench.client import Answer, Connection, parse
from ticketrush.bench.errors import BenchError
from ticketrush.bench.target import BODY, ITEM, PATH, SALE, Target
from ticketrush.model import CAPACITY_MAX
from ticketrush.processes import Child, child

COMMAND: Final = (sys.executable, "-m", "ticketrush")
START_S: Final = 30
SETTLE_S: Final = 10
HOLD_WINDOW_S: Final = 24 * 3_600
"""Longer than any run: what is measured is selling, not expiring."""
LONE_BUYER: Final = "buyer-lone"
PURCHASE_LIMIT: Final = 100_000_000
"""Out of reach, so that the limit is checked and never refuses."""

_CALLS: Final = re.compile(r'^ticketrush_ledger_calls_total\{call="([^"]+)"\} (\S+)$', re.MULTILINE)

_TURNED_AWAY: Final = re.compile(r"^ticketrush_gate_refusals_total (\S+)$", re.MULTILINE)


class _Serving(msgspec.Struct):
    url: str
    pid: int


class _Level(msgspec.Struct):
    held: int
    sold: int


class _Levels(msgspec.Struct):
    items: list[_Level]


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """A running ticketrush with the sale of the bench, open."""

    target: Target
    issuer: Issuer
    node_url: str = ""
    """Where the node itself listens if something stands before it; "" if the target is the node."""

    def reserve(self, connection: Connection) -> Answer:
        """One reservation by a buyer of its own, with a fresh key."""
        return parse(connection.exchange(self.reservation_bytes(connection)))

    def reservation_bytes(self, connection: Connection) -> bytes:
        """The request of one reservation, as load.lua sends it but by a buyer of its own."""
        token, key = self.issuer.buyer(LONE_BUYER), f"{secrets.token_hex(8)}-1"
        return connection.request_bytes(
            "POST",
            PATH,
            BODY,
            {"Authorization": f"Bearer {token}", "Idempotency-Attempt": "1", "Idempotency-Key": key},
        )

    def held_and_sold(self) -> tuple[int, int]:
        """The item's units, read when nothing is under way any more."""
        give_up_s = time.monotonic() + SETTLE_S
        last = self._held_and_sold()
        while time.monotonic() < give_up_s:
            time.sleep(0.1)
            last, before = self._held_and_sold(), last
            if last == before:
                return last
        raise BenchError(f"the levels of the sale still change {SETTLE_S} s after the load: {last}")

    def ledger_calls(self) -> Counter[str]:
        """Calls that the node has made to the server of its ledger since its start, by script or command."""
        return Counter({name: int(float(count)) for name, count in _CALLS.findall(self._metrics())})

    def turned_away(self) -> int:
        """Requests that the closed gate of the node has answered."""
        return sum(int(float(count)) for count in _TURNED_AWAY.findall(self._metrics()))

    def _metrics(self) -> str:
        with Connection(self.node_url or self.target.url) as connection:
            return _expect(connection.ask("GET", "/metrics"), 200, "read the metrics").body.decode()

    def _held_and_sold(self) -> tuple[int, int]:
        with Connection(self.target.url) as connection:
            body = _expect(connection.ask("GET", f"/v1/sales/{SALE}"), 200, "read the levels").body
        level = msgspec.json.decode(body, type=_Levels).items[0]
        return level.held, level.sold


@contextlib.contextmanager
def serve(
    folder: Path,
    issuer: Issuer,
    *,
    sold_out: bool = False,
    fast_lane: bool = True,
    ledger: str = "",
    durability: str = "fsync",
    settings: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """ticketrush on a free port, its ledger at the URL `ledger` or in a journal in `folder`.

    The sale has CAPACITY_MAX units, or if `sold_out` a single one that is sold and paid. `settings` are
    variables that are not at their defaults.

    Raises:
        BenchError: the server does not start, or the sale cannot be set up.
    """
    lane = "--fast-lane" if fast_lane else "--no-fast-lane"
    command = [*COMMAND, "serve", "--json", "--host", "127.0.0.1", "--port", "0", "--durability", durability, lane]
    command += ["--ledger", ledger or f"sqlite:///{folder / 'bench.db'}"]
    with child("ticketrush", command, folder, _environment(issuer) | dict(settings or {})) as process:
        serving = _serving(process)
        server = Server(Target(serving.url, serving.pid), issuer)
        _set_up(server, sold_out)
        yield server


def _environment(issuer: Issuer) -> dict[str, str]:
    """Ours without any setting of ticketrush: a bench measures the defaults."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("TICKETRUSH_")}
    return plain | {"TICKETRUSH_TOKEN_SECRETS": issuer.secret}


def _serving(process: Child) -> _Serving:
    give_up_s = time.monotonic() + START_S
    while time.monotonic() < give_up_s:
        line, end, _ = process.stdout.read_bytes().partition(b"\n")
        if end:
            try:
                return msgspec.json.decode(line, type=_Serving)
            except msgspec.MsgspecError:
                raise BenchError(f"ticketrush serve --json begins with {line[:200]!r}") from None
        if process.ended:
            break
        time.sleep(0.02)
    raise BenchError(f"ticketrush does not start: {process.words()}")


def _set_up(server: Server, sold_out: bool) -> None:
    item = {"id": ITEM, "capacity": 1 if sold_out else CAPACITY_MAX, "purchase_limit": PURCHASE_LIMIT}
    sale = msgspec.json.encode({"items": [item], "hold_window_s": HOLD_WINDOW_S})
    operator = {"Authorization": f"Bearer {server.issuer.operator()}"}
    with Connection(server.target.url) as connection:
        _expect(connection.ask("PUT", f"/v1/sales/{SALE}", sale, operator), 201, "create the sale")
        _expect(connection.ask("POST", f"/v1/sales/{SALE}/open", b"", operator), 200, "open the sale")
        if sold_out:
            _sell_the_only_unit(server, connection)


def _sell_the_only_unit(server: Server, connection: Connection) -> None:
    reserved = _expect(server.reserve(connection), 201, "reserve the only unit")
    id = msgspec.json.decode(reserved.body, type=dict[str, object])["id"]
    buyer = {"Authorization": f"Bearer {server.issuer.buyer(LONE_BUYER)}"}
    paid = connection.ask("POST", f"/v1/orders/{id}/payment", b'{"card":"approve"}', buyer)
    _expect(paid, 200, "pay for the only unit")
    refused = _expect(server.reserve(connection), 409, "be refused")
    if b'"sold_out"' not in refused.body:
        raise BenchError(f"a sale without units answers {refused.body[:200]!r} instead of sold_out")


def _expect(answer: Answer, status: int, what: str) -> Answer:
    if answer.status != status:
        raise BenchError(f"could not {what}: {answer.status} instead of {status}: {answer.body[:300]!r}")
    return answer
