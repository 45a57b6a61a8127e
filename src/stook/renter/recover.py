"""From 24 words and one live farmer to everything: contracts, then the catalog, under a new epoch.

In this order: find farmers, hear every recovery record, list our contracts (so that nothing is ever claimed twice),
take the highest state of the catalog, tell the farmers that a new writer is there, fetch, check, and only then let the
new catalog have its name. Whoever pays asks each farmer for our highest cheque before it signs a first one
(`stook.renter.recover.BeforePaying`, `docs/protocol/recovery.md`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stook.clock import Clock, Entropy, Offload
from stook.codec import encode
from stook.contracts.recovery import SignedRecoveryRecord
from stook.errors import ConflictError, CorruptionError, NotEnoughError, NotFoundError
from stook.ids import NetworkId, SegmentId
from stook.renter.agent import LocalAgent
from stook.renter.journal_seal import JournalKeys, RecoveryContent
from stook.renter.pointers import RecoveryPointers
from stook.renter.restorer import Offer, OnRows, Opened, Restorer, heads_held, highest_epoch, offers
from stook.renter.saver import RecordMaker, first_sequence, rivalry
from stook.storage.catalog import SqlCatalog
from stook.storage.journal_load import CatalogLoader
from stook.storage.journal_ports import Journal
from stook.wire.endpoint import Peer

_PAGE = 1000
_ROUNDS = 4
"""How far the search for farmers spreads from the one that is known."""
BeforePaying = Callable[[], Awaitable[None]]
"""Where payments join in: ask each farmer that holds a contract of ours for our highest cheque, and take the highest
as the point to go on from. Called when contracts are known and before anything is signed."""


async def _nothing_to_pay() -> None:
    """Until cheques exist there is none to ask for."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the person said when more than one answer is possible."""

    accept_older: bool = False
    """Take the newest state that opens although a later one is known."""
    writer: str = ""
    """The device to believe, when two saved at once: the first digits of its number."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What came back, and what did not."""

    saved_ms: int
    """The moment of the catalog that is back."""
    epoch: int
    buckets: int
    objects: int
    size_bytes: int
    rows: int
    contracts: int
    """Placements that farmers listed."""
    farmers: int
    records: int
    """Recovery records that were offered and true."""
    missing_segments: int
    """Segments of the catalog that no farmer named: those farmers did not answer, or it is lost."""
    unnamed_segments: int
    """Segments at farmers that the catalog does not name: durable, and never made recoverable."""
    unnamed_shards: int
    """Shards of those."""
    node_indices: tuple[tuple[int, int], ...]
    settings: str
    skipped: tuple[str, ...] = ()
    """Later states that were passed over, and why."""


