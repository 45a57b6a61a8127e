"""Reaper, scrub and recovery over memory stores."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from contract_samples import FARMER, NETWORK, NOW_MS, OTHER, RENTER, contract, draft
from farm_samples import ManualClock, draft_for, parts, publish, root_of, shard_bytes
from stook.codec import encode
from stook.contracts.contract import Contract
from stook.contracts.lifecycle import ContractState, Event
from stook.contracts.negotiation import DAY_MS, HOUR_MS, sign_offer
from stook.contracts.receipt import verify_erase_receipt
from stook.contracts.renewal import next_revision
from stook.errors import EnvironmentFault
from stook.farmer.capacity import CapacityLimits
from stook.farmer.parts import ErasureMemory, Parts
from stook.farmer.reaper import Reap, choose, reap, wipe
from stook.farmer.recovery import recover
from stook.farmer.scrub import Scrub
from stook.farmer.settings import ChoreIntervals, FarmerSettings
from stook.ids import ShardRoot, Signature
from stook.merkle import leaves_of
from stook.storage.memory import MemoryShardStore
from stook.storage.ports import HeldContract

SIZE = 32 * 1024
DATA = shard_bytes(SIZE)
ROOT = root_of(DATA)


def signed(data: bytes = DATA, **changes: object) -> Contract:
    return contract(draft_for(root_of(data), len(data), **changes))


def offered(made: Contract) -> Contract:
    return Contract(made.terms, made.farmer_signature, Signature(b""))


def stored_in(farm: Parts, *datas: bytes) -> list[HeldContract]:
    """Shards that came in order."""
    held = []
    for data in datas:
        made = signed(data)
        publish(farm.shards, data, made)
        farm.contracts.put(HeldContract(made, ContractState.ACTIVE))
        held.append(HeldContract(made, ContractState.ACTIVE))
    return held


def test_the_reaper_takes_what_is_past_its_time_and_nothing_under_way() -> None:
    made = signed()
    reservation = HeldContract(offered(made), ContractState.OFFERED)
    active = HeldContract(made, ContractState.ACTIVE)
    lost = HeldContract(made, ContractState.LOST)
    over = HeldContract(made, ContractState.CANCELLED)
    free, busy = (lambda root: False), (lambda root: True)
    late, end = made.terms.consign_by_ms, made.terms.end_ms
    assert choose([reservation, active, lost], late - 1, free) == []
    assert choose([reservation, active, lost], late, free) == [Reap(reservation, Event.LAPSE)]
    assert choose([active, lost], end, free) == [Reap(active, Event.END), Reap(lost, Event.END)]
    assert choose([over], 0, free) == [Reap(over, None)]
    assert choose([reservation, active], end, busy) == []


def test_reaping_erases_forgets_and_remembers_the_receipt() -> None:
    clock = ManualClock()
    farm = parts(clock=clock)
    (kept,) = stored_in(farm, DATA)
    waiting = signed(shard_bytes(SIZE, 2))
    farm.contracts.reserve([offered(waiting)])
    farm.contracts.spend(b"serial", 10, 100, NOW_MS + 5)

    assert asyncio.run(reap(farm)) == 0
    clock.at_ms = waiting.terms.consign_by_ms + 1
    assert asyncio.run(reap(farm)) == 1
    assert farm.contracts.get(waiting.contract_id) is None
    assert farm.contracts.totals().stored_count == 1
    assert farm.contracts.spend(b"serial", 100, 100, clock.at_ms + HOUR_MS), "its record was forgotten with its expiry"

    clock.at_ms = kept.contract.terms.end_ms + 1
    assert asyncio.run(reap(farm)) == 1
    assert farm.shards.find(ROOT) is None
    receipt = farm.erased.receipt(kept.contract_id, RENTER.public_key)
    assert receipt is not None
    verify_erase_receipt(receipt, kept.contract)
    assert farm.erased.receipt(kept.contract_id, OTHER.public_key) is None
    assert farm.tally.reaped == 2


@pytest.mark.parametrize("killed_at", ["put", "erase", "remove"])
def test_a_wipe_killed_anywhere_is_finished_by_the_next_start(killed_at: str) -> None:
    class Killed(Exception):
        pass

    def dying(*args: object) -> None:
        raise Killed

    farm = parts()
    (held,) = stored_in(farm, DATA)
    target = farm.shards if killed_at == "erase" else farm.contracts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, killed_at, dying)
        with pytest.raises(Killed):
            wipe(farm, held, Event.CANCEL, NOW_MS)
    report = recover(farm.shards, farm.contracts, farmer_key=FARMER.public_key, network=NETWORK)
    if killed_at == "put":
        assert farm.contracts.get(held.contract_id) == held, "nothing had been given up"
        assert farm.shards.find(ROOT) is not None
    else:
        assert report.erasures_finished == 1
        assert farm.contracts.get(held.contract_id) is None
        assert farm.shards.find(ROOT) is None
    assert report.lost == 0


def test_a_start_learns_from_the_files_what_the_index_missed() -> None:
    farm = parts()
    published, renewed, gone, waiting = (signed(shard_bytes(SIZE, i)) for i in range(4))
    publish(farm.shards, shard_bytes(SIZE, 0), published)
    farm.contracts.reserve([offered(published), offered(waiting)])
    publish(farm.shards, shard_bytes(SIZE, 1), renewed)
    farm.contracts.put(HeldContract(renewed, ContractState.ACTIVE))
    longer = contract(next_revision(renewed, end_ms=renewed.terms.end_ms + DAY_MS))
    farm.shards.append_contract(renewed.terms.shard_root, encode(longer))
    farm.contracts.put(HeldContract(gone, ContractState.ACTIVE))

    report = recover(farm.shards, farm.contracts, farmer_key=FARMER.public_key, network=NETWORK)
    assert (report.updated, report.lost) == (2, 1)
    assert report.lost_ids == {gone.contract_id}
    assert farm.contracts.get(published.contract_id) == HeldContract(published, ContractState.ACTIVE)
    assert farm.contracts.get(renewed.contract_id) == HeldContract(longer, ContractState.ACTIVE)
    assert farm.contracts.get(gone.contract_id) == HeldContract(gone, ContractState.LOST)
    assert farm.contracts.get(waiting.contract_id) == HeldContract(offered(waiting), ContractState.OFFERED)
    again = recover(farm.shards, farm.contracts, farmer_key=FARMER.public_key, network=NETWORK)
    assert (again.updated, again.lost, again.lost_ids) == (0, 0, report.lost_ids)


def test_a_start_sweeps_partials_nobody_expects() -> None:
    farm = parts()
    expected, stray = shard_bytes(SIZE, 1), shard_bytes(SIZE, 2)
    farm.contracts.reserve([offered(signed(expected))])
    for data in (expected, stray):
        writer = farm.shards.open_writer(root_of(data), SIZE, b"".join(leaves_of(memoryview(data))))
        writer.write(memoryview(data)[: SIZE // 2])
        writer.close(keep=True)
    report = recover(farm.shards, farm.contracts, farmer_key=FARMER.public_key, network=NETWORK)
    assert report.partial_bytes_swept > 0
    assert farm.shards.resumable_units(root_of(expected), SIZE) == 1
    assert farm.shards.resumable_units(root_of(stray), SIZE) == 0


class Rotten(MemoryShardStore):
    """Some shards fail their check; a flaky one fails once."""

    def __init__(self) -> None:
        super().__init__()
        self.rotten: set[ShardRoot] = set()
        self.flaky: set[ShardRoot] = set()

    def bad_units(self, root: ShardRoot) -> list[int]:
        if root in self.flaky:
            self.flaky.discard(root)
            return [0]
        return [1] if root in self.rotten else super().bad_units(root)


def test_the_scrub_declares_damage_lost_after_a_second_look_and_keeps_the_file() -> None:
    store = Rotten()
    farm = parts(shards=store)
    datas = [shard_bytes(SIZE, i) for i in range(4)]
    held = stored_in(farm, *datas)
    store.rotten, store.flaky = {root_of(datas[1])}, {root_of(datas[2])}
    report = asyncio.run(Scrub(farm).run_round())
    assert (report.shards, report.bytes, report.damaged) == (4, 4 * SIZE, 1)
    assert report.finished_ms == NOW_MS
    assert farm.lost == {held[1].contract_id}
    state = farm.contracts.get(held[1].contract_id)
    assert state == replace(held[1], state=ContractState.LOST)
    assert store.find(root_of(datas[1])) is not None
    assert farm.contracts.totals().stored_count == 3
    again = asyncio.run(Scrub(farm).run_round())
    assert again.shards == 3
    assert farm.contracts.get(held[1].contract_id) == state


def test_a_start_believes_no_file_that_both_parties_did_not_sign() -> None:
    farm = parts()
    terms = draft_for(ROOT, SIZE)
    forged = Contract(terms, sign_offer(terms, FARMER), Signature(bytes(64)))
    farm.contracts.reserve([offered(forged)])
    publish(farm.shards, DATA, forged)
    assert recover(farm.shards, farm.contracts, farmer_key=FARMER.public_key, network=NETWORK).updated == 0


def test_a_disk_that_is_not_mounted_is_no_loss() -> None:
    farm = parts()
    held = stored_in(farm, DATA, shard_bytes(SIZE, 2))
    elsewhere = MemoryShardStore()
    with pytest.raises(EnvironmentFault, match="mounted"):
        recover(elsewhere, farm.contracts, farmer_key=FARMER.public_key, network=NETWORK)
    assert list(farm.contracts.all()) == sorted(held, key=lambda one: one.contract_id)


def test_a_scrub_step_reads_its_share_and_a_round_is_not_begun_early() -> None:
    clock = ManualClock()
    chores = ChoreIntervals(scrub_seconds=60, scrub_round_seconds=240)
    farm = parts(farm=FarmerSettings(capacity=CapacityLimits(1 << 30, 0), chores=chores), clock=clock)
    stored_in(farm, *(shard_bytes(SIZE, i) for i in range(8)))
    scrub = Scrub(farm)

    async def step() -> int:
        await scrub.step()
        assert farm.tally.last_scrub is not None
        return farm.tally.last_scrub.shards

    assert asyncio.run(step()) == 2
    assert asyncio.run(step()) == 4
    for _ in range(3):
        asyncio.run(step())
    assert farm.tally.last_scrub is not None
    assert farm.tally.last_scrub.finished_ms == NOW_MS
    assert asyncio.run(step()) == 8, "the round is over and the next one is not due"
    clock.at_ms += 240_000
    assert asyncio.run(step()) == 2


def test_the_scrub_finds_files_that_are_gone_and_spares_what_was_given_up_meanwhile() -> None:
    farm = parts()
    gone, cancelled = stored_in(farm, DATA, shard_bytes(SIZE, 2))
    farm.shards.erase(ROOT)

    def cancelling() -> Iterator[HeldContract]:
        yield gone
        wipe(farm, cancelled, Event.CANCEL, NOW_MS)
        yield cancelled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(farm.contracts, "all", cancelling)
        report = asyncio.run(Scrub(farm).run_round())
    assert (report.shards, report.damaged) == (1, 1)
    assert farm.lost == {gone.contract_id}
    assert farm.contracts.get(cancelled.contract_id) is None


def test_erasures_are_remembered_within_a_bound() -> None:
    farm, memory = parts(), ErasureMemory(limit=2)
    for i in range(3):
        made = signed(shard_bytes(SIZE, i), consign_by_ms=NOW_MS + HOUR_MS)
        receipt = wipe(farm, HeldContract(made, ContractState.ACTIVE), None, NOW_MS)
        memory.remember(made.contract_id, RENTER.public_key, receipt)
    assert memory.receipt(signed(shard_bytes(SIZE, 0)).contract_id, RENTER.public_key) is None
    assert memory.receipt(signed(shard_bytes(SIZE, 2)).contract_id, RENTER.public_key) is not None
    assert draft().contract_id != signed().contract_id
