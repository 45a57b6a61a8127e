"""A real `stook agent run` killed at random moments of audits, repair, renewal and erasing, over real farmers.

In each life farmers die and come back, everything is due, and the agent is killed. Whatever the moment: nothing is made
twice, no receipt is lost, agent and farmers agree on every contract, and everything reads back. The seed is printed;
``STOOK_CRASH_SEED`` runs a test with a given one, up to the timing of processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import crash_audit
from stook.assembly import (
    AGENT_FILE,
    CONTRACTS_FILE,
    check_farmer_home,
    create_renter_home,
    open_renter,
    peer_of,
)
from stook.audits.containment import Silence
from stook.cli.local_network import FarmerProcess, LocalNetwork
from stook.config import CONFIG_NAME, NodeSettings, RentSettings, write_settings
from stook.contracts.verdict import Verdict
from stook.ids import ContractId
from stook.renter.drafts import DAY_MS
from stook.renter.files import BytesSink, BytesSource
from stook.renter.ports import Item
from stook.storage.agent_audit_ports import FarmerChange
from stook.storage.agent_store import SqlAgentStore
from stook.storage.contract_store import SqliteContractStore
from stook.storage.renter_ports import Placement, PlacementState

pytestmark = pytest.mark.system

BUCKET = "things"
CODE = "3/6/6/6"
FARMERS = 8
FIRST_MINUTES = 12.0
GROWTH = 4.5
"""Each life asks for contracts so much longer than the one before, so that all that exist are due for renewal."""
LIVES_PER_GENERATION = 5
"""Then the longest contracts are longer than renewals look ahead, and new objects begin anew."""
PATIENCE_SECONDS = 120.0


class Keeper:
    """A renter's home, the farmers, and what was stored."""

    def __init__(self, root: Path, network: LocalNetwork, dice: random.Random) -> None:
        self.network = network
        self.dice = dice
        self.home = root / "renter"
        self.node = NodeSettings(seeds=network.seeds, max_nodes_per_network=0, log_level="error")
        self.objects: dict[str, bytes] = {}
        self.made = self.renewed = self.audited = self.kills = 0
        self.typical_seconds = 3.0
        create_renter_home(self.home, self.node, self.settings(0))

    def settings(self, growth: int) -> RentSettings:
        minutes = FIRST_MINUTES * GROWTH**growth
        return RentSettings(
            code=CODE,
            spread="farmers",
            spares=0,
            contract_duration=f"{minutes:.0f} min",
            repair_patience="0 s",
        )

    def set(self, rent: RentSettings) -> None:
        (self.home / CONFIG_NAME).unlink()
        write_settings(self.home, {"node": self.node, "rent": rent})

    async def store(self, generation: int, count: int) -> None:
        """New objects, each in a segment of its own."""
        async with open_renter(self.home) as renter:
            while len(renter.agent.candidates()) < FARMERS:
                await renter.agent.refresh()
            if not generation:
                await renter.client.make_bucket(BUCKET)
            for number in range(count):
                name, data = f"{generation}/{number}", self.dice.randbytes(self.dice.randrange(20_000, 400_000))
                await renter.client.put_many(BUCKET, [Item(name, lambda data=data: BytesSource(data, 1), len(data), 1)])  # type: ignore[misc]
                self.objects[name] = data
            await renter.client.settle()

    async def reads_back(self) -> None:
        async with open_renter(self.home) as renter:
            sinks = {name: BytesSink() for name in self.objects}
            await renter.client.get_many(BUCKET, list(self.objects), sinks.__getitem__)
        for name, sink in sinks.items():
            assert sink.data == self.objects[name], f"{name} reads back other than it was stored"

    # --- one life ----------------------------------------------------------------------------------------------------

    def life(self, number: int) -> None:
        """Farmers die and return, everything falls due, the agent begins, and is killed."""
        self.network.start()
        if number % LIVES_PER_GENERATION == 0:
            self.set(self.settings(0))
            asyncio.run(self.store(number // LIVES_PER_GENERATION, 12 if not number else 3))
        self.network.kill(self.dice.sample(self.network.farmers[1:], self.dice.choice((0, 1, 1, 2))))
        self.set(self.settings(number % LIVES_PER_GENERATION + 1))
        self.everything_is_due()
        before = self.placements()
        moment = self.dice.uniform(0.0, self.typical_seconds)
        done = self.run_agent(kill_after=moment if number else None)
        self.kills += done is None
        after = self.placements()
        self.count(before, after)
        print(f"life {number}: {'killed at' if done is None else 'done before'} {moment:.2f} s; {done}", flush=True)
        self.nothing_is_made_twice(before, after)
        asyncio.run(self.farmers_agree(after))
        asyncio.run(self.reads_back())

    def run_agent(self, *, kill_after: float | None, once: bool = False) -> dict[str, Any] | None:
        """A real agent; killed so long after it first wrote something, or let finish its first round. What it said."""
        command = [sys.executable, "-m", "stook.cli.main", "--home", str(self.home), "agent", "run", "--now", "--json"]
        wal = self.home / f"{AGENT_FILE}-wal"
        written = wal.stat().st_mtime_ns if wal.exists() else 0
        with (self.home / "agent.log").open("ab") as log:
            process = subprocess.Popen([*command, "--once"] if once else command, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while not wal.exists() or wal.stat().st_mtime_ns == written:
                assert time.monotonic() < deadline, "the agent does nothing"
                assert process.poll() is None, (self.home / "agent.log").read_text(errors="replace")[-2000:]
                time.sleep(0.002)
            began = time.monotonic()
            wait = PATIENCE_SECONDS if kill_after is None else kill_after
            ready, _, _ = select.select([process.stdout], [], [], wait)
            line = process.stdout.readline() if ready else b""
            if kill_after is None:
                assert line, (self.home / "agent.log").read_text(errors="replace")[-2000:]
                self.typical_seconds = time.monotonic() - began
            done: dict[str, Any] | None = json.loads(line) if line else None
            return done
        finally:
            if not once:
                process.kill()
            process.wait(PATIENCE_SECONDS)
            process.stdout.close()
            if once:
                assert process.returncode == 0, (self.home / "agent.log").read_text(errors="replace")[-2000:]

    def everything_is_due(self) -> None:
        """As if days had passed: rounds, first audits, questions to who was silent, and copies that are too many."""
        with closing(sqlite3.connect(self.home / AGENT_FILE)) as database, database:
            for column in ("stored_ms", "proved_ms"):
                database.execute(f"UPDATE placements SET {column} = {column} - ? WHERE {column} > 0", (4 * DAY_MS,))
        store = SqlAgentStore.open(self.home / AGENT_FILE)
        try:
            known = {each.farmer: each for each in store.dossiers()}
            for each in store.totals():
                silence = known[each.farmer].silence if each.farmer in known else None
                due = replace(silence, next_due_ms=1) if silence is not None and silence.next_due_ms else None
                first = 1 if each.new_shards else None
                store.change(FarmerChange(each.farmer, next_due_ms=1, first_due_ms=first, silence=due))
        finally:
            store.close()

    # --- judging -----------------------------------------------------------------------------------------------------

    def placements(self) -> dict[ContractId, Placement]:
        return {each.contract_id: each for each in crash_audit.placements(self.home, self.network)}

    def count(self, before: dict[ContractId, Placement], after: dict[ContractId, Placement]) -> None:
        """What the agent got to, so that the test can say that it was killed amid everything."""
        for name, each in after.items():
            old = before.get(name)
            self.made += old is None and each.state is PlacementState.STORED
            if old is not None:
                self.renewed += each.contract.terms.revision > old.contract.terms.revision
                self.audited += each.proved_ms > old.proved_ms

    def nothing_is_made_twice(self, before: dict[ContractId, Placement], after: dict[ContractId, Placement]) -> None:
        new = [each for name, each in after.items() if name not in before]
        coming = [each for each in new if each.state in (PlacementState.CLAIMED, PlacementState.STORED)]
        twice = {
            shard for shard, times in Counter((e.segment_id, e.index, e.copy) for e in coming).items() if times > 1
        }
        assert not twice, f"{len(twice)} shards are being made twice"

    async def farmers_agree(self, found: dict[ContractId, Placement]) -> None:
        """What we have a receipt for is there, and nobody holds a contract of ours that we do not know."""
        holdings = await crash_audit.examine(self.home, self.network, verify=False)
        up = {peer_of(farmer.uri).node_id for farmer in self.network.farmers if farmer.alive}
        stored = crash_audit.in_state(list(found.values()), PlacementState.STORED)
        gone = {name for name, each in stored.items() if each.farmer in up} - holdings.stored.keys()
        assert not gone, f"{len(gone)} receipted shards are gone"
        unknown = (holdings.stored.keys() | holdings.signed.keys()) - found.keys()
        assert not unknown, f"{len(unknown)} contracts that we signed are not in our database"
        for name, contract in holdings.contracts.items():
            # A renewal may be signed there and unheard of here, as long as we still know that we asked for it.
            if contract.terms != found[name].contract.terms and found[name].state is PlacementState.STORED:
                assert self.asked(name) == contract.terms, "a renewal in limbo"

    def asked(self, name: ContractId) -> Any:
        store = SqlAgentStore.open(self.home / AGENT_FILE)
        try:
            kept = store.renewals([name]).get(name)
            return None if kept is None else kept.terms
        finally:
            store.close()

    def settle(self) -> None:
        """Runs without a kill until nothing is left to do."""
        self.network.start()
        for _ in range(12):
            self.everything_is_due()
            self.run_agent(kill_after=None, once=True)
            if not self.left_to_do():
                return
        raise AssertionError(f"not settled: {self.left_to_do()}")

    def left_to_do(self) -> dict[str, Any]:
        store = SqlAgentStore.open(self.home / AGENT_FILE)
        try:
            segments = store.segment_ids(2**62, b"", 999)
            stored = [
                each
                for held in store.placements(segments).values()
                for each in held
                if each.state is PlacementState.STORED
            ]
            times = Counter((each.segment_id, each.index, each.copy) for each in stored)
            counts = store.counts().placements
            left: dict[str, Any] = {
                "wanting": 6 * len(segments) - len(times),
                "twice": sum(times.values()) - len(times),
                "unproved": sum(not each.proved_ms for each in stored),
                "open": len(store.open_challenges()),
                "flights": sum(map(len, store.flights(segments).values())),
                "silent": sum(each.silence.state is not Silence.CLEAR for each in store.dossiers()),
                "renewals": len(store.renewals(each.contract_id for each in stored)),
                "unsent": sum(not each.sent for each in store.receipts(None, 9999)),
            }
            left |= {state.name: counts.get(state, 0) for state in PlacementState if state not in _KEPT}
            return {name: number for name, number in left.items() if number}
        finally:
            store.close()

    def judge(self) -> None:
        """After everything settled: both sides say the same of every contract and of every round."""
        found = self.placements()
        holdings = asyncio.run(crash_audit.examine(self.home, self.network, verify=True))
        assert {name: each.contract.terms for name, each in found.items()} == {
            name: each.terms for name, each in holdings.contracts.items()
        }
        assert not holdings.signed
        asyncio.run(self.reads_back())
        self.network.stop()
        store = SqlAgentStore.open(self.home / AGENT_FILE)
        try:
            assert not [each for each in store.dossiers() if each.score.crime]
            outcomes = store.rounds_since(0)
            assert not outcomes.keys() & {Verdict.FAILED, Verdict.MALFORMED, Verdict.LOST}
            for farmer in self.network.farmers:
                self.same_receipts(store, farmer)
                report = check_farmer_home(farmer.home, deep=True, rebuild=False)
                assert report["ok"], (farmer.name, report)
        finally:
            store.close()

    def same_receipts(self, store: SqlAgentStore, farmer: FarmerProcess) -> None:
        """Every receipt that we say the farmer has, it has."""
        with SqliteContractStore(farmer.home / CONTRACTS_FILE) as contracts:
            for kept in store.receipts(peer_of(farmer.uri).node_id, 20):
                if kept.file.receipt is None or kept.outcome is Verdict.SILENT:
                    continue
                there = contracts.audits.round(kept.challenge)
                assert there is not None, f"{farmer.name} knows nothing of a round"
                assert there.receipt == kept.file.receipt, f"{farmer.name} has another receipt"


_KEPT = (PlacementState.STORED, PlacementState.ERASED)


@contextmanager
def keeper(root: Path) -> Iterator[Keeper]:
    seed = int(os.environ.get("STOOK_CRASH_SEED", random.SystemRandom().randrange(10**9)))
    print(f"seed {seed}")
    with LocalNetwork(root / "net", farmers=FARMERS, capacity="1 GiB") as network:
        network.start()
        yield Keeper(root, network, random.Random(seed))


def kill_and_judge(root: Path, kills: int) -> None:
    with keeper(root) as story:
        number = -1
        while story.kills < kills:
            number += 1
            story.life(number)
            if number % LIVES_PER_GENERATION == LIVES_PER_GENERATION - 1:
                story.settle()
        story.settle()
        story.judge()
        print(f"{story.kills} kills; {story.made} made, {story.renewed} renewed, {story.audited} proved", flush=True)
        assert min(story.made, story.renewed, story.audited) > 0


def test_an_agent_killed_a_few_times(tmp_path: Path) -> None:
    kill_and_judge(tmp_path, kills=3)


@pytest.mark.soak
def test_an_agent_killed_thirty_times(tmp_path: Path) -> None:
    kill_and_judge(tmp_path, kills=30)
