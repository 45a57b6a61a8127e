"""The farmer's answer, made of drawn units and their paths, and its judgement to one verdict a shard.

`prove` and `verify` are the two entry points, for both strategies. What the farmer did not sign about this very
challenge proves nothing against it; what it signed counts against it (`docs/formats/audit.md`, "Verdicts").
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from msgspec import Meta

from stook.audits.challenge import MAX_PAGE_WEIGHT, MAX_PAGES, Ask, Challenge, pages_of
from stook.audits.salted import SaltedProof, depth_of, leads_to_commitment, prove_salted
from stook.codec import Record, encode
from stook.contracts.loss import NotedLoss, SignedLoss, is_declared, is_noted
from stook.contracts.verdict import Verdict
from stook.errors import CorruptionError, NotFoundError
from stook.hashing import Tag, tagged_hash
from stook.identity.keys import NodeKey
from stook.identity.keys import verify as verify_signature
from stook.ids import Bytes32Field, ContractId, PublicKey, ShardRoot, SignatureField, U63Field
from stook.merkle import UNIT_BYTES, leaf_hash, merkle_paths, path_top, split_leaves, unit_count

ANSWER_VERSION = 1
MAX_ANSWER_BYTES = 1_000_000
"""Above the largest page there is (a test fills one), below the payload of one message."""
MAX_PATH = 32
_READ_BYTES = 1 << 20
_READS = 2
"""A unit that does not hash to its leaf is read once more before the shard counts as lost."""


class AnswerKind(enum.IntEnum):
    """What the farmer says about one shard."""

    PROOF = 1
    LOST = 2
    """It declares, or has declared, the shard lost."""
    UNKNOWN = 3
    """It holds no shard under this contract."""


class UnitProof(Record):
    """One unit and the way from its leaf to the top."""

    unit: Annotated[bytes, Meta(min_length=1, max_length=UNIT_BYTES)]
    path: Annotated[tuple[Bytes32Field, ...], Meta(max_length=MAX_PATH)]


class Item(Record):
    """The answer to one ask. What its kind does not name is empty or None."""

    kind: AnswerKind
    units: Annotated[tuple[UnitProof, ...], Meta(max_length=MAX_PAGE_WEIGHT)]
    salted: SaltedProof | None
    loss: SignedLoss | None


class AnswerHead(Record):
    """What the farmer signs of one page: small enough to stand in a receipt for all of it."""

    version: Annotated[int, Meta(ge=1, le=255)]
    challenge: Bytes32Field
    """Digest of the challenge that is answered."""
    page: Annotated[int, Meta(ge=0, lt=MAX_PAGES)]
    answered_at_ms: U63Field
    body: Bytes32Field
    """Digest of the items."""

    @property
    def digest(self) -> bytes:
        """What the farmer signs."""
        return tagged_hash(Tag.ANSWER, encode(self))


class SignedHead(Record):
    """A head with the farmer's signature."""

    head: AnswerHead
    signature: SignatureField


class SignedAnswer(Record):
    """One page of an answer."""

    head: AnswerHead
    signature: SignatureField
    items: Annotated[tuple[Item, ...], Meta(max_length=MAX_PAGE_WEIGHT)]
    """One for each ask of the page, in order."""

    @property
    def signed_head(self) -> SignedHead:
        """What a receipt keeps of it."""
        return SignedHead(self.head, self.signature)


_UNKNOWN = Item(AnswerKind.UNKNOWN, (), None, None)


# --- proving ---------------------------------------------------------------------------------------------------------


class Keeper(Protocol):
    """What proving needs of whoever keeps the shards. All calls may block; `storage.ports.ShardStore` has the reads."""

    def standing(self, ask: Ask) -> AnswerKind | SignedLoss:
        """PROOF when the shard of this contract is held, its declared loss, or UNKNOWN."""
        ...

    def read_leaves(self, root: ShardRoot) -> bytes:
        """The leaf list. Raises `NotFoundError`, `CorruptionError`."""
        ...

    def read_units(self, root: ShardRoot, first_unit: int, into: memoryview) -> int:
        """Fill `into` with bytes from `first_unit` on; the number of bytes read. Raises as `read_leaves`."""
        ...

    def salted_leaves(self, ask: Ask) -> Sequence[bytes]:
        """The leaves of all salts that were brought with the shard; empty when none were."""
        ...

    def lose(self, ask: Ask) -> SignedLoss:
        """Note durably that the shard is damaged or gone, and declare it."""
        ...


def prove(challenge: Challenge, page: int, keeper: Keeper) -> tuple[Item, ...]:
    """The items of one page: reads the units asked for and the leaf lists, nothing else (salted: whole shards).

    A shard that turns out damaged is declared lost through `keeper` and answered with that; the others are answered
    as if alone. An ask that does not fit what is kept is answered UNKNOWN: nothing that an auditor says makes a loss.
    `challenge` has passed `check_challenge` and `check_access`. Raises `IndexError` when there is no such page.
    """
    return tuple(prove_ask(challenge.asks[at], keeper) for at in pages_of(challenge)[page])


