"""The challenge: which units of which shards, drawn by a nonce, signed by whoever asks.

Making one, telling whether it was drawn, and what a farmer checks before it works for one. A challenge that contradicts
itself does not decode (`docs/formats/audit.md`).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from msgspec import Meta, structs

from stook.audits.holding import MAX_LEAVES, MAX_LEAVES_PER_SHARD, MAX_SIZE_BYTES, NONCE_BYTES, HeldShard, Holding
from stook.codec import Record, encode
from stook.contracts.contract import AuditStrategy, Contract, Terms
from stook.contracts.grant import Operation, SignedGrant, check_grant
from stook.errors import ReasonCode, RefusedError
from stook.hashing import Tag, tagged_hash
from stook.identity.envelope import TIME_WINDOW_MS
from stook.identity.keys import NodeKey, node_id_of, verify
from stook.ids import (
    Bytes32Field,
    ContractId,
    ContractIdField,
    NetworkId,
    NetworkIdField,
    PublicKey,
    PublicKeyField,
    ShardRootField,
    SignatureField,
    U32Field,
    U63Field,
)
from stook.merkle import UNIT_BYTES, unit_count

CHALLENGE_VERSION = 1
MAX_ASKS = MAX_LEAVES
MAX_PAGE_WEIGHT = MAX_LEAVES_PER_SHARD
"""Units, or salted asks, on one page: with paths and declarations of losses they fit one message."""
MAX_PAGES = 21
"""Two pages that follow each other weigh more than `MAX_PAGE_WEIGHT`, so no challenge has more."""
MAX_ANSWER_MS = 3_600_000
MAX_SALTS = 4096


class SaltedAsk(Record):
    """One salt of a commitment, shown once."""

    index: U32Field
    count: Annotated[int, Meta(ge=1, le=MAX_SALTS)]
    root: Bytes32Field
    """The commitment."""
    salt: Bytes32Field

    def __post_init__(self) -> None:
        if self.index >= self.count:
            raise ValueError(f"salt {self.index} of {self.count}")


class Ask(Record):
    """What is asked about one shard: units (SAMPLED) or one salt (SALTED)."""

    contract_id: ContractIdField
    shard_root: ShardRootField
    size_bytes: Annotated[int, Meta(ge=1, le=MAX_SIZE_BYTES)]
    units: Annotated[tuple[U32Field, ...], Meta(max_length=MAX_LEAVES_PER_SHARD)]
    salted: SaltedAsk | None

    def __post_init__(self) -> None:
        if bool(self.units) == (self.salted is not None):
            raise ValueError("units or a salt are asked for")
        if any(a >= b for a, b in pairwise(self.units)):
            raise ValueError("units out of order")
        if self.units and self.units[-1] >= unit_count(self.size_bytes):
            raise ValueError(f"unit {self.units[-1]} of {unit_count(self.size_bytes)}")

    @property
    def weight(self) -> int:
        """Units asked for; 1 for a salt."""
        return len(self.units) or 1

    @property
    def span(self) -> tuple[int, int]:
        """First byte and the byte behind the last that must be read: a grant has to cover them."""
        if not self.units:
            return 0, self.size_bytes
        return self.units[0] * UNIT_BYTES, min((self.units[-1] + 1) * UNIT_BYTES, self.size_bytes)

    @property
    def moved_bytes(self) -> int:
        """Bytes of the shard that answering takes: the units; for a salt the whole shard, which has to be read."""
        if not self.units:
            return self.size_bytes
        return sum(min(UNIT_BYTES, self.size_bytes - unit * UNIT_BYTES) for unit in self.units)


class Challenge(Record):
    """The signed text of a challenge. Field order is the format."""

    version: Annotated[int, Meta(ge=1, le=255)]
    network: NetworkIdField
    strategy: AuditStrategy
    renter_key: PublicKeyField
    auditor_key: PublicKeyField
    """Who asks: the renter, or whom it granted audits."""
    farmer_key: PublicKeyField
    nonce: Bytes32Field
    sent_at_ms: U63Field
    answer_by_ms: U63Field
    """An answer that comes later is none."""
    holding: Bytes32Field
    """Digest of the holding that was drawn over."""
    repeats: Annotated[bytes, Meta(max_length=32)]
    """Empty, or the digest of the challenge whose units are asked for again."""
    asks: Annotated[tuple[Ask, ...], Meta(min_length=1, max_length=MAX_ASKS)]

    def __post_init__(self) -> None:
        if not 0 < self.answer_by_ms - self.sent_at_ms <= MAX_ANSWER_MS:
            raise ValueError(f"{self.answer_by_ms - self.sent_at_ms} ms to answer, 1 to {MAX_ANSWER_MS} are allowed")
        if any(a.contract_id >= b.contract_id for a, b in pairwise(self.asks)):
            raise ValueError("asks out of order")
        if any((ask.salted is None) != (self.strategy is AuditStrategy.SAMPLED) for ask in self.asks):
            raise ValueError(f"an ask of another strategy than {self.strategy.name}")
        if sum(ask.weight for ask in self.asks) > MAX_LEAVES:
            raise ValueError(f"more than {MAX_LEAVES} units")
        if len(self.repeats) not in (0, 32):
            raise ValueError("no digest of a challenge")
        if self.repeats and self.strategy is AuditStrategy.SALTED:
            raise ValueError("a salt is shown once")

    @property
    def digest(self) -> bytes:
        """What the auditor signs, and what answers and receipts name."""
        return tagged_hash(Tag.CHALLENGE, encode(self))

    @property
    def leaves(self) -> int:
        """Units asked for in all; salts count as one."""
        return sum(ask.weight for ask in self.asks)


class SignedChallenge(Record):
    """A challenge with its auditor's signature."""

    challenge: Challenge
    signature: SignatureField


