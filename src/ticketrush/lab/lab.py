"""The whole front door on one machine: clients, router, balancers, nodes and ledger, each on a host of its own.

All configuration is what `ticketrush edge` renders from one cluster file, which the lab writes.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ticketrush import logs, processes, stop
from ticketrush.cluster.valkey import Persistence
from ticketrush.edge import cluster_file, lvs, nginx, ospf, render
from ticketrush.lab import programs
from ticketrush.lab.ledgers import HostValkey, sentinel_url, start_sentinels, until
from ticketrush.lab.netns import Host, Network, inside, network, require
from ticketrush.lab.outcome import Line, lines_of
from ticketrush.lab.owner import is_left_behind, new_tag
from ticketrush.lab.plan import BUYERS, CLIENTS, FRONT, OUTSIDE, PORT, ROUTER, VIRTUAL, WITNESS, LabPlan
from ticketrush.lab.tools import check_all, find
from ticketrush.settings import Settings

READY_S: Final = 60.0
"""How long the front door may take until buyers are led through it."""

AUDIENCE: Final = str(Settings.model_fields["token_audience"].default)

_PERSISTENCE: Final[dict[str, Persistence]] = {"memory": "memory", "fsync": "fsync", "replica": "memory"}

log = logs.get("ticketrush.lab")


class Lab:
    """A running lab."""

    def __init__(self, plan: LabPlan, net: Network) -> None:
        self.plan, self.net, self.folder = plan, net, net.folder
        self.secret = secrets.token_urlsafe(48)
        self.nodes: list[programs.HostNode] = []
        self.ledgers: list[HostValkey] = []
        self.proxies: dict[str, processes.Child] = {}
        """Nginx, by the name of its host."""
        self.cluster = cluster_file.parse(plan.cluster_file())

    def host(self, name: str) -> Host:
        """The host of that name."""
        return self.net.hosts[name]

    @property
    def router(self) -> Host:
        """Before the balancers."""
        return self.host(ROUTER)

    def start(self) -> None:
        """Start everything, and wait until buyers are led to every balancer.

        Raises:
            LabError: something does not start.
        """
        self._render()
        self._wire()
        for host in (self.router, *(self.host(place.name) for place in self.plan.balancers)):
            programs.start_router(host)  # routers come to know one another meanwhile, which takes seconds
        self._start_ledger()
        self._start_nodes()
        for place in self.plan.balancers:
            self.start_nginx(place.name, place.site)
            programs.start_balancer(self.host(place.name))
        until(lambda: len(self.ways()) == len(self.plan.balancers), READY_S, "the router to know every balancer")
        until(self.answers, READY_S, "an answer at the virtual address")

    def _render(self) -> None:
        (self.folder / "cluster.toml").write_text(self.plan.cluster_file())
        for layer in (nginx, lvs, ospf):
            render.write(self.folder, layer.files(self.cluster))

    def _wire(self) -> None:
        """Hosts, networks, addresses and routes."""
        net, plan = self.net, self.plan
        outside, front = net.lan("outside", f"{OUTSIDE}.0/24"), net.lan("front", f"{FRONT}.0/24")
        router = net.host(ROUTER)
        router.join(front, f"{FRONT}.1", "front")
        router.join(outside, f"{OUTSIDE}.1", "outside")
        backs = {site: net.lan(f"back-{site}", f"{plan.back_of(site)}.0/24") for site in plan.sites}
        for site, lan in backs.items():
            router.join(lan, f"{plan.back_of(site)}.1", f"back-{site}")
        for name, number in ((CLIENTS, 10), (WITNESS, 20)):
            net.host(name).join(outside, f"{OUTSIDE}.{number}")
            net.hosts[name].route("default", f"{OUTSIDE}.1")
        net.hosts[CLIENTS].check([find("ip"), "route", "add", "local", BUYERS, "dev", "lo"])
        for number, place in enumerate(plan.balancers, start=1):
            host = net.host(place.name)
            host.join(front, place.address, "front")
            host.join(backs[place.site], f"{plan.back_of(place.site)}.{10 + number}", "back")
            host.route("default", f"{FRONT}.1")
        for place in (*plan.nodes, *plan.ledgers):
            net.host(place.name).join(backs[place.site], place.address)
            net.hosts[place.name].route("default", f"{plan.back_of(place.site)}.1")
        router.set("net.ipv4.ip_forward", 1)

    def _start_ledger(self) -> None:
        first, *others = self.plan.ledgers
        persistence = _PERSISTENCE[self.plan.durability]
        self.ledgers.append(HostValkey(self.host(first.name), persistence))
        self.ledgers += [HostValkey(self.host(place.name), persistence, of=first.address) for place in others]
        for server in self.ledgers:
            with stop.postponed():
                server.start()
        for replica in self.ledgers[1:]:
            until(replica.follows, READY_S, f"{replica.name} to follow the primary")
        if self.plan.watchers:
            start_sentinels([self.host(place.name) for place in self.plan.watchers], first.address, len(others))

    def _ledger_of(self, site: str) -> str:
        """The URL by which the nodes of `site` reach the ledger: the sentinel of their own site is asked first."""
        near_first = sorted(self.plan.watchers, key=lambda place: (place.site != site, bool(place.site)))
        return sentinel_url([self.host(place.name) for place in near_first]) if near_first else self.ledgers[0].url

    def _start_nodes(self) -> None:
        env = processes.plain_environment()
        env["TICKETRUSH_TOKEN_SECRETS"] = self.secret
        flags = ["--durability", self.plan.durability]
        for place in self.plan.nodes:
            own = env | {"TICKETRUSH_LEDGER": self._ledger_of(place.site)}
            self.nodes.append(programs.HostNode(self.host(place.name), flags, own))
        with stop.postponed():
            for node in self.nodes:
                node.launch()
        for node in self.nodes:
            node.wait_until_ready()

    # --- what one sees from outside ------------------------------------------------------------

    def ways(self) -> set[str]:
        """The addresses of the balancers over which the router leads to the virtual address now."""
        return set(re.findall(r"via ([0-9.]+)", self.router.run([find("ip"), "route", "show", f"{VIRTUAL}/32"]).stdout))

    def announces(self, name: str) -> bool:
        """Whether that balancer has the virtual address now."""
        return VIRTUAL in self.host(name).run([find("ip"), "-4", "address", "show", "dev", "lo"]).stdout

    def answers(self) -> bool:
        """Whether a client gets an answer at the virtual address."""
        connection = http.client.HTTPConnection(VIRTUAL, PORT, timeout=1)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            with inside(self.host(CLIENTS)):
                connection.connect()
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        return False

    def led_to(self) -> dict[str, int]:
        """How many connections came to each balancer, as it counts those that it hands on."""
        counted = {}
        for place in self.plan.balancers:
            text = self.host(place.name).check([find("nft"), "list", "table", "ip", "ticketrush"])
            counted[place.name] = sum(int(packets) for packets in re.findall(r"counter packets (\d+)", text))
        return counted

    def log_of(self, name: str) -> list[Line]:
        """What the Nginx of that balancer wrote down; it is ended for that, if it has not ended."""
        self.proxies[name].stop()
        return lines_of(self.folder / name / "access.log")

    @property
    def handed_on_by(self) -> str:
        """What stands in the place of LVS, and why."""
        there = Path("/proc/net/ip_vs").exists()
        return f"nftables ({'the lab makes no use of ip_vs yet' if there else 'this kernel has no ip_vs'})"

    # --- faults -------------------------------------------------------------------------------

    def kill(self, names: Sequence[str]) -> float:
        """A power cut on these hosts at once; when it was (monotonic seconds)."""
        hosts = [self.host(name) for name in names]
        for host in hosts:
            host.unplug()
        at_s = time.monotonic()
        for host in hosts:
            host.kill()
        return at_s

    def living(self) -> list[programs.HostNode]:
        """The nodes that run."""
        return [node for node in self.nodes if node.is_running]

    def kill_nginx(self, name: str) -> float:
        """SIGKILL for the Nginx of that balancer; when it was (monotonic seconds)."""
        at_s = time.monotonic()
        self.proxies[name].kill()
        return at_s

    def start_nginx(self, name: str, site: str) -> None:
        """Start the Nginx of that balancer, for the first time or again."""
        file = nginx.name_of(self.cluster, site)
        self.proxies[name] = programs.start_nginx(self.host(name), self.folder / file)

    def stop(self) -> None:
        """Let nodes and ledgers end as they should; the network's end takes the rest."""
        with stop.postponed():
            for node in self.living():
                node.ask_to_stop()
            for node in self.nodes:
                node.stop()
            for server in self.ledgers:
                server.stop()


