"""Random lives of a contract store, SQLite and memory, against lists that are summed anew each time."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stook.contracts.contract import Contract
from stook.contracts.lifecycle import ContractState
from stook.errors import ConflictError
from stook.storage.contract_store import SqliteContractStore
from stook.storage.memory import MemoryContractStore
from stook.storage.ports import HeldContract, Totals
from storage_samples import held, renewed, renter, sample, signed

RESERVED = {ContractState.OFFERED, ContractState.COUNTERSIGNED, ContractState.CONSIGNED}
IN_FORCE = RESERVED | {ContractState.ACTIVE}
TIMES = st.integers(0, 50)


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    """Few roots and few memos, so that ids and roots meet often."""
    number = draw(st.integers(0, 5))
    return signed(
        sample(10 + number, number),
        memo=draw(st.sampled_from([b"a", b"b"])),
        owner=number % 2,
        consign_by_ms=10 + number,
        end_ms=30 - number,
    )


STATES = st.sampled_from(list(ContractState))
HELD = st.builds(held, st.builds(renewed, contracts(), st.integers(1, 3)) | contracts(), STATES)


def due_ms(item: HeldContract) -> int | None:
    terms = item.contract.terms
    match item.state:
        case ContractState.OFFERED | ContractState.COUNTERSIGNED | ContractState.CONSIGNED:
            return terms.consign_by_ms
        case ContractState.ACTIVE | ContractState.LOST:
            return terms.end_ms
        case ContractState.ENDED | ContractState.CANCELLED:
            return 0
    return None


def consistent(items: list[HeldContract]) -> bool:
    ids = [item.contract_id for item in items]
    roots = [item.contract.terms.shard_root for item in items if item.state in IN_FORCE]
    return len(set(ids)) == len(ids) and len(set(roots)) == len(roots)


class ContractMachine(RuleBasedStateMachine):
    """The model: one list of contracts, one of everything that was ever spent and given back."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[HeldContract] = []
        self.spent: dict[bytes, tuple[int, int]] = {}
        self.store: SqliteContractStore | MemoryContractStore = self.open()

    def open(self) -> SqliteContractStore | MemoryContractStore:
        return MemoryContractStore()

    @rule(batch=st.lists(contracts(), max_size=4))
    def reserve(self, batch: list[Contract]) -> None:
        after = self.items + [held(contract, ContractState.OFFERED) for contract in batch]
        self.attempt(lambda: self.store.reserve(batch), after)

    @rule(item=HELD)
    def put(self, item: HeldContract) -> None:
        others = [other for other in self.items if other.contract_id != item.contract_id]
        self.attempt(lambda: self.store.put(item), [*others, item])

    @rule(items=st.lists(HELD, max_size=5))
    def rebuild(self, items: list[HeldContract]) -> None:
        self.attempt(lambda: self.store.rebuild(items), items)

    @rule(gone=st.lists(contracts(), max_size=3))
    def remove(self, gone: list[Contract]) -> None:
        ids = [contract.contract_id for contract in gone]
        self.store.remove(ids)
        self.items = [item for item in self.items if item.contract_id not in ids]

    @rule(serial=st.sampled_from([b"s", b"t"]), size=TIMES, budget=TIMES, expires=TIMES)
    def spend(self, serial: bytes, size: int, budget: int, expires: int) -> None:
        before, until = self.spent.get(serial, (0, 0))
        allowed = before + size <= budget
        assert self.store.spend(serial, size, budget, expires) is allowed
        if allowed:
            self.spent[serial] = (before + size, max(until, expires))

    @rule(serial=st.sampled_from([b"s", b"t"]), size=TIMES)
    def refund(self, serial: bytes, size: int) -> None:
        self.store.refund(serial, size)
        if serial in self.spent:
            before, until = self.spent[serial]
            self.spent[serial] = (max(0, before - size), until)

    @rule(now=TIMES)
    def forget(self, now: int) -> None:
        left = {serial: entry for serial, entry in self.spent.items() if entry[1] >= now}
        assert self.store.forget_spending(now) == len(self.spent) - len(left)
        self.spent = left

    @rule(now=TIMES, limit=st.integers(0, 5))
    def due(self, now: int, limit: int) -> None:
        timed = [(at, item.contract_id, item) for item in self.items if (at := due_ms(item)) is not None and at <= now]
        assert self.store.due(now, limit) == [entry[2] for entry in sorted(timed, key=lambda e: e[:2])[:limit]]

    @rule(owner=st.integers(0, 2), after=contracts().map(lambda c: c.contract_id) | st.just(b""), limit=TIMES)
    def owned(self, owner: int, after: bytes, limit: int) -> None:
        mine = [item for item in self.items if item.contract.terms.renter_key == renter(owner)]
        mine = sorted((item for item in mine if item.contract_id > after), key=lambda item: item.contract_id)
        assert self.store.owned_by(renter(owner), after, limit) == mine[:limit]

    @invariant()
    def agrees(self) -> None:
        items = sorted(self.items, key=lambda item: item.contract_id)
        assert list(self.store.all()) == items
        sizes = [(item.state, item.contract.terms) for item in items]
        reserved = [terms.shard_size_bytes for state, terms in sizes if state in RESERVED]
        stored = [terms.shard_size_bytes for state, terms in sizes if state is ContractState.ACTIVE]
        assert self.store.totals() == Totals(sum(reserved), sum(stored), len(reserved), len(stored))
        for owner in range(3):
            mine = [terms for state, terms in sizes if state in RESERVED and terms.renter_key == renter(owner)]
            assert self.store.reserved_by(renter(owner)) == sum(terms.shard_size_bytes for terms in mine)
        for number in range(6):
            root = sample(10 + number, number).root
            over = [item for item in items if item.contract.terms.shard_root == root and item.state in IN_FORCE]
            assert self.store.by_root(root) == (over[0] if over else None)
        for item in items:
            assert self.store.get(item.contract_id) == item

    def attempt(self, call: object, after: list[HeldContract]) -> None:
        """The call succeeds exactly when what it would leave is consistent, and leaves that."""
        assert callable(call)
        try:
            call()
        except ConflictError:
            assert not consistent(after)
        else:
            assert consistent(after)
            self.items = after


class SqliteContractMachine(ContractMachine):
    """The same, in a file that is closed and reopened."""

    def open(self) -> SqliteContractStore:
        self.folder = tempfile.TemporaryDirectory()
        return SqliteContractStore(Path(self.folder.name) / "contracts.db")

    @rule()
    def reopen(self) -> None:
        assert isinstance(self.store, SqliteContractStore)
        self.store.close()
        self.store = SqliteContractStore(self.store.path)

    def teardown(self) -> None:
        assert isinstance(self.store, SqliteContractStore)
        self.store.close()
        self.folder.cleanup()


TestMemoryContractStore = ContractMachine.TestCase
TestMemoryContractStore.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestSqliteContractStore = SqliteContractMachine.TestCase
TestSqliteContractStore.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
