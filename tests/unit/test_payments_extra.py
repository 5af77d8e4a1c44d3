"""What the core does without the extra `payments`: it sells, and says what to install when a gateway is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = "import sys; sys.modules['aiohttp'] = sys.modules['standardwebhooks'] = None; "
SECRET = "whsec_" + "QUJD" * 10


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_core_needs_neither() -> None:
    code = "import ticketrush.cli; from ticketrush.http.server import build; "
    code += "from ticketrush.settings import Settings; build(Settings(open=True, ledger='sqlite:///x.db'))"
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "call",
    [
        "gateway_of('http://127.0.0.1:9000')",
        f"verifier_of(['{SECRET}'])",
        f"serve_test_gateway(0, [], '{SECRET}', habits=None, file='', announce=print)",
    ],
)
def test_what_is_missing_is_named(call: str) -> None:
    done = run(f"from ticketrush.payments.wiring import *; {call}")
    assert "pip install 'ticketrush[payments]'" in done.stderr
