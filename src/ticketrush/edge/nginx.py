"""Nginx: the layer that speaks HTTP.

It shares requests out to the nodes, asks another node when one is gone, and bounds what a client may do to
them. What it has to say itself, it says as the nodes do: in problem documents (RFC 9457).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Final

import msgspec

from ticketrush.edge.cluster_file import FILES_MIN, ClusterFile, Front, NodeEntry
from ticketrush.edge.health import ready
from ticketrush.edge.render import render

NAME: Final = "nginx.conf"
"""The file of a cluster in one site; `name_of` has the others."""

SLOW_NAME: Final = "nginx-slow.sh"
"""What runs beside Nginx, and ends clients whose bodies trickle."""

LOOK_S: Final = 2
"""How often that looks at the connections."""

HASH_WEIGHT_MAX: Final = 4_096
"""Of all nodes together under buyer-hash: Nginx makes 160 points of each, and sorts them when it starts."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer of Nginx's own. `code` and `title` are those that the nodes use."""

    name: str
    status: int
    code: str
    title: str
    detail: str
    retry_after_s: int = 0
    early: bool = False
    """It may be needed before the request line was understood."""

    @property
    def body(self) -> str:
        """The problem document."""
        return msgspec.json.encode(
            {
                "type": f"urn:ticketrush:problem:{self.code}",
                "title": self.title,
                "status": self.status,
                "detail": self.detail,
                "code": self.code,
            }
        ).decode()


_UNKNOWN: Final = "It is not known whether this happened."

PROBLEMS: Final = (
    Problem("not_found", 404, "not_found", "Not found", "There is nothing at this address; see /docs."),
    Problem(
        "method_not_allowed",
        405,
        "method_not_allowed",
        "Method not allowed",
        "This address does not take that method; see /docs.",
    ),
    Problem("body_too_large", 413, "body_too_large", "Body too large", "The request body is too large."),
    Problem("misdirected", 421, "not_found", "Not found", "This host name is not served here."),
    Problem(
        "too_many",
        429,
        "overloaded",
        "Overloaded",
        "Too many requests from this address. This one did not happen; try again.",
        retry_after_s=1,
    ),
    Problem("internal", 500, "internal", "Internal error", "A defect of the server; it has been logged."),
    Problem(
        "overloaded",
        503,
        "overloaded",
        "Overloaded",
        "Too many requests are waiting. This one did not happen; try again.",
        retry_after_s=1,
    ),
    Problem(
        "unavailable",
        503,
        "unavailable",
        "Unavailable",
        "No node answers now. This request did not happen; try again.",
        retry_after_s=1,
    ),
    Problem(
        "unknown",
        503,
        "unknown",
        "Unknown",
        f"{_UNKNOWN} Repeat it with the same Idempotency-Key to find out.",
        retry_after_s=1,
    ),
    Problem(
        "unknown_ticket",
        503,
        "unknown",
        "Unknown",
        f"{_UNKNOWN} A ticket that you were not told of is sold again when its time is over.",
        retry_after_s=1,
    ),
    Problem("malformed", 400, "malformed", "Malformed request", "The request is not valid HTTP.", early=True),
    Problem(
        "headers_too_large",
        431,
        "headers_too_large",
        "Headers too large",
        "The request line and headers are too large.",
        early=True,
    ),
)


def files(cluster: ClusterFile) -> dict[str, str]:
    """The files of the proxies, by name: one for each site that has some, preferring its own nodes; and `SLOW_NAME`."""
    own = {name_of(cluster, site): _render(cluster, site) for site in sites_of(cluster)}
    return own | {SLOW_NAME: _slow(cluster.front)}


def sites_of(cluster: ClusterFile) -> list[str]:
    """The sites that have proxies; those that have nodes if no proxy is named. There is one at least."""
    proxies = {proxy.site for proxy in cluster.proxies}
    return sorted(proxies or {node.site for node in cluster.nodes})


def name_of(cluster: ClusterFile, site: str) -> str:
    """What the file of the proxies of `site` is called."""
    return NAME if len(sites_of(cluster)) == 1 else f"nginx-{site}.conf"


def _render(cluster: ClusterFile, site: str) -> str:
    own, others = _split(cluster.nodes, site)
    return render(
        "nginx.conf.j2",
        front=cluster.front,
        site=site,
        files=cluster.front.worker_files or 2 * cluster.front.worker_connections + FILES_MIN,
        own=own,
        others=others,
        weights=_weights(cluster),
        problems=PROBLEMS,
        ready=ready(cluster),
    )


def _slow(front: Front) -> str:
    """What ends a client that takes longer than `slow_client_s` over a request, and two looks at most."""
    ports = (front.port,) if front.tls is None else (front.port, front.tls.port)
    return render(
        "nginx-slow.sh.j2",
        every_s=LOOK_S,
        looks=max(2, -(-front.slow_client_s // LOOK_S)),
        front=front,
        clients=[f"src {front.address}:{port}" if front.address else f"sport = :{port}" for port in ports],
    )


def _weights(cluster: ClusterFile) -> dict[str, int]:
    """The weights of the nodes by name; empty if the policy heeds none."""
    if cluster.front.policy == "round-robin":
        return {}
    weights = {node.name: node.weight for node in cluster.nodes}
    if cluster.front.policy == "buyer-hash":
        most = max(sum(weights.values()) / HASH_WEIGHT_MAX, gcd(*weights.values()))
        weights = {name: max(1, round(weight / most)) for name, weight in weights.items()}
    return weights


def _split(nodes: tuple[NodeEntry, ...], site: str) -> tuple[list[NodeEntry], list[NodeEntry]]:
    """The nodes of `site` and the others; all are its own if it has none, or if there is but one site."""
    own = [node for node in nodes if node.site == site]
    if not own:
        return list(nodes), []
    return own, [node for node in nodes if node.site != site]
