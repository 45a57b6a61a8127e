"""A farmer's parts over memory stores, with a clock the test moves and an exchange that records what was said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog
from msgspec import structs

from contract_samples import FARMER, NETWORK, NOW_MS, draft
from stook.codec import decode, encode
from stook.contracts.announcement import SignedAnnouncement
from stook.contracts.contract import Terms
from stook.contracts.topics import criteria_of
from stook.errors import MisbehaviourError, ReasonCode
from stook.farmer.capacity import CapacityLimits
from stook.farmer.gate import ShardGate
from stook.farmer.lanes import Lanes
from stook.farmer.parts import Parts
from stook.farmer.settings import FarmerSettings
from stook.farmer.status import Tally
from stook.hashing import Tag, tagged_hash
from stook.identity.contact import Address, AddressKind, SignedContact, sign_contact
from stook.identity.keys import NodeKey, node_id_of
from stook.ids import PublicKey, ShardRoot
from stook.merkle import leaves_of, shard_root
from stook.storage.memory import MemoryContractStore, MemoryShardStore

T = TypeVar("T")
GIB = 1 << 30


class ManualClock:
    """Stands still until the test moves it."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.at_ms / 1000


async def inline(work: Callable[[], T], /) -> T:
    """An `Offload` that works where it stands."""
    return work()


class NoBook:
    """A seed that knows nobody."""

    def __init__(self) -> None:
        self.kept: list[SignedAnnouncement] = []

    def add(self, announcement: SignedAnnouncement, *, now_ms: int) -> bool:
        self.kept.append(announcement)
        return True

    def some(self, limit: int, *, now_ms: int, skip: int = 0) -> Sequence[SignedAnnouncement]:
        return self.kept[:limit]


class RecordingExchange:
    """The callee's end of an exchange: `raw` is what the caller sends, `replies` and `sent` what was answered."""

    failure = None
    progress = 0

    def __init__(self, caller: NodeKey, raw: bytes = b"") -> None:
        self.peer_key: PublicKey = caller.public_key
        self.peer_id = node_id_of(caller.public_key)
        self.replies: list[bytes] = []
        self.refusals: list[ReasonCode] = []
        self.sent = bytearray()
        self._raw = raw

    async def reply(self, payload: bytes) -> None:
        self.replies.append(payload)

    async def refuse(self, code: ReasonCode, detail: str = "", retry_after_ms: int = 0) -> None:
        self.refusals.append(code)

    async def send(self, data: bytes | memoryview) -> None:
        self.sent += data

    def post(self, buffer: memoryview) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if len(self._raw) < len(buffer):
            future.set_exception(MisbehaviourError(ReasonCode.TRUNCATED, "ended early"))
        else:
            buffer[:], self._raw = self._raw[: len(buffer)], self._raw[len(buffer) :]
            future.set_result(None)
        return future

    async def filled(self, posted: asyncio.Future[None]) -> None:
        await posted

    async def receive_into(self, buffer: memoryview) -> None:
        await self.post(buffer)

    def answer(self, kind: type[T]) -> T:
        return decode(kind, self.replies[-1])


class StandingEndpoint:
    """Has a contact and calls nobody."""

    def __init__(self, contact: SignedContact | None) -> None:
        self.contact = contact


def contact_of(key: NodeKey) -> SignedContact:
    address = Address(AddressKind.DIRECT, "farmer.example", 4000)
    return sign_contact(key, network=NETWORK, addresses=(address,), sequence=NOW_MS, issued_ms=NOW_MS)


def settings(allocated_bytes: int = GIB, **changes: Any) -> FarmerSettings:
    return FarmerSettings(capacity=CapacityLimits(allocated_bytes, 0), **changes)


def parts(
    *,
    farm: FarmerSettings | None = None,
    shards: Any = None,
    contracts: Any = None,
    clock: ManualClock | None = None,
    free_disk: Callable[[], int] = lambda: 1 << 50,
) -> Parts:
    farm = settings() if farm is None else farm
    return Parts(
        key=FARMER,
        network=NETWORK,
        settings=farm,
        shards=MemoryShardStore() if shards is None else shards,
        contracts=MemoryContractStore() if contracts is None else contracts,
        book=NoBook(),
        clock=ManualClock() if clock is None else clock,
        offload=inline,
        free_disk=free_disk,
        log=structlog.get_logger("test"),
        gate=ShardGate(),
        lanes=Lanes(farm.transfers),
        tally=Tally(),
    )


def shard_bytes(size: int, seed: int = 1) -> bytes:
    """Bytes that no two seeds share."""
    line = tagged_hash(Tag.CONTENT, seed.to_bytes(8, "big"))
    return (line * -(-size // len(line)))[:size]


def root_of(data: bytes) -> ShardRoot:
    return shard_root(len(data), leaves_of(memoryview(data)))


def draft_for(root: ShardRoot, size: int, **changes: object) -> Terms:
    """A valid draft of another size than the sample's, with the criteria that follow from it."""
    plain = draft(shard_root=root, shard_size_bytes=size, **changes)
    return structs.replace(plain, criteria=criteria_of(size, plain.end_ms - plain.begin_ms))


def publish(store: Any, data: bytes, contract: Any) -> ShardRoot:
    """Put a whole shard into a store."""
    leaves = leaves_of(memoryview(data))
    root = shard_root(len(data), leaves)
    writer = store.open_writer(root, len(data), b"".join(leaves))
    writer.write(memoryview(data))
    writer.publish(encode(contract))
    return root
