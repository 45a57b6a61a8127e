"""The port to what makes a cheque good. `LedgerSettlement` is the default: the payer's word within a limit, no chain.

`payments.evm` has the other adapter. Calls may block; callers on an event loop go through `stook.clock.Offload`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from stook.contracts.contract import Settlement as Kind
from stook.ids import NetworkId, PublicKey
from stook.money import Amount
from stook.payments.cheque import Drawer, SignedCheque


@dataclass(frozen=True, slots=True)
class Cashed:
    """What redeeming a cheque came to."""

    paid: Amount
    """Now; may be less than the cheque is worth, and nothing when nothing stands behind it."""
    paid_in_all: Amount
    reference: bytes
    """Of the transaction."""
    gas: int = 0


class Settlement(Protocol):
    """Where cheques are drawn on, and what they can be turned into."""

    kind: Kind

    def drawer(self, payer: PublicKey, payee: PublicKey, chequebook: bytes) -> Drawer:
        """Where this payer's cheques to this payee come from. `chequebook` is the one a cheque names, or ours."""
        ...

    def covered(self, drawer: Drawer) -> int | None:
        """What the chequebook can pay this beneficiary in all, paid out or not; None: nothing stands behind it."""
        ...

    def redeemable(self, drawer: Drawer, signed: SignedCheque) -> int | None:
        """What redeeming it now would pay, as tried without doing it; None: there is nowhere to redeem it."""
        ...

    def received(self, drawer: Drawer) -> Amount:
        """What this beneficiary was truly paid, whatever the chequebook says of itself."""
        ...

    def cash(self, drawer: Drawer, signed: SignedCheque) -> Cashed:
        """Redeem it. Raises `UserError` where there is nothing to redeem at, `EnvironmentFault` without a chain."""
        ...

    def paid_out(self, drawer: Drawer) -> Amount:
        """What the chequebook has paid this beneficiary."""
        ...


class LedgerSettlement:
    """A running account. Cheques are acknowledgements that a third party can check; people settle them as they like."""

    kind = Kind.LEDGER

    def __init__(self, network: NetworkId) -> None:
        self._network = network

    def drawer(self, payer: PublicKey, payee: PublicKey, chequebook: bytes) -> Drawer:
        """It follows from the keys."""
        return Drawer.ledger(self._network, payer, payee)

    def covered(self, drawer: Drawer) -> int | None:
        """Nothing stands behind them but their issuer."""
        return None

    def redeemable(self, drawer: Drawer, signed: SignedCheque) -> int | None:
        """Nowhere."""
        return None

    def received(self, drawer: Drawer) -> Amount:
        """Nothing, ever."""
        return Amount(0)

    def cash(self, drawer: Drawer, signed: SignedCheque) -> Cashed:
        """There is nowhere to go with it; what it says was acknowledged stays acknowledged."""
        return Cashed(Amount(0), Amount(0), b"")

    def paid_out(self, drawer: Drawer) -> Amount:
        """Nothing, ever."""
        return Amount(0)