class Recovery:
    """One recovery. Use it on one event loop."""

    def __init__(
        self,
        *,
        agent: LocalAgent,
        restorer: Restorer,
        pointers: RecoveryPointers,
        keys: JournalKeys,
        maker: RecordMaker,
        network: NetworkId,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        before_paying: BeforePaying = _nothing_to_pay,
    ) -> None:
        self._agent = agent
        self._restorer = restorer
        self._pointers = pointers
        self._keys = keys
        self._maker = maker
        self._network = network
        self._clock = clock
        self._entropy = entropy
        self._offload = offload
        self._before_paying = before_paying

    async def run(self, path: Path, wanted: Wanted = Wanted(), on_rows: OnRows = lambda done, total: None) -> Recovered:
        """Bring the catalog back to `path`, where none may be.

        Raises `NotFoundError` when nothing is saved under these words, `NotEnoughError` when too few of its farmers
        answer, or a later state is known that does not open, `ConflictError` when two devices saved at once.
        """
        records = await self._hear()
        contracts = await self._agent.sync()
        await self._before_paying()
        heads = await heads_held(self._agent.all_segments(_PAGE), self._keys)
        found = offers(records.items(), heads, self._keys)
        opened, skipped = await self._choose(found, wanted)
        epoch = highest_epoch(records, found) + 1
        record = await self._open_epoch(epoch, opened, records)
        await self._load(path, epoch, opened, record, on_rows)
        return await self._report(path, epoch, opened, contracts, len(records), skipped)

    # --- finding -----------------------------------------------------------------------------------------------------

    async def _hear(self) -> Mapping[SignedRecoveryRecord, RecoveryContent]:
        """Every true record that anybody offers. The farmers that records name are asked as well."""
        await self._agent.refresh()
        records, known = await self._ask(), 0
        for _ in range(_ROUNDS):
            # Farmers tell of farmers, and records name those that held something when they were made.
            book = self._agent.book
            peers = {farmer: Peer(farmer, addresses) for one in records.values() for farmer, addresses in one.hints()}
            peers |= {farmer: book.peer(farmer) for farmer in book.farmers()}
            await self._agent.meet(list(peers.values()))
            if len(book) == known:
                break
            known = len(book)
            records |= await self._ask()
        return records

    async def _ask(self) -> dict[SignedRecoveryRecord, RecoveryContent]:
        found = await self._pointers.get(self._keys.record_key.public_key)

        def judge() -> dict[SignedRecoveryRecord, RecoveryContent]:
            opened = {record: self._keys.open(record, self._network) for record in found}
            return {record: content for record, content in opened.items() if content is not None}

        return await self._offload(judge)

    async def _choose(self, found: Sequence[Offer], wanted: Wanted) -> tuple[Opened, tuple[str, ...]]:
        """The highest state that opens. Raises as `run`."""
        if not found:
            farmers = len(self._agent.book)
            raise NotFoundError(
                f"nothing is saved under these words at the {farmers} farmers that are known: are the words and the "
                "network right? Name another farmer with --seed"
            )
        skipped: list[str] = []
        for offer in found:
            rivals = [each for each in found if each.sequence == offer.sequence]
            if len(rivals) > 1:
                _choose_writer(rivals, wanted.writer)
                if not offer.writer.hex().startswith(wanted.writer):
                    continue
            try:
                opened = await self._restorer.open_head(offer.segment_id, offer.sequence)
            except (NotEnoughError, CorruptionError) as error:
                skipped.append(f"save {offer.sequence & 0xFFFFFFFFFF}: {error}")
                continue
            if skipped and not wanted.accept_older:
                raise NotEnoughError(
                    f"a later state of the catalog than the one that can be fetched was begun ({'; '.join(skipped)}). "
                    "Try again when more farmers answer. If the last save was only interrupted, or those farmers will "
                    f"not come back, --accept-older takes the state of {opened.manifest.saved_ms} ms"
                )
            return opened, tuple(skipped)
        raise NotEnoughError(f"the saved catalog is known and cannot be fetched: {'; '.join(skipped)}")

    # --- taking over -------------------------------------------------------------------------------------------------

    async def _open_epoch(
        self, epoch: int, opened: Opened, records: Mapping[SignedRecoveryRecord, RecoveryContent]
    ) -> SignedRecoveryRecord:
        """Leave a record of the new epoch, so that whoever saved before is told. Raises `ConflictError`."""
        newest = max(records, key=lambda record: record.body.sequence, default=None)
        record = await self._maker.make(
            first_sequence(epoch),
            self._entropy(16),
            opened.save.sequence,
            opened.save.head,
            b"" if newest is None else encode(newest),
        )
        left = await self._pointers.put(record)
        for other in left.others:
            if self._keys.open(other, self._network) is not None and (alarm := rivalry(record, other)) is not None:
                raise ConflictError(alarm)
        if not left.accepted:
            raise NotEnoughError("no farmer would keep the record of the new epoch: try again")
        return record

    async def _load(
        self, path: Path, epoch: int, opened: Opened, record: SignedRecoveryRecord, on_rows: OnRows
    ) -> None:
        schema = opened.manifest.schema
        loader = await self._offload(lambda: CatalogLoader(path, schema))
        try:
            saves = opened.saves
            chain = [saves[each] for each in (*opened.manifest.chain, opened.save.sequence)]
            await self._restorer.load(chain, loader, on_rows)

            def publish() -> None:
                half = loader.check()
                catalog = SqlCatalog.open(half)
                try:
                    catalog.journal.adopt(epoch, list(saves.values()), opened.points, encode(record), schema)
                finally:
                    catalog.close()
                loader.publish()

            await self._offload(publish)
        finally:
            await self._offload(loader.close)

    async def _report(
        self, path: Path, epoch: int, opened: Opened, contracts: int, records: int, skipped: tuple[str, ...]
    ) -> Recovered:
        catalog = await self._offload(lambda: SqlCatalog.open(path))
        try:
            names = [bucket.name for bucket in await self._offload(catalog.buckets)]
            totals = await self._offload(lambda: [catalog.totals(name) for name in names])
            missing = await self._missing(catalog)
            unnamed, unnamed_shards = await self._unnamed(catalog)
        finally:
            await self._offload(catalog.close)
        return Recovered(
            saved_ms=opened.save.saved_ms,
            epoch=epoch,
            buckets=len(names),
            objects=sum(each.objects for each in totals),
            size_bytes=sum(each.size_bytes for each in totals),
            rows=sum(each.rows for sequence, each in opened.saves.items() if sequence in opened.points[-1].chain),
            contracts=contracts,
            farmers=len(self._agent.book),
            records=records,
            missing_segments=missing,
            unnamed_segments=unnamed,
            unnamed_shards=unnamed_shards,
            node_indices=((0, 0),),
            settings=opened.manifest.settings,
            skipped=skipped,
        )

    async def _missing(self, catalog: SqlCatalog) -> int:
        missing, after = 0, b""
        while page := await self._offload(lambda after=after: catalog.segment_ids(after, _PAGE)):  # type: ignore[misc]
            missing += len(page) - len(await self._agent.known(page))
            after = page[-1]
        return missing

    async def _unnamed(self, catalog: SqlCatalog) -> tuple[int, int]:
        count = shards = 0
        async for page in unnamed_segments(self._agent.all_segments(_PAGE), catalog, self._keys, self._offload):
            held = await self._agent.holdings(page)
            count += len(page)
            shards += sum(len(each.shards) for each in held.values())
        return count, shards


