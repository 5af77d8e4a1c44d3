"""The command line: flags and their twins, exit codes, what it prints, what it asks of a server."""

from __future__ import annotations

import dataclasses
import http.server
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import structlog
import typer
from typer.testing import CliRunner, Result

from ticketrush import logs
from ticketrush._version import __version__
from ticketrush.admission.tokens import Tokens
from ticketrush.bench import BenchError, BenchOptions
from ticketrush.cli import app, help_page, output
from ticketrush.cli.app import CODES, Exit, RefusedError, UnreachableError, code_of
from ticketrush.crowd.errors import NoAnswer, Stopped
from ticketrush.crowd.options import RushOptions
from ticketrush.errors import (
    InvalidRequest,
    JournalCorrupt,
    JournalForeign,
    JournalLocked,
    LedgerUnavailable,
    SettingsError,
)
from ticketrush.ledger.journal import Journal
from ticketrush.settings import Settings, variable_of

SECRET = "s" * 32
NO_TWIN = {"help", "version", "install_completion", "show_completion"}
"""What prints something and exits has no use for a twin."""

SHARED = {
    *("TICKETRUSH_URL", "TICKETRUSH_TOKEN", "TICKETRUSH_CONFIG"),
    *("TICKETRUSH_EDGE_CLUSTER", "TICKETRUSH_EDGE_OUT", "TICKETRUSH_EDGE_JSON"),
}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A working directory and an environment without settings; logging as it was, afterwards."""
    monkeypatch.chdir(tmp_path)
    for variable in list(os.environ):
        if variable.startswith("TICKETRUSH_"):
            monkeypatch.delenv(variable)
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:], logging.root.level = handlers, level
    structlog.reset_defaults()


def run(*arguments: str, env: dict[str, str] | None = None, stdin: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), env=env, input=stdin, terminal_width=120)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its whole name."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for part, below in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {part}".strip(), below)

    yield from walk("", typer.main.get_command(app))


def flags() -> Iterator[tuple[str, Any]]:
    """Every flag with the name of its command."""
    for name, command in commands():
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name not in NO_TWIN:
                yield name, parameter


FLAGS = list(flags())
FLAG_IDS = [f"{command} {flag.opts[0]}" for command, flag in FLAGS]
COMMANDS = [(name, command) for name, command in commands() if not hasattr(command, "commands")]


# --- flags -------------------------------------------------------------------------------------


def test_all_commands_are_there() -> None:
    assert {name for name, _ in COMMANDS} == {
        *("serve", "up", "rush", "audit", "reconcile", "bench", "strategies", "config show"),
        *("token secret", "token webhook-secret", "token mint", "token check", "test-gateway"),
        *("work", "relay", "migrate", "orders list", "orders show", "orders totals", "orders repairs"),
        *("orders dead-letters", "orders replay", "orders discard"),
        *("edge example", "edge nginx", "edge lvs", "edge ospf", "edge check", "edge demo", "edge lab"),
        *("sale create", "sale show", "sale hash", "sale open", "sale close", "sale add-stock"),
    }


@pytest.mark.parametrize(("command", "flag"), FLAGS, ids=FLAG_IDS)
def test_every_flag_has_a_twin_in_the_environment_and_a_help(command: str, flag: Any) -> None:
    assert flag.help
    assert flag.envvar, f"{command} {flag.opts[0]} has no variable"
    if flag.name in Settings.model_fields:
        assert flag.envvar == variable_of(flag.name)
    elif flag.envvar not in SHARED:
        assert flag.envvar.startswith(f"TICKETRUSH_{command}_".upper().replace(" ", "_").replace("-", "_"))


def test_no_two_flags_share_a_twin() -> None:
    shared = SHARED | {variable_of(name) for name in Settings.model_fields}
    twins = [flag.envvar for _, flag in FLAGS if flag.envvar not in shared]
    assert sorted(set(twins)) == sorted(twins)


@pytest.mark.parametrize("flag", [flag for command, flag in FLAGS if command == "serve"], ids=lambda flag: flag.name)
def test_flags_of_serve_say_what_the_settings_say(flag: Any) -> None:
    if flag.name in Settings.model_fields:
        assert flag.help == Settings.model_fields[flag.name].description


@pytest.mark.parametrize("name", [name for name, _ in COMMANDS])
def test_every_command_has_help(name: str) -> None:
    result = run(*name.split(), "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_no_help_is_cut_off_on_a_narrow_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, [*name.split(), "--help"]).stdout
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    whole = "".join(shown.replace("│", "").split())
    for command, flag in FLAGS:
        if command == name:
            assert flag.envvar in whole


def test_a_typer_whose_parts_have_moved_still_shows_its_own_help(monkeypatch: pytest.MonkeyPatch) -> None:
    def moved(*_: object) -> None:
        raise AttributeError("display_type_rich")

    monkeypatch.setattr(help_page, "_flag_of", moved)
    shown = run("serve", "--help")
    assert shown.exit_code == 0
    assert "--ledger" in shown.stdout


def test_examples_are_one_a_line() -> None:
    shown = [line.strip() for line in run("migrate", "--help").stdout.splitlines()]
    assert [line for line in shown if line.startswith("•")] == [
        "• ticketrush migrate --orders sqlite:///orders.db",
        "• ticketrush migrate --check exits 1 if something is to be applied.",
        "• TICKETRUSH_ORDERS=postgresql://shop:PASSWORD@db/shop ticketrush migrate",
    ]
    assert any(line.startswith("Exit codes: 0 all is applied · 1 --check") for line in shown)


def test_the_help_names_the_exit_codes_and_variables() -> None:
    assert "Exit codes: 0 all is well · 1 refused" in " ".join(run("--help").stdout.split())
    assert "TICKETRUSH_PORT" in run("serve", "--help").stdout


def test_the_version() -> None:
    assert run("--version").stdout.startswith(f"ticketrush {__version__} (Python 3")


# --- exit codes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("x"), 1),
        (RefusedError("x"), 1),
        (SettingsError("x"), 2),
        (JournalLocked("x"), 3),
        (JournalCorrupt("x"), 3),
        (JournalForeign("x"), 3),
        (LedgerUnavailable("x"), 3),
        (UnreachableError("x"), 4),
        (NoAnswer("x"), 4),
        (Stopped("x", signal.SIGHUP), 129),
        (Stopped("x", signal.SIGINT), 130),
        (Stopped("x", signal.SIGTERM), 143),
    ],
)
def test_an_error_has_an_exit_code(error: Any, code: int) -> None:
    assert code_of(error) == code


def test_every_code_is_used() -> None:
    assert {code for _, code in CODES} | {Exit.OK, Exit.NOT_WELL} == set(Exit)


def test_an_error_is_one_message_on_standard_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ticketrush", "serve"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={key: value for key, value in os.environ.items() if not key.startswith("TICKETRUSH_")},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("ticketrush: token_secrets is empty")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["serve", "--port", "x"],
        ["serve", "--port", "70000"],
        ["serve", "--open", "--host", "0.0.0.0"],
        ["serve", "--demo", "0"],
        ["serve", "--open", "--stat-log", "stat.log"],
        ["audit", "redis://localhost"],
        ["sale", "create", "g1", "--item", "second"],
        ["sale", "create", "g1", "--item", "second=many"],
        ["sale", "create", "g1", "--item", "second=1,colour=red"],
        ["sale", "create", "g1", "--item", "second=-1"],
        ["sale", "create", "g1", "--item", "second=1,limit=0"],
        ["sale", "create", "g1", "--item", "second=1,currency=yuan"],
        ["sale", "create", "g1"],
        ["sale", "show", "g1", "--url", "ftp://example.org"],
        ["sale", "show", "g1", "--url", "http://example.org:many"],
        ["token", "mint"],
        ["token", "mint", "--buyer", "alice"],
        ["token", "mint", "--buyer", "alice", "--ttl", "0"],
        ["config", "show", "--config", "gone.toml"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "g1", "--item", "s=1", "--opens-at", "2030-01-01"], "write it like 2030-01-20T08:00:00Z"),
        (["create", "g1", "--item", "s=1", "--closes-at", "2030-01-20T08:00:00"], "write it like 2030-01-20T08:00:00Z"),
        (["create", "g1", "--item", "se cond=1"], "'se cond' cannot name the item: a name is 1 to 64 of A-Z"),
        (["create", "g 1", "--item", "s=1"], "'g 1' cannot name the sale: a name is 1 to 64 of A-Z"),
        (["add-stock", "g1", "second", "-5"], "'-5': write how many units more, 1 at least"),
        (["add-stock", "g1", "second", "many"], "'many': write how many units more, 1 at least"),
    ],
)
def test_what_a_sale_cannot_be_is_told_before_the_server_is_asked(arguments: list[str], words: str) -> None:
    result = run("sale", *arguments, "--url", "http://127.0.0.1:1")
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr


# --- serve -------------------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What a server that ends at once was asked to serve."""
    seen: list[Settings] = []

    def fake(settings: Settings, *, announce: Callable[[str], None]) -> None:
        seen.append(settings)
        announce("http://127.0.0.1:4711")

    monkeypatch.setattr("ticketrush.http.server.serve", fake)
    return seen


