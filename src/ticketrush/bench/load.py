"""wrk as the load: as many purchases as one thread can ask for on N keep-alive connections."""

from __future__ import annotations

import resource
import secrets
import subprocess
import time
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from ticketrush import processes
from ticketrush.bench.errors import BenchError
from ticketrush.bench.result import Round
from ticketrush.bench.target import ITEM, PATH, Target

SCRIPT: Final = "load.lua"
GRACE_S: Final = 30
"""Seconds wrk may take beyond its time before it is given up."""


class Counts(msgspec.Struct, frozen=True):
    """What wrk counted. `refusals` are answers with a status above 399; a time-out is an answer after 2 s."""

    requests: int
    duration_us: int
    bytes: int
    refusals: int
    connect_errors: int
    read_errors: int
    write_errors: int
    timeouts: int
    latency_us_p50: int
    latency_us_p99: int
    latency_us_max: int


def counts_of(output: str) -> Counts:
    """The counts in what wrk printed with our script.

    Raises:
        BenchError: they are not there, or connections failed.
    """
    line = next((line for line in output.splitlines() if line.startswith("figures ")), None)
    if line is None:
        raise BenchError(f"wrk gave no figures: {output.strip()[-500:] or 'no output'}")
    counts = msgspec.json.decode(line.removeprefix("figures "), type=Counts)
    for name in ("connect_errors", "read_errors", "write_errors", "timeouts"):
        if number := getattr(counts, name):
            raise BenchError(f"wrk saw {number} {name.replace('_', ' ')} in {counts.requests} requests")
    if not counts.requests:
        raise BenchError("wrk got no answer at all")
    return counts


class Load:
    """Runs wrk against one target after another. `folder` takes its script, `tokens` has a line each."""

    def __init__(self, wrk: str, folder: Path, tokens: Path, connections: int) -> None:
        self._wrk = wrk
        self._script = folder / SCRIPT
        self._script.write_bytes(resources.files("ticketrush.bench").joinpath(SCRIPT).read_bytes())
        self._tokens = tokens
        self.connections = connections

    def run(self, target: Target, seconds: int, *, pause_ms: int = 0) -> tuple[Counts, Round]:
        """Load `target` for `seconds`; what wrk counted, and the figures of this one measurement.

        Each connection waits for about `pause_ms` before each request.

        Raises:
            BenchError: wrk failed, or connections did.
        """
        before = _clocks(target)
        output = self._wrk_output(target.url, seconds, pause_ms)
        after = _clocks(target)
        wall_s, server_s, store_s, load_s, busy_s = (late - early for late, early in zip(after, before, strict=True))
        counts = counts_of(output)
        return counts, Round(
            requests_per_s=counts.requests * 1e6 / counts.duration_us,
            latency_ms_p50=counts.latency_us_p50 / 1e3,
            latency_ms_p99=counts.latency_us_p99 / 1e3,
            latency_ms_max=counts.latency_us_max / 1e3,
            server_cpu_us_per_request=server_s * 1e6 / counts.requests,
            server_cores=server_s / wall_s,
            load_cores=load_s / wall_s,
            other_cores=max(0.0, busy_s - server_s - store_s - load_s) / wall_s,
            store_cpu_us_per_request=store_s * 1e6 / counts.requests,
            store_cores=store_s / wall_s,
        )

    def _wrk_output(self, url: str, seconds: int, pause_ms: int) -> str:
        command = [
            self._wrk,
            "-t1",
            f"-c{self.connections}",
            f"-d{seconds}s",
            "--latency",
            "-s",
            str(self._script),
            url,
        ]
        command += ["--", str(self._tokens), PATH, ITEM, f"{secrets.token_hex(8)}-", str(pause_ms)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE_S, check=False)
        except subprocess.TimeoutExpired:
            raise BenchError(f"wrk did not end within {GRACE_S} s of its time") from None
        if done.returncode:
            raise BenchError(f"wrk ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
        return done.stdout


def _clocks(target: Target) -> tuple[float, float, float, float, float]:
    """Seconds: monotonic time, then CPU: the server's, its store's, our ended children's (wrk), all the machine's."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    store_s = processes.cpu_s(target.store_pid) if target.store_pid else 0.0
    return time.monotonic(), processes.cpu_s(target.pid), store_s, ended.ru_utime + ended.ru_stime, processes.busy_s()
