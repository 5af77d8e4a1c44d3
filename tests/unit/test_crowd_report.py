"""The report: its JSON shape, its verdict, its pictures."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from rich.console import Console

from ticketrush.audit import Told, audit
from ticketrush.crowd import history as h
from ticketrush.crowd.buyers import Asked
from ticketrush.crowd.display import Display, summary
from ticketrush.crowd.doom import Kill
from ticketrush.crowd.errors import CrowdError
from ticketrush.crowd.operator import Level, event_of
from ticketrush.crowd.options import RushOptions
from ticketrush.crowd.page import page
from ticketrush.crowd.report import POINTS_MAX, Cluster, RushResult, curves_of, make, moments_of
from ticketrush.crowd.rush import asked_for, of_sale
from ticketrush.crowd.svg import Plot, Series, draw, short, ticks
from ticketrush.events import AnyEvent, Expired, Held, Paid, SaleCreated
from ticketrush.model import Item, Sale

FIELDS = [
    "buyers",
    "tickets",
    "requests",
    "answers",
    "paid",
    "oversold",
    "undersold",
    "lost",
    "unexpected",
    "seconds",
    "requests_per_s",
    "reserve_per_s",
    "latency_ms",
    "server_cpu_us_per_request",
    "server_rss_mb",
    "audit",
    "nodes",
    "killed",
    "extra",
]


def name_of(index: int) -> str:
    return f"c1-{index:09d}"


def held(index: int, at_ms: int = 1_000) -> Held:
    name = name_of(index)
    return Held(at_ms, f"r{index}", "rush", "second", name, 1, f"{name}.0", at_ms + 2_000)


def sale(capacity: int) -> SaleCreated:
    return SaleCreated(0, Sale("rush", (Item("second", capacity, 2),), 0, None, 2_000))


def history(**changes: object) -> h.History:
    answers = [0] * len(h.ANSWERS)
    answers[h.HELD], answers[h.SOLD_OUT], answers[h.PAID] = 2, 7, 2
    base = h.History(
        buyers=9,
        answers=answers,
        told=Told({f"r{i}": (name_of(i), f"{name_of(i)}.0", "rush", "second", 1) for i in range(2)}, {"r0", "r1"}),
        latencies={
            "reservation": h.Latencies({100: 2}, 100),
            "refusal": h.Latencies({10: 7}, 10),
            "payment": h.Latencies({200: 2}, 200),
        },
        seconds=2.0,
        cpu_s=0.001,
        surge_reservations=2,
        surge_s=0.01,
        left_sold_out=7,
        gave_up=0,
        left_waiting=0,
        finished=True,
        samples=[],
        requests=[11],
    )
    return msgspec.structs.replace(base, **changes)


SOLD_OUT: list[AnyEvent] = [sale(2), held(0), held(1), Paid(1_500, "r0", "p0"), Paid(1_600, "r1", "p1")]


ALONE = Cluster(["http://127.0.0.1:1"], [], [])


def result(
    events: list[AnyEvent] = SOLD_OUT,
    of: h.History | None = None,
    *,
    demand: bool = True,
    nodes: int | None = None,
    cluster: Cluster = ALONE,
) -> RushResult:
    saw = of or history()
    audited = audit(events, told=saw.told, asked_for=Asked(1, saw.buyers), demand_exceeds_capacity=demand)
    options = RushOptions(buyers=9, tickets=2, nodes=nodes)
    progress = [h.Progress(0.25 * n, 9, [n * a for a in saw.answers], 100) for n in range(1, 5)]
    report = make(options, saw, audited, (0.0022, 61.23), cluster, demand=demand)
    return RushResult(report, moments_of(events, 2), progress, curves_of(saw))


TWO = ["http://127.0.0.1:1", "http://127.0.0.1:2"]


def test_killed_nodes_are_named_everywhere() -> None:
    killed = Cluster(TWO, [Kill(node=1, at_s=1.5, paid=1)], [])
    done = result(of=history(requests=[7, 4]), nodes=2, cluster=killed)

    got: dict[str, Any] = msgspec.json.decode(done.to_json())
    assert got["nodes"] == [
        {"url": TWO[0], "killed": False, "requests": 7},
        {"url": TWO[1], "killed": True, "requests": 4},
    ]
    assert got["killed"] == 1
    assert got["extra"]["kills"] == [{"node": 1, "at_s": 1.5, "paid": 1}]
    assert done.ok, "a node that was killed on purpose is no failure"
    assert "killed after 1.5 s, with 1 ticket paid" in page(done)
    shown = text_of(done)
    assert re.search(r"node-2 +http://127.0.0.1:2 +4 requests +killed", shown)
    assert "nodes and Valkey CPU" in shown


def test_a_node_that_died_by_itself_is_not_well() -> None:
    died = Cluster(TWO, [], ["the rush's own node-1 (pid 1) ended with exit code 3:\nno memory"])
    done = result(of=history(requests=[7, 4]), nodes=2, cluster=died)

    assert not done.ok
    assert "no memory" in text_of(done)
    assert "no memory" in page(done)


def text_of(done: RushResult) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(summary(done))
    return out.getvalue()


def test_the_json_has_the_promised_fields_and_all_others_under_extra() -> None:
    got: dict[str, Any] = msgspec.json.decode(result().to_json())
    assert list(got) == FIELDS
    assert list(got["answers"]) == ["held", "sold_out", "all_held", "purchase_limit", "replayed", "error"]
    assert list(got["latency_ms"]) == ["p50", "p99", "p999", "max"]
    assert got["audit"] == {f"I{number}": True for number in range(1, 9)}
    assert (got["buyers"], got["tickets"], got["paid"]) == (9, 2, 2)
    assert (got["oversold"], got["undersold"], got["lost"], got["unexpected"]) == (0, 0, 0, 0)
    assert (got["requests_per_s"], got["reserve_per_s"]) == (6, 200)
    assert (got["server_cpu_us_per_request"], got["server_rss_mb"]) == (200.0, 61.2)
    assert got["latency_ms"]["max"] == 0.2


def test_requests_are_the_sum_of_all_answers() -> None:
    report = result().report
    others = sum(report.extra.payments.values()) + report.extra.busy + report.extra.unknown
    assert report.requests == sum(report.answers.values()) + others == 11


def test_all_is_well_only_if_everything_is() -> None:
    assert result().ok


def with_error(answer: int) -> h.History:
    answers = history().answers
    answers[answer] = 1
    return history(answers=answers)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (result(of=history(finished=False)), "finished"),
        (result(of=with_error(h.ERROR)), "answers"),
        (result(of=with_error(h.PAYMENT_ERROR)), "payments"),
        (result(SOLD_OUT[:-1]), "undersold"),  # told paid, wanted, and not sold
        (result([*SOLD_OUT, held(2)]), "oversold"),
        (result([*SOLD_OUT[:2], *SOLD_OUT[3:4]]), "lost"),
        (result([sale(3), *SOLD_OUT[1:], held(77)], demand=False), "unexpected"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_fault_of_any_kind_is_not_well(wrong: RushResult, field: str) -> None:
    assert not wrong.ok
    if field in {"undersold", "oversold", "lost", "unexpected"}:
        assert getattr(wrong.report, field) > 0
    text = page(wrong)
    assert "Not all is well" in text
    assert "not one too many" not in text


def test_tickets_left_over_are_no_fault_when_nobody_wants_them() -> None:
    events: list[AnyEvent] = [sale(2), held(0), Paid(1_500, "r0", "p0")]
    told = Told({"r0": (name_of(0), f"{name_of(0)}.0", "rush", "second", 1)}, {"r0"})
    fine = result(events, history(told=told, left_sold_out=0, buyers=1), demand=False)
    assert fine.ok
    assert fine.report.undersold == 0
    assert "I7" in fine.report.extra.vacuous
    said, text = shown(fine), page(fine)
    assert "All is well. 1 of 2 tickets sold: the crowd wanted no more." in said
    assert "nothing to check it with" in said
    check_claims_only_what_was_checked(said, text)


def test_tickets_nobody_paid_for_are_told_and_are_not_well_though_nothing_is_broken() -> None:
    events: list[AnyEvent] = [sale(2), held(0), held(1), Expired(3_000, "r0"), Expired(3_000, "r1")]
    told = Told(history().told.acknowledged, set())
    unpaid = result(events, history(told=told, left_sold_out=0), demand=False)
    assert not unpaid.ok
    assert unpaid.report.extra.outcome == "unpaid"
    said, text = shown(unpaid), page(unpaid)
    assert "Nothing was broken, but 0 of 2 tickets are paid: nobody paid." in said
    assert "Nothing was broken, but 0 of 2 tickets are paid: nobody paid." in text
    assert "sold again" not in text.split("<h1>")[1].split("</header>")[0]
    check_claims_only_what_was_checked(said, text)


def shown(of: RushResult) -> str:
    """What the terminal says."""
    out = io.StringIO()
    Console(file=out, width=200).print(summary(of))
    return out.getvalue()


def check_claims_only_what_was_checked(said: str, text: str) -> None:
    assert "not one too few" not in said + text
    assert "All eight audits hold" not in text
    assert "had nothing to check" in text
    assert "left over though wanted" not in text
    assert "Not checked, for there was nothing to check it with. The promise: While somebody" in text


def test_moments_show_the_stock_after_each_event_and_never_too_many() -> None:
    events: list[AnyEvent] = [sale(2), held(0), held(1), Expired(3_000, "r0"), Paid(3_500, "r1", "p"), held(2, 4_000)]
    moments = moments_of(events, 2)
    assert moments[0] == type(moments[0])(0.0, 2, 0, 0, 0, 0, 0, 0)
    assert moments[-1] == type(moments[0])(3.0, 0, 1, 1, 3, 1, 1, 0)
    assert all(moment.available + moment.held + moment.sold == 2 for moment in moments)
    assert len(moments) <= POINTS_MAX + 1
    assert [moment.at_s for moment in moments] == sorted(moment.at_s for moment in moments)
    assert moments_of([sale(2)], 2) == []


def test_events_come_back_from_the_wire_as_they_were() -> None:
    for event in [*SOLD_OUT, Expired(9, "r9")]:
        fields = {name: msgspec.to_builtins(getattr(event, name)) for name in event.__struct_fields__}
        assert event_of({"seq": 1, "type": event.__struct_config__.tag, **fields}) == event
    with pytest.raises(CrowdError, match="unknown type 'melted'"):
        event_of({"seq": 1, "type": "melted"})
    with pytest.raises(CrowdError, match="cannot be read"):
        event_of({"seq": 1, "type": "paid", "price": 3})


class Links(HTMLParser):
    """Collects what a page would fetch, and checks that tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.plots: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [str(value) for name, value in attrs if name in {"src", "href", "srcset"}]
        self.plots += [str(value) for name, value in attrs if name == "data-plot"]
        if tag not in {"meta", "line", "path"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"line", "path"}:
            assert self.open.pop() == tag


