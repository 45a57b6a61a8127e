"""Which drafts a farmer signs: one pure judgement per draft, with the reason of every refusal.

A farmer never alters terms: it signs a draft as it stands or says why not. Within one CLAIM each accepted draft takes
its room from the picture that the next one is judged by (`docs/protocol/farmer.md`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from stook.contracts.contract import CONTRACT_VERSION, AuditStrategy, Settlement, Terms
from stook.contracts.lifecycle import ContractState
from stook.errors import ReasonCode
from stook.farmer.capacity import CapacityView
from stook.identity.keys import node_id_of
from stook.ids import ContractId, NetworkId, NodeId, PublicKey, ShardRoot
from stook.merkle import UNIT_BYTES
from stook.storage.ports import HeldContract

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class FarmerTerms:
    """What a farmer asks of a contract. Prices are floors; durations and sizes are inclusive bounds."""

    network: NetworkId
    storage_price_per_gib_hour: int = 0
    download_price_per_gib: int = 0
    min_duration_ms: int = HOUR_MS
    max_duration_ms: int = 366 * DAY_MS
    max_shard_bytes: int = 4 * 1024 * 1024
    settlements: frozenset[Settlement] = frozenset({Settlement.LEDGER})
    audit_strategies: frozenset[AuditStrategy] = frozenset({AuditStrategy.SAMPLED})
    max_consign_window_ms: int = DAY_MS
    """How long space is kept free for a shard that has not come."""
    max_begin_skew_ms: int = HOUR_MS
    """How far a contract's begin may lie from now, either way."""
    max_grace_ms: int = 90 * DAY_MS
    max_collateral: int = 0
    max_unfilled_bytes_per_renter: int = 4 << 30
    allowed_renters: frozenset[NodeId] | None = None
    """None: everyone."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Sign it and reserve its bytes. `again` when this very contract is reserved already: sign, reserve nothing."""

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
    """What a draft is judged against, beside the farmer's own terms.

    `unfilled_bytes` is what the asking renter has reserved and not brought. `held` has the contracts held already under
    an id or a root that the drafts name.
    """

    own_key: PublicKey
    own_index: int
    asker: PublicKey
    view: CapacityView
    unfilled_bytes: int
    now_ms: int
    held: Mapping[ContractId, HeldContract]
    taken_roots: Collection[ShardRoot]


def decide(draft: Terms, terms: FarmerTerms, situation: Situation) -> Decision:
    """Judge one draft. The order of the rules is part of the protocol: the first that fails gives the reason."""
    reason = _parties(draft, terms, situation)
    if reason is None and (held := situation.held.get(draft.contract_id)) is not None:
        return _once_more(draft, held)
    reason = (
        reason
        or _shape(draft, terms, situation.now_ms)
        or _price(draft, terms)
        or _times(draft, terms, situation.now_ms)
        or _room(draft, terms, situation)
    )
    return Accept(draft) if reason is None else Decline(draft, *reason)


def decide_batch(drafts: Sequence[Terms], terms: FarmerTerms, situation: Situation) -> list[Decision]:
    """Judge the drafts of one CLAIM in order; one bad draft voids no other, and each accepted one takes its room."""
    decisions: list[Decision] = []
    view, unfilled = situation.view, situation.unfilled_bytes
    taken, seen = set(situation.taken_roots), set[ContractId]()
    for draft in drafts:
        if draft.contract_id in seen:
            decisions.append(Decline(draft, ReasonCode.BAD_TERMS, "the same draft stands twice in this claim"))
            continue
        seen.add(draft.contract_id)
        now = replace(situation, view=view, unfilled_bytes=unfilled, taken_roots=taken)
        decision = decide(draft, terms, now)
        if isinstance(decision, Accept) and not decision.again:
            view = view.with_reservation(draft.shard_size_bytes)
            unfilled += draft.shard_size_bytes
            taken.add(draft.shard_root)
        decisions.append(decision)
    return decisions


Reason = tuple[ReasonCode, str]


def _once_more(draft: Terms, held: HeldContract) -> Decision:
    """A claim asked again because its reply was lost gets the same signature (ECDSA here is deterministic)."""
    if held.state is ContractState.OFFERED:
        return Accept(draft, again=True)
    return Decline(draft, ReasonCode.ALREADY_STORED, f"this contract is {held.state.value} already")


