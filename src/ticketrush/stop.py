"""Ends what a command does on Ctrl-C, SIGTERM or SIGHUP so that nothing is left: no process, no temporary folder.

The signals raise `Stop` in the main thread. What must not be torn apart (a folder is made, a child
is started, both are cleaned away) is done in `postponed`: `Stop` then comes at the end of it.
For a parent that is killed outright, `with_parent` lets Linux end the children.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


class Stop(BaseException):
    """Somebody wants it to end. `signal` is the number of the signal that said so."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class _State:
    """What the handler knows; there is one main thread, so there is one."""

    depth = 0
    arrived = 0


def _handle(number: int, _frame: FrameType | None) -> None:
    if _State.arrived:
        return  # the first one is being obeyed
    _State.arrived = number
    if not _State.depth:
        raise Stop(number)


@contextlib.contextmanager
def by_signals() -> Iterator[None]:
    """Within, the signals raise `Stop`, once. One that is ignored (`nohup`) stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return
    before = {n: old for n in SIGNALS if (old := signal.getsignal(n)) not in {signal.SIG_IGN, None}}
    _State.arrived = 0
    try:
        for number in before:
            signal.signal(number, _handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Within, nothing is interrupted; a signal that came meanwhile raises `Stop` at the end."""
    before = _State.arrived
    _State.depth += 1
    try:
        yield
    finally:
        _State.depth -= 1
    if _State.arrived and not before and not _State.depth:
        raise Stop(_State.arrived)


def with_parent(number: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn`: the child gets signal `number` when this process ends, and no Ctrl-C of its own.

    Elsewhere than on Linux only Ctrl-C is dealt with.
    """
    parent = os.getpid()

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
            if os.getppid() != parent:  # it ended before we could ask to be told
                os._exit(1)

    return prepare
