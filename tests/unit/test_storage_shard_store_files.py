"""`FileShardStore` where it touches the disk: full disks, damaged files, power cuts acted out, descriptors."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from stook.errors import BugError, ConflictError, CorruptionError, EnvironmentFault, MisbehaviourError
from stook.merkle import UNIT_BYTES
from stook.storage import shard_store, shard_writer
from stook.storage.shard_file import LOG_LIMIT_BYTES, Layout, pack_header, read_log
from stook.storage.shard_store import Damage, DamageKind, FileShardStore
from storage_samples import read_all, sample, store_shard


@pytest.fixture
def store(tmp_path):
    with FileShardStore(tmp_path / "store") as opened:
        yield opened


def partial_of(store, shard):
    return store.directory / "incoming" / f"{shard.root.hex()}.part"


def names(store):
    """Every file in the store but the lock."""
    return sorted(str(path.relative_to(store.directory)) for path in store.directory.rglob("*") if path.is_file())


class Killed(BaseException):
    """Stands in for the end of the process."""


def edit(path, at, data):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def begin(store, shard, units):
    writer = store.open_writer(shard.root, shard.size, shard.leaves)
    writer.write(shard.data[: units * UNIT_BYTES])
    return writer


def test_names_and_modes(store):
    shard = sample()
    writer = begin(store, shard, 1)
    assert names(store) == [f"incoming/{shard.root.hex()}.part", "lock"]
    assert partial_of(store, shard).stat().st_size == Layout.of(shard.size).file_bytes
    assert partial_of(store, shard).stat().st_mode & 0o777 == 0o600
    writer.write(shard.data[UNIT_BYTES:])
    writer.publish(b"contract")
    assert names(store) == ["lock", f"shards/{shard.root.hex()[:2]}/{shard.root.hex()}.shard"]
    assert store.directory.stat().st_mode & 0o777 == 0o700


def test_a_store_is_used_by_one_process_at_a_time(store):
    with pytest.raises(ConflictError, match="another process"):
        FileShardStore(store.directory)
    store.close()
    store.close()
    with FileShardStore(store.directory):
        pass


def test_a_directory_that_cannot_be_used_is_a_fault(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentFault):
        FileShardStore(tmp_path / "file")


def test_everything_is_found_again_after_reopening(store):
    shards = [sample(seed=number) for number in range(5)]
    stored = [store_shard(store, shard, b"contract") for shard in shards]
    store.close()
    with FileShardStore(store.directory) as again:
        assert list(again.scan()) == sorted(stored, key=lambda item: item.root)


def test_closing_the_store_keeps_what_came_in(store):
    shard = sample()
    writer = begin(store, shard, 2)
    store.close()
    with pytest.raises(ConflictError):
        writer.write(shard.data[2 * UNIT_BYTES :])
    with FileShardStore(store.directory) as again:
        assert again.resumable_units(shard.root, shard.size) == 2


# -- nothing on the disk is believed


@pytest.mark.parametrize("at", [0, 20, 70, 4096 + 5], ids=["magic", "size", "leaf list", "data"])
def test_a_damaged_partial_begins_again(store, at):
    shard = sample()
    begin(store, shard, 2).close(keep=True)
    edit(partial_of(store, shard), at, b"\xff\xfe")
    assert store.resumable_units(shard.root, shard.size) == 0
    writer = store.open_writer(shard.root, shard.size, shard.leaves)
    assert writer.next_unit == 0
    writer.write(shard.data)
    writer.publish(b"contract")
    assert read_all(store, shard) == shard.data
    assert store.bad_units(shard.root) == []


@pytest.mark.parametrize("length", [0, 10, 64, 100, 4096 + UNIT_BYTES, 4096 + UNIT_BYTES + 5])
def test_a_partial_cut_short_goes_on_where_its_data_ends(store, length):
    shard = sample()
    begin(store, shard, 3).close(keep=True)
    os.truncate(partial_of(store, shard), length)
    expected = int(length > 4096)
    assert store.resumable_units(shard.root, shard.size) == expected
    writer = store.open_writer(shard.root, shard.size, shard.leaves)
    assert writer.next_unit == expected
    writer.write(shard.data[expected * UNIT_BYTES :])
    writer.publish(b"contract")
    assert read_all(store, shard) == shard.data


def test_a_publish_cut_off_before_the_rename_is_resumed_and_its_record_forgotten(store, monkeypatch):
    shard = sample()
    writer = begin(store, shard, 3)

    def rename(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(Killed):
            writer.publish(b"an old contract that is rather long" * 30)
    assert store.find(shard.root) is None
    writer.close(keep=True)
    again = store.open_writer(shard.root, shard.size, shard.leaves)
    assert again.next_unit == 3
    assert partial_of(store, shard).read_bytes()[Layout.of(shard.size).log :] == bytes(4096)
    again.publish(b"new")
    assert store.find(shard.root).contract == b"new"


def test_a_stale_partial_beside_a_published_shard_is_swept(store):
    shard = sample()
    store_shard(store, shard)
    shutil.copy(store.path_of(shard.root), partial_of(store, shard))
    with pytest.raises(ConflictError):
        store.open_writer(shard.root, shard.size, shard.leaves)
    assert store.sweep_partials(frozenset({shard.root})) > shard.size
    assert not partial_of(store, shard).exists()
    assert store.find(shard.root) is not None


# -- syncs that fail, disks that are full


@pytest.mark.parametrize("step", ["sync_data", "sync_directory"])
def test_a_failed_sync_publishes_nothing_and_trusts_nothing(store, monkeypatch, step):
    shard = sample()
    writer = begin(store, shard, 3)

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer, step, fail)
        with pytest.raises(EnvironmentFault, match="publishing"):
            writer.publish(b"contract")
    assert names(store) == ["lock"]
    assert store.find(shard.root) is None
    store_shard(store, shard)


def test_a_renewal_that_cannot_be_synced_is_a_fault(store, monkeypatch):
    shard = sample()
    store_shard(store, shard)

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shard_store, "sync_data", fail)
    with pytest.raises(EnvironmentFault):
        store.append_contract(shard.root, b"later")


def test_syncs_come_before_what_relies_on_them(store, monkeypatch):
    shard = sample()
    events = []
    for module, name in (
        (shard_writer, "sync_data"),
        (shard_writer, "sync_directory"),
        (shard_store, "sync_data"),
        (shard_store, "sync_directory"),
        (shard_writer, "write_at"),
        (shard_writer, "write_past_cache"),
        (shard_store, "write_at"),
    ):
        monkeypatch.setattr(module, name, _noting(events, name, getattr(module, name)))
    monkeypatch.setattr(os, "rename", _noting(events, "rename", os.rename))
    writer = begin(store, shard, 3)
    assert events == ["write_at", "write_past_cache"]
    events.clear()
    writer.publish(b"contract")
    assert events == ["write_at", "sync_data", "rename", "sync_directory"]
    events.clear()
    store.append_contract(shard.root, b"later")
    assert events == ["write_at", "sync_data"]
    events.clear()
    store.erase(shard.root)
    assert events == ["sync_directory"]


def _noting(events, name, real):
    def call(*arguments):
        events.append(name)
        return real(*arguments)

    return call


@pytest.fixture
def small_disk(tmp_path):
    """Two MiB of memory, mounted as a disk of its own."""
    point = tmp_path / "small"
    point.mkdir()
    if os.geteuid() or not sys.platform.startswith("linux"):
        pytest.skip("mounting a small disk needs root on Linux; see test_a_file_size_limit_is_a_full_disk")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(point)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"this machine does not let root mount: {done.stderr.strip()}")
    yield point
    subprocess.run(["umount", str(point)], check=True)


def fill(path):
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_a_full_disk_is_found_before_the_first_byte_and_leaves_nothing(small_disk):
    large, small = sample(1 << 20), sample()
    with FileShardStore(small_disk / "store") as store:
        store_shard(store, large)
        free = store.free_bytes()
        second = sample(1 << 20, 1)
        with pytest.raises(EnvironmentFault, match="free some space"):
            store.open_writer(second.root, second.size, second.leaves)
        assert store.free_bytes() == free
        assert names(store) == ["lock", f"shards/{large.root.hex()[:2]}/{large.root.hex()}.shard"]
        store_shard(store, small)
        assert read_all(store, large) == large.data
        assert store.erase(large.root) > large.size
        store_shard(store, second)
        assert read_all(store, second) == second.data


def test_a_disk_that_fills_up_meanwhile_does_not_touch_what_is_reserved(small_disk):
    shard = sample(1 << 20)
    with FileShardStore(small_disk / "store") as store:
        writer = store.open_writer(shard.root, shard.size, shard.leaves)
        fill(small_disk / "rest")
        writer.write(shard.data)
        writer.publish(b"contract")
        assert read_all(store, shard) == shard.data
        store.append_contract(shard.root, b"a renewal finds room in the first block of the log")
        store.append_contract(shard.root, b"a longer one" * 90)
        with pytest.raises(EnvironmentFault):
            store.append_contract(shard.root, b"too long for what is left of it" * 60)
        assert store.find(shard.root).contract == b"a longer one" * 90
        assert store.bad_units(shard.root) == []


def test_a_file_size_limit_is_a_full_disk(store):
    shard = sample(40 * UNIT_BYTES + 5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 * UNIT_BYTES, before[1]))
    try:
        with pytest.raises(EnvironmentFault):
            store.open_writer(shard.root, shard.size, shard.leaves)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(store) == ["lock"]
    store_shard(store, shard)


def test_a_disk_that_refuses_a_unit_leaves_the_writer_where_it_was(store, monkeypatch):
    shard = sample()
    writer = begin(store, shard, 1)

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(EnvironmentFault):
            writer.write(shard.data[UNIT_BYTES:])
    assert writer.next_unit == 1
    writer.write(shard.data[UNIT_BYTES:])
    writer.publish(b"contract")


def test_without_preallocation_files_are_only_made_long(store, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    shard = sample()
    writer = begin(store, shard, 1)
    assert partial_of(store, shard).stat().st_size == Layout.of(shard.size).file_bytes
    writer.write(shard.data[UNIT_BYTES:])
    writer.publish(b"contract")
    assert read_all(store, shard) == shard.data


# -- damaged files


def damages(store):
    return {found.path.name: found.kind for found in store.survey() if isinstance(found, Damage)}


def test_damaged_files_are_reported_and_the_others_found(tmp_path):
    heard = []
    shards = [sample(seed=number) for number in range(8)]
    layout = Layout.of(shards[0].size)
    with FileShardStore(tmp_path / "store", on_damage=heard.append) as store:
        for shard in shards:
            store_shard(store, shard, b"contract")
        paths = [store.path_of(shard.root) for shard in shards]
        edit(paths[0], 20, b"\xff")
        edit(paths[1], 70, b"\xff\xfe\xfd")
        os.truncate(paths[2], layout.data + 100)
        edit(paths[3], layout.log, bytes(512))
        os.truncate(paths[4], 0)
        foreign = paths[5].parent / "notes.txt"
        foreign.write_text("hello")
        misplaced = store.directory / "shards" / f"{(shards[6].root[0] + 1) % 256:02x}" / paths[6].name
        paths[6].rename(misplaced)
        assert [found.root for found in store.scan()] == sorted([shards[5].root, shards[7].root])
        expected = {
            paths[0]: DamageKind.HEADER,
            paths[1]: DamageKind.LEAVES,
            paths[2]: DamageKind.SHORT,
            paths[3]: DamageKind.NO_CONTRACT,
            paths[4]: DamageKind.HEADER,
            foreign: DamageKind.FOREIGN,
            misplaced: DamageKind.FOREIGN,
        }
        assert {damage.path: damage.kind for damage in heard} == expected

        with pytest.raises(CorruptionError):
            store.find(shards[0].root)
        with pytest.raises(CorruptionError):
            store.read_leaves(shards[1].root)
        with pytest.raises(CorruptionError):
            store.bad_units(shards[1].root)
        assert store.bad_units(shards[2].root) == [0, 1, 2]
        assert store.find(shards[3].root).contract == b""

        for damage in heard:
            moved = store.quarantine(damage)
            assert moved.parent == store.directory / "quarantine"
        assert damages(store) == {}
        store_shard(store, shards[0])
        edit(paths[0], 20, b"\xff")
        again = store.quarantine(Damage(paths[0], DamageKind.HEADER, shards[0].root))
        assert again.name == paths[0].name + ".1"


def test_a_shard_that_the_system_cannot_read_is_damage(store, monkeypatch):
    shard = sample()
    store_shard(store, shard)
    real = os.pread

    def fail(descriptor, count, offset):
        if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".shard":
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", fail)
    assert damages(store) == {store.path_of(shard.root).name: DamageKind.UNREADABLE}
    with pytest.raises(EnvironmentFault):
        store.find(shard.root)


def test_one_bad_sector_hides_one_unit(store, monkeypatch):
    shard = sample(40 * UNIT_BYTES + 5)
    store_shard(store, shard)
    layout = Layout.of(shard.size)
    bad = {layout.unit_at(3) + 5000, layout.unit_at(20), layout.unit_at(40) + 4}
    real = os.preadv

    def fail(descriptor, buffers, offset):
        if any(offset <= sector < offset + len(buffers[0]) for sector in bad):
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", fail)
    assert store.bad_units(shard.root) == [3, 20, 40]


def test_a_torn_renewal_is_ignored_and_written_over(store):
    shard = sample()
    store_shard(store, shard, b"first")
    path, log = store.path_of(shard.root), Layout.of(shard.size).log
    store.append_contract(shard.root, b"second" * 100)
    edit(path, log + 512 + 300, b"torn")
    assert store.find(shard.root).contract == b"first"
    store.append_contract(shard.root, b"third")
    assert store.find(shard.root).contract == b"third"
    os.truncate(path, log + 512 + 20)
    assert store.find(shard.root).contract == b"first"


def test_a_log_never_grows_past_its_limit(store):
    shard = sample()
    store_shard(store, shard)
    path = store.path_of(shard.root)
    longest = 0
    for number in range(300):
        store.append_contract(shard.root, b"%d" % number * 300)
        longest = max(longest, path.stat().st_size - Layout.of(shard.size).log)
    assert store.find(shard.root).contract == b"299" * 300
    assert LOG_LIMIT_BYTES // 2 < longest <= LOG_LIMIT_BYTES + 4096
    assert read_all(store, shard) == shard.data


@pytest.mark.parametrize("last_step", [1, 2, 3, 4], ids=["first sync", "second sync", "cut", "last sync"])
def test_drawing_the_log_together_may_be_cut_off(store, monkeypatch, last_step):
    shard = sample()
    store_shard(store, shard)
    path, log = store.path_of(shard.root), Layout.of(shard.size).log
    while read_log(shard.root, path.read_bytes()[log:]).next_slot_at + 2088 <= LOG_LIMIT_BYTES:
        store.append_contract(shard.root, bytes(2048))
    steps = []

    def step(real):
        def call(*arguments):
            steps.append(real.__name__)
            if len(steps) == last_step:
                raise Killed
            return real(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(shard_store, "sync_data", step(shard_store.sync_data))
        patch.setattr(os, "ftruncate", step(os.ftruncate))
        patch.setattr(shard_store, "sync_file", step(shard_store.sync_file))
        with pytest.raises(Killed):
            store.append_contract(shard.root, b"newest" * 300)
    assert steps == ["sync_data", "sync_data", "ftruncate", "sync_file"][:last_step]
    assert (path.stat().st_size > log + LOG_LIMIT_BYTES) is (last_step < 4)
    assert store.find(shard.root).contract == b"newest" * 300
    store.append_contract(shard.root, b"last")
    assert store.find(shard.root).contract == b"last"
    assert path.stat().st_size == log + 4096


def test_a_damaged_head_is_made_again_from_the_data(store):
    shard = sample(40 * UNIT_BYTES + 5)
    store_shard(store, shard, b"contract")
    path = store.path_of(shard.root)
    sound = path.read_bytes()
    edit(path, 100, bytes(50))
    assert store.restore_head(shard.root)
    assert path.read_bytes() == sound
    edit(path, 0, bytes(500))
    assert not store.restore_head(shard.root)
    assert not store.restore_head(shard.root, shard.size - 1)
    assert store.restore_head(shard.root, shard.size)
    assert path.read_bytes() == sound
    edit(path, Layout.of(shard.size).unit_at(7), b"rot")
    edit(path, 100, bytes(50))
    damaged = path.read_bytes()
    assert not store.restore_head(shard.root, shard.size)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("claimed", [10**6, 2**40, 2**63 - 1])
def test_a_size_that_somebody_made_up_takes_neither_memory_nor_time(store, claimed):
    """The header's check value is no secret: whoever can write the file can make it fit any size."""
    shard = sample(3 * UNIT_BYTES)
    store_shard(store, shard, b"contract")
    edit(store.path_of(shard.root), 0, pack_header(shard.root, claimed))
    for use in (store.read_leaves, store.bad_units):
        with pytest.raises(CorruptionError):
            use(shard.root)
    assert [damage.kind for damage in store.survey()] == [DamageKind.SHORT]
    assert not store.restore_head(shard.root, shard.size)


