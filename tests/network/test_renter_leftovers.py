"""What an upload leaves behind when things go wrong, and what becomes of it; and farmers whose clock is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim_objects import BUCKET, assert_all_there, items, put_all, some_objects
from stook.errors import EnvironmentFault, NotEnoughError
from stook.renter.arrival import PASSING
from stook.renter.drafts import HOUR_MS
from stook.renter.ports import Order
from stook.shards.geometry import Policy
from stook.sim.factories import agent_options
from stook.sim.loop import run
from stook.sim.testnet import Testnet
from stook.storage.renter_ports import PlacementState, Upload

POLICY = Policy(k=2, r=3, o=4, n=4)


def states(net: Testnet) -> dict[PlacementState, int]:
    return dict(net.renter.store.counts().placements)


def test_claims_that_a_dead_client_left_on_a_full_segment_are_given_up():
    async def main() -> None:
        async with Testnet(farmers=6, seed=11, policy=POLICY) as net:
            await put_all(net, some_objects(net, (300_000,)))
            await net.renter.client.settle()
            whole = states(net)[PlacementState.STORED]
            agent, store = net.renter.agent, net.renter.store
            (segment_id,) = store.segment_ids(2**62, b"", 9)
            facts = store.segments([segment_id])[segment_id]
            # The dead one had claimed a spare, and was killed between the last receipt and giving the spare up.
            await agent.place([Order(facts, (4,))], net.renter.key.public_key)
            assert states(net)[PlacementState.CLAIMED] == 1
            await agent.caretaker.cancel_due()
            counts = states(net)
            assert PlacementState.CLAIMED not in counts
            assert counts[PlacementState.STORED] == whole

    run(main(), within_seconds=300)


def test_what_was_a_claim_when_it_was_read_and_is_stored_by_now_stays(monkeypatch):
    """Another process's upload ended between the two reads, and its five shards were cancelled and erased."""

    async def main() -> None:
        async with Testnet(farmers=6, seed=11, policy=POLICY) as net:
            objects = some_objects(net, (300_000,))
            await put_all(net, objects)
            await net.renter.client.settle()
            store = net.renter.store
            (segment_id,) = store.segment_ids(2**62, b"", 9)
            held = list(store.placements([segment_id])[segment_id])
            stale = [replace(each, state=PlacementState.CLAIMED, receipt=None) for each in held]
            monkeypatch.setattr(store, "claimed", lambda limit, after=b"": [] if after else stale)
            before = states(net)
            await net.renter.agent.caretaker.cancel_due()
            assert states(net) == before
            await assert_all_there(net, objects)

    run(main(), within_seconds=300)


def test_claims_of_a_segment_on_its_way_are_left_alone_until_long_past_consign_by():
    async def main() -> None:
        async with Testnet(farmers=6, seed=12, policy=POLICY) as net:
            await put_all(net, some_objects(net, (300_000,)))
            await net.renter.client.settle()
            agent, store = net.renter.agent, net.renter.store
            (segment_id,) = store.segment_ids(2**62, b"", 9)
            lost = store.placements([segment_id])[segment_id][0]
            store.mark_lost([lost.contract_id])
            facts = store.segments([segment_id])[segment_id]
            await agent.place([Order(facts, (lost.index,))], net.renter.key.public_key)
            await agent.caretaker.give_up_claims()
            assert states(net)[PlacementState.CLAIMED] == 1
            net.renter.clock.skew_ms += HOUR_MS + 20 * 60_000
            await agent.caretaker.give_up_claims()
            assert PlacementState.CLAIMED not in states(net)

    run(main(), within_seconds=300)


def test_passing_uploads_of_the_dead_are_given_up_by_whoever_comes_alone():
    async def main() -> None:
        async with Testnet(farmers=6, seed=13, policy=POLICY) as net:
            objects = some_objects(net, (4_000, 5_000))
            await put_all(net, objects)
            catalog = net.renter.catalog
            assert not catalog.stale_uploads(2**62, 9), "a batch that is over leaves nothing"
            old = replace(_upload(net), fingerprint=PASSING + b"of the dead")
            resumable = replace(_upload(net), upload_id=b"2" * 16, name="large", fingerprint=b"f" * 32)
            catalog.begin_upload(old)
            catalog.begin_upload(resumable)
            await net.renter.client.put_many(BUCKET, items(some_objects(net, (100,))))
            assert [upload.name for upload in catalog.stale_uploads(2**62, 9)] == ["large"]
            await assert_all_there(net, {"dir/1": objects["dir/1"]})
            # Stored otherwise, what was left of it is given up as well; also when it was stored before we looked.
            large = {"large": net.dice(50)}
            await net.renter.client.put_many(BUCKET, items(large))
            assert not catalog.stale_uploads(2**62, 9)
            catalog.begin_upload(resumable)
            assert (await net.renter.client.put_many(BUCKET, items(large))).unchanged == 1
            assert not catalog.stale_uploads(2**62, 9)

    run(main(), within_seconds=300)


def _upload(net: Testnet) -> Upload:
    now = net.renter.clock.now_ms()
    return Upload(b"1" * 16, BUCKET, "bundle", b"", started_ms=now, touched_ms=now)


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
def test_a_farmer_whose_clock_jumps_is_avoided_and_the_reason_told(jump_ms: int):
    async def main() -> None:
        async with Testnet(farmers=5, seed=14, options=agent_options(POLICY, spares=0)) as net:
            wrong = net.farmers[4]
            before = some_objects(net, (50_000,))
            await put_all(net, before)
            wrong.clock.skew_ms += jump_ms
            await put_all(net, {f"after/{number}": net.dice(200_000) for number in range(3)})
            await assert_all_there(net, before)
            # With one more gone this one is needed, and why it cannot be had is said.
            await net.farmers[3].stop()
            with pytest.raises(NotEnoughError, match="CLOCK_SKEW"):
                await put_all(net, {"never": net.dice(200_000)})

    run(main(), within_seconds=3600)


def test_a_full_disk_at_the_end_does_not_undo_what_was_done(monkeypatch: pytest.MonkeyPatch):
    def full(_outcomes: object) -> None:
        raise EnvironmentFault("no space left on device")

    async def main() -> None:
        async with Testnet(farmers=5, seed=15, policy=POLICY) as net:
            await put_all(net, some_objects(net, (50_000,)))
            monkeypatch.setattr(net.renter.store, "note_outcomes", full)
            told: list[str] = []
            monkeypatch.setattr(net.renter.agent, "_on_error", lambda what, error: told.append(f"{what}: {error}"))
            await net.renter.agent.aclose()
            assert told == ["farewell: no space left on device"]
            monkeypatch.undo()

    run(main(), within_seconds=300)
