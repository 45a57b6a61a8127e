"""What a copy between this machine and a bucket did, in either direction."""

from __future__ import annotations

from dataclasses import dataclass, field

from stook.cli.local_tree import Passed
from stook.errors import EnvironmentFault, NotEnoughError

PAGE = 2000
"""Objects looked at in one go."""


@dataclass(slots=True)
class Copied:
    """Counts, and whatever was not copied."""

    files: int = 0
    size_bytes: int = 0
    unchanged: int = 0
    deleted: int = 0
    passed: Passed = field(default_factory=Passed)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """Objects that could not be fetched, each with the reason."""

    @property
    def exit_code(self) -> int:
        """0, or that of the gravest failure."""
        if self.unreadable:
            return NotEnoughError.exit_code
        return EnvironmentFault.exit_code if self.passed.failed else 0

    def as_dictionary(self) -> dict[str, object]:
        """For programs."""
        failed = [*self.unreadable, *self.passed.failed]
        return {
            "ok": not failed,
            "files": self.files,
            "bytes": self.size_bytes,
            "unchanged": self.unchanged,
            "deleted": self.deleted,
            "symlinks_skipped": self.passed.symlinks,
            "special_skipped": self.passed.special,
            "failed": [{"name": name, "why": why} for name, why in failed],
        }
