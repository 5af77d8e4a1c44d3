"""The cluster file: who stands where, from the virtual address to the nodes.

The layers, outermost first; each may be left out:

- routers give the virtual address to several balancers at once (OSPF, equal cost);
- balancers hand connections on (LVS): to the proxies, or to the nodes if there are none;
- proxies speak HTTP (Nginx), and hand requests on to the nodes;
- nodes sell (`ticketrush serve`).

What is rendered from the file says nothing that is not in it or a default here.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError, model_validator

from ticketrush.edge.errors import ClusterFileError
from ticketrush.edge.words import about_quotes, in_words

PATHS_MAX: Final = 6
"""Equal-cost paths that OSPF is asked to use."""

FILES_MIN: Final = 256
"""Files that a worker of Nginx needs beside its connections."""

FILES_MAX: Final = 1_048_576
"""What Linux lets a process have (fs.nr_open): one that asks for more gets nothing of it."""

CONNECTIONS_MAX: Final = (FILES_MAX - FILES_MIN) // 2
"""Each may be two files, of the client and of a node."""

Policy = Literal["weighted", "round-robin", "ip-hash", "buyer-hash"]

_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$"
_HOST_NAME: Final = r"^(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*$"
_INTERFACE: Final = r"^[A-Za-z0-9._-]{1,15}$"
_FILE: Final = r"^/[A-Za-z0-9._/-]{1,255}$"
_KEY: Final = r"^[!-~]{0,16}$"

SHAPES: Final = {
    _NAME: "letters, digits, dots and hyphens, 63 at most, a letter or digit first",
    _HOST_NAME: "a host name, like tickets.example or *.tickets.example",
    _INTERFACE: "the name of an interface, like eth0, 15 characters at most",
    _FILE: "the path of a file from / on, of letters, digits, dots, hyphens and underscores",
    _KEY: "16 printable characters at most, no spaces",
}
"""What a text must be like, by its pattern, in words."""

TABLES: Final = {
    "rate": "{ per_second = 50, burst = 100 }, or false for no limit",
    "tls": '{ certificate = "/etc/ticketrush/tls.crt", key = "/etc/ticketrush/tls.key" }',
}
"""What to write for a table within a table, by its name."""

Name = Annotated[str, Field(pattern=_NAME)]
Whole = Annotated[int, Strict()]
YesNo = Annotated[bool, Strict()]
Port = Annotated[Whole, Field(ge=1, le=65_535)]
Weight = Annotated[Whole, Field(ge=1, le=1_000)]
HostName = Annotated[str, Field(pattern=_HOST_NAME, max_length=253)]
Interface = Annotated[str, Field(pattern=_INTERFACE)]
File = Annotated[str, Field(pattern=_FILE)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Host(_Table):
    """A machine of one layer."""

    name: Name
    """Its own; the folder of its files is called so."""
    address: IPv4Address
    """Where the others reach it."""
    site: Name = "a"
    """The data centre that it is in."""


class NodeEntry(Host):
    """A node: `ticketrush serve`."""

    port: Port = 8_000
    """Where it listens."""
    weight: Weight = 1
    """Its share of the requests, for `policy` weighted and buyer-hash."""


class ProxyEntry(Host):
    """A host with Nginx; it listens at the ports of `[front]`."""

    weight: Weight = 1
    """Its share of the connections."""


class BalancerEntry(Host):
    """A host that announces the virtual address, and hands its connections on."""

    interface: Interface = "eth0"
    """Where it hears the routers, and VRRP of the other balancers."""


class RouterEntry(Host):
    """A router before the balancers, for which the other half of OSPF is rendered."""

    interface: Interface = "eth0"
    """Where the balancers are."""
    more_interfaces: tuple[Interface, ...] = ()
    """Others where balancers are, of another site for example."""


class Tls(_Table):
    """Where the certificate is, on the proxies."""

    certificate: File
    """With the intermediate ones, PEM."""
    key: File
    """Its key, PEM."""
    port: Port = 443
    """Where TLS is spoken; `front.port` leads here then."""


class Rate(_Table):
    """How much one address may ask for; more is answered 429."""

    per_second: Annotated[Whole, Field(ge=1, le=1_000_000)] = 50
    """Requests a second."""
    burst: Annotated[Whole, Field(ge=0, le=1_000_000)] = 100
    """So many more at a stroke."""
    at_once: Annotated[Whole, Field(ge=1, le=65_535)] = 256
    """Requests under way."""


def _false_is_none(value: object) -> object:
    """TOML has no null."""
    return None if value is False else value


class Front(_Table):
    """How buyers reach it, and what Nginx does with them."""

    virtual_address: IPv4Address | None = None
    """Where buyers go if there are balancers."""
    names: tuple[HostName, ...] = ()
    """Host names that are answered; all are if there are none here."""
    address: IPv4Address | None = None
    """Where proxies listen; left out, at all their addresses. Open nodes want a loopback address before them too."""
    port: Port = 80
    """Where proxies listen without TLS."""
    policy: Policy = "weighted"
    """How requests are shared out over the nodes."""
    workers: Annotated[Whole, Field(ge=0, le=256)] = 0
    """Processes of Nginx on a proxy; 0 for one a processor."""
    worker_connections: Annotated[Whole, Field(ge=64, le=CONNECTIONS_MAX)] = 8_192
    """Connections of one such process, those to nodes among them."""
    worker_files: Annotated[Whole, Field(ge=0, le=FILES_MAX)] = 0
    """Files that such a process may have open; 0 for two a connection and 256 more."""
    sold_out_at_edge: YesNo = True
    """Whether Nginx may answer "sold out" for the nodes, for the second that they name."""
    log_sold_out: YesNo = False
    """Whether those answers are in the access log too, one by one; each costs Nginx a sixth more instructions then."""
    keep_host: YesNo = True
    """Whether nodes see the host that the buyer asked for; open nodes want their own, a loopback address."""
    rate: Annotated[Rate | None, BeforeValidator(_false_is_none)] = Rate()
    """How much one address may ask for; `false` for no limit: then something before it must have one."""
    tls: Tls | None = None
    """The certificate; no TLS without."""
    trusted_proxies: tuple[IPv4Network, ...] = ()
    """Networks whose X-Forwarded-For is believed: of a load balancer before this one that hides addresses."""
    body_bytes: Annotated[Whole, Field(ge=1_024, le=1_048_576)] = 16_384
    """The longest body; a longer one is answered 413."""
    header_bytes: Annotated[Whole, Field(ge=1_024, le=65_536)] = 32_768
    """Request line and headers; more is answered 431."""
    slow_client_s: Annotated[Whole, Field(ge=1, le=60)] = 10
    """How long a client may take for its headers, its body and to read; nginx-slow.sh bounds a body as a whole."""
    max_fails: Annotated[Whole, Field(ge=1, le=100)] = 1
    """Failures within `fail_timeout_s` after which a node is left alone."""
    fail_timeout_s: Annotated[Whole, Field(ge=1, le=60)] = 2
    """For how long it is then."""
    connect_timeout_s: Annotated[Whole, Field(ge=1, le=10)] = 1
    """How long a node may take to accept a connection."""
    answer_timeout_s: Annotated[Whole, Field(ge=5, le=60)] = 5
    """How long a node may take: more than twice the `patience_s` of the nodes, 2 unless you have changed it."""


class Lvs(_Table):
    """How balancers hand connections on."""

    scheduler: Literal["wrr", "rr", "wlc", "sh", "mh"] = "wrr"
    """How ip_vs chooses; nftables goes by the weights, always."""
    forwarding: Literal["DR", "NAT", "TUN"] = "DR"
    """How packets go on, and answers back."""
    health_s: Annotated[Whole, Field(ge=1, le=60)] = 1
    """How often they are asked whether they are well; the answer must come before the next question."""
    fall: Annotated[Whole, Field(ge=1, le=10)] = 2
    """Checks that fail in a row before somebody counts as ill."""
    rise: Annotated[Whole, Field(ge=1, le=10)] = 2
    """Checks that succeed in a row before somebody counts as well again."""
    sorry_server: IPv4Address | None = None
    """Who answers when nobody is healthy."""
    virtual_router_id: Annotated[Whole, Field(ge=1, le=255)] = 51
    """VRRP's number for the virtual address, its own in its network."""
    advert_s: Annotated[Whole, Field(ge=1, le=10)] = 1
    """How often the balancer that has the address says so; it is missed after three."""

    @property
    def chooses_alike(self) -> bool:
        """Whether a balancer can go on with connections of another: all choose by the address, and no answer passes."""
        return self.scheduler in {"sh", "mh"} and self.forwarding != "NAT"


