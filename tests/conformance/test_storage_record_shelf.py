"""One suite for every shelf of recovery records."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stook.contracts.recovery import SignedRecoveryRecord, sign_record
from stook.errors import ConfigError, ConflictError, CorruptionError
from stook.identity.keys import SigningKey
from stook.ids import NetworkId, PublicKey
from stook.storage.record_shelf import MemoryRecordShelf, RecordShelf, SqliteRecordShelf

ANN, BOB = PublicKey(b"\2" + b"a" * 32), PublicKey(b"\2" + b"b" * 32)
Open = Callable[[], RecordShelf]


@pytest.fixture(params=["memory", "sqlite"])
def open_shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    if request.param == "memory":
        shelf = MemoryRecordShelf()
        yield lambda: shelf
        return
    opened: list[SqliteRecordShelf] = []

    def reopen() -> RecordShelf:
        for each in opened:
            each.close()
        opened.append(SqliteRecordShelf(tmp_path / "records.db"))
        return opened[-1]

    yield reopen
    for each in opened:
        each.close()


def record(key: int, sequence: int, sealed: bytes = b"sealed") -> SignedRecoveryRecord:
    return sign_record(SigningKey.from_secret(bytes([key]) * 32), NetworkId("local"), sequence, sealed)


def test_the_highest_sequence_stays(open_shelf: Open) -> None:
    shelf = open_shelf()
    assert shelf.find(record(1, 1).body.key) is None
    assert shelf.keep(record(1, 5), ANN, 10, 4) == record(1, 5)
    assert shelf.keep(record(1, 4), ANN, 11, 4) == record(1, 5)
    assert shelf.keep(record(1, 5, b"other"), BOB, 12, 4) == record(1, 5), "of two with one sequence the first"
    assert shelf.keep(record(1, 6), BOB, 13, 4) == record(1, 6), "whoever carries it"
    assert open_shelf().find(record(1, 1).body.key) == record(1, 6)


def test_a_renter_leaves_few(open_shelf: Open) -> None:
    shelf = open_shelf()
    for key in (1, 2):
        shelf.keep(record(key, 1), ANN, 10, 2)
    with pytest.raises(ConflictError):
        shelf.keep(record(3, 1), ANN, 10, 2)
    shelf.keep(record(3, 1), BOB, 10, 2)
    shelf.keep(record(2, 2), ANN, 10, 2)
    shelf.forget([record(1, 1).body.key])
    shelf.keep(record(4, 1), ANN, 10, 2)


def test_what_is_old_is_told_and_forgotten(open_shelf: Open) -> None:
    shelf = open_shelf()
    shelf.keep(record(1, 1), ANN, 10, 4)
    shelf.keep(record(2, 1), BOB, 20, 4)
    assert shelf.left_before(20) == [(record(1, 1).body.key, ANN)]
    shelf.keep(record(1, 1), BOB, 30, 4)
    assert shelf.left_before(20) == [(record(1, 1).body.key, ANN)], "a stranger who leaves it again keeps nothing alive"
    shelf.keep(record(1, 1), ANN, 30, 4)
    assert shelf.left_before(20) == []
    shelf.forget([record(1, 1).body.key, record(9, 1).body.key])
    assert open_shelf().find(record(1, 1).body.key) is None


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE songs (title TEXT)")
    other.close()
    with pytest.raises(ConfigError, match="another program"):
        SqliteRecordShelf(path)
    path = tmp_path / "broken.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(CorruptionError):
        SqliteRecordShelf(path)
    path = tmp_path / "newer.db"
    SqliteRecordShelf(path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version=2")
    newer.close()
    with pytest.raises(ConfigError, match="newer"):
        SqliteRecordShelf(path)
