"""Heartbeats: who is there, what it lost, when it means to go; and whether a silence is a farmer's or our line's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

from stook.audits.containment import Event, Silence, countable_ms, we_are_offline
from stook.audits.messages import AuditMethod, Heartbeat, HeartbeatReply
from stook.audits.score import Beat, Entry
from stook.audits.score import Heartbeat as Beaten
from stook.clock import Clock, Offload
from stook.codec import decode, encode
from stook.contracts.loss import SignedLossNote
from stook.errors import DeadlineError, PeerError, RefusedError, UnreachableError
from stook.ids import NodeId
from stook.renter.audit_rules import MINUTE_MS, AuditRules
from stook.renter.book import FarmerBook
from stook.renter.loss_notes import LossNotes
from stook.renter.tasks import Tasks
from stook.renter.verdicts import after_event, changed_with
from stook.storage.agent_audit_ports import FarmerChange
from stook.storage.renter_ports import AgentStore
from stook.wire.endpoint import Endpoint

_FRESH_MS = 5 * MINUTE_MS
"""How long it counts, for telling our own outages, that somebody answered or did not."""
_ENOUGH_PULSES = 8
_PAGES_OF_LOSSES = 256
_PATIENCE = 3
"""How many deadlines of one call a farmer may take for all that it has to say."""


class Pulses:
    """The part of an `Auditor` that asks heartbeats. `gate` bounds how many farmers are asked beside each other."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        book: FarmerBook,
        store: AgentStore,
        losses: LossNotes,
        clock: Clock,
        offload: Offload,
        rules: AuditRules,
        gate: asyncio.Semaphore,
    ) -> None:
        self._endpoint = endpoint
        self._book = book
        self._store = store
        self._losses = losses
        self._clock = clock
        self._offload = offload
        self._rules = rules
        self._gate = gate
        self.confessing: set[NodeId] = set()
        """Those that had more losses to tell than there was time for, and are still telling new ones: what they did not
        come to yet may not be asked about, or honest losses would be lies.
        """
        self._missed: Counter[NodeId] = Counter()
        """Heartbeats missed in a row, while it was not our line."""
        self._pulses: dict[NodeId, tuple[int, bool]] = {}
        self._holders: frozenset[NodeId] = frozenset()
        """Farmers that hold something, as of the last step."""
        self._dark_since_ms = 0
        """Since when most farmers do not answer; 0: they do."""

    async def beat(self, holders: Iterable[NodeId]) -> list[NodeId]:
        """The heartbeats that are due, of `holders` and of those that are silent; who answered.

        What nobody answered is judged together.
        """
        self._holders = frozenset(holders)
        now, wanted = self._clock.now_ms(), []
        for farmer in sorted({*self._holders, *self._book.watched()}):
            dossier = self._book.dossier(farmer)
            state = dossier.silence.state
            if state is Silence.CONDEMNED:
                continue
            doubtful = state in (Silence.CONTAINED, Silence.OFFLINE) or farmer in self._missed
            every = self._rules.look_ms if doubtful and state is not Silence.GONE else self._rules.beat_ms
            asked_ms = max(dossier.beat_ms, self._pulses.get(farmer, (0, False))[0])
            if now - asked_ms >= every:
                wanted.append(farmer)
        if not wanted:
            return []
        heard = await self._beats(wanted)
        there = [farmer for farmer, answered in heard.items() if answered]
        if not all(heard.values()):
            heard |= await self.look_around()
        if not await self.is_our_line():
            await self.count_misses([farmer for farmer, answered in heard.items() if not answered])
        return there

    async def count_misses(self, farmers: Sequence[NodeId]) -> None:
        """They did not answer, and it was not our line."""
        now, outages = self._clock.now_ms(), await self._offload(self._store.outages)
        for farmer in farmers:
            self._missed[farmer] += 1
            counts = self._is_countable(farmer, now)
            entries = (Entry(now, Beaten(Beat.MISSED, self._covered(farmer, outages))),) if counts else ()
            # Rounds of a small holding are weeks apart: who is away is to be asked, and found missing, before that.
            due_now = self._missed[farmer] >= self._rules.misses and farmer in self._holders
            change = FarmerChange(farmer, entries=entries)
            await self._book.write(
                changed_with(change, beat_ms=now if counts else None, next_due_ms=now if due_now else None)
            )

    async def _beats(self, farmers: Sequence[NodeId]) -> dict[NodeId, bool]:
        """Who of them answers."""

        async def one(farmer: NodeId) -> bool:
            async with self._gate:
                return await self.heartbeat(farmer)

        async with Tasks() as group:
            tasks = {farmer: group.create_task(one(farmer)) for farmer in farmers}
        return {farmer: task.result() for farmer, task in tasks.items()}

    def _is_countable(self, farmer: NodeId, now_ms: int) -> bool:
        """Heartbeats closer together than half the usual time speak for no time of their own."""
        return now_ms - self._book.dossier(farmer).beat_ms >= self._rules.beat_ms // 2

    def _covered(self, farmer: NodeId, outages: Sequence[tuple[int, int]]) -> int:
        since, now = self._book.dossier(farmer).beat_ms, self._clock.now_ms()
        return countable_ms(since, now, outages) if since else self._rules.beat_ms

    async def heartbeat(self, farmer: NodeId) -> bool:
        """Ask whether it is there and what it lost; note losses, and hand it the notes. Whether it answered.

        A signed refusal is an answer, unless it says to come again later: then nobody could declare anything in it.
        """
        answered = await self._ask_heartbeat(farmer)
        now = self._clock.now_ms()
        self._pulses[farmer] = (now, answered)
        if answered:
            self._missed.pop(farmer, None)
            counts = self._is_countable(farmer, now)
            covered = self._covered(farmer, await self._offload(self._store.outages)) if counts else 0
            entries = (Entry(now, Beaten(Beat.ANSWERED, covered)),) if counts else ()
            change = after_event(self._book.dossier(farmer), Event.HEAR, 0, now, entries=entries)
            await self._book.write(changed_with(change, heard_ms=now, beat_ms=now if counts else None))
        return answered

    async def _ask_heartbeat(self, farmer: NodeId) -> bool:
        after, notes, news = b"", tuple[SignedLossNote, ...](), 0
        self.confessing.discard(farmer)
        until = self._clock.monotonic() + _PATIENCE * self._rules.call_deadline_seconds
        try:
            for _ in range(_PAGES_OF_LOSSES):
                if self._clock.monotonic() >= until:
                    self._put_off(farmer, news)
                    break
                payload = encode(Heartbeat(after=after, notes=notes))
                answer = await self._endpoint.call(
                    self._book.peer(farmer),
                    AuditMethod.HEARTBEAT,
                    payload,
                    deadline_seconds=self._rules.call_deadline_seconds,
                )
                reply = decode(HeartbeatReply, answer)
                await self._note_leave(farmer, reply.leaving_by_ms)
                noted, fresh = await self._losses.note(farmer, reply.losses)
                notes, news = tuple(each.note for each in noted), news + fresh
                last = reply.losses[-1].loss.contract_id if reply.losses else b""
                if last > after:
                    after = last
                elif reply.more:
                    break
                if not reply.more and not notes:
                    break
            else:
                self._put_off(farmer, news)
        except RefusedError as error:
            return not error.retryable
        except (UnreachableError, DeadlineError):
            return False
        except PeerError:
            return True
        return True

    def _put_off(self, farmer: NodeId, news: int) -> None:
        """What it has left to say it says the next time. Who told nothing new in all that time only kept us waiting."""
        if news:
            self.confessing.add(farmer)

    async def _note_leave(self, farmer: NodeId, by_ms: int) -> None:
        if by_ms != self._book.dossier(farmer).leaving_by_ms:
            await self._book.write(FarmerChange(farmer, leaving_by_ms=by_ms))

    async def look_around(self) -> dict[NodeId, bool]:
        """Ask some others, if too few were asked lately to tell our own line from a farmer's; who of them answered."""
        now = self._clock.now_ms()
        lately = {farmer for farmer, (at_ms, _) in self._pulses.items() if now - at_ms <= _FRESH_MS}
        others = [farmer for farmer in sorted(self._holders) if farmer not in lately]
        if len(lately) >= _ENOUGH_PULSES:
            return {}
        return await self._beats(others[: 2 * _ENOUGH_PULSES])

    async def is_our_line(self) -> bool:
        """Whether hardly anybody answered lately; that time is written down as ours."""
        now = self._clock.now_ms()
        lately = [answered for at_ms, answered in self._pulses.values() if now - at_ms <= _FRESH_MS]
        if 2 * sum(lately) >= len(lately):
            if self._dark_since_ms:
                await self._offload(lambda: self._store.note_outage(self._dark_since_ms, now))
            self._dark_since_ms = 0
            return False
        self._dark_since_ms = self._dark_since_ms or now - self._rules.answer_within_ms
        if not we_are_offline(lately, now - self._dark_since_ms):
            return False
        await self._offload(lambda: self._store.note_outage(self._dark_since_ms, now))
        return True

    async def probe(self, farmer: NodeId) -> bool:
        """Whether it answers now; this counts for telling our own line, and for no score."""
        answered = await self._ask_heartbeat(farmer)
        self._pulses[farmer] = (self._clock.now_ms(), answered)
        return answered
