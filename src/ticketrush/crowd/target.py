"""The server that a rush loads: one of its own, or one that is named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from ticketrush.clock import SystemClock
from ticketrush.crowd.errors import OptionError
from ticketrush.crowd.operator import Operator
from ticketrush.crowd.options import RushOptions
from ticketrush.crowd.server import OwnServer, own_server
from ticketrush.settings import Settings, load


@dataclass(frozen=True, slots=True)
class Target:
    """Where the crowd goes. `own` is the server if the rush started it."""

    operator: Operator
    own: OwnServer | None
    secret: bytes
    audience: str
    sale: str

    def cost(self) -> tuple[float, float]:
        """(CPU seconds so far, resident megabytes) of the server; the peak where it can be known."""
        cpu_s, rss_mb = (self.own.cpu_s(), self.own.rss_mb()) if self.own else (None, None)
        if cpu_s is None or rss_mb is None:
            said_cpu_s, said_rss_mb = self.operator.cost()
            return (said_cpu_s if cpu_s is None else cpu_s), (said_rss_mb if rss_mb is None else rss_mb)
        return cpu_s, rss_mb


@contextlib.contextmanager
def target_of(options: RushOptions) -> Iterator[Target]:
    """The server of `options`; one of our own is stopped at the end.

    Raises:
        CrowdError: our own does not start.
        OptionError: the one that is named asks for tokens, and no secret to make them is known.
        NoAnswer: the one that is named is not there.
    """
    if options.url is None:
        audience = str(Settings.model_fields["token_audience"].default)
        with own_server() as own, contextlib.closing(Operator(own.url, own.secret, audience)) as operator:
            yield Target(operator, own, own.secret, audience, "rush")
        return
    settings = load()
    audience = settings.token_audience
    secret = _secret_for(options.url, settings)
    sale = f"rush-{SystemClock().now_ms()}"
    with contextlib.closing(Operator(options.url, secret, audience)) as operator:
        yield Target(operator, None, secret, audience, sale)


def _secret_for(url: str, settings: Settings) -> bytes:
    """The secret that signs tokens for the server at `url`; none for an open server, which wants names only."""
    with contextlib.closing(Operator(url, b"", settings.token_audience)) as stranger:
        if not stranger.needs_token():
            return b""
    if not settings.token_keys:
        raise OptionError(
            f"{url} asks buyers for tokens. Set TICKETRUSH_TOKEN_SECRETS to the secrets that it was started with, "
            "or start it with --open"
        )
    return settings.token_keys[0]
