"""The white paper's own challenges: whole-shard hashes salted and committed to before the shard leaves (2.3).

The commitment is public, each challenge shows one salt, the answer is what only the whole shard gives. Salts run out,
and a commitment is its maker's word: for files that one checks oneself (`docs/formats/audit.md`, "Salted challenges").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from blake3 import blake3
from msgspec import Meta
from typing_extensions import Buffer

from stook.audits.challenge import MAX_SALTS, Ask, SaltedAsk
from stook.codec import Record
from stook.errors import UserError
from stook.hashing import Tag, tagged_hash
from stook.ids import Bytes32Field, ContractId, ShardRoot
from stook.merkle import merkle_path, path_top, tree_top

MAX_DEPTH = 12
SEED_BYTES = 32
PADDING = tagged_hash(Tag.SALTED_LEAF, b"")
"""A leaf is the hash of 32 bytes, so no pre-leaf leads to this one."""


class SaltedProof(Record):
    """The answer to one salt."""

    pre_leaf: Bytes32Field
    path: Annotated[tuple[Bytes32Field, ...], Meta(max_length=MAX_DEPTH)]


@dataclass(frozen=True, slots=True)
class SaltedSecrets:
    """What the renter keeps to itself, and how far it is used up."""

    seed: bytes
    count: int
    root: bytes
    next_index: int = 0

    def take(self, contract_id: ContractId, shard_root: ShardRoot, size_bytes: int) -> tuple[Ask, SaltedSecrets]:
        """The next ask, and the secrets after it: to be stored durably before the ask is shown to anybody.

        Raises `UserError` when all salts were used.
        """
        if self.next_index >= self.count:
            raise UserError(f"all {self.count} salts were used; an answer to one that was shown before proves nothing")
        salted = SaltedAsk(self.next_index, self.count, self.root, salt_of(self.seed, self.next_index))
        return Ask(contract_id, shard_root, size_bytes, (), salted), replace(self, next_index=self.next_index + 1)


def salt_of(seed: bytes, index: int) -> bytes:
    """The salt of one challenge. One that was shown tells nothing about the others."""
    return tagged_hash(Tag.SALT, seed + index.to_bytes(4, "big"))


def pre_leaf_of(salt: bytes, shard: Iterable[Buffer]) -> bytes:
    """What only somebody with every byte of the shard can compute from a salt; pieces of any size, in order."""
    state = blake3(salt, key=Tag.PRE_LEAF.key)
    for piece in shard:
        state.update(piece)
    return state.digest()


def salted_leaf(pre_leaf: bytes) -> bytes:
    """The leaf of a pre-leaf."""
    return tagged_hash(Tag.SALTED_LEAF, pre_leaf)


def depth_of(count: int) -> int:
    """Levels below the top: siblings in every proof."""
    return (count - 1).bit_length()


def prepare(seed: bytes, count: int, size_bytes: int, shard: Iterable[Buffer]) -> tuple[SaltedSecrets, list[bytes]]:
    """Secrets with commitment, and the leaves that the farmer keeps, from one pass over the shard.

    `seed` is 32 fresh random bytes, `count` 1 to `MAX_SALTS`. Raises `ValueError` for other numbers, and when the
    pieces are not `size_bytes` in all.
    """
    if len(seed) != SEED_BYTES or not 1 <= count <= MAX_SALTS:
        raise ValueError(f"a seed of {SEED_BYTES} bytes makes 1 to {MAX_SALTS} salts")
    states = [blake3(salt_of(seed, index), key=Tag.PRE_LEAF.key) for index in range(count)]
    seen = 0
    for piece in shard:
        seen += memoryview(piece).nbytes
        for state in states:
            state.update(piece)
    if seen != size_bytes:
        raise ValueError(f"{seen} bytes, not {size_bytes}")
    leaves = [salted_leaf(state.digest()) for state in states]
    return SaltedSecrets(seed, count, commitment_root(size_bytes, leaves)), leaves


def commitment_root(size_bytes: int, leaves: Sequence[bytes]) -> bytes:
    """The commitment over the leaves of all salts. Raises `ValueError` when there is none."""
    return _root(size_bytes, len(leaves), tree_top(_padded(leaves)))


def prove_salted(ask: SaltedAsk, leaves: Sequence[bytes], shard: Iterable[Buffer]) -> SaltedProof:
    """The answer, from the leaves kept beside the shard and all its bytes.

    It is not compared with the leaves: a shard that changed gives an answer that fails. Raises `ValueError` when
    there are not as many leaves as the ask says.
    """
    if len(leaves) != ask.count:
        raise ValueError(f"{len(leaves)} leaves, not {ask.count}")
    return SaltedProof(pre_leaf_of(ask.salt, shard), tuple(merkle_path(_padded(leaves), ask.index)))


def leads_to_commitment(ask: SaltedAsk, size_bytes: int, proof: SaltedProof) -> bool:
    """Whether the proof leads from its pre-leaf, at the index asked for, to the commitment. Never raises.

    Depth and turns come from the ask alone, and leaves are hashed under a tag of their own: no inner node passes for
    a leaf (white paper 5.7, "defeated audit").
    """
    top = path_top(salted_leaf(proof.pre_leaf), ask.index, 1 << depth_of(ask.count), proof.path)
    return top is not None and _root(size_bytes, ask.count, top) == ask.root


def _padded(leaves: Sequence[bytes]) -> list[bytes]:
    return [*leaves, *[PADDING] * ((1 << depth_of(len(leaves))) - len(leaves))]


def _root(size_bytes: int, count: int, top: bytes) -> bytes:
    return tagged_hash(Tag.SALTED_ROOT, size_bytes.to_bytes(8, "big") + count.to_bytes(4, "big") + top)
