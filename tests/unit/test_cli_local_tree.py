"""Directories here as a source and a destination: nothing is followed out of them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from stook.cli.local_tree import (
    Passed,
    TreeSink,
    look,
    refusal,
    shown,
    single_file,
    unsafe,
    walk,
)
from stook.errors import EnvironmentFault, NotFoundError


def fill(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def names(root: Path, passed: Passed | None = None) -> list[str]:
    return [file.name for file in walk(root, passed or Passed())]


def sink(root: Path, name: str, passed: Passed, data: bytes = b"content", mode: int = 0o640) -> TreeSink:
    made = TreeSink(root, name, mode, passed)
    made.begin(len(data))
    made.write_at(0, memoryview(data))
    made.commit(1_700_000_000_123)
    return made


# --- reading ---------------------------------------------------------------------------------------------------------


def test_every_file_comes_in_order_with_its_size_time_and_mode(tmp_path: Path) -> None:
    fill(tmp_path, "b", "a/z", "a/b/c", "c/d")
    (tmp_path / "a/z").chmod(0o4750)
    os.utime(tmp_path / "a/z", ns=(0, 1_234_567_890))
    found = {file.name: file for file in walk(tmp_path, Passed())}
    assert list(found) == ["b", "a/z", "a/b/c", "c/d"]
    assert (found["a/z"].size_bytes, found["a/z"].modified_ms, found["a/z"].mode) == (3, 1234, 0o750)
    assert Path(found["a/z"].path).read_bytes() == b"a/z"


def test_links_and_special_files_are_counted_and_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    fill(inside, "file")
    fill(outside, "secret")
    (inside / "to-file").symlink_to(outside / "secret")
    (inside / "to-directory").symlink_to(outside)
    (inside / "to-itself").symlink_to(inside)
    (inside / "dangling").symlink_to("nowhere")
    os.mkfifo(inside / "pipe")
    passed = Passed()
    assert names(inside, passed) == ["file"]
    assert (passed.symlinks, passed.special, passed.failed) == (4, 1, [])


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    fill(tmp_path / "real", "file")
    (tmp_path / "link").symlink_to("real")
    assert names(tmp_path / "link") == ["file"]


def test_names_that_are_no_text_are_refused_by_name_and_the_rest_comes(tmp_path: Path) -> None:
    fill(tmp_path, "good")
    bad = os.fsencode(tmp_path) + b"/bad\xff\n"
    Path(os.fsdecode(bad)).write_bytes(b"")
    passed = Passed()
    assert names(tmp_path, passed) == ["good"]
    assert passed.failed == [("bad\\udcff\\n", "its name is no UTF-8")]


def test_names_too_long_with_their_prefix_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, "x" * 200)
    passed = Passed()
    assert list(walk(tmp_path, passed, prefix="p" * 900 + "/")) == []
    assert "1024" in passed.failed[0][1]
    assert not refusal("x" * 1024)
    assert refusal("é" * 513)


def test_an_unreadable_directory_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "closed/file", "open/file")
    scandir = os.scandir

    def guarded(path: str) -> object:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    passed = Passed()
    assert names(tmp_path, passed) == ["open/file"]
    assert (passed.unread_directories, passed.failed) == (1, [("closed/", "Permission denied")])


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="No such file"):
        names(tmp_path / "nothing")


def test_a_single_file_is_looked_at_through_a_link(tmp_path: Path) -> None:
    fill(tmp_path, "file")
    (tmp_path / "link").symlink_to("file")
    assert single_file(tmp_path / "link").name == "link"
    with pytest.raises(NotFoundError, match="no such file"):
        single_file(tmp_path / "gone")
    with pytest.raises(EnvironmentFault, match="no regular file"):
        single_file(tmp_path)


@pytest.mark.parametrize(
    ("name", "printed"),
    [("plain é", "plain é"), ("a\nb", "a\\nb"), ("\x1b[3m", "\\x1b[3m"), ("\udcff", "\\udcff"), ("\u202e", "\\u202e")],
)
def test_names_are_shown_on_one_line_and_move_no_cursor(name: str, printed: str) -> None:
    assert shown(name) == printed


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../../x", "..", ".", "", "a//b", "a/", "./a", "a/.", "nul\0"]
)
def test_unsafe_names_are_told(name: str) -> None:
    assert unsafe(name)


@pytest.mark.parametrize("name", ["a", "a/b", "..a", "a..", "...", ".hidden/x", "a b", "é"])
def test_odd_but_harmless_names_are_fine(name: str) -> None:
    assert not unsafe(name)


def test_a_file_is_written_with_mode_and_time(tmp_path: Path) -> None:
    passed = Passed()
    assert sink(tmp_path / "new", "a/b/c", passed, mode=0o4640).written
    path = tmp_path / "new/a/b/c"
    status = path.stat()
    assert path.read_bytes() == b"content"
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o640, 1_700_000_000_123_000_000)
    assert [item.name for item in path.parent.iterdir()] == ["c"]


def test_nothing_is_seen_before_the_end_and_nothing_stays_of_what_was_given_up(tmp_path: Path) -> None:
    fill(tmp_path, "file")
    made = TreeSink(tmp_path, "file", 0o644, Passed())
    made.begin(3)
    made.write_at(0, memoryview(b"new"))
    assert (tmp_path / "file").read_bytes() == b"file"
    made.abort()
    made.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert not made.settled


def test_links_in_the_destination_lead_nowhere(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    fill(inside, "x")
    fill(outside, "secret")
    (inside / "directory").symlink_to(outside)
    (inside / "file").symlink_to(outside / "secret")
    passed = Passed()
    assert sink(inside, "directory/secret", passed).failed
    assert sink(inside, "file", passed).written
    assert (outside / "secret").read_bytes() == b"secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert not (inside / "file").is_symlink()
    assert passed.failed == [("directory/secret", "a symbolic link or a file stands where a directory has to be")]
    assert look(inside, "directory/secret") is None


def test_a_file_where_a_directory_has_to_be_stops_only_that_one(tmp_path: Path) -> None:
    fill(tmp_path, "a")
    (tmp_path / "d").mkdir()
    passed = Passed()
    assert sink(tmp_path, "a/b", passed).failed
    assert sink(tmp_path, "d", passed).failed
    assert sink(tmp_path, "x" * 300, passed).failed
    assert sink(tmp_path, "good", passed).written
    assert [name for name, _ in passed.failed] == ["a/b", "d", "x" * 300]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "d", "good"]


def test_a_full_disk_stops_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    made = TreeSink(tmp_path, "file", 0o644, Passed())
    made.begin(3)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(EnvironmentFault, match="No space left"):
        made.write_at(0, memoryview(b"new"))
    assert list(tmp_path.iterdir()) == []


def test_look_sees_regular_files_only(tmp_path: Path) -> None:
    fill(tmp_path, "a/file")
    (tmp_path / "a/link").symlink_to("file")
    found = look(tmp_path, "a/file")
    assert found is not None
    assert found.size_bytes == 6
    assert [look(tmp_path, name) for name in ("a", "a/link", "a/gone", "gone/x", "a/file/x")] == [None] * 5
