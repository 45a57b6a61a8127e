"""What every `ExitBook` promises, over each adapter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract_samples import FARMER, NOW_MS, OTHER, contract, draft, grant
from farm_samples import contact_of
from stook.contracts.grant import Operation
from stook.contracts.move import MoveOrder
from stook.contracts.receipt import sign_storage_receipt
from stook.ids import ContractId
from stook.storage.contract_store import SqliteContractStore
from stook.storage.exit_ports import ExitBook, KeptMove, MoveCounts, MoveState
from stook.storage.memory import MemoryContractStore


@pytest.fixture(params=["sqlite", "memory"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ExitBook]:
    if request.param == "memory":
        yield MemoryContractStore().exits
        return
    with SqliteContractStore(tmp_path / "contracts.db") as contracts:
        yield contracts.exits


def order(number: int, memo: bytes = b"memo") -> MoveOrder:
    new = contract(draft(farmer_key=OTHER.public_key, memo=memo), farmer=OTHER)
    allowed = grant(new.terms, operation=Operation.CONSIGN, grantee_key=FARMER.public_key)
    return MoveOrder(ContractId(bytes([number]) * 32), new, allowed, contact_of(OTHER))


def test_an_empty_book(book: ExitBook) -> None:
    assert book.leaving_by_ms() == 0
    assert book.move(ContractId(bytes(32))) is None
    assert book.due_moves(1 << 60, 9) == []
    assert book.move_counts() == MoveCounts(0, 0, 0)
    book.put_moves([])
    book.close([ContractId(bytes(32))])


def test_a_farmer_leaves_and_thinks_better_of_it(book: ExitBook) -> None:
    book.set_leaving(NOW_MS)
    assert book.leaving_by_ms() == NOW_MS
    book.set_leaving(0)
    assert book.leaving_by_ms() == 0


def test_orders_are_kept_one_for_each_contract(book: ExitBook) -> None:
    first, second = KeptMove(order(1)), KeptMove(order(2), next_ms=5)
    book.put_moves([second, first])
    assert book.move(first.order.contract_id) == first
    assert book.due_moves(9, 9) == [first, second]
    assert book.due_moves(9, 1) == [first]
    assert book.due_moves(4, 9) == [first]
    other = KeptMove(order(1, b"elsewhere"), next_ms=7)
    book.put_moves([other])
    assert book.move(first.order.contract_id) == other
    assert book.due_moves(9, 9) == [second, other]


def test_what_came_of_them(book: ExitBook) -> None:
    moves = [KeptMove(order(number), tries=number, detail="so far") for number in range(1, 5)]
    receipt = sign_storage_receipt(moves[0].order.contract.terms, OTHER, NOW_MS)
    moves[0] = replace(moves[0], state=MoveState.DONE, receipt=receipt)
    moves[1] = replace(moves[1], state=MoveState.FAILED, code=601, detail="gone")
    book.put_moves(moves)
    assert book.move_counts() == MoveCounts(waiting=2, done=1, failed=1)
    assert [book.move(move.order.contract_id) for move in moves] == moves
    assert book.due_moves(9, 9) == moves[2:]
    book.close([moves[0].order.contract_id, moves[2].order.contract_id])
    assert book.move_counts() == MoveCounts(waiting=1, done=0, failed=1)


def test_the_order_is_durable_and_spoiled_ones_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "contracts.db"
    with SqliteContractStore(path) as store:
        store.exits.put_moves([KeptMove(order(1))])
        store.exits.set_leaving(NOW_MS)
    with SqliteContractStore(path) as store:
        assert store.exits.move(ContractId(bytes([1]) * 32)) == KeptMove(order(1))
        assert store.exits.leaving_by_ms() == NOW_MS
