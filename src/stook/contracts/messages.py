"""The payloads of every method a farmer serves, with their bounds (`docs/protocol/methods.md`).

A request is answered by one signed reply, or by an interim reply, a run of raw bytes, and (for CONSIGN) a last reply.
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from stook.codec import Record
from stook.contracts.announcement import SignedAnnouncement
from stook.contracts.contract import Contract, Terms
from stook.contracts.grant import SignedGrant
from stook.contracts.receipt import SignedEraseReceipt, SignedStorageReceipt
from stook.ids import ContractIdField, Signature, SignatureField, U32Field, U63Field

MAX_BATCH = 256
MAX_DETAIL_CHARS = 200
MAX_ANNOUNCEMENTS = 256
"""Every message, filled to its bounds, fits the 1 MiB of one payload (a test fills them)."""


class Method(enum.StrEnum):
    """Names of the methods as they stand in the envelope. PING and PROBE belong to the wire itself."""

    ANNOUNCE = "ANNOUNCE"
    CONTACTS = "CONTACTS"
    CAPACITY = "CAPACITY"
    CLAIM = "CLAIM"
    CONSIGN = "CONSIGN"
    RETRIEVE = "RETRIEVE"
    RENEW = "RENEW"
    CANCEL = "CANCEL"
    LIST_CONTRACTS = "LIST_CONTRACTS"


Code = Annotated[int, Meta(ge=0, le=999)]
"""0 is yes; anything else is a `ReasonCode`."""
Detail = Annotated[str, Meta(max_length=MAX_DETAIL_CHARS)]


class Announce(Record):
    """ANNOUNCE request: a farmer tells a seed that it is there. Answered by an empty `Done`."""

    announcement: SignedAnnouncement


class Done(Record):
    """A reply that says nothing but yes."""


class ContactsRequest(Record):
    """CONTACTS request: ask a seed whom it knows, at most `limit`."""

    limit: Annotated[int, Meta(ge=1, le=MAX_ANNOUNCEMENTS)]


class ContactsReply(Record):
    """CONTACTS reply: announcements as their farmers signed them."""

    announcements: Annotated[tuple[SignedAnnouncement, ...], Meta(max_length=MAX_ANNOUNCEMENTS)]


class CapacityRequest(Record):
    """CAPACITY request: ask a farmer for its own newest announcement."""


class CapacityReply(Record):
    """CAPACITY reply."""

    announcement: SignedAnnouncement


class Claim(Record):
    """CLAIM request: drafts for many shards at one farmer. Each draft names the farmer's key."""

    drafts: Annotated[tuple[Terms, ...], Meta(min_length=1, max_length=MAX_BATCH)]


class ClaimAnswer(Record):
    """The farmer's word on one draft: its signature over the terms as drafted, or a reason. It never alters terms."""

    contract_id: ContractIdField
    code: Code
    detail: Detail
    farmer_signature: Annotated[Signature, Meta(max_length=64)]


class ClaimReply(Record):
    """CLAIM reply: one answer per draft, in the order asked."""

    answers: Annotated[tuple[ClaimAnswer, ...], Meta(max_length=MAX_BATCH)]


class Consign(Record):
    """CONSIGN request: the countersigned contract and a grant to bring its shard.

    Interim reply `ConsignReady`; then, unless a receipt came with it, raw bytes: the whole leaf list, then the units
    from `first_unit` on; last reply `SignedStorageReceipt`.
    """

    contract: Contract
    grant: SignedGrant


class ConsignReady(Record):
    """CONSIGN interim reply: send from `first_unit` (earlier units are verified here), or here is the receipt."""

    first_unit: U32Field
    receipt: SignedStorageReceipt | None


class Retrieve(Record):
    """RETRIEVE request: units `first_unit` up to, not including, `end_unit`, under a grant.

    Reply `RetrieveReady`, then raw bytes: the whole leaf list, then those units.
    """

    grant: SignedGrant
    first_unit: U32Field
    end_unit: U32Field


class RetrieveReady(Record):
    """RETRIEVE reply: the shard's size; the bytes follow."""

    size_bytes: U63Field


class Renew(Record):
    """RENEW request: new terms (next revision), signed by the renter they name.

    `previous_signature` is the present owner's signature over the same terms when ownership moves, else empty.
    """

    terms: Terms
    renter_signature: SignatureField
    previous_signature: Annotated[Signature, Meta(max_length=64)]


class RenewReply(Record):
    """RENEW reply: the farmer's signature over the new terms."""

    farmer_signature: SignatureField


class Cancel(Record):
    """CANCEL request: erase these shards, or release their reservations. Only their renter may ask."""

    contract_ids: Annotated[tuple[ContractIdField, ...], Meta(min_length=1, max_length=MAX_BATCH)]


class CancelAnswer(Record):
    """The farmer's word on one cancellation: a signed erase receipt, or a reason."""

    contract_id: ContractIdField
    code: Code
    detail: Detail
    receipt: SignedEraseReceipt | None


class CancelReply(Record):
    """CANCEL reply: one answer per id, in the order asked."""

    answers: Annotated[tuple[CancelAnswer, ...], Meta(max_length=MAX_BATCH)]


class ListContracts(Record):
    """LIST_CONTRACTS request: the caller's own contracts with ids above `after` (empty: from the start)."""

    after: Annotated[bytes, Meta(max_length=32)]
    limit: Annotated[int, Meta(ge=1, le=MAX_BATCH)]


class ListedContract(Record):
    """One contract and whether its shard is stored."""

    contract: Contract
    stored: bool


class ContractPage(Record):
    """LIST_CONTRACTS reply, in order of id; `more` says whether to ask again after the last."""

    contracts: Annotated[tuple[ListedContract, ...], Meta(max_length=MAX_BATCH)]
    more: bool
