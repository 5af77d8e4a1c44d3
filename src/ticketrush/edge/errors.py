"""What can be wrong with a front door."""

from __future__ import annotations

from ticketrush.errors import SettingsError, TicketrushError


class EdgeError(TicketrushError):
    """Something at the front door does not start, or does not do what it was started for."""


class NotWritten(EdgeError, SettingsError):
    """The folder for what is rendered takes no files; names the file, and what the system said."""


class ClusterFileError(EdgeError, ValueError):
    """The cluster file cannot be read, or says what makes no sense; names the place, the value, and what it may be."""
