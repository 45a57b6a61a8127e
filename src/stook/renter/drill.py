"""Restore drills: bring stored segments back for no other reason than to know that they come.

The road is that of every download, from the catalog's sealed records to the farmers' disks and back through mask, code
and cipher; only what is compared in the end is thrown away (`docs/protocol/drills.md`). What to drill next is decided
in `drill_plan`; this module does it, keeps what came of it in the catalog, and signs what that adds up to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from stook.clock import Clock, Entropy, Offload
from stook.codec import decode, encode
from stook.errors import (
    CorruptionError,
    DeadlineError,
    MalformedError,
    NotEnoughError,
    NotFoundError,
    PeerError,
    UnreachableError,
    UserError,
)
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, NodeId, PublicKey, SegmentId
from stook.renter.certificate import SignedCertificate, draft_certificate, period_of, sign_certificate
from stook.renter.drill_plan import Pick, choose, choose_rows, largest_bytes, rows_after
from stook.renter.fetch import Fetcher, Wish
from stook.renter.gauge import Gauge
from stook.renter.ports import Agent, Dealing, Located, Ticket
from stook.renter.slots import Slot, SlotPool
from stook.renter.vault import Vault
from stook.shards.erasure import Codec
from stook.shards.geometry import LADDER, SegmentShape, units_of
from stook.shards.pipeline import plain_hash, unseal
from stook.shards.pointer import Extent, SegmentRecord
from stook.storage.drill_ports import DrillOutcome, DrillTarget, after
from stook.storage.renter_ports import Catalog, SegmentEntry
from stook.wire.endpoint import Endpoint

_EXTRA_ROWS = 2
_DEADLINE_SECONDS = 120.0
_RELOAD_AFTER = 64
"""Drills after which the pool is read again, for objects that came and went meanwhile."""
UNHEARD_IN_A_ROW = 3
"""So many drills to which nobody answered, with nothing else to say that we are on the network, end a run."""


@dataclass(frozen=True, slots=True)
class Drilled:
    """One drill: what is recorded of it, and who did not give back what it should hold."""

    target: DrillTarget
    outcome: DrillOutcome
    refusals: Mapping[NodeId, str]
    """Farmers that were asked for a shard and did not bring a true one in time, and what they did instead."""
    heard: bool
    """Whether it is a judgement: somebody answered, or nobody needed to be asked."""
    charged_bytes: int
    """What counts against a budget: false and broken transfers too."""


OnDrill = Callable[[Drilled], None]


class _Witness(Fetcher):
    """A fetcher that remembers who was asked, who gave, and who did not."""

    def __init__(self, *, agent: Agent, endpoint: Endpoint, clock: Clock, offload: Offload) -> None:
        super().__init__(
            agent=agent, endpoint=endpoint, clock=clock, offload=offload, shard_deadline_seconds=_DEADLINE_SECONDS
        )
        self.asked: dict[int, NodeId] = {}
        self.given: set[int] = set()
        self.heard = False
        self.charged_bytes = 0
        self._whys: dict[NodeId, str] = {}

    async def retrieve(self, ticket: Ticket, wish: Wish, row: memoryview, gauge: Gauge | None = None) -> None:
        """As the plain fetcher."""
        self.asked[ticket.index] = ticket.peer.node_id
        self.charged_bytes += wish.run_bytes
        try:
            await super().retrieve(ticket, wish, row, gauge)
        except PeerError as error:
            self.heard |= not isinstance(error, UnreachableError | DeadlineError)
            self._whys[ticket.peer.node_id] = str(error)
            raise
        self.heard = True
        self.given.add(ticket.index)

    def note(self, dealing: Dealing) -> None:
        """As the plain fetcher."""
        super().note(dealing)
        if not dealing.ok:
            self._whys.setdefault(dealing.farmer, "too slow: others gave theirs long before")

    @property
    def refusals(self) -> dict[NodeId, str]:
        """Who failed, and never gave the shard after all."""
        lacking = {farmer for index, farmer in self.asked.items() if index not in self.given}
        return {farmer: why for farmer, why in self._whys.items() if farmer in lacking}


@dataclass(slots=True)
class DrillReport:
    """What a run came to."""

    drills: int = 0
    passed: int = 0
    proved_bytes: int = 0
    fetched_bytes: int = 0
    charged_bytes: int = 0
    failed: list[Drilled] = field(default_factory=list)
    refusals: dict[NodeId, str] = field(default_factory=dict)
    """Farmers that gave back too little, with the last reason of each."""
    offline: bool = False
    """Nobody answered at all: no judgement."""
    complete: bool = False
    """Everything that could be drilled was."""

    def count(self, drilled: Drilled) -> None:
        """Add one that is recorded."""
        self.drills += 1
        self.fetched_bytes += drilled.outcome.fetched_bytes
        self.refusals.update(drilled.refusals)
        if drilled.outcome.passed:
            self.passed += 1
            self.proved_bytes += drilled.target.plain_bytes
        else:
            self.failed.append(drilled)


class Pool:
    """The segments that may be drilled, kept in memory between draws and read again now and then."""

    def __init__(self, catalog: Catalog, clock: Clock, offload: Offload, buckets: Sequence[str] | None) -> None:
        self._catalog = catalog
        self._clock = clock
        self._offload = offload
        self._buckets = buckets
        self._targets: dict[SegmentId, DrillTarget] = {}
        self._fresh_for = 0

    async def targets(self) -> Collection[DrillTarget]:
        """All of them, as of not long ago. Raises `NotFoundError` without one of the buckets."""
        if self._fresh_for <= 0:
            drills, now = self._catalog.drills, self._clock.now_ms()
            await self._offload(lambda: drills.enlist(now))
            found = await self._offload(lambda: drills.targets(self._buckets))
            self._targets = {target.segment_id: target for target in found}
            self._fresh_for = _RELOAD_AFTER
        return self._targets.values()

    def stale(self) -> None:
        """Read it again before the next draw."""
        self._fresh_for = 0

    def learn(self, outcome: DrillOutcome) -> None:
        """Count a drill that was recorded."""
        self._fresh_for -= 1
        target = self._targets.get(outcome.segment_id)
        if target is not None:
            self._targets[outcome.segment_id] = after(target, outcome)

    def drop(self, segment_id: SegmentId) -> None:
        """Nothing refers to it any more."""
        self._targets.pop(segment_id, None)


class Driller:
    """Drills segments and certifies buckets. One drill at a time takes one slot of the client's memory."""

    def __init__(
        self,
        *,
        agent: Agent,
        endpoint: Endpoint,
        node_key: PublicKey,
        network: NetworkId,
        slots: SlotPool,
        vault: Vault,
        catalog: Catalog,
        codec: Codec,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
    ) -> None:
        self._agent = agent
        self._endpoint = endpoint
        self._node_key = node_key
        self._network = network
        self._slots = slots
        self._vault = vault
        self._catalog = catalog
        self._codec = codec
        self._clock = clock
        self._entropy = entropy
        self._offload = offload

    def pool(self, buckets: Sequence[str] | None = None) -> Pool:
        """What may be drilled of these buckets, or of all."""
        return Pool(self._catalog, self._clock, self._offload, buckets)

    # --- one drill ---------------------------------------------------------------------------------------------------

    async def attempt(self, pick: Pick) -> Drilled | None:
        """Drill one segment, and record nothing yet. None when nothing refers to it any more."""
        target = pick.target
        witness = _Witness(agent=self._agent, endpoint=self._endpoint, clock=self._clock, offload=self._offload)
        why, asked_in_vain, stored = "", False, frozenset[int]()
        try:
            entry, extents = await self._offload(lambda: self._look_up(target.segment_id))
            if entry is None:
                return None
            record = self._vault.open_segment(entry)
            located = await self._locate(target.segment_id)
            stored = _stored(located, record)
            await self._prove(target, record, located, stored, extents, witness)
        except NotEnoughError as error:
            why, asked_in_vain = str(error), bool(witness.asked) and not witness.heard
        except (CorruptionError, NotFoundError) as error:
            why = str(error)
        if why and not await self._offload(lambda: self._catalog.drills.objects_of(target.segment_id)):
            return None  # replaced or removed while it was drilled: its shards are being erased, and rightly so
        given = witness.given
        refusals = witness.refusals
        outcome = DrillOutcome(
            segment_id=target.segment_id,
            at_ms=self._clock.now_ms(),
            passed=not why,
            spot=pick.spot,
            rows=rows_after(target.rows, stored, given),
            fetched_bytes=len(given) * target.fetch_bytes // target.k,
            asked=len(witness.asked),
            refused=sum(index not in given and farmer in refusals for index, farmer in witness.asked.items()),
            why=why,
        )
        return Drilled(target, outcome, refusals, not asked_in_vain, witness.charged_bytes)

    async def record(self, drilled: Drilled) -> None:
        """Keep how a drill ended."""
        await self._offload(lambda: self._catalog.drills.record(drilled.outcome))

    def _look_up(self, segment_id: SegmentId) -> tuple[SegmentEntry | None, list[tuple[str, Extent]]]:
        """The segment, and the extents in it of all objects, under their names. Raises `CorruptionError`."""
        users = self._catalog.drills.objects_of(segment_id)
        entry = self._catalog.segments([segment_id]).get(segment_id) if users else None
        if entry is None:
            return None, []
        buckets = {bucket.name: bucket for bucket in self._catalog.buckets()}
        extents = []
        for user in users:
            if user.bucket in buckets:  # else it was removed this very moment
                record = self._vault.open_object(buckets[user.bucket], user)
                label = f"{user.bucket}/{user.name}"
                extents += [(label, extent) for extent in record.extents if extent.segment_id == segment_id]
        return entry, extents

    async def _locate(self, segment_id: SegmentId) -> Located:
        located = (await self._agent.locate([segment_id], self._node_key)).get(segment_id)
        if located is None:
            raise NotFoundError("the agent knows no farmer that holds it; try `stook agent sync`")
        return located

    async def _prove(
        self,
        target: DrillTarget,
        record: SegmentRecord,
        located: Located,
        stored: frozenset[int],
        extents: Sequence[tuple[str, Extent]],
        witness: _Witness,
    ) -> None:
        """Bring it here and compare. Raises `NotEnoughError`, `CorruptionError`."""
        chosen = choose_rows(record.k, stored, target.rows, self._entropy)
        units = units_of(record.shape, 0, record.plain_bytes)
        wish = Wish(
            k=record.k,
            shard_bytes=record.shard_bytes,
            first_unit=units.first,
            end_unit=units.end,
            roots=dict(enumerate(record.roots)),
            exactly=chosen if len(chosen) == record.k else (),
        )
        rows = min(len(record.roots), record.k + _EXTRA_ROWS)
        step = next(step for step in LADDER if step >= units.run_bytes)
        shape = SegmentShape(record.k, rows, step)
        async with self._slots.leased(shape, record.plain_bytes) as slot:
            shards = await witness.fetch(located, wish, slot.rows(step))
            await self._offload(lambda: self._compare(record, located, shards, extents, slot))

    def _compare(
        self,
        record: SegmentRecord,
        located: Located,
        shards: Mapping[int, memoryview],
        extents: Sequence[tuple[str, Extent]],
        slot: Slot,
    ) -> None:
        plain = slot.plain[: record.plain_bytes]
        plain[:] = bytes(len(plain))  # what an earlier drill left here must not pass for what came now
        with self._slots.scratch() as scratch:
            unseal(
                shards,
                key=record.key,
                mask_key=located.mask_key,
                shape=record.shape,
                into=plain,
                codec=self._codec,
                scratch=scratch,
                copies={ticket.index: ticket.copy for ticket in located.tickets},
            )
        if plain_hash(plain) != record.plain_hash:
            raise CorruptionError("its shards are true and give other bytes than were stored")
        for label, extent in extents:
            part = plain[extent.offset : extent.offset + extent.length]
            if len(part) != extent.length or plain_hash(part) != extent.plain_hash:
                raise CorruptionError(f"the record of {label} is about other bytes than its segment has")

    # --- a run -------------------------------------------------------------------------------------------------------

    async def run(
        self, budget_bytes: int, *, buckets: Sequence[str] | None = None, on_drill: OnDrill = lambda drilled: None
    ) -> DrillReport:
        """Drill until `budget_bytes` are fetched or every segment was drilled once in this run.

        Raises `NotFoundError` without one of the buckets, `UserError` when the budget does not suffice for the largest.
        """
        pool, run = self.pool(buckets), Run(self, on_drill)
        done: set[SegmentId] = set()
        while not run.report.offline:
            targets = list(await pool.targets())
            # Before the draw: what is drawn must not be dropped for its size, or small segments would be drawn more.
            most = largest_bytes(targets, done)
            if run.report.charged_bytes + most > budget_bytes:
                if not done:
                    raise UserError(f"{budget_bytes:,} bytes are too few: the largest segment takes {most:,}")
                break
            pick = choose(targets, self._clock.now_ms(), self._entropy, done=done, rest_ms=0, retry_now=True)
            if pick is None:
                run.report.complete = True
                break
            done.add(pick.target.segment_id)
            for outcome in await run.drill(pick, pool):
                pool.learn(outcome)
        run.end()
        return run.report

    # --- certificates ------------------------------------------------------------------------------------------------

    async def certify(self, bucket: str, key: NodeKey) -> SignedCertificate:
        """Sign and keep the bucket's next certificate. Raises `NotFoundError`, `ConflictError` when two do it at once,
        `CorruptionError` when the last one kept does not decode.
        """
        now = self._clock.now_ms()

        def work() -> SignedCertificate:
            catalog, drills = self._catalog, self._catalog.drills
            drills.enlist(now)
            facts, totals, targets = catalog.bucket(bucket), catalog.totals(bucket), drills.targets([bucket])
            period = period_of(targets, now)
            kept = _decoded(bucket, drills.certificates(bucket, 1))
            certificate = draft_certificate(
                facts,
                totals,
                targets,
                drills.sums(bucket, *period),
                period,
                network=self._network,
                key=key,
                last=kept[-1] if kept else None,
            )
            signed = sign_certificate(certificate, key)
            drills.add_certificate(bucket, certificate.sequence, encode(signed))
            return signed

        return await self._offload(work)

    async def certificates(self, bucket: str, limit: int | None = None) -> list[SignedCertificate]:
        """The newest `limit` kept, or all, oldest first. Raises `NotFoundError`, `CorruptionError`."""
        return await self._offload(lambda: _decoded(bucket, self._catalog.drills.certificates(bucket, limit)))


