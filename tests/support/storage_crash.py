"""A farmer's life in a process that will be killed: random work on both stores, every step announced and acknowledged.

Messages go through a pipe as (kind, key, phase, value): ``will`` before a step, ``did`` after it. What was acknowledged
must be there after the kill; what was only announced may be.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from stook.codec import decode, encode
from stook.contracts.contract import Contract
from stook.contracts.lifecycle import ContractState
from stook.merkle import UNIT_BYTES
from stook.storage.contract_store import SqliteContractStore
from stook.storage.ports import HeldContract
from stook.storage.shard_store import FileShardStore
from storage_samples import held, renewed, sample, signed

SHARDS = [sample((1, 3, 8, 20)[number % 4] * UNIT_BYTES + number, number) for number in range(12)]
THREADS = 3
BUDGET = 10**12
Say = Callable[[str, int, str, object], None]


def contract_of(number: int, revision: int) -> Contract:
    """The contract over a shard in one revision."""
    first = signed(SHARDS[number])
    return renewed(first, revision) if revision else first


def shard_state(store: FileShardStore, number: int) -> tuple[str, int] | None:
    """Published in a revision, partial with some units, or absent."""
    shard = SHARDS[number]
    found = store.find(shard.root)
    if found is not None:
        return "published", decode(Contract, found.contract).terms.revision
    units = store.resumable_units(shard.root, shard.size)
    return ("partial", units) if units else None


def index_state(store: SqliteContractStore, number: int) -> tuple[str, int] | None:
    """State and revision of a contract in the index, or absent."""
    found = store.get(signed(SHARDS[number]).contract_id)
    return None if found is None else (found.state.value, found.contract.terms.revision)


def live(directory: Path, seed: int, pipe: Connection) -> None:
    """Work until killed."""
    lock = threading.Lock()

    def say(kind: str, key: int, phase: str, value: object) -> None:
        with lock:
            pipe.send((kind, key, phase, value))

    with FileShardStore(directory / "store") as shards, SqliteContractStore(directory / "contracts.db") as index:
        workers = [
            threading.Thread(target=_work, args=(shards, index, random.Random(f"{seed} {number}"), number, say))
            for number in range(THREADS)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def _work(shards: FileShardStore, index: SqliteContractStore, dice: random.Random, worker: int, say: Say) -> None:
    mine = range(worker, len(SHARDS), THREADS)
    serial = bytes((worker,)) * 16
    while True:
        number = dice.choice(mine)
        state = shard_state(shards, number)
        if state is None or state[0] == "partial":
            _receive(shards, index, dice, number, say)
        elif dice.random() < 0.6:
            _renew(shards, index, number, state[1] + 1, say)
        else:
            _step(say, "shard", number, None, lambda n=number: shards.erase(SHARDS[n].root))
            _index(say, index, number, None)
        size = dice.randrange(1, 1000)
        _step(say, "spent", worker, size, lambda s=size: index.spend(serial, s, BUDGET, 2**60))


def _step(say: Say, kind: str, key: int, value: object, work: Callable[[], object]) -> None:
    say(kind, key, "will", value)
    work()
    say(kind, key, "did", value)


def _index(say: Say, index: SqliteContractStore, number: int, item: HeldContract | None) -> None:
    if item is None:
        gone = signed(SHARDS[number]).contract_id
        _step(say, "index", number, None, lambda: index.remove([gone]))
    else:
        value = (item.state.value, item.contract.terms.revision)
        _step(say, "index", number, value, lambda: index.put(item))


def _receive(shards: FileShardStore, index: SqliteContractStore, dice: random.Random, number: int, say: Say) -> None:
    shard, contract = SHARDS[number], contract_of(number, 0)
    _index(say, index, number, held(contract, ContractState.CONSIGNED))
    writer = shards.open_writer(shard.root, shard.size, shard.leaves)
    while writer.next_unit < shard.units:
        first = writer.next_unit
        end = min(shard.units, first + dice.randrange(1, 6))
        piece = shard.data[first * UNIT_BYTES : end * UNIT_BYTES]
        _step(say, "shard", number, ("partial", end), lambda p=piece: writer.write(p))
        if dice.random() < 0.05:
            writer.close(keep=True)
            return
        if dice.random() < 0.05:
            _step(say, "shard", number, None, lambda: writer.close(keep=False))
            return
    _step(say, "shard", number, ("published", 0), lambda: writer.publish(encode(contract)))
    _index(say, index, number, held(contract))


def _renew(shards: FileShardStore, index: SqliteContractStore, number: int, revision: int, say: Say) -> None:
    contract = contract_of(number, revision)
    record = encode(contract)
    _step(say, "shard", number, ("published", revision), lambda: shards.append_contract(SHARDS[number].root, record))
    _index(say, index, number, held(contract))