def newest_save(journal: Journal) -> int:
    """The sequence of the newest save that counts here; 0 when none does, or another device's may be the true one."""
    saves = journal.saves()
    return saves[-1].sequence if saves and not journal.state().alarm else 0


async def unnamed_segments(
    pages: AsyncIterator[Sequence[SegmentId]],
    catalog: SqlCatalog,
    keys: JournalKeys,
    offload: Offload,
    *,
    finished: int = 0,
) -> AsyncIterator[Sequence[SegmentId]]:
    """Segments that contracts are for and no object, upload or save of the catalog: stored, and known to nobody.

    Parts of saves that the journal does not know are among them when they are older than `finished`: a device that is
    lost was interrupted in them, or did not get to give them up. Newer ones may be another device's.
    """
    saved = await offload(catalog.journal.segments)

    def strange(segment_id: SegmentId, known: frozenset[SegmentId]) -> bool:
        if segment_id in known or segment_id in saved:
            return False
        name = keys.name_of(segment_id)
        return name is None or name.sequence < finished

    async for page in pages:
        known = await offload(lambda page=page: catalog.known_segments(page))  # type: ignore[misc]
        if some := [each for each in page if strange(each, known)]:
            yield some


def _choose_writer(rivals: Sequence[Offer], writer: str) -> None:
    """Raises `ConflictError` unless exactly one of them is the writer's."""
    if writer and sum(each.writer.hex().startswith(writer) for each in rivals) == 1:
        return
    named = ", ".join(f"{each.writer.hex()[:16] or 'one that left no record'} at {each.saved_ms} ms" for each in rivals)
    raise ConflictError(
        f"two devices saved the catalog at the same time with these words ({named}). They are not mixed: say with "
        "--writer which one is right"
    )
