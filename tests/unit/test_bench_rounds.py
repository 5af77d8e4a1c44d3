"""A measurement that was not what it was meant to be gives no figures."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from ticketrush.bench import BenchOptions, rounds
from ticketrush.bench.client import Answer
from ticketrush.bench.errors import BenchError
from ticketrush.bench.load import Counts
from ticketrush.bench.result import Results, Round
from ticketrush.bench.target import Target
from ticketrush.bench.tools import Tools

TARGET = Target("http://127.0.0.1:1", 1)
REFUSAL = Answer(409, {}, b"{}", 100)


class FakeServer:
    """Holds `made` more units after the load than before, or is sold out."""

    target = TARGET

    def __init__(self, *levels: tuple[int, int]) -> None:
        self._levels = iter(levels)

    def held_and_sold(self) -> tuple[int, int]:
        return next(self._levels)


class FakeLoad:
    """Gets 1,000 answers, `refusals` of them above 399, in `size` bytes."""

    connections = 200

    def __init__(self, refusals: int = 0, size: int = 100_000) -> None:
        self._counts = Counts(1_000, 1_000_000, size, refusals, 0, 0, 0, 0, 1, 1, 1)

    def run(self, target: Target, seconds: int) -> tuple[Counts, Round]:
        return self._counts, Round(1_000.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0)


@pytest.fixture
def run(tmp_path: Path) -> rounds._Run:
    return rounds._Run(BenchOptions(buyers=1), Tools("wrk", "nginx"), tmp_path, Console(quiet=True))


def play(monkeypatch: pytest.MonkeyPatch, run: rounds._Run, server: FakeServer, load: FakeLoad) -> None:
    """Let `run` measure `server` with `load`."""

    @contextlib.contextmanager
    def serve(*args: object, **options: object) -> Iterator[FakeServer]:
        yield server

    monkeypatch.setattr(rounds, "serve", serve)
    monkeypatch.setattr(run, "_load", load)


@pytest.mark.parametrize("made", [1_000, 1_200])
def test_reservations_that_are_all_held_count(monkeypatch: pytest.MonkeyPatch, run: rounds._Run, made: int) -> None:
    play(monkeypatch, run, FakeServer((7, 0), (7 + made, 0)), FakeLoad())
    assert run._durable(fast_lane=True).requests_per_s == 1_000


@pytest.mark.parametrize("made", [0, 999, 1_201])
def test_answers_and_holds_that_do_not_agree_fail_the_run(
    monkeypatch: pytest.MonkeyPatch, run: rounds._Run, made: int
) -> None:
    play(monkeypatch, run, FakeServer((7, 0), (7 + made, 0)), FakeLoad())
    with pytest.raises(BenchError, match=f"1000 reservations were answered, but {made} are held"):
        run._durable(fast_lane=True)


def test_a_single_refused_reservation_fails_the_run(monkeypatch: pytest.MonkeyPatch, run: rounds._Run) -> None:
    play(monkeypatch, run, FakeServer((0, 0), (1_000, 0)), FakeLoad(refusals=1))
    with pytest.raises(BenchError, match="refused 1 of 1000"):
        run._durable(fast_lane=True)


def test_a_sold_out_sale_that_only_refuses_counts(monkeypatch: pytest.MonkeyPatch, run: rounds._Run) -> None:
    play(monkeypatch, run, FakeServer((0, 1)), FakeLoad(refusals=1_000))
    assert run._sold_out(REFUSAL).requests_per_s == 1_000


@pytest.mark.parametrize(
    ("levels", "refusals", "size", "complaint"),
    [
        ((0, 1), 999, 100_000, "refused 999 of 1000"),
        ((1, 1), 1_000, 100_000, r"\(1, 1\)"),
        ((0, 1), 1_000, 99_900, "not all say sold_out"),
        ((0, 1), 1_000, 121_000, "not all say sold_out"),
    ],
)
def test_a_sold_out_sale_that_does_anything_else_fails_the_run(
    monkeypatch: pytest.MonkeyPatch,
    run: rounds._Run,
    levels: tuple[int, int],
    refusals: int,
    size: int,
    complaint: str,
) -> None:
    play(monkeypatch, run, FakeServer(levels), FakeLoad(refusals, size))
    with pytest.raises(BenchError, match=complaint):
        run._sold_out(REFUSAL)


def test_every_case_comes_after_its_limit(run: rounds._Run) -> None:
    assert list(run._cases(rounds.Samples(REFUSAL, REFUSAL))) == [
        "limit_sold_out",
        "sold_out",
        "sold_out_edge",
        "limit_reserve",
        "reserve_durable",
        "reserve_durable_with_worker",
        "reserve_durable_plain_asgi",
    ]


def test_the_ledger_in_redis_is_measured_in_the_same_round(tmp_path: Path) -> None:
    options, found = BenchOptions(buyers=1), Tools("wrk", "nginx")
    run = rounds._Run(options, found, tmp_path, Console(quiet=True), redis=True)
    names = list(run._cases(rounds.Samples(REFUSAL, REFUSAL)))
    assert names == [
        "limit_sold_out",
        "sold_out",
        "sold_out_edge",
        "sold_out_redis",
        "limit_reserve",
        "reserve_durable",
        "reserve_durable_with_worker",
        "reserve_redis",
        "reserve_redis_fsync",
        "reserve_durable_plain_asgi",
    ]
    detailed = dataclasses.replace(options, redis_details=True)
    more = rounds._Run(detailed, found, tmp_path, Console(quiet=True), redis=True)._cases(
        rounds.Samples(REFUSAL, REFUSAL)
    )
    assert set(more) - set(names) == {
        "reserve_redis_local_stock_off",
        "reserve_redis_shards_2",
        "reserve_redis_shards_4",
    }
    assert set(more) <= set(Results.__struct_fields__)


def test_calls_to_the_valkey_are_counted_through_the_answers(monkeypatch: pytest.MonkeyPatch, run: rounds._Run) -> None:
    counts = iter([Counter(decide=5, look=7), Counter(decide=15, look=8, stock=9)])
    server = FakeServer()
    server.target = dataclasses.replace(TARGET, store_pid=2)
    monkeypatch.setattr(server, "ledger_calls", lambda: next(counts), raising=False)
    monkeypatch.setattr(run, "_load", FakeLoad())
    _, measured = run._count_calls(server)  # type: ignore[arg-type]
    assert measured.ledger_calls_per_request == 20 / 1_000
    assert measured.decisions_per_request == 10 / 1_000


def test_a_case_leaves_no_folder_behind(monkeypatch: pytest.MonkeyPatch, run: rounds._Run, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    play(monkeypatch, run, FakeServer((0, 0), (1, 0)), FakeLoad())
    with pytest.raises(BenchError):
        run._durable(fast_lane=True)
    assert set(tmp_path.iterdir()) == before


def test_sigterm_unwinds_and_the_handler_before_is_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"), rounds._terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
