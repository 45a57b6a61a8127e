"""What one side keeps of its account with the other, and what a step changes. Values; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from stook.identity.keys import node_id_of
from stook.ids import NodeId, PublicKey
from stook.money import NOTHING, Amount
from stook.payments.batch import Agreement, SignedBatch
from stook.payments.cheque import SignedCheque
from stook.payments.ledger import Line
from stook.payments.orders import SignedOrder
from stook.payments.tariff import Span


@dataclass(frozen=True, slots=True)
class Account:
    """One pair, as one side keeps it."""

    partner_key: PublicKey
    seq: int = 0
    """Of the last batch; 0: none yet."""
    cut_ms: int = 0
    """How far batches reach."""
    owed: Amount = NOTHING
    """All batches together."""
    head: bytes = b""
    """Digest of the last batch."""
    cheque: SignedCheque | None = None
    """The last that was signed (payer) or taken (payee)."""
    delivered: Amount = NOTHING
    """Of cheques, what the payee acknowledged. The payee's own: what it holds."""
    cashed: Amount = NOTHING
    bartered: Amount = NOTHING
    orders: tuple[SignedOrder, ...] = ()
    billed: Mapping[int, int] = field(default_factory=dict)
    """Bytes by price that batches charged."""
    disputed: Amount = NOTHING
    """What the payee claims beyond what the payer admits."""
    since_ms: int = 0
    silent_ms: int = 0
    """When the payer first saw, since the last batch, that the payee was silent; 0: it did not."""
    floor_seq: int = 0
    """The batch that was adopted from the payee after our books were lost; 0: they never were."""
    floor_ms: int = 0
    """How far that one reached: nothing before is paid for again."""
    """When the account began."""
    version: int = 0
    """Counts changes; a change names the one it was made from."""

    @property
    def partner(self) -> NodeId:
        """The other side's node id."""
        return node_id_of(self.partner_key)

    @property
    def drawn(self) -> Amount:
        """What cheques say in all."""
        return self.cheque.cheque.amount if self.cheque is not None else Amount(0)

    @property
    def unpaid(self) -> int:
        """What batches owe beyond cheques and barter; negative when something was paid ahead."""
        return self.owed - self.drawn - self.bartered


@dataclass(frozen=True, slots=True)
class KeptBatch:
    """A batch with what the payee made of it."""

    signed: SignedBatch
    agreement: Agreement | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One step of an account: all of it is stored, or nothing. `account.version` is the one that was read."""

    account: Account
    batches: tuple[KeptBatch, ...] = ()
    """New ones, or known ones with the agreement that came."""
    opened: tuple[Span, ...] = ()
    closed: tuple[Span, ...] = ()
    """Open spans that end."""
    lines: tuple[Line, ...] = ()
