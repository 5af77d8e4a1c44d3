"""What can go wrong when processes are started."""

from __future__ import annotations

from ticketrush.errors import TicketrushError


class ClusterError(TicketrushError):
    """A process cannot be started, or does not do what it was started for. The text has its last words."""


class NotInstalled(ClusterError):
    """There is no such server on this machine; says what to install."""


class PlanError(ClusterError, ValueError):
    """What was asked for makes no sense; names it, the value, and what it may be."""


class FolderInUse(ClusterError):
    """Another cluster runs in the folder; names its process."""