# -- descriptors


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors in /proc")
def test_descriptors_are_open_only_for_writers(store):
    shards = [sample(seed=number) for number in range(20)]
    before = open_descriptors()
    for shard in shards:
        store_shard(store, shard)
        read_all(store, shard)
        store.append_contract(shard.root, b"contract")
        with pytest.raises(ConflictError):
            store.open_writer(shard.root, shard.size, shard.leaves)
        with pytest.raises(MisbehaviourError):
            store.open_writer(shard.root, 1, shard.leaves)
    scan = store.scan()
    next(scan)
    assert open_descriptors() == before
    scan.close()
    other = [sample(seed=number) for number in range(30, 35)]
    writers = [store.open_writer(shard.root, shard.size, shard.leaves) for shard in other]
    assert open_descriptors() == before + 5
    for number, writer in enumerate(writers):
        writer.close(keep=bool(number % 2))
    assert open_descriptors() == before


def test_writers_are_bounded(tmp_path):
    with FileShardStore(tmp_path / "store", max_writers=2) as store:
        shards = [sample(seed=number) for number in range(3)]
        writers = [store.open_writer(shard.root, shard.size, shard.leaves) for shard in shards[:2]]
        with pytest.raises(EnvironmentFault, match="try again"):
            store.open_writer(shards[2].root, shards[2].size, shards[2].leaves)
        writers[0].close(keep=False)
        store.open_writer(shards[2].root, shards[2].size, shards[2].leaves).close(keep=False)


