"""What a cluster is to be made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from ticketrush.addresses import absolute
from ticketrush.cluster.errors import PlanError

NODES_MAX: Final = 64
WEIGHT_MAX: Final = 1_000
PORT_MAX: Final = 65_535

Durability = Literal["memory", "fsync", "replica"]

OWN_POSTGRES: Final = "postgres"
OWN_KAFKA: Final = "kafka"
"""What to write instead of an address to have one started."""

WORKERS_MAX: Final = 16

SHARED: Final = ("redis://", "rediss://", "redis+sentinel://", "rediss+sentinel://", "redis+cluster://",
                 "rediss+cluster://")  # fmt: skip
"""How the URL of a ledger begins that several processes can share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """A cluster on this machine. Raises PlanError when made of values that make no sense.

    Args:
        nodes: how many processes sell.
        weights: the share of the load that each is to get, relative to the others; () is equal shares.
        folder: where logs and data go; it must be there.
        ledger: the ledger they share; None starts a Valkey for them. One node may have a file.
        durability: what a success survives, see the setting; a Valkey of ours is started to keep it.
        port: of the first node, the next ones count up; 0 takes free ones.
        secret: signs tokens; "" for open nodes, which ask for none.
        orders: where orders are kept: the URL of a store, or "postgres", which starts one; "" keeps none.
        kafka: brokers between the ledger and the orders, or "kafka", which starts one; "" does without.
        workers: processes that write orders.
        config: a TOML file of settings for everything that is started; None for none.
        flags: more flags of ``serve``, for all nodes.
        env: the environment of the nodes, without the secret.
    """

    nodes: int = 2
    weights: tuple[int, ...] = ()
    folder: Path
    ledger: str | None = None
    durability: Durability = "fsync"
    port: int = 0
    secret: str = field(default="", repr=False)
    orders: str = ""
    kafka: str = ""
    workers: int = 1
    config: Path | None = None
    flags: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.nodes <= NODES_MAX:
            raise PlanError(f"nodes is {self.nodes}; it must be between 1 and {NODES_MAX}")
        check_weights(self.weights, self.nodes)
        if not self.is_shared and self.nodes > 1:
            raise PlanError(
                f"{self.ledger} cannot be shared by {self.nodes} nodes; name a Redis or Valkey, like "
                "redis://127.0.0.1:6379/0"
            )
        if not 1 <= self.workers <= WORKERS_MAX:
            raise PlanError(f"workers is {self.workers}; it must be between 1 and {WORKERS_MAX}")
        if self.kafka and not (self.orders and self.is_shared):
            raise PlanError("kafka stands between the ledger of many nodes and its orders; say where orders are kept")
        if not 0 <= self.port <= PORT_MAX - self.nodes:
            raise PlanError(f"port is {self.port}; it must be between 0 and {PORT_MAX - self.nodes}")

    @property
    def is_shared(self) -> bool:
        """Whether the ledger is one for several processes, not a file."""
        return self.ledger is None or self.ledger.startswith(SHARED)

    def settings_of(self, ledger: str, orders: str) -> tuple[list[str], dict[str, str]]:
        """What every process is told: flags, and the environment, where passwords in URLs are not seen by `ps`."""
        flags = ["--config", str(self.config.resolve())] if self.config is not None else []
        kept = {"TICKETRUSH_ORDERS": absolute(orders)} if orders else {}
        return flags, self.env | {"TICKETRUSH_LEDGER": absolute(ledger)} | kept

    def port_of(self, number: int) -> int:
        """The port of the node of that number, counted from 0; 0 for a free one."""
        return self.port + number if self.port else 0

    def weight_of(self, number: int) -> int:
        """The weight of the node of that number, counted from 0."""
        return self.weights[number] if self.weights else 1


def parse_weights(text: str | None, nodes: int) -> tuple[int, ...]:
    """The weights in a text like 1,2,3,4, one for each of `nodes`; () for no text.

    Raises:
        PlanError: it has something else, or not as many.
    """
    if not text:
        return ()
    try:
        weights = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise PlanError(f"weights is {text!r}; write whole numbers with commas between, like 1,2,3,4") from None
    check_weights(weights, nodes)
    return weights


def check_weights(weights: Sequence[int], nodes: int) -> None:
    """Raises PlanError unless there are none, or one for each node, of which somebody gets something."""
    if not weights:
        return
    said = ",".join(map(str, weights))
    if len(weights) != nodes:
        raise PlanError(f"weights is {said}, which is {len(weights)} for {nodes} nodes; give one for each")
    if not all(0 <= weight <= WEIGHT_MAX for weight in weights) or not any(weights):
        raise PlanError(f"weights is {said}; each must be between 0 and {WEIGHT_MAX}, and one more than 0")


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """`total` split by `weights` into whole parts that differ from the exact ones by less than 1.

    Largest remainders first (Hamilton's method); who weighs anything gets 1 if there is enough for all.
    """
    whole = sum(weights)
    exact = [total * weight / whole for weight in weights]
    parts = [int(part) for part in exact]
    order = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    for i, weight in enumerate(weights):
        if weight and not parts[i] and max(parts) > 1:
            parts[parts.index(max(parts))] -= 1
            parts[i] = 1
    return parts
