"""Which drafts a farmer signs: one pure judgement per draft, with the reason of every refusal.

What both sides can check by the announcement alone is `contracts.negotiation.check_draft`, which renters run too; here
come the rules that only the farmer can judge: whom it serves, what it holds already, and what room it has left. A
farmer never alters terms: it signs a draft as it stands or says why not (`docs/protocol/farmer.md`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from stook.contracts.announcement import Announcement
from stook.contracts.contract import Settlement, Terms
from stook.contracts.lifecycle import ContractState
from stook.contracts.negotiation import DAY_MS, HOUR_MS, check_draft
from stook.errors import ReasonCode, RefusedError
from stook.farmer.capacity import CapacityView
from stook.identity.accounts import account_of
from stook.identity.contact import SignedContact
from stook.identity.keys import node_id_of
from stook.ids import ContractId, NodeId, PublicKey, ShardRoot
from stook.shards.geometry import LADDER
from stook.storage.ports import HeldContract


@dataclass(frozen=True, slots=True)
class FarmerTerms:
    """What a farmer offers and asks. Prices are floors; durations and sizes are inclusive bounds."""

    storage_price_per_gib_hour: int = 0
    download_price_per_gib: int = 0
    min_duration_ms: int = HOUR_MS
    max_duration_ms: int = 366 * DAY_MS
    max_shard_bytes: int = LADDER[-1]
    settlements: tuple[Settlement, ...] = (Settlement.LEDGER,)
    operator: str = ""
    failure_domain: str = ""
    max_unfilled_bytes_per_renter: int = 4 << 30
    """How much one renter may have reserved and not brought yet."""
    allowed_renters: frozenset[NodeId] | None = None
    """None: everyone."""


def announcement_of(
    terms: FarmerTerms, contact: SignedContact, view: CapacityView, *, accepting: bool, now_ms: int
) -> Announcement:
    """What the farmer says of itself at this moment; it judges every draft by the same text."""
    return Announcement(
        contact=contact,
        issued_ms=now_ms,
        capacity_bytes=view.limits.allocated_bytes,
        free_bytes=view.available_bytes if accepting else 0,
        storage_price_per_gib_hour=terms.storage_price_per_gib_hour,
        download_price_per_gib=terms.download_price_per_gib,
        min_duration_ms=terms.min_duration_ms,
        max_duration_ms=terms.max_duration_ms,
        max_shard_bytes=terms.max_shard_bytes,
        settlements=tuple(sorted({int(kind) for kind in terms.settlements})),
        operator=terms.operator,
        failure_domain=terms.failure_domain,
    )


@dataclass(frozen=True, slots=True)
class Accept:
    """Sign it and reserve its bytes. `again`: this very contract is reserved already, so sign and reserve nothing."""

    terms: Terms
    again: bool = False


@dataclass(frozen=True, slots=True)
class Decline:
    """Why not, as a code and a sentence for the renter's log."""

    terms: Terms
    code: ReasonCode
    detail: str


Decision = Accept | Decline


@dataclass(frozen=True, slots=True)
class Situation:
    """What a draft is judged against, beside the farmer's own terms."""

    announcement: Announcement
    asker: PublicKey
    view: CapacityView
    unfilled_bytes: int
    """What the asking renter has reserved and not brought."""
    now_ms: int
    held: Mapping[ContractId, HeldContract]
    """Contracts held already under an id that a draft has."""
    taken_roots: AbstractSet[ShardRoot]
    """Shards over which a contract is in force already."""
    leaving: bool = False


def decide(draft: Terms, terms: FarmerTerms, situation: Situation) -> Decision:
    """Judge one draft. The order of the rules is part of the protocol: the first that fails gives the reason."""
    try:
        held = situation.held.get(draft.contract_id)
        if held is not None and draft.renter_key == situation.asker:
            return _once_more(draft, held)
        check_draft(draft, announcement=situation.announcement, renter_key=situation.asker, now_ms=situation.now_ms)
        _check_renter(draft, terms)
        if situation.leaving:
            raise RefusedError(ReasonCode.LEAVING, "this farmer takes nothing new")
        _check_room(draft, terms, situation)
    except RefusedError as refusal:
        return Decline(draft, refusal.code, refusal.detail)
    return Accept(draft)


def decide_batch(drafts: Sequence[Terms], terms: FarmerTerms, situation: Situation) -> list[Decision]:
    """Judge the drafts of one CLAIM in order; one bad draft voids no other, and each accepted one takes its room."""
    decisions: list[Decision] = []
    seen: set[ContractId] = set()
    for draft in drafts:
        if draft.contract_id in seen:
            decisions.append(Decline(draft, ReasonCode.BAD_TERMS, "the same draft stands twice in this claim"))
            continue
        seen.add(draft.contract_id)
        decision = decide(draft, terms, situation)
        if isinstance(decision, Accept) and not decision.again:
            situation = replace(
                situation,
                view=situation.view.with_reservation(draft.shard_size_bytes),
                unfilled_bytes=situation.unfilled_bytes + draft.shard_size_bytes,
                taken_roots=situation.taken_roots | {draft.shard_root},
            )
        decisions.append(decision)
    return decisions


def _once_more(draft: Terms, held: HeldContract) -> Decision:
    """A claim asked again because its reply was lost gets the same signature: signing is deterministic."""
    if held.state is ContractState.OFFERED:
        return Accept(draft, again=True)
    return Decline(draft, ReasonCode.ALREADY_STORED, f"this contract is {held.state.value} already")


def _check_renter(draft: Terms, terms: FarmerTerms) -> None:
    if draft.settlement is Settlement.EVM and draft.payment_destination != account_of(draft.farmer_key):
        raise RefusedError(ReasonCode.BAD_TERMS, "cheques go to the account of this farmer's own key")
    if terms.allowed_renters is not None and node_id_of(draft.renter_key) not in terms.allowed_renters:
        raise RefusedError(ReasonCode.RENTER_NOT_ADMITTED, "this farmer serves a closed list of renters")


def _check_room(draft: Terms, terms: FarmerTerms, situation: Situation) -> None:
    size = draft.shard_size_bytes
    if draft.shard_root in situation.taken_roots:
        raise RefusedError(ReasonCode.ALREADY_STORED, "another contract is in force over this shard")
    if situation.unfilled_bytes + size > terms.max_unfilled_bytes_per_renter:
        raise RefusedError(
            ReasonCode.RESERVED_TOO_MUCH, f"{situation.unfilled_bytes} bytes are reserved for you and not brought yet"
        )
    if not situation.view.fits_allocation(size):
        raise RefusedError(ReasonCode.NO_SPACE, f"{situation.view.allocation_left_bytes} bytes are left")
    if not situation.view.fits_disk(size):
        raise RefusedError(ReasonCode.DISK_LOW, "the disk is nearly full")