# --- making ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parties:
    """Between whom a challenge is: whose contracts, and who keeps the shards."""

    network: NetworkId
    renter_key: PublicKey
    farmer_key: PublicKey


def draw_asks(holding: Holding, nonce: bytes, wanted: int) -> tuple[Ask, ...]:
    """The asks that `nonce` draws. Raises `ValueError` as `Holding.draw`."""
    return tuple(
        Ask(shard.contract_id, shard.shard_root, shard.size_bytes, units, None)
        for shard, units in holding.draw(nonce, wanted)
    )


def draw_challenge(
    holding: Holding,
    parties: Parties,
    key: NodeKey,
    *,
    nonce: bytes,
    wanted: int,
    now_ms: int,
    answer_within_ms: int,
) -> SignedChallenge:
    """A challenge for `wanted` units of the holding (1 to `MAX_LEAVES`), signed by the auditor's `key`.

    `nonce` is 32 fresh random bytes. Raises `ValueError` for numbers out of bounds.
    """
    asks = draw_asks(holding, nonce, wanted)
    return _signed(parties, key, AuditStrategy.SAMPLED, nonce, now_ms, answer_within_ms, holding.digest, asks)


def salted_challenge(
    asks: Sequence[Ask], parties: Parties, key: NodeKey, *, nonce: bytes, now_ms: int, answer_within_ms: int
) -> SignedChallenge:
    """A challenge of salts, one a shard (`stook.audits.salted.SaltedSecrets.take`).

    Raises `ValueError` for asks of another kind, twice for one contract, or too many.
    """
    ordered = tuple(sorted(asks, key=lambda ask: ask.contract_id))
    holding = Holding(HeldShard(ask.contract_id, ask.shard_root, ask.size_bytes) for ask in ordered)
    return _signed(parties, key, AuditStrategy.SALTED, nonce, now_ms, answer_within_ms, holding.digest, ordered)


