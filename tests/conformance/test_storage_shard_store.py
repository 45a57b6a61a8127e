"""What every `ShardStore` promises, over each adapter."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from stook.errors import BugError, ConflictError, MisbehaviourError, NotFoundError, ReasonCode
from stook.ids import ShardRoot
from stook.merkle import UNIT_BYTES
from stook.storage.memory import MemoryShardStore
from stook.storage.shard_file import Layout
from stook.storage.shard_store import FileShardStore
from storage_samples import SIZES, read_all, sample, store_shard

UNKNOWN = ShardRoot(bytes(32))


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    if request.param == "memory":
        yield MemoryShardStore()
        return
    with FileShardStore(tmp_path / "store") as files:
        yield files


def spoil(store, root, unit):
    """Flip one bit of a stored unit, behind the store's back."""
    if isinstance(store, MemoryShardStore):
        store._published[root].data[unit * UNIT_BYTES] ^= 4
        return
    with store.path_of(root).open("r+b") as file:
        at = Layout.of(store.find(root).size_bytes).unit_at(unit)
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes((byte ^ 4,)))


@pytest.mark.parametrize("size", SIZES)
def test_a_shard_comes_back_as_it_went_in(store, size):
    shard = sample(size)
    stored = store_shard(store, shard, b"the contract")
    assert (stored.root, stored.size_bytes, stored.contract) == (shard.root, size, b"the contract")
    assert stored.disk_bytes >= size
    assert store.find(shard.root) == stored
    assert list(store.scan()) == [stored]
    assert store.read_leaves(shard.root) == shard.leaves
    assert read_all(store, shard) == shard.data
    assert store.bad_units(shard.root) == []


def test_units_are_read_from_any_place(store):
    shard = sample(5 * UNIT_BYTES + 7)
    store_shard(store, shard)
    for first in range(6):
        into = bytearray(2 * UNIT_BYTES)
        count = store.read_units(shard.root, first, memoryview(into))
        assert into[:count] == shard.data[first * UNIT_BYTES : (first + 2) * UNIT_BYTES]
    assert store.read_units(shard.root, 6, memoryview(bytearray(9))) == 0
    with pytest.raises(BugError):
        store.read_units(shard.root, -1, memoryview(bytearray(9)))


def test_what_is_unknown_is_not_found(store):
    assert store.find(UNKNOWN) is None
    assert list(store.scan()) == []
    assert store.resumable_units(UNKNOWN, 5) == 0
    assert store.erase(UNKNOWN) == 0
    for call in (
        lambda: store.read_leaves(UNKNOWN),
        lambda: store.read_units(UNKNOWN, 0, memoryview(bytearray(1))),
        lambda: store.bad_units(UNKNOWN),
        lambda: store.append_contract(UNKNOWN, b"contract"),
    ):
        with pytest.raises(NotFoundError):
            call()


def test_leaves_that_do_not_lead_to_the_root_are_refused(store):
    shard, other = sample(), sample(seed=1)
    for root, size, leaves in (
        (shard.root, shard.size, other.leaves),
        (shard.root, shard.size + 1, shard.leaves),
        (shard.root, shard.size, shard.leaves[:-1]),
        (shard.root, shard.size, shard.leaves[:-32]),
        (shard.root, 0, b""),
        (UNKNOWN, shard.size, shard.leaves),
    ):
        with pytest.raises(MisbehaviourError) as caught:
            store.open_writer(root, size, leaves)
        assert caught.value.code is ReasonCode.HASH_MISMATCH


def test_nothing_is_visible_before_publish(store):
    shard = sample()
    writer = store.open_writer(shard.root, shard.size, shard.leaves)
    writer.write(shard.data)
    assert store.find(shard.root) is None
    assert list(store.scan()) == []
    with pytest.raises(NotFoundError):
        store.read_units(shard.root, 0, memoryview(bytearray(1)))
    writer.close(keep=False)


def test_a_wrong_unit_is_refused_and_the_ones_before_it_are_kept(store):
    shard = sample(4 * UNIT_BYTES)
    wrong = bytearray(shard.data)
    wrong[2 * UNIT_BYTES + 9] ^= 1
    writer = store.open_writer(shard.root, shard.size, shard.leaves)
    with pytest.raises(MisbehaviourError) as caught:
        writer.write(memoryview(wrong))
    assert caught.value.code is ReasonCode.HASH_MISMATCH
    assert writer.next_unit == 2
    writer.write(shard.data[2 * UNIT_BYTES :])
    writer.publish(b"contract")
    assert read_all(store, shard) == shard.data


def test_units_come_whole_and_not_beyond_the_end(store):
    shard = sample(2 * UNIT_BYTES + 5)
    writer = store.open_writer(shard.root, shard.size, shard.leaves)
    for length in (1, UNIT_BYTES - 1, UNIT_BYTES + 1):
        with pytest.raises(BugError):
            writer.write(shard.data[:length])
    with pytest.raises(BugError):
        writer.write(memoryview(bytes(shard.size + 1)))
    assert writer.next_unit == 0
    with pytest.raises(BugError):
        writer.publish(b"contract")
    writer.write(shard.data[:0])
    writer.write(shard.data)
    with pytest.raises(BugError):
        writer.publish(b"")
    with pytest.raises(BugError):
        writer.publish(bytes(2049))
    writer.publish(bytes(2048))
    assert store.find(shard.root).contract == bytes(2048)


