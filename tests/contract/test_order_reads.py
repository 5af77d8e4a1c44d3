"""Orders as buyers read them: from the order store where it has them, from the ledger in any case."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.contract.conftest import NewSale
from tests.contract.test_orders import order, pay
from tests.orders import claim, ended, held, paid, tell
from tests.servers import FAST_LANE, FRONTS, ON_REDIS, PLAIN_UVICORN, Server, running
from tests.wire import Answer
from ticketrush import processes
from ticketrush.cluster.postgres import Postgres
from ticketrush.cluster.program import Program
from ticketrush.orders.model import Kind, Notice
from ticketrush.orders.protocol import OrderStore

BOUND_S: Final = 7.0
"""Longer than a buyer waits who reads an order three times and pays while the store hangs; less than it may hang."""

_buyers: Final = map("buyer-{}".format, itertools.count(1))


def store_env(url: str) -> dict[str, str]:
    """A server with the order store at `url`, and nobody who writes to it but the test."""
    return {"TICKETRUSH_ORDERS": url, "TICKETRUSH_SERVE_ORDER_WORKER": "0"}


def write(url: str, *notices: Notice) -> None:
    """Put notices into a store, whose tables are made if they are not there."""

    async def story(store: OrderStore) -> None:
        await store.put(notices)

    tell(url, story)


@dataclass(frozen=True)
class Kept:
    """A server, and the store that it reads orders from."""

    server: Server
    store: str

    def ask(self, buyer: str, query: str = "") -> Answer:
        return self.server.call("GET", f"/v1/orders{query}", buyer=buyer)

    def page(self, buyer: str, query: str = "") -> dict[str, Any]:
        answer = self.ask(buyer, query)
        assert answer.status == 200, answer
        page: dict[str, Any] = answer.json()
        return page

    def pages(self, buyer: str, limit: int) -> Iterator[list[dict[str, Any]]]:
        """All pages of a buyer's orders, as a client follows them."""
        page = self.page(buyer, f"?limit={limit}")
        yield page["orders"]
        while page["next"] is not None:
            page = self.page(buyer, f"?limit={limit}&before={page['next']}")
            yield page["orders"]


@pytest.fixture(scope="module", params=(*FRONTS, ON_REDIS))
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/orders.db"
    write(url)
    with running(request.param, env=store_env(url)) as server:
        yield Kept(server, url)


@pytest.fixture
def buyer() -> str:
    """One that no other test knows."""
    return next(_buyers)


def told(url: str, buyer: str, count: int) -> list[str]:
    """Write so many orders of `buyer`, between those of another and one that is incomplete; the ids, newest first."""
    ids = [f"{buyer}-{number}" for number in range(count)]
    for id in ids:
        write(url, held(id, claim(buyer)), held(f"{id}-other", claim(f"{buyer}-other")), paid(f"{id}-incomplete"))
    return ids[::-1]


# --- the list -------------------------------------------------------------------------------


def test_pages_lead_through_all_of_a_buyers_orders_newest_first(kept: Kept, buyer: str) -> None:
    ids = told(kept.store, buyer, 12)

    assert [each["id"] for each in kept.page(buyer)["orders"]] == ids
    assert kept.page(buyer)["next"] is None
    for limit in (1, 5, 6, 11, 12, 13, 100):
        pages = list(kept.pages(buyer, limit))
        assert [each["id"] for page in pages for each in page] == ids, limit
        assert all(len(page) == limit for page in pages[:-1]), limit
        numbers = [each["number"] for page in pages for each in page]
        assert numbers == sorted(set(numbers), reverse=True)


def test_a_page_is_as_long_as_twenty_unless_it_is_told(kept: Kept, buyer: str) -> None:
    ids = told(kept.store, buyer, 21)

    first = kept.page(buyer)
    second = kept.page(buyer, f"?before={first['next']}")

    assert [each["id"] for each in first["orders"]] == ids[:20]
    assert [each["id"] for each in second["orders"]] == ids[20:]
    assert second["next"] is None


def test_what_comes_between_two_pages_does_not_move_them(kept: Kept, buyer: str) -> None:
    ids = told(kept.store, buyer, 4)
    first = kept.page(buyer, "?limit=2")
    write(kept.store, held(f"{buyer}-late", claim(buyer)))

    second = kept.page(buyer, f"?limit=2&before={first['next']}")

    assert [each["id"] for each in first["orders"] + second["orders"]] == ids


