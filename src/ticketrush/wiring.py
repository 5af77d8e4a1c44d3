"""Which backend a URL names: the one place below the command line that knows them."""

from __future__ import annotations

from ticketrush.errors import SettingsError
from ticketrush.ledger.embedded import EmbeddedLedger
from ticketrush.ledger.protocol import Ledger

_SQLITE = "sqlite:///"


def ledger_of(url: str, *, durability: str = "fsync") -> Ledger:
    """The ledger at `url`: ``sqlite:///FILE``, or ``sqlite:////FILE`` for a path from the root.

    Raises:
        SettingsError: no backend has such URLs.
    """
    path = url.removeprefix(_SQLITE)
    if path == url or not path.strip("/"):
        raise SettingsError(f"ledger {url!r}: write sqlite:///FILE, or sqlite:////FILE for a path from the root")
    if durability not in {"fsync", "memory"}:
        raise SettingsError(f"durability {durability!r}: write fsync or memory")
    return EmbeddedLedger(path, durability=durability)
