"""fsck: the files are the truth, and the index can be made from them."""

import os

import pytest

from stook.codec import encode
from stook.contracts.lifecycle import ContractState
from stook.errors import CorruptionError, EnvironmentFault
from stook.merkle import UNIT_BYTES
from stook.storage import fsck
from stook.storage.contract_store import SqliteContractStore, set_aside
from stook.storage.memory import MemoryContractStore
from stook.storage.shard_file import Layout
from stook.storage.shard_store import DamageKind, FileShardStore
from storage_samples import held, ids, read_all, renewed, sample, signed, store_shard

SHARDS = [sample(2 * UNIT_BYTES + 5, seed) for seed in range(6)]
LAYOUT = Layout.of(SHARDS[0].size)


@pytest.fixture
def shards(tmp_path):
    with FileShardStore(tmp_path / "store") as store:
        yield store


@pytest.fixture(params=["memory", "sqlite"])
def index(request, tmp_path):
    if request.param == "memory":
        yield MemoryContractStore()
        return
    with SqliteContractStore(tmp_path / "contracts.db") as store:
        yield store


def hold(shards, index, count=6):
    """Some stored shards with their contracts, on both sides alike."""
    contracts = [signed(shard) for shard in SHARDS[:count]]
    for shard, contract in zip(SHARDS, contracts, strict=False):
        store_shard(shards, shard, encode(contract))
        index.put(held(contract))
    return contracts


def edit(shards, shard, at, data):
    with shards.path_of(shard.root).open("r+b") as file:
        file.seek(at)
        file.write(data)


def states(index):
    return {item.contract_id: item.state for item in index.all()}


def test_stores_that_agree_are_clean(shards, index):
    assert fsck.check(shards, index).clean
    contracts = hold(shards, index)
    reserved = signed(sample(seed=9))
    index.reserve([reserved])
    report = fsck.check(shards, index, deep=True)
    assert report.clean
    assert (report.shard_count, report.size_bytes) == (6, 6 * SHARDS[0].size)
    assert report.size_bytes < report.disk_bytes == sum(found.disk_bytes for found in shards.scan())
    before = list(index.all())
    mended = fsck.mend(shards, index, report)
    assert mended == fsck.Mended((), (), (), (), ())
    assert list(index.all()) == before
    assert len(before) == len(contracts) + 1


def test_a_lost_index_is_made_again_from_the_files(shards, tmp_path):
    path = tmp_path / "contracts.db"
    with SqliteContractStore(path) as index:
        hold(shards, index)
        later = renewed(signed(SHARDS[0]), 1, end_ms=2**50)
        shards.append_contract(SHARDS[0].root, encode(later))
        index.put(held(later))
        before, totals = list(index.all()), index.totals()
    path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(CorruptionError):
        SqliteContractStore(path)
    set_aside(path)
    with SqliteContractStore(path) as index:
        assert index.is_new
        mended = fsck.rebuild(shards, index)
        assert sorted(mended.adopted) == ids(before)
        assert (list(index.all()), index.totals()) == (before, totals)
        assert fsck.check(shards, index).clean


def test_a_publish_or_renewal_the_index_missed_is_caught_up(shards, index):
    contracts = hold(shards, index, 3)
    index.put(held(contracts[0], ContractState.CONSIGNED))
    later = renewed(contracts[1], 1)
    shards.append_contract(SHARDS[1].root, encode(later))
    report = fsck.check(shards, index)
    assert sorted(report.behind) == sorted([contracts[0].contract_id, contracts[1].contract_id])
    fsck.mend(shards, index, report)
    assert index.get(contracts[0].contract_id) == held(contracts[0])
    assert index.get(contracts[1].contract_id) == held(later)
    assert fsck.check(shards, index).clean


def test_a_renewal_the_file_missed_is_written_to_it(shards, index):
    contracts = hold(shards, index, 2)
    later = renewed(contracts[1], 2)
    index.put(held(later))
    report = fsck.check(shards, index)
    assert report.ahead == (contracts[1].contract_id,)
    fsck.mend(shards, index, report)
    assert shards.find(SHARDS[1].root).contract == encode(later)
    assert fsck.check(shards, index).clean


