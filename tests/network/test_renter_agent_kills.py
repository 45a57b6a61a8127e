"""An agent killed at every write: nothing is repaired twice, no receipt is lost, no contract is in limbo.

Audits, repair, renewal and cancelling, over the store in memory and over one in a file, opened anew after each kill.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sim_objects import assert_all_there, put_all, some_objects
from stook.contracts.lifecycle import ContractState
from stook.ids import NodeId
from stook.renter.audit_rules import AuditRules
from stook.shards.geometry import Policy
from stook.sim.adversaries import Forgets
from stook.sim.factories import agent_options
from stook.sim.loop import run
from stook.sim.testnet import Testnet
from stook.storage.agent_store import SqlAgentStore
from stook.storage.renter_memory import MemoryAgentStore
from stook.storage.renter_ports import AgentStore, PlacementState

POLICY = Policy(k=3, r=6, o=6, n=7)
# Eight hours long, so that everything is renewed on the way.
OPTIONS = replace(agent_options(POLICY, audits=AuditRules()), contract_duration_ms=8 * 3_600_000)
DAY = 86_400.0
WRITES = frozenset(
    {
        "add_claims",
        "ask_renewal",
        "begin_flights",
        "cancel",
        "cancel_moved",
        "cancel_replaced",
        "cancel_stored",
        "cancel_surplus",
        "change",
        "drop_renewal",
        "end_flights",
        "expire",
        "note_events",
        "note_losses",
        "record_erased",
        "record_receipts",
        "renew",
    }
)
KILLS = 40
MORE = ((1, True), (2, False), (5, False), (5, True), (13, False), (13, True))


class KilledError(Exception):
    """The process ended here."""


class Mortal:
    """A store whose process is killed with every `gap`-th write, before or after it is done, in turns."""

    def __init__(self, path: Path | None, gap: int) -> None:
        self._path = path
        self.inner: AgentStore = MemoryAgentStore() if path is None else SqlAgentStore.open(path)
        self.gap = gap
        self.kills = 0
        self.dead = False
        self._writes = 0

    def revive(self) -> None:
        self.dead, self._writes = False, 0
        if self._path is not None:
            self.inner.close()
            self.inner = SqlAgentStore.open(self._path)

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.inner, name)
        if name.startswith("_") or not callable(real):
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.dead:
                raise KilledError
            if name not in WRITES or self.kills >= KILLS:
                return real(*args, **kwargs)
            self._writes += 1
            if self._writes < self.gap:
                return real(*args, **kwargs)
            self.kills += 1
            self.dead = True
            if self.kills % 2:
                real(*args, **kwargs)
            raise KilledError

        return call


async def live(net: Testnet, store: Mortal, rounds: int) -> None:
    """Audits, repair, renewal and cancelling; the agent starts again whenever it was killed."""
    for _ in range(rounds):
        for name in ("refresh", "audit", "repair", "renew", "cancel"):
            with suppress(KilledError):
                await net.renter.chores[name].step()
            if store.dead:
                store.revive()
                await net.restart_renter()
                await net.renter.agent.repairer.resume()
        await net.pass_seconds(400)


@pytest.mark.parametrize(
    ("gap", "in_a_file"),
    [
        *((gap, False) for gap in (1, 3, 8)),
        (2, True),
        *(pytest.param(gap, in_a_file, marks=pytest.mark.soak) for gap, in_a_file in MORE),
    ],
)
def test_kill_after_kill(gap: int, in_a_file: bool, tmp_path: Path) -> None:
    async def main() -> None:
        cast = dict.fromkeys((1, 4), Forgets)
        async with Testnet(farmers=12, seed=20 + gap, options=OPTIONS, cast=cast) as net:
            store = Mortal(tmp_path / "agent.db" if in_a_file else None, gap)
            store.kills = KILLS
            net.renter.store = store  # type: ignore[assignment]
            await net.restart_renter()
            objects = some_objects(net, (200_000, 500_000))
            await put_all(net, objects)
            await net.renter.client.settle()
            loser = net.farmers[7]
            for each in store.inner.stored_at(loser.node_id):
                loser.disk.erase(each.root)
            await loser.farmer.chores["scrub"].step()
            store.kills = 0
            await live(net, store, 65)
            assert store.kills >= 5
            store.kills = KILLS
            store.revive()
            await live(net, store, 30)
            await judge(net, store.inner, {net.farmers[number].node_id for number in cast})
            await assert_all_there(net, objects)

    run(main(), within_seconds=3 * DAY)


async def judge(net: Testnet, kept: AgentStore, liars: set[NodeId]) -> None:
    """What must be true whatever was killed when."""
    named = {each.farmer for each in kept.dossiers() if each.score.crime}
    assert named <= liars
    assert kept.open_challenges() == []
    segments = kept.segment_ids(2**62, b"", 999)
    assert kept.flights(segments) == {}
    stored = {
        name: [each for each in held if each.state is PlacementState.STORED]
        for name, held in kept.placements(segments).items()
    }
    for held in stored.values():
        assert max(Counter((each.index, each.copy) for each in held).values()) == 1, "repaired twice"
        assert len(held) >= POLICY.r
    counts = kept.counts().placements
    assert counts.get(PlacementState.CLAIMED, 0) == 0
    assert counts.get(PlacementState.CANCELLING, 0) == 0
    known = {each.contract_id: each.contract for held in stored.values() for each in held}
    assert kept.renewals(known) == {}
    # Both sides have the same revision of every contract, and nobody has one that the other does not know.
    assert min(each.terms.revision for each in known.values()) >= 1
    for farmer in net.honest:
        for held_there in farmer.contracts.owned_by(net.renter.key.public_key, b"", 999):
            if held_there.state is ContractState.ACTIVE:
                assert held_there.contract_id in known, "in limbo"
                assert held_there.contract.terms == known[held_there.contract_id].terms, "in limbo"
    # Whoever is asked again gets the receipts that a kill held up.
    assert all(each.sent for each in kept.receipts(None, 999) if each.farmer not in named)
