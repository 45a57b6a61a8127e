"""Parties, drafts and what follows from them, valid in every field; tests change the one thing they are about."""

from __future__ import annotations

from msgspec import structs

from stook.contracts.announcement import Announcement, SignedAnnouncement, sign_announcement
from stook.contracts.contract import AuditStrategy, AuditTerms, Contract, Settlement, Terms
from stook.contracts.grant import Operation, SignedGrant, issue_grant
from stook.contracts.negotiation import DAY_MS, HOUR_MS, countersign, sign_offer
from stook.contracts.topics import criteria_of
from stook.hashing import Tag, tagged_hash
from stook.identity.contact import Address, AddressKind, sign_contact
from stook.identity.keys import NodeKey
from stook.ids import NetworkId, ShardRoot

NOW_MS = 1_800_000_000_000
NETWORK = NetworkId("test.net")
SHARD_BYTES = 1 << 20
RENTER, FARMER, OTHER, CLIENT = (NodeKey.from_secret(bytes((number,)) * 32) for number in (1, 2, 3, 4))
ROOT = ShardRoot(tagged_hash(Tag.SHARD, b"sample"))
SERIAL = bytes(range(16))


def draft(**changes: object) -> Terms:
    """Revision 0 of RENTER with FARMER."""
    terms = Terms(
        version=1,
        network=NETWORK,
        renter_key=RENTER.public_key,
        renter_index=0,
        farmer_key=FARMER.public_key,
        farmer_index=0,
        shard_root=ROOT,
        shard_size_bytes=SHARD_BYTES,
        begin_ms=NOW_MS,
        end_ms=NOW_MS + 60 * DAY_MS,
        consign_by_ms=NOW_MS + HOUR_MS,
        audit=AuditTerms(strategy=AuditStrategy.SAMPLED, interval_ms=DAY_MS, leaves_per_interval=4),
        storage_price_per_gib_hour=10**12,
        download_price_per_gib=10**15,
        settlement=Settlement.LEDGER,
        payment_destination=b"",
        criteria=criteria_of(SHARD_BYTES, 60 * DAY_MS),
        absences=(),
        collateral=0,
        grace_ms=7 * DAY_MS,
        memo=b"memo",
        revision=0,
        origin=b"",
    )
    return structs.replace(terms, **changes)


def contract(terms: Terms | None = None, *, renter: NodeKey = RENTER, farmer: NodeKey = FARMER) -> Contract:
    """Both signatures over `terms`."""
    terms = draft() if terms is None else terms
    return countersign(terms, sign_offer(terms, farmer), renter)


def announcement(**changes: object) -> Announcement:
    """What FARMER announces: the prices of `draft` are exactly its floor."""
    contact = sign_contact(
        FARMER,
        network=NETWORK,
        addresses=(Address(AddressKind.DIRECT, "farmer.example", 4000),),
        sequence=NOW_MS,
        issued_ms=NOW_MS,
    )
    plain = Announcement(
        contact=contact,
        issued_ms=NOW_MS,
        capacity_bytes=1 << 40,
        free_bytes=1 << 39,
        storage_price_per_gib_hour=10**12,
        download_price_per_gib=10**15,
        min_duration_ms=DAY_MS,
        max_duration_ms=90 * DAY_MS,
        max_shard_bytes=4 << 20,
        settlements=(0,),
        operator="alice",
        failure_domain="cellar",
    )
    return structs.replace(plain, **changes)


def signed_announcement(**changes: object) -> SignedAnnouncement:
    """The same, signed by FARMER."""
    return sign_announcement(announcement(**changes), FARMER)


def grant(terms: Terms | None = None, **changes: object) -> SignedGrant:
    """RENTER lets CLIENT fetch the whole shard once."""
    choices: dict[str, object] = {
        "grantee_key": CLIENT.public_key,
        "operation": Operation.RETRIEVE,
        "expires_ms": NOW_MS + HOUR_MS,
        "serial": SERIAL,
    }
    return issue_grant(draft() if terms is None else terms, RENTER, **(choices | changes))
