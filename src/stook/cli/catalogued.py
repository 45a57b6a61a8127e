"""What commands about the saved catalog share: moments, progress, and saving before a command ends."""

from __future__ import annotations

import asyncio
import re
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from stook.cli.output import on_terminal, plural, warn
from stook.errors import ConflictError, StookError, UserError

if TYPE_CHECKING:
    from stook.assembly import Renter

SAVE_SECONDS = 30.0
"""How long a command that does not have to tries to save the catalog before it ends."""
_AGO = re.compile(r"([0-9]{1,6})\s*(s|min|h|d)\s+ago\Z")
_EXACT = re.compile(r"@([0-9]{1,15})\Z")
_AGO_MS = {"s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}

wait_option = click.option(
    "--wait",
    type=click.Choice(["durable", "recoverable"]),
    help="recoverable: end with an error unless the catalog is saved as well. durable: do not save it now. "
    "Default: save it, and say so when that fails.",
)


def moment(at_ms: int) -> str:
    """A time as people read it, in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def parse_moment(text: str, now_ms: int) -> int:
    """Milliseconds from ``2026-11-26T08:30``, with or without a zone (local otherwise), ``3 h ago``, or ``@`` and what
    programs read in `stook catalog snapshots --json`.

    Raises `UserError`.
    """
    ago = _AGO.match(text.strip())
    if ago is not None:
        return now_ms - int(ago[1]) * _AGO_MS[ago[2]]
    exact = _EXACT.match(text.strip())
    if exact is not None:
        return int(exact[1])
    try:
        return int(datetime.fromisoformat(text.strip()).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise UserError(f"{text[:64]!r} is no time: write 2026-11-26T08:30, or '3 h ago'") from None


class RowsLine:
    """A line on a terminal that says how much of a catalog is fetched; nothing elsewhere."""

    def __init__(self, what: str, *, quiet: bool) -> None:
        self._what = what
        self._show = not quiet and on_terminal()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._show:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def __call__(self, done: int, total: int) -> None:
        """So many rows of so many are there."""
        if self._show:
            sys.stderr.write(f"\r\x1b[K{self._what}: {done:,} of {total:,} rows")
            sys.stderr.flush()


async def save_before_end(renter: Renter, wait: str | None) -> bool:
    """Save what the command changed in the catalog, so that a lost machine loses none of it; whether it is saved.

    What it replaced or removed is given up then, not before: until it is saved, the saved catalog needs those bytes.

    Raises only with ``recoverable``, for whoever asked for that. Otherwise a failure is told and the next command, or
    `stook agent run`, tries again.
    """
    saver = renter.client.saver
    if saver is None:
        return False
    if wait == "recoverable":
        await saver.recoverable()
        await renter.client.tidy()
        await renter.client.drain()
        return True
    state = await saver.state()
    unsaved = await saver.unsaved(0)
    if not unsaved.pressing and not unsaved.waiting and state.saved_ms:
        return True
    if wait == "durable" or not len(renter.agent.book):
        return False
    try:
        async with asyncio.timeout(SAVE_SECONDS):
            await saver.recoverable()
            await renter.client.tidy()
            await renter.client.drain()
    except (StookError, TimeoutError) as error:
        why = str(error) or f"not done in {SAVE_SECONDS:.0f} s"
        level = "stook: ALARM: " if isinstance(error, ConflictError) else "stook: "
        count = plural(unsaved.objects, "object") if unsaved.objects else "the last changes"
        warn(f"{level}{count} stored, and not recoverable from the words yet: {why}")
        return False
    return True