def test_serve_announces_itself_as_a_line_of_json(served: list[Settings]) -> None:
    result = run("serve", "--open", "--json", "--port", "0")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"event": "serving", "url": "http://127.0.0.1:4711", "pid": os.getpid()}
    assert (served[0].open, served[0].port) == (True, 0)


def test_serve_takes_variables_and_flags_overrule_them(served: list[Settings]) -> None:
    env = {"TICKETRUSH_PORT": "1", "TICKETRUSH_QUEUE_MAX": "99", "TICKETRUSH_OPEN": "true", "TICKETRUSH_FAST_LANE": "0"}
    assert run("serve", "--port", "2", env=env).exit_code == 0
    settings = served[0]
    assert (settings.port, settings.queue_max, settings.open, settings.fast_lane) == (2, 99, True, False)
    assert [settings.origin(name) for name in ("port", "fast_lane")] == ["flag", "environment TICKETRUSH_FAST_LANE"]


def test_a_folder_of_a_ledger_that_is_missing_is_to_be_made_first(served: list[Settings]) -> None:
    result = run("serve", "--open", "--ledger", "sqlite:///nodir/tickets.db")
    assert result.exit_code == 3
    assert "the folder nodir does not exist: make it, or name another file with --ledger" in result.stderr
    assert not served


