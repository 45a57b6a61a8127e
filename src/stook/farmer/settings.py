"""What an operator may set about a farmer, as frozen values that `assembly` fills from the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from stook.farmer.admission import FarmerTerms
from stook.farmer.capacity import CapacityLimits
from stook.payments.enforcement import CreditRules

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """How much a farmer moves at once. Each transfer holds two buffers of `block_bytes` while it runs."""

    max_transfers: int = 8
    max_moves: int = 2
    """Of them, shards that a leaving farmer brings to others."""
    max_waiting: int = 64
    """Transfers beyond `max_transfers` wait in line, at most so many; the next one is refused with BUSY."""
    block_bytes: int = 4 * MIB
    """Hashed and written (or read) in one piece; a multiple of 16 KiB. As large as the largest shard, because every
    hand-over between loop and worker costs more than the overlap within one shard gains (decision 0084)."""
    transfer_deadline_seconds: float = 600.0
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
class FarmerSettings:
    """Everything about one farmer."""

    capacity: CapacityLimits
    terms: FarmerTerms = field(default_factory=FarmerTerms)
    transfers: TransferLimits = field(default_factory=TransferLimits)
    chores: ChoreIntervals = field(default_factory=ChoreIntervals)
    audits: AuditLimits = field(default_factory=AuditLimits)
    credit: CreditRules = field(default_factory=CreditRules)
