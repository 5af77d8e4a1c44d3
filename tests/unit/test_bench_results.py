"""What the bench makes of its measurements: medians, ratios, targets, JSON, and the page of figures."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from scripts import bench_figures
from ticketrush.bench import BenchOptions, BenchResult, report
from ticketrush.bench.machine import Machine
from ticketrush.bench.result import BackOffice, Lone, Measured, Replay, Results, Round, ratios, targets
from ticketrush.bench.rounds import warnings
from ticketrush.bench.visible import Visible

MACHINE = Machine("0.1.0", "a processor", 2, "CPython 3.11", "6.1", "nginx/1.22", "wrk 4.1", "ext4")


def one_round(requests_per_s: float, *, p99: float = 2.0, others: float = 0.0) -> Round:
    return Round(requests_per_s, 1.0, p99, 9.0, 12.5, 0.9, 1.0, others)


def case(*requests_per_s: float, p99: float = 2.0, others: float = 0.0) -> Measured:
    return Measured.of([one_round(each, p99=p99, others=others) for each in requests_per_s])


REDIS = Measured.of([msgspec.structs.replace(one_round(42.0), ledger_calls_per_request=0.02)] * 3)
RESULTS = Results(
    limit_sold_out=case(100.0, 50.0, 200.0),
    sold_out=case(80.0, 30.0, 150.0),
    limit_reserve=case(100.0, 50.0, 200.0),
    reserve_durable=case(50.0, 20.0, 90.0, p99=7.0),
    reserve_durable_plain_asgi=case(10.0, 10.0, 10.0),
    lone_request=Lone(2_000, 0.5, 0.9, 0.25, 0.4),
    replay=Replay(1_000_000, 4.5, 120.0, 600.0),
    reserve_durable_with_worker=case(40.0, 16.0, 72.0),
    back_office=BackOffice(40_000.0, 15_000.0, 3_000.0, Visible(100, 40.0, 200.0, 210.0, 25.0)),
    sold_out_edge=case(60.0, 30.0, 120.0),
    sold_out_redis=case(80.0, 30.0, 150.0),
    reserve_redis=Measured(REDIS.median, case(42.0, 21.0, 84.0).rounds),
    reserve_redis_fsync=case(28.0, 14.0, 56.0),
)


def result(results: Results = RESULTS, options: BenchOptions | None = None) -> BenchResult:
    against = ratios(results)
    notes = tuple(warnings(MACHINE, results))
    return BenchResult(MACHINE, options or BenchOptions(), results, against, targets(results, against), notes)


def test_a_figure_is_the_median_of_its_rounds_and_the_rounds_are_kept() -> None:
    measured = case(100.0, 50.0, 200.0)
    assert measured.median.requests_per_s == 100.0
    assert [each.requests_per_s for each in measured.rounds] == [100.0, 50.0, 200.0]


def test_a_ratio_is_taken_within_a_round_before_the_median() -> None:
    # 80/100, 30/50, 150/200: the middle one is 0.75, while the medians' ratio would be 0.80.
    assert ratios(RESULTS).sold_out == pytest.approx(0.75)
    assert ratios(RESULTS).reserve_durable == pytest.approx(0.45)
    assert ratios(RESULTS).reserve_durable_plain_asgi == pytest.approx(0.1)


def test_a_case_and_a_limit_with_different_numbers_of_rounds_are_a_bug() -> None:
    with pytest.raises(ValueError, match=r"zip\(\)"):
        ratios(msgspec.structs.replace(RESULTS, sold_out=case(80.0)))


def test_targets_are_met_at_their_bound_and_missed_beyond_it() -> None:
    assert all(goal.met for goal in targets(RESULTS, ratios(RESULTS)).values())
    worse = msgspec.structs.replace(
        RESULTS,
        sold_out=case(74.0, 37.0, 148.0),
        reserve_durable=case(44.0, 22.0, 88.0, p99=10.1),
        lone_request=Lone(2_000, 1.26, 2.0, 0.25, 0.4),
        replay=Replay(1_000_000, 10.1, 120.0, 600.0),
        reserve_durable_with_worker=case(34.0, 15.0, 70.0),
        back_office=BackOffice(39_999.0, 14_999.0, 2_999.0, Visible(100, 40.0, 200.1, 210.0, 25.0)),
        sold_out_edge=case(59.0, 29.0, 119.0),
        sold_out_redis=Measured.of([msgspec.structs.replace(one_round(80.0), decisions_per_request=1e-6)] * 3),
        reserve_redis=Measured.of([msgspec.structs.replace(one_round(41.0), ledger_calls_per_request=0.06)] * 3),
        reserve_redis_fsync=case(27.0, 13.0, 55.0),
    )
    missed = targets(worse, ratios(worse))
    assert {name for name, goal in missed.items() if not goal.met} == set(missed)
    assert not result(worse).all_met
    assert result().all_met


def test_a_lone_request_may_take_a_millisecond_beyond_one_sync() -> None:
    assert targets(RESULTS, ratios(RESULTS))["lone_request_p50"].bound == pytest.approx(1.25)


def test_the_json_has_the_agreed_names_and_comes_back_as_it_was() -> None:
    made = result(options=BenchOptions(folder=Path("elsewhere")))
    plain = json.loads(made.to_json())
    assert set(plain) == {"machine", "options", "results", "ratios", "targets", "warnings"}
    assert plain["ratios"] == {
        "sold_out": 0.75,
        "reserve_durable": 0.45,
        "reserve_durable_plain_asgi": 0.1,
        "reserve_durable_with_worker": 0.36,
        "sold_out_edge": 0.6,
        "sold_out_redis": 0.75,
        "reserve_redis": 0.42,
        "reserve_redis_fsync": 0.28,
        "reserve_redis_local_stock_off": None,
        "reserve_redis_shards_2": None,
        "reserve_redis_shards_4": None,
    }
    assert plain["targets"]["sold_out"]["met"] is True
    assert len(plain["results"]["reserve_durable"]["rounds"]) == 3
    assert BenchResult.from_json(made.to_json()) == made


def test_without_a_valkey_its_targets_are_left_out_and_the_report_is_the_rest(tmp_path: Path) -> None:
    alone = result(msgspec.structs.replace(RESULTS, sold_out_redis=None, reserve_redis=None, reserve_redis_fsync=None))
    assert set(alone.targets) == {name for name in result().targets if "redis" not in name}
    assert BenchResult.from_json(alone.to_json()) == alone
    assert "Valkey" not in bench_figures.figures(alone)
    out = io.StringIO()
    Console(file=out, width=80).print(report(alone))
    assert "Valkey" not in out.getvalue()


def test_a_sold_out_answer_that_once_asked_redis_is_seen_though_the_median_is_zero() -> None:
    one = msgspec.structs.replace(one_round(80.0), decisions_per_request=1e-5)
    results = msgspec.structs.replace(RESULTS, sold_out_redis=Measured.of([one_round(80.0), one_round(80.0), one]))
    assert not targets(results, ratios(results))["redis_calls_per_sold_out"].met


def test_memory_file_systems_and_busy_neighbours_are_warned_of() -> None:
    assert not list(warnings(MACHINE, RESULTS))
    in_memory = msgspec.structs.replace(MACHINE, filesystem="tmpfs", cores=1)
    disturbed = msgspec.structs.replace(RESULTS, sold_out=case(80.0, 30.0, 150.0, others=0.5))
    text = "\n".join(warnings(in_memory, disturbed))
    assert "tmpfs" in text
    assert "one processor" in text
    assert "sold_out: other programs kept 0.50" in text


def test_the_report_fits_a_terminal_of_80_columns_and_says_what_is_missed() -> None:
    worse = msgspec.structs.replace(RESULTS, replay=Replay(1_000_000, 11.0, 120.0, 600.0))
    out = io.StringIO()
    Console(file=out, width=80).print(report(result(worse)))
    assert "…" not in out.getvalue()
    assert "durable" in out.getvalue()
    assert "no stock" not in out.getvalue()
    assert "no" in out.getvalue().split("replay")[-1].splitlines()[0]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(BenchOptions) if field.type == "int"])
def test_options_below_one_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(BenchOptions(), **{field: 0})  # type: ignore[arg-type]


def test_a_quick_run_is_one_round_of_two_seconds() -> None:
    assert (BenchOptions.quick().rounds, BenchOptions.quick().seconds) == (1, 2)
    assert (BenchOptions().rounds, BenchOptions().seconds) == (3, 4)


def test_the_page_gets_the_figures_of_the_json_and_keeps_the_rest(tmp_path: Path) -> None:
    page, source = tmp_path / "page.md", tmp_path / "bench.json"
    page.write_text(f"before\n\n{bench_figures.BEGIN}\nstale figures\n{bench_figures.END}\n\nafter\n")
    source.write_bytes(result().to_json())
    bench_figures.main(str(source), str(page))
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    assert "| **durable reservation** | 50 | 0.45 | 1.00 | 7.00 |" in text
    assert "| **reservation** | 42 | 0.42 | 1.00 | 2.00 | 12.5 + 0.0 | 0.0200 |" in text
    bench_figures.main(str(source), str(page))
    assert page.read_text() == text


def test_a_page_without_both_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="once each"):
        bench_figures.with_figures(f"only {bench_figures.BEGIN}", "figures")


def test_the_page_of_this_project_has_the_markers() -> None:
    page = Path(__file__).parents[2] / "docs" / "performance.md"
    assert "| x |" in bench_figures.with_figures(page.read_text("utf-8"), "| x |")


def test_every_target_has_a_title_on_the_page() -> None:
    assert set(targets(RESULTS, ratios(RESULTS))) == set(bench_figures.TARGETS)
