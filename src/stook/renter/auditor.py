"""The auditor: asks every farmer for proof of what it holds, judges what comes, and keeps what remains of it.

One step asks heartbeats that are due, then audits that are due (`stook.audits.schedule`), each farmer apart. A
challenge goes only to who has just answered a heartbeat, and it is durable before it is sent; what it came to is one
transaction. Silence is judged at the end of the step, when it is known whether others answered: if hardly anybody did,
it was our own line (`docs/protocol/auditor.md`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from stook.audits.allowance import Allowance
from stook.audits.challenge import (
    SignedChallenge,
    pages_of,
)
from stook.audits.containment import Event, Silence
from stook.audits.holding import Holding
from stook.audits.messages import (
    Audit,
    AuditMethod,
    AuditReceipt,
    AuditReply,
)
from stook.audits.proof import AnswerKind, Came, verify
from stook.audits.receipt import settle
from stook.audits.schedule import (
    AuditedFarmer,
    AuditJob,
    JobKind,
    cadence,
    draw_interval,
    due,
    entitlement,
    first_due,
    moved_bytes,
)
from stook.clock import Clock, Entropy, Offload
from stook.codec import decode, encode
from stook.contracts.receipt import SignedStorageReceipt
from stook.contracts.verdict import Verdict
from stook.errors import ConflictError, DeadlineError, PeerError, RefusedError, UnreachableError
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, NodeId
from stook.renter.audit_rules import DAY_MS, AuditRules
from stook.renter.book import FarmerBook
from stook.renter.draw import Drawer, held_shard
from stook.renter.loss_notes import LossNotes
from stook.renter.pulses import Pulses
from stook.renter.tasks import Tasks
from stook.renter.verdicts import Judged, after_event, after_round, changed_with, kept_receipt, outcome_of
from stook.storage.agent_audit_ports import Dossier, FarmerChange, HoldingTotals, OpenChallenge
from stook.storage.audit_records import read_question, write_question
from stook.storage.renter_ports import AgentStore
from stook.wire.endpoint import Endpoint

BYTES = "audit bytes"
REQUESTS = "audit requests"
_RECEIPTS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What one step did."""

    asked: int = 0
    """Challenges that were sent."""
    passed: int = 0
    failed: int = 0
    silent: int = 0
    unreached: int = 0
    """Farmers due that did not answer the heartbeat before a challenge."""
    offline: bool = False
    """Hardly anybody answered, so nobody's silence was reported."""


@dataclass(frozen=True, slots=True)
class _Unanswered:
    """Nothing at all came from a farmer: to be reported once it is known that it was not our own line."""

    farmer: NodeId
    asked_ms: int
    judged: Judged | None
    """None: it did not answer the heartbeat before the challenge, so none was sent."""
    answers: Mapping[int, Came]
    left_open: OpenChallenge | None
    """What an earlier run may have asked."""


