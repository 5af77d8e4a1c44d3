"""The programs themselves judge what is rendered for them.

Each is asked for its own check of a file, in a network of its own where that can be had (Linux, `unshare`): what
it may do there does not touch this machine, and neither ports nor addresses nor interfaces of it matter.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ticketrush import processes
from ticketrush.edge import certificates, lvs, nginx, ospf, programs
from ticketrush.edge.cluster_file import ClusterFile

CHECK_S: Final = 20.0
"""How long a program may take over a file."""

PACKAGES: Final = {
    "nginx": "nginx",
    "keepalived": "keepalived",
    "vtysh": "frr",
    "nft": "nftables",
    "sysctl": "procps",
    "sh": "dash",
    "openssl": "openssl",
}
"""The programs that judge, and the Debian packages that bring them."""

Verdict = Literal["well", "wrong", "not installed", "not judged"]

_OUR_NETWORK: Final = Path("/proc/self/ns/net")
_ALONE: Final = (
    f'there=$(readlink {_OUR_NETWORK}) && [ "$there" != "$1" ] && shift && '
    'echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind && exec "$@"'
)
"""Shell that runs a command, only if it is in another network than $1; else it changes nothing and fails."""

_UNTRUSTED: Final = "Disabling track script ticketrush_well due to insecure"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a program says of a file."""

    file: str
    program: str
    verdict: Verdict
    said: str = ""
    """In its own words, or what to do; "" if there is nothing to say."""


def all_files(cluster: ClusterFile) -> dict[str, str]:
    """Everything that is rendered from the cluster file, by name.

    Raises:
        ClusterFileError: a layer cannot work as the file says.
    """
    return nginx.files(cluster) | lvs.files(cluster) | ospf.files(cluster)


def judge(folder: Path, names: Iterable[str], *, path: str | None = None) -> list[Finding]:
    """What the programs say of the files `names` in `folder`, in that order; a finding for each.

    `path` is where programs are looked for (`programs.look_for`).
    """
    with tempfile.TemporaryDirectory(prefix="ticketrush-check-") as scratch:
        bench = _Bench(folder.resolve(), Path(scratch), path)
        return [bench.judge(name) for name in names]


class _Unable(Exception):
    def __init__(self, verdict: Verdict, said: str) -> None:
        super().__init__(said)
        self.verdict, self.said = verdict, said


