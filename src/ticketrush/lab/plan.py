"""Who stands where in the lab: hosts, networks, addresses, and the cluster file that says so to `ticketrush edge`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ticketrush.cluster.plan import Durability

VIRTUAL: Final = "192.0.2.10"
"""The virtual address: where buyers go."""

OUTSIDE: Final = "10.9.0"
"""The network of the clients, and of the witness; the router is .1 in each network."""
BUYERS: Final = f"{OUTSIDE}.128/25"
"""The addresses of the buyers, all of them on the clients' host. Many, as they have in the world: ports of a single one
would be used again within seconds, and a balancer that remembers a connection by its port takes the new for the old."""

FRONT: Final = "10.9.1"
"""Between the router and the balancers."""

ROUTER: Final = "router"
CLIENTS: Final = "clients"
WITNESS: Final = "witness"
PORT: Final = 80
NODE_PORT: Final = 8_000
LEDGER_PORT: Final = 6_379
SENTINEL_PORT: Final = 26_379

NODES: Final = 4
BALANCERS: Final = 2


@dataclass(frozen=True, slots=True)
class Place:
    """A host: its name, its data centre, and its address there (a balancer's is in front of it)."""

    name: str
    site: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabPlan:
    """One lab. With two sites, half of the balancers and nodes stand in each, and sentinels watch the ledger.

    Args:
        sites: one data centre, or two: "a" has the ledger, "b" its replicas.
        durability: what a success survives.
        health_s: how often balancers are asked whether they are well, and for how long.
    """

    sites: tuple[str, ...] = ("a",)
    durability: Durability = "memory"
    health_s: int = 1

    @property
    def nodes(self) -> list[Place]:
        """`ticketrush serve`."""
        return [
            Place(f"node-{number}", site, f"{self.back_of(site)}.{20 + number}")
            for number, site in enumerate(self._spread(NODES), start=1)
        ]

    @property
    def balancers(self) -> list[Place]:
        """FRR, LVS and Nginx; their addresses are those in front."""
        return [
            Place(f"balancer-{number}", site, f"{FRONT}.{10 + number}")
            for number, site in enumerate(self._spread(BALANCERS), start=1)
        ]

    @property
    def ledgers(self) -> list[Place]:
        """Valkey: the primary, then its replicas, which stand in the last site."""
        first, last = self.sites[0], self.sites[-1]
        count = 0 if len(self.sites) == 1 else self.replicas
        names = [("ledger", first), *((f"replica-{number}", last) for number in range(1, count + 1))]
        return [Place(name, site, f"{self.back_of(site)}.{31 + number}") for number, (name, site) in enumerate(names)]

    @property
    def replicas(self) -> int:
        """With durability replica, one is left to acknowledge when another has taken the place of the primary."""
        return 2 if self.durability == "replica" else 1

    @property
    def watchers(self) -> list[Place]:
        """Sentinels: one beside the ledger, one beside a replica, one outside of both."""
        if len(self.sites) == 1:
            return []
        first, last = self.ledgers[0], self.ledgers[-1]
        return [first, last, Place(WITNESS, "", f"{OUTSIDE}.20")]

    def back_of(self, site: str) -> str:
        """The network behind the balancers of `site`, without its last number."""
        return f"10.9.{2 + self.sites.index(site)}"

    def hosts_of(self, site: str) -> list[str]:
        """The names of all hosts in `site`."""
        return [place.name for place in (*self.balancers, *self.nodes, *self.ledgers) if place.site == site]

    def _spread(self, count: int) -> list[str]:
        return [self.sites[number * len(self.sites) // count] for number in range(count)]

    def cluster_file(self) -> str:
        """The cluster file of the lab."""
        return "\n".join(
            [
                "# The lab: every host is a network namespace.",
                "[front]",
                f'virtual_address = "{VIRTUAL}"',
                f"port = {PORT}",
                "# All buyers come from few addresses, so none of them may be limited.",
                "rate = { per_second = 1000000, burst = 1000000, at_once = 65535 }",
                "",
                *self._tables("nodes", self.nodes, f"port = {NODE_PORT}"),
                *self._tables("proxies", self.balancers),
                *self._tables("balancers", self.balancers, 'interface = "front"'),
                *self._tables("routers", [Place(ROUTER, "", f"{FRONT}.1")], 'interface = "front"'),
                "[lvs]",
                f"health_s = {self.health_s}",
                'forwarding = "NAT"',
                "",
                "[ospf]",
                f'networks = ["{FRONT}.0/24"]',
                "",
            ]
        )

    @staticmethod
    def _tables(kind: str, places: list[Place], *more: str) -> list[str]:
        lines = []
        for place in places:
            site = [f'site = "{place.site}"'] if place.site else []
            lines += [f"[[{kind}]]", f'name = "{place.name}"', f'address = "{place.address}"', *site, *more, ""]
        return lines