def test_a_list_has_its_buyers_orders_alone(kept: Kept, buyer: str) -> None:
    told(kept.store, buyer, 3)

    for other in (f"{buyer}-nobody", buyer.upper(), "operator"):
        assert kept.page(other, f"?buyer={buyer}") == {"orders": [], "next": None}
    assert {each["id"].rpartition("-")[2] for each in kept.page(f"{buyer}-other")["orders"]} == {"other"}
    operator = kept.server.call("GET", "/v1/orders")
    assert operator.json()["orders"] == [], "an operator is a buyer of that name, and no more"


def test_an_order_is_shown_whole_in_every_state(kept: Kept, buyer: str) -> None:
    state: dict[str, tuple[Notice, ...]] = {
        "held": (),
        "paid": (paid(f"{buyer}-paid"),),
        "cancelled": (ended(f"{buyer}-cancelled", Kind.CANCELLED),),
        "expired": (ended(f"{buyer}-expired", Kind.EXPIRED),),
        "refunded": (paid(f"{buyer}-refunded"), ended(f"{buyer}-refunded", Kind.REFUNDED)),
    }
    for name, notices in state.items():
        write(kept.store, held(f"{buyer}-{name}", claim(buyer, quantity=2)), *notices)

    found = {each["state"]: each for each in kept.page(buyer)["orders"]}

    assert list(found) == list(state)[::-1]
    for name, each in found.items():
        was_paid, has_ended = name in {"paid", "refunded"}, name in {"cancelled", "expired", "refunded"}
        assert each == {
            "id": f"{buyer}-{name}",
            "number": each["number"],
            "state": name,
            "sale": "g1",
            "item": "second",
            "quantity": 2,
            "amount_minor": 110_600,
            "currency": "CNY",
            "payment": "p-1" if was_paid else "",
            "held_at": "1970-01-01T00:00:01.000Z",
            "expires_at": "1970-01-01T00:00:02.000Z",
            "paid_at": "1970-01-01T00:00:01.100Z" if was_paid else None,
            "ended_at": "1970-01-01T00:00:01.200Z" if has_ended else None,
        }


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=-1", "limit=101", "limit=x", "limit=1.5", "limit=", "before=0", "before=-1", "before=x",
     f"before={2**53 + 1}", f"before={'9' * 400}", "limit=5&before=null"],
)  # fmt: skip
def test_limits_of_a_page_are_looked_at(kept: Kept, buyer: str, query: str) -> None:
    answer = kept.ask(buyer, f"?{query}")

    assert (answer.status, answer.code) == (422, "invalid_request")
    assert kept.ask(buyer, f"?limit=100&before={2**53}").status == 200


def test_without_a_store_there_is_no_list_and_orders_say_so(server: Server, new_sale: NewSale) -> None:
    id = server.reserve(new_sale(), buyer="ada").json()["id"]

    answer = server.call("GET", "/v1/orders", buyer="ada")

    assert (answer.status, answer.code) == (404, "orders_not_kept")
    assert (order(server, id)["order"], order(server, id)["number"]) == ("not_kept", None)


@pytest.mark.parametrize("kept", [FAST_LANE, PLAIN_UVICORN], indirect=True)
def test_made_up_lists_are_answered_as_the_description_says(kept: Kept) -> None:
    ran = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("st")), "run", f"{kept.server.url}/openapi.json"),
            *("--include-path", "/v1/orders", "--header", f"Authorization: Bearer {kept.server.mint('ada')}"),
            *("--exclude-checks", "positive_data_acceptance", "--max-examples", "30", "--seed", "1"),
            *("--warnings", "off", "--no-color"),
        ],
        cwd=kept.server.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout[-5_000:]
    assert "Tested: 1" in ran.stdout


# --- on the way to the store ----------------------------------------------------------------


