"""One change at a time to one shard: consign, renew, cancel, reap and scrub all pass here; reading does not.

Audits have a gate of their own, where the pages of one challenge pass one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from stook.errors import ReasonCode, RefusedError


class _Entry:
    __slots__ = ("lock", "scope", "superseded", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.scope: asyncio.Timeout | None = None
        self.superseded = False


class ShardGate:
    """Locks by shard root (or whatever names a thing), with a deadline, and the right to push a transfer aside."""

    def __init__(self) -> None:
        self._entries: dict[bytes, _Entry] = {}

    def busy(self, root: bytes) -> bool:
        """Whether someone holds the gate of this shard or waits at it."""
        return root in self._entries

    @asynccontextmanager
    async def hold(self, root: bytes, *, deadline_seconds: float, supersede: bool = False) -> AsyncIterator[None]:
        """Have the shard alone for the length of the block.

        With `supersede` whoever holds it is told to stop (a sender that reconnects after a broken line must not wait
        for its own dead transfer). Raises `RefusedError`: TOO_SLOW past the deadline, CANCELLED when superseded.
        """
        entry = self._entries.setdefault(root, _Entry())
        entry.users += 1
        try:
            if supersede and entry.scope is not None and not entry.scope.expired():
                entry.superseded = True
                entry.scope.reschedule(asyncio.get_running_loop().time())
            async with entry.lock:
                entry.superseded = False
                async with self._bounded(entry, deadline_seconds):
                    yield
        finally:
            entry.users -= 1
            if not entry.users:
                self._entries.pop(root, None)

    @asynccontextmanager
    async def _bounded(self, entry: _Entry, deadline_seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(deadline_seconds) as scope:
                entry.scope = scope
                try:
                    yield
                finally:
                    entry.scope = None
        except TimeoutError:
            if entry.superseded:
                raise RefusedError(ReasonCode.CANCELLED, "a newer request for this shard took over") from None
            raise RefusedError(ReasonCode.TOO_SLOW, f"not done in {deadline_seconds:g} s") from None
