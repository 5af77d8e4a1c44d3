"""The practical limit: one nginx worker that gives the same answer to the same requests, and does nothing else."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final

from ticketrush.bench.client import Answer, Connection
from ticketrush.bench.errors import BenchError
from ticketrush.bench.target import BODY, PATH, Target
from ticketrush.processes import Child, child

START_S: Final = 10


@contextlib.contextmanager
def limit(nginx: str, folder: Path, answer: Answer) -> Iterator[Target]:
    """nginx in `folder` that answers every request with the status, type and length of `answer`.

    Raises:
        BenchError: nginx does not start, or does not answer as it should.
    """
    with contextlib.ExitStack() as stack:
        target = _start(nginx, folder, answer, stack)
        _check(target, answer)
        yield target


def _start(nginx: str, folder: Path, answer: Answer, stack: contextlib.ExitStack) -> Target:
    """nginx on a free port, on another one if somebody takes it in between; `stack` ends it."""
    attempts = 3
    while True:
        port = _free_port()
        configuration = folder / "nginx.conf"
        configuration.write_text(config(port, answer))
        command = [nginx, "-p", f"{folder}/", "-c", str(configuration)]
        process = stack.enter_context(child("nginx", command, folder))
        if _accepts(process, port):
            return Target(f"http://127.0.0.1:{port}", process.process.pid)
        attempts -= 1
        if not attempts or "in use" not in process.words():
            raise BenchError(f"nginx does not start: {process.words()}")


def config(port: int, answer: Answer) -> str:
    """The nginx configuration that imitates `answer`: a JSON body of the same length."""
    template = resources.files("ticketrush.bench").joinpath("nginx.conf.in").read_text("utf-8")
    values = {
        "PORT": str(port),
        "STATUS": str(answer.status),
        "CONTENT_TYPE": answer.headers.get("content-type", "application/json"),
        "BODY": filler(len(answer.body)),
    }
    for name, value in values.items():
        template = template.replace(f"@{name}@", value)
    return template


def filler(length: int) -> str:
    """A JSON text of `length` characters without anything that nginx would expand."""
    return '"' + "x" * max(0, length - 2) + '"'


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _accepts(process: Child, port: int) -> bool:
    give_up_s = time.monotonic() + START_S
    while not process.ended and time.monotonic() < give_up_s:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        time.sleep(0.01)
    return False


def _check(target: Target, answer: Answer) -> None:
    """Two requests on one connection: the answer is the one asked for, and the connection stays."""
    with Connection(target.url) as connection:
        for _ in range(2):
            got = connection.ask("POST", PATH, BODY, {"Authorization": "Bearer -", "Idempotency-Key": "-"})
            wanted = (answer.status, len(answer.body))
            if (got.status, len(got.body)) != wanted:
                raise BenchError(f"nginx answers {got.status} with {len(got.body)} bytes instead of {wanted}")
