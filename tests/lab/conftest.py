"""What a machine needs for the lab; elsewhere its tests are left out, which one line at the end says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from ticketrush.lab.errors import NoLab
from ticketrush.lab.netns import require
from ticketrush.lab.tools import check_all, look_for

_WHY: Final = pytest.StashKey[str]()
_COUNT: Final = pytest.StashKey[int]()
_HERE: Final = Path(__file__).parent


@pytest.hookimpl(trylast=True)  # count only what -k and -m have left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests in this folder if no lab can be had here; with ``CI=true`` they fail instead."""
    try:
        require()
        check_all()
        _need_keepalived()
    except NoLab as error:
        ours = [item for item in items if _HERE in item.path.parents]
        if ours and os.environ.get("CI") != "true":
            config.stash[_WHY], config.stash[_COUNT] = str(error), len(ours)
            config.hook.pytest_deselected(items=ours)
            items[:] = [item for item in items if item not in ours]


def _need_keepalived() -> None:
    """For tests of VRRP; the lab itself has none."""
    if look_for("keepalived") is None:
        raise NoLab("tests of balancers need keepalived, not found here: install the package keepalived")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say at the end what was left out, and why."""
    if why := config.stash.get(_WHY, ""):
        count = config.stash[_COUNT]
        terminalreporter.write_line(f"{count} {'test was' if count == 1 else 'tests were'} left out: {why}")
