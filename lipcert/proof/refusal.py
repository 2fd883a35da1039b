"""How a rule says no."""

from __future__ import annotations


class Refused(Exception):
    """A rule cannot derive its bound from this network and witness; the message says why, in one line."""


class TooLarge(Refused):
    """The network is beyond the size that an engine takes on."""