def test_without_a_secret_a_test_gateway_says_how_to_make_one() -> None:
    result = run("test-gateway", "--webhook-url", "http://127.0.0.1:8000/v1/webhooks/payments")
    assert (result.exit_code, "`ticketrush token webhook-secret`" in result.stderr) == (2, True)


@pytest.mark.parametrize(("command", "is_advised"), [(["up"], True), (["rush", "--nodes", "2"], False)])
def test_a_missing_server_is_told_with_the_flags_that_the_command_has(
    command: list[str], is_advised: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ticketrush.cluster.valkey._in_wheel", lambda: None)
    monkeypatch.setattr("ticketrush.cluster.valkey.shutil.which", lambda name: None)
    result = run(*command)
    assert (result.exit_code, "ticketrush[cluster]" in result.stderr) == (2, True)
    assert ("--redis" in result.stderr) is is_advised


def test_a_demo_sells_from_a_temporary_folder_that_goes_away(served: list[Settings]) -> None:
    result = run("serve", "--demo", "10000", "--port", "3005")
    assert result.exit_code == 0, result.stderr
    assert "http://127.0.0.1:4711/buy/ticket" in result.stdout
    assert served[0].ledger_path.name == "demo.db"
    assert not served[0].ledger_path.parent.exists()


def test_a_demo_with_a_ledger_keeps_it(served: list[Settings]) -> None:
    assert run("serve", "--demo", "5", "--ledger", "sqlite:///kept.db").exit_code == 0
    assert served[0].ledger == "sqlite:///kept.db"


# --- audit -------------------------------------------------------------------------------------


def test_a_file_that_is_no_journal_is_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("not a journal" * 100)
    result = run("audit", "sqlite:///other.db")
    assert result.exit_code == 3
    assert "not a ticketrush journal" in result.stderr


def test_a_journal_that_is_missing_is_exit_code_3_and_is_not_made(tmp_path: Path) -> None:
    for name in ("sqlite:///gone.db", "gone.db", str(tmp_path / "gone.db")):
        result = run("audit", name)
        assert result.exit_code == 3
        assert "gone.db; name its file, like" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_may_be_named_by_its_file(tmp_path: Path) -> None:
    Journal(tmp_path / "tickets.db").close()
    for name in ("sqlite:///tickets.db", "tickets.db", str(tmp_path / "tickets.db")):
        result = run("audit", name, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["I1"] is True


# --- tokens ------------------------------------------------------------------------------------


def test_a_secret_is_long_and_never_the_same() -> None:
    first, second = (run("token", "secret").stdout.strip() for _ in range(2))
    assert first != second
    assert len(first) >= 32
    assert "," not in first


@pytest.mark.parametrize("operator", [True, False])
def test_what_is_minted_checks(operator: bool) -> None:
    env = {"TICKETRUSH_TOKEN_SECRETS": SECRET}
    token = run("token", "mint", "--buyer", "alice", *(["--operator"] if operator else []), env=env).stdout.strip()
    claims = Tokens([SECRET.encode()], "ticketrush").verify(b"Bearer " + token.encode())
    assert (claims.sub, claims.is_operator) == ("alice", operator)
    checked = run("token", "check", "-", "--json", env=env, stdin=token + "\n")
    assert checked.exit_code == 0
    assert json.loads(checked.stdout)["operator"] is operator


def test_a_forged_token_is_exit_code_1() -> None:
    token = Tokens([b"f" * 32], "ticketrush").mint("alice", ttl_s=60)
    result = run("token", "check", token, env={"TICKETRUSH_TOKEN_SECRETS": SECRET})
    assert result.exit_code == 1
    assert "signature" in result.stderr
    assert SECRET not in result.output


# --- config ------------------------------------------------------------------------------------


def test_config_show_tells_values_and_where_they_came_from(tmp_path: Path) -> None:
    (tmp_path / "ticketrush.toml").write_text("batch_max = 64")
    env = {"TICKETRUSH_TOKEN_SECRETS": SECRET, "TICKETRUSH_PORT": "9000"}
    shown = json.loads(run("config", "show", "--json", env=env).stdout)
    assert set(shown) == set(Settings.model_fields)
    assert (shown["batch_max"]["value"], shown["batch_max"]["from"]) == ("64", "ticketrush.toml")
    assert (shown["port"]["value"], shown["port"]["from"]) == ("9000", "environment TICKETRUSH_PORT")
    assert shown["token_secrets"]["value"] == "1 (hidden)"
    table = run("config", "show", env=env).stdout
    assert SECRET not in table
    assert "graceful_timeout_s" in table
    assert "ticketrush.toml" in table


# --- sales -------------------------------------------------------------------------------------

SHOWN = {
    "id": "g1",
    "state": "open",
    "opens_at": "2026-11-22T10:00:00.000Z",
    "closes_at": None,
    "hold_window_s": 300.0,
    "items": [
        {
            "id": "second",
            "capacity": 10_000,
            "available": 9_000,
            "leased": 0,
            "held": 400,
            "sold": 600,
            "purchase_limit": None,
            "price_minor": 55_300,
            "currency": "CNY",
        }
    ],
}


class Answers(http.server.BaseHTTPRequestHandler):
    """A server that writes down what it is asked, and gives the answer it was told to give."""

    asked: ClassVar[list[tuple[str, str, Any, dict[str, str]]]] = []
    answer: ClassVar[tuple[int, bytes]] = (200, b"{}")

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append((self.command, self.path, json.loads(body) if body else None, dict(self.headers)))
        status, content = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = _serve

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[tuple[str, type[Answers]]]:
    """A server's URL, and the server."""

    class Fresh(Answers):
        asked: ClassVar[list[tuple[str, str, Any, dict[str, str]]]] = []
        answer: ClassVar[tuple[int, bytes]] = (200, json.dumps(SHOWN).encode())

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Fresh) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", Fresh
        server.shutdown()
        thread.join()


def test_create_sends_the_sale_and_opens_it(site: tuple[str, type[Answers]]) -> None:
    url, server = site
    items = ["--item", "second=10000,limit=2,price=55300,currency=EUR", "--item", "first=5"]
    env = {"TICKETRUSH_TOKEN": "abc", "TICKETRUSH_URL": url}
    result = run(
        "sale", "create", "g1", *items, "--hold", "2.5", "--opens-at", "2030-01-20T08:00:00Z", "--open", env=env
    )
    assert result.exit_code == 0, result.stderr
    (method, path, body, headers), opened = server.asked
    assert (method, path) == ("PUT", "/v1/sales/g1")
    assert body == {
        "items": [
            {"id": "second", "capacity": 10_000, "purchase_limit": 2, "price_minor": 55_300, "currency": "EUR"},
            {"id": "first", "capacity": 5},
        ],
        "hold_window_s": 2.5,
        "opens_at": "2030-01-20T08:00:00Z",
    }
    assert headers["Authorization"] == "Bearer abc"
    assert opened[:3] == ("POST", "/v1/sales/g1/open", None)
    assert "9,000" in result.stdout
    assert "55,300 CNY" in result.stdout


@pytest.mark.parametrize("command", ["show", "hash", "open", "close", "add-stock"])
@pytest.mark.parametrize("name", ["", "a/b", "\udcff", "x" * 65])
def test_what_can_name_no_sale_is_refused_before_anything_is_sent(
    site: tuple[str, type[Answers]], command: str, name: str
) -> None:
    url, server = site
    more = ["second", "5"] if command == "add-stock" else []
    result = run("sale", command, name, *more, env={"TICKETRUSH_URL": url})
    assert result.exit_code == 2
    assert "cannot name the sale" in result.stderr
    assert server.asked == []


@pytest.mark.parametrize("hold", ["0", "-1", "nan", "inf", "1e12", "soon"])
def test_a_hold_that_is_no_time_is_refused_before_anything_is_sent(site: tuple[str, type[Answers]], hold: str) -> None:
    url, server = site
    result = run("sale", "create", "g1", "--item", "a=1", "--hold", hold, env={"TICKETRUSH_URL": url})
    assert result.exit_code == 2
    assert "--hold" in result.stderr
    assert server.asked == []


@pytest.mark.parametrize(
    ("sale", "words"),
    [
        ({}, "g1 is open since 2026-11-22T10:00:00.000Z; holds last 300 s"),
        ({"closes_at": "2026-11-23T10:00:00.000Z"}, "10:00:00.000Z; it closes 2026-11-23T10:00:00.000Z; holds last"),
        ({"state": "closed", "closes_at": "2026-11-23T10:00:00.000Z"}, "g1 is closed since 2026-11-23T10:00:00.000Z;"),
        ({"state": "not_open"}, "g1 is not open yet; it opens 2026-11-22T10:00:00.000Z; holds"),
        ({"state": "not_open", "opens_at": None}, "g1 is not open yet; nobody has said when it opens; holds"),
    ],
)
def test_a_sale_is_told_in_a_sentence(site: tuple[str, type[Answers]], sale: dict[str, Any], words: str) -> None:
    url, server = site
    server.answer = (200, json.dumps(SHOWN | sale).encode())
    assert words in run("sale", "show", "g1", "--url", url).stdout


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["show", "g1"], ("GET", "/v1/sales/g1", None)),
        (["open", "g1"], ("POST", "/v1/sales/g1/open", None)),
        (["close", "g1"], ("POST", "/v1/sales/g1/close", None)),
        (["add-stock", "g1", "second", "100"], ("POST", "/v1/sales/g1/items/second/stock", {"units": 100})),
    ],
)
def test_a_command_is_one_call(site: tuple[str, type[Answers]], arguments: list[str], asked: Any) -> None:
    url, server = site
    result = run("sale", *arguments, "--url", url + "/", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == SHOWN
    assert [each[:3] for each in server.asked] == [asked]


def test_stock_is_added_under_a_key_that_is_told_before(site: tuple[str, type[Answers]]) -> None:
    url, server = site
    told = run("sale", "add-stock", "g1", "second", "1", "--url", url).stderr
    run("sale", "add-stock", "g1", "second", "1", "--url", url, "--key", "mine")
    first, second = (headers["Idempotency-Key"] for *_, headers in server.asked)
    assert first in told
    assert second == "mine"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            (404, b'{"code":"unknown_sale","detail":"there is no sale g1"}'),
            "there is no sale g1 (unknown_sale, HTTP 404)",
        ),
        ((401, b'{"code":"unauthorized","title":"who are you"}'), "ticketrush token mint --operator"),
        ((502, b"<html>"), "is it ticketrush?"),
        ((200, b"[]"), "is it ticketrush?"),
    ],
)
def test_a_refusal_is_exit_code_1_in_the_servers_words(
    site: tuple[str, type[Answers]], answer: tuple[int, bytes], words: str
) -> None:
    url, server = site
    server.answer = answer
    result = run("sale", "show", "g1", "--url", url)
    assert result.exit_code == 1
    assert words in result.stderr


