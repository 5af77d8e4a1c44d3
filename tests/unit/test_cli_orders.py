"""`ticketrush migrate` and `ticketrush orders`: what they print, how they end, what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from tests.orders import by_hand, ended, held, paid, tell
from ticketrush import events as ev
from ticketrush.cli import app
from ticketrush.cli.app import Exit
from ticketrush.orders.model import DeadLetter, Kind, Repair
from ticketrush.orders.notices import encode

LETTERS = [
    DeadLetter("log/1", b"\x1b[31m{", "no JSON", 5),
    DeadLetter("log/2", encode(paid("cancelled")), "refused", 6),
    DeadLetter("log/3", encode(held("late")), "a defect that is mended", 7),
]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a store that is not made yet, and the one that the commands ask."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TICKETRUSH_ORDERS", f"sqlite:///{tmp_path}/orders.db")
    return f"sqlite:///{tmp_path}/orders.db"


@pytest.fixture
def url(empty: str) -> str:
    """A store with some of everything."""
    notices = [held("paid"), paid("paid"), held("cancelled"), ended("cancelled", Kind.CANCELLED), paid("late")]
    # numbers within a batch follow the ids: cancelled, late, paid
    repair = Repair("paid", "held", "paid", "the ledger says so", 8)
    tell(empty, lambda store: store.put(notices, dead=LETTERS, repairs=[repair]))
    return empty


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), terminal_width=200)


def printed(*arguments: str) -> Any:
    """The JSON that a command prints."""
    done = run(*arguments, "--json")
    assert done.exit_code == Exit.OK, done.output
    return json.loads(done.stdout)


# --- migrate --------------------------------------------------------------------------------


def test_check_says_what_is_to_be_applied_and_makes_nothing(empty: str, tmp_path: Path) -> None:
    done = run("migrate", "--check")
    assert (done.exit_code, "0001_orders is to be applied" in done.stdout) == (Exit.NOT_WELL, True)
    assert list(tmp_path.iterdir()) == []


def test_migrate_makes_the_tables_once(empty: str) -> None:
    assert printed("migrate") == {"orders": empty, "applied": ["0001_orders", "0002_claims_apart"]}
    assert printed("migrate") == {"orders": empty, "applied": []}
    assert printed("migrate", "--check") == {"orders": empty, "pending": []}


def test_without_tables_the_command_that_makes_them_is_named(empty: str, tmp_path: Path) -> None:
    (tmp_path / "orders.db").touch()
    done = run("orders", "totals")
    assert done.exit_code == Exit.USAGE
    assert f"has no tables yet: run `ticketrush migrate --orders {empty}`" in done.stderr


@pytest.mark.parametrize("command", ["orders totals", "reconcile --check"])
def test_a_file_that_is_missing_may_be_a_slip_of_the_pen(empty: str, tmp_path: Path, command: str) -> None:
    done = run(*command.split(), "--orders", "sqlite:///typo.db")
    assert done.exit_code == Exit.USAGE
    assert f"there is no file {tmp_path}/typo.db; is the path right?" in done.stderr
    assert "`ticketrush migrate --orders sqlite:///typo.db` would make a new, empty store" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_none_is_told_with_where_its_name_came_from(empty: str) -> None:
    done = run("orders", "totals", "--orders", "orders.db")
    assert done.exit_code == Exit.USAGE
    assert "orders = orders.db (from flag): write sqlite:///FILE" in done.stderr


def test_without_a_store_the_setting_is_named(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKETRUSH_ORDERS")
    for command in (("migrate",), ("orders", "totals")):
        done = run(*command)
        assert (done.exit_code, "TICKETRUSH_ORDERS" in done.stderr) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    ("orders", "code"),
    [("mongo://me:hush@localhost/x", Exit.USAGE), ("postgresql://me:hush@127.0.0.1:1/x", Exit.UNREACHABLE)],
)
def test_a_store_that_cannot_be_used_is_named_without_its_password(empty: str, orders: str, code: Exit) -> None:
    done = run("orders", "totals", "--orders", orders)
    assert done.exit_code == code
    assert "//" in done.stderr
    assert "hush" not in done.output


def test_a_store_that_refuses_connections_is_to_be_started(empty: str) -> None:
    done = run("orders", "totals", "--orders", "postgresql://me@127.0.0.1:1/x")
    assert "127.0.0.1:1/x does not answer (connection refused): start it, or name another" in done.stderr
    assert "Errno" not in done.stderr


@pytest.mark.parametrize("command", ["orders totals", "migrate", "migrate --check"])
def test_a_folder_that_is_missing_is_to_be_made_first(empty: str, tmp_path: Path, command: str) -> None:
    done = run(*command.split(), "--orders", f"sqlite:///{tmp_path}/nodir/x.db")
    assert done.exit_code == Exit.USAGE
    assert f"folder {tmp_path}/nodir does not exist: make it, or name another file" in done.stderr
    assert "run `ticketrush migrate" not in done.stderr


# --- orders ---------------------------------------------------------------------------------


def test_orders_of_a_buyer_are_listed_newest_first(url: str) -> None:
    assert [each["id"] for each in printed("orders", "list", "--buyer", "ann")] == ["paid", "cancelled"]
    shown = run("orders", "list", "--buyer", "ann", "--limit", "1")
    assert "amount minor" in shown.stdout
    assert "55300" in shown.stdout
    assert "--before 2" in shown.stderr
    (rest,) = printed("orders", "list", "--buyer", "ann", "--before", "2")
    assert rest["id"] == "cancelled"


def test_ids_and_places_are_never_wrapped(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    id, place = "0f8e" * 10, "ticketrush.notices/17/" + "9" * 40
    letters = [DeadLetter(place, b"{" * 50, "it is not a notice at all, as far as can be told", 5)]
    tell(empty, lambda store: store.put([held(id)], dead=letters))
    for command in (("list", "--buyer", "ann"), ("dead-letters",)):
        assert len(run("orders", *command).stdout.splitlines()) == 2, "piped, each row is a line"
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", "80")
    listed = run("orders", "list", "--buyer", "ann").stdout
    assert id in listed
    assert len(listed.splitlines()[1]) <= 80
    assert "held at" not in listed
    told = run("orders", "list", "--buyer", "ann").stderr
    assert "not shown here: amount minor, currency, held at; --json has all" in told
    width = int(told.split("a terminal of ")[1].split()[0])
    monkeypatch.setenv("COLUMNS", str(width))
    wide = run("orders", "list", "--buyer", "ann")
    assert ("held at" in wide.stdout, wide.stderr) == (True, "")
    monkeypatch.setenv("COLUMNS", str(width - 1))
    assert "not shown here: held at" in run("orders", "list", "--buyer", "ann").stderr
    monkeypatch.setenv("COLUMNS", "80")
    assert place in run("orders", "dead-letters").stdout


def test_an_order_is_shown_with_all_its_times(url: str) -> None:
    order = printed("orders", "show", "paid")
    assert (order["state"], order["held_at"], order["paid_at"], order["refunded_at"]) == (
        "paid",
        "1970-01-01T00:00:01.000Z",
        "1970-01-01T00:00:01.100Z",
        None,
    )
    shown = run("orders", "show", "paid").stdout
    assert "refunded" not in shown
    assert shown.startswith("number"), "no line of blanks comes before it"


def test_an_order_that_nobody_heard_of_is_not_well(url: str) -> None:
    done = run("orders", "show", "unheard")
    assert (done.exit_code, "unheard" in done.stderr) == (Exit.NOT_WELL, True)
    done = run("orders", "show", "17")
    assert (done.exit_code, "give the order's id" in done.stderr) == (Exit.NOT_WELL, True)


def test_totals_and_repairs(url: str) -> None:
    assert {(each["state"], each["orders"], each["units"]) for each in printed("orders", "totals")} == {
        ("paid", 1, 1),
        ("cancelled", 1, 1),
        ("incomplete", 1, 0),
    }
    assert "cancelled" in run("orders", "totals").stdout
    (repair,) = printed("orders", "repairs")
    assert (repair["order"], repair["after"], repair["at"]) == ("paid", "paid", "1970-01-01T00:00:00.008Z")
    assert "the ledger says so" in run("orders", "repairs").stdout


# --- dead letters ---------------------------------------------------------------------------


def test_dead_letters_are_listed_and_play_no_tricks_on_a_terminal(url: str) -> None:
    assert [each["where"] for each in printed("orders", "dead-letters")] == ["log/1", "log/2", "log/3"]
    shown = run("orders", "dead-letters").stdout
    assert "\x1b" not in shown
    assert "\\x1b[31m{" in shown
    assert [each["number"] for each in printed("orders", "dead-letters", "--after", "1", "--limit", "1")] == [2]


def test_replay_settles_what_goes_through_and_says_why_the_rest_does_not(url: str) -> None:
    done = run("orders", "replay", "--all", "--json")
    assert done.exit_code == Exit.NOT_WELL
    first, second, third = json.loads(done.stdout)
    assert "not a notice" in first["error"]
    assert "order cancelled is refused" in second["error"]
    assert not third["error"]
    assert printed("orders", "show", "late")["state"] == "paid"
    assert [each["number"] for each in printed("orders", "dead-letters")] == [1, 2]
    assert by_hand(url, "select outcome from dead_letters where number = 3") == [("replayed",)]


def test_an_event_of_a_stream_is_replayed_where_it_says_enough(url: str) -> None:
    events = (
        ev.Paid(9, "of-an-event", "p-9"),
        ev.Held(9, "h", "g1", "second", "ann", 1, "", 10),
        ev.StockAdded(9, "g1", "i", 1, ""),
    )
    letters = [DeadLetter(f"stream/{n}", msgspec.msgpack.encode(each), "", 9) for n, each in enumerate(events)]
    tell(url, lambda store: store.put([], dead=letters))
    paid_one, held_one, other = json.loads(run("orders", "replay", "--all", "--json").stdout)[-3:]
    assert not paid_one["error"]
    assert printed("orders", "show", "of-an-event")["payment"] == "p-9"
    assert "ticketrush reconcile" in held_one["error"]
    assert "not a notice" in other["error"]


def test_a_letter_without_a_payload_is_an_empty_message(url: str) -> None:
    tell(url, lambda store: store.put([], dead=[DeadLetter("topic/0/1", b"", "", 9)]))
    (*_, tombstone) = json.loads(run("orders", "replay", "--all", "--json").stdout)
    assert tombstone["error"] == "not a notice: empty message"


def test_one_letter_is_replayed(url: str) -> None:
    done = run("orders", "replay", "3")
    assert (done.exit_code, "replayed" in done.stdout) == (Exit.OK, True)
    again = run("orders", "replay", "3")
    assert (again.exit_code, "no dead letter 3" in again.stderr) == (Exit.NOT_WELL, True)


@pytest.mark.parametrize("arguments", [["replay", "x"], ["replay", "0"], ["discard", "x", "--reason", "a test"]])
def test_a_letter_is_named_by_its_number(url: str, arguments: list[str]) -> None:
    done = run("orders", *arguments)
    assert (done.exit_code, "is no dead letter's number" in done.stderr) == (Exit.USAGE, True)


@pytest.mark.parametrize("arguments", [[], ["3", "--all"]])
def test_replay_wants_a_number_or_all(url: str, arguments: list[str]) -> None:
    done = run("orders", "replay", *arguments)
    assert (done.exit_code, "--all" in done.stderr) == (Exit.USAGE, True)


def test_a_letter_is_given_up_with_a_reason(url: str) -> None:
    assert run("orders", "discard", "1", "--reason", " ").exit_code == Exit.USAGE
    assert run("orders", "discard", "1", "--reason", "a test").exit_code == Exit.OK
    assert [each["number"] for each in printed("orders", "dead-letters")] == [2, 3]
    assert by_hand(url, "select outcome from dead_letters where number = 1") == [("given up: a test",)]
    assert run("orders", "discard", "1", "--reason", "a test").exit_code == Exit.NOT_WELL


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--buyer", "\udcff"],
        ["list", "--buyer", "ann", "--before", "0"],
        ["list", "--buyer", "ann", "--before", "9" * 20],
        ["show", "\udcff"],
        ["discard", "1", "--reason", "\udcff"],
    ],
)
def test_what_no_store_could_be_asked_is_wrong_usage(url: str, arguments: list[str]) -> None:
    assert run("orders", *arguments, "--orders", url).exit_code == 2
