"""What the client asks of an agent, and what both ask of the person's files.

The client holds content keys and knows names; the agent holds contracts and mask keys and knows farmers. The client
talks to this `Agent` only: the local one in `stook.renter.agent`, or a bridge far away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stook.contracts.contract import Contract, Terms
from stook.contracts.grant import SignedGrant
from stook.contracts.receipt import SignedStorageReceipt
from stook.ids import ContractId, NodeId, PublicKey, SegmentId, ShardRoot
from stook.renter.outlook import FarmerFacts, HeldSegment
from stook.shards.geometry import LADDER, Policy, SegmentShape, largest_shape
from stook.storage.renter_ports import SegmentFacts
from stook.wire.endpoint import Peer

# ------------------------------------------------------------------------------------------------- client and agent


@dataclass(frozen=True, slots=True)
class Allotment:
    """A new segment's random id and the key its shards are masked with (it opens no content)."""

    segment_id: SegmentId
    mask_key: bytes


@dataclass(frozen=True, slots=True)
class PlacementPolicy:
    """How new segments are spread now: the policy, and how many code indices beyond n are sealed as spares."""

    policy: Policy
    spares: int
    max_shard_bytes: int = LADDER[-1]
    """The largest shards that enough farmers take."""

    @property
    def total(self) -> int:
        """Code indices sealed."""
        return self.policy.n + self.spares

    def largest_shape(self, segment_bytes: int) -> SegmentShape:
        """What large objects are cut into, with shards of at most `segment_bytes` together."""
        return largest_shape(self.policy.k, self.total, min(segment_bytes, self.total * self.max_shard_bytes))


@dataclass(frozen=True, slots=True)
class Order:
    """Contracts wanted for some indices of one segment, at farmers that are not in `excluding`."""

    facts: SegmentFacts
    indices: tuple[int, ...]
    excluding: frozenset[NodeId] = frozenset()
    copy: int = 0
    """Which masked copy of these indices; their roots stand in `facts`."""
    again: bool = False
    """A farmer is wanted for each index though another holds it, or says so: for shards that are in doubt."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to bring one shard to, or fetch it from, one farmer: the signed contract and a grant to the asker."""

    segment_id: SegmentId
    index: int
    copy: int
    peer: Peer
    contract: Contract
    grant: SignedGrant

    @property
    def contract_id(self) -> ContractId:
        """The contract's id."""
        return self.contract.contract_id

    @property
    def root(self) -> ShardRoot:
        """The shard's root."""
        return self.contract.terms.shard_root


@dataclass(frozen=True, slots=True)
class Placed:
    """The answer to an `Order`: every index of the segment that is receipted already, tickets for ordered ones that
    are not, and why the rest could not be placed.
    """

    held: frozenset[int]
    tickets: tuple[Ticket, ...]
    shortage: str = ""


@dataclass(frozen=True, slots=True)
class Located:
    """Where a segment is: its facts, its mask key, and tickets to fetch its shards, best farmer first per index."""

    facts: SegmentFacts
    mask_key: bytes
    tickets: tuple[Ticket, ...]
    speeds: Mapping[NodeId, float]
    """Bytes per second seen from each farmer, where known."""


@dataclass(frozen=True, slots=True)
class Dealing:
    """How one transfer with a farmer went, for its standing."""

    farmer: NodeId
    upload: bool
    ok: bool
    size_bytes: int = 0
    seconds: float = 0.0
    terms: Terms | None = None
    """Of a download that came whole: what its bytes are owed by."""


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """Numbers for `status`."""

    segments: int
    segments_below_n: int
    segments_below_r: int
    segments_unreadable: int
    """Fewer than k shards: lost unless farmers come back."""
    shards_stored: int
    shards_claimed: int
    shards_to_cancel: int
    stored_bytes: int
    farmers_known: int
    farmers_used: int
    audits_passed: int = 0
    """Rounds judged within the last day, by what they came to."""
    audits_failed: int = 0
    audits_silent: int = 0
    proved_whole: int = 0
    """Segments with n or more indices proved: signed for, or audited, lately, at farmers that are not silent."""
    proved_below_n: int = 0
    """r or more."""
    proved_below_r: int = 0
    """k or more: repaired next, or waiting for farmers that fell silent lately."""
    proved_below_k: int = 0
    farmers_contained: int = 0
    """With a question open, or not heard from."""
    farmers_gone: int = 0
    farmers_condemned: int = 0

    @property
    def repairs_waiting(self) -> int:
        """Segments that repair is for."""
        return self.proved_below_r + self.proved_below_k


