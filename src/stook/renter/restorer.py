"""Brings a saved catalog back: finds the newest head, follows its chain, and fills a new file part by part.

Candidates for the newest come from recovery records and from our own contracts, whose segment ids say which are heads;
the highest that opens is taken, and when a higher one is known that does not, that is said
(`docs/protocol/recovery.md`). Memory is one part and one block of rows, whatever the catalog's size.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stook.clock import Offload
from stook.contracts.recovery import SignedRecoveryRecord
from stook.errors import CorruptionError, NotEnoughError
from stook.ids import NetworkId, PublicKey, SegmentId
from stook.renter.fetch import Fetcher, Wish
from stook.renter.journal_seal import JournalKeys, RecoveryContent
from stook.renter.ports import Agent
from stook.renter.slots import SlotPool
from stook.shards.erasure import Codec
from stook.shards.geometry import SegmentShape
from stook.shards.pipeline import unseal
from stook.storage.journal_load import CatalogLoader
from stook.storage.journal_records import (
    JOURNAL_VERSION,
    BlockReader,
    PartHead,
    PartRef,
    Point,
    SaveHead,
    SaveRef,
    epoch_of,
    first_frame,
    open_frame,
)

T = TypeVar("T")
_EXTRA_ROWS = 2
OnRows = Callable[[int, int], None]
"""Told of progress: rows applied, and rows there are."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A head that something says exists."""

    sequence: int
    segment_id: SegmentId
    writer: bytes = b""
    """Who saved it, where a record says so."""
    saved_ms: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """A head that was fetched and is ours."""

    manifest: SaveHead
    save: SaveRef

    @property
    def saves(self) -> Mapping[int, SaveRef]:
        """Every save that the manifest names, and this one."""
        return {each.sequence: each for each in (*self.manifest.saves, self.save)}

    @property
    def points(self) -> tuple[Point, ...]:
        """Every moment that can be gone back to, the newest last."""
        newest = Point(self.save.saved_ms, (*self.manifest.chain, self.save.sequence))
        return (*self.manifest.points, newest)


def offers(
    records: Iterable[tuple[SignedRecoveryRecord, RecoveryContent]], segment_ids: Iterable[SegmentId], keys: JournalKeys
) -> list[Offer]:
    """The heads that records and contracts speak of, the newest first; of one head once. Pure."""
    found: dict[SegmentId, Offer] = {}
    for _, content in records:
        head = content.head.segment_id
        found[head] = Offer(content.save, head, content.writer, content.issued_ms)
    for segment_id in segment_ids:
        name = keys.name_of(segment_id)
        if name is not None and name.number == 0:
            found.setdefault(segment_id, Offer(name.sequence, segment_id))
    return sorted(found.values(), key=lambda offer: (offer.sequence, offer.segment_id), reverse=True)


def highest_epoch(records: Iterable[SignedRecoveryRecord], offered: Iterable[Offer]) -> int:
    """The highest epoch that anything speaks of."""
    named = [record.body.sequence for record in records] + [offer.sequence for offer in offered]
    return max(map(epoch_of, named), default=0)


