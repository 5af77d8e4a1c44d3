"""What flows into a connection: how much is read, and what of it the connection gets to see."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from uvicorn.protocols.http.flow_control import FlowControl

if TYPE_CHECKING:
    from ticketrush.http.protocol import SteadyProtocol


class Flow(FlowControl):
    """Reads on only when nothing waits on the connection: neither requests nor answers."""

    def __init__(self, transport: asyncio.Transport, protocol: SteadyProtocol) -> None:
        super().__init__(transport)
        self._protocol = protocol

    def resume_reading(self) -> None:
        if self.write_paused or self._protocol.pipeline:
            return
        if self._protocol.held:
            self._protocol.feed_soon()
        else:
            super().resume_reading()


class Body:
    """Hands the body of a connection's last request on, and nothing that comes after it."""

    def __init__(self, protocol: SteadyProtocol) -> None:
        self._protocol = protocol

    def on_body(self, body: bytes) -> None:
        if not self._protocol.doomed:
            self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        if not self._protocol.doomed:
            self._protocol.on_message_complete()
            self._protocol.doomed = True
