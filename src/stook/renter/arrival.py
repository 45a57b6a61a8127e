"""Beginning an upload: what uploads of the dead left behind is cleared up or taken over, what the living do is not.

Every segment has an owner in the catalog before a farmer hears of it: an *upload*. One of a large object may be
resumed by a later run; a *passing* one (bundles, and whatever is sent while another upload runs) is not, and goes with
its process. Which processes live is told by `stook.storage.presence`
(`docs/decisions/0093-nothing-placed-without-an-owner.md`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from stook.clock import Offload
from stook.storage.presence import Presence
from stook.storage.renter_ports import Catalog

PASSING = b"passing:"
"""Begins the fingerprint of an upload that no other run resumes; the upload's own id follows."""
_FOR_EVER_MS = 2**62
_LOOK = 10_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """What an upload finds. `alone` means that no other was under way when it began.

    At most one upload that arrived alone is under way at any time, so such a one may resume what it finds.
    """

    alone: bool
    left: dict[tuple[str, str], list[bytes]] = field(default_factory=dict)
    """Uploads of the dead by bucket and name: to be resumed, or given up once the object is stored otherwise."""


class Arrivals:
    """Lets uploads begin, one after the other."""

    def __init__(self, presence: Presence, catalog: Catalog, offload: Offload) -> None:
        self._presence = presence
        self._catalog = catalog
        self._offload = offload
        self._door = asyncio.Lock()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Arrival]:
        """For the length of an upload. Raises `EnvironmentFault` when the home cannot be used."""
        stay = self._presence.stay()
        try:
            async with self._door:
                alone = await self._offload(stay.enter)
                left = await self._offload(self._clear_up) if alone else {}
                await self._offload(stay.share)
            yield Arrival(alone, left)
        finally:
            await self._offload(stay.leave)

    def _clear_up(self) -> dict[tuple[str, str], list[bytes]]:
        """Give up the passing uploads of the dead; their other ones. Only for who is alone."""
        left: dict[tuple[str, str], list[bytes]] = {}
        for upload in self._catalog.stale_uploads(_FOR_EVER_MS, _LOOK):
            if upload.fingerprint.startswith(PASSING):
                self._catalog.abandon_upload(upload.upload_id)
            else:
                left.setdefault((upload.bucket, upload.name), []).append(upload.upload_id)
        return left
