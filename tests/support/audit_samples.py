"""A small holding, whoever keeps it, and challenges over it; tests change the one thing they are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from contract_samples import FARMER, NETWORK, NOW_MS, RENTER
from stook.audits.challenge import Ask, Challenge, Parties, SignedChallenge, draw_challenge, pages_of
from stook.audits.holding import HeldShard, Holding
from stook.audits.proof import AnswerKind, Came, SignedAnswer, prove, sign_answer
from stook.audits.salted import SaltedSecrets, prepare
from stook.contracts.loss import LossDeclaration, SignedLoss
from stook.errors import CorruptionError, NotFoundError
from stook.hashing import Tag, tagged_hash
from stook.identity.keys import NodeKey
from stook.ids import ContractId, ShardRoot
from stook.merkle import UNIT_BYTES, leaves_of, shard_root

PARTIES = Parties(NETWORK, RENTER.public_key, FARMER.public_key)
ANSWER_WITHIN_MS = 120_000
NONCE = bytes(range(32))
SIZES = (UNIT_BYTES, 5 * UNIT_BYTES - 7, 100, 64 * UNIT_BYTES, 3 * UNIT_BYTES + 1)


def shard_bytes(number: int, size_bytes: int) -> bytes:
    """Bytes that differ from shard to shard and from unit to unit."""
    pattern = b"".join(tagged_hash(Tag.CONTENT, bytes((number, part))) for part in range(33))
    return (pattern * (size_bytes // len(pattern) + 1))[:size_bytes]


def contract_id(number: int) -> ContractId:
    """Ids that do not ascend with the number."""
    return ContractId(tagged_hash(Tag.CONTRACT, bytes((number,))))


def loss_of(held: HeldShard | Ask, at_ms: int = NOW_MS - 1, key: NodeKey = FARMER) -> SignedLoss:
    """The farmer's declaration about a shard."""
    loss = LossDeclaration(held.contract_id, held.shard_root, at_ms, key.public_key)
    return SignedLoss(loss, key.sign(loss.digest))


@dataclass
class MemoryKeeper:
    """Shards in memory. It counts what is read, and what it declared lost while proving."""

    shards: dict[ShardRoot, bytearray] = field(default_factory=dict)
    leaves: dict[ShardRoot, bytes] = field(default_factory=dict)
    held: dict[ContractId, HeldShard] = field(default_factory=dict)
    losses: dict[ContractId, SignedLoss] = field(default_factory=dict)
    salts: dict[ContractId, list[bytes]] = field(default_factory=dict)
    read_bytes: int = 0
    damaged_reads: int = 0
    """So many reads give wrong bytes, the ones after them are right."""
    now_ms: int = NOW_MS + 1

    def add(self, number: int, size_bytes: int) -> HeldShard:
        data = shard_bytes(number, size_bytes)
        leaves = leaves_of(memoryview(data))
        root = shard_root(size_bytes, leaves)
        shard = HeldShard(contract_id(number), root, size_bytes)
        self.shards[root] = bytearray(data)
        self.leaves[root] = b"".join(leaves)
        self.held[shard.contract_id] = shard
        return shard

    def add_salts(self, shard: HeldShard, count: int, seed: bytes = bytes(32)) -> SaltedSecrets:
        secrets, leaves = prepare(seed, count, shard.size_bytes, [self.shards[shard.shard_root]])
        self.salts[shard.contract_id] = leaves
        return secrets

    @property
    def holding(self) -> Holding:
        return Holding(self.held.values())

    def standing(self, ask: Ask) -> AnswerKind | SignedLoss:
        if ask.contract_id in self.losses:
            return self.losses[ask.contract_id]
        return AnswerKind.PROOF if ask.contract_id in self.held else AnswerKind.UNKNOWN

    def read_leaves(self, root: ShardRoot) -> bytes:
        if root not in self.leaves:
            raise NotFoundError("no such shard")
        return self.leaves[root]

    def read_units(self, root: ShardRoot, first_unit: int, into: memoryview) -> int:
        if root not in self.shards:
            raise CorruptionError("no such file")
        begin = first_unit * UNIT_BYTES
        data = self.shards[root][begin : begin + len(into)]
        into[: len(data)] = data
        self.read_bytes += len(data)
        if self.damaged_reads:
            self.damaged_reads -= 1
            into[0] ^= 1
        return len(data)

    def salted_leaves(self, ask: Ask) -> list[bytes]:
        return self.salts.get(ask.contract_id, [])

    def lose(self, ask: Ask) -> SignedLoss:
        self.losses[ask.contract_id] = loss_of(ask, self.now_ms)
        return self.losses[ask.contract_id]


def keeper(sizes: tuple[int, ...] = SIZES) -> MemoryKeeper:
    """A keeper of one shard of each size."""
    made = MemoryKeeper()
    for number, size_bytes in enumerate(sizes):
        made.add(number, size_bytes)
    return made


def drawn(holding: Holding, wanted: int = 40, nonce: bytes = NONCE, now_ms: int = NOW_MS) -> SignedChallenge:
    """A challenge of the renter's."""
    return draw_challenge(
        holding, PARTIES, RENTER, nonce=nonce, wanted=wanted, now_ms=now_ms, answer_within_ms=ANSWER_WITHIN_MS
    )


def answered(challenge: Challenge, keeper: MemoryKeeper) -> dict[int, Came]:
    """The farmer's answer to every page, come in time."""
    return {
        page: Came(sign_answer(challenge, page, prove(challenge, page, keeper), FARMER, NOW_MS + 1), NOW_MS + 2)
        for page in range(len(pages_of(challenge)))
    }


def signed_again(challenge: Challenge, answer: SignedAnswer, **changes: object) -> Came:
    """The answer with other items or head, signed by the farmer as it stands."""
    items = changes.get("items", answer.items)
    return Came(sign_answer(challenge, answer.head.page, items, FARMER, NOW_MS + 1), NOW_MS + 2)  # type: ignore[arg-type]


def verdicts(findings: tuple[object, ...]) -> Mapping[ContractId, object]:
    """Findings by contract."""
    return {finding.contract_id: finding.verdict for finding in findings}  # type: ignore[attr-defined]