@pytest.mark.parametrize("arguments", [["sale", "show", "g1"], ["audit"]])
def test_no_server_is_exit_code_4(arguments: list[str]) -> None:
    result = run(*arguments, "--url", "http://127.0.0.1:1")
    assert result.exit_code == 4
    assert "did not answer" in result.stderr
    assert "ticketrush serve" in result.stderr


def test_an_audit_of_a_server_is_its_verdict(site: tuple[str, type[Answers]]) -> None:
    url, server = site
    report: dict[str, Any] = {f"I{number}": True for number in range(1, 9)}
    report |= {"vacuous": ["I3"], "violations": [], "events": 1, "reservations": 1, "held": 1, "sold": 0}
    report |= {"oversold": 0, "lost": 0, "unexpected": 0}
    broken = {"I1": False, "violations": ["I1 [held] too many"]}
    server.answer = (200, json.dumps({"ok": True, "report": report}).encode())
    result = run("audit", "--url", url)
    assert result.exit_code == 0, result.stderr
    assert "nothing to check it with" in result.stdout
    server.answer = (200, json.dumps({"report": report | broken}).encode())
    result = run("audit", "--url", url)
    assert result.exit_code == 1
    assert "violated" in result.stdout
    assert "I1 [held] too many" in result.stdout
    server.answer = (200, b"{}")
    assert run("audit", "--url", url).exit_code == 1


