"""The connection to Redis or Valkey: URLs, scripts, bounded waits, and what the server must be set to.

A call is one script on the keys of one hash slot. Every call has an answer or an error within
`TIMEOUT_S`; an error means *unknown*: the script may have run, or may still run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import msgspec
from redis.asyncio import Connection, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MaxConnectionsError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as ConnectionLost

from ticketrush.addresses import REDIS_SCHEMES, without_password
from ticketrush.errors import LedgerRefused, LedgerUnavailable, SettingsError

TIMEOUT_S: Final = 0.9
"""How long one call may take: a batch that waits for another one to fail, and fails, stays within the patience."""

CONNECTIONS_MAX: Final = 32

_BOOK: Final = ("decide", "expire", "look", "sale", "book_epoch", "restore", "restock")
"""Scripts on a book: what they have in common is put before them."""

_COMMON: Final = ("book", "book_move", "book_end")

_PARTS: Final = {"decide": ("reserve", "decide")}
"""Scripts in more than one file."""

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def _text(name: str) -> str:
    return files("ticketrush.ledger").joinpath("lua", f"{name}.lua").read_text("utf-8")


def script(name: str) -> str:
    """The text of a script as the server gets it."""
    if name in _BOOK:
        return "\n".join(_text(part) for part in (*_COMMON, *_PARTS.get(name, (name,))))
    return _text(name)


class AnotherServer(ConnectionLost):
    """The server was restarted, or another one has taken its place, and the ledger is not whole on it yet."""


class Link:
    """Runs scripts on the server, or on the servers of a cluster, that `url` names."""

    def __init__(self, url: str, *, durability: str = "memory", replicas: int = 1) -> None:
        """`durability` "replica" waits for `replicas` replicas after each script that must be kept.

        Raises:
            SettingsError: the URL cannot be understood, or there is no such durability with it.
        """
        self.url = url
        self.shown = without_password(url)
        self._durability, self._replicas = durability, replicas
        self._scripts: dict[str, str] = {}
        self._shas: dict[str, str] = {}
        self.client: Redis | RedisCluster = _client(url, self._meet)
        if durability == "replica" and isinstance(self.client, RedisCluster):
            raise SettingsError(
                f"durability replica was not tried with a cluster, which {self.shown} is: choose fsync or memory, or "
                "one primary with replicas and sentinels (redis+sentinel://)"
            )
        self._probe: Redis | RedisCluster = _client(url, None)
        """Asks any server who it is."""
        self.trusted = ""
        """The server that scripts may run on; "" for any."""
        self._room = asyncio.Semaphore(CONNECTIONS_MAX - 8)
        """Calls under way: a batch over many sales waits for connections instead of finding none."""
        self.calls: Counter[str] = Counter()
        """Calls made so far, by script or command."""

    async def open(self) -> None:
        """Connect, and see that the server keeps what it is told; it is trusted from now on.

        Raises:
            LedgerUnavailable: nobody answers there.
            SettingsError: the server may forget what it acknowledged; names the setting to change.
        """
        try:
            await self._check_settings()
        except (RedisError, OSError) as error:
            raise LedgerUnavailable(
                f"no answer from {self.shown}: {error}; start the server there, or name another one with --ledger"
            ) from error
        await self.trust(await self.identity())

    async def close(self) -> None:
        """Let the connections go."""
        for client in (self.client, self._probe):
            await client.aclose()
            behind = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
            for sentinel in behind.sentinels if behind is not None else ():
                await sentinel.aclose()

    async def trust(self, identity: str) -> None:
        """Scripts may run on this server from now on, and on no other."""
        if identity != self.trusted:  # connections that are there led to the other one
            if isinstance(self.client, Redis):
                await self.client.connection_pool.disconnect()
            else:
                await self.client.aclose()
        self.trusted = identity

    async def _meet(self, connection: Connection) -> None:
        """A new connection is there: see who answers before anything is sent to it."""
        await connection.on_connect()
        await connection.send_command("INFO", "server")
        said = _plain(await connection.read_response())
        if self.trusted and not any(f"run_id:{id}" in said for id in self.trusted.split()):
            raise AnotherServer(f"another server answers at {self.shown}")

    async def run(self, name: str, keys: Sequence[str], *args: object, keep: bool = False) -> Any:
        """The reply of the script `name`, unpacked; with `keep` it has the durability that was promised.

        Raises:
            LedgerUnavailable: no answer, or not kept by enough replicas: whether it ran is unknown.
            LedgerRefused: the server refused it before doing anything.
        """
        packed = [arg if isinstance(arg, str | bytes) else _pack(arg) for arg in args]
        self.calls[name] += 1
        try:
            async with asyncio.timeout(TIMEOUT_S), self._room:
                reply = await self._evaluate(name, keys, packed, keep and self._durability == "replica")
        except AnotherServer as error:
            raise LedgerRefused(str(error)) from error
        except (RedisError, OSError, TimeoutError) as error:
            if isinstance(error, RedisError) and _did_nothing(error):
                raise LedgerRefused(f"{self.shown} refuses writing: {error}") from error
            raise LedgerUnavailable(f"no answer from {self.shown} to {name}: {error}") from error
        return _unpack(reply) if isinstance(reply, bytes) else reply

    async def command(self, name: str, *args: Any) -> Any:
        """The reply of a plain command. Raises LedgerUnavailable."""
        self.calls[name] += 1
        return await self._plainly(name, lambda: getattr(self.client, name)(*args))

    async def commands(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies of plain commands that are sent together, each a name and its arguments.

        What is wrong with one of them is in the place of its reply, as a RedisError. Raises LedgerUnavailable.
        """
        pipe = self.client.pipeline(transaction=False)
        for name, *args in calls:
            self.calls[name] += 1
            getattr(pipe, name)(*args)
        replies = await self._plainly("commands sent together", lambda: pipe.execute(raise_on_error=False))
        return list(replies)

    async def _plainly(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            async with asyncio.timeout(TIMEOUT_S), self._room:
                return await call()
        except AnotherServer as error:
            raise LedgerRefused(str(error)) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise LedgerUnavailable(f"no answer from {self.shown} to {name}: {error}") from error

    async def _evaluate(self, name: str, keys: Sequence[str], args: list[Any], wait: bool) -> Any:
        sha = self._shas.get(name)
        if sha is None:
            sha = await self._load(name)
        try:
            return await self._send(sha, keys, args, wait)
        except NoScriptError:  # nothing was done: the server was restarted, or is another one
            return await self._send(await self._load(name), keys, args, wait)

    async def _send(self, sha: str, keys: Sequence[str], args: list[Any], wait: bool) -> Any:
        if not wait:
            return await self.client.evalsha(sha, len(keys), *keys, *args)
        pipe = self.client.pipeline(transaction=False)
        pipe.evalsha(sha, len(keys), *keys, *args)
        pipe.wait(self._replicas, round(TIMEOUT_S * 800))
        reply, kept = await pipe.execute()
        if kept < self._replicas:
            raise LedgerUnavailable(f"{self.shown}: {kept} replicas have it instead of {self._replicas}")
        return reply

    async def _load(self, name: str) -> str:
        text = self._scripts.setdefault(name, script(name))
        sha = await self.client.script_load(text)
        self._shas[name] = found = _plain(sha)
        return found

    async def _check_settings(self) -> None:
        for key, wanted, why in (
            ("maxmemory-policy", {"noeviction"}, "it could evict stock and sell it twice"),
            *(
                (("appendonly", {"yes"}, _FSYNC), ("appendfsync", {"always"}, _FSYNC))
                if self._durability == "fsync"
                else ()
            ),
        ):
            for value in await self._config(key):
                if value not in wanted:
                    raise SettingsError(
                        f"{self.shown} has {key} {value!r}: {why}. Set it to {' or '.join(sorted(wanted))} there "
                        f"(CONFIG SET {key} {min(wanted)}, and in its configuration file)"
                    )
        if self._durability == "replica":
            info = await self.client.info("replication")
            connected = int(info.get("connected_slaves", 0))
            if connected < self._replicas:
                raise SettingsError(
                    f"durability replica waits for {self._replicas} replicas, and {self.shown} has {connected}: "
                    "start a replica (replicaof), or choose durability fsync or memory"
                )

    async def _config(self, key: str) -> list[str]:
        """The value of a setting on every server."""
        if isinstance(self.client, RedisCluster):
            answers: Any = await self.client.config_get(key, target_nodes=RedisCluster.PRIMARIES)
            found: list[Any] = list(answers.values()) if _is_nested(answers) else [answers]
        else:
            found = [await self.client.config_get(key)]
        return [_plain(value) for each in found for value in each.values()]

    @property
    def is_one(self) -> bool:
        """Whether one server has everything, so that what it refuses to one it refuses to all."""
        return not isinstance(self.client, RedisCluster)

    async def identity(self) -> str:
        """What changes when the server is restarted, or another one has taken its place."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if isinstance(self._probe, RedisCluster):
                    return await self._identities(self._probe)
                info = await self._probe.info("server")
                return str(info["run_id"])
        except (RedisError, OSError, TimeoutError) as error:
            raise LedgerUnavailable(f"no answer from {self.shown}: {error}") from error

    async def _identities(self, probe: RedisCluster) -> str:
        """Those of all primaries."""
        answers: Any = await probe.info(target_nodes=RedisCluster.PRIMARIES)
        infos = list(answers.values()) if _is_nested(answers) else [answers]
        if any(info["role"] != "master" for info in infos):
            await probe.aclose()  # it learns anew which are the primaries
            raise LedgerUnavailable(f"a replica has taken the place of a primary of {self.shown}")
        return " ".join(sorted(str(info["run_id"]) for info in infos))


_FSYNC: Final = "durability fsync promises that a success is on its disk"


def _did_nothing(error: RedisError) -> bool:
    """Whether the server says that it did not even begin."""
    refusals = (
        MaxConnectionsError,
        OutOfMemoryError,
        ReadOnlyError,
        BusyLoadingError,
        MasterDownError,
        ClusterDownError,
    )
    return isinstance(error, refusals) or str(error).startswith(
        ("OOM", "READONLY", "LOADING", "MISCONF", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN")
    )


def _is_nested(answers: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Mapping) for value in answers.values())


def _plain(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _client(url: str, meet: Callable[[Connection], Awaitable[None]] | None) -> Redis | RedisCluster:
    """A client for `url`, which lets `meet` look at new connections. Raises SettingsError."""
    options: dict[str, Any] = {
        "protocol": 3,
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "socket_keepalive": True,
        "max_connections": CONNECTIONS_MAX,
    }
    parts = urlsplit(url)
    secure, _, kind = parts.scheme.partition("+")
    if secure not in {"redis", "rediss"} or kind not in {"", "sentinel", "cluster"}:
        raise SettingsError(f"ledger {without_password(url)!r}: write one of {', '.join(REDIS_SCHEMES)}")
    try:
        if kind == "cluster":
            url = parts._replace(scheme=secure).geturl()
            cluster = RedisCluster.from_url(url, **options, retry=Retry(NoBackoff(), 0))
            if meet is not None:  # no argument does it; the nodes that are found later take what is in this dictionary
                for kwargs in (cluster.connection_kwargs, *(node.connection_kwargs for node in cluster.startup_nodes)):
                    kwargs["redis_connect_func"] = meet
            return cluster
        options["redis_connect_func"] = meet
        options["retry"] = Retry(NoBackoff(), 0)  # a script that may have run is not sent a second time
        if kind == "sentinel":
            return _behind_sentinels(url, secure, options)
        return Redis.from_url(url, **options)
    except ValueError as error:
        raise SettingsError(f"ledger {without_password(url)!r}: {error}") from error


def _behind_sentinels(url: str, secure: str, options: dict[str, Any]) -> Redis:
    """The primary that the sentinels of ``redis+sentinel://user:password@host:port,host:port/service`` name."""
    parts = urlsplit(url)
    who, _, hosts = parts.netloc.rpartition("@")
    user, _, password = map(unquote, who.partition(":"))
    service = parts.path.strip("/")
    sentinels = [(host.rpartition(":")[0].strip("[]"), int(host.rpartition(":")[2])) for host in hosts.split(",")]
    if not service or not all(host for host, _ in sentinels):
        raise ValueError("write redis+sentinel://host:port,host:port/service")
    own: dict[str, Any] = {key: value for key, value in options.items() if key != "max_connections"}
    own |= {key: value for key, value in {"username": user, "password": password}.items() if value}
    if secure == "rediss":
        own["ssl"] = True
    asking: dict[str, Any] = {"socket_timeout": TIMEOUT_S / 3, "socket_connect_timeout": TIMEOUT_S / 3, "protocol": 3}
    asking["retry"] = Retry(NoBackoff(), 0)  # one that is cut off is asked once, or the time is over before the next
    sentinel = Sentinel(sentinels, sentinel_kwargs=asking, **own)  # type: ignore[no-untyped-call]
    primary: Redis = sentinel.master_for(service)
    return primary