class Run:
    """Drills in a row, and the doubt whether it is us when nobody answers.

    A drill without any answer is held back while nothing at all was heard in this run; the first answer makes a failure
    of it, and too many of them end the run.
    """

    def __init__(self, driller: Driller, on_drill: OnDrill) -> None:
        self._driller = driller
        self._on_drill = on_drill
        self._held: list[Drilled] = []
        self._heard = False
        self.report = DrillReport()

    async def drill(self, pick: Pick, pool: Pool) -> list[DrillOutcome]:
        """One drill; what was recorded now, earlier ones that were held back included."""
        drilled = await self._driller.attempt(pick)
        if drilled is None:
            pool.drop(pick.target.segment_id)
            return []
        self.report.charged_bytes += drilled.charged_bytes
        self._heard |= drilled.heard and bool(drilled.outcome.asked)
        self._held.append(drilled)
        if not self._heard and not drilled.heard:
            self.report.offline = len(self._held) >= UNHEARD_IN_A_ROW
            return []
        recorded = [each for each in self._held if self._heard or each.heard]
        self._held = [each for each in self._held if each not in recorded]
        for each in recorded:
            await self._driller.record(each)
            self.report.count(each)
            self._on_drill(each)
        return [each.outcome for each in recorded]

    def end(self) -> None:
        """Nothing follows: what is still held back stays without judgement."""
        self.report.offline |= bool(self._held)


def _stored(located: Located, record: SegmentRecord) -> frozenset[int]:
    """The rows that may be fetched: those that somebody holds under the root in our own record."""
    return frozenset(
        ticket.index
        for ticket in located.tickets
        if ticket.copy == 0 and ticket.index < len(record.roots) and ticket.root == record.roots[ticket.index]
    )


def _decoded(bucket: str, kept: Sequence[bytes]) -> list[SignedCertificate]:
    try:
        return [decode(SignedCertificate, data) for data in kept]
    except MalformedError as error:
        raise CorruptionError(f"a certificate of {bucket!r} in the catalog does not decode: {error}") from error
