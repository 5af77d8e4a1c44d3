"""The rush as a whole: real processes, real sockets, a real journal, and an exit code that tells the truth."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.rushes import RunningRush, Rush, rush
from tests.servers import FAST_LANE, SECRETS, running
from ticketrush.cli.app import Exit

SHAPE: Final[dict[str, Any]] = {
    "buyers": int,
    "tickets": int,
    "requests": int,
    "answers": {
        "held": int,
        "sold_out": int,
        "all_held": int,
        "purchase_limit": int,
        "replayed": int,
        "error": int,
    },
    "paid": int,
    "oversold": int,
    "undersold": int,
    "lost": int,
    "unexpected": int,
    "seconds": float,
    "requests_per_s": int,
    "reserve_per_s": int,
    "latency_ms": {"p50": float, "p99": float, "p999": float, "max": float},
    "server_cpu_us_per_request": float,
    "server_rss_mb": float,
    "audit": {f"I{number}": bool for number in range(1, 9)},
    "nodes": list,
    "killed": int,
}
"""The report, as programs rely on it; what else there is to tell is in "extra"."""

SMALL: Final = ("--buyers", "3000", "--tickets", "200", "--hold", "0.6")
OPERATORS_SECRETS: Final = {"TICKETRUSH_TOKEN_SECRETS": ",".join(SECRETS)}


def shape_of(value: object) -> object:
    """The names and types in a JSON value."""
    if isinstance(value, dict):
        return {name: shape_of(inner) for name, inner in value.items()}
    return type(value)


def check_exact(done: Rush, tickets: int = 200) -> dict[str, Any]:
    """Every ticket is sold and paid once, everybody was answered, and it says so; the report."""
    assert done.code == 0, done.output + done.errors
    assert "not one ticket too many, not one too few" in done.output
    report = done.report()
    assert [report[name] for name in ("oversold", "undersold", "lost", "unexpected")] == [0, 0, 0, 0]
    assert report["paid"] == report["tickets"] == tickets
    assert report["audit"] == {f"I{number}": True for number in range(1, 9)}
    assert report["answers"]["error"] == 0
    extra = report["extra"]
    answers = [*report["answers"].values(), *extra["payments"].values(), extra["busy"], extra["unknown"]]
    assert report["requests"] == sum(answers)
    assert extra["finished"] is True
    assert extra["violations"] == []
    assert done.page.read_text(encoding="utf-8").startswith("<!doctype html>")
    return report


def test_the_plain_command_sells_every_ticket_once(story: Rush) -> None:
    report = check_exact(story)

    assert report["buyers"] == 3_000
    assert report["answers"]["sold_out"] > 0
    assert report["answers"]["held"] + report["answers"]["replayed"] >= 200, "who paid was told of a hold before"
    assert report["extra"]["expired"] > 0, "a fifth of the winners never pays"


def test_the_report_has_the_promised_shape(story: Rush) -> None:
    report = story.report()

    extra = report.pop("extra")
    assert shape_of(report) == SHAPE
    assert list(report) == list(SHAPE)
    assert isinstance(extra, dict)
    latency = report["latency_ms"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p999"] <= latency["max"]
    assert report["seconds"] > 0
    assert report["server_cpu_us_per_request"] > 0
    assert report["server_rss_mb"] > 10


def test_buyers_may_come_at_a_pace_of_their_own(tmp_path: Path) -> None:
    report = check_exact(rush(tmp_path, *SMALL, "--arrivals", "2000"))

    assert report["buyers"] == 3_000
    assert report["seconds"] > 3_000 / 2_000, "they did not come faster than they were told to"


def test_half_abandon_many_ask_twice_and_nobody_gets_a_second_ticket(tmp_path: Path) -> None:
    report = check_exact(rush(tmp_path, *SMALL, "--limit", "1", "--abandon", "0.5", "--duplicates", "0.2"))

    assert report["extra"]["expired"] > 50
    assert report["answers"]["replayed"] > 10
    assert report["extra"]["options"]["limit"] == 1


def test_a_running_server_keeps_what_it_had_before_the_rush(tmp_path: Path) -> None:
    with running() as server:
        server.open_sale("before", {"second": 5})
        assert server.reserve("before", buyer="ada", key="k1").status == 201

        report = check_exact(rush(tmp_path, *SMALL, "--url", server.url, env=OPERATORS_SECRETS))

        assert report["server_rss_mb"] > 10
        assert server.is_running
        level = server.level("before")
        assert (level["available"], level["held"]) == (4, 1)
        assert server.audit()["ok"] is True


def eventually(what: Callable[[], object], within_s: float = 20.0) -> None:
    """Wait until something is so."""
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until, f"not so within {within_s:g} s"
        time.sleep(0.02)


SLOW: Final = ("--buyers", "30000", "--tickets", "20000", "--arrivals", "500", "--connections", "16")
"""A rush of a minute, so that there is time to end its server in the middle."""


def test_a_server_that_dies_in_the_middle_is_no_success(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:  # both at once: each waits a while for its server to come back
        server = stack.enter_context(running())
        visitor = begin(stack, tmp_path / "visitor", *SLOW, "--url", server.url, env=OPERATORS_SECRETS)
        host = begin(stack, tmp_path / "host", *SLOW)
        for each in (visitor, host):
            eventually(functools.partial(each.child, "ticketrush.crowd"))
        time.sleep(0.5)
        server.kill()
        own = host.child("ticketrush serve")
        assert own is not None
        os.kill(own, signal.SIGKILL)

        killed_s = time.monotonic()
        check_failed(visitor.end(), Exit.UNREACHABLE, f"127.0.0.1:{server.port}", "Connection refused")
        assert time.monotonic() - killed_s < 10, "nobody waits long for a server that refuses"
        check_failed(host.end(), Exit.NOT_WELL, "the rush's own server", "was ended by SIGKILL", str(host.temporary))
        assert list(host.temporary.rglob("*.db")), "its journal is still there, to be looked at"


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")]
)
def test_a_rush_that_is_stopped_says_so_in_one_sentence_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals, word: str
) -> None:
    with contextlib.ExitStack() as stack:
        under_way = begin(stack, tmp_path / "rush", *SLOW)
        children = children_of(under_way)
        time.sleep(0.7)
        under_way.process.send_signal(number)
        done = under_way.end()

    check_failed(done, 128 + number, f"stopped by {word}", "nothing was audited")
    assert len(done.errors[done.errors.index("ticketrush: ") :].splitlines()) == 1
    assert not any(map(is_alive, children))
    assert not list(under_way.temporary.iterdir())


def test_a_rush_that_is_killed_takes_its_server_and_its_crowd_with_it(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        under_way = begin(stack, tmp_path / "rush", *SLOW)
        children = children_of(under_way)
        under_way.process.kill()
        under_way.end()
        eventually(lambda: not any(map(is_alive, children)))


def children_of(under_way: RunningRush) -> list[int]:
    """Its server and its crowd, once both are there."""
    eventually(functools.partial(under_way.child, "ticketrush.crowd"))
    found = [under_way.child(command) for command in ("ticketrush serve", "ticketrush.crowd")]
    return [pid for pid in found if pid is not None]


def is_alive(pid: int) -> bool:
    """Whether there is a process `pid`; one that has ended and is not collected yet does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_open_server_asks_for_no_secrets(tmp_path: Path) -> None:
    with running(FAST_LANE, "--open", secrets=()) as server:
        check_exact(rush(tmp_path, *SMALL, "--url", server.url))


