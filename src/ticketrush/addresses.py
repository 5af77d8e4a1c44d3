"""Hosts and URLs as people write them into settings."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

REDIS_SCHEMES: Final = tuple(
    f"{secure}{kind}://" for secure in ("redis", "rediss") for kind in ("", "+sentinel", "+cluster")
)
"""How the URL of a Redis or Valkey begins: alone or of a kind, with TLS or without."""

POSTGRES_SCHEMES: Final = ("postgresql", "postgres")

FILE: Final = "sqlite:///"
"""How the URL of a file begins."""

_PART: Final = r"[^\s/:@\[\].]{1,63}"
_HOST_AND_PORT: Final = re.compile(rf"(\[[0-9A-Fa-f:.]+\]|{_PART}(\.{_PART})*\.?):[1-9][0-9]{{0,4}}", re.ASCII)
"""Host and port; an IPv6 address stands in brackets."""
_UNREADABLE: Final = (
    "this URL cannot be read. A port is 1 to 65535; between the dots of a host are 1 to 63 characters; characters like "
    "/ ? # @ : in a password are written percent-encoded (%2F %3F %23 %40 %3A)"
)
_SECRETS: Final = ("password=", "user=", "passfile=", "sslpassword=")


def without_password(url: str) -> str:
    """A URL that may be shown: without the user and password in it, also where PostgreSQL takes one as ?password=.

    All up to the last @ goes: a password that should have been percent-encoded may have / and ? in it.
    """
    scheme, slashes, rest = url.partition("://")
    place, mark, query = rest.rpartition("@")[2].partition("?")
    shown = "&".join(each for each in query.split("&") if not each.lower().startswith(_SECRETS))
    return f"{scheme}{slashes}{place}{mark if shown else ''}{shown}"


def absolute(url: str) -> str:
    """A URL that names the same file in every working directory."""
    path = url.removeprefix(FILE)
    return url if path == url else f"{FILE}{Path(path).absolute()}"


def check_ledger(url: str) -> None:
    """Raises ValueError, with what to write, for a URL that can be of no ledger. No word of it is the URL's."""
    if url.startswith(REDIS_SCHEMES):
        _check_redis(url)
        return
    path = url.removeprefix(FILE)
    if path == url:
        raise ValueError("write sqlite:///FILE, redis://HOST:PORT, redis+sentinel://… or redis+cluster://…")
    if path.startswith(":") or not path.strip("/"):
        raise ValueError("it names no file; write sqlite:///FILE")


def _check_redis(url: str) -> None:
    """Raises ValueError unless the client of Redis reads this URL as it was meant."""
    kind = url.partition(":")[0].partition("+")[2]
    parts = _cut(url, many_hosts=kind == "sentinel")
    hosts, path = parts.netloc.rpartition("@")[2], parts.path.strip("/")
    if kind == "sentinel":
        if (
            not path
            or "/" in path
            or parts.query
            or not all(_HOST_AND_PORT.fullmatch(each) for each in hosts.split(","))
        ):
            raise ValueError("write redis+sentinel://HOST:PORT,HOST:PORT/SERVICE, without a query")
    elif kind == "cluster":
        if not parts.hostname or path.strip("0"):
            raise ValueError("write redis+cluster://HOST:PORT with one of its servers; a cluster has only database 0")
    elif path and not path.isdecimal():
        raise ValueError("write redis://HOST:PORT/NUMBER, with the number of the database")


def check_orders(url: str) -> None:
    """Raises ValueError, with what to write, for a URL that can be of no order store. No word of it is the URL's."""
    if url.partition(":")[0] in POSTGRES_SCHEMES:
        _cut(url)
        return
    path = url.removeprefix(FILE)
    if path == url or not path.strip("/"):
        raise ValueError(
            "write sqlite:///FILE, or sqlite:////FILE for a path from the root, or postgresql://USER@HOST:PORT/DATABASE"
        )


def _cut(url: str, *, many_hosts: bool = False) -> SplitResult:
    """The parts of a URL. Raises ValueError where a password may have been cut in two, or a port is none."""
    try:
        parts = urlsplit(url)
        port = None if many_hosts else parts.port
        _check_host(None if many_hosts else parts.hostname)
    except ValueError:  # not raised on: its text may have a part of the password in it
        raise ValueError(_UNREADABLE) from None
    if port == 0 or "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(_UNREADABLE)
    return parts


def _check_host(host: str | None) -> None:
    """Raises ValueError for a name that cannot be looked up: with a part that is empty or too long."""
    if host and not host.startswith(("%2f", "%2F")):  # where PostgreSQL listens in a folder
        host.encode("idna")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_brokers(text: str) -> None:
    """Raises ValueError, with what to write, unless `text` names brokers of Kafka."""
    if not all(_HOST_AND_PORT.fullmatch(each.strip()) for each in text.split(",")):
        raise ValueError("write HOST:PORT, several of them separated by commas, without a scheme like http://")


def check_web(url: str) -> None:
    """Raises ValueError, with what to write, unless `url` is http:// or https:// with a host, and has no query."""
    try:
        parts = urlsplit(url)
        is_sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        is_sound = is_sound and not (parts.query or parts.fragment)
        _check_host(parts.hostname)
    except ValueError:
        is_sound = False
    if not is_sound:
        raise ValueError("write http://HOST:PORT or https://HOST, without a query")