def _parties(draft: Terms, terms: FarmerTerms, situation: Situation) -> Reason | None:
    if draft.version != CONTRACT_VERSION:
        return ReasonCode.WRONG_VERSION, f"contract version {draft.version}, this farmer signs {CONTRACT_VERSION}"
    if draft.network != terms.network:
        return ReasonCode.WRONG_NETWORK, f"the draft is for network {draft.network}"
    if draft.farmer_key != situation.own_key or draft.farmer_index != situation.own_index:
        return ReasonCode.WRONG_RECIPIENT, "the draft names another farmer's key"
    if draft.renter_key != situation.asker:
        return ReasonCode.NOT_YOUR_CONTRACT, "a renter claims under its own key only"
    if terms.allowed_renters is not None and node_id_of(draft.renter_key) not in terms.allowed_renters:
        return ReasonCode.RENTER_NOT_ADMITTED, "this farmer serves a closed list of renters"
    return None


def on_ladder(size_bytes: int) -> bool:
    """Whether a shard may have this size: a power of two from one unit of 16 KiB up."""
    return size_bytes >= UNIT_BYTES and size_bytes & (size_bytes - 1) == 0


def _shape(draft: Terms, terms: FarmerTerms, now_ms: int) -> Reason | None:
    if draft.revision != 0 or draft.origin:
        return ReasonCode.BAD_TERMS, "a claim is for a new contract: revision 0, no origin"
    if not on_ladder(draft.shard_size_bytes) or draft.shard_size_bytes > terms.max_shard_bytes:
        return (
            ReasonCode.SHARD_SIZE_UNSUPPORTED,
            f"{draft.shard_size_bytes} bytes; powers of two from {UNIT_BYTES} to {terms.max_shard_bytes} are kept",
        )
    if draft.audit.strategy not in terms.audit_strategies:
        return ReasonCode.BAD_TERMS, f"audit strategy {draft.audit.strategy.name} is not offered"
    if draft.collateral > terms.max_collateral:
        return ReasonCode.BAD_TERMS, f"collateral {draft.collateral}, at most {terms.max_collateral}"
    if draft.grace_ms > terms.max_grace_ms:
        return ReasonCode.BAD_TERMS, f"grace of {draft.grace_ms} ms, at most {terms.max_grace_ms}"
    return None


def _price(draft: Terms, terms: FarmerTerms) -> Reason | None:
    if draft.settlement not in terms.settlements:
        return ReasonCode.WRONG_SETTLEMENT, f"settlement {draft.settlement.name} is not accepted"
    if draft.storage_price_per_gib_hour < terms.storage_price_per_gib_hour:
        return ReasonCode.PRICE_TOO_LOW, f"storage costs {terms.storage_price_per_gib_hour} per GiB and hour"
    if draft.download_price_per_gib < terms.download_price_per_gib:
        return ReasonCode.PRICE_TOO_LOW, f"downloads cost {terms.download_price_per_gib} per GiB"
    return None


def _times(draft: Terms, terms: FarmerTerms, now_ms: int) -> Reason | None:
    duration = draft.end_ms - draft.begin_ms
    if abs(draft.begin_ms - now_ms) > terms.max_begin_skew_ms:
        return ReasonCode.BAD_TERMS, f"begin is more than {terms.max_begin_skew_ms} ms from now"
    if duration < terms.min_duration_ms:
        return ReasonCode.TOO_SHORT, f"{duration} ms, at least {terms.min_duration_ms}"
    if duration > terms.max_duration_ms:
        return ReasonCode.TOO_LONG, f"{duration} ms, at most {terms.max_duration_ms}"
    if draft.consign_by_ms <= now_ms:
        return ReasonCode.CONSIGN_TOO_LATE, "consign-by has passed"
    if draft.consign_by_ms > draft.end_ms or draft.consign_by_ms - now_ms > terms.max_consign_window_ms:
        return ReasonCode.BAD_TERMS, f"consign-by is later than the end or {terms.max_consign_window_ms} ms from now"
    return None


def _room(draft: Terms, terms: FarmerTerms, situation: Situation) -> Reason | None:
    if draft.shard_root in situation.taken_roots:
        return ReasonCode.ALREADY_STORED, "another contract is in force over this shard"
    if situation.unfilled_bytes + draft.shard_size_bytes > terms.max_unfilled_bytes_per_renter:
        return (
            ReasonCode.RESERVED_TOO_MUCH,
            f"{situation.unfilled_bytes} bytes are reserved for you and not brought yet",
        )
    if not situation.view.fits_allocation(draft.shard_size_bytes):
        return ReasonCode.NO_SPACE, f"{situation.view.allocation_left_bytes} bytes are left"
    if not situation.view.fits_disk(draft.shard_size_bytes):
        return ReasonCode.DISK_LOW, "the disk is nearly full"
    return None
