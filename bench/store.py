"""What a farmer's stores cost: receiving and publishing shards, reading, auditing, scanning; contracts at 100,000.

Each line of shards stands beside the floor: the same bytes through bare system calls with one data sync and no
verification. `verify` is the hashing alone. Times of syncs are the disk's: compare on one machine only.

    python -m bench.store [--megabytes 256] [--contracts 100000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from bench.common import report
from stook.codec import encode
from stook.contracts.contract import AuditStrategy, AuditTerms, Contract, Settlement, Terms
from stook.contracts.lifecycle import ContractState
from stook.ids import NetworkId, PublicKey, ShardRoot, Signature
from stook.merkle import UNIT_BYTES, leaves_of, shard_root
from stook.storage import fsck
from stook.storage.contract_store import SqliteContractStore
from stook.storage.ports import HeldContract
from stook.storage.shard_store import FileShardStore

SIZES = (16 << 10, 1 << 20, 4 << 20)
BLOCK = 1 << 20
CONTRACT = bytes(600)


@dataclass(frozen=True)
class Shard:
    data: memoryview
    leaves: bytes
    root: ShardRoot


def make_shards(size: int, count: int) -> list[Shard]:
    """Distinct shards over one buffer, so that making them costs no memory: each begins at another place."""
    base = memoryview(os.urandom(size + count))
    shards = []
    for number in range(count):
        data = base[number : number + size]
        leaves = leaves_of(data)
        shards.append(Shard(data, b"".join(leaves), shard_root(size, leaves)))
    return shards


def timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def rates(seconds: tuple[float, float], count: int, size: int) -> dict[str, float]:
    wall, cpu = seconds
    total = count * size
    return {
        "per_s": round(count / wall, 1),
        "mb_s": round(total / wall / 1e6, 1),
        "cpu_s_per_gb": round(cpu / total * 1e9, 3),
    }


def receive(store: FileShardStore, shard: Shard) -> None:
    writer = store.open_writer(shard.root, len(shard.data), shard.leaves)
    for at in range(0, len(shard.data), BLOCK):
        writer.write(shard.data[at : at + BLOCK])
    writer.publish(CONTRACT)


def bare_write(folder: Path, shard: Shard, *, sync: bool) -> None:
    descriptor = os.open(folder / shard.root.hex(), os.O_WRONLY | os.O_CREAT)
    for at in range(0, len(shard.data), BLOCK):
        os.pwrite(descriptor, shard.data[at : at + BLOCK], at)
    if sync:
        os.fdatasync(descriptor)
    os.close(descriptor)


def measure_shards(folder: Path, size: int, count: int) -> dict[str, object]:
    shards = make_shards(size, count)
    buffer = memoryview(bytearray(size))
    unit = memoryview(bytearray(UNIT_BYTES))
    results: dict[str, object] = {"shards": count}

    def note(name: str, work: Callable[[], object], each: int = size, times: int = count) -> None:
        results[name] = rates(timed(work), times, each)

    bare = folder / f"bare-{size}"
    bare.mkdir()
    note("verify", lambda: [leaves_of(shard.data) for shard in shards])
    note("bare_write", lambda: [bare_write(bare, shard, sync=False) for shard in shards])
    note("bare_write_and_sync", lambda: [bare_write(bare, shard, sync=True) for shard in shards])
    with FileShardStore(folder / f"store-{size}") as store:
        half = count // 2
        note("receive", lambda: [receive(store, shard) for shard in shards[:half]], times=half)
        with ThreadPoolExecutor(8) as pool:
            note(
                "receive_8_threads",
                lambda: list(pool.map(lambda shard: receive(store, shard), shards[half:])),
                times=count - half,
            )
        note("read", lambda: [store.read_units(shard.root, 0, buffer) for shard in shards])
        picks = [random.Random(1).choice(shards) for _ in range(2000)]
        last = size // UNIT_BYTES
        note(
            "audit_one_unit",
            lambda: [
                (store.read_leaves(shard.root), store.read_units(shard.root, number % last, unit))
                for number, shard in enumerate(picks)
            ],
            each=UNIT_BYTES,
            times=2000,
        )
        note("bad_units", lambda: [store.bad_units(shard.root) for shard in shards])
        note("renew", lambda: [store.append_contract(shard.root, CONTRACT) for shard in shards])
        note("scan", lambda: list(store.scan()))
        note("erase", lambda: [store.erase(shard.root) for shard in shards])
    return results


def contract(number: int) -> Contract:
    terms = Terms(
        version=1,
        network=NetworkId("bench.net"),
        renter_key=PublicKey(bytes((2, number % 50)) + bytes(31)),
        renter_index=0,
        farmer_key=PublicKey(bytes((3,)) * 33),
        farmer_index=0,
        shard_root=ShardRoot(random.Random(number).randbytes(32)),
        shard_size_bytes=4 << 20,
        begin_ms=0,
        end_ms=10**12 + number,
        consign_by_ms=10**11 + number,
        audit=AuditTerms(AuditStrategy.SAMPLED, 86_400_000, 4),
        storage_price_per_gib_hour=10**12,
        download_price_per_gib=10**15,
        settlement=Settlement.LEDGER,
        payment_destination=b"",
        criteria=bytes(4),
        absences=(),
        collateral=0,
        grace_ms=0,
        memo=bytes(64),
        revision=0,
        origin=b"",
    )
    return Contract(terms, Signature(bytes(64)), Signature(bytes(64)))


def repeated(times: int, work: Callable[[int], object]) -> float:
    """Microseconds of one call."""
    return round(timed(lambda: [work(number) for number in range(times)])[0] / times * 1e6, 1)


def measure_contracts(folder: Path, count: int) -> dict[str, object]:
    contracts = [contract(number) for number in range(count)]
    states = [ContractState.OFFERED if number % 10 == 0 else ContractState.ACTIVE for number in range(count)]
    results: dict[str, object] = {"contracts": count}
    with SqliteContractStore(folder / "contracts.db") as store:
        held = [HeldContract(item, state) for item, state in zip(contracts, states, strict=True)]
        results["rebuild_per_s"] = round(count / timed(lambda: store.rebuild(held))[0])
        renter = contracts[0].terms.renter_key
        picks = [item.contract_id for item in random.Random(2).sample(contracts, 1000)]
        micro = {
            "totals": (20, lambda n: store.totals()),
            "reserved_by": (200, lambda n: store.reserved_by(renter)),
            "due_none": (200, lambda n: store.due(0, 100)),
            "get": (1000, lambda n: store.get(picks[n])),
            "owned_by_100": (20, lambda n: store.owned_by(renter, b"", 100)),
            "put": (300, lambda n: store.put(held[n])),
            "spend": (300, lambda n: store.spend(bytes(16), 1, 10**9, 10**12)),
        }
        results["microseconds"] = {name: repeated(times, work) for name, (times, work) in micro.items()}
        fresh = [
            structs.replace(item, terms=structs.replace(item.terms, shard_root=ShardRoot(os.urandom(32))))
            for item in contracts[:1000]
        ]
        batches = [fresh[at : at + 40] for at in range(0, 1000, 40)]
        results["reserve_in_batches_of_40_per_s"] = round(
            1000 / timed(lambda: [store.reserve(batch) for batch in batches])[0]
        )
        results["file_bytes_per_contract"] = round(os.path.getsize(store.path) / count)
    return results


def measure_fsck(folder: Path) -> dict[str, object]:
    """Make an index anew from many small shards."""
    shards = make_shards(16 << 10, 2000)
    with FileShardStore(folder / "fsck") as store, SqliteContractStore(folder / "again.db") as index:
        for number, shard in enumerate(shards):
            terms = structs.replace(contract(number).terms, shard_root=shard.root, shard_size_bytes=len(shard.data))
            writer = store.open_writer(shard.root, len(shard.data), shard.leaves)
            writer.write(shard.data)
            writer.publish(encode(structs.replace(contract(number), terms=terms)))
        return {"shards": 2000, "rebuilt_per_s": round(2000 / timed(lambda: fsck.rebuild(store, index))[0])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--megabytes", type=int, default=256, help="of shards of each size, at most 2,000 shards")
    parser.add_argument("--contracts", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        shards = {
            str(size): measure_shards(folder, size, min(2000, max(16, (options.megabytes << 20) // size)))
            for size in SIZES
        }
        result = {"shards": shards, "index": measure_contracts(folder, options.contracts)}
        report("store", result | {"fsck": measure_fsck(folder)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