class DurabilityFacts(Protocol):
    """What a live durability number is made of. Whoever knows more than receipts and silence says it here."""

    async def farmer_facts(self) -> Mapping[NodeId, FarmerFacts]:
        """Every farmer that holds, or lost, something of ours."""
        ...

    async def holdings(self, segment_ids: Iterable[SegmentId]) -> Mapping[SegmentId, HeldSegment]:
        """Who holds what of segments. Unknown segments are missing from the answer."""
        ...


class Agent(DurabilityFacts, Protocol):
    """The half of a renter without content keys."""

    async def policy(self) -> PlacementPolicy:
        """How to spread new segments: as configured, else from the farmers known. Raises `NotEnoughError`."""
        ...

    async def allot(self, count: int) -> list[Allotment]:
        """Ids and mask keys for so many new segments. Nothing is stored yet."""
        ...

    async def allot_named(self, segment_ids: Sequence[SegmentId]) -> list[Allotment]:
        """Mask keys for new segments whose ids the client chose. Nothing is stored yet."""
        ...

    async def place(self, orders: Sequence[Order], grantee: PublicKey) -> list[Placed]:
        """Contracts, stored durably, for what is ordered; grants go to `grantee`. One answer per order.

        A segment's first order makes it known; asking again for an index gives the ticket that exists while its
        farmer is not excluded. Farmers that refuse are replaced. Raises nothing for a shortage: the answer says it.
        """
        ...

    async def confirm(self, receipts: Sequence[SignedStorageReceipt]) -> frozenset[ContractId]:
        """Verify receipts and store them durably; those of contracts that were given up meanwhile, which do not count.

        Raises `MisbehaviourError` for one that is not what was agreed.
        """
        ...

    async def abandon(self, contract_ids: Sequence[ContractId]) -> None:
        """Give contracts up; durably noted, then cancelled at the farmers until they confirm the erasure.

        Those whose receipts are kept by now stay: somebody else brought their shards meanwhile.
        """
        ...

    async def locate(self, segment_ids: Iterable[SegmentId], grantee: PublicKey) -> Mapping[SegmentId, Located]:
        """Where segments are, with grants to fetch. Unknown segments are missing from the answer."""
        ...

    async def known(self, segment_ids: Sequence[SegmentId]) -> frozenset[SegmentId]:
        """Those of `segment_ids` that the agent keeps."""
        ...

    async def release(self, segment_ids: Sequence[SegmentId]) -> None:
        """Give whole segments up; durable when it returns, erased at the farmers behind. Idempotent."""
        ...

    def note(self, dealings: Iterable[Dealing]) -> None:
        """Remember how transfers went. Cheap and never blocks."""
        ...

    async def settle(self) -> None:
        """Fill every segment up to its n, as far as farmers allow; returns when nothing more can be done now."""
        ...

    async def status(self) -> AgentStatus:
        """Sums over all segments."""
        ...


# -------------------------------------------------------------------------------------------------- the person's bytes


class Source(Protocol):
    """Bytes to store. Calls block; they are made from a worker thread, one at a time."""

    @property
    def size_bytes(self) -> int | None:
        """The size, where it is known before the end is reached."""
        ...

    @property
    def modified_ms(self) -> int:
        """When the content last changed."""
        ...

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer` as far as there are bytes; fewer than its length only at the end."""
        ...

    def close(self) -> None:
        """Let go. Idempotent."""
        ...


class Sink(Protocol):
    """Where fetched bytes go. Calls block; they are made from a worker thread, one at a time."""

    def begin(self, size_bytes: int) -> None:
        """So many bytes will come."""
        ...

    def write_at(self, offset: int, data: memoryview) -> None:
        """Verified bytes of the object, in any order, each exactly once. `data` is only lent."""
        ...

    def commit(self, modified_ms: int) -> None:
        """Everything is written and verified: make it visible."""
        ...

    def abort(self) -> None:
        """Forget what was written. Idempotent, and harmless after `commit`."""
        ...


@dataclass(frozen=True, slots=True)
class Item:
    """One object of a batch to store. `open` is called in a worker when its turn comes.

    `size_bytes` and `modified_ms` decide, without opening it, whether it is unchanged.
    """

    name: str
    open: Callable[[], Source]
    size_bytes: int | None = None
    modified_ms: int = 0
    mode: int = 0o644
    """Permission bits to remember."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a transfer stands. Every number only grows.

    *Accepted* bytes are sealed and under signed contracts; *durable* ones belong to segments with o receipts.
    """

    bytes_total: int | None
    bytes_accepted: int
    bytes_durable: int
    objects_done: int
    shards_done: int
    shard_bytes_moved: int
    farmer_shards: Mapping[NodeId, int]


OnProgress = Callable[[Progress], None]
