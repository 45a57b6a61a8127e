"""What every `ContractStore` promises, over each adapter."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from contract_samples import NOW_MS
from stook.contracts.lifecycle import ContractState
from stook.errors import BugError, ConflictError
from stook.ids import ContractId
from stook.storage.contract_store import PAGE_ROWS, SqliteContractStore
from stook.storage.memory import MemoryContractStore
from stook.storage.ports import Totals
from storage_samples import held, ids, renewed, renter, sample, signed

SERIAL = bytes(16)
LONG = 2**63 - 1


@pytest.fixture(params=["sqlite", "memory"])
def store(request, tmp_path):
    if request.param == "memory":
        yield MemoryContractStore()
        return
    with SqliteContractStore(tmp_path / "contracts.db") as contracts:
        yield contracts


def shard(number):
    return sample(100 + number, number)


def test_an_empty_store_holds_nothing(store):
    assert store.totals() == Totals(0, 0, 0, 0)
    assert list(store.all()) == []
    assert store.get(ContractId(bytes(32))) is None
    assert store.by_root(sample().root) is None
    assert store.due(LONG, 10) == []
    assert store.owned_by(renter(0), b"", 10) == []
    assert store.reserved_by(renter(0)) == 0
    assert store.forget_spending(LONG) == 0
    store.remove([ContractId(bytes(32))])
    store.refund(SERIAL, 5)
    store.reserve([])


def test_a_batch_is_reserved(store):
    batch = [signed(shard(number)) for number in range(3)]
    store.reserve(batch)
    for contract in batch:
        expected = held(contract, ContractState.OFFERED)
        assert store.get(contract.contract_id) == expected
        assert store.by_root(contract.terms.shard_root) == expected
    assert store.totals() == Totals(reserved_bytes=303, stored_bytes=0, reserved_count=3, stored_count=0)


def test_a_batch_with_a_conflict_leaves_no_trace(store):
    first = signed(shard(0))
    store.reserve([first])
    new = signed(shard(1))
    for clash in (
        [new, first],
        [new, signed(shard(0), memo=b"same root")],
        [new, new],
        [new, signed(shard(1), memo=b"same root in the batch")],
    ):
        with pytest.raises(ConflictError):
            store.reserve(clash)
        assert ids(store.all()) == [first.contract_id]
    store.reserve([new])


def test_a_reservation_is_replaced_all_or_nothing(store):
    first, other = signed(shard(0)), signed(shard(1))
    store.reserve([first, other])
    newer = signed(shard(0), memo=b"newer")
    with pytest.raises(ConflictError):
        store.reserve([newer, signed(shard(1), memo=b"not replaced")], replacing=[first.contract_id])
    assert sorted(ids(store.all())) == sorted([first.contract_id, other.contract_id])
    store.reserve([newer], replacing=[first.contract_id])
    assert sorted(ids(store.all())) == sorted([newer.contract_id, other.contract_id])
    assert store.by_root(first.terms.shard_root) == held(newer, ContractState.OFFERED)


def test_what_need_not_be_durable_is_seen_at_once(store):
    contract = signed()
    store.reserve([contract])
    store.put(held(contract), durable=False)
    assert store.get(contract.contract_id) == held(contract)
    with pytest.raises(ConflictError):
        store.put(held(signed(memo=b"another")), durable=False)
    store.put(held(contract, ContractState.LOST))
    assert store.get(contract.contract_id) == held(contract, ContractState.LOST)


@pytest.mark.parametrize("over", [ContractState.ENDED, ContractState.CANCELLED, ContractState.LOST])
def test_a_root_is_free_again_when_its_contract_is_over(store, over):
    first, second = signed(memo=b"first"), signed(memo=b"second")
    store.put(held(first))
    with pytest.raises(ConflictError):
        store.reserve([second])
    store.put(held(first, over))
    assert store.by_root(first.terms.shard_root) is None
    store.reserve([second])
    assert store.by_root(first.terms.shard_root).contract == second
    with pytest.raises(ConflictError):
        store.put(held(first))
    assert store.get(first.contract_id) == held(first, over)


def test_put_replaces_state_and_terms(store):
    contract = signed()
    store.reserve([contract])
    store.put(held(contract))
    later = renewed(contract, 1, end_ms=contract.terms.end_ms + 5)
    assert later.contract_id == contract.contract_id
    store.put(held(later))
    assert list(store.all()) == [held(later)]
    assert store.totals() == Totals(0, contract.terms.shard_size_bytes, 0, 1)


@pytest.mark.parametrize("state", list(ContractState))
def test_totals_follow_the_states(store, state):
    store.put(held(signed(), state))
    size = signed().terms.shard_size_bytes
    reserved = state in {ContractState.OFFERED, ContractState.COUNTERSIGNED, ContractState.CONSIGNED}
    stored = state is ContractState.ACTIVE
    assert store.totals() == Totals(size * reserved, size * stored, int(reserved), int(stored))
    assert store.reserved_by(renter(0)) == size * reserved


def test_reservations_are_summed_by_renter(store):
    store.reserve([signed(shard(number), owner=number % 2) for number in range(5)])
    assert store.reserved_by(renter(0)) == 100 + 102 + 104
    assert store.reserved_by(renter(1)) == 101 + 103
    assert store.reserved_by(renter(2)) == 0


def test_removed_contracts_are_forgotten(store):
    first, second = signed(shard(0)), signed(shard(1))
    store.reserve([first, second])
    store.remove([first.contract_id, ContractId(bytes(32)), first.contract_id])
    assert ids(store.all()) == [second.contract_id]
    assert store.by_root(first.terms.shard_root) is None
    store.reserve([first])


def test_a_renters_contracts_come_in_pages(store):
    contracts = [signed(shard(number), owner=number % 2) for number in range(20)]
    store.reserve(contracts)
    store.put(held(contracts[4], ContractState.CANCELLED))
    mine = sorted(item.contract_id for item in contracts[::2])
    found, after = [], b""
    while page := store.owned_by(renter(0), after, 3):
        assert len(page) <= 3
        found += ids(page)
        after = page[-1].contract_id
    assert found == mine


def test_what_is_due_comes_soonest_first(store):
    late = signed(shard(0), consign_by_ms=NOW_MS + 30)
    later = signed(shard(1), consign_by_ms=NOW_MS + 10)
    ended = signed(shard(2), end_ms=NOW_MS + 20, consign_by_ms=NOW_MS + 1)
    lost = signed(shard(3), end_ms=NOW_MS + 40, consign_by_ms=NOW_MS + 1)
    store.reserve([late, later])
    store.put(held(ended))
    store.put(held(lost, ContractState.LOST))
    order = [later.contract_id, ended.contract_id, late.contract_id, lost.contract_id]
    assert store.due(NOW_MS + 9, 10) == []
    assert ids(store.due(NOW_MS + 10, 10)) == order[:1]
    assert ids(store.due(NOW_MS + 99, 10)) == order
    assert ids(store.due(NOW_MS + 99, 2)) == order[:2]


@pytest.mark.parametrize("over", [ContractState.CANCELLED, ContractState.ENDED])
def test_a_contract_that_is_over_and_not_forgotten_is_due_at_once(store, over):
    waiting, finished = signed(shard(0)), signed(shard(1))
    store.reserve([waiting])
    store.put(held(finished, over))
    assert store.due(0, 10) == [held(finished, over)]
    assert ids(store.due(LONG, 10)) == [finished.contract_id, waiting.contract_id]


def test_all_goes_through_many_pages(store):
    contracts = [signed(shard(number % 50), memo=b"%d" % number) for number in range(2 * PAGE_ROWS)]
    store.rebuild([held(contract, ContractState.ENDED) for contract in contracts])
    assert ids(store.all()) == sorted(item.contract_id for item in contracts)


def test_rebuild_replaces_the_contracts_and_keeps_the_spending(store):
    store.reserve([signed(shard(number)) for number in range(5)])
    assert store.spend(SERIAL, 9, 10, NOW_MS)
    new = [held(signed(shard(number), memo=b"new")) for number in range(3, 7)]
    store.rebuild(new)
    assert sorted(ids(store.all())) == sorted(ids(new))
    assert store.totals() == Totals(0, 103 + 104 + 105 + 106, 0, 4)
    assert not store.spend(SERIAL, 2, 10, NOW_MS)


@pytest.mark.parametrize("clash", [b"other", b"new"], ids=["same root", "same id"])
def test_a_rebuild_that_conflicts_changes_nothing(store, clash):
    store.reserve([signed(shard(0))])
    with pytest.raises(ConflictError):
        store.rebuild([held(signed(shard(1), memo=b"new")), held(signed(shard(1), memo=clash))])
    assert ids(store.all()) == [signed(shard(0)).contract_id]


def test_a_grant_is_spent_up_to_its_budget(store):
    assert store.spend(SERIAL, 60, 100, NOW_MS)
    assert not store.spend(SERIAL, 41, 100, NOW_MS)
    assert store.spend(SERIAL, 40, 100, NOW_MS)
    assert not store.spend(SERIAL, 1, 100, NOW_MS)
    assert store.spend(SERIAL, 0, 100, NOW_MS)
    assert store.spend(bytes((1,)) * 16, 100, 100, NOW_MS)
    assert not store.spend(bytes((2,)) * 16, 101, 100, NOW_MS)
    assert store.spend(bytes((2,)) * 16, 100, 100, NOW_MS)


def test_a_refund_gives_back_no_more_than_was_spent(store):
    assert store.spend(SERIAL, 100, 100, NOW_MS)
    store.refund(SERIAL, 30)
    assert not store.spend(SERIAL, 31, 100, NOW_MS)
    store.refund(SERIAL, 1000)
    assert store.spend(SERIAL, 100, 100, NOW_MS)
    assert not store.spend(SERIAL, 1, 100, NOW_MS)


def test_spending_does_not_overflow(store):
    assert store.spend(SERIAL, LONG, LONG, LONG)
    assert not store.spend(SERIAL, LONG, LONG, LONG)
    assert not store.spend(SERIAL, 1, LONG, LONG)


def test_negative_sizes_are_bugs(store):
    with pytest.raises(BugError):
        store.spend(SERIAL, -1, 5, NOW_MS)
    with pytest.raises(BugError):
        store.refund(SERIAL, -1)


def test_spending_is_forgotten_after_the_latest_expiry(store):
    store.spend(SERIAL, 1, 10, 100)
    store.spend(SERIAL, 1, 10, 300)
    store.spend(SERIAL, 1, 10, 200)
    store.spend(bytes((1,)) * 16, 1, 10, 299)
    assert store.forget_spending(299) == 0
    assert store.forget_spending(300) == 1
    assert not store.spend(SERIAL, 8, 10, 300)
    assert store.forget_spending(301) == 1
    assert store.spend(SERIAL, 10, 10, 300)


def test_threads_cannot_overspend_together(store):
    start = threading.Barrier(8)

    def work(_):
        start.wait()
        return sum(store.spend(SERIAL, 3, 100, NOW_MS) for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 33


def test_threads_racing_for_one_root_leave_one_winner(store):
    start = threading.Barrier(6)

    def work(number):
        start.wait()
        try:
            store.reserve([signed(memo=b"%d" % number)])
        except ConflictError:
            return 0
        return 1

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(work, range(6))) == 1
    assert store.totals().reserved_count == 1
