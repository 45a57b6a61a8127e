"""Renewing a contract: the next revision of its terms, in which only some fields may differ (SIP-4).

May change: the times (with the absences and criteria that follow from them), the prices, the audit terms, the payment
destination, and the owner. What says *which* shard is kept by *whom*, how it is settled and how long grace lasts may
not: a change of those is another contract. The memo is the owner's note, so it may change with the owner only.
"""

from __future__ import annotations

from typing import Any

from msgspec import structs

from stook.contracts.announcement import Announcement
from stook.contracts.contract import Contract, Terms
from stook.contracts.messages import Renew
from stook.contracts.negotiation import MAX_BEGIN_SKEW_MS, check_tariff, check_terms, verify_contract
from stook.errors import MisbehaviourError, ReasonCode, RefusedError
from stook.identity.keys import NodeKey, verify
from stook.ids import PublicKey, Signature

RENEWABLE = frozenset(
    {
        "begin_ms",
        "end_ms",
        "absences",
        "criteria",
        "storage_price_per_gib_hour",
        "download_price_per_gib",
        "audit",
        "payment_destination",
        "renter_key",
        "renter_index",
    }
)
"""Fields a renewal may change."""
WITH_OWNER = frozenset({"renter_index", "memo"})
"""Fields that may change only when `renter_key` does."""
_SUCCESSION = frozenset({"revision", "origin"})
_PRICES = ("storage_price_per_gib_hour", "download_price_per_gib")


def changed_fields(old: Terms, new: Terms) -> frozenset[str]:
    """The names of the fields in which two terms differ."""
    return frozenset(name for name in Terms.__struct_fields__ if getattr(old, name) != getattr(new, name))


def next_revision(old: Contract, **changes: Any) -> Terms:
    """The terms after `old`'s, with `changes` to fields of `Terms`; revision and origin follow by themselves."""
    return structs.replace(old.terms, **changes, revision=old.terms.revision + 1, origin=old.contract_id)


def sign_renewal(terms: Terms, key: NodeKey, previous: NodeKey | None = None) -> Renew:
    """The RENEW request: signed by the owner the terms name and, when that is a new one, by the owner before.

    Raises `ValueError` when `key` is not the owner's.
    """
    if key.public_key != terms.renter_key:
        raise ValueError("a renewal is signed by the owner that its terms name")
    consent = Signature(b"") if previous is None else previous.sign(terms.consent_digest)
    return Renew(terms=terms, renter_signature=key.sign(terms.digest), previous_signature=consent)


def check_renewal(
    old: Contract, request: Renew, *, announcement: Announcement, caller_key: PublicKey, now_ms: int
) -> None:
    """Whether the farmer may sign this next revision of a contract it holds in state ACTIVE.

    The caller is the present owner or the one it hands over to. Prices may not fall below what the farmer announces
    now, and the past is not priced anew. Raises `RefusedError` for the first rule that fails; BAD_SIGNATURE last.
    """
    new = request.terms
    if caller_key not in (old.terms.renter_key, new.renter_key):
        raise RefusedError(ReasonCode.NOT_YOUR_CONTRACT, "neither the owner nor the next one")
    if now_ms >= old.terms.end_ms:
        raise RefusedError(ReasonCode.CONTRACT_ENDED, "the contract is over")
    if new.origin != old.contract_id or new.revision != old.terms.revision + 1:
        raise RefusedError(ReasonCode.BAD_TERMS, f"the next revision is {old.terms.revision + 1} of the same contract")
    _check_fields(old.terms, new)
    check_terms(new)
    check_tariff(new, announcement)
    _check_times(old.terms, new, announcement, now_ms)
    if not verify(new.renter_key, new.digest, request.renter_signature):
        raise RefusedError(ReasonCode.BAD_SIGNATURE, "the owner did not sign these terms")
    if new.renter_key == old.terms.renter_key:
        if request.previous_signature:
            raise RefusedError(ReasonCode.BAD_TERMS, "a consent to hand over, and nothing is handed over")
    elif not verify(old.terms.renter_key, new.consent_digest, request.previous_signature):
        raise RefusedError(ReasonCode.BAD_SIGNATURE, "the owner before did not consent to hand over")


def _check_fields(old: Terms, new: Terms) -> None:
    changed = changed_fields(old, new)
    allowed = RENEWABLE | _SUCCESSION
    allowed = allowed | WITH_OWNER if "renter_key" in changed else allowed - WITH_OWNER
    if forbidden := sorted(changed - allowed):
        raise RefusedError(ReasonCode.FIELD_NOT_RENEWABLE, ", ".join(forbidden))


def _check_times(old: Terms, new: Terms, announcement: Announcement, now_ms: int) -> None:
    if not old.begin_ms <= new.begin_ms <= old.end_ms:
        raise RefusedError(ReasonCode.BAD_TERMS, "the next revision begins while the present one runs")
    repriced = any(getattr(old, price) != getattr(new, price) for price in _PRICES)
    if repriced and new.begin_ms < max(old.begin_ms, now_ms - MAX_BEGIN_SKEW_MS):
        raise RefusedError(ReasonCode.BAD_TERMS, "new prices begin now, not in the past")
    if new.end_ms <= now_ms:
        raise RefusedError(ReasonCode.TOO_SHORT, "the next revision is over already")
    if new.end_ms - now_ms > announcement.max_duration_ms:
        raise RefusedError(
            ReasonCode.TOO_LONG, f"{new.end_ms - now_ms} ms from now, at most {announcement.max_duration_ms}"
        )


def renewed_contract(request: Renew, farmer_signature: Signature) -> Contract:
    """The new revision with both signatures, from the farmer's `RenewReply`. Store it before relying on it.

    Raises `MisbehaviourError` (BAD_SIGNATURE) when the farmer did not sign exactly these terms.
    """
    contract = Contract(
        terms=request.terms, farmer_signature=farmer_signature, renter_signature=request.renter_signature
    )
    verify_contract(contract, request.terms.network)
    return contract


def supersedes(new: Contract, old: Contract) -> bool:
    """Whether `new` is a later revision of the same contract.

    Raises `MisbehaviourError` (BAD_TERMS) when two different texts claim the same revision: somebody signed twice.
    """
    if new.contract_id != old.contract_id:
        return False
    if new.terms.revision == old.terms.revision and new.terms != old.terms:
        raise MisbehaviourError(ReasonCode.BAD_TERMS, "two different texts of one revision")
    return new.terms.revision > old.terms.revision
