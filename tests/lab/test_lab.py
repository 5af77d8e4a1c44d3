"""The whole front door sells through its faults: exactly what there is, nothing lost, and within the times promised."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import msgspec
import pytest
import redis

from tests.lab.front import eventually, hear_ctrl_c
from ticketrush import processes
from ticketrush.audit import AuditReport
from ticketrush.lab.lab import home_of_folders
from ticketrush.lab.netns import NAMES, inside
from ticketrush.lab.outcome import Outcome, Promise, exactly_sold, measured
from ticketrush.lab.plan import BUYERS, LEDGER_PORT, LabPlan
from ticketrush.lab.sale import ITEM, SALE, Crowd
from ticketrush.lab.scenarios import MOVES_S, SELLS_S, Run, Scenario, play
from ticketrush.lab.visit import Seen, Visit, address_of

pytestmark = pytest.mark.timeout(360)

COMMAND = (sys.executable, "-m", "ticketrush", "edge", "lab")
CROWD = Crowd(buyers=544, tickets=400, per_second=64)
"""They come for 6.6 s after the fault."""
LANES = 2
"""How many scenarios go on together, beside the other tests of this file: each of them waits most of the time."""


class Plays:
    """The scenarios that are asked for, by LANES commands that go on together, each with its share of them."""

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.folder = folder
        self._lanes = {name: number % LANES for number, name in enumerate(names)}
        self._commands: list[subprocess.Popen[bytes]] = []
        for lane in range(min(LANES, len(names))):
            crowd = [f"--buyers={CROWD.buyers}", f"--tickets={CROWD.tickets}", f"--arrivals={CROWD.per_second}"]
            flags = [f"--scenario={name}" for name in names if self._lanes[name] == lane]
            files = {kind: folder / f"{lane}.{kind}" for kind in ("json", "err", "html")}
            with files["json"].open("wb") as out, files["err"].open("wb") as err:
                command = [*COMMAND, *flags, *crowd, "--json", f"--report={files['html']}"]
                environment = processes.plain_environment()
                self._commands.append(subprocess.Popen(command, env=environment, stdout=out, stderr=err))

    def result(self, name: str) -> Outcome:
        """What came out of it, with what it measured printed; all that it promises must be so."""
        lane = self._lanes[name]
        self._commands[lane].wait(300)
        said = (self.folder / f"{lane}.json").read_bytes()
        assert said, (self.folder / f"{lane}.err").read_text()
        plain = next(one for one in json.loads(said)["scenarios"] if one["name"] == name)
        found = msgspec.convert({key: value for key, value in plain.items() if key != "ok"}, Outcome)
        print(found.figures, found.requests, f"{found.unanswered} tries unanswered")
        broken = [promise.text for promise in found.promises if not promise.holds]
        assert not broken, (broken, found.figures, found.violations, found.odd)
        assert plain["ok"]
        assert html.escape(found.title) in self.page(name)
        return found

    def page(self, name: str) -> str:
        """The report that has that scenario, among others."""
        return (self.folder / f"{self._lanes[name]}.html").read_text()

    def end(self) -> None:
        """End those that go on; they remove what they made."""
        for command in self._commands:
            command.terminate()
        for command in self._commands:
            command.wait(60)


@pytest.fixture(scope="module")
def plays(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plays]:
    """Those that the tests of this run want."""
    ours = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    names = dict.fromkeys(
        item.callspec.params["found"] for item in ours if "found" in item.callspec.params
    )  # each once
    made = Plays([*names], tmp_path_factory.mktemp("plays"))
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def found(plays: Plays, request: pytest.FixtureRequest) -> Outcome:
    """What came out of the scenario."""
    return plays.result(request.param)


def about(name: str) -> pytest.MarkDecorator:
    """The test is about that scenario."""
    return pytest.mark.parametrize("found", [name], indirect=True)


@dataclasses.dataclass
class Planted:
    """A ledger that sells a ticket twice, and loses one that was sold; what the auditor says of each."""

    twice: AuditReport | None = None
    lost: AuditReport | None = None

    def sell_twice(self, run: Run) -> None:
        """The stock has one more than there are."""
        with valkey(run) as client:
            assert client.hincrby(f"ticketrush:{{{SALE}:{ITEM}}}:stock", "available", 1) > 0

    def lose(self, run: Run) -> None:
        """The journal loses its first reservation."""
        events = f"ticketrush:{{{SALE}:0}}:events"
        with valkey(run) as client:
            entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", client.xrange(events))
            first = next(id_ for id_, entry in entries if b"held" in entry[b"events"])
            assert client.xdel(events, first) == 1

    def judge(self, run: Run, seen: Seen, found: AuditReport, _: object) -> list[Promise]:
        self.twice = found
        promises = exactly_sold(found, seen, run.sale.crowd.tickets)
        self.lose(run)
        self.lost = run.sale.audit(seen)
        told = msgspec.structs.replace(seen, lost=["one that a server did not know when its buyer paid"])
        return [
            *promises,
            *exactly_sold(self.lost, seen, run.sale.crowd.tickets),
            *exactly_sold(found, told, run.sale.crowd.tickets),
        ]


@contextlib.contextmanager
def valkey(run: Run) -> Iterator[redis.Redis]:
    """Past all nodes, to the ledger itself."""
    host = run.lab.ledgers[0].host
    with contextlib.closing(redis.Redis(host.address, LEDGER_PORT)) as client:
        with inside(host):
            client.ping()
        yield client


@pytest.mark.usefixtures("plays")  # they start meanwhile
def test_the_canary_a_ticket_sold_twice_and_one_lost_are_found_by_the_lab_s_own_audit() -> None:
    planted = Planted()
    scenario = Scenario("planted", "Planted", LabPlan(), planted.sell_twice, planted.judge)
    crowd = Crowd(buyers=60, tickets=40, per_second=60)

    found = play(scenario, crowd, print)

    assert found.oversold == 1
    assert found.sold == crowd.tickets + 1
    assert not found.audit["I1"]
    assert not found.ok
    assert planted.twice is not None
    assert planted.twice.lost == 0
    assert planted.lost is not None
    assert planted.lost.lost == 1
    assert not planted.lost.I3
    sold, lost, audited = (
        "all 40 tickets are sold, none twice",
        "no acknowledged reservation is lost",
        "the auditor finds I1 to I8 true",
    )
    said = [(promise.text, promise.holds) for promise in found.promises]
    assert said[:3] == [(sold, False), (lost, True), (audited, False)]
    assert said[3:6] == [(sold, False), (lost, False), (audited, False)], "one too many hides one too few"
    assert said[6:9] == [(sold, False), (lost, False), (audited, False)], "a buyer was told that it is lost"


def test_what_was_measured_is_said_in_words() -> None:
    figures = {"rpo_reservations": 0.0, "last_unanswered_s": 0.0, "route_s": 2.906}
    assert measured(figures) == [
        ("2.91 s", "until the router led nobody there any more"),
        ("", "all new requests were answered"),
    ]


def test_each_buyer_has_an_address_and_few_share_one() -> None:
    visit = Visit("", 80, SALE, ITEM, 1_000, 64, b"", "", 0, come_from=BUYERS)
    addresses = Counter(address_of(visit, number) for number in range(visit.buyers))
    assert len(addresses) == 126
    assert max(addresses.values()) == 8
    assert None not in addresses
    assert address_of(visit, 3) == address_of(visit, 3)


# --- what the command leaves -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def started(*flags: str) -> Iterator[subprocess.Popen[str]]:
    """The command; killed with the block, if it has not ended."""
    with subprocess.Popen(
        [*COMMAND, *flags],
        env=processes.plain_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509 - no thread of ours holds a lock here
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def of_lab(pid: int) -> list[str]:
    """The namespaces of the lab of that process."""
    return [name for name in os.listdir(NAMES) if name.startswith(f"ticketrush-{pid}-")]


def folders_of(pid: int) -> list[Path]:
    """The folders of the lab of that process."""
    return list(home_of_folders().glob(f"ticketrush-{pid}-*"))


def running_in(names: list[str]) -> list[int]:
    found: list[int] = []
    for name in names:
        done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
        found += map(int, done.stdout.split())
    return found


def is_selling(process: subprocess.Popen[str]) -> bool:
    """Whether the buyers of that lab come."""
    for pid in running_in(of_lab(process.pid)):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if b"ticketrush.lab.buyers" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
    return False


def wait_for_nodes(process: subprocess.Popen[str]) -> list[int]:
    """The processes of the lab, once there are some on every kind of host."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        names = of_lab(process.pid)
        if any(name.endswith("-balancer-2") for name in names) and len(pids := running_in(names)) >= 12:
            return pids
        time.sleep(0.05)
    raise AssertionError("the lab did not start within 120 s")


