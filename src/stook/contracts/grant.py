"""A grant: the renter's signed word that someone may do one thing with one shard at one farmer, up to a budget.

A grant names its grantee's key, so a stolen message is useless, and its farmer, so it is useless elsewhere. It can be
attenuated offline: its grantee signs a narrower one that carries the parent (`docs/formats/grant.md`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.contracts.contract import Contract, Terms
from stook.errors import MalformedError, ReasonCode, RefusedError, UserError
from stook.hashing import Tag, tagged_hash
from stook.identity.keys import NodeKey, node_id_of, verify
from stook.ids import (
    ContractIdField,
    NetworkId,
    NetworkIdField,
    NodeId,
    NodeIdField,
    PublicKey,
    PublicKeyField,
    ShardRootField,
    SignatureField,
    U63Field,
)

GRANT_VERSION = 1
MAX_CHAIN = 4
"""Grants in one chain, the renter's own included."""
MAX_PARENT_BYTES = 2048
SERIAL_BYTES = 16
_SPENDING_KEY_BYTES = 16


class Operation(enum.IntEnum):
    """What a grant allows."""

    CONSIGN = 1
    """Bring the shard. Spent by the receipt, so its budget is the shard's size whatever was sent again."""
    RETRIEVE = 2
    """Fetch units."""
    AUDIT = 3
    """Challenge for possession (`docs/protocol/audits.md`)."""


class Grant(Record):
    """The signed text of a grant. Field order is the format."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    contract_id: ContractIdField
    shard_root: ShardRootField
    farmer: NodeIdField
    issuer_key: PublicKeyField
    """Who signs: the contract's renter, or the parent's grantee."""
    grantee_key: PublicKeyField
    """Who may use it: the sender of the request that carries it, nobody else."""
    operation: Operation
    begin_byte: U63Field
    end_byte: U63Field
    """Bytes of the shard from begin up to, not including, end."""
    budget_bytes: U63Field
    """Shard bytes that may move in all, over every use, resumes included; leaf lists are not counted."""
    expires_ms: U63Field
    """The first moment at which it is worth nothing."""
    serial: Annotated[bytes, Meta(min_length=SERIAL_BYTES, max_length=SERIAL_BYTES)]
    """The issuer's random name for this budget. Two grants of one issuer with one serial share what is spent."""
    parent: Annotated[bytes, Meta(max_length=MAX_PARENT_BYTES)]
    """Encoding of the parent `SignedGrant`, or empty when the issuer is the contract's renter."""

    @property
    def digest(self) -> bytes:
        """What the issuer signs."""
        return tagged_hash(Tag.GRANT, encode(self))


class SignedGrant(Record):
    """A grant with its issuer's signature over `Grant.digest`."""

    grant: Grant
    signature: SignatureField


# --- making ----------------------------------------------------------------------------------------------------------


def issue_grant(
    terms: Terms,
    key: NodeKey,
    *,
    grantee_key: PublicKey,
    operation: Operation,
    expires_ms: int,
    serial: bytes,
    budget_bytes: int | None = None,
    begin_byte: int = 0,
    end_byte: int | None = None,
) -> SignedGrant:
    """The renter's grant on its own contract; by default for the whole shard, once over.

    `serial` is 16 random bytes. Raises `ValueError` when `key` is not the contract's renter.
    """
    if key.public_key != terms.renter_key:
        raise ValueError("a contract's renter issues its grants")
    grant = Grant(
        version=GRANT_VERSION,
        network=terms.network,
        contract_id=terms.contract_id,
        shard_root=terms.shard_root,
        farmer=node_id_of(terms.farmer_key),
        issuer_key=key.public_key,
        grantee_key=grantee_key,
        operation=operation,
        begin_byte=begin_byte,
        end_byte=terms.shard_size_bytes if end_byte is None else end_byte,
        budget_bytes=terms.shard_size_bytes if budget_bytes is None else budget_bytes,
        expires_ms=expires_ms,
        serial=serial,
        parent=b"",
    )
    return SignedGrant(grant=grant, signature=key.sign(grant.digest))


