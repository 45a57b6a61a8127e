"""Books on a disk: lines that stay, steps that are all or nothing, two processes that write at once."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from contract_samples import FARMER, NETWORK, NOW_MS, OTHER, RENTER
from payment_samples import DRAWER, facts, held, order
from stook.contracts.negotiation import DAY_MS
from stook.errors import ConfigError, ConflictError, CorruptionError, EnvironmentFault
from stook.money import MAX_AMOUNT, Amount
from stook.payments.account import Account, Change
from stook.payments.ledger import Book, Kind, Line, Side
from stook.payments.orders import sign_order
from stook.payments.posting import draw_up, pay_up
from stook.storage.books import SqliteBooks

ME = FARMER.node_id


def began(path: Path) -> SqliteBooks:
    books = SqliteBooks(path)
    for change in draw_up(Account(FARMER.public_key), {}, facts(NOW_MS + DAY_MS, held(1), held(2)), NETWORK, RENTER):
        books.post(change)
    return books


def test_what_was_posted_reads_back(tmp_path: Path) -> None:
    with began(tmp_path / "books.db") as books:
        account = books.account(ME)
        assert account is not None
        books.post(pay_up(account, DRAWER, RENTER, NOW_MS + DAY_MS))
        written = books.account(ME), books.lines(), books.batches(ME, 0, 9), books.open_spans(ME)
    with SqliteBooks(tmp_path / "books.db") as books:
        assert (books.account(ME), books.lines(), books.batches(ME, 0, 9), books.open_spans(ME)) == written
        assert books.accounts() == [written[0]]
        assert books.balances()[Book.PAYABLE] == 0
        assert books.balances(before_ms=NOW_MS) == {}
        assert books.line(1) == written[1][0]
        assert books.line(99) is None
        assert len(books.spans_at(ME, 1)) == 2
        assert books.paid_before(ME, [held(1).contract_id, held(3).contract_id]) == {held(1).contract_id}


def test_lines_are_never_changed(tmp_path: Path) -> None:
    began(tmp_path / "books.db").close()
    raw = sqlite3.connect(tmp_path / "books.db")
    for statement in ("UPDATE lines SET tariff = 2", "DELETE FROM lines"):
        with pytest.raises(sqlite3.DatabaseError, match="never changed"):
            raw.execute(statement)
    raw.close()


def test_a_step_from_an_old_reading_is_refused_whole(tmp_path: Path) -> None:
    with began(tmp_path / "books.db") as books:
        account = books.account(ME)
        cheque = pay_up(account, DRAWER, RENTER, NOW_MS + DAY_MS)
        books.post(cheque)
        before = books.lines()
        with pytest.raises(ConflictError):
            books.post(cheque)  # so no serial is ever signed twice with other content
        other = Account(OTHER.public_key)
        with pytest.raises(ConflictError):
            books.post(Change(other), Change(replace(account, owed=1)))
        assert books.account(OTHER.node_id) is None
        assert books.lines() == before


def test_two_processes_draw_one_cheque(tmp_path: Path) -> None:
    began(tmp_path / "books.db").close()
    outcomes = []

    def pay() -> None:
        with SqliteBooks(tmp_path / "books.db") as books:
            gate.wait()
            for _ in range(20):
                account = books.account(ME)
                change = pay_up(account, DRAWER, RENTER, NOW_MS + DAY_MS)
                if change is None:
                    return
                try:
                    books.post(change)
                except ConflictError:
                    continue
                outcomes.append(change.account.cheque)

    gate = threading.Barrier(4)
    threads = [threading.Thread(target=pay) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1


def test_bytes_counted_by_two_processes_add_up(tmp_path: Path) -> None:
    def count() -> None:
        with SqliteBooks(tmp_path / "books.db") as books:
            for _ in range(10):
                books.add_received(
                    FARMER.public_key, 5, 7, lambda n: sign_order(RENTER, NETWORK, FARMER.public_key, 5, n, 1), 1
                )

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with SqliteBooks(tmp_path / "books.db") as books:
        (signed,) = books.account(ME).orders
        assert signed.order.received_bytes == 3 * 10 * 7
        books.add_orders(FARMER.public_key, [order(1, price=5)], 1)
        assert books.account(ME).orders == (signed,)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE things (a)")
    other.commit()
    other.close()
    with pytest.raises(ConfigError, match="something else"):
        SqliteBooks(tmp_path / "other.db")
    (tmp_path / "noise.db").write_bytes(b"no database" * 200)
    with pytest.raises(CorruptionError):
        SqliteBooks(tmp_path / "noise.db")
    began(tmp_path / "books.db").close()
    raw = sqlite3.connect(tmp_path / "books.db")
    raw.execute("PRAGMA user_version = 99")
    raw.commit()
    raw.close()
    with pytest.raises(ConfigError, match="newer"):
        SqliteBooks(tmp_path / "books.db")
    with pytest.raises(EnvironmentFault):
        SqliteBooks(tmp_path / "nowhere" / "books.db")


def test_balances_are_beyond_any_single_sum() -> None:
    with SqliteBooks(":memory:") as books:
        for partner in (FARMER, OTHER):
            account = Account(partner.public_key)
            books.post(
                Change(
                    account,
                    lines=(Line(account.partner, 1, 1, Side.PAYEE, Kind.STORAGE, Amount(MAX_AMOUNT), b"", b"", 1),),
                )
            )
        assert books.balances() == {Book.RECEIVABLE: 2 * MAX_AMOUNT, Book.INCOME_STORAGE: -2 * MAX_AMOUNT}