def test_ctrl_c_leaves_nothing_when_the_lab_starts_and_when_it_sells() -> None:
    with started("--scenario", "calm") as starting, started("--scenario", "calm") as selling:
        interrupt(starting, wait_for_nodes(starting))
        pids = wait_for_nodes(selling)
        eventually(lambda: is_selling(selling), 30)
        interrupt(selling, pids)


def interrupt(process: subprocess.Popen[str], pids: list[int]) -> None:
    assert len(folders_of(process.pid)) == 1
    pids = [*pids, *running_in(of_lab(process.pid))]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "nothing of the lab is left" in err
    assert of_lab(process.pid) == []
    assert processes.running_of(pids) == []
    assert folders_of(process.pid) == []


def test_what_a_killed_lab_has_left_is_gone_when_the_next_one_has_run(tmp_path: Path) -> None:
    with started("--scenario", "calm") as killed:
        pids = wait_for_nodes(killed)
        killed.kill()
        killed.wait()
        assert of_lab(killed.pid), "the namespaces outlive their lab"
        assert folders_of(killed.pid), "so does its folder"
    report = tmp_path / "lab.html"
    flags = ("--scenario", "calm", "--buyers", "60", "--tickets", "40", "--arrivals", "40", "--json")
    with started(*flags, "--report", str(report)) as following:
        out, err = following.communicate(timeout=200)
    assert following.returncode in {0, 1}, err  # so few connections need not be shared out evenly
    (scenario,) = json.loads(out)["scenarios"]
    assert scenario["sold"] == 40
    assert "The front door, failed on purpose" in report.read_text()
    assert of_lab(killed.pid) == []
    assert folders_of(killed.pid) == []
    assert of_lab(following.pid) == []
    assert processes.running_of(pids) == []


