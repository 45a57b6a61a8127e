"""Bandwidth caps: a token bucket that hands out times to send, in loop time."""

from __future__ import annotations

import asyncio

BURST_SECONDS = 0.25
"""What may be sent at once after a pause."""
LEAST_PIECE_BYTES = 4096


class Pace:
    """Lets at most `bytes_per_second` pass on average, shared fairly in order of asking; 0 lets everything pass."""

    def __init__(self, bytes_per_second: int) -> None:
        self.bytes_per_second = bytes_per_second
        self._free_at = float("-inf")

    def piece_bytes(self, most: int) -> int:
        """How many bytes to ask for at once: at most `most`, and small enough that others get their turn."""
        if not self.bytes_per_second:
            return most
        return min(most, max(LEAST_PIECE_BYTES, int(self.bytes_per_second * BURST_SECONDS)))

    async def take(self, size_bytes: int) -> None:
        """Wait until `size_bytes` may pass. A cancelled wait still counts as passed."""
        if not self.bytes_per_second:
            return
        now = asyncio.get_running_loop().time()
        start = max(self._free_at, now - BURST_SECONDS)
        self._free_at = start + size_bytes / self.bytes_per_second
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
