"""Recursive copies against a client in memory: only what changed, and one failure stops nobody else."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cli_fakes import FakeClient, FakeRenter, Stored, silent
from stook.cli import copy_up as copy_up_module
from stook.cli.cmd_cp import folder_of, refuse_to_delete_in, what_to_store, where_to_write
from stook.cli.copied import Copied
from stook.cli.copy_down import bring_one, copy_down
from stook.cli.copy_up import copy_up, without_file
from stook.cli.local_tree import LocalFile
from stook.cli.remote import RemoteName
from stook.errors import EnvironmentFault, NotEnoughError, UserError
from stook.renter.files import FileSource


def tree(root: Path, **files: bytes) -> Path:
    for name, data in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    root.mkdir(exist_ok=True)
    return root


def up(client: FakeClient, files: Path | LocalFile, folder: str = "f/", *, delete: bool = False) -> Copied:
    return asyncio.run(
        copy_up(client, files, RemoteName("b", folder), delete=delete, on_progress=silent, total=0)  # type: ignore[arg-type]
    )


def down(client: FakeClient, root: Path, folder: str = "f/", *, delete: bool = False) -> Copied | None:
    renter = FakeRenter(client)
    return asyncio.run(
        copy_down(renter, RemoteName("b", folder), root, delete=delete, on_progress=silent)  # type: ignore[arg-type]
    )


def read(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


FILES = {"a": b"1", "d__b": b"22", "d__e__c": b"", "z": b"333"}


# --- up --------------------------------------------------------------------------------------------------------------


def test_a_second_run_copies_only_what_changed(tmp_path: Path) -> None:
    client, root = FakeClient(), tree(tmp_path / "t", **FILES)
    first = up(client, root)
    assert (first.files, first.size_bytes, first.unchanged, first.exit_code) == (4, 6, 0, 0)
    assert sorted(client.objects) == ["f/a", "f/d/b", "f/d/e/c", "f/z"]
    (root / "a").write_bytes(b"longer")
    os.utime(root / "z", ns=(0, 5_000_000_000))
    second = up(client, root)
    assert (second.files, second.size_bytes, second.unchanged) == (2, 9, 2)
    assert client.objects["f/z"].modified_ms == 5000


def test_a_file_that_vanishes_is_passed_over_and_the_rest_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, root = FakeClient(), tree(tmp_path / "t", **FILES)

    def vanishing(path: Path) -> FileSource:
        if path.name in ("b", "z"):
            path.unlink(missing_ok=True)
        return FileSource(path)

    monkeypatch.setattr("stook.renter.files.FileSource", vanishing, raising=True)
    monkeypatch.setattr(copy_up_module, "walk", lambda *_, **__: iter(found))
    found = [
        LocalFile(name, str(root / name), (root / name).stat().st_size, 7, 0o644) for name in ("a", "d/b", "d/e/c", "z")
    ]
    copied = up(client, root)
    assert sorted(client.objects) == ["f/a", "f/d/e/c"]
    assert (copied.files, copied.size_bytes, copied.unchanged) == (2, 1, 0)
    assert [name for name, _ in copied.passed.failed] == ["d/b", "z"]
    assert copied.exit_code == EnvironmentFault.exit_code


def test_delete_removes_what_is_no_file_here(tmp_path: Path) -> None:
    client, root = FakeClient(), tree(tmp_path / "t", **FILES)
    for name in ("f/gone", "f/d/gone", "f/a/below-a-file", "f/../odd", "g/other"):
        client.objects[name] = Stored(b"", 0, 0o644)
    copied = up(client, root, delete=True)
    assert copied.deleted == 3
    assert sorted(client.objects) == ["f/../odd", "f/a", "f/d/b", "f/d/e/c", "f/z", "g/other"]


def test_an_empty_or_half_read_directory_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient({"f/kept": Stored(b"", 0, 0o644)})
    with pytest.raises(UserError, match="holds no file"):
        up(client, tree(tmp_path / "empty"), delete=True)
    root, scandir = tree(tmp_path / "t", **FILES), os.scandir

    def guarded(path: str) -> object:
        if path.endswith("/d"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(EnvironmentFault, match="nothing was deleted"):
        up(client, root, delete=True)
    assert sorted(client.objects) == ["f/a", "f/kept", "f/z"]


def test_without_file_leaves_names_alone_that_could_be_none(tmp_path: Path) -> None:
    root = tree(tmp_path / "t", a=b"")
    assert without_file(root, "f/", ["f/a", "f/b", "f/../x", "f/", "f//x"]) == ["f/b"]


# --- down ------------------------------------------------------------------------------------------------------------


def stored(**files: bytes) -> FakeClient:
    return FakeClient({f"f/{name.replace('__', '/')}": Stored(data, 1_000, 0o600) for name, data in files.items()})


def test_everything_comes_back_and_a_second_run_fetches_nothing(tmp_path: Path) -> None:
    client = stored(**FILES)
    copied = down(client, tmp_path / "new")
    assert copied is not None
    assert (copied.files, copied.size_bytes, copied.unchanged) == (4, 6, 0)
    assert read(tmp_path / "new") == {"a": b"1", "d/b": b"22", "d/e/c": b"", "z": b"333"}
    again = down(client, tmp_path / "new")
    assert again is not None
    assert (again.files, again.unchanged, client.fetched) == (0, 4, 4)


def test_names_that_lead_out_are_refused_and_named(tmp_path: Path) -> None:
    client = stored(good=b"1")
    for name in ("f/../out", "f//etc/passwd", "f/", "f/d/"):
        client.objects[name] = Stored(b"x", 0, 0o644)
    copied = down(client, tmp_path / "new")
    assert copied is not None
    assert read(tmp_path) == {"new/good": b"1"}
    assert len(copied.passed.failed) == 4
    assert copied.exit_code == EnvironmentFault.exit_code


def test_one_lost_object_costs_no_other(tmp_path: Path) -> None:
    client = stored(**FILES)
    client.lost = {"f/d/b"}
    copied = down(client, tmp_path / "new")
    assert copied is not None
    assert sorted(read(tmp_path / "new")) == ["a", "d/e/c", "z"]
    assert [name for name, _ in copied.unreadable] == ["f/d/b"]
    assert (copied.files, copied.exit_code) == (3, NotEnoughError.exit_code)


def test_when_nothing_can_be_read_it_ends_soon(tmp_path: Path) -> None:
    client = FakeClient({f"f/{number:03}": Stored(b"x", 0, 0o644) for number in range(100)}, page=50)
    client.lost = set(client.objects)
    with pytest.raises(NotEnoughError):
        down(client, tmp_path / "new")
    assert read(tmp_path) == {}


def test_a_folder_without_objects_is_none(tmp_path: Path) -> None:
    assert down(FakeClient(), tmp_path / "new", delete=True) is None
    assert not (tmp_path / "new").exists()


def test_delete_removes_files_here_and_leaves_links_and_directories(tmp_path: Path) -> None:
    client, root = stored(**FILES), tree(tmp_path / "new", extra=b"", d__extra=b"", e__extra=b"")
    outside = tree(tmp_path / "out", kept=b"")
    (root / "link").symlink_to(outside)
    copied = down(client, root, delete=True)
    assert copied is not None
    assert copied.deleted == 3
    assert sorted(path.name for path in root.iterdir()) == ["a", "d", "e", "link", "z"]
    assert (outside / "kept").exists()


def test_one_object_may_take_another_name(tmp_path: Path) -> None:
    client = stored(a=b"1", ab=b"2")
    renter = FakeRenter(client)
    there = asyncio.run(
        bring_one(renter, RemoteName("b", "f/a"), tmp_path / "x/y", on_progress=silent)  # type: ignore[arg-type]
    )
    gone = asyncio.run(
        bring_one(renter, RemoteName("b", "f"), tmp_path / "z", on_progress=silent)  # type: ignore[arg-type]
    )
    assert there is not None
    assert gone is None
    assert read(tmp_path) == {"x/y": b"1"}


# --- what is meant ---------------------------------------------------------------------------------------------------


def test_where_files_go(tmp_path: Path) -> None:
    root = tree(tmp_path / "t", a=b"1")
    assert what_to_store(root, RemoteName("b", "f"), recursive=True) == (root, RemoteName("b", "f/"))
    assert what_to_store(root, RemoteName("b"), recursive=True) == (root, RemoteName("b", ""))
    with pytest.raises(UserError, match="cp -r"):
        what_to_store(root, RemoteName("b", "f"), recursive=False)
    for target, name in (("", "a"), ("f/", "f/a"), ("x", "x"), ("f/x", "f/x")):
        file, remote = what_to_store(root / "a", RemoteName("b", target), recursive=False)
        assert isinstance(file, LocalFile)
        assert remote.name + file.name == name


def test_where_one_object_goes(tmp_path: Path) -> None:
    remote = RemoteName("b", "f/a")
    assert where_to_write(remote, str(tmp_path)) == tmp_path / "a"
    assert where_to_write(remote, f"{tmp_path}/new/") == tmp_path / "new/a"
    assert where_to_write(remote, f"{tmp_path}/new") == tmp_path / "new"
    with pytest.raises(UserError, match="no file name"):
        where_to_write(RemoteName("b", "f/.."), str(tmp_path))


def test_folders() -> None:
    assert [folder_of(name) for name in ("", "a", "a/", "a/b")] == ["", "a/", "a/", "a/b/"]


def test_nobody_means_to_empty_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for root in (Path("/"), tmp_path):
        with pytest.raises(UserError, match="--delete"):
            refuse_to_delete_in(root)
    refuse_to_delete_in(tmp_path / "below")
