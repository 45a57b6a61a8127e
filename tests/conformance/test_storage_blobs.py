"""What `stook.overlay.memory.Blobs` promises, over files and memory; and what the overlay remembers in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from overlay_samples import NETWORK, NOW_MS, contact_of, key_of
from stook.errors import EnvironmentFault
from stook.overlay.memory import CONTACTS, BlobMemory, Blobs
from stook.overlay.records import RecordKind, SignedRecord, sign_record
from stook.storage.blobs import MAX_BLOB_BYTES, FileBlobs, MemoryBlobs


@pytest.fixture(params=["files", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return FileBlobs(tmp_path / "overlay") if request.param == "files" else MemoryBlobs()


def pointer(secret: int, sequence: int = 1) -> SignedRecord:
    return sign_record(
        key_of(secret), network=NETWORK, kind=RecordKind.POINTER, body=b"x", sequence=sequence, issued_ms=NOW_MS
    )


def test_what_is_written_is_read(blobs: Blobs) -> None:
    assert blobs.names() == ()
    assert blobs.read("a") is None
    blobs.write("a", b"one")
    blobs.write("b-2.c", bytes(1000))
    blobs.write("a", b"")
    assert blobs.names() == ("a", "b-2.c")
    assert (blobs.read("a"), blobs.read("b-2.c")) == (b"", bytes(1000))
    blobs.remove("a")
    blobs.remove("a")
    assert blobs.names() == ("b-2.c",)


def test_too_large_and_misnamed_blobs_are_refused(blobs: Blobs) -> None:
    with pytest.raises(ValueError, match="at most"):
        blobs.write("a", bytes(MAX_BLOB_BYTES + 1))
    for name in ("", "../a", "a/b", ".a", "A", "a.partial", "x" * 129):
        for use in (blobs.read, blobs.remove, lambda name: blobs.write(name, b"")):
            with pytest.raises(ValueError, match="no name"):
                use(name)


def test_the_overlay_remembers(blobs: Blobs) -> None:
    memory = BlobMemory(blobs)
    assert memory.contacts() == memory.records() == ()
    contacts = tuple(contact_of(key_of(secret)) for secret in range(1, 5))
    memory.save_contacts(contacts)
    memory.save_record(pointer(7))
    memory.save_record(pointer(8))
    memory.save_record(pointer(7, 2))
    again = BlobMemory(blobs)
    assert again.contacts() == contacts
    assert set(again.records()) == {pointer(7, 2), pointer(8)}
    again.drop_record(pointer(8))
    again.drop_record(pointer(9))
    assert memory.records() == (pointer(7, 2),)


def test_what_is_damaged_is_as_good_as_not_there(blobs: Blobs) -> None:
    memory = BlobMemory(blobs)
    memory.save_record(pointer(7))
    memory.save_record(pointer(8))
    (name, other) = blobs.names()
    whole = blobs.read(name) or b""
    blobs.write(name, whole[:-1])
    blobs.write(CONTACTS, b"\xff\x00")
    assert memory.contacts() == ()
    assert len(memory.records()) == 1
    assert other != name


def test_a_write_that_was_cut_off_leaves_the_old_blob(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    blobs.write("a", b"old")
    (tmp_path / "a.partial").write_bytes(b"ne")
    assert blobs.read("a") == b"old"
    assert blobs.names() == ("a",)
    (tmp_path / "huge").write_bytes(bytes(MAX_BLOB_BYTES + 1))
    assert blobs.read("huge") is None


def test_a_disk_that_refuses_is_an_environment_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentFault):
        FileBlobs(tmp_path / "file" / "folder").write("a", b"")
