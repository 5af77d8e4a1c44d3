"""LVS: connections to the virtual address are shared out.

keepalived asks who is well and tells the kernel (ip_vs). Where the kernel has no ip_vs, nftables shares out the same
way by address translation, and a script asks who is well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ticketrush.edge.cluster_file import BalancerEntry, ClusterFile, NodeEntry
from ticketrush.edge.errors import ClusterFileError
from ticketrush.edge.health import answer_s, connect_s, own_proxies, places
from ticketrush.edge.ospf import sysctl
from ticketrush.edge.render import render

FIRST_PRIORITY: Final = 200
"""VRRP's priority of the first balancer in the file; each later one has one less."""

ASKED_MAX: Final = 8
"""How many targets VRRP's check asks, spread over all of them: keepalived reads no line of more than 1,023 bytes."""

HASTY_S = 1
"""For how long nftables remembers where a SYN that nobody answers was led: less than until a client sends the next."""

DEVICES: Final = {"DR": "lo", "TUN": "tunl0"}
"""Where a real server has the virtual address, by the way of forwarding."""


@dataclass(frozen=True, slots=True)
class Target:
    """One that connections are handed on to: its `port`, and the one that says whether it is well."""

    name: str
    address: str
    port: int
    health_port: int
    weight: int


@dataclass(frozen=True, slots=True)
class Service:
    """A port of the virtual address."""

    port: int
    targets: tuple[Target, ...]

    @property
    def ports(self) -> dict[str, int]:
        """The ports of the targets, by name."""
        return {target.name: target.port for target in self.targets}


def files(cluster: ClusterFile) -> dict[str, str]:
    """The files of the balancers, by name; none if there are no balancers.

    For each, NAME/keepalived.conf and NAME/sysctl.conf, and in place of keepalived's LVS NAME/nftables.conf and
    NAME/nftables-health.sh. With DR or TUN, NAME/real-server.sh for each that connections are handed on to.

    Raises:
        ClusterFileError: the balancers cannot work as the file says.
    """
    if not cluster.balancers:
        return {}
    _must_work(cluster)
    made = {}
    for balancer in cluster.balancers:
        made[f"{balancer.name}/keepalived.conf"] = _keepalived(cluster, balancer)
        made[f"{balancer.name}/sysctl.conf"] = sysctl(balancer)
        made[f"{balancer.name}/nftables.conf"] = _nftables("nftables.conf.j2", cluster, balancer)
        made[f"{balancer.name}/nftables-health.sh"] = _nftables("nftables-health.sh.j2", cluster, balancer)
    if cluster.lvs.forwarding in DEVICES:
        shared = _also_balancers(cluster)
        for target in cluster.targets:
            if target not in shared:
                made[f"{target.name}/real-server.sh"] = _real_server(cluster, target)
    return made


def services(cluster: ClusterFile) -> tuple[Service, ...]:
    """The ports of the virtual address, and who is behind each; nodes speak no TLS, so theirs is one.

    Weights are as small as their ratios allow, so that no target gets more connections in a row than it must.
    """
    unit = math.gcd(*(target.weight for target in cluster.targets))
    plain = tuple(
        Target(target.name, str(target.address), target.port, target.port, target.weight // unit)
        for target in cluster.targets
    )
    front = cluster.front
    made = [Service(front.port, plain)]
    if front.tls is not None and cluster.proxies:
        port = front.tls.port
        secure = tuple(Target(t.name, t.address, port, t.health_port, t.weight) for t in plain)
        made.append(Service(port, secure))
    return tuple(made)


def _must_work(cluster: ClusterFile) -> None:
    forwarding, port = cluster.lvs.forwarding, cluster.front.port
    moved = [target for target in cluster.targets if target.port != port]
    if forwarding in DEVICES and moved:
        raise ClusterFileError(
            f"lvs.forwarding {forwarding} leaves ports as they are, but {moved[0].name} listens at {moved[0].port} and "
            f"buyers come to {port}: give it port {port}, set lvs.forwarding to NAT, or put proxies before the nodes"
        )
    for target in cluster.targets:
        if target.address == cluster.lvs.sorry_server:
            raise ClusterFileError(
                f"lvs.sorry_server is {target.address}, as {target.name} is, who gets connections anyway: name another "
                "host, or leave it out"
            )
    places = sorted({balancer.site for balancer in cluster.balancers})
    if len(places) > 1 and not cluster.speaks_ospf:
        raise ClusterFileError(
            f"the balancers are in sites {' and '.join(places)}, and VRRP works within one network: "
            "name ospf.networks, so that OSPF announces the virtual address from all of them"
        )


def _keepalived(cluster: ClusterFile, balancer: BalancerEntry) -> str:
    return render(
        "keepalived.conf.j2",
        name=balancer.name,
        address=balancer.address,
        interface=balancer.interface,
        virtual_address=cluster.front.virtual_address,
        forwarding=cluster.lvs.forwarding,
        lvs=cluster.lvs,
        vrrp=not cluster.speaks_ospf,
        priority=FIRST_PRIORITY - cluster.balancers.index(balancer),
        peers=[peer for peer in cluster.balancers if peer != balancer],
        question=_question(cluster),
        some=len(cluster.targets) > ASKED_MAX,
        services=services(cluster),
        proxies=cluster.proxies,
        also_balancers=_also_balancers(cluster),
    )


def _question(cluster: ClusterFile) -> str:
    """A line of shell that succeeds if one of the targets answers, ready or not, or else the sorry server.

    It goes between quotes of keepalived's file, so it has no quotes and no $.
    """
    curl = f"http_proxy= curl -s --connect-timeout {connect_s(cluster)} --max-time {answer_s(cluster)}"
    step = math.ceil(len(cluster.targets) / ASKED_MAX)
    urls = " ".join(f"{place}/healthz" for place in places(cluster.targets[::step]))
    line = f"{curl} -Z -w _%{{http_code}}_ {urls} | grep -q _200_"
    if cluster.lvs.sorry_server is None:
        return line
    return f"{line} || {curl} -o /dev/null http://{cluster.lvs.sorry_server}:{cluster.front.port}/"


def _nftables(template: str, cluster: ClusterFile, balancer: BalancerEntry) -> str:
    shared = services(cluster)
    shares, total = _in_turn(shared[0].targets)
    return render(
        template,
        name=balancer.name,
        virtual_address=cluster.front.virtual_address,
        own=own_proxies(cluster, balancer),
        lvs=cluster.lvs,
        hasty_s=HASTY_S,
        connect_s=connect_s(cluster),
        answer_s=answer_s(cluster),
        targets=shared[0].targets,
        services=shared,
        shares=shares,
        total=total,
    )


def _in_turn(targets: tuple[Target, ...]) -> tuple[str, int]:
    """What number leads to which target, for nftables, and how many numbers there are."""
    parts, total = [], 0
    for target in targets:
        last = total + target.weight - 1
        parts.append(f"{total if last == total else f'{total}-{last}'} : goto to_{target.name}")
        total = last + 1
    return ", ".join(parts), total


def _real_server(cluster: ClusterFile, target: NodeEntry) -> str:
    return render(
        "real-server.sh.j2",
        name=target.name,
        virtual_address=cluster.front.virtual_address,
        forwarding=cluster.lvs.forwarding,
        device=DEVICES[cluster.lvs.forwarding],
    )


def _also_balancers(cluster: ClusterFile) -> list[NodeEntry]:
    """The proxies that are on the host of a balancer."""
    return [proxy for balancer in cluster.balancers for proxy in own_proxies(cluster, balancer)]