def test_a_disk_that_was_taken_away_is_a_fault_and_no_missing_shard(tmp_path):
    shard = sample()
    with FileShardStore(tmp_path / "store") as store:
        store_shard(store, shard)
        (tmp_path / "store").rename(tmp_path / "elsewhere")
        for again in (False, True):
            for ask in (lambda: store.read_leaves(shard.root), lambda: store.find(shard.root)):
                with pytest.raises(EnvironmentFault, match="mounted"):
                    ask()
            if not again:
                (tmp_path / "store" / "shards").mkdir(parents=True)
                (tmp_path / "store" / "lock").touch()  # an empty place where the disk was mounted
        shutil.rmtree(tmp_path / "store")
        (tmp_path / "elsewhere").rename(tmp_path / "store")
        assert store.read_leaves(shard.root) == shard.leaves


def test_a_store_opened_to_read_stands_beside_the_other_and_changes_nothing(tmp_path):
    shard = sample()
    with FileShardStore(tmp_path) as store, FileShardStore(tmp_path, read_only=True) as beside:
        store_shard(store, shard)
        assert beside.read_leaves(shard.root) == shard.leaves
        with pytest.raises(BugError):
            beside.erase(shard.root)
        with pytest.raises(BugError):
            beside.open_writer(shard.root, shard.size, shard.leaves)
    with FileShardStore(tmp_path / "nothing", read_only=True) as empty:
        assert empty.find(shard.root) is None
    assert not (tmp_path / "nothing").exists()
