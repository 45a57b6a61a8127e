"""MOVE: the renter's order to a leaving farmer to bring a shard to another one (`docs/protocol/move.md`).

The order names a contract that the renter made with the new farmer, and carries a grant that lets the old one consign
there. The shard travels by the ordinary CONSIGN, so the new farmer needs to know nothing of moves.
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from stook.codec import Record
from stook.contracts.contract import Contract
from stook.contracts.grant import Operation, SignedGrant, check_grant
from stook.contracts.lifecycle import ContractState
from stook.contracts.messages import Code, Detail
from stook.contracts.negotiation import verify_contract
from stook.contracts.receipt import SignedStorageReceipt
from stook.errors import MisbehaviourError, ReasonCode, RefusedError
from stook.identity.contact import SignedContact
from stook.identity.keys import node_id_of
from stook.ids import ContractIdField, NetworkId, PublicKey

MAX_ORDERS = 64
"""So many fit one message, each with the longest contract, grant and contact (a test fills one)."""


class MoveMethod(enum.StrEnum):
    """The method's name as it stands in the envelope."""

    MOVE = "MOVE"


class MoveOrder(Record):
    """Bring the shard of one contract to another farmer."""

    contract_id: ContractIdField
    """The contract with the farmer that is asked."""
    contract: Contract
    """The one with the new farmer, over the same shard, with both signatures."""
    grant: SignedGrant
    """CONSIGN at the new farmer; its grantee is the farmer that is asked."""
    contact: SignedContact
    """Of the new farmer."""


class Move(Record):
    """MOVE request."""

    orders: Annotated[tuple[MoveOrder, ...], Meta(min_length=1, max_length=MAX_ORDERS)]


class MoveAnswer(Record):
    """One order: refused or given up (a code), still to be done (no code, no receipt), or done."""

    contract_id: ContractIdField
    code: Code
    detail: Detail
    receipt: SignedStorageReceipt | None
    """The new farmer's."""


class MoveReply(Record):
    """MOVE reply: one answer for each order, in the order asked."""

    answers: Annotated[tuple[MoveAnswer, ...], Meta(max_length=MAX_ORDERS)]


def check_order(
    order: MoveOrder,
    held: Contract | None,
    state: ContractState | None,
    *,
    network: NetworkId,
    farmer_key: PublicKey,
    caller_key: PublicKey,
    leaving: bool,
    now_ms: int,
) -> None:
    """Whether the farmer brings the shard of `held` where the order says.

    Raises `RefusedError` with the code of the first rule that fails: UNKNOWN_CONTRACT, NOT_YOUR_CONTRACT, NOT_LEAVING,
    SHARD_LOST, NOT_STORED_YET; BAD_SIGNATURE, WRONG_NETWORK or WRONG_VERSION (the new contract or the contact),
    BAD_TERMS (another shard or renter, or a contract with the farmer itself), WRONG_IDENTITY (the contact is not the
    new farmer's), the grant's codes, CONSIGN_TOO_LATE.
    """
    if held is None or state is None:
        raise RefusedError(ReasonCode.UNKNOWN_CONTRACT, "no such contract is in force")
    if held.terms.renter_key != caller_key:
        raise RefusedError(ReasonCode.NOT_YOUR_CONTRACT, "only its renter has a shard moved")
    if not leaving:
        raise RefusedError(ReasonCode.NOT_LEAVING, "this farmer stays; fetch the shard and bring it yourself")
    if state is ContractState.LOST:
        raise RefusedError(ReasonCode.SHARD_LOST, "this shard was lost here")
    if state is not ContractState.ACTIVE:
        raise RefusedError(ReasonCode.NOT_STORED_YET, "the shard has not come yet")
    _check_target(order, held, network=network, farmer_key=farmer_key)
    terms = order.contract.terms
    check_grant(
        order.grant,
        network=network,
        farmer=node_id_of(terms.farmer_key),
        contract=order.contract,
        caller_key=farmer_key,
        operation=Operation.CONSIGN,
        begin=0,
        end=terms.shard_size_bytes,
        now_ms=now_ms,
    )
    if now_ms >= terms.consign_by_ms:
        raise RefusedError(ReasonCode.CONSIGN_TOO_LATE, "consign-by of the new contract has passed")


def _check_target(order: MoveOrder, held: Contract, *, network: NetworkId, farmer_key: PublicKey) -> None:
    try:
        verify_contract(order.contract, network)
    except MisbehaviourError as error:
        raise RefusedError(error.code, str(error)[:120]) from None
    old, new, contact = held.terms, order.contract.terms, order.contact
    if (new.shard_root, new.shard_size_bytes) != (old.shard_root, old.shard_size_bytes):
        raise RefusedError(ReasonCode.BAD_TERMS, "the new contract is about another shard")
    if new.renter_key != old.renter_key or new.farmer_key == farmer_key:
        raise RefusedError(ReasonCode.BAD_TERMS, "the new contract is not the same renter's with another farmer")
    if contact.contact.public_key != new.farmer_key or contact.contact.network != network:
        raise RefusedError(ReasonCode.WRONG_IDENTITY, "the contact is not the new farmer's")
    if not contact.verifies():
        raise RefusedError(ReasonCode.BAD_SIGNATURE, "the new farmer did not sign this contact")