def test_a_file_whose_contract_and_data_are_both_spoiled_is_not_called_sound(shards, index):
    """Found by fuzzing: the record was restored from the index over data that nobody had looked at."""
    contracts = hold(shards, index, 2)
    edit(shards, SHARDS[1], LAYOUT.log, bytes(4096))
    edit(shards, SHARDS[1], LAYOUT.unit_at(1), b"rot")
    mended = fsck.mend(shards, index, fsck.check(shards, index))
    assert mended.lost == (held(contracts[1], ContractState.LOST),)
    assert [damage.kind for damage in mended.quarantined] == [DamageKind.NO_CONTRACT]
    report = fsck.check(shards, index, deep=True)
    assert report.clean
    assert report.shard_count == 1


def test_a_missing_shard_is_a_loss(shards, index):
    contracts = hold(shards, index, 3)
    os.unlink(shards.path_of(SHARDS[1].root))
    report = fsck.check(shards, index)
    assert report.missing == (contracts[1].contract_id,)
    mended = fsck.mend(shards, index, report)
    assert mended.lost == (held(contracts[1], ContractState.LOST),)
    assert index.get(contracts[1].contract_id) == mended.lost[0]
    assert index.totals().stored_count == 2
    assert fsck.check(shards, index).clean


def test_a_disk_that_is_not_there_is_not_taken_for_a_loss(shards, index):
    contracts = hold(shards, index, 3)
    for shard in SHARDS[:3]:
        os.unlink(shards.path_of(shard.root))
    report = fsck.check(shards, index)
    with pytest.raises(EnvironmentFault, match="mounted"):
        fsck.mend(shards, index, report)
    assert set(states(index).values()) == {ContractState.ACTIVE}
    mended = fsck.mend(shards, index, report, even_if_empty=True)
    assert sorted(item.contract_id for item in mended.lost) == sorted(item.contract_id for item in contracts)


@pytest.mark.parametrize("over", [ContractState.ENDED, ContractState.CANCELLED])
def test_a_shard_whose_contract_is_over_is_erased(shards, index, over):
    contracts = hold(shards, index, 2)
    index.put(held(contracts[0], over))
    report = fsck.check(shards, index)
    assert report.orphaned == (SHARDS[0].root,)
    assert fsck.mend(shards, index, report).erased == report.orphaned
    assert shards.find(SHARDS[0].root) is None
    assert fsck.check(shards, index).clean


def test_a_lost_contract_stays_lost_and_keeps_its_file(shards, index):
    contracts = hold(shards, index, 2)
    index.put(held(contracts[0], ContractState.LOST))
    edit(shards, SHARDS[0], LAYOUT.data, b"rot")
    report = fsck.check(shards, index, deep=True)
    assert report.clean
    fsck.mend(shards, index, report)
    assert index.get(contracts[0].contract_id).state is ContractState.LOST
    assert shards.find(SHARDS[0].root) is not None


def test_a_reservation_for_a_shard_that_came_otherwise_is_given_up(shards, index):
    contract = signed(SHARDS[0])
    store_shard(shards, SHARDS[0], encode(contract))
    waiting = signed(SHARDS[0], memo=b"another")
    index.reserve([waiting])
    mended = fsck.rebuild(shards, index)
    assert mended.adopted == (contract.contract_id,)
    assert states(index) == {
        contract.contract_id: ContractState.ACTIVE,
        waiting.contract_id: ContractState.CANCELLED,
    }


@pytest.mark.parametrize(
    ("at", "data"),
    [(0, bytes(4000)), (20, b"\xff"), (80, b"\xff\xfe\xfd"), (LAYOUT.log, bytes(4096)), (LAYOUT.log + 100, b"\xff")],
    ids=["whole head", "header", "leaf list", "log", "record"],
)
def test_damage_around_sound_data_is_restored(shards, index, at, data):
    contracts = hold(shards, index, 2)
    edit(shards, SHARDS[0], at, data)
    report = fsck.check(shards, index)
    assert [damage.root for damage in report.damaged] == [SHARDS[0].root]
    assert fsck.mend(shards, index, report).restored == (SHARDS[0].root,)
    assert shards.find(SHARDS[0].root).contract == encode(contracts[0])
    assert read_all(shards, SHARDS[0]) == SHARDS[0].data
    assert fsck.check(shards, index, deep=True).clean