# --- rush and bench ----------------------------------------------------------------------------


class Outcome:
    """What a rush or a bench comes to; called like one, it notes the options and is the result."""

    def __init__(self, well: bool) -> None:
        self.ok = self.all_met = well
        self.asked: list[Any] = []

    def __call__(self, options: object, console: object) -> Outcome:
        self.asked.append(options)
        return self

    def to_json(self) -> bytes:
        return b'{"is": "json"}\n'


@pytest.mark.parametrize(("well", "code"), [(True, 0), (False, 1)])
def test_a_rush_is_sent_as_the_flags_say_and_its_verdict_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, well: bool, code: int
) -> None:
    outcome = Outcome(well)
    monkeypatch.setattr("ticketrush.cli.rush.run", outcome)
    result = run("rush", "--tickets", "7", "--json", "-", "--report", "r.html", env={"TICKETRUSH_RUSH_BUYERS": "99"})
    assert result.exit_code == code, result.stderr
    assert json.loads(result.stdout) == {"is": "json"}
    assert outcome.asked == [RushOptions(buyers=99, tickets=7, report=Path("r.html"))]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(RushOptions)])
def test_every_option_of_a_rush_is_a_flag(field: str) -> None:
    assert f"--{field.replace('_', '-')}" in {flag.opts[0] for command, flag in FLAGS if command == "rush"}


