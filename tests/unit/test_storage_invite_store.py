"""An issuer's invites on disk: each ends once, whoever is faster; a kill leaves whole files."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stook.errors import ConflictError, CorruptionError
from stook.identity.invite import KeptInvite, Redemption
from stook.storage import invite_store
from stook.storage.invite_store import InviteStore

ID = bytes(range(16))


def kept(invite_id: bytes = ID, issued_ms: int = 1) -> KeptInvite:
    return KeptInvite(1, invite_id, "for Ann", False, 1000, issued_ms, 2000)


def ended(member: bytes = b"m" * 20) -> Redemption:
    return Redemption(1, ID, member, 1500, None)


@pytest.fixture
def store(tmp_path: Path) -> InviteStore:
    return InviteStore(tmp_path / "invites", os.urandom)


def test_what_was_kept_is_found_by_another_process(store: InviteStore, tmp_path: Path) -> None:
    store.add(kept())
    other = InviteStore(tmp_path / "invites", os.urandom)
    assert other.get(ID) == kept()
    assert other.redemption(ID) is None
    assert other.end(ended())
    assert store.redemption(ID) == ended()
    assert (tmp_path / "invites").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_not_there_holds_nothing(store: InviteStore) -> None:
    assert store.all() == []
    assert store.get(ID) is None
    assert store.redemption(ID) is None


def test_the_newest_come_first_and_no_id_twice(store: InviteStore) -> None:
    store.add(kept(issued_ms=1))
    store.add(kept(b"b" * 16, issued_ms=9))
    assert [one.issued_ms for one in store.all()] == [9, 1]
    with pytest.raises(ConflictError):
        store.add(kept())


def test_of_many_at_once_exactly_one_ends_it(store: InviteStore) -> None:
    store.add(kept())
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda number: store.end(ended(bytes([number]) * 20)), range(16)))
    assert won.count(True) == 1
    assert store.redemption(ID) == ended(bytes([won.index(True)]) * 20)


def test_forgotten_is_gone(store: InviteStore) -> None:
    store.add(kept())
    store.end(ended())
    store.forget(ID)
    store.forget(ID)
    assert store.all() == []
    assert store.redemption(ID) is None


def test_what_a_killed_process_left_is_never_read_and_swept_once_it_is_old(store: InviteStore, tmp_path: Path) -> None:
    store.add(kept())
    young, old = tmp_path / "invites" / "0a.new", tmp_path / "invites" / "0b.new"
    for left in (young, old):
        left.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert store.all() == [kept()]
    store.add(kept(b"b" * 16))
    assert young.exists()
    assert not old.exists()


def test_damage_is_told_and_too_many_are_refused(
    store: InviteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(kept())
    monkeypatch.setattr(invite_store, "MAX_INVITES", 1)
    with pytest.raises(ConflictError):
        store.add(kept(b"b" * 16))
    (tmp_path / "invites" / f"{ID.hex()}.invite").write_bytes(b"\x00")
    with pytest.raises(CorruptionError):
        store.get(ID)