def test_the_page_is_whole_needs_nothing_else_and_has_its_plots() -> None:
    text = page(result())
    links = Links()
    links.feed(text)
    assert links.open == []
    assert links.fetched == []
    assert not re.search(r"@import|url\(|https?://", text)
    assert len(links.plots) == 4
    for plot in links.plots:
        data = msgspec.json.decode(plot)
        assert all(len(row["values"]) == len(data["x"]) == len(data["names"]) for row in data["rows"])
    assert "2 tickets sold to a crowd of 9: not one too many, not one too few." in text
    assert "$" not in re.sub(r"`var\(--c-\$\{color\}\)`", "", text)


def test_the_page_escapes_what_the_server_said() -> None:
    sample = h.Sample("reservation of 1 by c1-000000001", 500, "<script>alert(1)</script>")
    assert "<script>alert" not in page(result(of=history(samples=[sample])))


def test_the_page_of_a_rush_in_which_nothing_happened_can_be_drawn() -> None:
    empty = history(answers=[0] * len(h.ANSWERS), told=Told(), latencies={"refusal": h.Latencies({}, 0)}, buyers=0)
    assert "Nothing happened." in page(result([sale(2)], empty, demand=False))


def test_the_summary_says_the_verdict_and_the_figures() -> None:
    out = io.StringIO()
    Console(file=out, width=120).print(summary(result()))
    assert "All is well" in out.getvalue()
    assert "I8 ✓" in out.getvalue() or "I8 –" in out.getvalue()
    out = io.StringIO()
    Console(file=out, width=200).print(summary(result(of=history(finished=False))))
    assert "NOT WELL" in out.getvalue()
    assert "time limit" in out.getvalue()


