"""The buyers of a bench run, and the secret that proves who they are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ticketrush.admission.tokens import OPERATOR, Tokens, new_secret

AUDIENCE: Final = "ticketrush"
VALID_S: Final = 24 * 3_600
"""Longer than any run."""


class Issuer:
    """Mints tokens under a fresh secret."""

    def __init__(self) -> None:
        self.secret = new_secret()
        self._tokens = Tokens([self.secret.encode()], AUDIENCE)

    def buyer(self, name: str) -> str:
        """A buyer's token."""
        return self._tokens.mint(name, ttl_s=VALID_S)

    def operator(self) -> str:
        """A token that may run sales."""
        return self._tokens.mint("bench", ttl_s=VALID_S, scope=OPERATOR)

    def write_tokens(self, count: int, file: Path) -> None:
        """A token a line for `count` buyers, all of the same length."""
        file.write_text("".join(f"{self.buyer(f'buyer-{number:07d}')}\n" for number in range(count)))
