"""What one audit of one shard came to."""

from __future__ import annotations

import enum


class Verdict(enum.IntEnum):
    """The one value an audit ends in. Numbers are part of the receipt's format and never change."""

    PASSED = 1
    """Every unit asked for was proved."""
    FAILED = 2
    """A lie: wrong bytes under a signature, or a loss declared only after it was asked about."""
    LOST = 3
    """The farmer said, before it was asked, that it no longer holds the shard."""
    SILENT = 4
    """No answer in time. It proves nothing yet; containment follows."""
    MALFORMED = 5
    """A signed answer that is no proof. Judged like a lie: whoever signs has read what it signs."""
