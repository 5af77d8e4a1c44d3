"""Hosts as network namespaces (Linux, root, ``ip``), joined by networks; nothing of them is left at the end.

Nothing is made in the machine's own network: a LAN is a bridge in a namespace of its own, and both ends of
each cable are made where they belong. So a namespace that is removed takes all of it with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Final

from ticketrush import processes, stop
from ticketrush.lab.errors import LabError, NoLab
from ticketrush.lab.owner import PREFIX, can_have_started, is_left_behind, new_tag
from ticketrush.lab.tools import find

RUN_S: Final = 10.0
"""How long a command in a host may take."""

GONE_S: Final = 10.0
"""How long killed processes may take until they are gone."""

NAMES: Final = Path("/run/netns")

_INIT: Final = 1
_NOWHERE: Final = (0, 0)
_BRIDGE: Final = "br0"
_CLONE_NEWNET: Final = 0x40000000


def require() -> None:
    """Return if hosts can be made here.

    Raises:
        NoLab: they cannot; says why and what to do.
    """
    if sys.platform != "linux":
        raise NoLab(f"a lab needs Linux, for its network namespaces; this is {sys.platform}")
    if os.geteuid() != 0:
        raise NoLab("a lab needs root, to make network namespaces: run it with sudo, or in a privileged container")
    find("ip")


@dataclass(frozen=True, slots=True)
class Lan:
    """A network that hosts can join: a switch, and its addresses."""

    name: str
    network: IPv4Network
    namespace: str


class Host:
    """A machine of its own: interfaces, addresses, routes, and the programs that run in it."""

    def __init__(self, name: str, namespace: str, folder: Path) -> None:
        self.name, self.namespace, self.folder = name, namespace, folder
        self.addresses: dict[str, IPv4Interface] = {}
        """By the name of the interface."""
        self.children: list[processes.Child] = []
        """What was started in it, ended or not."""
        self._routes: list[tuple[str, ...]] = []

    @property
    def address(self) -> str:
        """The address of its first interface."""
        return str(next(iter(self.addresses.values())).ip)

    def join(self, lan: Lan, address: str, interface: str = "eth0") -> None:
        """Plug a cable into `lan`, and give our end the `address` of that network."""
        own = IPv4Interface(f"{address}/{lan.network.prefixlen}")
        if own.network != lan.network:
            raise LabError(f"{self.name} cannot have {address} in {lan.name}: that is {lan.network}")
        port = f"{self.name[:11]}{len(self.addresses)}"
        _do(
            f"link add {interface} netns {self.namespace} type veth peer name {port} netns {lan.namespace}",
            f"-n {lan.namespace} link set {port} master {_BRIDGE} up",
            f"-n {self.namespace} address add {own} dev {interface}",
            f"-n {self.namespace} link set {interface} up",
        )
        self.addresses[interface] = own

    def route(self, to: str, via: str) -> None:
        """Reach the network `to` ("default": all) through the host at `via`."""
        self._routes.append((to, via))
        self._add_route(to, via)

    def _add_route(self, to: str, via: str) -> None:
        _do(f"-n {self.namespace} route replace {to} via {via}")

    def set(self, name: str, value: int | str) -> None:
        """A setting of its kernel, like net.ipv4.ip_forward."""
        self.check(["sh", "-c", 'printf %s "$2" > "$1"', "sh", f"/proc/sys/{name.replace('.', '/')}", str(value)])

    def command(self, command: Sequence[str]) -> list[str]:
        """How `command` is started in the host; the process that results is the command itself."""
        return [find("ip"), "netns", "exec", self.namespace, *command]

    def run(self, command: Sequence[str], *, within_s: float = RUN_S) -> subprocess.CompletedProcess[str]:
        """Run `command` in the host to its end, whatever its exit code.

        Raises:
            LabError: it took longer than `within_s`, and was killed.
        """
        try:
            with stop.postponed():  # an interruption between fork and exec could be lost
                return processes.run(self.command(command), self.folder, within_s=within_s)
        except subprocess.TimeoutExpired:
            raise LabError(f"on {self.name}, `{' '.join(command)}` took longer than {within_s:g} s") from None

    def check(self, command: Sequence[str], *, within_s: float = RUN_S) -> str:
        """Run `command` in the host; what it printed.

        Raises:
            LabError: it failed, or took too long; has what it said.
        """
        done = self.run(command, within_s=within_s)
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
            raise LabError(f"on {self.name}, `{' '.join(command)}` failed: {said}")
        return done.stdout

    def start(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        at_our_end: signal.Signals = signal.SIGTERM,
    ) -> processes.Child:
        """Start a program in the host; its output is in the folder, as HOST-`name`.out and .err.

        It ends with the host at the latest, and gets `at_our_end` if we are killed.
        """
        given = processes.plain_environment() if env is None else env
        with stop.postponed():
            child = processes.start(
                f"{self.name}-{name}", self.command(command), self.folder, given, at_our_end=at_our_end
            )
            self.children.append(child)
        return child

    def pids(self) -> list[int]:
        """The processes that run in it."""
        return _pids_in([self.namespace])

    def kill(self) -> None:
        """As a power cut: the links go down, and SIGKILL ends every process in it; it says good-bye to nobody."""
        self.unplug()
        _kill_all([self.namespace])
        self.reap()

    def unplug(self) -> None:
        """Take its links down; what runs in it goes on."""
        _do(*(f"-n {self.namespace} link set {interface} down" for interface in self.addresses))

    def plug_in(self) -> None:
        """The links are up again, with the routes that it was given; programs are the caller's to start."""
        _do(*(f"-n {self.namespace} link set {interface} up" for interface in self.addresses))
        for to, via in self._routes:
            self._add_route(to, via)

    def reap(self) -> None:
        """Take note of children that have ended."""
        for child in self.children:
            if not processes.running_of([child.pid]):
                child.process.wait()


