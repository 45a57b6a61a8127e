"""What an audit costs: CPU seconds and bytes per audited shard on both sides, audits a second of a farmer with many.

    python -m bench.audit [--shards 10000] [--size 16384] [--large 32] [--rounds 20] [--folder DIR]

A real farmer in a process of its own, over TLS loopback, its shards in files and its contracts in SQLite; the auditor
asks as `docs/protocol/audits.md` says: heartbeat, challenge, pages, verdicts, receipt. `small` has many small shards,
`large` a few of 4 MiB. `wide` challenges ask for 512 units (one of each shard, as a rule), `daily` ones for 20.

The yardstick is the same reading and hashing and nothing else: each unit and leaf list through bare system calls, then
BLAKE3 over the unit, in one process. Filling the farmer is not measured, and its syncs are left out there.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any
from unittest.mock import patch

from msgspec import structs

from bench.common import report, spread
from bench.store import contract
from bench.wire import CALLEE, CALLER, HOST, Clock, Meter, endpoint, peer_at
from stook.audits.challenge import Parties, draw_challenge, pages_of
from stook.audits.holding import HeldShard, Holding
from stook.audits.messages import Audit, AuditMethod, AuditReceipt, AuditReply, Heartbeat, HeartbeatReply
from stook.audits.proof import Came
from stook.audits.receipt import settle
from stook.codec import decode, encode
from stook.contracts.lifecycle import ContractState
from stook.contracts.messages import Done
from stook.contracts.verdict import Verdict
from stook.farmer.capacity import CapacityLimits
from stook.farmer.service import Farmer
from stook.farmer.settings import ChoreIntervals, FarmerSettings
from stook.identity.contact import Address, AddressKind, sign_contact
from stook.ids import NetworkId
from stook.merkle import UNIT_BYTES, leaf_hash, leaves_of, shard_root, unit_count
from stook.overlay.contact_book import ContactBook
from stook.storage.contract_store import SqliteContractStore
from stook.storage.ports import HeldContract
from stook.storage.shard_file import HEADER_BYTES, Layout
from stook.storage.shard_store import FileShardStore
from stook.threads import ThreadOffload
from stook.wire.endpoint import Endpoint

NETWORK = NetworkId("bench")
DEADLINE = 120.0
QUIET = ChoreIntervals(1e6, 1e6, 1e6, 1e6, 1e6, 1e6)
WANTED = {"wide": 512, "daily": 20}
LARGE = 4 << 20


# --- the farmer ------------------------------------------------------------------------------------------------------


def fill(folder: Path, size: int, count: int) -> Holding:
    """Shards with contracts in the farmer's stores; what the auditor knows of them."""
    base = memoryview(random.Random(size).randbytes(size + count))
    held, known = [], []
    with (
        FileShardStore(folder) as shards,
        SqliteContractStore(folder / "contracts.db") as contracts,
        patch.object(os, "fdatasync"),
        patch.object(os, "fsync"),
    ):
        for number in range(count):
            data = base[number : number + size]
            leaves = leaves_of(data)
            root = shard_root(size, leaves)
            terms = structs.replace(
                contract(number).terms,
                network=NETWORK,
                renter_key=CALLER.public_key,
                farmer_key=CALLEE.public_key,
                shard_root=root,
                shard_size_bytes=size,
                end_ms=1 << 62,
            )
            one = structs.replace(contract(number), terms=terms)
            writer = shards.open_writer(root, size, b"".join(leaves))
            writer.write(data)
            writer.publish(encode(one))
            held.append(HeldContract(one, ContractState.ACTIVE))
            known.append(HeldShard(one.contract_id, root, size))
        contracts.rebuild(held)
    return Holding(known)


