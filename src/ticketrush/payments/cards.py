"""The cards of the test gateways: what they ask for, decided by nothing else."""

from __future__ import annotations

from typing import Final

from ticketrush.errors import InvalidRequest

APPROVE: Final = "approve"
DECLINE: Final = "decline"
LATE: Final = "late"

CARDS: Final = (APPROVE, DECLINE, LATE)

LATE_MS: Final = 2_000
"""How late the card "late" is when no delay is asked for; it approves."""


def delay_of(card: str, delay_ms: int) -> int:
    """How long a charge of `card` takes, in milliseconds. Raises InvalidRequest for a card there is not."""
    if card not in CARDS:
        raise InvalidRequest(f"card {card!r:.80} is none of the test gateway's: {', '.join(CARDS)}")
    return delay_ms or (LATE_MS if card == LATE else 0)
