"""What audits leave at a farmer, as promises: units counted, rounds with their evidence, losses declared and noted.

Every adapter passes the suite in `tests/conformance/`. As in `ports`, all calls block; what is promised to be durable
outlives a power cut, the rest a kill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stook.audits.challenge import SignedChallenge
from stook.audits.proof import SignedHead
from stook.audits.receipt import ReceiptLine, SignedBatchReceipt
from stook.contracts.loss import NotedLoss, SignedLoss
from stook.ids import ContractId, PublicKey


@dataclass(frozen=True, slots=True)
class UnitsAsked:
    """Units of one contract's shard on one page, and what its terms give free in the interval that is running."""

    contract_id: ContractId
    window: int
    units: int
    free_units: int


@dataclass(frozen=True, slots=True)
class RoundSummary:
    """One challenge and what became of it, without the evidence itself."""

    digest: bytes
    renter_key: PublicKey
    auditor_key: PublicKey
    asked_ms: int
    """When its first page was signed here."""
    leaves: int
    pages: int
    """Pages that were signed."""
    billed_units: int
    counts: tuple[int, int, int, int, int] | None
    """Lines for each verdict, in the order of its numbers, as the auditor's receipt says; None without one."""
    proved_bytes: int


@dataclass(frozen=True, slots=True)
class KeptRound:
    """The evidence of one challenge. Answers are not kept: heads are signed over them, and they can be made again."""

    challenge: SignedChallenge
    heads: tuple[SignedHead, ...]
    """The first one signed of each page, ascending by page."""
    receipt: SignedBatchReceipt | None
    lines: tuple[ReceiptLine, ...]


@dataclass(frozen=True, slots=True)
class LossCounts:
    """Losses on the book."""

    declared: int
    noted: int


class AuditBook(Protocol):
    """A farmer's memory of audits."""

    # --- rounds

    def has_page(self, digest: bytes, page: int) -> bool:
        """Whether this page of this challenge was signed and counted already."""
        ...

    def add_page(
        self,
        signed: SignedChallenge,
        head: SignedHead,
        asked: Sequence[UnitsAsked],
        *,
        now_ms: int,
        keep_rounds: int,
    ) -> int:
        """Note a signed page and count its units, once for each challenge; the units beyond the free ones.

        Of the renter's rounds all but the newest `keep_rounds` are forgotten. Outlives a kill, perhaps no power cut.
        """
        ...

    def add_receipt(self, signed: SignedBatchReceipt, lines: Sequence[ReceiptLine]) -> bool:
        """Keep the receipt of a round, durably; False when the challenge is not known. The first one stays."""
        ...

    def round(self, digest: bytes) -> KeptRound | None:
        """The evidence of one challenge, or None."""
        ...

    def rounds(self, limit: int) -> list[RoundSummary]:
        """The newest rounds, newest first."""
        ...

    def units_used(self, contract_id: ContractId, window: int) -> int:
        """Units of this contract's shard that were counted in the interval `window`."""
        ...

    # --- losses

    def declare(self, losses: Mapping[PublicKey, Sequence[SignedLoss]]) -> None:
        """Keep declarations by renter, durably and all or none. The first one of a contract stays."""
        ...

    def loss(self, contract_id: ContractId) -> SignedLoss | None:
        """The declaration about this contract, or None."""
        ...

    def unnoted(self, renter_key: PublicKey, after: bytes, limit: int) -> list[SignedLoss]:
        """Declarations that this renter has not noted, of contracts with ids above `after`, in order of id."""
        ...

    def unnoted_named(self, renter_key: PublicKey, digests: Sequence[bytes]) -> list[SignedLoss]:
        """Those of them with one of these digests; no more than were named."""
        ...

    def renters_to_tell(self) -> list[PublicKey]:
        """Renters that have a declaration to note."""
        ...

    def note(self, noted: Sequence[NotedLoss]) -> int:
        """Keep notes of declarations on the book, durably; how many were new. The first one stays."""
        ...

    def noted(self, contract_ids: Sequence[ContractId]) -> list[NotedLoss]:
        """The noted losses of these contracts, in order of id."""
        ...

    def loss_counts(self) -> LossCounts:
        """How many losses are on the book."""
        ...

    # --- forgetting

    def close(self, contract_ids: Sequence[ContractId]) -> None:
        """These contracts are over: unnoted losses and counts go at once, noted losses stay until `prune`."""
        ...

    def prune(self, before_ms: int, keep_rounds: int) -> int:
        """Forget rounds asked before and all but the newest `keep_rounds`, and closed losses declared before.

        How many rounds were forgotten.
        """
        ...
