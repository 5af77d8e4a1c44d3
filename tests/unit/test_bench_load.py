"""The load: what wrk is asked for, what its answer means, and when it is not to be believed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ticketrush.bench.errors import BenchError
from ticketrush.bench.load import Load, counts_of
from ticketrush.bench.target import BODY, ITEM, PATH, Target

GOOD = {
    "requests": 1_000,
    "duration_us": 500_000,
    "bytes": 100_000,
    "refusals": 1_000,
    "connect_errors": 0,
    "read_errors": 0,
    "write_errors": 0,
    "timeouts": 0,
    "latency_us_p50": 1_500,
    "latency_us_p99": 4_000,
    "latency_us_max": 9_000,
}


def output(**changes: int) -> str:
    return f"Running 2s test\n  Latency 1ms\nfigures {json.dumps(GOOD | changes)}\n"


def fake_wrk(folder: Path, script: str) -> str:
    """A program that writes its arguments to the file "arguments" and then runs `script`."""
    program = folder / "wrk"
    program.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\n"
        f"with pathlib.Path({str(folder / 'arguments')!r}).open('a') as file: print(*sys.argv[1:], file=file)\n{script}"
    )
    program.chmod(0o755)
    return str(program)


def test_the_figures_are_found_among_what_wrk_prints() -> None:
    counts = counts_of(output())
    assert (counts.requests, counts.refusals, counts.latency_us_p99) == (1_000, 1_000, 4_000)


def test_output_without_figures_is_an_error_that_shows_it() -> None:
    with pytest.raises(BenchError, match="unable to connect"):
        counts_of("unable to connect to 127.0.0.1:1 Connection refused")


@pytest.mark.parametrize("name", ["connect_errors", "read_errors", "write_errors", "timeouts"])
def test_a_single_failed_connection_fails_the_measurement(name: str) -> None:
    with pytest.raises(BenchError, match=f"1 {name.replace('_', ' ')}"):
        counts_of(output(**{name: 1}))


def test_no_answer_at_all_is_an_error() -> None:
    with pytest.raises(BenchError, match="no answer"):
        counts_of(output(requests=0))


def test_every_run_uses_fresh_keys_and_gives_figures_per_second(tmp_path: Path) -> None:
    load = Load(fake_wrk(tmp_path, f"print({output()!r})"), tmp_path, tmp_path / "tokens", connections=7)
    target = Target("http://127.0.0.1:1", os.getpid())
    counts, measured = load.run(target, 2)
    load.run(target, 2)
    assert counts.requests == 1_000
    assert measured.requests_per_s == pytest.approx(2_000)
    assert (measured.latency_ms_p50, measured.latency_ms_p99) == (1.5, 4.0)
    first, second = ((tmp_path / "arguments").read_text().split("\n"))[:2]
    assert "-t1 -c7 -d2s" in first
    assert f"http://127.0.0.1:1 -- {tmp_path / 'tokens'} {PATH} {ITEM} " in first
    assert first.split()[-2] != second.split()[-2]
    assert first.split()[-1] == "0"  # no pause


def test_a_failing_wrk_is_an_error_with_its_words(tmp_path: Path) -> None:
    load = Load(fake_wrk(tmp_path, "sys.exit('bad script')"), tmp_path, tmp_path / "tokens", connections=7)
    with pytest.raises(BenchError, match="bad script"):
        load.run(Target("http://127.0.0.1:1", os.getpid()), 1)


def test_the_script_is_in_the_package_and_makes_the_body_that_nginx_is_checked_with(tmp_path: Path) -> None:
    Load("wrk", tmp_path, tmp_path / "tokens", connections=1)
    script = (tmp_path / "load.lua").read_text()
    assert """'{"item":"' .. args[3] .. '","quantity":1}'""" in script
    assert BODY.decode() == '{"item":"' + ITEM + '","quantity":1}'