def attenuate(
    parent: SignedGrant,
    key: NodeKey,
    *,
    grantee_key: PublicKey,
    serial: bytes,
    expires_ms: int | None = None,
    budget_bytes: int | None = None,
    begin_byte: int | None = None,
    end_byte: int | None = None,
) -> SignedGrant:
    """A grant made offline by the parent's grantee for somebody else; what is not given stays as in the parent.

    Raises `UserError` when it would allow more than the parent or the chain would pass `MAX_CHAIN`, `ValueError` when
    `key` is not the parent's grantee.
    """
    above = parent.grant
    if key.public_key != above.grantee_key:
        raise ValueError("only its grantee attenuates a grant")
    grant = Grant(
        version=above.version,
        network=above.network,
        contract_id=above.contract_id,
        shard_root=above.shard_root,
        farmer=above.farmer,
        issuer_key=key.public_key,
        grantee_key=grantee_key,
        operation=above.operation,
        begin_byte=above.begin_byte if begin_byte is None else begin_byte,
        end_byte=above.end_byte if end_byte is None else end_byte,
        budget_bytes=above.budget_bytes if budget_bytes is None else budget_bytes,
        expires_ms=above.expires_ms if expires_ms is None else expires_ms,
        serial=serial,
        parent=encode(parent),
    )
    if flaw := _widening(above, grant):
        raise UserError(f"a grant can only be narrowed: {flaw}")
    if len(chain_of(parent)) == MAX_CHAIN:
        raise UserError(f"this grant was handed on {MAX_CHAIN - 1} times already; ask the renter for one of your own")
    return SignedGrant(grant=grant, signature=key.sign(grant.digest))


# --- judging ---------------------------------------------------------------------------------------------------------


def chain_of(signed: SignedGrant) -> tuple[SignedGrant, ...]:
    """The grant and its ancestors, the renter's first. Signatures are not looked at.

    Raises `MalformedError` when a parent is no canonical grant or the chain is longer than `MAX_CHAIN`.
    """
    chain = [signed]
    while parent := chain[-1].grant.parent:
        if len(chain) == MAX_CHAIN:
            raise MalformedError(f"a chain of more than {MAX_CHAIN} grants")
        chain.append(decode(SignedGrant, parent, max_bytes=MAX_PARENT_BYTES))
    return tuple(reversed(chain))


def _widening(parent: Grant, child: Grant) -> str:
    """In what the child goes beyond its parent; empty when in nothing."""
    for name in ("version", "network", "contract_id", "shard_root", "farmer", "operation"):
        if getattr(parent, name) != getattr(child, name):
            return f"another {name}"
    if child.issuer_key != parent.grantee_key:
        return "issued by someone else than the parent's grantee"
    if not parent.begin_byte <= child.begin_byte <= child.end_byte <= parent.end_byte:
        return "a range outside the parent's"
    if child.budget_bytes > parent.budget_bytes:
        return "a larger budget"
    if child.expires_ms > parent.expires_ms:
        return "a later expiry"
    return ""


