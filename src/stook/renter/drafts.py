"""The terms an agent asks for, and what makes a renewal due. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from stook.contracts.announcement import Announcement
from stook.contracts.contract import CONTRACT_VERSION, AuditStrategy, AuditTerms, Contract, Settlement, Terms
from stook.contracts.market import NOBODY, OPEN_ROOT, Prices
from stook.contracts.renewal import next_revision
from stook.contracts.topics import criteria_of
from stook.identity.accounts import account_of
from stook.ids import NetworkId, PublicKey, ShardRoot

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class DraftRules:
    """What is the same in every draft of one agent. Prices are limits; the farmer's announced price is what is paid."""

    network: NetworkId
    renter_key: PublicKey
    renter_index: int = 0
    duration_ms: int = 90 * DAY_MS
    consign_within_ms: int = HOUR_MS
    grace_ms: int = 7 * DAY_MS
    settlement: Settlement = Settlement.LEDGER
    payment_destination: bytes = b""
    audit: AuditTerms = AuditTerms(strategy=AuditStrategy.SAMPLED, interval_ms=DAY_MS, leaves_per_interval=4)  # noqa: RUF009
    max_storage_price_per_gib_hour: int = 2**63 - 1
    max_download_price_per_gib: int = 2**63 - 1


def draft(
    announcement: Announcement, root: ShardRoot, shard_bytes: int, memo: bytes, rules: DraftRules, now_ms: int
) -> Terms:
    """The terms for one shard at the farmer that announced itself, at its own prices."""
    contact = announcement.contact.contact
    return Terms(
        version=CONTRACT_VERSION,
        network=rules.network,
        renter_key=rules.renter_key,
        renter_index=rules.renter_index,
        farmer_key=contact.public_key,
        farmer_index=contact.hd_index,
        shard_root=root,
        shard_size_bytes=shard_bytes,
        begin_ms=now_ms,
        end_ms=now_ms + rules.duration_ms,
        consign_by_ms=now_ms + min(rules.consign_within_ms, rules.duration_ms),
        audit=rules.audit,
        storage_price_per_gib_hour=announcement.storage_price_per_gib_hour,
        download_price_per_gib=announcement.download_price_per_gib,
        settlement=rules.settlement,
        payment_destination=account_of(contact.public_key)
        if rules.settlement is Settlement.EVM
        else rules.payment_destination,
        criteria=criteria_of(shard_bytes, rules.duration_ms),
        absences=(),
        collateral=0,
        grace_ms=rules.grace_ms,
        memo=memo,
        revision=0,
        origin=b"",
    )


@dataclass(frozen=True, slots=True)
class GoingRates:
    """What half of all farmers take at most."""

    storage_price_per_gib_hour: int
    download_price_per_gib: int

    @classmethod
    def of(cls, announcements: Iterable[Announcement]) -> GoingRates | None:
        """The lower medians; None of nobody."""
        offers = list(announcements)
        if not offers:
            return None
        return cls(
            statistics.median_low(each.storage_price_per_gib_hour for each in offers),
            statistics.median_low(each.download_price_per_gib for each in offers),
        )


def market_draft(rules: DraftRules, shard_bytes: int, criteria: bytes, bid: Prices, now_ms: int) -> Terms:
    """The terms for any shard of this size at any farmer, for the open market (`stook.contracts.market`)."""
    return Terms(
        version=CONTRACT_VERSION,
        network=rules.network,
        renter_key=rules.renter_key,
        renter_index=rules.renter_index,
        farmer_key=NOBODY,
        farmer_index=0,
        shard_root=OPEN_ROOT,
        shard_size_bytes=shard_bytes,
        begin_ms=now_ms,
        end_ms=now_ms + rules.duration_ms,
        consign_by_ms=now_ms + min(rules.consign_within_ms, rules.duration_ms),
        audit=rules.audit,
        storage_price_per_gib_hour=bid.storage_price_per_gib_hour,
        download_price_per_gib=bid.download_price_per_gib,
        settlement=rules.settlement,
        payment_destination=rules.payment_destination,
        criteria=criteria,
        absences=(),
        collateral=0,
        grace_ms=rules.grace_ms,
        memo=b"",
        revision=0,
        origin=b"",
    )


def renewal_terms(
    contract: Contract, announcement: Announcement, rules: DraftRules, now_ms: int, going: GoingRates | None = None
) -> Terms | None:
    """The next revision, ending `rules.duration_ms` from now, at the farmer's present prices.

    None when the farmer no longer offers it: too dear, another settlement, or no contract of that length. Too dear is
    what is above our limits, and a price raised above twice the going rate: who has our shards already is no dearer
    than those who would take them.
    """
    old = contract.terms
    storage = max(old.storage_price_per_gib_hour, announcement.storage_price_per_gib_hour)
    download = max(old.download_price_per_gib, announcement.download_price_per_gib)
    too_dear = storage > rules.max_storage_price_per_gib_hour or download > rules.max_download_price_per_gib
    if going is not None:
        too_dear |= storage > max(old.storage_price_per_gib_hour, 2 * going.storage_price_per_gib_hour)
        too_dear |= download > max(old.download_price_per_gib, 2 * going.download_price_per_gib)
    duration = min(rules.duration_ms, announcement.max_duration_ms)
    end_ms = now_ms + duration
    if too_dear or old.settlement not in announcement.settlements or end_ms <= old.end_ms:
        return None
    # New prices may not reach into the past, so a repriced revision begins now.
    repriced = (storage, download) != (old.storage_price_per_gib_hour, old.download_price_per_gib)
    begin_ms = min(max(now_ms, old.begin_ms), old.end_ms) if repriced else old.begin_ms
    return next_revision(
        contract,
        begin_ms=begin_ms,
        end_ms=end_ms,
        criteria=criteria_of(old.shard_size_bytes, end_ms - begin_ms),
        storage_price_per_gib_hour=storage,
        download_price_per_gib=download,
    )