def repeat_challenge(
    earlier: Challenge,
    contract_ids: Container[ContractId],
    key: NodeKey,
    *,
    nonce: bytes,
    now_ms: int,
    answer_within_ms: int,
) -> SignedChallenge:
    """The same units of some of the same shards under a new nonce: for shards whose farmer was silent.

    Raises `ValueError` when none of the contracts was asked about, for a nonce or a time that is not new, for another
    key than the earlier auditor's, and for salted challenges.
    """
    if nonce == earlier.nonce or now_ms <= earlier.sent_at_ms:
        raise ValueError("a repeat has a nonce of its own and comes later")
    if key.public_key != earlier.auditor_key:
        raise ValueError("the auditor of a challenge repeats it")
    asks = tuple(ask for ask in earlier.asks if ask.contract_id in contract_ids)
    if not asks:
        raise ValueError("nothing to ask again")
    challenge = structs.replace(
        earlier,
        nonce=_checked_nonce(nonce),
        sent_at_ms=now_ms,
        answer_by_ms=now_ms + answer_within_ms,
        repeats=earlier.digest,
        asks=asks,
    )
    return SignedChallenge(challenge, key.sign(challenge.digest))


def _signed(
    parties: Parties,
    key: NodeKey,
    strategy: AuditStrategy,
    nonce: bytes,
    now_ms: int,
    answer_within_ms: int,
    holding: bytes,
    asks: tuple[Ask, ...],
) -> SignedChallenge:
    if not 1 <= len(asks) <= MAX_ASKS:
        raise ValueError(f"a challenge asks about 1 to {MAX_ASKS} shards, not {len(asks)}")
    challenge = Challenge(
        version=CHALLENGE_VERSION,
        network=parties.network,
        strategy=strategy,
        renter_key=parties.renter_key,
        auditor_key=key.public_key,
        farmer_key=parties.farmer_key,
        nonce=_checked_nonce(nonce),
        sent_at_ms=now_ms,
        answer_by_ms=now_ms + answer_within_ms,
        holding=holding,
        repeats=b"",
        asks=asks,
    )
    return SignedChallenge(challenge, key.sign(challenge.digest))


def _checked_nonce(nonce: bytes) -> bytes:
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
    return nonce


# --- what follows from one -------------------------------------------------------------------------------------------


def pages_of(challenge: Challenge) -> tuple[range, ...]:
    """The asks of each page of the answer, as positions in `challenge.asks`. At most `MAX_PAGES`, none empty."""
    pages, begin, weight = [], 0, 0
    for at, ask in enumerate(challenge.asks):
        more = len(ask.units) or 1  # its weight, without the call: a farmer comes by here for every page
        if weight + more > MAX_PAGE_WEIGHT:
            pages.append(range(begin, at))
            begin, weight = at, 0
        weight += more
    return (*pages, range(begin, len(challenge.asks)))


def is_drawn(challenge: Challenge, holding: Holding) -> bool:
    """Whether the asks are exactly what its nonce draws from `holding`: anybody can check. Never raises."""
    return (
        challenge.strategy is AuditStrategy.SAMPLED
        and not challenge.repeats
        and challenge.holding == holding.digest
        and challenge.asks == draw_asks(holding, challenge.nonce, challenge.leaves)
    )


def is_repeat(challenge: Challenge, earlier: Challenge) -> bool:
    """Whether it asks again, under a new nonce, for units that `earlier` asked for. Never raises."""
    same = ("version", "network", "strategy", "renter_key", "auditor_key", "farmer_key", "holding")
    return (
        challenge.repeats == earlier.digest
        and all(getattr(challenge, name) == getattr(earlier, name) for name in same)
        and challenge.nonce != earlier.nonce
        and challenge.sent_at_ms > earlier.sent_at_ms
        and set(challenge.asks) <= set(earlier.asks)
    )


def is_signed(signed: SignedChallenge) -> bool:
    """Whether the auditor it names signed it."""
    return verify(signed.challenge.auditor_key, signed.challenge.digest, signed.signature)


# --- the farmer's checks ---------------------------------------------------------------------------------------------