def prove_ask(ask: Ask, keeper: Keeper) -> Item:
    """The answer to one ask."""
    standing = keeper.standing(ask)
    if isinstance(standing, SignedLoss):
        return Item(AnswerKind.LOST, (), None, standing)
    if standing is not AnswerKind.PROOF:
        return _UNKNOWN
    try:
        if ask.salted is not None:
            leaves = keeper.salted_leaves(ask)
            if len(leaves) != ask.salted.count:
                return _UNKNOWN
            return Item(AnswerKind.PROOF, (), prove_salted(ask.salted, leaves, _pieces(ask, keeper)), None)
        leaves = _leaves(ask, keeper)
        if len(leaves) != unit_count(ask.size_bytes):
            return _UNKNOWN
        return Item(AnswerKind.PROOF, _unit_proofs(ask, leaves, keeper), None, None)
    except (NotFoundError, CorruptionError):
        return Item(AnswerKind.LOST, (), None, keeper.lose(ask))


def _leaves(ask: Ask, keeper: Keeper) -> list[bytes]:
    try:
        return split_leaves(keeper.read_leaves(ask.shard_root))
    except ValueError as error:
        raise CorruptionError(str(error)) from None


def _unit_proofs(ask: Ask, leaves: Sequence[bytes], keeper: Keeper) -> tuple[UnitProof, ...]:
    paths = merkle_paths(leaves, ask.units)
    return tuple(
        UnitProof(_unit(ask, unit, leaves[unit], keeper), tuple(path))
        for unit, path in zip(ask.units, paths, strict=True)
    )


def _unit(ask: Ask, unit: int, leaf: bytes, keeper: Keeper) -> bytes:
    into = bytearray(unit_bytes(ask.size_bytes, unit))
    for _ in range(_READS):
        if keeper.read_units(ask.shard_root, unit, memoryview(into)) == len(into) and leaf_hash(into) == leaf:
            return bytes(into)
    raise CorruptionError(f"unit {unit} is not its leaf")