class Restorer:
    """Fetches saved catalogs."""

    def __init__(
        self,
        *,
        agent: Agent,
        fetcher: Fetcher,
        node_key: PublicKey,
        network: NetworkId,
        slots: SlotPool,
        codec: Codec,
        keys: JournalKeys,
        offload: Offload,
    ) -> None:
        self._agent = agent
        self._fetcher = fetcher
        self._node_key = node_key
        self._network = network
        self._slots = slots
        self._codec = codec
        self._keys = keys
        self._offload = offload

    async def open_head(self, segment_id: SegmentId, sequence: int) -> Opened:
        """What the head of a save says. Raises `NotEnoughError`, or `CorruptionError` when it is no head of ours."""

        def read(body: memoryview) -> tuple[SaveHead, int]:
            part, rest = self._part_head(body, sequence, head=True)
            manifest, _ = _manifest(rest)
            return manifest, part.part

        (manifest, number), ref = await self._with_part(segment_id, read)
        if number != len(manifest.parts):
            raise CorruptionError("the head of a save counts its parts otherwise than they are")
        save = SaveRef(
            sequence, manifest.saved_ms, manifest.generation, manifest.base, manifest.rows, (*manifest.parts, ref)
        )
        opened = Opened(manifest, save)
        chain = (*manifest.chain, sequence)
        if any(one not in opened.saves for one in chain) or not opened.saves[chain[0]].base:
            raise CorruptionError("a save builds on others that it does not name")
        return opened

    async def load(
        self, chain: Sequence[SaveRef], loader: CatalogLoader, on_rows: OnRows = lambda done, total: None
    ) -> None:
        """Apply a base and the saves after it. Raises `NotEnoughError`, `CorruptionError`."""
        total = sum(save.rows for save in chain)
        for save in chain:
            blocks, before = BlockReader(), loader.rows
            for number, part in enumerate(save.parts):
                is_head = number == len(save.parts) - 1

                def apply(
                    body: memoryview,
                    save: SaveRef = save,
                    number: int = number,
                    is_head: bool = is_head,
                    blocks: BlockReader = blocks,
                ) -> None:
                    part_head, rest = self._part_head(body, save.sequence, head=is_head)
                    if part_head.part != number:
                        raise CorruptionError("the parts of a save are in disorder")
                    if is_head:
                        rest = _manifest(rest)[1]
                    for block in blocks.feed(rest):
                        loader.apply(block)

                await self._with_part(part.segment_id, apply)
                on_rows(loader.rows, total)
            blocks.finish()
            if loader.rows - before != save.rows:
                raise CorruptionError(f"a save has {loader.rows - before} rows and says that it has {save.rows}")

    async def _with_part(self, segment_id: SegmentId, work: Callable[[memoryview], T]) -> tuple[T, PartRef]:
        """`work` done, off the loop, on the body of one part; and what the part is."""
        located = (await self._agent.locate([segment_id], self._node_key)).get(segment_id)
        if located is None:
            raise NotEnoughError("no farmer that answers holds a contract for a part of the saved catalog")
        facts = located.facts
        shape = SegmentShape(facts.k, facts.total, facts.shard_bytes)
        wish = Wish(
            k=shape.k,
            shard_bytes=shape.shard_bytes,
            first_unit=0,
            end_unit=shape.stripes,
            # Our own signature is under each of these contracts, so their roots are what we stored.
            roots={ticket.index: ticket.root for ticket in located.tickets},
            exactly=tuple(range(shape.k)),
        )
        rows = min(shape.total, shape.k + _EXTRA_ROWS)
        lease = SegmentShape(shape.k, rows, shape.shard_bytes)
        async with self._slots.leased(lease, shape.capacity) as slot:
            shards = await self._fetcher.fetch(located, wish, slot.rows(shape.shard_bytes))
            copies = {ticket.index: ticket.copy for ticket in located.tickets}
            plain = slot.plain[: shape.capacity]

            def opened() -> tuple[T, int]:
                with self._slots.scratch() as scratch:
                    unseal(
                        shards,
                        key=self._keys.content_key(segment_id),
                        mask_key=located.mask_key,
                        shape=shape,
                        into=plain,
                        codec=self._codec,
                        scratch=scratch,
                        copies=copies,
                    )
                body, size = self._keys.open_part(segment_id, plain)
                return work(body), size

            result, size = await self._offload(opened)
        return result, PartRef(segment_id, shape.k, shape.total, shape.shard_bytes, size)

    def _part_head(self, body: memoryview, sequence: int, *, head: bool) -> tuple[PartHead, memoryview]:
        found = first_frame(body)
        if found is None:
            raise CorruptionError("a part of the saved catalog is cut short")
        part = open_frame(PartHead, found[0])
        if part.version != JOURNAL_VERSION:
            raise CorruptionError(f"the catalog was saved in a format that is not known here: {part.version}")
        if (part.network, part.sequence, part.head) != (self._network, sequence, head):
            raise CorruptionError("a part of the saved catalog belongs elsewhere")
        return part, found[1]


def _manifest(rest: memoryview) -> tuple[SaveHead, memoryview]:
    found = first_frame(rest)
    if found is None:
        raise CorruptionError("the head of a save is cut short")
    return open_frame(SaveHead, found[0]), found[1]


async def heads_held(pages: AsyncIterator[Sequence[SegmentId]], keys: JournalKeys) -> list[SegmentId]:
    """Those ids of our contracts' segments that are heads of saves."""
    held: list[SegmentId] = []
    async for page in pages:
        held += [each for each in page if (name := keys.name_of(each)) is not None and name.number == 0]
    return held