def test_progress_is_a_few_plain_lines_where_nobody_watches() -> None:
    out = io.StringIO()
    with Display(100, 10, Console(file=out, width=200)) as display:
        assert not display.live
        for number in range(48):
            display.show(h.Progress(number / 4, number, [number] * len(h.ANSWERS), 1_000), None)
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "20 of 100 buyers" in lines[1]
    assert "requests/s" in lines[1]
    assert "p99 1.0 ms" in lines[1]


def test_progress_says_what_is_waited_for_when_nothing_is_asked() -> None:
    out = io.StringIO()
    with Display(100, 10, Console(file=out, width=200)) as display:
        for at_s in (6.0, 12.0):
            display.show(h.Progress(at_s, 100, [5] * len(h.ANSWERS), 0), Level(10, 0, 7, 3))
    last = out.getvalue().splitlines()[-1]
    assert "waiting for 7 holds to be paid or to end" in last
    assert "requests/s" not in last
    assert "p99" not in last


def test_progress_is_drawn_on_a_terminal() -> None:
    out = io.StringIO()
    with Display(100, 10, Console(file=out, width=100, force_terminal=True)) as display:
        assert display.live
        display.show(h.Progress(1.0, 50, [5] * len(h.ANSWERS), 1_500), None)
    assert "50 of 100" in out.getvalue()


