"""The run: every case and its limit in turn, round after round, so that a slow minute hits all alike."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import signal
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final, Literal

import msgspec
from rich.console import Console

from ticketrush.bench import edge, tools, valkey
from ticketrush.bench.back_office import back_office, with_orders
from ticketrush.bench.buyers import Issuer
from ticketrush.bench.client import Answer, Connection
from ticketrush.bench.errors import BenchError
from ticketrush.bench.limit import limit
from ticketrush.bench.load import Counts, Load
from ticketrush.bench.lone import lone
from ticketrush.bench.machine import IN_MEMORY, Machine, journal_folder, machine
from ticketrush.bench.options import BenchOptions
from ticketrush.bench.replay import replay
from ticketrush.bench.result import BenchResult, Lone, Measured, Results, Round, ratios, targets
from ticketrush.bench.server import Server, serve
from ticketrush.bench.target import Target
from ticketrush.bench.valkey import serve_with_valkey
from ticketrush.cluster.errors import ClusterError

Serving = Callable[..., contextlib.AbstractContextManager[Server]]

OTHER_CORES_MAX: Final = 0.15
"""Processors that anything but server and load may keep busy before the figures come with a warning."""


@dataclasses.dataclass(frozen=True, slots=True)
class Samples:
    """One answer of ticketrush each, for nginx to imitate."""

    sold_out: Answer
    reserved: Answer


class _Run:
    """One run: what is the same for all its measurements."""

    def __init__(
        self, options: BenchOptions, found: tools.Tools, folder: Path, console: Console, *, redis: bool = False
    ) -> None:
        self._options = options
        self._redis = redis
        self._nginx = found.nginx
        self._folder = folder
        self._console = console
        self._issuer = Issuer()
        tokens = folder / "tokens"
        self._issuer.write_tokens(options.buyers, tokens)
        self._load = Load(found.wrk, folder, tokens, options.connections)

    def results(self) -> Results:
        lone_request, samples = self._lone_and_samples()
        rounds: defaultdict[str, list[Round]] = defaultdict(list)
        for number in range(1, self._options.rounds + 1):
            for name, measure in self._cases(samples).items():
                measured = measure()
                rounds[name].append(measured)
                self._say(f"round {number} of {self._options.rounds}: {name} {measured.requests_per_s:,.0f}/s")
        with self._scratch() as folder:
            replayed = replay(folder, self._options.replay_reservations)
        self._say(f"replay of {replayed.reservations:,} reservations: {replayed.seconds:.1f} s")
        cases = {name: Measured.of(measured) for name, measured in rounds.items()}
        top_per_s = cases["reserve_durable"].median.requests_per_s
        office = back_office(self._scratch, self._load, self._issuer, top_per_s, self._options.seconds)
        self._say(f"orders: {office.sqlite_orders_per_s:,.0f}/s into SQLite; {office.webhooks_per_s:,.0f} webhooks/s")
        return Results(**cases, lone_request=lone_request, replay=replayed, back_office=office)

    def _cases(self, samples: Samples) -> dict[str, Callable[[], Round]]:
        """What one round measures, in its order, by the names of `Results`."""
        many = self._redis_cases(samples.sold_out) if self._redis else {}
        refusing = {name: measure for name, measure in many.items() if name.startswith("sold_out")}
        return {
            "limit_sold_out": lambda: self._limit(samples.sold_out),
            "sold_out": lambda: self._sold_out(samples.sold_out),
            **self._edge_cases(),
            **refusing,
            "limit_reserve": lambda: self._limit(samples.reserved),
            "reserve_durable": lambda: self._durable(fast_lane=True),
            "reserve_durable_with_worker": self._durable_with_worker,
            **{name: measure for name, measure in many.items() if name not in refusing},
            "reserve_durable_plain_asgi": lambda: self._durable(fast_lane=False),
        }

    def _edge_cases(self) -> dict[str, Callable[[], Round]]:
        return {} if edge.missing() else {"sold_out_edge": self._sold_out_at_the_edge}

    def _redis_cases(self, refusal: Answer) -> dict[str, Callable[[], Round]]:
        cases: dict[str, Callable[[], Round]] = {
            "sold_out_redis": lambda: self._sold_out(refusal, serve_with_valkey),
            "reserve_redis": self._redis_reserve,
            "reserve_redis_fsync": lambda: self._redis_reserve(durability="fsync"),
        }
        if self._options.redis_details:
            cases |= {
                "reserve_redis_local_stock_off": lambda: self._redis_reserve(TICKETRUSH_LEASE_AHEAD="0"),
                "reserve_redis_shards_2": lambda: self._redis_reserve(TICKETRUSH_SHARDS="2"),
                "reserve_redis_shards_4": lambda: self._redis_reserve(TICKETRUSH_SHARDS="4"),
            }
        return cases

    def _lone_and_samples(self) -> tuple[Lone, Samples]:
        with self._scratch() as folder, serve(folder, self._issuer) as server:
            reserved = _sample(server)
            lone_request = lone(server, folder, self._options.lone_requests)
        self._say(f"lone request: p50 {lone_request.latency_ms_p50:.2f} ms")
        with self._scratch() as folder, serve(folder, self._issuer, sold_out=True) as server:
            return lone_request, Samples(_sample(server), reserved)

    def _limit(self, answer: Answer) -> Round:
        with self._scratch() as folder, limit(self._nginx, folder, answer) as target:
            counts, measured = self._under_load(target)
        _expect_refusals(counts, "nginx", all_of_them=answer.status > 399)
        return measured

    def _sold_out(self, answer: Answer, served: Serving | None = None) -> Round:
        with self._scratch() as folder, (served or serve)(folder, self._issuer, sold_out=True) as server:
            self._warm_up(server.target)
            counts, measured = self._count_calls(server)
            levels = server.held_and_sold()
        _expect_refusals(counts, "a sold out sale", all_of_them=True)
        if levels != (0, 1):
            raise BenchError(f"a sold out sale of one unit has (held, sold) = {levels} after the load")
        surplus = counts.bytes - counts.requests * answer.size
        if not 0 <= surplus <= self._load.connections * answer.size:
            raise BenchError(f"answers of a sold out sale are not all of {answer.size} bytes: not all say sold_out")
        return measured

    def _sold_out_at_the_edge(self) -> Round:
        """Nginx answers; its own headers are not those of the node, so only refusals are counted, not bytes."""
        with self._scratch() as folder, edge.serve_behind_nginx(folder, self._issuer, sold_out=True) as server:
            self._warm_up(server.target)
            before = server.turned_away()
            counts, measured = self._load.run(server.target, self._options.seconds)
            reached = server.turned_away() - before
        _expect_refusals(counts, "a sold out sale at the edge", all_of_them=True)
        looks = self._options.seconds + 2
        if not 1 <= reached <= looks * self._load.connections:
            raise BenchError(f"{reached} of {counts.requests} requests reached the node, in {looks} looks at most")
        return msgspec.structs.replace(measured, ledger_calls_per_request=reached / counts.requests)

    def _durable(self, *, fast_lane: bool) -> Round:
        with self._scratch() as folder, serve(folder, self._issuer, fast_lane=fast_lane) as server:
            return self._reserve(server)

    def _durable_with_worker(self) -> Round:
        with self._scratch() as folder, serve(folder, self._issuer, settings=with_orders(folder)) as server:
            return self._reserve(server)

    def _redis_reserve(self, durability: Literal["memory", "fsync"] = "memory", **settings: str) -> Round:
        with (
            self._scratch() as folder,
            serve_with_valkey(folder, self._issuer, durability=durability, settings=settings) as server,
        ):
            return self._reserve(server)

    def _reserve(self, server: Server) -> Round:
        self._warm_up(server.target)
        held_before, _ = server.held_and_sold()
        counts, measured = self._count_calls(server)
        held, _ = server.held_and_sold()
        _expect_refusals(counts, "a sale with units for all", all_of_them=False)
        made = held - held_before
        if not counts.requests <= made <= counts.requests + self._load.connections:
            raise BenchError(f"{counts.requests} reservations were answered, but {made} are held")
        return measured

    def _count_calls(self, server: Server) -> tuple[Counts, Round]:
        """Load the server, and count what its node asked of its Valkey meanwhile."""
        if not server.target.store_pid:
            return self._load.run(server.target, self._options.seconds)
        before = server.ledger_calls()
        counts, measured = self._load.run(server.target, self._options.seconds)
        calls = server.ledger_calls() - before
        return counts, msgspec.structs.replace(
            measured,
            ledger_calls_per_request=calls.total() / counts.requests,
            decisions_per_request=calls["decide"] / counts.requests,
        )

    def _under_load(self, target: Target) -> tuple[Counts, Round]:
        self._warm_up(target)
        return self._load.run(target, self._options.seconds)

    def _warm_up(self, target: Target) -> None:
        self._load.run(target, self._options.warm_up_s)

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A fresh folder for one measurement, so that none finds what another left."""
        folder = Path(tempfile.mkdtemp(prefix="case-", dir=self._folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _say(self, line: str) -> None:
        if self._console.is_terminal:
            self._console.print(line, style="dim", highlight=False)


def run(options: BenchOptions, console: Console) -> BenchResult:
    """Measure everything, in about ``rounds * cases * (seconds + warm_up_s + 2)`` seconds and a minute.

    Cases are 7, 10 with a Valkey, and 13 with `redis_details`. Where no Valkey can be started, a warning says so.

    `console` gets the progress, if it is a terminal; give it one on standard error. Whatever happens,
    Ctrl-C and SIGTERM included, no process and no file is left behind.

    Raises:
        BenchError: a program is missing, or something did not do what it was measured for.
    """
    found = tools.find()
    place = journal_folder(options.folder)
    lacking = valkey.missing()
    facts = machine(found, place, "" if lacking else valkey.version())
    with _terminable(), tempfile.TemporaryDirectory(prefix="ticketrush-bench-", dir=place) as folder:
        try:
            results = _Run(options, found, Path(folder), console, redis=not lacking).results()
        except ClusterError as error:
            raise BenchError(str(error)) from error
    against = ratios(results)
    return BenchResult(
        machine=facts,
        options=options,
        results=results,
        ratios=against,
        targets=targets(results, against),
        warnings=(
            *warnings(facts, results),
            *([f"sold out at the edge was not measured: {edge.missing()}"] if edge.missing() else []),
            *([f"the ledger in Redis was not measured: {lacking}"] if lacking else []),
        ),
    )


def warnings(facts: Machine, results: Results) -> Iterator[str]:
    """Why these figures may not deserve trust."""
    if facts.filesystem in IN_MEMORY:
        yield f"the journal was on {facts.filesystem}, in memory: a sync costs nothing there; choose a folder on a disk"
    if facts.cores < 2:
        yield "server and load share one processor: all figures are far too low"
    for name in Results.__struct_fields__:
        case = getattr(results, name)
        others = case.median.other_cores if isinstance(case, Measured) else 0.0
        if others > OTHER_CORES_MAX:
            yield f"{name}: other programs kept {others:.2f} processors busy; repeat it on a quiet machine"


def _sample(server: Server) -> Answer:
    with Connection(server.target.url) as connection:
        return server.reserve(connection)


def _expect_refusals(counts: Counts, who: str, *, all_of_them: bool) -> None:
    expected = counts.requests if all_of_them else 0
    if counts.refusals != expected:
        raise BenchError(f"{who} refused {counts.refusals} of {counts.requests} requests instead of {expected}")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C does, so that everything started is ended."""

    def unwind(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
