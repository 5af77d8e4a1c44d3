"""What a machine needs for the lab; elsewhere its tests are left out, which one line at the end says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from tests.left_out import leave_out
from ticketrush.lab.errors import NoLab
from ticketrush.lab.netns import require
from ticketrush.lab.tools import check_all, look_for

_HERE: Final = Path(__file__).parent


@pytest.hookimpl(trylast=True)  # count only what -k and -m have left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests in this folder if no lab can be had here; with ``CI=true`` they fail instead."""
    try:
        require()
        check_all()
        _need_keepalived()
    except NoLab as error:
        ours = {item: str(error) for item in items if _HERE in item.path.parents}
        if os.environ.get("CI") != "true":
            leave_out(config, items, ours)


def _need_keepalived() -> None:
    """For tests of VRRP; the lab itself has none."""
    if look_for("keepalived") is None:
        raise NoLab("tests of balancers need keepalived, not found here: install the package keepalived")
