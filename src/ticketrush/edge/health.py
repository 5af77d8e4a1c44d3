"""Who is well: what balancers ask, and how long the answers may take.

Everything is a share of the time between two questions (`lvs.health_s`). A proxy that is asked for `/readyz` must have
said so before its balancer gives up, whoever of its nodes is silent; else the silence of a node were its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ticketrush.edge.cluster_file import BalancerEntry, ClusterFile, NodeEntry

CONNECT_SHARE: Final = 0.5
"""What a connection may take: a host that is gone is known sooner."""

ANSWER_SHARE: Final = 0.75
"""What the answer may take with its connection: questions keep their rhythm, whoever is silent."""

NODE_CONNECT_SHARE: Final = 0.15
"""What the connection of a proxy to a node may take; nodes are near."""

NODE_ANSWER_SHARE: Final = 0.2
"""What a node may take then; it says what it knows already."""

LAST_TRY_SHARE: Final = 0.35
"""Until when a proxy begins to ask another node. The last one asked has its time too: 0.7 in all."""

assert LAST_TRY_SHARE + NODE_CONNECT_SHARE + NODE_ANSWER_SHARE < ANSWER_SHARE

NODE_LEFT_OUT_S: Final = 5
"""For how long a proxy asks a node that has failed no more: its silence costs time once, not with each question."""


@dataclass(frozen=True, slots=True)
class Ready:
    """How a proxy finds out whether some node is ready, in milliseconds."""

    connect_ms: int
    answer_ms: int
    last_try_ms: int
    left_out_s: int = NODE_LEFT_OUT_S


def ready(cluster: ClusterFile) -> Ready:
    """What `/readyz` of a proxy may take."""
    shares = (NODE_CONNECT_SHARE, NODE_ANSWER_SHARE, LAST_TRY_SHARE)
    return Ready(*(round(1_000 * cluster.lvs.health_s * share) for share in shares))


def connect_s(cluster: ClusterFile) -> str:
    """How long a balancer's question waits for its connection, in seconds."""
    return f"{cluster.lvs.health_s * CONNECT_SHARE:g}"


def answer_s(cluster: ClusterFile) -> str:
    """How long a balancer's question takes at most, in seconds."""
    return f"{cluster.lvs.health_s * ANSWER_SHARE:g}"


def own_proxies(cluster: ClusterFile, balancer: BalancerEntry) -> tuple[NodeEntry, ...]:
    """Those that the balancer hands on to and that are the same host."""
    proxies = cluster.targets if cluster.proxies else ()
    return tuple(proxy for proxy in proxies if proxy.name == balancer.name or proxy.address == balancer.address)


def places(targets: Iterable[NodeEntry]) -> list[str]:
    """Where targets are asked, without the path."""
    return [f"http://{target.address}:{target.port}" for target in targets]
