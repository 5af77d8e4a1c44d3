"""The buyers, as a process in the clients' host: ``python -m ticketrush.lab.buyers PLAN SEEN``.

PLAN is a file with a `Visit`, SEEN is the file that gets what they `Seen`, both MessagePack. Progress is printed
ten times a second, as lines of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from ticketrush.audit import Told
from ticketrush.crowd.buyers import minter
from ticketrush.lab.visit import Fate, Progress, Seen, Try, Visit, address_of, name_of

PROGRESS_S: Final = 0.1
AGAIN_S: Final = 0.2
"""How long a buyer waits before it asks again, the first time; twice as long each time after that."""

AGAIN_S_MAX: Final = 2.0
"""The longest: a crowd that came back at once would keep a front door that begins to answer from doing so. Nobody
waits here until a hold ends, which an answer may propose, since it may be paid before."""

ODD_MAX: Final = 10
_NOT_NOW: Final = frozenset({429, 503})
_NOBODY_KNOWS: Final = frozenset({502, 504})


Origin = tuple[str, int] | None
"""The address that a connection comes from; None for that of the host."""


class Reply(NamedTuple):
    """An answer; status 0 for none."""

    status: int
    body: bytes
    retry_after_s: float = 0.0

    def word(self, name: str) -> str:
        """A text of the JSON object that it has; "" if it has none."""
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            value = msgspec.json.decode(self.body, type=dict[str, object]).get(name)
            return value if isinstance(value, str) else ""
        return ""


class Buyers:
    """All buyers of one visit."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit
        self.tries: list[Try] = []
        self.told = Told()
        self.lost: list[str] = []
        self.odd: list[str] = []
        self.came = self.sold_out = self.waiting = 0
        self._mint = minter(visit.secret, visit.audience, visit.expires_at_s)
        self._give_up_s = 0.0

    async def run(self, on_progress: Callable[[Progress], None]) -> Seen:
        """Send everybody, and wait until each has a final answer or must give up."""
        began_s = time.monotonic()
        last_s = began_s + self.visit.buyers / self.visit.per_second
        self._give_up_s = last_s + self.visit.give_up_s
        teller = asyncio.create_task(self._tell(on_progress))
        async with asyncio.TaskGroup() as everybody:
            for number in range(self.visit.buyers):
                due_s = began_s + number / self.visit.per_second
                if (early_s := due_s - time.monotonic()) > 0:
                    await asyncio.sleep(early_s)
                self.came += 1
                everybody.create_task(self._buy(number))
        teller.cancel()
        on_progress(self._progress())
        return Seen(
            tries=self.tries,
            told=self.told,
            sold_out=self.sold_out,
            lost=self.lost,
            waiting=self.waiting,
            odd=self.odd,
            began_s=began_s,
            ended_s=time.monotonic(),
        )

    async def _tell(self, on_progress: Callable[[Progress], None]) -> None:
        while True:
            on_progress(self._progress())
            await asyncio.sleep(PROGRESS_S)

    def _progress(self) -> Progress:
        return Progress(time.monotonic(), self.came, len(self.told.acknowledged), len(self.told.paid))

    async def _buy(self, number: int) -> None:
        visit, buyer = self.visit, name_of(self.visit.prefix, number)
        token, key = self._mint(buyer.encode()).decode(), f"{buyer}.0"
        wish = b'{"item":"%b","quantity":1}' % visit.item.encode()
        form = self._form(f"/v1/sales/{visit.sale}/reservations", token, key, wish)
        origin = address_of(visit, number)
        reply = await self._until_final(form, origin, pays=False)
        if reply is None:
            self.waiting += 1
            self.told.unknown.append((buyer, key))
        elif reply.status in {200, 201}:
            made = reply.word("id")
            self.told.acknowledged[made] = (buyer, key, visit.sale, visit.item, 1)
            await self._pay(made, buyer, token, origin)
        elif reply.word("code") == "sold_out":
            self.sold_out += 1
        else:
            self._wonder(f"reservation by {buyer}", reply)

    async def _pay(self, order: str, buyer: str, token: str, origin: Origin) -> None:
        form = self._form(f"/v1/orders/{order}/payment", token, f"{buyer}.pay", b'{"card":"approve"}')
        reply = await self._until_final(form, origin, pays=True)
        if reply is None:
            self.waiting += 1
        elif reply.status == 200:
            self.told.paid.add(order)
        elif reply.word("code") in {"unknown_order", "unknown_reservation"}:
            self.lost.append(order)
        else:
            self._wonder(f"payment of {order}", reply)

    def _wonder(self, asked: str, reply: Reply) -> None:
        if len(self.odd) < ODD_MAX:
            self.odd.append(f"{asked}: {reply.status} {reply.body[:200].decode(errors='replace')}")

    def _form(self, path: str, token: str, key: str, body: bytes) -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {self.visit.host}:{self.visit.port}\r\nconnection: close\r\n"
            f"content-type: application/json\r\nauthorization: Bearer {token}\r\nidempotency-key: {key}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def _until_final(self, form: bytes, origin: Origin, *, pays: bool) -> Reply | None:
        """Send `form` until the answer is final; None if there was none when it was time to give up."""
        again, again_s = False, AGAIN_S
        while time.monotonic() < self._give_up_s:
            at_s = time.monotonic()
            reply = await self._ask(form, origin)
            fate = _fate_of(reply)
            self.tries.append(Try(at_s, time.monotonic() - at_s, pays, fate, again))
            again = True
            if fate in {Fate.DONE, Fate.REFUSED}:
                return reply
            await asyncio.sleep(max(again_s, min(reply.retry_after_s, AGAIN_S_MAX)) * random.uniform(0.5, 1.0))
            again_s = min(2 * again_s, AGAIN_S_MAX)
        return None

    async def _ask(self, form: bytes, origin: Origin) -> Reply:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(self.visit.patience_s):
                reader, writer = await asyncio.open_connection(self.visit.host, self.visit.port, local_addr=origin)
                writer.write(form)
                return _parse(await reader.read())
        except (OSError, TimeoutError):
            return Reply(0, b"")
        finally:
            if writer is not None:
                writer.transport.abort()


def _parse(answer: bytes) -> Reply:
    """An answer that went until the end of its connection; status 0 if it is not whole."""
    head, found, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    if not found or len(body) < int(headers.get(b"content-length", b"0")):
        return Reply(0, b"")
    again = headers.get(b"retry-after", b"")
    return Reply(int(lines[0].split(b" ")[1]), body, float(again) if again.isdigit() else 0.0)


def _fate_of(reply: Reply) -> Fate:
    if reply.status in {200, 201}:
        return Fate.DONE
    if reply.status == 0 or reply.status in _NOBODY_KNOWS:
        return Fate.SILENT
    if reply.status in _NOT_NOW or reply.status == 202 or reply.word("code") == "all_held":
        return Fate.BUSY
    return Fate.REFUSED


def main() -> None:
    """Read the plan, send the buyers, write what they saw."""
    plan, seen = Path(sys.argv[1]), Path(sys.argv[2])
    visit = msgspec.msgpack.decode(plan.read_bytes(), type=Visit)

    def tell(progress: Progress) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(progress) + b"\n")
        sys.stdout.buffer.flush()

    found = asyncio.run(Buyers(visit).run(tell))
    half = seen.with_suffix(".new")
    half.write_bytes(msgspec.msgpack.encode(found))
    half.replace(seen)


if __name__ == "__main__":
    main()