class Auditor:
    """The auditing part of a `LocalAgent`. `serve` before the endpoint listens; `audit_due` is one step."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        key: NodeKey,
        network: NetworkId,
        book: FarmerBook,
        store: AgentStore,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        rules: AuditRules,
    ) -> None:
        self._endpoint = endpoint
        self._key = key
        self._network = network
        self._book = book
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self._rules = rules
        self._stepping = asyncio.Lock()
        self._gate = asyncio.Semaphore(rules.at_once)
        self._totals: Mapping[NodeId, HoldingTotals] = {}
        """As of the beginning of the step."""
        self._drawer = Drawer(
            key=key, network=network, store=store, clock=clock, entropy=entropy, offload=offload, rules=rules
        )
        self._losses = LossNotes(endpoint=endpoint, key=key, book=book, store=store, clock=clock, offload=offload)
        self._pulses = Pulses(
            endpoint=endpoint,
            book=book,
            store=store,
            losses=self._losses,
            clock=clock,
            offload=offload,
            rules=rules,
            gate=self._gate,
        )

    def serve(self) -> None:
        """Answer DECLARE_LOSS: a farmer with a session to us need not wait for our heartbeat."""
        self._losses.serve()

    # --- one step ----------------------------------------------------------------------------------------------------

    async def audit_due(self) -> AuditReport:
        """Ask heartbeats and audits that are due, and wait for what comes of them."""
        async with self._stepping:
            return await self._step(everybody=False)

    async def audit_all(self) -> AuditReport:
        """A round at every farmer that holds something, whether due or not."""
        async with self._stepping:
            return await self._step(everybody=True)

    async def tidy(self) -> int:
        """Forget what was kept long enough; how much."""
        before = self._clock.now_ms() - self._rules.kept_ms
        forgotten = await self._offload(lambda: self._store.forget_receipts(before))
        return forgotten + await self._offload(lambda: self._store.fold_history(before))

    async def _step(self, *, everybody: bool) -> AuditReport:
        self._totals = {each.farmer: each for each in await self._offload(self._store.totals)}
        opened = await self._left_open()
        await self._book.reload()
        await self._deliver_all(await self._pulses.beat(self._totals))
        jobs = await self._jobs(opened, everybody=everybody)
        async with Tasks() as group:
            tasks = [group.create_task(self._round(job, opened.get(job.node_id))) for job in jobs]
        results = [task.result() for task in tasks]
        unanswered = [result for result in results if isinstance(result, _Unanswered)]
        offline = bool(unanswered) and await self._report_silence(unanswered)
        tally = Counter(result for result in results if isinstance(result, Verdict))
        asked = sum(each.judged is not None for each in unanswered)
        return AuditReport(
            asked=sum(tally.values()) + asked,
            passed=tally[Verdict.PASSED] + tally[Verdict.LOST],
            failed=tally[Verdict.FAILED] + tally[Verdict.MALFORMED],
            silent=tally[Verdict.SILENT] + asked,
            unreached=len(unanswered) - asked,
            offline=offline,
        )

    async def _left_open(self) -> dict[NodeId, OpenChallenge]:
        """What an earlier step or run asked and did not judge; what is too old is given up."""
        opened = {each.farmer: each for each in await self._offload(self._store.open_challenges)}
        oldest = self._clock.now_ms() - DAY_MS
        old = [farmer for farmer, each in opened.items() if each.signed.challenge.sent_at_ms < oldest]
        await self._book.write(*(FarmerChange(farmer, closed=True) for farmer in old))
        return {farmer: each for farmer, each in opened.items() if farmer not in old}

    # --- what is due -------------------------------------------------------------------------------------------------

    async def _jobs(self, opened: Mapping[NodeId, OpenChallenge], *, everybody: bool) -> list[AuditJob]:
        """What to ask now: what an earlier run left open, then what the schedule says."""
        now = self._clock.now_ms()
        jobs = [
            AuditJob(farmer, JobKind.RECHECK, each.signed.challenge.leaves, moved_bytes(each.signed.challenge.leaves))
            for farmer, each in opened.items()
            if self._book.dossier(farmer).silence.state is not Silence.CONDEMNED
        ]
        await self._book.write(
            *(change for each in self._totals.values() if (change := self._draw_times(each, now)) is not None)
        )
        views = [
            self._view(self._book.dossier(farmer), self._totals.get(farmer), now, everybody=everybody)
            for farmer in sorted({*self._totals, *self._book.watched()} - opened.keys())
        ]
        left = {name: await self._allowance(name) for name in (BYTES, REQUESTS)}
        jobs += due(
            views,
            bytes_left=max(0, left[BYTES].left(now)),
            requests_left=max(0, left[REQUESTS].left(now)),
            now_ms=now,
            randomness=self._entropy(8),
        )
        if jobs:
            spent = {
                BYTES: left[BYTES].spend(sum(job.moved_bytes for job in jobs), now),
                REQUESTS: left[REQUESTS].spend(len(jobs), now),
            }
            await self._offload(lambda: self._store.change(allowances=spent))
        return jobs

    async def _allowance(self, name: str) -> Allowance:
        per_day = self._rules.bytes_per_day if name == BYTES else self._rules.requests_per_day
        kept = await self._offload(partial(self._store.allowance, name))
        if kept is None or kept.per_day != per_day:
            return Allowance.full(per_day, self._clock.now_ms())
        return kept

    def _draw_times(self, totals: HoldingTotals, now_ms: int) -> FarmerChange | None:
        """The times that were not drawn yet, of a farmer that holds something new."""
        dossier = self._book.dossier(totals.farmer)
        next_ms = first_ms = None
        if not dossier.next_due_ms:
            rhythm = cadence(totals.size_bytes, *entitlement(totals.terms))
            next_ms = now_ms + draw_interval(rhythm.interval_ms, self._entropy(8))
        if totals.new_shards and not dossier.first_due_ms:
            first_ms = first_due(totals.new_since_ms, self._entropy(8))
        elif not totals.new_shards and dossier.first_due_ms:
            first_ms = 0
        if next_ms is None and first_ms is None:
            return None
        return FarmerChange(totals.farmer, next_due_ms=next_ms, first_due_ms=first_ms)

    def _view(self, dossier: Dossier, totals: HoldingTotals | None, now_ms: int, *, everybody: bool) -> AuditedFarmer:
        interval, leaves = entitlement(totals.terms) if totals else (DAY_MS, 0)
        silence = dossier.silence
        return AuditedFarmer(
            node_id=dossier.farmer,
            holding_bytes=totals.size_bytes if totals else 0,
            terms_interval_ms=interval,
            entitled_leaves=leaves,
            next_due_ms=min(now_ms, dossier.next_due_ms) if everybody else dossier.next_due_ms,
            first_due_ms=min(now_ms, dossier.first_due_ms) if everybody else dossier.first_due_ms,
            unaudited_shards=totals.new_shards if totals else 0,
            unaudited_bytes=totals.new_bytes if totals else 0,
            uncertainty=dossier.score.uncertainty(now_ms),
            containment=silence,
            question_leaves=read_question(silence.question).signed.challenge.leaves if silence.question else 0,
        )

    # --- one farmer --------------------------------------------------------------------------------------------------

    async def _round(self, job: AuditJob, left_open: OpenChallenge | None) -> Verdict | _Unanswered | None:
        """Heartbeat, draw, write down, ask, judge. None when there was nothing to ask about."""
        async with self._gate:
            farmer, begun_ms = job.node_id, self._clock.now_ms()
            if not await self._pulses.heartbeat(farmer):
                return _Unanswered(farmer, begun_ms, None, {}, left_open)
            if farmer in self._pulses.confessing:
                return None  # it is asked once it has told what it lost
            drawn = await self._drawer.draw(job, self._book.dossier(farmer), left_open)
            if drawn is None:
                await self._prove_nothing(farmer)
                return None
            opened = OpenChallenge(farmer, drawn.signed, drawn.first)
            try:
                await self._offload(lambda: self._store.change(FarmerChange(farmer, opened=opened)))
            except ConflictError:
                return None  # something was given up since: it is drawn anew with the next step
            answers, silence = await self._ask(farmer, drawn.signed)
            judged = await self._judge(drawn, answers, silence)
            outcome = outcome_of(judged.findings)
            if outcome is Verdict.SILENT and judged.silence is Event.VANISH:
                return _Unanswered(farmer, judged.challenge.sent_at_ms, judged, answers, None)
            await self._settle(farmer, judged, answers)
            await self._deliver(farmer)
            return outcome

    async def _prove_nothing(self, farmer: NodeId) -> None:
        """Contracts are over, or there is nothing to draw over: no question is left."""
        dossier, now = self._book.dossier(farmer), self._clock.now_ms()
        change = after_event(dossier, Event.PROVE, 0, now, closed=True)
        # With nothing to draw over, a time that passed would be due for ever.
        await self._book.write(changed_with(change, next_due_ms=0, first_due_ms=0))

    async def _ask(self, farmer: NodeId, signed: SignedChallenge) -> tuple[dict[int, Came], Event]:
        """Fetch the pages until the time to answer is over, and what it means if one is missing.

        Half way, and again before the end, a heartbeat tells who is down from who is mute.
        """
        challenge, rules = signed.challenge, self._rules
        half_ms = (challenge.sent_at_ms + challenge.answer_by_ms) // 2
        came: dict[int, Came] = {}
        heard: bool | None = None
        waiting = list(range(len(pages_of(challenge))))
        while waiting:
            left = (challenge.answer_by_ms - self._clock.now_ms()) / 1000
            if left <= 0:
                break
            page, pause = waiting[0], rules.retry_seconds
            payload = encode(Audit(challenge=signed, page=page, grants=()))
            try:
                answer = await self._call(farmer, AuditMethod.AUDIT, payload, min(left, rules.page_deadline_seconds))
                came[page] = Came(decode(AuditReply, answer).answer, self._clock.now_ms())
                waiting.pop(0)
                continue
            except RefusedError as error:
                heard = True
                if not error.retryable:
                    break
                pause = max(pause, error.retry_after_ms / 1000)
            except (UnreachableError, DeadlineError):
                pass
            except PeerError:
                heard = True
                break
            if heard is not True and self._clock.now_ms() >= half_ms:
                heard = await self._pulses.probe(farmer)
            left = (challenge.answer_by_ms - self._clock.now_ms()) / 1000
            await asyncio.sleep(min(pause, max(0.0, left)))
        if not waiting:
            return came, Event.SILENCE
        if heard is None and not came:
            heard = await self._pulses.probe(farmer)
        return came, Event.MUTE if heard or came else Event.VANISH

    async def _judge(self, drawn: Judged, answers: Mapping[int, Came], silence: Event) -> Judged:
        names = [ask.contract_id for ask in drawn.challenge.asks]
        noted = await self._offload(lambda: self._store.noted_losses(names))
        findings = await self._offload(lambda: verify(drawn.challenge, answers, noted))
        if silence is Event.SILENCE and any(finding.verdict is Verdict.SILENT for finding in findings):
            silence = Event.MUTE  # every page came, and one is not the farmer's word: it did answer something
        return Judged(drawn.signed, drawn.first, drawn.drawn_over, drawn.asked, findings, silence)

    async def _settle(self, farmer: NodeId, judged: Judged, answers: Mapping[int, Came]) -> None:
        """Everything that a round came to, in one transaction that closes its challenge."""
        now = max(self._clock.now_ms(), judged.challenge.sent_at_ms)
        names = [ask.contract_id for ask in judged.challenge.asks]
        noted = await self._offload(lambda: self._store.noted_losses(names))
        outages = await self._offload(self._store.outages)
        stored = await self._unknown(judged, answers)
        dossier, totals = self._book.dossier(farmer), self._totals.get(farmer)
        change = after_round(dossier, judged, totals.shards if totals else 0, outages, now)
        settled = await self._offload(
            lambda: settle(judged.challenge, answers, noted, self._key, now, findings=judged.findings)
        )
        receipt = kept_receipt(
            dossier, judged, settled, answers, list(noted.values()), await self._drawn_over(judged), stored, now
        )
        next_due = None
        if totals is not None and not judged.first and change.proved is not None:
            rhythm = cadence(totals.size_bytes, *entitlement(totals.terms))
            next_due = now + draw_interval(rhythm.interval_ms, self._entropy(8))
        await self._book.write(
            changed_with(
                change,
                receipt=receipt,
                next_due_ms=next_due,
                first_due_ms=0 if judged.first and change.proved else None,
            )
        )

    async def _drawn_over(self, judged: Judged) -> bytes:
        """The holding, as evidence of a fair draw; nothing for a question asked again."""
        if not judged.drawn_over or outcome_of(judged.findings) not in (Verdict.FAILED, Verdict.MALFORMED):
            return b""
        placements = await self._offload(lambda: [self._store.placement(name) for name in judged.drawn_over])
        return Holding(held_shard(each) for each in placements if each is not None).encoded()

    async def _unknown(self, judged: Judged, answers: Mapping[int, Came]) -> list[SignedStorageReceipt]:
        """The farmer's own receipts of shards that it says it does not know."""
        pages = pages_of(judged.challenge)
        names = [
            judged.challenge.asks[at].contract_id
            for page, came in answers.items()
            if page < len(pages)
            for at, item in zip(pages[page], came.answer.items, strict=False)
            if item.kind is AnswerKind.UNKNOWN
        ]
        placements = await self._offload(lambda: [self._store.placement(name) for name in names])
        return [each.receipt for each in placements if each is not None and each.receipt is not None]

    async def _deliver_all(self, farmers: Sequence[NodeId]) -> None:
        async def one(farmer: NodeId) -> None:
            async with self._gate:
                await self._deliver(farmer)

        async with Tasks() as group:
            for farmer in farmers:
                group.create_task(one(farmer))

    async def _deliver(self, farmer: NodeId) -> None:
        """Hand the farmer the receipts it does not have, for a day after their rounds."""
        unsent = await self._offload(lambda: self._store.unsent_receipts(farmer, _RECEIPTS_AT_ONCE))
        oldest, delivered = self._clock.now_ms() - DAY_MS, []
        for each in unsent:
            signed = each.file.receipt
            if each.judged_ms >= oldest and signed is not None:
                payload = encode(AuditReceipt(receipt=signed, lines=each.file.lines))
                try:
                    await self._call(farmer, AuditMethod.AUDIT_RECEIPT, payload, self._rules.call_deadline_seconds)
                except RefusedError as error:
                    if error.retryable:
                        break
                except PeerError:
                    break
            delivered.append(each.challenge)
        if delivered:
            await self._book.write(FarmerChange(farmer, delivered=tuple(delivered)))

    async def _call(self, farmer: NodeId, method: AuditMethod, payload: bytes, seconds: float) -> bytes:
        return await self._endpoint.call(self._book.peer(farmer), method, payload, deadline_seconds=seconds)

    # --- silence -----------------------------------------------------------------------------------------------------

    async def _report_silence(self, unanswered: Sequence[_Unanswered]) -> bool:
        """Report who did not answer, unless it was our own line; whether it was.

        Then challenges that went out unanswered stay open: they are asked again with the next step.
        """
        around = await self._pulses.look_around()
        if await self._pulses.is_our_line():
            return True
        await self._pulses.count_misses([farmer for farmer, answered in around.items() if not answered])
        outages, now = await self._offload(self._store.outages), self._clock.now_ms()
        for each in unanswered:
            if each.judged is not None:
                await self._settle(each.farmer, each.judged, each.answers)
                continue
            dossier, totals, left = self._book.dossier(each.farmer), self._totals.get(each.farmer), each.left_open
            change = after_event(
                dossier,
                Event.VANISH,
                totals.shards if totals else 0,
                now,
                closed=left is not None,
                asked_ms=each.asked_ms if left is None else left.signed.challenge.sent_at_ms,
                question=b"" if left is None else write_question(left.signed, first=left.first),
                excused=outages,
            )
            await self._book.write(change)
        return False
