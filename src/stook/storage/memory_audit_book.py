"""The book of audits in memory: for the simulator and for tests."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stook.audits.challenge import SignedChallenge
from stook.audits.proof import SignedHead
from stook.audits.receipt import ReceiptLine, SignedBatchReceipt
from stook.contracts.loss import NotedLoss, SignedLoss, SignedLossNote
from stook.ids import ContractId, PublicKey
from stook.storage.audit_ports import KeptRound, LossCounts, RoundSummary, UnitsAsked


@dataclass(slots=True)
class _Round:
    signed: SignedChallenge
    asked_ms: int
    number: int
    heads: dict[int, SignedHead] = field(default_factory=dict)
    billed_units: int = 0
    receipt: SignedBatchReceipt | None = None
    lines: tuple[ReceiptLine, ...] = ()


@dataclass(slots=True)
class _Loss:
    renter_key: PublicKey
    signed: SignedLoss
    note: SignedLossNote | None = None
    closed: bool = False


class MemoryAuditBook:
    """The `AuditBook` in memory."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._rounds: dict[bytes, _Round] = {}
        self._units: dict[ContractId, tuple[int, int]] = {}
        self._losses: dict[ContractId, _Loss] = {}
        self._numbers = 0

    # -- rounds

    def has_page(self, digest: bytes, page: int) -> bool:
        """Whether this page of this challenge was signed and counted already."""
        with self._lock:
            return digest in self._rounds and page in self._rounds[digest].heads

    def add_page(
        self,
        signed: SignedChallenge,
        head: SignedHead,
        asked: Sequence[UnitsAsked],
        *,
        now_ms: int,
        keep_rounds: int,
    ) -> int:
        """Note a signed page and count its units, once for each challenge; the units beyond the free ones."""
        with self._lock:
            digest = head.head.challenge
            kept = self._rounds.get(digest)
            if kept is None:
                self._numbers += 1
                kept = self._rounds[digest] = _Round(signed, now_ms, self._numbers)
                self._keep_newest(keep_rounds, signed.challenge.renter_key)
            if head.head.page in kept.heads:
                return 0
            kept.heads[head.head.page] = head
            billed = 0
            for one in asked:
                used = self.units_used(one.contract_id, one.window)
                self._units[one.contract_id] = (one.window, used + one.units)
                billed += one.units - min(one.units, max(0, one.free_units - used))
            kept.billed_units += billed
            return billed

    def add_receipt(self, signed: SignedBatchReceipt, lines: Sequence[ReceiptLine]) -> bool:
        """Keep the receipt of a round; False when the challenge is not known. The first one stays."""
        with self._lock:
            kept = self._rounds.get(signed.receipt.challenge)
            if kept is not None and kept.receipt is None:
                kept.receipt, kept.lines = signed, tuple(lines)
            return kept is not None

    def round(self, digest: bytes) -> KeptRound | None:
        """The evidence of one challenge, or None."""
        with self._lock:
            kept = self._rounds.get(digest)
            if kept is None:
                return None
            heads = tuple(head for _, head in sorted(kept.heads.items()))
            return KeptRound(kept.signed, heads, kept.receipt, kept.lines)

    def rounds(self, limit: int) -> list[RoundSummary]:
        """The newest rounds, newest first."""
        with self._lock:
            return [_summary(digest, kept) for digest, kept in self._newest()[:limit]]

    def units_used(self, contract_id: ContractId, window: int) -> int:
        """Units of this contract's shard that were counted in the interval `window`."""
        with self._lock:
            last, used = self._units.get(contract_id, (window, 0))
            return used if last == window else 0

    # -- losses

    def declare(self, losses: Mapping[PublicKey, Sequence[SignedLoss]]) -> None:
        """Keep declarations by renter. The first one of a contract stays."""
        with self._lock:
            for renter_key, told in losses.items():
                for one in told:
                    self._losses.setdefault(one.loss.contract_id, _Loss(renter_key, one))

    def loss(self, contract_id: ContractId) -> SignedLoss | None:
        """The declaration about this contract, or None."""
        with self._lock:
            found = self._losses.get(contract_id)
            return None if found is None else found.signed

    def unnoted(self, renter_key: PublicKey, after: bytes, limit: int) -> list[SignedLoss]:
        """Declarations that this renter has not noted, of contracts with ids above `after`, in order of id."""
        with self._lock:
            return [
                one.signed
                for contract_id, one in sorted(self._losses.items(), key=lambda item: item[0])
                if one.note is None and one.renter_key == renter_key and contract_id > after
            ][:limit]

    def unnoted_named(self, renter_key: PublicKey, digests: Sequence[bytes]) -> list[SignedLoss]:
        """Those of them with one of these digests; no more than were named."""
        with self._lock:
            mine = {one.loss.digest: one for one in self.unnoted(renter_key, b"", len(self._losses))}
            return [mine[digest] for digest in dict.fromkeys(digests) if digest in mine]

    def renters_to_tell(self) -> list[PublicKey]:
        """Renters that have a declaration to note."""
        with self._lock:
            return sorted({one.renter_key for one in self._losses.values() if one.note is None})

    def note(self, noted: Sequence[NotedLoss]) -> int:
        """Keep notes of declarations on the book; how many were new. The first one stays."""
        new = 0
        with self._lock:
            for one in noted:
                kept = self._losses.get(one.loss.loss.contract_id)
                if kept is not None and kept.note is None and kept.signed.loss == one.loss.loss:
                    kept.note = one.note
                    new += 1
        return new

    def noted(self, contract_ids: Sequence[ContractId]) -> list[NotedLoss]:
        """The noted losses of these contracts, in order of id."""
        with self._lock:
            kept = [self._losses[contract_id] for contract_id in sorted(set(contract_ids) & self._losses.keys())]
            return [NotedLoss(one.signed, one.note) for one in kept if one.note is not None]

    def loss_counts(self) -> LossCounts:
        """How many losses are on the book."""
        with self._lock:
            return LossCounts(len(self._losses), sum(one.note is not None for one in self._losses.values()))

    # -- forgetting

    def close(self, contract_ids: Sequence[ContractId]) -> None:
        """These contracts are over: unnoted losses and counts go at once, noted losses stay until `prune`."""
        with self._lock:
            for contract_id in contract_ids:
                self._units.pop(contract_id, None)
                loss = self._losses.get(contract_id)
                if loss is not None and loss.note is None:
                    del self._losses[contract_id]
                elif loss is not None:
                    loss.closed = True

    def prune(self, before_ms: int, keep_rounds: int) -> int:
        """Forget old rounds and all but the newest, and old closed losses; how many rounds were forgotten."""
        with self._lock:
            had = len(self._rounds)
            self._rounds = {digest: one for digest, one in self._rounds.items() if one.asked_ms >= before_ms}
            self._keep_newest(keep_rounds)
            self._losses = {
                contract_id: one
                for contract_id, one in self._losses.items()
                if not one.closed or one.signed.loss.declared_at_ms >= before_ms
            }
            return had - len(self._rounds)

    def _newest(self) -> list[tuple[bytes, _Round]]:
        return sorted(self._rounds.items(), key=lambda item: (item[1].asked_ms, item[1].number), reverse=True)

    def _keep_newest(self, keep_rounds: int, renter_key: PublicKey | None = None) -> None:
        of_renter = [
            digest
            for digest, one in self._newest()
            if renter_key is None or one.signed.challenge.renter_key == renter_key
        ]
        for digest in of_renter[keep_rounds:]:
            del self._rounds[digest]


def _summary(digest: bytes, kept: _Round) -> RoundSummary:
    said = None if kept.receipt is None else kept.receipt.receipt
    challenge = kept.signed.challenge
    return RoundSummary(
        digest=digest,
        renter_key=challenge.renter_key,
        auditor_key=challenge.auditor_key,
        asked_ms=kept.asked_ms,
        leaves=challenge.leaves,
        pages=len(kept.heads),
        billed_units=kept.billed_units,
        counts=None if said is None else said.counts,
        proved_bytes=0 if said is None else said.proved_bytes,
    )
