"""What a lone buyer waits, without any load, and the disk's part in it."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Final

from ticketrush.bench.client import Connection, parse
from ticketrush.bench.errors import BenchError
from ticketrush.bench.result import Lone
from ticketrush.bench.server import Server

WARM_UP_REQUESTS: Final = 200
SYNCS: Final = 300
FRAME_BYTES: Final = 24 + 4_096
"""What one small commit appends to SQLite's write-ahead log: a frame head and a page."""


def lone(server: Server, folder: Path, requests: int) -> Lone:
    """`requests` reservations one after the other; syncs on the same file system before and after them.

    Raises:
        BenchError: an answer was not 201.
    """
    syncs_ms = fdatasyncs_ms(folder, SYNCS)
    with Connection(server.target.url) as connection:
        prepared = [server.reservation_bytes(connection) for _ in range(WARM_UP_REQUESTS + requests)]
        took_ms = [_reserve_ms(connection, request) for request in prepared][WARM_UP_REQUESTS:]
    syncs_ms += fdatasyncs_ms(folder, SYNCS)
    return Lone(
        requests=requests,
        latency_ms_p50=percentile(took_ms, 50),
        latency_ms_p99=percentile(took_ms, 99),
        fdatasync_ms_p50=percentile(syncs_ms, 50),
        fdatasync_ms_p99=percentile(syncs_ms, 99),
    )


def fdatasyncs_ms(folder: Path, count: int) -> list[float]:
    """Milliseconds of each of `count` times "append a log frame, fdatasync" to a new file in `folder`."""
    file = folder / "sync"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        took_ms = []
        for _ in range(count):
            began_s = time.perf_counter()
            os.write(descriptor, bytes(FRAME_BYTES))
            os.fdatasync(descriptor)
            took_ms.append((time.perf_counter() - began_s) * 1e3)
        return took_ms
    finally:
        os.close(descriptor)
        file.unlink()


def percentile(values: list[float], percent: int) -> float:
    """The `percent`-th percentile (1 to 99) of at least two values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def _reserve_ms(connection: Connection, request: bytes) -> float:
    began_s = time.perf_counter()
    data = connection.exchange(request)
    took_ms = (time.perf_counter() - began_s) * 1e3
    answer = parse(data)
    if answer.status != 201:
        raise BenchError(f"a lone reservation was answered {answer.status}: {answer.body[:300]!r}")
    return took_ms
