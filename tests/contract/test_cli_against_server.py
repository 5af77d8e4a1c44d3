"""The operator's commands against a real server: what the one says, the other understands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ticketrush.admission.tokens import Tokens

SECRET = "s" * 32
COMMAND = [sys.executable, "-m", "ticketrush"]


def environment(**more: str) -> dict[str, str]:
    """Ours without any setting, and the secret."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("TICKETRUSH_")}
    return mine | {"TICKETRUSH_TOKEN_SECRETS": SECRET} | more


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server with tokens; it must end by itself, and well, when told to."""
    process = subprocess.Popen(
        [*COMMAND, "serve", "--json", "--port", "0", "--ledger", f"sqlite:///{tmp_path}/t.db", "--log-level", "error"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    with process, process.stdout as lines:
        yield json.loads(lines.readline())["url"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def run(url: str, *arguments: str, operator: bool = True) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    token = Tokens([SECRET.encode()], "ticketrush").mint("someone", ttl_s=60, scope="operator" if operator else "")
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment(TICKETRUSH_URL=url, TICKETRUSH_TOKEN=token),
    )
    return done.returncode, done.stdout, done.stderr


def test_a_sale_from_its_creation_to_its_audit(url: str, tmp_path: Path) -> None:
    code, _, errors = run(url, "sale", "create", "g1", "--item", "second=100,limit=2,price=55300", operator=False)
    assert (code, "ticketrush token mint --operator" in errors) == (1, True)

    for _ in range(2):  # the same sale again is harmless
        code, _, errors = run(url, "sale", "create", "g1", "--item", "second=100,limit=2,price=55300", "--open")
        assert (code, errors) == (0, "")
    for _ in range(2):  # and so is the same stock under the same key
        assert run(url, "sale", "add-stock", "g1", "second", "5", "--key", "more")[0] == 0
    code, shown, _ = run(url, "sale", "show", "g1", "--json", operator=False)
    assert code == 0
    sale = json.loads(shown)
    assert (sale["state"], sale["items"][0]["available"], sale["items"][0]["price_minor"]) == ("open", 105, 55_300)

    code, shown, _ = run(url, "sale", "hash", "g1", "--json", operator=False)
    one = {"ticket_total_nums": 105, "ticket_sold_nums": 0}
    assert (code, json.loads(shown)) == (0, {"ticket_hash_key": one, "ticket_hash_key:second": one})
    assert "ticket_sold_nums" in run(url, "sale", "hash", "g1")[1]

    assert "closed" in run(url, "sale", "close", "g1")[1]
    assert run(url, "sale", "show", "g2")[0] == 1

    for where in (["--url", url], [f"sqlite:///{tmp_path}/t.db"]):
        code, report, errors = run(url, "audit", *where, "--json")
        assert (code, errors) == (0, "")
        assert json.loads(report)["I8"] is True
    locked = run(url, "serve", "--port", "0", "--ledger", f"sqlite:///{tmp_path}/t.db")
    assert locked[0] == 3
    assert "in use by process" in locked[2]