class Ospf(_Table):
    """How balancers announce the virtual address."""

    area: IPv4Address = IPv4Address("0.0.0.0")  # noqa: S104 - an area's number
    """The area that routers and balancers are in."""
    hello_s: Annotated[Whole, Field(ge=1, le=10)] = 1
    """How often neighbours greet each other."""
    dead_s: Annotated[Whole, Field(ge=2, le=40)] = 3
    """Without a greeting for so long, a neighbour is gone; more than `hello_s`."""
    max_paths: Annotated[Whole, Field(ge=1, le=PATHS_MAX)] = PATHS_MAX
    """Paths of equal cost that a router uses at once."""
    networks: tuple[IPv4Network, ...] = ()
    """The networks between routers and balancers."""
    key: Annotated[str, Field(pattern=_KEY)] = Field(default="", repr=False)
    """Password of the adjacency (MD5); "" for none."""


class ClusterFile(_Table):
    """Everything that the file says."""

    front: Front = Front()
    """How buyers reach it, and what Nginx does with them."""
    nodes: Annotated[tuple[NodeEntry, ...], Field(min_length=1, max_length=256)]
    """The nodes: `ticketrush serve`."""
    proxies: tuple[ProxyEntry, ...] = ()
    """The hosts with Nginx, which listen at the ports of `[front]`."""
    balancers: Annotated[tuple[BalancerEntry, ...], Field(max_length=64)] = ()
    """Hosts that announce the virtual address, and hand its connections on."""
    routers: Annotated[tuple[RouterEntry, ...], Field(max_length=64)] = ()
    """Routers before the balancers, for which the other half of OSPF is rendered."""
    lvs: Lvs = Lvs()
    """How balancers hand connections on."""
    ospf: Ospf = Ospf()
    """How balancers announce the virtual address."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        self._names_one_host_each()
        if self.balancers and self.front.virtual_address is None:
            raise ValueError("balancers need front.virtual_address: the address that buyers use")
        if self.front.tls is not None and self.front.tls.port == self.front.port:
            raise ValueError(f"front.tls.port is {self.front.port}, as front.port is; give TLS its own")
        files, connections = self.front.worker_files, self.front.worker_connections
        if 0 < files < connections + FILES_MIN:
            raise ValueError(
                f"front.worker_files is {files}, for {connections} connections; give a worker "
                f"{connections + FILES_MIN} at least, or leave it out"
            )
        if self.routers and not self.ospf.networks:
            raise ValueError("routers need ospf.networks: the networks between them and the balancers")
        self._reaches_its_balancers()
        if self.ospf.dead_s <= self.ospf.hello_s:
            raise ValueError(f"ospf.dead_s is {self.ospf.dead_s}; it must be more than hello_s, {self.ospf.hello_s}")
        return self

    def _names_one_host_each(self) -> None:
        edges = (*self.balancers, *self.routers)
        for what, hosts in (("nodes", self.nodes), ("proxies", self.proxies), ("balancers and routers", edges)):
            name = _twice(host.name for host in hosts)
            if name is not None:
                raise ValueError(f"{what} has the name {name!r} twice; give each host its own")
        place = _twice(f"{node.address}:{node.port}" for node in self.nodes)
        if place is not None:
            raise ValueError(f"nodes has {place} twice; give each node its own address or port")
        for what, hosts in (("proxies", self.proxies), ("balancers and routers", edges)):
            address = _twice(str(host.address) for host in hosts)
            if address is not None:
                raise ValueError(f"{what} has the address {address} twice; give each host its own")
        for host in (*self.nodes, *self.proxies, *edges):
            if host.address == self.front.virtual_address:
                raise ValueError(
                    f"front.virtual_address is {host.address}, as {host.name} is; it must be the address of no host, "
                    "since it moves between balancers"
                )

    def _reaches_its_balancers(self) -> None:
        for balancer in self.balancers if self.routers else ():
            if not any(balancer.address in network for network in self.ospf.networks):
                raise ValueError(
                    f"ospf.networks has no network with {balancer.name}, {balancer.address}, so no router would hear "
                    "of it; add the one it shares with the routers"
                )

    @property
    def speaks_ospf(self) -> bool:
        """Whether balancers announce the virtual address to routers; else they have it in turn (VRRP)."""
        return bool(self.balancers and self.ospf.networks)

    @property
    def targets(self) -> tuple[NodeEntry, ...]:
        """Where balancers hand connections on: the proxies at `front.port`, or the nodes if there are none."""
        port = self.front.port
        return tuple(NodeEntry(**proxy.model_dump(), port=port) for proxy in self.proxies) or self.nodes

    @property
    def sites(self) -> list[str]:
        """The data centres, in the order of the alphabet."""
        return sorted({host.site for host in (*self.nodes, *self.proxies, *self.balancers)})


def read(path: Path) -> ClusterFile:
    """The cluster file at `path`.

    Raises:
        ClusterFileError: it cannot be read, is not TOML, or says what makes no sense.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterFileError(
            f"cannot read the cluster file {path}: {getattr(error, 'strerror', None) or error}; "
            "`ticketrush edge example` prints one to begin with"
        ) from error
    return parse(text, str(path))


def parse(text: str, name: str = "the cluster file") -> ClusterFile:
    """The same from its text. Raises ClusterFileError, which calls the file `name`."""
    try:
        return ClusterFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ClusterFileError(f"{name} is not TOML: {error}{about_quotes(text, str(error))}") from error
    except ValidationError as error:
        raise ClusterFileError(in_words(name, error, _FIELDS, SHAPES, TABLES)) from error


def _twice(values: Iterable[str]) -> str | None:
    """The first that is there more than once."""
    return next((value for value, count in Counter(values).items() if count > 1), None)


_FIELDS: Final = {
    field
    for table in (ClusterFile, Front, Tls, Rate, Lvs, Ospf, NodeEntry, ProxyEntry, BalancerEntry, RouterEntry)
    for field in table.model_fields
}
"""All names that a cluster file may have."""