def bytes_read() -> int:
    """What this process has read by system calls, from files and sockets alike."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def serve(pipe: Pipe, folder: Path) -> None:
    """A farmer until the pipe says so; each word is answered with the CPU seconds used and the bytes read so far."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            offload = ThreadOffload(2, "disk")
            stack.callback(offload.close)
            shards = stack.enter_context(FileShardStore(folder))
            contracts = stack.enter_context(SqliteContractStore(folder / "contracts.db"))
            wire = endpoint(CALLEE)
            _, port = await wire.listen(HOST, 0)
            addresses = [Address(AddressKind.DIRECT, HOST, port)]
            wire.contact = sign_contact(CALLEE, network=NETWORK, addresses=addresses, sequence=1, issued_ms=1)
            farmer = Farmer(
                key=CALLEE,
                network=NETWORK,
                endpoint=wire,
                shards=shards,
                contracts=contracts,
                book=ContactBook(NETWORK),
                clock=Clock(),
                offload=offload,
                free_disk=lambda: 1 << 50,
                settings=FarmerSettings(capacity=CapacityLimits(1 << 50, 0), chores=QUIET),
            )
            began = time.perf_counter()
            await farmer.start()
            pipe.send((port, time.perf_counter() - began))
            while await loop.run_in_executor(None, pipe.recv):
                pipe.send((time.process_time(), bytes_read()))
            await farmer.stop(grace_seconds=1)
            await wire.close(grace_seconds=0)

    asyncio.run(main())


# --- the auditor -----------------------------------------------------------------------------------------------------


@dataclass
class Round:
    """One challenge and what it took."""

    shards: int
    units: int
    farmer_cpu: float
    auditor_cpu: float
    wall: float
    asked_bytes: int
    answered_bytes: int
    read_bytes: int
    """What the farmer read, from disk and socket."""


async def play(wire: Endpoint, port: int, holding: Holding, wanted: int, pipe: Pipe) -> Round:
    """A whole round; every shard has to pass."""
    peer, clock, loop = peer_at(port), Clock(), asyncio.get_running_loop()
    sent = received = 0

    async def call(method: AuditMethod, payload: bytes) -> bytes:
        nonlocal sent, received
        reply = await wire.call(peer, method, payload, deadline_seconds=DEADLINE)
        sent, received = sent + len(payload), received + len(reply)
        return reply

    async def farmer_used() -> tuple[float, int]:
        pipe.send(True)
        seconds, size = await loop.run_in_executor(None, pipe.recv)
        return float(seconds), int(size)

    cpu_before, read_before = await farmer_used()
    meter = Meter()
    decode(HeartbeatReply, await call(AuditMethod.HEARTBEAT, encode(Heartbeat(b"", ()))))
    signed = draw_challenge(
        holding,
        Parties(NETWORK, CALLER.public_key, CALLEE.public_key),
        CALLER,
        nonce=os.urandom(32),
        wanted=wanted,
        now_ms=clock.now_ms(),
        answer_within_ms=120_000,
    )

    async def ask(page: int) -> tuple[int, Came]:
        reply = await call(AuditMethod.AUDIT, encode(Audit(signed, page, ())))
        return page, Came(decode(AuditReply, reply).answer, clock.now_ms())

    answers = dict(await asyncio.gather(*map(ask, range(len(pages_of(signed.challenge))))))
    settled = settle(signed.challenge, answers, {}, CALLER, clock.now_ms())
    decode(Done, await call(AuditMethod.AUDIT_RECEIPT, encode(AuditReceipt(settled.signed, settled.lines))))
    auditor_cpu, wall = meter.read()
    assert settled.signed.receipt.count(Verdict.PASSED) == len(settled.lines), "an honest farmer failed"
    cpu, read = await farmer_used()
    return Round(
        len(settled.lines),
        signed.challenge.leaves,
        cpu - cpu_before,
        auditor_cpu,
        wall,
        sent,
        received,
        read - read_before,
    )


