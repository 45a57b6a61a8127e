"""The collaborators that every handler and chore of one farmer shares. Built by `service.Farmer`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from stook.clock import Clock, Offload
from stook.contracts.announcement import SignedAnnouncement
from stook.contracts.receipt import SignedEraseReceipt
from stook.farmer.gate import ShardGate
from stook.farmer.lanes import Lanes
from stook.farmer.settings import FarmerSettings
from stook.farmer.status import Tally
from stook.farmer.till import Till
from stook.identity.keys import NodeKey
from stook.ids import ContractId, NetworkId, PublicKey
from stook.storage.ports import ContractStore, ShardStore
from stook.storage.record_shelf import MemoryRecordShelf, RecordShelf

MAX_REMEMBERED_ERASURES = 4096


class AnnouncementBook(Protocol):
    """Whom a seed knows. `overlay.contact_book` keeps it; in memory, newest announcement of each node, bounded."""

    def add(self, announcement: SignedAnnouncement, *, now_ms: int) -> bool:
        """Check and keep an announcement; False when a newer one is known.

        Raises `MisbehaviourError` or `RefusedError` when its signatures, network or dates are wrong.
        """
        ...

    def some(self, limit: int, *, now_ms: int, skip: int = 0) -> Sequence[SignedAnnouncement]:
        """At most `limit` announcements that are still fresh, beginning `skip` places on, round and round."""
        ...


class ErasureMemory:
    """The receipts of what was erased lately, so that a CANCEL asked again is answered again. Bounded, in memory."""

    def __init__(self, limit: int = MAX_REMEMBERED_ERASURES) -> None:
        self._limit = limit
        self._receipts: OrderedDict[ContractId, tuple[PublicKey, SignedEraseReceipt]] = OrderedDict()

    def remember(self, contract_id: ContractId, renter: PublicKey, receipt: SignedEraseReceipt) -> None:
        """Keep a receipt; the oldest one goes when there are too many."""
        self._receipts[contract_id] = (renter, receipt)
        if len(self._receipts) > self._limit:
            self._receipts.popitem(last=False)

    def receipt(self, contract_id: ContractId, renter: PublicKey) -> SignedEraseReceipt | None:
        """The receipt given to this renter, if it is still remembered."""
        known = self._receipts.get(contract_id)
        return known[1] if known is not None and known[0] == renter else None


@dataclass(slots=True)
class Leaving:
    """Whether the farmer is on its way out. Only its own loop changes this."""

    by_ms: int = 0
    """When it means to be gone; 0 while it stays."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything one farmer works with. Stores block and are called through `offload`."""

    key: NodeKey
    network: NetworkId
    settings: FarmerSettings
    shards: ShardStore
    contracts: ContractStore
    book: AnnouncementBook
    clock: Clock
    offload: Offload
    free_disk: Callable[[], int]
    """Bytes left on the disk that holds the shards; may block."""
    log: FilteringBoundLogger
    gate: ShardGate
    lanes: Lanes
    tally: Tally
    till: Till | None = None
    """None: nothing is charged, and nobody asked to pay."""
    lost: set[ContractId] = field(default_factory=set)
    """Contracts in state LOST, so that status needs no walk over the store. Refilled at start."""
    erased: ErasureMemory = field(default_factory=ErasureMemory)
    leaving: Leaving = field(default_factory=Leaving)
    records: RecordShelf = field(default_factory=MemoryRecordShelf)
    """Recovery records that renters left here."""