@pytest.mark.parametrize(
    "arguments", [["--abandon", "1.5"], ["--buyers", "0"], ["--url", "ftp://x"], ["--json", "gone/x.json"]]
)
def test_a_rush_that_makes_no_sense_is_exit_code_2(arguments: list[str]) -> None:
    assert run("rush", *arguments).exit_code == 2


def test_the_bounds_of_a_rush_are_written_for_people() -> None:
    assert "tickets is 100,000,000; it must be between 1 and 1,000,000" in run("rush", "--tickets", "100000000").stderr
    assert "hold is 0.01; it must be between 0.05 and 3,600" in run("rush", "--hold", "0.01").stderr
    assert "1 to 1,000,000" in " ".join(run("rush", "--help").stdout.replace("│", "").split())


def test_a_rush_on_a_server_that_is_not_there_is_exit_code_4() -> None:
    assert run("rush", "--url", "http://127.0.0.1:1").exit_code == 4


@pytest.mark.parametrize(("well", "code"), [(True, 0), (False, 1)])
def test_a_bench_writes_its_json_and_meets_its_targets_or_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, well: bool, code: int
) -> None:
    outcome = Outcome(well)
    monkeypatch.setattr("ticketrush.cli.bench.run", outcome)
    monkeypatch.setattr("ticketrush.cli.bench.report", lambda result: "the report")
    result = run("bench", "--rounds", "5", "--json", "b.json")
    assert result.exit_code == code, result.stderr
    assert json.loads((tmp_path / "b.json").read_bytes()) == {"is": "json"}
    assert (outcome.asked[0].rounds, outcome.asked[0].seconds) == (5, BenchOptions().seconds)