@contextlib.contextmanager
def lab(plan: LabPlan, *, keep: Path | None = None) -> Iterator[Lab]:
    """The lab of `plan`, ready; nothing of it is left afterwards, whatever ends the block.

    What its programs wrote is copied to the folder `keep`, if one is named.

    Raises:
        NoLab: this machine cannot have one; says what is missing.
        LabError, ClusterError: something does not start; has its last words.
    """
    require()
    check_all()
    with contextlib.ExitStack() as stack:
        with stop.postponed():
            folder = stack.enter_context(_folder())
            if keep is not None:
                stack.callback(_copy, folder, keep)  # when nothing writes there any more
            net = stack.enter_context(network(folder))
        made = Lab(plan, net)
        stack.callback(made.stop)
        made.start()
        yield made


def _copy(folder: Path, keep: Path) -> None:
    """Keep what was written. What cannot be is told, and hides nothing else."""
    try:
        shutil.copytree(folder, keep, dirs_exist_ok=True, ignore=_no_secrets)
    except OSError as error:
        log.warning("not_kept", folder=str(keep), error=str(error))


def _no_secrets(folder: str, names: list[str]) -> list[str]:
    """What is not copied: the buyers' plan, which has the secret, and sockets."""
    kept = {entry.name for entry in Path(folder).iterdir() if entry.is_file() or entry.is_dir()}
    return [name for name in names if name == "visit" or name not in kept]


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder whose name says whose it is; those of labs that were killed are removed."""
    home = home_of_folders()
    for name in os.listdir(home):
        if is_left_behind(name):
            shutil.rmtree(home / name, ignore_errors=True)
    folder = home / f"{new_tag()}-lab"
    folder.mkdir(mode=0o711)
    folder.chmod(0o711)  # FRR has a user of its own, who must get to its files
    try:
        yield folder
    finally:
        with stop.postponed():
            shutil.rmtree(folder, ignore_errors=True)


def home_of_folders() -> Path:
    """Where labs have their folders: among the temporary files, if every user gets there."""
    wanted = Path(tempfile.gettempdir()).resolve()
    open_to_all = all(place.stat().st_mode & 0o001 for place in (wanted, *wanted.parents))
    return wanted if open_to_all else Path("/tmp")  # noqa: S108 - the folder's name is nobody else's
