"""What an agent knows of farmers: their newest announcements, how dealings went, what was promised to whom.

Kept in memory for speed and written behind to the `AgentStore`; losing the last minute of it costs a worse guess, never
data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from stook.clock import Clock, Offload
from stook.contracts.announcement import SignedAnnouncement, is_fresh, verify_announcement
from stook.errors import MisbehaviourError
from stook.ids import NetworkId, NodeId
from stook.renter.planner import Candidate
from stook.renter.standing import UNKNOWN, Standing, candidate_of, standings
from stook.storage.fading import Counter
from stook.storage.renter_ports import AgentStore, Outcome, OutcomeKind
from stook.wire.endpoint import Peer

_MAX_PENDING = 512
_STANDING_LIFE_MS = 60_000
"""Counters fade, so a standing is made anew after a while even without dealings."""


class FarmerBook:
    """Farmers by node id. Methods without ``async`` touch memory only."""

    def __init__(self, store: AgentStore, network: NetworkId, clock: Clock, offload: Offload) -> None:
        self._store = store
        self._network = network
        self._clock = clock
        self._offload = offload
        self._known: dict[NodeId, SignedAnnouncement] = {}
        self._counters: dict[tuple[NodeId, OutcomeKind], Counter] = {}
        self._promised: dict[NodeId, int] = defaultdict(int)
        self._pending: list[Outcome] = []
        self._standings: dict[NodeId, Standing] = {}
        """Made when asked for, forgotten with the farmer's next dealing: a claim looks at every farmer's."""
        self._standings_since_ms = 0

    async def load(self) -> None:
        """Read what earlier runs learned."""
        now = self._clock.now_ms()
        announcements = await self._offload(self._store.announcements)
        for signed in announcements:
            self._known.setdefault(signed.node_id, signed)
        for stats in await self._offload(lambda: self._store.farmer_stats(now)):
            self._counters[stats.farmer, stats.kind] = Counter(
                successes=stats.successes,
                failures=stats.failures,
                value_sum=stats.value,
                value_weight=1.0 if stats.value > 0 else 0.0,
                failures_in_a_row=stats.failures_in_a_row,
                last_ok_ms=stats.last_ok_ms,
                last_ms=stats.last_ms,
            )
        self._standings.clear()

    async def learn(self, announcements: Iterable[SignedAnnouncement]) -> int:
        """Verify announcements and keep those that are new; how many were. False ones are passed over.

        A seed is only a messenger: what it says of others counts as far as they signed it.
        """
        now, fresh = self._clock.now_ms(), []
        for signed in announcements:
            known = self._known.get(signed.node_id)
            if known is not None and known.announcement.issued_ms >= signed.announcement.issued_ms:
                continue
            try:
                verify_announcement(signed, network=self._network, now_ms=now)
            except MisbehaviourError:
                continue
            if not is_fresh(signed.announcement, now):
                continue
            fresh.append(signed)
            self._known[signed.node_id] = signed
            self._promised.pop(signed.node_id, None)
        if fresh:
            await self._offload(lambda: self._store.save_announcements(fresh))
        return len(fresh)

    def note(self, outcome: Outcome) -> None:
        """Count one dealing."""
        key = outcome.farmer, outcome.kind
        self._counters[key] = self._counters.get(key, Counter()).after(outcome)
        self._standings.pop(outcome.farmer, None)
        self._pending.append(outcome)
        del self._pending[:-_MAX_PENDING]

    async def flush(self) -> None:
        """Write the dealings counted since the last time."""
        pending, self._pending = self._pending, []
        if pending:
            await self._offload(lambda: self._store.note_outcomes(pending))

    def promise(self, farmer: NodeId, size_bytes: int) -> None:
        """So many bytes of the farmer's announced free space are spoken for (negative: given back)."""
        self._promised[farmer] = max(0, self._promised[farmer] + size_bytes)

    def standing(self, farmer: NodeId) -> Standing:
        """The farmer's standing now."""
        now = self._clock.now_ms()
        if abs(now - self._standings_since_ms) > _STANDING_LIFE_MS:
            self._standings.clear()
            self._standings_since_ms = now
        known = self._standings.get(farmer)
        if known is None:
            kinds = ((kind, self._counters.get((farmer, kind))) for kind in OutcomeKind)
            made = standings(counter.stats(farmer, kind, now) for kind, counter in kinds if counter is not None)
            known = self._standings[farmer] = made.get(farmer, UNKNOWN)
        return known

    def announcement(self, farmer: NodeId) -> SignedAnnouncement | None:
        """The newest announcement, or None."""
        return self._known.get(farmer)

    def peer(self, farmer: NodeId) -> Peer:
        """Whom to call; without a known address only a session the farmer opened can reach it."""
        signed = self._known.get(farmer)
        return Peer(farmer) if signed is None else Peer.of(signed.announcement.contact)

    def candidates(self) -> list[Candidate]:
        """Everyone who announced itself lately, as placement sees them."""
        now = self._clock.now_ms()
        return [
            candidate_of(signed.announcement, self.standing(node_id), promised_bytes=self._promised[node_id])
            for node_id, signed in self._known.items()
            if is_fresh(signed.announcement, now)
        ]

    def candidate(self, farmer: NodeId) -> Candidate:
        """One farmer as placement sees it; a bare one when it never announced itself."""
        signed = self._known.get(farmer)
        if signed is None:
            return Candidate(farmer, free_bytes=0)
        return candidate_of(signed.announcement, self.standing(farmer))

    def __len__(self) -> int:
        return len(self._known)

    def farmers(self) -> list[NodeId]:
        """Everyone who ever announced itself."""
        return list(self._known)
