"""One thread for blocking work, in order, with results on the event loop.

It does less than a `ThreadPoolExecutor`, for the sake of the commit path: a job and its result each
cost one hand-over between threads. The thread is a daemon: a disk that hangs cannot keep the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Worker:
    """Runs calls one after the other in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_R]:
        """What `function` returns or raises, as a future of the running loop.

        Cancelling the future does not stop the function.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_R] = loop.create_future()

        def job() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - it is raised where the future is awaited
                _tell(loop, _fail, future, error)
            else:
                _tell(loop, _succeed, future, result)

        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)
        return future

    def stop(self) -> None:
        """End the thread when it has done what was asked before. May be called twice."""
        if self._thread is not None:
            self._thread = None
            self._jobs.put(None)

    def _run(self) -> None:
        get = self._jobs.get
        while (job := get()) is not None:
            job()


def _tell(loop: asyncio.AbstractEventLoop, how: Callable[..., None], future: asyncio.Future[_R], what: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
        loop.call_soon_threadsafe(how, future, what)


def _succeed(future: asyncio.Future[_R], result: _R) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[_R], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