def test_an_order_is_pending_until_a_worker_has_written_it(kept: Kept, sale_id: str, buyer: str) -> None:
    server = kept.server
    server.open_sale(sale_id, {"second": 5})
    id = str(server.reserve(sale_id, buyer=buyer).json()["id"])
    assert (order(server, id, buyer)["order"], order(server, id, buyer)["number"]) == ("pending", None)
    assert kept.page(buyer)["orders"] == []

    with worker_of(kept):
        stored = eventually(lambda: order(server, id, buyer), lambda read: read["order"] == "stored")
        assert pay(server, id, buyer=buyer).json()["order"]["number"] == stored["number"]
        listed = eventually(lambda: kept.page(buyer)["orders"], lambda found: found[0]["state"] == "paid")

    assert [(each["id"], each["number"]) for each in listed] == [(id, stored["number"])]
    assert listed[0]["payment"] == order(server, id, buyer)["payment"]["id"]


@contextlib.contextmanager
def worker_of(kept: Kept) -> Iterator[None]:
    """`ticketrush work` beside a server, for as long as the block lasts."""
    environment = Path(f"/proc/{kept.server.pid}/environ").read_text().split("\0")
    ledger = next(value for value in environment if value.startswith("TICKETRUSH_LEDGER="))
    command = [sys.executable, "-m", "ticketrush", "work", "--json", "--orders", kept.store]
    env = processes.plain_environment() | dict([ledger.split("=", 1)])
    worker = Program("worker", kept.server.folder, command, env)
    worker.launch()
    try:
        worker.wait_until_ready()
        yield
    finally:
        assert worker.stop() == 0, worker.child.words()


def eventually(read: Callable[[], Any], is_so: Callable[[Any], bool], within_s: float = 20.0) -> Any:
    """What `read` returns once it is so."""
    until = time.monotonic() + within_s
    while not is_so(value := read()):
        assert time.monotonic() < until, value
        time.sleep(0.05)
    return value


# --- a store that is away -------------------------------------------------------------------


def check_away(server: Server, id: str) -> None:
    """The list says that it cannot be read; the ledger answers for the order, and takes money for it, in time."""
    began = time.monotonic()
    assert order(server, id)["order"] == "pending"
    assert pay(server, id).status == 200
    assert (order(server, id)["state"], order(server, id)["number"]) == ("paid", None)
    assert time.monotonic() - began < BOUND_S
    assert server.call("GET", "/readyz").status == 200


def check_list_away(server: Server) -> None:
    before, began = server.errors().count("orders_away"), time.monotonic()
    for _ in range(20):
        _check_list_away(server)
    assert server.errors().count("orders_away") - before <= 2 + time.monotonic() - began, "a line for each request"


def _check_list_away(server: Server) -> None:
    answer = server.call("GET", "/v1/orders", buyer="ada")
    assert (answer.status, answer.code) == (503, "unavailable")
    assert "order store" in answer.json()["detail"]
    assert answer.header("retry-after") == "1"


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_a_store_that_is_away_takes_nothing_but_the_list(
    new_postgres: Callable[[], Postgres], sale_id: str, how: str
) -> None:
    database = new_postgres()
    write(database.url, held("before", claim("ada")))
    with running(FAST_LANE, env=store_env(database.url)) as server:
        kept = Kept(server, database.url)
        server.open_sale(sale_id, {"second": 5})
        assert [each["id"] for each in kept.page("ada")["orders"]] == ["before"]
        id = str(server.reserve(sale_id, buyer="ada").json()["id"])

        database.kill() if how == "killed" else database.pause()
        check_away(server, id)
        if how == "killed":
            check_list_away(server)
            database.start()
        else:
            database.resume()

        back = eventually(lambda: kept.ask("ada"), lambda answer: answer.status == 200)
        assert [each["id"] for each in back.json()["orders"]] == ["before"]


def test_a_server_sells_before_its_store_is_there_and_reads_orders_as_soon_as_it_is(
    tmp_path: Path, sale_id: str
) -> None:
    url = f"sqlite:///{tmp_path}/orders.db"
    with running(PLAIN_UVICORN, env=store_env(url)) as server:  # which makes no tables
        server.open_sale(sale_id, {"second": 5})
        id = str(server.reserve(sale_id, buyer="ada").json()["id"])
        check_away(server, id)
        check_list_away(server)

        write(url, held("o", claim("ada")))

        kept = Kept(server, url)
        back = eventually(lambda: kept.ask("ada"), lambda answer: answer.status == 200)
        assert [each["id"] for each in back.json()["orders"]] == ["o"]
