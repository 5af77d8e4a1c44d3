"""What a comparison may be told to do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

from ticketrush.addresses import POSTGRES_SCHEMES, check_orders
from ticketrush.crowd.errors import OptionError
from ticketrush.crowd.options import RushOptions, bounds_of

Database = Literal["sqlite", "postgres"]
Databases = Literal["sqlite", "postgres", "both"]

RETRY_S: Final = 1.5
"""Who is told "not now" comes back after so many seconds at most."""

PATIENCE_S_MAX: Final = 3_600.0

SLOWEST_PER_S: Final = 100
"""Requests per second below which a strategy is cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyOptions:
    """The crowd that every strategy gets. Raises OptionError when made of values that make no sense.

    Args:
        buyers: how many people want to buy one ticket each.
        tickets: how many there are.
        database: where orders and stock are kept; reserve-first keeps stock in its own journal, an SQLite file.
        postgres: a running PostgreSQL to use, as a URL; None starts one, if `database` wants one. Each strategy
            gets a database of its own there, which is dropped at the end.
        abandon: share of those who got a ticket and never pay, 0 to 1.
        hold: seconds an unpaid hold lasts in reserve-first.
        patience: seconds that buyers who are told "not now" keep coming back after the last buyer has
            come; None takes what abandoned holds need to return until all are sold.
        connections: connections to the server; as many requests are under way at a time at most.
        seed: the same seed sends the same people.
    """

    buyers: int = 20_000
    tickets: int = 500
    database: Databases = "sqlite"
    postgres: str | None = None
    abandon: float = 0.30
    hold: float = 1.0
    patience: float | None = None
    connections: int = 64
    seed: int = 1

    def __post_init__(self) -> None:
        _ = self.crowd  # checks what it has in common with a rush
        if self.database not in get_args(Databases):
            raise OptionError(f"database is {self.database!r}; it must be sqlite, postgres or both")
        if self.patience is not None and not 0 <= self.patience <= PATIENCE_S_MAX:
            raise OptionError(f"patience is {self.patience:g}; it must be between 0 and {PATIENCE_S_MAX:,.0f} seconds")
        if self.postgres is None:
            return
        if "postgres" not in self.databases:
            raise OptionError("postgres is for --database postgres or both; say which, or leave out --postgres")
        if self.postgres.partition(":")[0] not in POSTGRES_SCHEMES:
            raise OptionError("postgres must be a URL like postgresql://user@127.0.0.1:5432/postgres")
        try:
            check_orders(self.postgres)
        except ValueError as error:
            raise OptionError(f"postgres: {error}") from None

    @property
    def databases(self) -> tuple[Database, ...]:
        """Those of order-first and pay-first; the first one is the one the short report is about."""
        return ("sqlite", "postgres") if self.database == "both" else (self.database,)

    @property
    def crowd(self) -> RushOptions:
        """The same people as for a rush: all of them plain, but some never pay."""
        return RushOptions(
            buyers=self.buyers,
            tickets=self.tickets,
            connections=self.connections,
            abandon=self.abandon,
            duplicates=0.0,
            cuts=0.0,
            breakers=0.0,
            limit=1,
            hold=self.hold,
            seed=self.seed,
        )

    @property
    def patience_s(self) -> float:
        """Seconds after the last buyer has come at which those who wait go home.

        In every round of holds the share `abandon` of what was left is abandoned again, so the rounds
        until nothing is left (with 1 % to spare) grow with the logarithm of the tickets.
        """
        if self.patience is not None:
            return self.patience
        share = min(max(self.abandon, 0.01), 0.95)
        rounds = math.log(self.tickets * 100) / -math.log(share)
        return round(5 + rounds * (self.hold + RETRY_S), 1)

    @property
    def time_limit_s(self) -> float:
        """Seconds after which a strategy is cut off, whoever is still to come."""
        return 30 + self.buyers / SLOWEST_PER_S + self.patience_s


def bounds(name: str) -> str:
    """The least and the most that an option that a rush has too may be, for people."""
    return bounds_of(name)