class Network:
    """Hosts and LANs for as long as the block lasts (see `network`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tag = new_tag()
        self.hosts: dict[str, Host] = {}
        self.lans: dict[str, Lan] = {}

    def lan(self, name: str, network: str) -> Lan:
        """A switch for the addresses of `network`, like 10.0.1.0/24."""
        namespace = self._namespace(f"lan-{name}")
        _do(
            f"-n {namespace} link add {_BRIDGE} type bridge stp_state 0 forward_delay 0",
            f"-n {namespace} link set {_BRIDGE} up",
        )
        made = self.lans[name] = Lan(name, IPv4Network(network), namespace)
        return made

    def host(self, name: str) -> Host:
        """A host with nothing but its loopback interface."""
        namespace = self._namespace(name)
        made = self.hosts[name] = Host(name, namespace, self.folder)
        _do(f"-n {namespace} link set lo up")
        return made

    def _namespace(self, name: str) -> str:
        namespace = f"{self.tag}-{name}"
        with stop.postponed():
            _do(f"netns add {namespace}")
        return namespace

    def close(self) -> None:
        """Kill all that runs in the hosts, and remove them."""
        with stop.postponed():
            _remove([name for name in _namespaces() if name.startswith(f"{self.tag}-")])
            for host in self.hosts.values():
                host.reap()


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network for hosts, whose programs write into `folder`; what killed labs have left is removed first.

    Whatever ends the block, all that runs in the hosts is killed, and they are removed.

    Raises:
        NoLab: this machine cannot have one.
        LabError: the system refuses to make one.
    """
    require()
    remove_left_behind()
    made = Network(folder)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def inside(host: Host) -> Iterator[None]:
    """Within, what this thread connects to, it connects to from `host`; a connection stays there afterwards."""
    with contextlib.ExitStack() as stack:
        with stop.postponed():
            own = _opened(Path("/proc/thread-self/ns/net"), stack)
            there = _opened(NAMES / host.namespace, stack)
            stack.callback(_enter, own)
            _enter(there)
        try:
            yield
        finally:
            with stop.postponed():  # an interruption must not leave us there
                stack.close()


def _opened(namespace: Path, stack: contextlib.ExitStack) -> int:
    handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, handle)
    return handle


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        raise LabError(f"cannot enter a network namespace: {os.strerror(ctypes.get_errno())}")


def remove_left_behind() -> list[str]:
    """Remove the namespaces of labs whose process is gone, with all that runs in them; their names."""
    found = [name for name in _namespaces() if is_left_behind(name)]
    with stop.postponed():
        _remove(found)
    return found


def _do(*commands: str) -> None:
    for command in commands:
        with stop.postponed():
            done = processes.run([find("ip"), *command.split()], Path("/"), within_s=RUN_S)
        if done.returncode:
            raise LabError(f"`ip {command}` failed: {done.stderr.strip()}")


def _namespaces() -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(NAMES) if name.startswith(f"{PREFIX}-"))
    return []


def _remove(namespaces: Sequence[str]) -> None:
    _kill_all(namespaces)
    for namespace in namespaces:
        try:
            _do(f"netns delete {namespace}")
        except LabError:
            if (NAMES / namespace).exists():  # else another lab, which looks for what is left too, was quicker
                raise


def _kill_all(namespaces: Sequence[str]) -> None:
    """SIGKILL for all that runs there and can be the lab's, until nothing of it does.

    What is in a lab's namespace is the lab's, a shell too that somebody has opened in it: a machine that loses its
    power asks nobody. Not the lab's are the lab itself, which may have entered one (`inside`), whoever is older
    than it, and all that runs in the machine's own network, whatever name that has been given.
    """
    give_up_s = time.monotonic() + GONE_S
    while pids := _pids_in(namespaces):
        for pid in pids:
            _kill(pid, namespaces)
        if time.monotonic() > give_up_s:
            raise LabError(f"processes {pids} in {', '.join(namespaces)} are still there {GONE_S:g} s after SIGKILL")
        time.sleep(0.002)


def _kill(pid: int, namespaces: Sequence[str]) -> None:
    """SIGKILL for `pid` if it is, now that its number cannot change hands, still one of the lab's there."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if _is_there(pid, _networks(namespaces)):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def _pids_in(namespaces: Sequence[str]) -> list[int]:
    """What runs there and can be the lab's."""
    wanted = _networks(namespaces)
    numbers = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in numbers if _is_there(pid, wanted)] if wanted else []


def _is_there(pid: int, wanted: Mapping[tuple[int, int], str]) -> bool:
    """Whether `pid` is in one of the networks `wanted`, and the lab of that name can have started it."""
    where = wanted.get(_network_of(pid) or _NOWHERE)
    return where is not None and can_have_started(where, pid)


def _networks(namespaces: Iterable[str]) -> dict[tuple[int, int], str]:
    """The namespaces by their networks; none that is the machine's own."""
    found = {}
    for namespace in namespaces:
        with contextlib.suppress(OSError):
            of = (NAMES / namespace).stat()
            found[of.st_dev, of.st_ino] = namespace
    found.pop(_network_of(_INIT) or _NOWHERE, None)
    found.pop(_AT_HOME or _NOWHERE, None)
    return found


def _network_of(pid: int) -> tuple[int, int] | None:
    """Which network a process is in; None if it has ended."""
    with contextlib.suppress(OSError):
        of = Path(f"/proc/{pid}/ns/net").stat()
        return of.st_dev, of.st_ino
    return None


_AT_HOME: Final = _network_of(os.getpid())
"""Where we were before we could enter any other."""