def test_a_broken_transfer_goes_on_where_it_stopped(store):
    shard = sample(6 * UNIT_BYTES)
    writer = store.open_writer(shard.root, shard.size, shard.leaves)
    writer.write(shard.data[: 2 * UNIT_BYTES])
    writer.close(keep=True)
    writer.close(keep=False)
    assert store.resumable_units(shard.root, shard.size) == 2
    assert store.resumable_units(shard.root, shard.size - 1) == 0
    writer = store.open_writer(shard.root, shard.size, shard.leaves)
    assert writer.next_unit == 2
    writer.write(shard.data[2 * UNIT_BYTES :])
    writer.publish(b"contract")
    assert read_all(store, shard) == shard.data
    assert store.resumable_units(shard.root, shard.size) == 0


def test_a_transfer_given_up_leaves_nothing(store):
    shard = sample()
    writer = store.open_writer(shard.root, shard.size, shard.leaves)
    writer.write(shard.data)
    writer.close(keep=False)
    assert store.resumable_units(shard.root, shard.size) == 0
    assert store.erase(shard.root) == 0


def test_one_writer_for_each_shard_and_none_for_a_stored_one(store):
    shard = sample()
    writer = store.open_writer(shard.root, shard.size, shard.leaves)
    with pytest.raises(ConflictError):
        store.open_writer(shard.root, shard.size, shard.leaves)
    writer.write(shard.data)
    writer.publish(b"contract")
    with pytest.raises(ConflictError):
        store.open_writer(shard.root, shard.size, shard.leaves)
    writer.close(keep=False)
    assert store.find(shard.root) is not None
    for call in (lambda: writer.write(shard.data), lambda: writer.publish(b"contract")):
        with pytest.raises(ConflictError):
            call()


def test_the_newest_contract_wins(store):
    shard = sample()
    store_shard(store, shard, b"contract 0")
    for number in range(1, 400):
        contract = b"contract %d " % number * (1 + number % 60)
        store.append_contract(shard.root, contract)
        assert store.find(shard.root).contract == contract
    assert read_all(store, shard) == shard.data
    for wrong in (b"", bytes(2049)):
        with pytest.raises(BugError):
            store.append_contract(shard.root, wrong)
    assert store.find(shard.root).contract == contract


def test_erase_frees_published_and_partial_shards(store):
    shard, other = sample(), sample(seed=1)
    store_shard(store, shard)
    assert store.erase(shard.root) >= shard.size
    assert store.find(shard.root) is None
    writer = store.open_writer(other.root, other.size, other.leaves)
    writer.write(other.data)
    assert store.erase(other.root) >= other.size
    with pytest.raises(ConflictError):
        writer.publish(b"contract")
    again = store.open_writer(other.root, other.size, other.leaves)
    assert again.next_unit == 0
    writer.close(keep=False)
    again.write(other.data)
    again.publish(b"contract")
    assert read_all(store, other) == other.data


def test_flipped_bits_are_found(store):
    shard = sample(40 * UNIT_BYTES + 5)
    store_shard(store, shard)
    for unit in (0, 15, 16, 17, 40):
        spoil(store, shard.root, unit)
    assert store.bad_units(shard.root) == [0, 15, 16, 17, 40]


def test_partials_are_swept_but_for_those_named_or_open(store):
    kept, swept, busy, stored = (sample(seed=number) for number in range(4))
    for shard in (kept, swept):
        writer = store.open_writer(shard.root, shard.size, shard.leaves)
        writer.write(shard.data[:UNIT_BYTES])
        writer.close(keep=True)
    writer = store.open_writer(busy.root, busy.size, busy.leaves)
    store_shard(store, stored)
    assert store.sweep_partials(frozenset({kept.root})) >= UNIT_BYTES
    assert store.resumable_units(kept.root, kept.size) == 1
    assert store.resumable_units(swept.root, swept.size) == 0
    writer.write(busy.data)
    writer.publish(b"contract")
    assert [found.root for found in store.scan()] == sorted([busy.root, stored.root])


def test_many_threads_at_once(store):
    shards = [sample(2 * UNIT_BYTES, seed) for seed in range(40)]
    start = threading.Barrier(8)

    def work(number):
        start.wait()
        for shard in shards[number::8]:
            store_shard(store, shard, b"first")
            store.append_contract(shard.root, b"second")
            assert read_all(store, shard) == shard.data
            if shard.root[1] % 2:
                store.erase(shard.root)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    left = sorted(shard.root for shard in shards if not shard.root[1] % 2)
    assert [(found.root, found.contract) for found in store.scan()] == [(root, b"second") for root in left]


def test_threads_racing_for_one_shard_leave_one_winner(store):
    shard = sample()
    start = threading.Barrier(6)

    def work(_):
        start.wait()
        try:
            store_shard(store, shard)
        except ConflictError:
            return 0
        return 1

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) == 1
    assert read_all(store, shard) == shard.data
