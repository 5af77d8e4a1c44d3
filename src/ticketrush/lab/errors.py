"""What can be wrong with a lab."""

from __future__ import annotations

from ticketrush.errors import TicketrushError


class LabError(TicketrushError):
    """Something in the lab does not start, or does not do what it was started for; has its last words."""


class NoLab(LabError):
    """This machine cannot have one: not Linux, not root, or a program is missing; says what to do."""