def check_challenge(
    signed: SignedChallenge, page: int, *, network: NetworkId, farmer_key: PublicKey, caller_key: PublicKey, now_ms: int
) -> None:
    """Whether the farmer works for this page of a challenge that `caller_key` sent.

    Raises `RefusedError` with the code of the first rule that fails: WRONG_VERSION, WRONG_NETWORK, WRONG_RECIPIENT,
    WRONG_IDENTITY (the caller is not its auditor), BAD_SIGNATURE, CLOCK_SKEW (dated more than five minutes ahead),
    STALE (its time to answer is over), MALFORMED (there is no such page).
    """
    challenge = signed.challenge
    if challenge.version != CHALLENGE_VERSION:
        raise RefusedError(ReasonCode.WRONG_VERSION, f"challenge version {challenge.version}, not {CHALLENGE_VERSION}")
    if challenge.network != network:
        raise RefusedError(ReasonCode.WRONG_NETWORK, f"a challenge in network {challenge.network}")
    if challenge.farmer_key != farmer_key:
        raise RefusedError(ReasonCode.WRONG_RECIPIENT, "a challenge to another farmer")
    if challenge.auditor_key != caller_key:
        raise RefusedError(ReasonCode.WRONG_IDENTITY, "a challenge of another auditor")
    if not is_signed(signed):
        raise RefusedError(ReasonCode.BAD_SIGNATURE, "its auditor did not sign this challenge")
    if challenge.sent_at_ms > now_ms + TIME_WINDOW_MS:
        raise RefusedError(ReasonCode.CLOCK_SKEW, f"a challenge of {challenge.sent_at_ms}, it is {now_ms}")
    if now_ms > challenge.answer_by_ms:
        raise RefusedError(ReasonCode.STALE, f"{now_ms - challenge.answer_by_ms} ms past its time to answer")
    if not 0 <= page < len(pages_of(challenge)):
        raise RefusedError(ReasonCode.MALFORMED, f"page {page} of {len(pages_of(challenge))}")


def check_access(
    challenge: Challenge,
    page: int,
    contracts: Mapping[ContractId, Contract],
    grants: Sequence[SignedGrant],
    *,
    now_ms: int,
) -> None:
    """Whether this auditor may ask about the held contracts of a page; call it after `check_challenge`.

    `contracts` are those that the farmer holds; an ask about none of them is answered UNKNOWN, not refused. The
    renter needs no grants; anybody else brings one for each ask of the page, in order. Raises `RefusedError`:
    NOT_YOUR_CONTRACT (not the renter's that the challenge names), GRANT_WRONG_SHARD (root or size are not the
    contract's), BAD_TERMS (another strategy than the contract's), GRANT_INVALID (not as many grants as asks), and
    the codes of `stook.contracts.grant.check_grant`. Budgets are the store's to judge: `Ask.moved_bytes` each.
    """
    asked = [challenge.asks[at] for at in pages_of(challenge)[page]]
    own = challenge.auditor_key == challenge.renter_key
    if len(grants) != (0 if own else len(asked)):
        raise RefusedError(ReasonCode.GRANT_INVALID, f"{len(grants)} grants for {len(asked)} shards")
    for at, ask in enumerate(asked):
        contract = contracts.get(ask.contract_id)
        if contract is None:
            continue
        terms, name = contract.terms, ask.contract_id.hex()[:16]
        if terms.renter_key != challenge.renter_key:
            raise RefusedError(ReasonCode.NOT_YOUR_CONTRACT, f"contract {name} has another renter")
        if (terms.shard_root, terms.shard_size_bytes) != (ask.shard_root, ask.size_bytes):
            raise RefusedError(ReasonCode.GRANT_WRONG_SHARD, f"contract {name} is about another shard")
        if terms.audit.strategy is not challenge.strategy:
            raise RefusedError(ReasonCode.BAD_TERMS, f"contract {name} is audited {terms.audit.strategy.name}")
        if not own:
            begin, end = ask.span
            check_grant(
                grants[at],
                network=challenge.network,
                farmer=node_id_of(challenge.farmer_key),
                contract=contract,
                caller_key=challenge.auditor_key,
                operation=Operation.AUDIT,
                begin=begin,
                end=end,
                now_ms=now_ms,
            )


def window_of(terms: Terms, at_ms: int) -> int:
    """The number of the audit interval, counted from the contract's begin, that `at_ms` lies in; 0 without one."""
    interval = terms.audit.interval_ms
    return max(0, at_ms - terms.begin_ms) // interval if interval else 0


def billable_units(terms: Terms, used: int, asked: int) -> int:
    """Of `asked` units those to be paid as a download, when `used` were asked for in this interval already."""
    return asked - min(asked, max(0, terms.audit.leaves_per_interval - used))
