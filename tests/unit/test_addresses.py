"""What of a URL may be shown, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest

from ticketrush.addresses import check_brokers, check_ledger, check_orders, check_web, without_password
from ticketrush.errors import SettingsError
from ticketrush.ledger.redis_link import Link
from ticketrush.wiring import store_of


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///orders.db", "sqlite:///orders.db"),
        ("redis://:hush@h:6379/0", "redis://h:6379/0"),
        ("postgresql://me:hush@h/shop?sslmode=require", "postgresql://h/shop?sslmode=require"),
        ("postgresql://h/shop?password=hush&user=me&sslmode=require", "postgresql://h/shop?sslmode=require"),
        ("postgresql:///shop?PASSWORD=hush", "postgresql:///shop"),
        ("postgresql://h/shop?sslmode=require", "postgresql://h/shop?sslmode=require"),
        ("postgresql://shop:hu/sh?hu@sh@h/shop", "postgresql://h/shop"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shop:hu/sh@h/shop",
        "postgresql://shop:hu?sh@h/shop",
        "postgresql://shop:12/hush@h/shop",
        "postgresql://shop:hush@h:port/shop",
    ],
)
def test_a_store_whose_url_can_be_cut_in_two_ways_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="percent-encoded") as refused:
        store_of(url)
    assert "hu" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://h",
        "rediss://me:hush@h:6379/3?ssl_ca_certs=/ca.pem",
        "redis://[::1]:6379",
        "redis+cluster://h:7000",
        "rediss+cluster://:hush@h:7000/0",
        "redis+sentinel://a:26379,b:26380/shop",
        "redis+sentinel://:hush@a:26379/shop",
        "sqlite:///sale.db",
    ],
)
def test_a_ledger_is_taken_as_it_is_written(url: str) -> None:
    check_ledger(url)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("redis://[::1", "percent-encoded"),
        ("redis://h:port", "percent-encoded"),
        ("redis://h:99999", "percent-encoded"),
        ("redis://:hu/sh@h", "percent-encoded"),
        ("redis://:12/hush@h", "percent-encoded"),
        ("redis://:12#hush@h", "percent-encoded"),
        ("redis+sentinel://:12?hush@a:1/shop", "percent-encoded"),
        ("redis://h/shop", "NUMBER"),
        ("redis+cluster://", "HOST:PORT"),
        ("redis+cluster://h:7000/3", "database 0"),
        ("redis+sentinel://a:26379", "SERVICE"),
        ("redis+sentinel://a/shop", "HOST:PORT,HOST:PORT/SERVICE"),
        ("redis+sentinel://a:1,/shop", "HOST:PORT,HOST:PORT/SERVICE"),
        ("redis+sentinel://a:1/shop?db=3", "without a query"),
        ("redsi://:hush@h", "redis://HOST:PORT"),
        ("sqlite:///", "FILE"),
    ],
)
def test_a_ledger_that_cannot_be_meant_is_refused_without_its_password(url: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice) as refused:
        check_ledger(url)
    assert "hu" not in str(refused.value)


NOT_OF_THE_WEB = ["http://[::1", "http://h:99999", "http://", "ftp://h", "http://h/?a=1", "h:80"]
NO_HOSTS = ["gw..x", f"gw.{'a' * 64}.x", ".x", "ü..x"]


@pytest.mark.parametrize("url", [*NOT_OF_THE_WEB, *(f"http://me:hush@{host}" for host in NO_HOSTS)])
def test_what_is_no_server_of_the_web_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        check_web(url)


@pytest.mark.parametrize("host", NO_HOSTS)
def test_a_host_that_cannot_be_looked_up_is_refused_without_the_password(host: str) -> None:
    for check, url in (
        (check_ledger, f"redis://me:hush@{host}:6379"),
        (check_orders, f"postgresql://me:hush@{host}/x"),
    ):
        with pytest.raises(ValueError, match="1 to 63 characters") as refused:
            check(url)
        assert "hush" not in str(refused.value)


@pytest.mark.parametrize("host", [each for each in NO_HOSTS if each.isascii()])
def test_one_of_several_hosts_that_cannot_be_looked_up_is_refused(host: str) -> None:
    for check, url in ((check_ledger, f"redis+sentinel://a:1,{host}:1/shop"), (check_brokers, f"a:1,{host}:1")):
        with pytest.raises(ValueError, match="HOST:PORT"):
            check(url)


@pytest.mark.parametrize("host", ["h", "gw_1.x.", "ü.x", f"{'a' * 63}.x", "[::1]", "127.0.0.1"])
def test_a_host_is_taken_as_it_is_written(host: str) -> None:
    check_web(f"http://{host}:80")
    check_ledger(f"redis://{host}")
    check_ledger(f"redis+sentinel://{host}:1,{host}:2/shop")
    check_orders(f"postgresql://{host}/x")
    check_orders(f"postgresql://%2Ftmp%2F{'a' * 63}/x")


def test_a_password_and_a_host_of_sentinels_are_read_as_others_are() -> None:
    pool: Any = vars(Link("redis+sentinel://me:p%2Fw@[::1]:26379/shop").client)["connection_pool"]
    (watcher,) = pool.sentinel_manager.sentinels
    assert pool.connection_kwargs["password"] == "p/w"
    assert watcher.connection_pool.connection_kwargs["host"] == "::1"
