"""Cheques: cumulative, EIP-712, signed by the payer's node key; judged here in one pure function.

The same bytes are judged by the payee and, with settlement EVM, by a contract (`docs/formats/cheque.md`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from stook.codec import Record
from stook.identity.accounts import account_of, keccak256
from stook.identity.keys import SigningKey
from stook.identity.keys import verify as verify_signature
from stook.ids import NetworkId, PublicKey, SignatureField, U63Field
from stook.money import NOTHING, Amount, narrow, wide

AccountField = Annotated[bytes, Meta(min_length=20, max_length=20)]
WideField = Annotated[bytes, Meta(min_length=16, max_length=16)]

_DOMAIN_TYPE = keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_CHEQUE_TYPE = keccak256(b"Cheque(address beneficiary,uint256 cumulativePayout,uint256 serial)")
_NAME = keccak256(b"Stook Chequebook")
_VERSION = keccak256(b"1")
NO_CHAIN = 0
"""The chain id of settlement LEDGER."""


class Cheque(Record):
    """Everything ever paid from a chequebook to a beneficiary."""

    chain_id: U63Field
    chequebook: AccountField
    beneficiary: AccountField
    cumulative: WideField
    serial: Annotated[int, Meta(ge=1, le=2**63 - 1)]

    @property
    def amount(self) -> Amount:
        """The cumulative sum as a number."""
        return narrow(self.cumulative)

    @property
    def digest(self) -> bytes:
        """The EIP-712 digest that is signed."""
        domain = keccak256(_DOMAIN_TYPE + _NAME + _VERSION + _word(self.chain_id) + self.chequebook.rjust(32, b"\0"))
        message = keccak256(_CHEQUE_TYPE + self.beneficiary.rjust(32, b"\0") + _word(self.amount) + _word(self.serial))
        return keccak256(b"\x19\x01" + domain + message)


class SignedCheque(Record):
    """A cheque with its issuer's signature."""

    cheque: Cheque
    signature: SignatureField


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def ledger_chequebook(network: NetworkId, issuer: PublicKey) -> bytes:
    """The name that stands for a chequebook where there is no chain."""
    return keccak256(b"stook/ledger/" + network.encode() + b"/" + account_of(issuer))[-20:]


@dataclass(frozen=True, slots=True)
class Drawer:
    """Where cheques of one payer to one payee come from and go to; what each of them has to say."""

    issuer: PublicKey
    chain_id: int
    chequebook: bytes
    beneficiary: bytes

    @classmethod
    def ledger(cls, network: NetworkId, payer: PublicKey, payee: PublicKey) -> Drawer:
        """For settlement LEDGER, where it follows from the two keys."""
        return cls(payer, NO_CHAIN, ledger_chequebook(network, payer), account_of(payee))


def draw_cheque(
    drawer: Drawer, key: SigningKey, last: SignedCheque | None, cumulative: int, least_serial: int = 1
) -> SignedCheque:
    """The next cheque. Write it down before it is sent: a serial is never signed twice.

    Raises `ValueError` when the key is not the issuer's, or the sum is not above that of the last cheque.
    """
    if key.public_key != drawer.issuer:
        raise ValueError("only the issuer draws cheques")
    if cumulative <= (last.cheque.amount if last is not None else 0):
        raise ValueError("a cheque says more than the one before")
    cheque = Cheque(
        chain_id=drawer.chain_id,
        chequebook=drawer.chequebook,
        beneficiary=drawer.beneficiary,
        cumulative=wide(cumulative),
        serial=max(least_serial, last.cheque.serial + 1 if last is not None else 1),
    )
    return SignedCheque(cheque, key.sign(cheque.digest))


class Fault(enum.StrEnum):
    """Which rule a cheque breaks."""

    CHAIN = "chain"
    CHEQUEBOOK = "chequebook"
    BENEFICIARY = "beneficiary"
    SIGNATURE = "signature"
    SERIAL = "serial"
    """Another cheque of the same serial is held: the issuer signed twice, and both together prove it."""
    STALE = "stale"
    LOWER = "lower"
    UNCOVERED = "uncovered"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a cheque is worth, or why nothing."""

    fault: Fault | None
    worth: Amount = NOTHING
    """What it adds to the cheque held before."""
    again: bool = False
    """It is the cheque held before."""


def judge(signed: SignedCheque, drawer: Drawer, last: SignedCheque | None, covered: int | None = None) -> Judgement:
    """Whether to take a cheque, by the rules in their order. Never raises.

    `covered` is what the chequebook can pay this beneficiary in all, paid out or not; None where nothing stands behind
    cheques but their issuer.
    """
    cheque = signed.cheque
    if cheque.chain_id != drawer.chain_id:
        return Judgement(Fault.CHAIN)
    if cheque.chequebook != drawer.chequebook:
        return Judgement(Fault.CHEQUEBOOK)
    if cheque.beneficiary != drawer.beneficiary:
        return Judgement(Fault.BENEFICIARY)
    if not verify_signature(drawer.issuer, cheque.digest, signed.signature):
        return Judgement(Fault.SIGNATURE)
    held = 0
    if last is not None:
        if cheque == last.cheque:
            return Judgement(None, again=True)
        if cheque.serial == last.cheque.serial:
            return Judgement(Fault.SERIAL)
        if cheque.serial < last.cheque.serial:
            return Judgement(Fault.STALE)
        held = last.cheque.amount
    if cheque.amount <= held:
        return Judgement(Fault.LOWER)
    if covered is not None and cheque.amount > covered:
        return Judgement(Fault.UNCOVERED)
    return Judgement(None, Amount(cheque.amount - held))
