"""What can go wrong with orders.

::

    TicketrushError
    ├── StoreUnavailable     the store did not answer: what was to be written may or may not be; write it again
    ├── NoticeRefused        the store refuses what a notice says; nothing of the batch was written
    ├── StoreOutdated        the store's tables are missing, or older or newer than this program; names the command
    ├── SourceUnavailable    the event log did not answer; nothing is lost, ask again
    ├── SourceLost           the event log will not answer this reader any more; nothing is lost, start it again
    └── BrokerUnavailable    Kafka did not take all that was to be published; publish it again
"""

from __future__ import annotations

from ticketrush.errors import TicketrushError


class StoreUnavailable(TicketrushError):
    """The store did not answer. What was to be written may or may not be there; writing it again is harmless."""


class NoticeRefused(TicketrushError):
    """The store's constraints refuse what a notice says. Nothing of the batch was written."""


class StoreOutdated(TicketrushError):
    """The store's tables are missing, or of another version; or there is not even a folder for its file."""


class SourceUnavailable(TicketrushError):
    """The event log did not answer. Nothing is lost; ask again."""


class SourceLost(TicketrushError):
    """The event log will not answer this reader any more. Nothing is lost; start it again."""


class BrokerUnavailable(TicketrushError):
    """Kafka did not take all that was to be published. Some of it may be there; publishing it again is harmless."""
