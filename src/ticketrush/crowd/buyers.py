"""Who the buyers are and what they do: all of it a pure function of the seed.

Buyer number i has the name ``c<seed>-<i>``, and the key of its n-th wish is its name and ``.n``.
So whether a reservation in the ledger was asked for (I4) is decided by arithmetic, not by a set
of a million names, and two runs with the same seed send the same people.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from array import array
from collections.abc import Callable
from typing import Final

import msgspec

ABANDONS: Final = 1
"""Wins and never pays; the hold expires and the unit is sold again."""
REPEATS: Final = 2
"""Sends the same request twice."""
REPEATS_AT_ONCE: Final = 4
"""... the second one on another connection without waiting, else directly after the answer."""
CUTS: Final = 8
"""Closes the connection before the answer arrives, and asks again with the same key."""
CUTS_HALFWAY: Final = 16
"""... in the middle of the request, else after all of it."""
BREAKS_LIMIT: Final = 32
"""After a success asks for more than the purchase limit leaves, with a new key."""

WISHES_MAX: Final = 2
"""Different keys one buyer may use: the wish itself and an attempt to break the limit."""

INDEX_MAX: Final = 10**9 - 1
_BLOCK: Final = 256
_WORD: Final = 1 << 32


Mint = Callable[[bytes], bytes]
"""Makes the token of a subject."""


class Shares(msgspec.Struct, frozen=True):
    """Which share of the buyers behaves in which way, 0 to 1 each."""

    abandon: float = 0.20
    duplicates: float = 0.01
    cuts: float = 0.001
    breakers: float = 0.005


class Buyers:
    """The buyers of one seed: names, keys and manners."""

    __slots__ = ("_block", "_manners", "_name", "_thresholds", "seed")

    def __init__(self, seed: int, shares: Shares) -> None:
        self.seed = seed
        self._thresholds = tuple(
            int(share * _WORD) for share in (shares.abandon, shares.duplicates, shares.cuts, shares.breakers)
        )
        self._name = b"c%d-" % seed + b"%09d"
        self._block = -1
        self._manners = b""

    def name(self, index: int) -> bytes:
        """The buyer id of buyer `index`."""
        return self._name % index

    def key(self, index: int, wish: int) -> bytes:
        """The idempotency key of the buyer's n-th wish."""
        return self._name % index + b".%d" % wish

    def manners(self, index: int) -> int:
        """What buyer `index` does: a sum of the constants above, mostly 0."""
        block, offset = divmod(index, _BLOCK)
        if block != self._block:
            self._manners = self._draw(block)
            self._block = block
        return self._manners[offset]

    def fraction(self, index: int) -> float:
        """A number from 0 to 1 that belongs to buyer `index`, for waiting times."""
        digest = hashlib.blake2b(self._name % index, digest_size=4).digest()
        return int.from_bytes(digest, "big") / _WORD

    def _draw(self, block: int) -> bytes:
        words = array("I", random.Random(f"{self.seed}/{block}").randbytes(16 * _BLOCK))
        abandon, duplicates, cuts, breakers = self._thresholds
        drawn = bytearray(_BLOCK)
        for offset in range(_BLOCK):
            first, second, third, fourth = words[4 * offset : 4 * offset + 4]
            manners = ABANDONS if first < abandon else 0
            if second < duplicates:
                manners |= REPEATS | (REPEATS_AT_ONCE if second & 1 else 0)
            if third < cuts:
                manners |= CUTS | (CUTS_HALFWAY if third & 1 else 0)
            if fourth < breakers:
                manners |= BREAKS_LIMIT
            drawn[offset] = manners
        return bytes(drawn)


class Asked(msgspec.Struct, frozen=True):
    """Recognises what the crowd asked for: the buyers numbered below `count` of one seed."""

    seed: int
    count: int

    def __call__(self, buyer: str, key: str) -> bool:
        """Whether `buyer` may have asked for something under `key`."""
        match = re.fullmatch(r"c(\d+)-(\d{9,})", buyer)
        if not match or int(match[1]) != self.seed or int(match[2]) >= self.count:
            return False
        name, _, wish = key.rpartition(".")
        return name == buyer and wish in {str(number) for number in range(WISHES_MAX)}


def minter(secret: bytes, audience: str, expires_at_s: int, extra: dict[str, str] | None = None) -> Mint:
    """A function that makes a buyer's HS256 token (RFC 7519) in about two microseconds.

    All but the subject is the same for every buyer, so the header and the start of the claims are
    encoded once (padded with spaces to whole base64 groups), and so is the start of the HMAC
    (RFC 2104). The subject must be letters, digits, ``-`` and ``.``.
    """
    claims = json.dumps({**(extra or {}), "aud": audience, "exp": expires_at_s, "sub": ""}, separators=(",", ":"))
    start = claims.removesuffix('"}').encode()
    start = b"{" + b" " * (-len(start) % 3) + start[1:]
    prefix = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=") + b"." + base64.b64encode(start)
    if len(secret) > 64:
        secret = hashlib.sha256(secret).digest()
    padded = secret.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + prefix)
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))
    to_url = bytes.maketrans(b"+/", b"-_")
    encode = base64.b64encode

    def mint(subject: bytes) -> bytes:
        end = encode(subject + b'"}').translate(to_url).rstrip(b"=")
        first = inner.copy()
        first.update(end)
        second = outer.copy()
        second.update(first.digest())
        return b"%b%b.%b" % (prefix, end, encode(second.digest())[:43].translate(to_url))

    return mint