def test_a_damaged_leaf_list_is_restored_without_any_index(shards):
    contract = hold(shards, MemoryContractStore(), 1)[0]
    edit(shards, SHARDS[0], 80, b"\xff\xfe\xfd")
    empty = MemoryContractStore()
    assert fsck.rebuild(shards, empty).restored == (SHARDS[0].root,)
    assert list(empty.all()) == [held(contract)]


@pytest.mark.parametrize(
    ("kind", "at", "data"),
    [(DamageKind.DATA, LAYOUT.unit_at(1) + 9, b"rot"), (DamageKind.LEAVES, 90, bytes(LAYOUT.data))],
    ids=["data", "leaf list and data"],
)
def test_damaged_data_is_set_aside_and_its_contract_lost(shards, index, kind, at, data):
    contracts = hold(shards, index, 3)
    edit(shards, SHARDS[2], at, data)
    assert fsck.check(shards, index).clean is (kind is DamageKind.DATA)
    report = fsck.check(shards, index, deep=True)
    assert [(damage.root, damage.kind) for damage in report.damaged] == [(SHARDS[2].root, kind)]
    mended = fsck.mend(shards, index, report)
    assert [damage.root for damage in mended.quarantined] == [SHARDS[2].root]
    assert ids(mended.lost) == [contracts[2].contract_id]
    assert os.listdir(shards.directory / "quarantine") == [shards.path_of(SHARDS[2].root).name]
    assert index.get(contracts[2].contract_id).state is ContractState.LOST
    assert fsck.check(shards, index, deep=True).clean


@pytest.mark.parametrize("record", [b"no contract", encode(signed(SHARDS[5]))], ids=["rubbish", "another shard's"])
def test_a_record_that_is_no_contract_over_the_shard_is_damage(shards, index, record):
    contracts = hold(shards, index, 2)
    shards.append_contract(SHARDS[0].root, record)
    store_shard(shards, SHARDS[3], record)
    report = fsck.check(shards, index)
    assert {damage.kind for damage in report.damaged} == {DamageKind.WRONG_CONTRACT}
    mended = fsck.mend(shards, index, report)
    assert mended.restored == (SHARDS[0].root,)
    assert [damage.root for damage in mended.quarantined] == [SHARDS[3].root]
    assert sorted(ids(index.all())) == sorted(item.contract_id for item in contracts)
    assert fsck.check(shards, index).clean


def test_a_foreign_file_is_set_aside(shards, index):
    hold(shards, index, 1)
    (shards.path_of(SHARDS[0].root).parent / "copy of a shard").write_bytes(b"?")
    report = fsck.check(shards, index)
    assert [damage.kind for damage in report.damaged] == [DamageKind.FOREIGN]
    fsck.mend(shards, index, report)
    assert fsck.check(shards, index).clean


@pytest.mark.parametrize("step", ["restore_head", "quarantine", "erase", "append_contract", "rebuild"])
def test_mending_may_be_cut_off_and_run_again(shards, index, monkeypatch, step):
    contracts = hold(shards, index)
    edit(shards, SHARDS[0], 80, b"\xff\xfe\xfd")
    edit(shards, SHARDS[1], LAYOUT.data, b"rot")
    index.put(held(contracts[2], ContractState.ENDED))
    os.unlink(shards.path_of(SHARDS[3].root))
    index.remove([contracts[4].contract_id])
    index.put(held(renewed(contracts[5], 1)))

    class Killed(BaseException):
        pass

    def stop(*_):
        raise Killed

    report = fsck.check(shards, index, deep=True)
    with monkeypatch.context() as patch:
        patch.setattr(index if step == "rebuild" else shards, step, stop)
        with pytest.raises(Killed):
            fsck.mend(shards, index, report)
    fsck.mend(shards, index, fsck.check(shards, index, deep=True))
    assert fsck.check(shards, index, deep=True).clean
    lost = {contracts[1].contract_id, contracts[3].contract_id}
    assert {key for key, state in states(index).items() if state is ContractState.LOST} == lost
    assert index.totals().stored_count == 3