class _Bench:
    """Where files are judged; what programs write goes into `scratch`."""

    def __init__(self, folder: Path, scratch: Path, path: str | None) -> None:
        self._folder, self._scratch, self._path = folder, scratch, path
        self._alone = self._how_to_be_alone()

    def judge(self, name: str) -> Finding:
        """The finding for one file."""
        program, ask = self._judge_of(Path(name))
        try:
            code, said = ask(self._folder / name)
        except _Unable as unable:
            return Finding(name, program, unable.verdict, unable.said)
        except subprocess.TimeoutExpired:
            return Finding(name, program, "wrong", f"{program} did not come to an end within {CHECK_S:g} s")
        said = said.replace(f"{self._folder}/", "").replace(f"{self._scratch}/", "").strip()
        if code:
            return Finding(name, program, "wrong", said or f"{program} ended with exit code {code}")
        return Finding(name, program, "well", said)

    def _judge_of(self, name: Path) -> tuple[str, Callable[[Path], tuple[int, str]]]:
        if name.suffix == ".sh":
            return "sh", self._shell
        if name.name == nginx.NAME or (name.match("nginx-*.conf")):
            return "nginx", self._nginx
        return {
            "keepalived.conf": ("keepalived", self._keepalived),
            "frr.conf": ("vtysh", self._vtysh),
            "nftables.conf": ("nft", self._nft),
            "sysctl.conf": ("sysctl", self._sysctl),
        }[name.name]

    def _shell(self, file: Path) -> tuple[int, str]:
        return self._run([self._find("sh"), "-n", str(file)])

    def _nginx(self, file: Path) -> tuple[int, str]:
        """`nginx -t`, with a prefix of its own; certificates that are not here are stood in for."""
        program = self._find("nginx")
        text, note = self._with_certificates(file.read_text("utf-8"))
        copy = self._scratch / file.name
        copy.write_text(text, "utf-8")
        is_root = bool(self._alone) or os.geteuid() == 0
        user = ["-g", "user root;"] if is_root else []  # so that it gives nothing away
        prefix = f"{self._scratch}/"
        code, said = self._run(
            [*self._alone, program, "-t", "-q", "-p", prefix, "-c", str(copy), "-e", "stderr", *user]
        )
        return code, f"{said}\n{note}"

    def _keepalived(self, file: Path) -> tuple[int, str]:
        code, said = self._run([*self._alone, self._find("keepalived"), "--config-test", "-f", str(file)])
        if os.geteuid() != 0 and said.strip() == _UNTRUSTED:
            return 0, "judged but for its script, which keepalived trusts only if it runs as root"
        return code, said

    def _vtysh(self, file: Path) -> tuple[int, str]:
        """With an own vtysh.conf: the machine's is not for everybody to read, and says nothing of the file."""
        (self._scratch / "vtysh.conf").touch()
        return self._run([self._find("vtysh"), "--config_dir", str(self._scratch), "--dryrun", "-f", str(file)])

    def _nft(self, file: Path) -> tuple[int, str]:
        program = self._find("nft")
        if not self._alone and os.geteuid() != 0:
            raise _Unable("not judged", "nft checks only for root here: run it with sudo")
        return self._run([*self._alone, program, "--check", "-f", str(file)])

    def _sysctl(self, file: Path) -> tuple[int, str]:
        """It is asked to do it, so only where that is without effect on this machine."""
        program = self._find("sysctl")
        if not self._alone:
            raise _Unable("not judged", "sysctl has no check, and here is no network of its own to try it in: use sudo")
        return self._run([*self._alone, program, "-q", "-p", str(file)])

    def _run(self, command: list[str]) -> tuple[int, str]:
        done = processes.run(command, self._scratch, within_s=CHECK_S)
        return done.returncode, f"{done.stderr}\n{done.stdout}"

    def _find(self, program: str) -> str:
        found = programs.look_for(program, self._path)
        if found is None:
            raise _Unable("not installed", f"install the package {PACKAGES[program]}")
        return found

    def _how_to_be_alone(self) -> list[str]:
        """What a command is put after to run as root in a network of its own; nothing if that cannot be had."""
        unshare, shell = (programs.look_for(program, self._path) for program in ("unshare", "sh"))
        if unshare is None or shell is None:
            return []
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        try:
            ours = str(_OUR_NETWORK.readlink())
        except OSError:  # no Linux
            return []
        alone = [unshare, *as_root, "--net", "--", shell, "-c", _ALONE, "sh", ours]
        return alone if self._run([*alone, shell, "-c", ":"])[0] == 0 else []

    def _with_certificates(self, text: str) -> tuple[str, str]:
        """The text with those that cannot be read here replaced by one made for the purpose; and a note of it."""
        pairs = certificates.named_in(text)
        missing = [pair for pair in pairs if not pair.readable]
        if not missing:
            return text, ""
        stand_in = certificates.make(self._scratch, self._find("openssl"))
        for pair in missing:
            text = text.replace(f" {pair.certificate};", f" {stand_in.certificate};")
            text = text.replace(f" {pair.key};", f" {stand_in.key};")
        names = ", ".join(sorted({str(file) for pair in missing for file in pair.unreadable}))
        return text, f"judged with a certificate made for the purpose: {names} cannot be read here"


@contextlib.contextmanager
def place(out: Path | None) -> Iterator[Path]:
    """The folder `out`, or one that is removed at the end."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="ticketrush-edge-") as folder:
        yield Path(folder)
