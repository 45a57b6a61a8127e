"""What an agent knows of farmers: their newest announcements, how dealings went, what was promised to whom.

Kept in memory for speed and written behind to the `AgentStore`; losing the last minute of it costs a worse guess, never
data.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from stook.audits.containment import Silence, we_are_offline
from stook.audits.score import Entry, Retrieved, Transferred
from stook.clock import Clock, Offload
from stook.contracts.announcement import (
    ANNOUNCEMENT_LIFE_MS,
    Announcement,
    SignedAnnouncement,
    is_fresh,
    verify_announcement,
)
from stook.contracts.market import Prices, quoted
from stook.errors import MisbehaviourError
from stook.ids import NetworkId, NodeId
from stook.renter.drafts import GoingRates
from stook.renter.planner import Candidate
from stook.renter.standing import UNKNOWN, Standing, candidate_of, standings
from stook.storage.agent_audit_ports import Dossier, FarmerChange
from stook.storage.fading import Counter
from stook.storage.renter_ports import AgentStore, Outcome, OutcomeKind
from stook.wire.endpoint import Peer

_MAX_PENDING = 512
_STANDING_LIFE_MS = 60_000
"""Counters fade, so a standing is made anew after a while even without dealings."""


@dataclass(slots=True)
class _Lately:
    """What came of asking one farmer since the last time it was written down."""

    heard: bool = False
    gave: bool = False
    withheld: bool = False
    size_bytes: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Quote:
    """What one farmer offered us on the open market."""

    prices: Prices
    count: int
    valid_until_ms: int


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
        self._dossiers: dict[NodeId, Dossier] = {}
        self._lately: dict[NodeId, _Lately] = defaultdict(_Lately)
        self._typical_speed = 0.0
        self._quotes: dict[NodeId, _Quote] = {}

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
        await self.reload()

    async def reload(self) -> None:
        """Read the dossiers anew: another process, or the auditor, may have written into them."""
        self._dossiers = {each.farmer: each for each in await self._offload(self._store.dossiers)}
        speeds = [speed for each in self._dossiers.values() if (speed := each.score.speed.bytes_per_second) > 0]
        self._typical_speed = statistics.median(speeds) if speeds else 0.0

    def take(self, dossiers: Iterable[Dossier]) -> None:
        """These were just read or written."""
        self._dossiers.update((each.farmer, each) for each in dossiers)

    async def write(self, *changes: FarmerChange) -> None:
        """Write down steps of the auditor, all of them or none, and know them here."""
        if not changes:
            return
        farmers = [change.farmer for change in changes]

        def work() -> Iterable[Dossier]:
            self._store.change(*changes)
            return [self._store.dossier(farmer) for farmer in farmers]

        self.take(await self._offload(work))

    def dossier(self, farmer: NodeId) -> Dossier:
        """What is thought of the farmer."""
        return self._dossiers.get(farmer) or Dossier(farmer)

    def watched(self) -> list[NodeId]:
        """Farmers whose silence is not explained yet, those that are gone included."""
        done = (Silence.CLEAR, Silence.CONDEMNED)
        return [farmer for farmer, each in self._dossiers.items() if each.silence.state not in done]

    def leaving(self) -> dict[NodeId, int]:
        """Farmers that said when they mean to be gone, and when."""
        return {farmer: each.leaving_by_ms for farmer, each in self._dossiers.items() if each.leaving_by_ms}

    def dossiers(self) -> list[Dossier]:
        """All dossiers that there are."""
        return list(self._dossiers.values())

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

    async def forget(self) -> int:
        """Forget who announced itself too long ago and whom we never dealt with; how many: keys cost nothing."""
        await self.flush()
        now = self._clock.now_ms()
        gone = await self._offload(lambda: self._store.forget_farmers(now - ANNOUNCEMENT_LIFE_MS))
        for farmer in gone:
            signed = self._known.get(farmer)
            if signed is not None and not is_fresh(signed.announcement, now):  # nor came back meanwhile
                del self._known[farmer]
                for known in (self._promised, self._standings, self._quotes):
                    known.pop(farmer, None)
        return len(gone)

    def note(self, outcome: Outcome) -> None:
        """Count one dealing."""
        key = outcome.farmer, outcome.kind
        self._counters[key] = self._counters.get(key, Counter()).after(outcome)
        self._standings.pop(outcome.farmer, None)
        self._pending.append(outcome)
        del self._pending[:-_MAX_PENDING]
        lately = self._lately[outcome.farmer]
        lately.heard |= outcome.ok
        if outcome.kind is OutcomeKind.RETRIEVE:
            lately.gave |= outcome.ok
            lately.withheld |= not outcome.ok

    def sent(self, farmer: NodeId, size_bytes: int, seconds: float) -> None:
        """The farmer sent so much; for its speed."""
        lately = self._lately[farmer]
        lately.size_bytes += size_bytes
        lately.seconds += seconds

    async def flush(self) -> None:
        """Write the dealings counted since the last time."""
        pending, self._pending = self._pending, []
        lately, self._lately = self._lately, defaultdict(_Lately)
        events = self._events(lately)
        if pending:
            await self._offload(lambda: self._store.note_outcomes(pending))
        if events:
            await self._offload(lambda: self._store.note_events(events))
            await self.reload()

    def _events(self, lately: dict[NodeId, _Lately]) -> list[tuple[NodeId, Entry]]:
        """What scores learn of it: once for each farmer, however often it was asked, and no blame for our own line."""
        now, events = self._clock.now_ms(), []
        ours = we_are_offline([each.heard for each in lately.values()])
        for farmer, each in lately.items():
            if each.gave:
                events.append((farmer, Entry(now, Retrieved(True))))
            if each.withheld and not ours:
                events.append((farmer, Entry(now, Retrieved(False))))
            if each.size_bytes:
                events.append((farmer, Entry(now, Transferred(each.size_bytes, each.seconds))))
        return events

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

    def keep_quote(self, farmer: NodeId, prices: Prices, count: int, valid_until_ms: int) -> None:
        """The farmer offered so many contracts at these prices; in memory only, for minutes."""
        self._quotes[farmer] = _Quote(prices, count, valid_until_ms)

    def drop_quote(self, farmer: NodeId) -> None:
        """The farmer does not stand by it."""
        self._quotes.pop(farmer, None)

    def _quote(self, farmer: NodeId) -> _Quote | None:
        quote = self._quotes.get(farmer)
        return quote if quote and quote.count > 0 and quote.valid_until_ms > self._clock.now_ms() else None

    def quoted_count(self, farmer: NodeId) -> int:
        """How many contracts it would make at the prices that it offered us; 0 without an offer."""
        quote = self._quote(farmer)
        return 0 if quote is None else quote.count

    def spend_quote(self, farmer: NodeId, count: int) -> None:
        """So many contracts were made at the offered prices."""
        if (quote := self._quotes.get(farmer)) is not None:
            quote.count -= count

    def quotes_for(self, count: int) -> int:
        """How many farmers have offered so many contracts, or more, and stand by it."""
        for farmer in [farmer for farmer in self._quotes if self._quote(farmer) is None]:
            del self._quotes[farmer]
        return sum(quote.count >= count for quote in self._quotes.values())

    def tariff(self, signed: SignedAnnouncement) -> Announcement:
        """What drafts for this farmer are made by: its announcement, at the prices that it offered us, if any."""
        quote = self._quote(signed.node_id)
        return signed.announcement if quote is None else quoted(signed.announcement, quote.prices)

    def announcements(self) -> list[SignedAnnouncement]:
        """The newest announcement of everyone who announced itself lately."""
        now = self._clock.now_ms()
        return [signed for signed in self._known.values() if is_fresh(signed.announcement, now)]

    def peer(self, farmer: NodeId) -> Peer:
        """Whom to call; without a known address only a session the farmer opened can reach it."""
        signed = self._known.get(farmer)
        return Peer(farmer) if signed is None else Peer.of(signed.announcement.contact)

    def going_rates(self) -> GoingRates | None:
        """What farmers take that announced themselves lately."""
        now = self._clock.now_ms()
        return GoingRates.of(
            signed.announcement for signed in self._known.values() if is_fresh(signed.announcement, now)
        )

    def candidates(self) -> list[Candidate]:
        """Everyone who announced itself lately, as placement sees them."""
        now = self._clock.now_ms()
        return [
            self._candidate(signed, now, self._promised[node_id])
            for node_id, signed in self._known.items()
            if is_fresh(signed.announcement, now)
        ]

    def candidate(self, farmer: NodeId) -> Candidate:
        """One farmer as placement sees it; a bare one when it never announced itself."""
        signed = self._known.get(farmer)
        if signed is None:
            return Candidate(farmer, free_bytes=0)
        return self._candidate(signed, self._clock.now_ms(), 0)

    def _candidate(self, signed: SignedAnnouncement, now_ms: int, promised_bytes: int) -> Candidate:
        dossier = self.dossier(signed.node_id)
        return candidate_of(
            self.tariff(signed),
            self.standing(signed.node_id),
            dossier.score,
            dossier.silence,
            now_ms,
            typical_speed=self._typical_speed,
            promised_bytes=promised_bytes,
        )

    def __len__(self) -> int:
        return len(self._known)

    def farmers(self) -> list[NodeId]:
        """Everyone who ever announced itself."""
        return list(self._known)
