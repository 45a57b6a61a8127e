"""What an operator may set about a farmer, as frozen values that `assembly` fills from the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from stook.contracts.topics import Degree
from stook.farmer.admission import FarmerTerms
from stook.farmer.asking import Asking, FarmerStrategy
from stook.farmer.capacity import CapacityLimits
from stook.overlay.quasar import PubSubTiming, QuasarRules
from stook.payments.enforcement import CreditRules

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """How much a farmer moves at once. Each transfer holds two buffers of `block_bytes` while it runs."""

    max_transfers: int = 6
    max_moves: int = 2
    """Of them, shards that a leaving farmer brings to others."""
    max_waiting: int = 64
    """Transfers beyond `max_transfers` wait in line, at most so many; the next one is refused with BUSY."""
    block_bytes: int = 4 * MIB
    """Hashed and written (or read) in one piece; a multiple of 16 KiB. Two blocks hold the largest shard (decision
    0084)."""
    transfer_deadline_seconds: float = 1200.0
    """No transfer of one shard takes longer, however steadily it crawls."""
    retry_after_ms: int = 2_000
    """When a peer that was refused with BUSY should ask again."""
    verify_reads: bool = True
    """Check every unit against its leaf before it is sent, so that damage is declared and never served."""


@dataclass(frozen=True, slots=True)
class AuditLimits:
    """How much work audits may make at once, and how much of them is remembered."""

    max_pages: int = 4
    """Pages that are read and signed at the same time; each takes some 3 MiB of memory."""
    max_waiting: int = 64
    """Pages beyond those wait in line, at most so many; the next one is refused with BUSY."""
    retry_after_ms: int = 2_000
    """When a peer that was refused with BUSY should ask again."""
    max_again: int = 8
    """How often one page of one challenge is answered without being counted again."""
    heartbeat_burst: float = 512.0
    """Heartbeats that one caller may ask in a row, as one with very many losses to note does ..."""
    heartbeats_per_second: float = 1.0
    """... and in the long run; what is above is refused with RATE_LIMITED."""
    heartbeat_callers: int = 4096
    """Callers that are told apart."""
    totals_seconds: float = 60.0
    """How old the sums in a heartbeat's reply may be."""
    keep_rounds_per_renter: int = 512
    keep_rounds: int = 20_000
    """Rounds that are remembered in all; 5 KB each as a rule, 150 KB at most."""
    keep_ms: int = 90 * 24 * 3_600_000
    """How long rounds, and noted losses of contracts that are over, are kept as evidence."""


@dataclass(frozen=True, slots=True)
class ChoreIntervals:
    """How often the background work runs."""

    reap_seconds: float = 60.0
    scrub_seconds: float = 60.0
    scrub_round_seconds: float = 30 * 24 * 3600.0
    """One pass of the integrity scrub over every shard is spread over so long."""
    announce_seconds: float = 300.0
    move_seconds: float = 300.0
    """How often orders of MOVE that were tried in vain are looked at; new ones are at once."""
    collect_seconds: float = 3600.0
    """How often what renters owe is added up."""
    declare_seconds: float = 300.0
    """How often renters that are connected are told of losses they have not noted."""


@dataclass(frozen=True, slots=True)
class MarketSettings:
    """How a farmer takes part in the open market."""

    availability: Degree = Degree.MEDIUM
    """What it claims of itself: drafts that ask for more are not for it."""
    speed: Degree = Degree.MEDIUM
    strategy: FarmerStrategy = field(default_factory=Asking)
    rules: QuasarRules = field(default_factory=QuasarRules)
    timing: PubSubTiming = field(default_factory=PubSubTiming)
    puzzle_nonce: int = 0
    advertise_seconds: float = 900.0
    """How often its capacity is published."""
    max_talks: int = 8
    """Renters that it talks to at once; drafts heard meanwhile are passed over."""


@dataclass(frozen=True, slots=True)
class FarmerSettings:
    """Everything about one farmer."""

    capacity: CapacityLimits
    terms: FarmerTerms = field(default_factory=FarmerTerms)
    transfers: TransferLimits = field(default_factory=TransferLimits)
    chores: ChoreIntervals = field(default_factory=ChoreIntervals)
    audits: AuditLimits = field(default_factory=AuditLimits)
    market: MarketSettings | None = None
    """None: it is claimed at directly, and takes no part in the open market."""
    credit: CreditRules = field(default_factory=CreditRules)