def test_a_bench_that_cannot_measure_is_exit_code_1_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(options: BenchOptions, console: object) -> None:
        raise BenchError("the bench needs wrk")

    monkeypatch.setattr("ticketrush.cli.bench.run", fail)
    result = run("bench", "--quick")
    assert result.exit_code == 1
    assert "needs wrk" in result.stderr
    assert run("bench", "--rounds", "0").exit_code == 2


# --- output ------------------------------------------------------------------------------------


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    output.check_writable(None, "-", str(tmp_path / "new.json"))
    for file in (tmp_path / "gone" / "x.json", tmp_path):
        with pytest.raises(Exception, match="cannot be written"):
            output.check_writable(str(file))


@pytest.mark.parametrize("form", ["json", "console"])
def test_log_lines_go_to_standard_error_in_one_form(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", form)
    logs.get("ticketrush.test").info("ours", path="a.db")
    logs.get("ticketrush.test").debug("too_quiet")
    logging.getLogger("library").warning("theirs %s", 1)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert len(lines) == 2
    assert "a.db" in lines[0]
    assert "theirs 1" in lines[1]
    if form == "json":
        ours, theirs = map(json.loads, lines)
        assert (ours["event"], ours["level"], ours["logger"]) == ("ours", "info", "ticketrush.test")
        assert theirs["level"] == "warning"
