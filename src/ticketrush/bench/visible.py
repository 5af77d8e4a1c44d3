"""How soon an order is in the store after its buyer was answered, while the node sells."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final

import apsw
import msgspec

from ticketrush.bench.client import Connection
from ticketrush.bench.errors import BenchError
from ticketrush.bench.server import Server

LOOK_S: Final = 0.002
GIVE_UP_S: Final = 10.0
PAUSE_S: Final = 0.01


class Visible(msgspec.Struct, frozen=True):
    """Orders looked for in the store, from the answer to their buyers on; `requests_per_s` was sold beside."""

    orders: int
    ms_p50: float
    ms_p99: float
    ms_max: float
    requests_per_s: float


class Probe:
    """Buys now and then, in a thread, and watches the store's file for the order."""

    def __init__(self, server: Server, orders: Path) -> None:
        self._server, self._orders = server, orders
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe")
        self._ms: list[float] = []
        self._failure: Exception | None = None

    def start(self) -> None:
        """Begin to buy."""
        self._thread.start()

    def stop(self) -> list[float]:
        """How many milliseconds each order took.

        Raises:
            BenchError: one never came, or a purchase failed.
        """
        self._ending.set()
        self._thread.join()
        if self._failure is not None:
            raise BenchError(f"an order could not be watched: {self._failure}") from self._failure
        return sorted(self._ms)

    def _run(self) -> None:
        try:
            store = apsw.Connection(os.fspath(self._orders), flags=apsw.SQLITE_OPEN_READONLY)
            with Connection(self._server.target.url) as connection:
                while not self._ending.is_set():
                    answer = self._server.reserve(connection)
                    self._ms.append(_wait(store, msgspec.json.decode(answer.body, type=dict[str, object]).get("id")))
                    time.sleep(PAUSE_S)
            store.close()
        except (BenchError, OSError, apsw.Error) as error:
            self._failure = error


def _wait(store: apsw.Connection, id: object) -> float:
    began_s = time.perf_counter()
    while not store.execute("select 1 from orders where id = ?", (str(id),)).fetchone():
        if time.perf_counter() - began_s > GIVE_UP_S:
            raise BenchError(f"order {id} is not in the store after {GIVE_UP_S:g} s")
        time.sleep(LOOK_S)
    return (time.perf_counter() - began_s) * 1e3


def summary(ms: list[float], requests_per_s: float) -> Visible:
    """The figures of sorted times."""
    if not ms:
        raise BenchError("no order was watched; measure for longer")
    at = [ms[min(len(ms) - 1, int(len(ms) * share))] for share in (0.5, 0.99)]
    return Visible(len(ms), at[0], at[1], ms[-1], requests_per_s)
