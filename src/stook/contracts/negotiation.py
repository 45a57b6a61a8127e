"""From a draft to a contract: what each side checks before it signs, and how a third party checks both.

The direct road is one round trip. The renter drafts; the farmer judges (`check_draft`) and signs; the renter verifies
the farmer *first*, then signs itself (`countersign`), stores the contract durably, and only then shows it. `check_*`
raise the refusal that is sent back; `verify_*` raise misbehaviour: somebody handed us what no honest node makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stook.contracts.announcement import Announcement
from stook.contracts.contract import CONTRACT_VERSION, AuditStrategy, AuditTerms, Contract, Settlement, Terms
from stook.contracts.messages import ClaimReply
from stook.contracts.topics import describes
from stook.errors import MisbehaviourError, ReasonCode, RefusedError
from stook.identity.keys import NodeKey, is_public_key, node_id_of, verify
from stook.ids import ROOT_BYTES, NetworkId, PublicKey, Signature
from stook.shards.geometry import LADDER

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MAX_BEGIN_SKEW_MS = HOUR_MS
"""How far a new contract's begin may lie from the farmer's now, either way."""
MAX_CONSIGN_WINDOW_MS = DAY_MS
"""How long a farmer keeps space free for a shard that has not come."""
MAX_GRACE_MS = 90 * DAY_MS
MIN_AUDIT_INTERVAL_MS = 60_000
MAX_AUDIT_LEAVES = 256
"""Half the units of the largest shard: more in one interval is a download."""
EVM_ACCOUNT_BYTES = 20


def check_terms(terms: Terms) -> None:
    """What terms must be whoever the parties are and whatever the revision. Pure of prices, time and room.

    Raises `RefusedError` for the first rule that fails, in the order of `docs/formats/contract.md`.
    """
    if terms.version != CONTRACT_VERSION:
        raise RefusedError(ReasonCode.WRONG_VERSION, f"contract version {terms.version}, not {CONTRACT_VERSION}")
    _bad_unless(is_public_key(terms.renter_key), "the renter's key is no point of the curve")
    _bad_unless(is_public_key(terms.farmer_key), "the farmer's key is no point of the curve")
    _bad_unless(terms.renter_key != terms.farmer_key, "renter and farmer are the same key")
    _bad_unless(
        len(terms.origin) == (ROOT_BYTES if terms.revision else 0),
        "origin is empty in revision 0 and the contract's id in every later one",
    )
    if terms.shard_size_bytes not in LADDER:
        raise RefusedError(
            ReasonCode.SHARD_SIZE_UNSUPPORTED,
            f"{terms.shard_size_bytes} bytes; shards are powers of two from {LADDER[0]} to {LADDER[-1]}",
        )
    _bad_unless(terms.begin_ms < terms.end_ms, "the contract ends before it begins")
    _bad_unless(terms.consign_by_ms <= terms.end_ms, "consign-by is later than the end")
    _check_audit(terms.audit)
    _check_destination(terms)
    _bad_unless(
        describes(terms.criteria, terms.shard_size_bytes, terms.end_ms - terms.begin_ms),
        "the criteria do not describe this size and duration",
    )
    _check_absences(terms)
    _bad_unless(terms.grace_ms <= MAX_GRACE_MS, f"grace of {terms.grace_ms} ms, at most {MAX_GRACE_MS}")


def check_draft(terms: Terms, *, announcement: Announcement, renter_key: PublicKey, now_ms: int) -> None:
    """Whether a draft from `renter_key` is one that the announcing farmer may sign now.

    A renter runs it over its own drafts before it asks. Room is not judged here: that is the farmer's admission.
    Raises `RefusedError` for the first rule that fails.
    """
    contact = announcement.contact.contact
    if terms.network != contact.network:
        raise RefusedError(ReasonCode.WRONG_NETWORK, f"the draft is for network {terms.network}")
    if terms.farmer_key != contact.public_key or terms.farmer_index != contact.hd_index:
        raise RefusedError(ReasonCode.WRONG_RECIPIENT, "the draft names another farmer's key")
    if terms.renter_key != renter_key:
        raise RefusedError(ReasonCode.NOT_YOUR_CONTRACT, "a renter claims under its own key only")
    check_terms(terms)
    _bad_unless(terms.revision == 0, "a claim is for a new contract, revision 0")
    _bad_unless(terms.collateral == 0, "no collateral is taken yet")
    check_tariff(terms, announcement)
    _bad_unless(abs(terms.begin_ms - now_ms) <= MAX_BEGIN_SKEW_MS, f"begin is over {MAX_BEGIN_SKEW_MS} ms from now")
    duration = terms.end_ms - terms.begin_ms
    if duration < announcement.min_duration_ms:
        raise RefusedError(ReasonCode.TOO_SHORT, f"{duration} ms, at least {announcement.min_duration_ms}")
    if duration > announcement.max_duration_ms:
        raise RefusedError(ReasonCode.TOO_LONG, f"{duration} ms, at most {announcement.max_duration_ms}")
    if terms.consign_by_ms <= now_ms:
        raise RefusedError(ReasonCode.CONSIGN_TOO_LATE, "consign-by has passed")
    _bad_unless(
        terms.consign_by_ms - now_ms <= MAX_CONSIGN_WINDOW_MS, f"consign-by is over {MAX_CONSIGN_WINDOW_MS} ms from now"
    )


def check_tariff(terms: Terms, announcement: Announcement) -> None:
    """Whether size, settlement and prices are what the farmer announced. Raises `RefusedError`."""
    if terms.shard_size_bytes > announcement.max_shard_bytes:
        raise RefusedError(
            ReasonCode.SHARD_SIZE_UNSUPPORTED,
            f"{terms.shard_size_bytes} bytes, at most {announcement.max_shard_bytes} here",
        )
    if terms.settlement not in announcement.settlements:
        raise RefusedError(ReasonCode.WRONG_SETTLEMENT, f"settlement {terms.settlement.name} is not accepted")
    if terms.storage_price_per_gib_hour < announcement.storage_price_per_gib_hour:
        raise RefusedError(
            ReasonCode.PRICE_TOO_LOW, f"storage costs {announcement.storage_price_per_gib_hour} per GiB and hour"
        )
    if terms.download_price_per_gib < announcement.download_price_per_gib:
        raise RefusedError(ReasonCode.PRICE_TOO_LOW, f"downloads cost {announcement.download_price_per_gib} per GiB")


def _bad_unless(holds: bool, detail: str) -> None:
    if not holds:
        raise RefusedError(ReasonCode.BAD_TERMS, detail)


def _check_audit(audit: AuditTerms) -> None:
    _bad_unless(audit.strategy is AuditStrategy.SAMPLED, f"audit strategy {audit.strategy.name} is not offered yet")
    _bad_unless(
        audit.leaves_per_interval <= MAX_AUDIT_LEAVES,
        f"{audit.leaves_per_interval} leaves per interval, at most {MAX_AUDIT_LEAVES}",
    )
    _bad_unless(
        audit.leaves_per_interval == 0 or audit.interval_ms >= MIN_AUDIT_INTERVAL_MS,
        f"audited every {audit.interval_ms} ms, at most every {MIN_AUDIT_INTERVAL_MS}",
    )


def _check_destination(terms: Terms) -> None:
    wanted = EVM_ACCOUNT_BYTES if terms.settlement is Settlement.EVM else 0
    _bad_unless(
        len(terms.payment_destination) == wanted,
        f"a payment destination for {terms.settlement.name} has {wanted} bytes, not {len(terms.payment_destination)}",
    )


def _check_absences(terms: Terms) -> None:
    free_from = terms.begin_ms
    for absence in terms.absences:
        _bad_unless(
            free_from <= absence.begin_ms < absence.end_ms <= terms.end_ms,
            "absences are in order, disjoint, not empty, and within the contract",
        )
        free_from = absence.end_ms


# --- signing and verifying -------------------------------------------------------------------------------------------


def sign_offer(terms: Terms, key: NodeKey) -> Signature:
    """The farmer's signature over a draft it accepted, reserved and stored. Raises `ValueError` for another's key."""
    if key.public_key != terms.farmer_key:
        raise ValueError("only the farmer that the terms name signs an offer")
    return key.sign(terms.digest)


def accept_offer(draft: Terms, farmer_signature: Signature) -> Contract:
    """The draft with the farmer's verified signature, still without ours (state OFFERED).

    Raises `MisbehaviourError` (BAD_SIGNATURE) when the farmer did not sign exactly this draft.
    """
    if not verify(draft.farmer_key, draft.digest, farmer_signature):
        raise MisbehaviourError(
            ReasonCode.BAD_SIGNATURE, "the farmer did not sign this draft", peer=node_id_of(draft.farmer_key).hex()
        )
    return Contract(terms=draft, farmer_signature=farmer_signature, renter_signature=Signature(b""))


def countersign(terms: Terms, farmer_signature: Signature, key: NodeKey) -> Contract:
    """The contract with both signatures; the farmer's is verified before ours is made.

    Store it durably before it leaves the machine. Raises `MisbehaviourError` (BAD_SIGNATURE) for the farmer,
    `ValueError` when `key` is not the renter's.
    """
    if key.public_key != terms.renter_key:
        raise ValueError("only the renter that the terms name countersigns")
    offer = accept_offer(terms, farmer_signature)
    return Contract(terms=terms, farmer_signature=offer.farmer_signature, renter_signature=key.sign(terms.digest))


def verify_contract(contract: Contract, network: NetworkId) -> None:
    """Whether this is a contract of our network that both parties signed. No opinion on prices or time.

    Raises `MisbehaviourError`: WRONG_VERSION, WRONG_NETWORK, BAD_TERMS (revision and origin contradict), BAD_SIGNATURE.
    """
    terms = contract.terms
    if terms.version != CONTRACT_VERSION:
        raise MisbehaviourError(ReasonCode.WRONG_VERSION, f"contract version {terms.version}")
    if terms.network != network:
        raise MisbehaviourError(ReasonCode.WRONG_NETWORK, f"a contract of network {terms.network}")
    if len(terms.origin) != (ROOT_BYTES if terms.revision else 0):
        raise MisbehaviourError(ReasonCode.BAD_TERMS, "revision and origin contradict each other")
    digest = terms.digest
    if not verify(terms.farmer_key, digest, contract.farmer_signature):
        raise MisbehaviourError(ReasonCode.BAD_SIGNATURE, "the farmer did not sign this contract")
    if not verify(terms.renter_key, digest, contract.renter_signature):
        raise MisbehaviourError(ReasonCode.BAD_SIGNATURE, "the renter did not sign this contract")


@dataclass(frozen=True, slots=True)
class Declined:
    """A draft the farmer did not sign, and its reason: a `ReasonCode`, or the bare number of one we do not know."""

    terms: Terms
    code: int
    detail: str


def read_claim_reply(drafts: Sequence[Terms], reply: ClaimReply) -> list[Contract | Declined]:
    """The farmer's answers beside our drafts, each signature verified; contracts still lack ours.

    Raises `MisbehaviourError`: UNBOUND_REPLY when the answers are not to these drafts in this order, BAD_SIGNATURE
    when one says yes without a valid signature. Then nothing in the reply is used.
    """
    if [answer.contract_id for answer in reply.answers] != [draft.contract_id for draft in drafts]:
        raise MisbehaviourError(ReasonCode.UNBOUND_REPLY, "the answers are not to the drafts that were claimed")
    return [
        Declined(draft, answer.code, answer.detail) if answer.code else accept_offer(draft, answer.farmer_signature)
        for draft, answer in zip(drafts, reply.answers, strict=True)
    ]
