"""All targets in one place; importing this module fills the registry."""

from __future__ import annotations

from pathlib import Path

import fuzz_audits
import fuzz_endpoint
import fuzz_farmer
import fuzz_joining
import fuzz_market
import fuzz_messages
import fuzz_overlay
import fuzz_s3
import fuzz_session
import fuzz_stored
from fuzz_base import TARGETS, Target

__all__ = ["FINDINGS", "TARGETS", "Target", "findings", "rooms"]

rooms = (
    fuzz_messages,
    fuzz_stored,
    fuzz_session,
    fuzz_endpoint,
    fuzz_farmer,
    fuzz_audits,
    fuzz_overlay,
    fuzz_market,
    fuzz_joining,
    fuzz_s3,
)
FINDINGS = Path(__file__).parent / "findings"
"""Inputs that once broke something, one folder for each target; never deleted, replayed by `make check`."""


def findings(target: Target) -> list[Path]:
    """The kept findings of a target."""
    return sorted((FINDINGS / target.name).glob("*"))
