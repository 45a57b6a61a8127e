"""Every `ShardStore` serves the prover: what the store reads is what the verifier accepts, and damage is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_storage_shard_store import spoil

from audit_samples import contract_id, drawn, loss_of
from contract_samples import FARMER, NOW_MS
from stook.audits.challenge import Ask, Challenge
from stook.audits.holding import HeldShard, Holding
from stook.audits.proof import AnswerKind, Came, prove, sign_answer, verify
from stook.contracts.loss import SignedLoss
from stook.contracts.verdict import Verdict
from stook.ids import ShardRoot
from stook.merkle import UNIT_BYTES
from stook.storage.memory import MemoryShardStore
from stook.storage.ports import ShardStore
from stook.storage.shard_store import FileShardStore
from storage_samples import sample, store_shard


class StoreKeeper:
    """A keeper over a store, as a farmer makes one."""

    def __init__(self, store: ShardStore) -> None:
        self._store = store
        self.lost: list[Ask] = []

    def standing(self, ask: Ask) -> AnswerKind | SignedLoss:
        return AnswerKind.PROOF

    def read_leaves(self, root: ShardRoot) -> bytes:
        return self._store.read_leaves(root)

    def read_units(self, root: ShardRoot, first_unit: int, into: memoryview) -> int:
        return self._store.read_units(root, first_unit, into)

    def salted_leaves(self, ask: Ask) -> list[bytes]:
        return []

    def lose(self, ask: Ask) -> SignedLoss:
        self.lost.append(ask)
        return loss_of(ask)


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ShardStore]:
    if request.param == "memory":
        yield MemoryShardStore()
        return
    with FileShardStore(tmp_path / "store") as files:
        yield files


def stored(store: ShardStore) -> Challenge:
    """Three shards of the store, all their units asked for."""
    shards = [sample(size, seed) for seed, size in enumerate((UNIT_BYTES, 4 * UNIT_BYTES + 9, 100))]
    for shard in shards:
        store_shard(store, shard)
    return drawn(
        Holding(HeldShard(contract_id(n), shard.root, len(shard.data)) for n, shard in enumerate(shards)), 7
    ).challenge


def judged(challenge: Challenge, keeper: StoreKeeper) -> list[Verdict]:
    answer = sign_answer(challenge, 0, prove(challenge, 0, keeper), FARMER, NOW_MS + 1)
    return [finding.verdict for finding in verify(challenge, {0: Came(answer, NOW_MS + 2)}, {})]


def test_what_the_store_reads_is_proof(store: ShardStore) -> None:
    challenge = stored(store)
    assert challenge.leaves == 7
    keeper = StoreKeeper(store)
    assert judged(challenge, keeper) == [Verdict.PASSED] * 3
    assert not keeper.lost


def test_damage_and_absence_are_found(store: ShardStore) -> None:
    challenge = stored(store)
    damaged, gone = sorted(challenge.asks, key=lambda ask: ask.size_bytes)[1:]
    spoil(store, damaged.shard_root, 0)
    store.erase(gone.shard_root)
    keeper = StoreKeeper(store)
    verdicts = dict(zip((ask.contract_id for ask in challenge.asks), judged(challenge, keeper), strict=True))
    assert verdicts[damaged.contract_id] is verdicts[gone.contract_id] is Verdict.FAILED
    assert list(verdicts.values()).count(Verdict.PASSED) == 1
    assert {ask.contract_id for ask in keeper.lost} == {damaged.contract_id, gone.contract_id}
