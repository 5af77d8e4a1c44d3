"""Serving without tokens, on this machine only: the open mode and the articles' demo call."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import FRONTS, PLAIN_UVICORN, SECRETS, Server, running
from tests.wire import request

STOCK = 500
CALLS = 2_000

LINE = re.compile(r"result:([01]),localSales:(\d+)")


@pytest.fixture(scope="module", params=FRONTS)
def open_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(request.param, env={"TICKETRUSH_OPEN": "true"}, secrets=()) as server:
        server.open_sale("g1", {"second": 1_000}, limit=2)
        yield server


@pytest.fixture(params=FRONTS)
def demo(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    env = {"TICKETRUSH_DEMO": str(STOCK), "TICKETRUSH_STAT_LOG": str(tmp_path / "stat.log")}
    with running(request.param, env=env, secrets=()) as server:
        yield server


def test_an_open_server_takes_the_buyers_word(open_server: Server) -> None:
    made = open_server.reserve("g1", buyer="ada")

    path = f"/v1/reservations/{made.json()['id']}"
    assert made.status == 201
    assert open_server.call("GET", path, buyer="ada").status == 200
    assert open_server.call("GET", path, buyer="bob").status == 404


def test_an_open_server_keeps_the_purchase_limit_of_who_says_who_they_are(open_server: Server) -> None:
    answers = [open_server.reserve("g1", buyer="eve") for _ in range(3)]

    assert [answer.status for answer in answers] == [201, 201, 409]
    assert answers[2].code == "purchase_limit"


@pytest.mark.parametrize("buyer", [None, "", "two words", "x" * 129])
def test_an_open_server_still_wants_to_know_who_buys(open_server: Server, buyer: str | None) -> None:
    headers = {} if buyer is None else {"X-Buyer": buyer}

    answer = open_server.call("POST", "/v1/sales/g1/reservations", {"item": "second"}, headers=headers)

    assert (answer.status, answer.code) == (401, "unauthorized")
    assert "X-Buyer" in answer.json()["detail"]


def test_on_an_open_server_everybody_is_an_operator(open_server: Server) -> None:
    created = open_server.call("PUT", "/v1/sales/g2", {"items": [{"id": "a", "capacity": 1}]}, headers={})
    audit = open_server.call("GET", "/v1/audit", headers={})

    assert created.status in {200, 201}
    assert (audit.status, audit.json()["ok"]) == (200, True)


@pytest.mark.parametrize(
    ("host", "flags"), [("0.0.0.0", ["--open"]), ("::", ["--open"]), ("192.0.2.1", ["--demo", "10"])]
)
def test_an_open_server_does_not_start_where_others_can_reach_it(tmp_path: Path, host: str, flags: list[str]) -> None:
    command = [sys.executable, "-m", "ticketrush", "serve", "--port", "0", "--host", host, *flags]

    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)

    assert ended.returncode != 0
    assert host in ended.stderr
    assert "127.0.0.1" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "127.0.0.1.evil.example"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/sales/g1/reservations", {"item": "second"}),
        ("POST", "/v1/sales/g1/close", None),
        ("GET", "/v1/audit", None),
    ],
)
def test_a_page_of_another_site_cannot_use_an_open_server(
    open_server: Server, method: str, path: str, body: dict[str, str] | None, headers: dict[str, str]
) -> None:
    answer = open_server.call(method, path, body, headers={"X-Buyer": "ada", **headers})

    assert (answer.status, answer.code) == (403, "not_local")


@pytest.mark.parametrize(
    "headers", [{"Host": "localhost:8000"}, {"Origin": "http://127.0.0.1:3000"}, {"Host": "[::1]"}]
)
def test_pages_and_names_of_this_machine_may_use_an_open_server(open_server: Server, headers: dict[str, str]) -> None:
    assert open_server.call("GET", "/v1/audit", headers=headers).status == 200


def test_a_server_without_secrets_does_not_start_unless_it_is_open(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ticketrush", "serve", "--port", "0"]

    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)

    assert ended.returncode != 0
    assert "TICKETRUSH_TOKEN_SECRETS" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_secrets_are_not_written_anywhere() -> None:
    with running(env={"TICKETRUSH_LOG_LEVEL": "debug"}) as server:
        server.open_sale("g1", {"second": 1})
        token = server.mint("ada")
        server.call("GET", "/v1/audit", headers={"Authorization": f"Bearer {token}"})
        server.stop()
        written = b"".join(file.read_bytes() for file in server.folder.iterdir())

    assert not any(secret.encode() in written for secret in (*SECRETS, token))


def test_the_demo_answers_in_the_articles_words_and_in_one_length(demo: Server) -> None:
    with demo.connect() as wire:
        wire.send((request("GET", "/buy/ticket") + request("POST", "/buy/ticket")) * (STOCK // 2 + 1))
        answers = wire.answers(STOCK + 2)

    assert {answer.status for answer in answers} == {200}
    assert {answer.header("content-type") for answer in answers} == {"application/json"}
    assert len({len(answer.body) for answer in answers}) == 1
    words = [{"code": 1, "msg": "抢票成功"}] * STOCK + [{"code": -1, "msg": "已售罄"}] * 2
    assert [answer.json() for answer in answers] == words


def test_ab_finds_no_failed_request_and_the_stock_is_sold_exactly(demo: Server, tmp_path: Path) -> None:
    command = ["ab", "-n", str(CALLS), "-c", "100", f"{demo.url}/buy/ticket"]

    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    assert re.search(r"Complete requests:\s+2000\n", said)
    assert re.search(r"Failed requests:\s+0\n", said)
    assert "Non-2xx" not in said
    level = demo.level("demo", "ticket")
    assert (level["capacity"], level["available"], level["held"]) == (STOCK, 0, STOCK)
    log = tmp_path / "stat.log"
    until = time.monotonic() + 20
    while len(log.read_text().splitlines()) < CALLS and time.monotonic() < until:
        time.sleep(0.1)
    lines = [LINE.fullmatch(line) for line in log.read_text().splitlines()]
    assert len(lines) == CALLS
    told = [(int(line[1]), int(line[2])) for line in lines if line is not None]
    assert len(told) == CALLS
    assert sum(result for result, _ in told) == STOCK
    assert [sales for _, sales in told] == sorted(sales for _, sales in told)
    assert told[-1] == (0, STOCK)


def test_a_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    with running(
        "fast-lane", "--demo", "5", env={"TICKETRUSH_LEDGER": "", "TMPDIR": str(tmp_path)}, secrets=()
    ) as server:
        assert server.call("GET", "/buy/ticket", headers={}).json()["code"] == 1
        assert len(list(tmp_path.iterdir())) == 1
        assert server.stop() == 0
        assert not server.ledger.exists()

    assert list(tmp_path.iterdir()) == []


def test_there_is_no_demo_call_without_a_demo() -> None:
    with running(PLAIN_UVICORN) as server:
        assert server.call("GET", "/buy/ticket").code == "not_found"
