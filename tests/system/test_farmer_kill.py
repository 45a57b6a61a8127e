"""A farmer process is killed -9 again and again while shards come in: what it receipted it still has, whole."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import structs

from contract_samples import RENTER
from farm_network import Caller, Farm
from farm_samples import shard_bytes
from stook.codec import decode, encode
from stook.contracts.contract import Contract
from stook.contracts.messages import CapacityReply, CapacityRequest, Method
from stook.contracts.negotiation import countersign
from stook.errors import PeerError
from stook.identity.contact import Address, AddressKind
from stook.ids import NetworkId, NodeId
from stook.wire.endpoint import Endpoint, Peer
from stook.wire.tcp import TcpCarrier

pytestmark = pytest.mark.system

SIZE = 1 << 20
SHARDS = 24
LIVES = 6


class SystemClock:
    def now_ms(self) -> int:
        return int(time.time() * 1000)

    def monotonic(self) -> float:
        return time.monotonic()


def stook(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "stook.cli.main", "--home", str(home), *words]


@contextmanager
def farmer_process(home: Path) -> Iterator[tuple[subprocess.Popen[str], Peer]]:
    process = subprocess.Popen(stook(home, "farm", "run", "--json"), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        uri = json.loads(process.stdout.readline())["contact"]
        address, _, node_id = uri.removeprefix("stook://").partition("/")
        host, _, port = address.rpartition(":")
        yield process, Peer(NodeId(bytes.fromhex(node_id)), (Address(AddressKind.DIRECT, host, int(port)),))
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


class Bringer:
    """A renter that goes on where the farmer's last life ended."""

    def __init__(self) -> None:
        self.signed: dict[int, Contract] = {}
        self.receipted: set[int] = set()

    async def life(self, peer: Peer, kill_after: float | None, process: subprocess.Popen[str]) -> None:
        endpoint = Endpoint(
            key=RENTER, network=NetworkId("local"), clock=SystemClock(), entropy=os.urandom, carrier=TcpCarrier()
        )
        # A grant's serial is never used twice, in whichever life.
        caller = Caller(RENTER, endpoint, SystemClock(), first_serial=int.from_bytes(os.urandom(8), "big"))
        try:
            reply = await endpoint.call(peer, Method.CAPACITY, encode(CapacityRequest()), deadline_seconds=20)
            key = decode(CapacityReply, reply).announcement.announcement.contact.contact.public_key
            farm = _remote(peer, key)
            for number in sorted(self.receipted):
                assert await caller.fetch(farm, self.signed[number]) == shard_bytes(SIZE, number)
            killer = asyncio.get_running_loop().call_later(kill_after, process.kill) if kill_after else None
            try:
                await self._bring(caller, farm)
            except (PeerError, AssertionError):
                if kill_after is None:
                    raise
            finally:
                if killer is not None:
                    killer.cancel()
        finally:
            await endpoint.close(grace_seconds=0)

    async def _bring(self, caller: Caller, farm: Farm) -> None:
        waiting = [number for number in range(SHARDS) if number not in self.signed]
        if waiting:
            drafts = [
                structs.replace(caller.draft(farm, shard_bytes(SIZE, number)), network="local") for number in waiting
            ]
            for number, draft, answer in zip(waiting, drafts, (await caller.claim(farm, *drafts)).answers, strict=True):
                assert answer.code == 0, answer
                self.signed[number] = countersign(draft, answer.farmer_signature, RENTER)
        missing = [number for number in range(SHARDS) if number not in self.receipted]
        await asyncio.gather(*(self._bring_one(caller, farm, number) for number in missing))

    async def _bring_one(self, caller: Caller, farm: Farm, number: int) -> None:
        await caller.consign(farm, self.signed[number], shard_bytes(SIZE, number))
        self.receipted.add(number)


def _remote(peer: Peer, key: bytes) -> Farm:
    class Key:
        public_key = key
        node_id = peer.node_id

    return Farm(Key(), None, None, None, None, None, peer, None)  # type: ignore[arg-type]


def test_no_receipted_shard_is_lost_to_kill_9(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    home = tmp_path / "farm"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    subprocess.run(
        stook(home, "farm", "init", "--listen", f"127.0.0.1:{port}", "--capacity", "100 MB", "--min-free-disk", "1 MB"),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    bringer = Bringer()
    for life in range(LIVES):
        with farmer_process(home) as (process, peer):
            asyncio.run(bringer.life(peer, dice.uniform(0.005, 0.12) * (life + 1), process))
    with farmer_process(home) as (process, peer):
        asyncio.run(bringer.life(peer, None, process))
        assert len(bringer.receipted) == SHARDS
        asyncio.run(bringer.life(peer, None, process))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    report = subprocess.run(stook(home, "farm", "fsck", "--deep", "--json"), check=True, capture_output=True, text=True)
    found = json.loads(report.stdout)
    assert found["ok"], found
    assert found["shards"] == SHARDS