def figures(rounds: list[Round]) -> dict[str, Any]:
    """Per audited shard, and audits a second of one core of the farmer."""
    return {
        "shards_per_round": spread([one.shards for one in rounds]),
        "units_per_round": spread([one.units for one in rounds]),
        "farmer_cpu_us_per_shard": spread([one.farmer_cpu / one.shards * 1e6 for one in rounds]),
        "auditor_cpu_us_per_shard": spread([one.auditor_cpu / one.shards * 1e6 for one in rounds]),
        "asked_bytes_per_shard": spread([one.asked_bytes / one.shards for one in rounds]),
        "answered_bytes_per_shard": spread([one.answered_bytes / one.shards for one in rounds]),
        "farmer_read_bytes_per_shard": spread([one.read_bytes / one.shards for one in rounds]),
        "audited_shards_per_s_and_farmer_core": spread([one.shards / one.farmer_cpu for one in rounds]),
        "wall_ms_per_round": spread([one.wall * 1e3 for one in rounds]),
    }


def yardstick(folder: Path, holding: Holding, rounds: int, wanted: int) -> dict[str, Any]:
    """The same reads through bare system calls, and BLAKE3 over each unit."""
    seconds = []
    for number in range(rounds):
        drawn = holding.draw(number.to_bytes(32, "big"), wanted)
        meter = Meter()
        for shard, units in drawn:
            name, layout = shard.shard_root.hex(), Layout.of(shard.size_bytes)
            descriptor = os.open(folder / "shards" / name[:2] / f"{name}.shard", os.O_RDONLY)
            os.pread(descriptor, 32 * unit_count(shard.size_bytes), HEADER_BYTES)
            for unit in units:
                leaf_hash(os.pread(descriptor, UNIT_BYTES, layout.unit_at(unit)))
            os.close(descriptor)
        seconds.append(meter.read()[0] / len(drawn))
    return {"cpu_us_per_shard": spread([one * 1e6 for one in seconds])}


@contextmanager
def farmer_process(folder: Path) -> Iterator[tuple[int, float, Pipe]]:
    """The farmer's port, how long its start took, and the pipe to ask it by."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, folder))
    process.start()
    there.close()  # so that the other end's failing is the end of the pipe, not a wait without end
    port, seconds = here.recv()
    try:
        yield port, seconds, here
    finally:
        here.send(False)
        process.join()


def measure(folder: Path, size: int, count: int, rounds: int) -> dict[str, Any]:
    """One farmer with `count` shards of `size`."""
    home = folder / f"farm-{size}"
    home.mkdir()
    holding = fill(home, size, count)
    drawing = Meter()
    holding.draw(bytes(32), min(512, holding.units))
    result: dict[str, Any] = {"shards": count, "size_bytes": size, "draw_ms": round(drawing.read()[0] * 1e3, 2)}

    async def audit(port: int, pipe: Pipe) -> None:
        wire = endpoint(CALLER)
        for name, wanted in WANTED.items():
            await play(wire, port, holding, wanted, pipe)  # both warm, the session open
            result[name] = figures([await play(wire, port, holding, wanted, pipe) for _ in range(rounds)])
        await wire.close()

    with farmer_process(home) as (port, seconds, pipe):
        result["start_s"] = round(seconds, 2)
        asyncio.run(audit(port, pipe))
    for name, wanted in WANTED.items():
        result[name]["yardstick"] = yardstick(home, holding, rounds, wanted)
        ours = result[name]["farmer_cpu_us_per_shard"]["median"]
        bare = result[name]["yardstick"]["cpu_us_per_shard"]["median"]
        result[name]["times_the_yardstick"] = round(ours / bare, 2)
    shutil.rmtree(home)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=10_000, help="small ones; up to 100,000")
    parser.add_argument("--size", type=int, default=16 << 10, help="of a small shard, in bytes")
    parser.add_argument("--large", type=int, default=32, help="shards of 4 MiB")
    parser.add_argument("--rounds", type=int, default=20, help="of each kind, for each farmer")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        small = measure(Path(name), options.size, options.shards, options.rounds)
        large = measure(Path(name), LARGE, options.large, options.rounds)
    report("audit", {"rounds": options.rounds, "small": small, "large": large})
    return 0


if __name__ == "__main__":
    sys.exit(main())
