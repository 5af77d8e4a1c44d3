"""Log lines: ours and the libraries' in one form, on standard error, never in the way of the output.

Ours go through the standard library's `logging`, under "ticketrush": who embeds ticketrush hears of
it what they set up there, and nothing is printed by itself.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, Final, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

SELDOM_S: Final = 1.0
"""How often the same event is logged at most, where anybody can bring it about."""

_COMMON: Final[list[Processor]] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger `name`, for an event and its values: ``log.info("journal_loaded", events=12)``."""
    return cast(
        "structlog.stdlib.BoundLogger",
        structlog.wrap_logger(
            logging.getLogger(name),
            processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
            wrapper_class=structlog.stdlib.BoundLogger,
        ),
    )


class Seldom:
    """An event that others can bring about as often as they like: logged at most once in SELDOM_S."""

    def __init__(self, log: structlog.stdlib.BoundLogger, event: str) -> None:
        self._log, self._event = log, event
        self._count, self._next_s = 0, 0.0

    def warning(self, **values: Any) -> None:
        """Log the event with these values, and `count`, how often it has happened since the last line."""
        self._count += 1
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._log.warning(self._event, count=self._count, **values)
            self._count, self._next_s = 0, now_s + SELDOM_S


def configure(level: str, form: str) -> None:
    """Log what is at least as serious as `level`, for people ("console") or machines ("json")."""
    last: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, _plain_name]
    if form == "json":
        last += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        last += [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=last, foreign_pre_chain=_COMMON))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _plain_name(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """uvicorn calls its main logger "uvicorn.error", whatever it has to say, and says it twice, once in colours."""
    event.pop("color_message", None)
    if event.get("logger") == "uvicorn.error":
        event["logger"] = "uvicorn"
    return event
