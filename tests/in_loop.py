"""Tests that are coroutines."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import ParamSpec

_P = ParamSpec("_P")


def in_loop(test: Callable[_P, Coroutine[None, None, None]]) -> Callable[_P, None]:
    """The test, run in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run