def _pieces(ask: Ask, keeper: Keeper) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(_READ_BYTES, ask.size_bytes)))
    at = 0
    while at < ask.size_bytes:
        piece = buffer[: ask.size_bytes - at]
        if keeper.read_units(ask.shard_root, at // UNIT_BYTES, piece) != len(piece):
            raise CorruptionError("a shard that ends too soon")
        yield piece
        at += len(piece)


def sign_answer(
    challenge: Challenge, page: int, items: tuple[Item, ...], key: NodeKey, answered_at_ms: int
) -> SignedAnswer:
    """The farmer's signed page. Raises `ValueError` when `key` is not the farmer's that was asked."""
    if key.public_key != challenge.farmer_key:
        raise ValueError("the farmer that was asked signs the answer")
    head = AnswerHead(ANSWER_VERSION, challenge.digest, page, answered_at_ms, body_digest(items))
    return SignedAnswer(head, key.sign(head.digest), items)


def body_digest(items: tuple[Item, ...]) -> bytes:
    """What a head says of its items."""
    return tagged_hash(Tag.ANSWER_BODY, encode(items))


def unit_bytes(size_bytes: int, unit: int) -> int:
    """How long a unit of a shard is: the last may be short."""
    return min(UNIT_BYTES, size_bytes - unit * UNIT_BYTES)


# --- judging ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one ask; `reason` is a short sentence for people."""

    contract_id: ContractId
    shard_root: ShardRoot
    verdict: Verdict
    leaves: int
    reason: str


@dataclass(frozen=True, slots=True)
class Came:
    """One page of an answer and when it came, by the clock of whoever judges."""

    answer: SignedAnswer
    received_at_ms: int


def verify(
    challenge: Challenge, answers: Mapping[int, Came], losses: Mapping[ContractId, NotedLoss]
) -> tuple[Finding, ...]:
    """One finding for each ask, in order. Never raises for anything that a farmer made.

    `answers` has what came, by page. `losses` has the declarations that were noted, by contract; which of them count
    is decided here.
    """
    findings: list[Finding] = []
    digest = challenge.digest
    for page, positions in enumerate(pages_of(challenge)):
        asks = [challenge.asks[at] for at in positions]
        came = answers.get(page)
        silence = "no answer came" if came is None else _not_an_answer(challenge, digest, page, came)
        items: tuple[Item, ...] | None = None
        if came is not None and not silence:
            items = came.answer.items
        for at, ask in enumerate(asks):
            noted = losses.get(ask.contract_id)
            if noted is not None and loss_counts(challenge, ask.contract_id, ask.shard_root, noted):
                verdict, reason = Verdict.LOST, "declared lost before it was asked about"
            elif items is None:
                verdict, reason = Verdict.SILENT, silence
            elif len(items) != len(asks):
                verdict, reason = Verdict.MALFORMED, f"{len(items)} answers to {len(asks)} shards"
            else:
                verdict, reason = verify_ask(ask, items[at], challenge.farmer_key)
            findings.append(Finding(ask.contract_id, ask.shard_root, verdict, ask.weight, reason))
    return tuple(findings)


def loss_counts(challenge: Challenge, contract_id: ContractId, shard_root: ShardRoot, noted: NotedLoss) -> bool:
    """Whether this loss is honest towards this challenge: noted by its renter or auditor before, and unasked."""
    loss = noted.loss.loss
    return (
        (loss.contract_id, loss.shard_root, loss.farmer_key) == (contract_id, shard_root, challenge.farmer_key)
        and noted.note.note.received_at_ms < challenge.sent_at_ms
        and not noted.note.note.asked
        and is_noted(noted, (challenge.renter_key, challenge.auditor_key))
    )


def _not_an_answer(challenge: Challenge, digest: bytes, page: int, came: Came) -> str:
    """Why a page is not the farmer's word on this page of this challenge, in time; empty when it is."""
    head = came.answer.head
    if head.version != ANSWER_VERSION:
        return f"an answer of version {head.version}"
    if head.challenge != digest:
        return "an answer to another challenge"
    if head.page != page:
        return "an answer to another page"
    if came.received_at_ms > challenge.answer_by_ms:
        return f"the answer came {came.received_at_ms - challenge.answer_by_ms} ms late"
    if not verify_signature(challenge.farmer_key, head.digest, came.answer.signature):
        return "the farmer did not sign this answer"
    if head.body != body_digest(came.answer.items):
        return "not the answer that the farmer signed"
    return ""


def verify_ask(ask: Ask, item: Item, farmer_key: PublicKey) -> tuple[Verdict, str]:
    """The verdict on one item that its farmer signed. Noted losses are `verify`'s affair."""
    beside = (bool(item.units), item.salted is not None, item.loss is not None)
    match item.kind:
        case AnswerKind.UNKNOWN if not any(beside):
            return Verdict.FAILED, "says that it holds no such shard"
        case AnswerKind.LOST if beside == (False, False, True):
            return _verify_late_loss(ask, item, farmer_key)
        case AnswerKind.PROOF if ask.salted is None and beside == (True, False, False):
            return _verify_units(ask, item.units)
        case AnswerKind.PROOF if ask.salted is not None and beside == (False, True, False):
            return _verify_salted(ask, item)
    return Verdict.MALFORMED, f"{item.kind.name} with the wrong parts"


def _verify_late_loss(ask: Ask, item: Item, farmer_key: PublicKey) -> tuple[Verdict, str]:
    signed = item.loss
    assert signed is not None
    named = (signed.loss.contract_id, signed.loss.shard_root, signed.loss.farmer_key)
    if named != (ask.contract_id, ask.shard_root, farmer_key) or not is_declared(signed):
        return Verdict.MALFORMED, "a loss that is not this farmer's word on this shard"
    return Verdict.FAILED, "declared lost only when it was asked about"


def _verify_units(ask: Ask, proofs: Sequence[UnitProof]) -> tuple[Verdict, str]:
    if len(proofs) != len(ask.units):
        return Verdict.MALFORMED, f"{len(proofs)} units for {len(ask.units)}"
    count = unit_count(ask.size_bytes)
    tops = set()
    for unit, proof in zip(ask.units, proofs, strict=True):
        if len(proof.unit) != unit_bytes(ask.size_bytes, unit):
            return Verdict.MALFORMED, f"unit {unit} with {len(proof.unit)} bytes"
        top = path_top(leaf_hash(proof.unit), unit, count, proof.path)
        if top is None:
            return Verdict.MALFORMED, f"unit {unit} with a path of {len(proof.path)}"
        tops.add(top)
    if any(_root_of(ask.size_bytes, top) != ask.shard_root for top in tops):
        return Verdict.FAILED, "a unit that is not the shard's"
    return Verdict.PASSED, f"{len(proofs)} of {count} units proved"


def _root_of(size_bytes: int, top: bytes) -> bytes:
    return tagged_hash(Tag.SHARD, size_bytes.to_bytes(8, "big") + top)


def _verify_salted(ask: Ask, item: Item) -> tuple[Verdict, str]:
    assert ask.salted is not None
    assert item.salted is not None
    if len(item.salted.path) != depth_of(ask.salted.count):
        return Verdict.MALFORMED, f"a path of {len(item.salted.path)} for {ask.salted.count} salts"
    if not leads_to_commitment(ask.salted, ask.size_bytes, item.salted):
        return Verdict.FAILED, "not the hash that was committed to"
    return Verdict.PASSED, f"salt {ask.salted.index} of {ask.salted.count} proved the whole shard"
