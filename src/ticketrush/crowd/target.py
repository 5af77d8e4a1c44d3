"""What a rush loads: servers of its own, or one that is named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from ticketrush.clock import SystemClock
from ticketrush.crowd.errors import OptionError
from ticketrush.crowd.operator import Operator
from ticketrush.crowd.options import RushOptions
from ticketrush.crowd.server import OwnServers, own_servers
from ticketrush.settings import Settings, load


@dataclass(frozen=True, slots=True)
class Target:
    """Where the crowd goes: `urls`, of which the operator uses one that answers. `own` are those that we started."""

    operator: Operator
    urls: list[str]
    own: OwnServers | None
    secret: bytes
    audience: str
    sale: str

    def cost(self) -> tuple[float, float]:
        """(CPU seconds so far, resident megabytes) of the servers; the peak where it can be known."""
        return (self.own.cost() if self.own else None) or self.operator.cost()


@contextlib.contextmanager
def target_of(options: RushOptions) -> Iterator[Target]:
    """The servers of `options`; those of our own are stopped at the end.

    Raises:
        CrowdError: our own do not start.
        OptionError: the one that is named asks for tokens, and no secret to make them is known.
        NoAnswer: the one that is named is not there.
    """
    if options.url is None:
        audience = str(Settings.model_fields["token_audience"].default)
        with own_servers(options) as own:
            urls = [node.url for node in own.nodes]
            with contextlib.closing(Operator(urls, own.secret, audience)) as operator:
                yield Target(operator, urls, own, own.secret, audience, "rush")
        return
    settings = load()
    audience = settings.token_audience
    secret = _secret_for(options.url, settings)
    sale = f"rush-{SystemClock().now_ms()}"
    with contextlib.closing(Operator([options.url], secret, audience)) as operator:
        yield Target(operator, [options.url], None, secret, audience, sale)


def _secret_for(url: str, settings: Settings) -> bytes:
    """The secret that signs tokens for the server at `url`; none for an open server, which wants names only."""
    with contextlib.closing(Operator([url], b"", settings.token_audience)) as stranger:
        if not stranger.needs_token():
            return b""
    if not settings.token_keys:
        raise OptionError(
            f"{url} asks buyers for tokens. Set TICKETRUSH_TOKEN_SECRETS to the secrets that it was started with, "
            "or start it with --open"
        )
    return settings.token_keys[0]
