"""What a rush may be told to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ticketrush.cluster.plan import NODES_MAX, Durability, check_weights
from ticketrush.crowd.buyers import INDEX_MAX, Shares
from ticketrush.crowd.errors import OptionError
from ticketrush.model import QUANTITY_MAX

BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "buyers": (1, INDEX_MAX),
    "tickets": (1, 1_000_000),
    "connections": (1, 10_000),
    "arrivals": (0, 1_000_000),
    "abandon": (0, 1),
    "duplicates": (0, 1),
    "cuts": (0, 1),
    "breakers": (0, 1),
    "limit": (1, QUANTITY_MAX),
    "hold": (0.05, 3_600),
    "seed": (0, 2**31),
    "time_limit": (0.1, 86_400),
    "nodes": (1, NODES_MAX),
    "kill": (0, NODES_MAX - 1),
}
"""The least and the most that each number may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RushOptions:
    """A rush: who comes, for what, and how. Raises OptionError when made of values that make no sense.

    Args:
        buyers: how many people want to buy one ticket each.
        tickets: how many there are.
        connections: connections to the server; as many requests are under way at a time at most.
        arrivals: buyers per second, whatever the server does (open loop); 0 sends the next one as
            soon as a connection is free (closed loop).
        abandon: share of the winners who never pay, 0 to 1.
        duplicates: share of the buyers who send their request twice.
        cuts: share of the buyers who break the connection off before the answer, and ask again.
        breakers: share of the winners who try to buy more than the limit.
        limit: tickets one buyer may have.
        hold: seconds an unpaid hold lasts.
        seed: the same seed sends the same people.
        nodes: a cluster of so many nodes is started for the rush, with a Valkey; None starts a single server.
        weights: the share of the connections that each node gets, relative to the others; () is equal shares.
        kill: nodes to be killed in mid-sale; at least one lives on.
        durability: of the cluster, see `ticketrush.cluster.plan.ClusterPlan`.
        orders: where orders are kept and then audited too: "postgres" or "sqlite" of our own, or the URL of an
            empty store; "" keeps none.
        kafka: brokers between the ledger and the orders, or "kafka", which starts one; "" does without.
        url: a running server to use; None starts one for the rush. Unless it is an open one, its
            secrets must then be in TICKETRUSH_TOKEN_SECRETS here too.
        time_limit: seconds after which the crowd goes home; None takes what should be plenty.
        json: where to write the report as JSON, None for nowhere.
        report: where to write the report as an HTML page, None for nowhere.
        keep: leave the journal of the rush's own server where it is.
    """

    buyers: int = 1_000_000
    tickets: int = 10_000
    connections: int = 128
    arrivals: float = 0.0
    abandon: float = 0.20
    duplicates: float = 0.01
    cuts: float = 0.001
    breakers: float = 0.005
    limit: int = 2
    hold: float = 2.0
    seed: int = 1
    nodes: int | None = None
    weights: tuple[int, ...] = ()
    kill: int = 0
    durability: Durability = "fsync"
    orders: str = ""
    kafka: str = ""
    url: str | None = None
    time_limit: float | None = None
    json: Path | None = None
    report: Path | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise OptionError(f"{name} is {_number(value)}; it must be between {bounds_of(name, 'and')}")
        if self.url is not None:
            _check_url(self.url)
        self._check_cluster()

    def _check_cluster(self) -> None:
        if self.url is not None and self.orders:
            raise OptionError(f"orders is {self.orders} and url is {self.url}: what runs there keeps its own orders")
        if self.kafka and not (self.orders and self.nodes):
            raise OptionError("kafka stands between many nodes and their orders: say --nodes N and --orders postgres")
        if self.nodes is None:
            for name in ("weights", "kill"):
                if getattr(self, name):
                    raise OptionError(f"{name} is for a cluster; say how many nodes it has, with --nodes")
            return
        if self.url is not None:
            raise OptionError(f"nodes is {self.nodes} and url is {self.url}: start a cluster, or use what runs there")
        check_weights(self.weights, self.nodes)
        if self.kill >= self.nodes:
            raise OptionError(f"kill is {self.kill} of {self.nodes} nodes; one must live on")

    @property
    def shares(self) -> Shares:
        """Which share of the buyers behaves in which way."""
        return Shares(self.abandon, self.duplicates, self.cuts, self.breakers)

    @property
    def time_limit_s(self) -> float:
        """Seconds after which the crowd goes home."""
        if self.time_limit is not None:
            return self.time_limit
        pace = min(self.arrivals or 5_000, 5_000)
        return 60 + self.buyers / pace + 20 * self.hold

    @property
    def comebacks_max(self) -> int:
        """Buyers who wait for a held unit: enough for all tickets, though many of them abandon too."""
        share = max(1 - self.abandon, 0.05)
        return min(1_000_000, 100 + int(1.1 * self.tickets / share))


def bounds_of(name: str, word: str = "to") -> str:
    """The least and the most that the option `name` may be, for people: 1 to 1,000,000."""
    low, high = BOUNDS[name]
    return f"{_number(low)} {word} {_number(high)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.scheme == "http" and bool(parts.hostname) and (parts.port or 80) > 0
        sound = sound and parts.path in {"", "/"} and not parts.query
    except ValueError:
        sound = False
    if not sound:
        raise OptionError(f"url is {url!r}; it must be like http://127.0.0.1:8000, without TLS and without a path")