@pytest.mark.parametrize("largest", [0, 0.3, 1, 7, 99, 100, 101, 12_345, 10**7])
def test_ticks_are_few_round_and_reach_the_top(largest: float) -> None:
    marks = ticks(largest)
    assert marks[0] == 0
    assert marks[-1] >= largest
    assert 2 <= len(marks) <= 7
    assert [short(value) for value in (0, 950, 1_500, 12_000, 2_500_000)] == ["0", "950", "1.5k", "12k", "2.5M"]


@pytest.mark.parametrize("log", [False, True])
def test_a_plot_of_nothing_but_zeros_can_be_drawn(log: bool) -> None:
    plot = Plot("x", [0.0, 1.0], [], str, [Series("a", "blue", [0.0, 0.0])], str, log=log)
    assert draw(plot).startswith("<svg")


def test_a_late_payer_asked_for_the_reservation_that_replaces_the_lost_one_and_nobody_else_did() -> None:
    asked = asked_for(history(), seed=1)
    assert asked(name_of(0), f"{name_of(0)}.0")
    assert asked(name_of(0), "late payment of r0")
    assert not asked(name_of(1), "late payment of r0")
    assert not asked(name_of(0), "late payment of r77")


def test_the_events_of_one_sale_are_told_from_those_of_others() -> None:
    other = Sale("other", (Item("second", 2, 2),), 0, None, 2_000)
    foreign = Held(1_000, "x0", "other", "second", "alice", 1, "k", 3_000)
    mixed: list[AnyEvent] = [SaleCreated(0, other), *SOLD_OUT[:2], foreign, Paid(1_200, "x0", "q"), *SOLD_OUT[2:]]
    assert of_sale(mixed, "rush") == SOLD_OUT