def check_grant(
    signed: SignedGrant,
    *,
    network: NetworkId,
    farmer: NodeId,
    contract: Contract | None,
    caller_key: PublicKey,
    operation: Operation,
    begin: int,
    end: int,
    now_ms: int,
) -> None:
    """Whether `caller_key` may do `operation` with bytes `begin` to `end` of the contract's shard now.

    `contract` is the one the request is about: what the farmer holds under the grant's contract id (None: nothing).
    Raises `RefusedError` with the code of the first rule that fails, in this order: GRANT_INVALID (form, chain,
    signatures), GRANT_WRONG_FARMER, UNKNOWN_CONTRACT, GRANT_WRONG_SHARD, GRANT_INVALID (first issuer is not the
    renter), GRANT_WRONG_GRANTEE, GRANT_WRONG_OPERATION, GRANT_EXPIRED, GRANT_OUT_OF_RANGE. The budget is the store's
    to judge, by `spendings`.
    """
    chain = _verified_chain(signed, network)
    grant = signed.grant
    if grant.farmer != farmer:
        raise RefusedError(ReasonCode.GRANT_WRONG_FARMER, "the grant is for another farmer")
    if contract is None:
        raise RefusedError(ReasonCode.UNKNOWN_CONTRACT, f"no contract {grant.contract_id.hex()[:16]} here")
    if grant.contract_id != contract.contract_id or grant.shard_root != contract.terms.shard_root:
        raise RefusedError(ReasonCode.GRANT_WRONG_SHARD, "the grant is for another shard or contract")
    if chain[0].grant.issuer_key != contract.terms.renter_key:
        raise RefusedError(ReasonCode.GRANT_INVALID, "the grant does not come from the contract's renter")
    if grant.grantee_key != caller_key:
        raise RefusedError(ReasonCode.GRANT_WRONG_GRANTEE, "the grant is for another node")
    if grant.operation is not operation:
        raise RefusedError(ReasonCode.GRANT_WRONG_OPERATION, f"the grant allows {grant.operation.name}")
    if now_ms >= grant.expires_ms:
        raise RefusedError(ReasonCode.GRANT_EXPIRED, f"expired {now_ms - grant.expires_ms} ms ago")
    if not grant.begin_byte <= begin <= end <= min(grant.end_byte, contract.terms.shard_size_bytes):
        raise RefusedError(
            ReasonCode.GRANT_OUT_OF_RANGE,
            f"bytes {begin} to {end}; the grant allows {grant.begin_byte} to {grant.end_byte}",
        )


def _verified_chain(signed: SignedGrant, network: NetworkId) -> tuple[SignedGrant, ...]:
    try:
        chain = chain_of(signed)
    except MalformedError as error:
        raise RefusedError(ReasonCode.GRANT_INVALID, str(error)[:120]) from None
    root = chain[0].grant
    if root.version != GRANT_VERSION:
        raise RefusedError(ReasonCode.GRANT_INVALID, f"grant version {root.version}, not {GRANT_VERSION}")
    if root.network != network:
        raise RefusedError(ReasonCode.GRANT_INVALID, f"the grant is for network {root.network}")
    for parent, child in pairwise(chain):
        if flaw := _widening(parent.grant, child.grant):
            raise RefusedError(ReasonCode.GRANT_INVALID, f"the chain allows more on the way: {flaw}")
    for link in chain:
        if not verify(link.grant.issuer_key, link.grant.digest, link.signature):
            raise RefusedError(ReasonCode.GRANT_INVALID, "a grant in the chain was not signed by its issuer")
    return chain


@dataclass(frozen=True, slots=True)
class Spending:
    """One budget that a use counts against: the name it is kept under, its size, and when it may be forgotten.

    The name is not the bare serial: it is bound to the contract and the issuer, so that nobody can use up somebody
    else's budget by copying a serial out of a chain.
    """

    serial: bytes
    budget_bytes: int
    expires_ms: int


def spendings(signed: SignedGrant) -> tuple[Spending, ...]:
    """Every budget a use of this grant counts against: the renter's grant first, then each one handed on.

    All of them or none: when one would be passed, what was recorded for the ones before is given back and the use is
    refused with GRANT_EXHAUSTED. So nobody moves more through many children than the parent allows. Raises
    `MalformedError` for a chain that is none.
    """
    return tuple(
        Spending(
            serial=_spending_key(link.grant), budget_bytes=link.grant.budget_bytes, expires_ms=link.grant.expires_ms
        )
        for link in chain_of(signed)
    )


def _spending_key(grant: Grant) -> bytes:
    named = grant.contract_id + grant.issuer_key + grant.serial
    return tagged_hash(Tag.SPENDING, named)[:_SPENDING_KEY_BYTES]