def test_who_may_not_have_a_lab_is_told_why() -> None:
    nobody = ("unshare", "--user")  # who may still read an interpreter in root's home
    done = subprocess.run([*nobody, *COMMAND, "--scenario", "calm"], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "needs root" in done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--scenario", "none"), "there is no scenario 'none'; there are calm, "),
        (("--buyers", "60", "--tickets", "60"), "let more come than there are tickets"),
        (("--buyers", "60", "--tickets", "40", "--scenario", "node"), "come for 0.5 s after the fault"),
        (("--scenario", "calm", "--keep", "/proc/no-such"), "--keep /proc/no-such cannot be made: "),
        (("--scenario", "calm", "--report", "/no-such/page.html"), "/no-such/page.html cannot be written"),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(flags: tuple[str, ...], said: str) -> None:
    with started(*flags) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert said in err


# --- the scenarios, which went on meanwhile --------------------------------------------------------------------------


@about("calm")
def test_nothing_fails_and_everybody_gets_a_share(found: Outcome) -> None:
    assert found.sold == found.paid == found.acknowledged == CROWD.tickets
    assert sum(found.requests["nodes"].values()) >= CROWD.buyers + CROWD.tickets
    assert len(found.requests["proxies"]) == 2


@about("balancer")
def test_the_page_says_when_it_was_what_the_axes_are_and_what_happened_when(plays: Plays, found: Outcome) -> None:
    text = plays.page(found.name)
    assert re.search(rf"{datetime.now(UTC).year}-\d\d-\d\d \d\d:\d\d UTC", text)
    text = text.partition(f"<h2>{found.title}</h2>")[2].partition("</article>")[0]
    assert "Upright: tries that ended, per second. Across: seconds since the first buyer came." in text
    assert len(found.timeline) == 2
    assert re.findall(r'font-weight:700">(\d)</text>', text) == ["1", "2"], (
        "a numbered line in the plot for each moment"
    )
    assert re.findall(r"<li>(?:<b>)?([0-9.]+ s): ", text) == [f"{moment.at_s:.2f} s" for moment in found.timeline]
    for how_long, what in measured(found.figures):
        assert re.search(f">{how_long}</td><td[^>]*>{what}<", text)


@about("balancer")
def test_a_killed_balancer_costs_seconds_and_no_ticket(found: Outcome) -> None:
    assert found.sold == found.paid == CROWD.tickets
    assert 0 < found.figures["route_s"] <= MOVES_S
    assert found.figures["last_unanswered_s"] <= MOVES_S


@about("node")
def test_a_killed_node_is_noticed_and_nobody_hears_of_it(found: Outcome) -> None:
    assert found.sold == found.paid == CROWD.tickets
    assert 0 < found.figures["noticed_s"] <= MOVES_S


@about("nginx")
def test_an_ill_balancer_withdraws_and_comes_back(found: Outcome) -> None:
    assert found.sold == found.paid == CROWD.tickets
    assert found.figures["withdrawn_s"] <= found.figures["route_s"] <= MOVES_S
    assert found.figures["back_s"] > 0


@about("site-replica")
def test_a_lost_site_loses_no_success_that_a_replica_had(found: Outcome) -> None:
    assert found.lost == 0
    assert found.sold == CROWD.tickets
    assert 0 < found.figures["rto_s"] <= SELLS_S


@about("site-memory")
def test_a_lost_site_with_copies_that_come_later_is_measured(found: Outcome) -> None:
    assert 0 < found.figures["rto_s"] <= SELLS_S
    assert found.figures["rpo_reservations"] == found.lost
