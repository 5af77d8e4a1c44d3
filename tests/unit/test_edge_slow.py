"""nginx-slow.sh: which clients it looks at, and what it says when it has ended them, and when it cannot."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

from tests.unit.edge_files import NODE, TLS
from ticketrush.edge import nginx
from ticketrush.edge.cluster_file import parse

LOOKS: Final = 14
"""A client is late at the sixth; the rest is to see what is said of it later."""


def script(*lines: str) -> str:
    return nginx.files(parse("\n".join(["[front]", *lines, NODE])))[nginx.SLOW_NAME]


@pytest.mark.parametrize(
    ("lines", "clients"),
    [
        ([], "sport = :80"),
        (["port = 8080", TLS], "sport = :8080 or sport = :443"),
        (['address = "10.0.1.21"', TLS], "src 10.0.1.21:80 or src 10.0.1.21:443"),
    ],
)
def test_clients_are_those_of_nginx_and_of_nobody_else_here(lines: list[str], clients: str) -> None:
    assert f'clients="{clients}"  # ' in script(*lines)


@pytest.mark.parametrize("slow_client_s", [1, 9, 10, 60])
def test_nobody_is_ended_before_nginx_would(slow_client_s: int) -> None:
    looks = int(script(f"slow_client_s = {slow_client_s}").partition("\nlooks=")[2].split()[0])
    assert slow_client_s <= looks * nginx.LOOK_S <= slow_client_s + 3


# --- what it says, with an ss that tells of one client who trickles ---------------------------------


SS: Final = """#!/bin/sh
cd FOLDER || exit 1
case "$1" in
  *K)
    echo "$*" >> killed
    case MODE in
      ended) echo 0 0 192.0.2.10:80 10.0.0.9:5000; touch gone ;;
      gone) touch gone ;;
      forbidden) echo "SOCK_DESTROY answers: Operation not permitted" >&2 ;;
    esac ;;
  *)
    echo >> looks
    [ -e gone ] || echo 0 0 192.0.2.10:80 10.0.0.9:5000 cubic bytes_sent:7 bytes_received:$(wc -l < looks) ;;
esac
"""
CANNOT: Final = "it needs root, and a kernel with CONFIG_INET_DIAG_DESTROY"


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("ended", {"ended 1 clients that were too slow"}),
        ("gone", set()),
        (
            "forbidden",
            {f"cannot end clients that are too slow (SOCK_DESTROY answers: Operation not permitted): {CANNOT}"},
        ),
        ("unable", {f"cannot end clients that are too slow (they are still there): {CANNOT}"}),
    ],
)
def test_it_says_that_it_ends_nobody_only_if_that_is_so(tmp_path: Path, mode: str, said: set[str]) -> None:
    lines, killed = run(tmp_path, mode)
    assert {line.partition(" ")[2] for line in lines} == said
    assert "( src 192.0.2.10:80 and dst 10.0.0.9:5000 )" in killed[0]


def run(folder: Path, mode: str) -> tuple[list[str], list[str]]:
    """What it says in so many looks, and with what it asked to have clients ended."""
    quick = script().replace(f"every_s={nginx.LOOK_S}\n", "every_s=0.02\n")
    assert "every_s=0.02" in quick
    (folder / "slow.sh").write_text(quick)
    (folder / "ss").write_text(SS.replace("FOLDER", str(folder)).replace("MODE", mode))
    (folder / "ss").chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "TMPDIR": str(folder)}
    with subprocess.Popen(
        ["sh", str(folder / "slow.sh")], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        until_s = time.monotonic() + 20.0
        while not (folder / "looks").exists() or (folder / "looks").stat().st_size < LOOKS:
            assert time.monotonic() < until_s, "it does not look"
            time.sleep(0.01)
        process.terminate()
        lines = process.communicate(timeout=10)[0].splitlines()
    assert not list(folder.glob("tmp.*")), "it leaves nothing"
    return lines, (folder / "killed").read_text().splitlines()