def test_a_server_that_wants_tokens_is_not_loaded_without_them(tmp_path: Path) -> None:
    with running() as server:
        done = rush(tmp_path, *SMALL, "--url", server.url)
    check_failed(done, Exit.USAGE, "asks buyers for tokens", "TICKETRUSH_TOKEN_SECRETS")


def test_a_stock_that_is_too_large_for_the_crowd_is_not_said_to_be_sold(tmp_path: Path) -> None:
    done = rush(tmp_path, "--buyers", "100", "--tickets", "1000", "--hold", "0.6")

    assert done.code == Exit.OK, done.errors
    paid = done.report()["paid"]
    assert 0 < paid < 100
    assert f"All is well. {paid} of 1,000 tickets sold: the crowd wanted no more." in done.output
    assert "not one too few" not in done.output + done.page.read_text(encoding="utf-8")


def test_tickets_that_nobody_pays_for_are_no_success(tmp_path: Path) -> None:
    done = rush(tmp_path, "--buyers", "50", "--tickets", "20", "--abandon", "1", "--hold", "0.3")

    assert done.code == Exit.NOT_WELL
    assert "Nothing was broken, but 0 of 20 tickets are paid: nobody paid." in done.output


def begin(stack: contextlib.ExitStack, folder: Path, *flags: str, env: dict[str, str] | None = None) -> RunningRush:
    """Start a rush that is ended with `stack`, if it has not ended by then."""
    folder.mkdir()
    under_way = RunningRush(folder, *flags, env=env)
    stack.callback(under_way.kill)
    return under_way


def check_failed(done: Rush, code: int, *reasons: str) -> None:
    """It ended with the exit code that says so, one message with these reasons, and no report."""
    assert done.code == code, done.errors
    message = done.errors[done.errors.index("ticketrush: ") :]
    for reason in reasons:
        assert reason in message
    assert "Traceback" not in done.output + done.errors
    assert not done.json.exists(), "there is no report of what could not be checked"
