"""One process that serves: settings in, a running uvicorn out."""

from __future__ import annotations

import math
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Final

import uvicorn
import uvloop
from fastapi import FastAPI

from ticketrush import logs, processes
from ticketrush.admission.tokens import Tokens
from ticketrush.engine import Engine
from ticketrush.errors import LedgerUnavailable, SettingsError
from ticketrush.garbage import collect_rarely
from ticketrush.http.app import create_app
from ticketrush.http.demo import Demo, StatLog
from ticketrush.http.fastlane import FastLane
from ticketrush.http.lane import Limits
from ticketrush.http.protocol import SteadyProtocol
from ticketrush.http.services import Services
from ticketrush.payments.wiring import gateway_of, verifier_of
from ticketrush.settings import Settings, load
from ticketrush.wiring import ledger_of, store_of

BACKLOG: Final = 4_096
"""Connections the system may hold for us while we are busy."""

SEND_BUFFER_BYTES: Final = 64 << 10
"""What the system holds of answers that a client does not read (Linux: twice as much), instead of some 4 MB."""

EXIT_WITHOUT_LEDGER: Final = 3
"""The exit code when the ledger does not answer at the stop; that of any error of the ledger."""

log = logs.get("ticketrush.http")


def build(settings: Settings) -> Services:
    """What `settings` describe, not started yet."""
    settings.check_servable()
    engine = Engine(
        ledger_of(
            settings.ledger,
            durability=settings.durability,
            node=settings.node,
            shards=settings.shards,
            ahead=settings.lease_ahead,
        ),
        queue_max=settings.queue_max,
        batch_max=settings.batch_max,
        patience_s=settings.patience_s,
    )
    secrets = [secret.get_secret_value().encode() for secret in settings.token_secrets]
    tokens = None if settings.open else Tokens(secrets, settings.token_audience)
    stat_log = StatLog(settings.stat_log) if settings.stat_log else None
    demo = Demo(engine, settings.demo, stat_log) if settings.demo is not None else None
    limits = Limits(
        settings.body_max_bytes, settings.header_max_bytes, settings.request_timeout_s, settings.keep_alive_timeout_s
    )
    gateway = gateway_of(settings.payment_gateway)
    if not settings.payment_gateway and tokens is not None:
        log.warning("no_money_moves", advice="payment_gateway is empty: whoever sends the card `approve` has paid")
    webhooks = verifier_of([secret.get_secret_value() for secret in settings.webhook_secrets])
    return Services.of(
        engine,
        gateway,
        tokens,
        webhooks=webhooks,
        limits=limits,
        demo=demo,
        stat_log=stat_log,
        orders=store_of(settings.orders) if settings.orders else None,
    )


def application() -> FastAPI:
    """For other ASGI servers, as ``uvicorn --factory ticketrush.http.server:application``; set by the environment."""
    settings = load()
    logs.configure(settings.log_level, settings.log_format)
    return create_app(build(settings))


def serve(settings: Settings, *, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then answer what was accepted, and return.

    `announce` gets the URL once connections are accepted.

    Raises:
        SettingsError: the address cannot be used.
        JournalError: the journal cannot be used; nothing was written to it.
        LedgerUnavailable: the ledger does not answer at the start.
    """
    services = build(settings)
    processes.allow_connections()
    listener = _listen(settings.host, settings.port)
    config = uvicorn.Config(
        create_app(services, running=True),
        http=FastLane if settings.fast_lane else SteadyProtocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        backlog=BACKLOG,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=max(1, math.ceil(settings.graceful_timeout_s)),
    )
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server = _Server(config, lambda: announce(url))
    server.stop_on_signals()
    try:
        uvloop.run(_run(services, server, listener))
    except LedgerUnavailable as error:
        log.critical("stopped_without_the_ledger", error=str(error))
        if not server.started:
            raise
        # The thread of the hung commit cannot be ended, and would keep the process for ever.
        os._exit(EXIT_WITHOUT_LEDGER)
    finally:
        listener.close()


async def _run(services: Services, server: uvicorn.Server, listener: socket.socket) -> None:
    async with services.running():
        if server.should_exit:
            return
        await server.serve(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # connections inherit it
        listener.bind(address)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise SettingsError(f"cannot listen on {host} port {port}: {why}; choose another --host or --port") from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it serves."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    def stop_on_signals(self) -> None:
        """Note a signal that comes before uvicorn looks after them, such as during a long replay.

        uvicorn also raises the signal again after it has stopped; it has done its work by then.
        """

        def stop(number: int, frame: FrameType | None) -> None:
            self.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            collect_rarely()
            self._started()
