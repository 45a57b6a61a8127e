"""Shards as files, one each, that say everything about themselves.

The format, the directories, and what is synced when and why: `docs/formats/shard-file.md`. In short: a shard is written
under `incoming/` without syncing (on resume every unit is hashed again, so nothing there needs to be believed); publish
syncs the file's data with its contract in it, renames it into `shards/xx/`, and syncs that directory; a renewal appends
one record and syncs the file's data; erase syncs the directory. No index is kept: the file system is the index.

Everything here blocks; every method may be called from any thread. Descriptors are open only inside a call, except one
for each writer, and writers are bounded.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from stook.errors import BugError, ConflictError, CorruptionError, EnvironmentFault, NotFoundError
from stook.ids import ROOT_BYTES, ShardRoot
from stook.merkle import UNIT_BYTES
from stook.storage.durable import (
    disk_bytes,
    faults,
    opened,
    read_at,
    remove,
    sync_data,
    sync_directory,
    sync_file,
    write_at,
)
from stook.storage.ports import StoredShard
from stook.storage.shard_file import (
    BLOCK_BYTES,
    HEADER_BYTES,
    LOG_LIMIT_BYTES,
    LOG_START_BYTES,
    Layout,
    leaves_lead_to,
    pack_header,
    pack_log,
    parse_header,
    read_log,
    require_leaves,
    root_from_name,
)
from stook.storage.shard_writer import FileShardWriter, bad_units_of, leaves_from_data, partial_units

MAX_WRITERS = 256
_PUBLISHED, _PARTIAL = ".shard", ".part"


class DamageKind(enum.Enum):
    """What is wrong with a file in the store."""

    HEADER = "the header is damaged, or is that of another shard"
    LEAVES = "the leaf list does not lead to the root"
    SHORT = "the file is shorter than its shard"
    NO_CONTRACT = "no contract record is readable"
    WRONG_CONTRACT = "the newest contract record is no contract over this shard"
    DATA = "units are not their leaves"
    FOREIGN = "the name is none that this store gives"
    UNREADABLE = "the system cannot read it"


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that the store cannot serve. `root` is what its name says, None when it says none."""

    path: Path
    kind: DamageKind
    root: ShardRoot | None


class FileShardStore:
    """The `ShardStore` on files; one process at a time. Close it, or use it as a context manager.

    With `read_only` it may be opened beside the process that has it: what is published is published whole.

    `on_damage` hears of every file that `scan` had to skip. Raises `EnvironmentFault` when the directory cannot be
    used, `ConflictError` when another process uses it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_writers: int = MAX_WRITERS,
        on_damage: Callable[[Damage], None] | None = None,
        read_only: bool = False,
    ) -> None:
        self.directory = directory
        self._shards, self._incoming = directory / "shards", directory / "incoming"
        self._quarantine = directory / "quarantine"
        self._max_writers, self._on_damage, self._read_only = max_writers, on_damage, read_only
        self._lock_descriptor = -1
        self._guard = threading.Lock()
        self._writers: dict[ShardRoot, FileShardWriter] = {}
        # One lock for each directory of shards: whatever changes a shard's file or name holds its lock.
        self._stripes = [threading.Lock() for _ in range(256)]
        with faults(f"opening the shard store {directory}"):
            if not read_only:
                self._make_directories()
                self._lock_descriptor = self._take_lock()

    def __enter__(self) -> FileShardStore:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """End open writers, keeping their units, and let another process have the store. Idempotent."""
        with self._guard:
            writers, descriptor, self._lock_descriptor = list(self._writers.values()), self._lock_descriptor, -1
        for writer in writers:
            writer.close(keep=True)
        if descriptor >= 0:
            os.close(descriptor)

    def free_bytes(self) -> int:
        """What the disk has left for this user. Raises `EnvironmentFault`."""
        with faults(f"asking the disk of {self.directory}"):
            status = os.statvfs(self.directory)
        return status.f_bavail * status.f_frsize

    # -- receiving

    def open_writer(self, root: ShardRoot, size_bytes: int, leaves: bytes) -> FileShardWriter:
        """Begin or resume receiving a shard; its whole room on the disk is taken first.

        Raises `MisbehaviourError` (HASH_MISMATCH) when the leaf list does not lead to `root`, `ConflictError` when the
        shard is published or another writer is open on it, `EnvironmentFault` when the disk is full or too many writers
        are open.
        """
        require_leaves(root, size_bytes, leaves)
        with self._stripe(root):
            with self._guard:
                if root in self._writers:
                    raise ConflictError(f"shard {root.hex()} is being received already")
                if len(self._writers) >= self._max_writers:
                    raise EnvironmentFault(f"{self._max_writers} shards are being received already; try again later")
            if self.path_of(root).exists():
                raise ConflictError(f"shard {root.hex()} is stored already")
            writer = FileShardWriter(
                root,
                Layout.of(size_bytes),
                leaves,
                partial=self._partial_path(root),
                published=self.path_of(root),
                stripe=self._stripe(root),
                on_end=self._forget_writer,
            )
            with self._guard:
                self._writers[root] = writer
            return writer

    def resumable_units(self, root: ShardRoot, size_bytes: int) -> int:
        """Units that a partial shard of this size holds already, hashed again now; 0 when there is none."""
        return partial_units(self._partial_path(root), root, size_bytes)

    def sweep_partials(self, keep: frozenset[ShardRoot]) -> int:
        """Erase partial shards whose root is not in `keep`, or published; the bytes freed. Open writers are spared."""
        freed = 0
        with faults(f"sweeping {self._incoming}"):
            for name in sorted(os.listdir(self._incoming)):
                root = root_from_name(name, _PARTIAL)
                if root is None:
                    continue
                with self._stripe(root):
                    with self._guard:
                        busy = root in self._writers
                    if not busy and (root not in keep or self.path_of(root).exists()):
                        freed += remove(self._incoming / name)
        return freed

    # -- reading

    def path_of(self, root: ShardRoot) -> Path:
        """Where the published shard stands, or would."""
        if len(root) != ROOT_BYTES:
            raise BugError(f"a root has {ROOT_BYTES} bytes, not {len(root)}")
        name = root.hex()
        return self._shards / name[:2] / f"{name}{_PUBLISHED}"

    def find(self, root: ShardRoot) -> StoredShard | None:
        """The published shard, or None. Raises `CorruptionError` when header or leaf list are not whole."""
        try:
            with self._opened(root) as (descriptor, layout):
                return _stored(descriptor, layout, root)
        except NotFoundError:
            return None

    def read_leaves(self, root: ShardRoot) -> bytes:
        """The leaf list. Raises `NotFoundError`, or `CorruptionError` when it does not lead to `root`."""
        with self._opened(root) as (descriptor, layout):
            return _leaves(descriptor, layout, root)

    def read_units(self, root: ShardRoot, first_unit: int, into: memoryview) -> int:
        """Fill `into` with bytes from `first_unit` on, as they stand on the disk; the number of bytes read.

        Less than asked for at the end of the shard, or of a file that was cut short. Raises `NotFoundError`,
        `CorruptionError` when the header is damaged, `EnvironmentFault` when the disk cannot read.
        """
        if first_unit < 0:
            raise BugError(f"there is no unit {first_unit}")
        into = into.cast("B")
        with self._opened(root) as (descriptor, layout):
            left = max(0, layout.size_bytes - first_unit * UNIT_BYTES)
            return read_at(descriptor, into[:left], layout.unit_at(first_unit))

    def bad_units(self, root: ShardRoot) -> list[int]:
        """Check every unit against its leaf; the indices that fail, missing ones among them.

        Raises `NotFoundError`, `CorruptionError` when header or leaf list are damaged.
        """
        with self._opened(root) as (descriptor, layout):
            return bad_units_of(descriptor, layout, _leaves(descriptor, layout, root))

    def scan(self) -> Iterator[StoredShard]:
        """Every published shard, read from the files themselves, in order of root; `on_damage` hears of the others."""
        for found in self.survey():
            if isinstance(found, StoredShard):
                yield found
            elif self._on_damage is not None:
                self._on_damage(found)

    def survey(self) -> Iterator[StoredShard | Damage]:
        """Every file under `shards/`, sound or not. Header, length, leaf list and contract log are checked, data not.

        Files that vanish meanwhile are left out. Raises `EnvironmentFault` when a directory cannot be read.
        """
        for index in range(256):
            directory = self._shards / f"{index:02x}"
            with faults(f"reading {directory}"):
                names = sorted(os.listdir(directory))
            for name in names:
                found = self._examine(directory / name, index)
                if found is not None:
                    yield found

    # -- changing what is published

    def append_contract(self, root: ShardRoot, contract: bytes) -> None:
        """Make `contract` the shard's newest: one appended record, one data sync.

        Raises `NotFoundError`, `CorruptionError` when the header is damaged, `EnvironmentFault` when the disk refuses.
        """
        with self._stripe(root), self._opened(root, os.O_RDWR) as (descriptor, layout):
            at = read_log(root, _log(descriptor, layout)).next_slot_at
            record = pack_log(root, contract, at)
            write_at(descriptor, record, layout.log + at)
            sync_data(descriptor)
            if at + len(record) > LOG_LIMIT_BYTES:
                # First the newest at both ends and zeros between, then the cut: whatever a power cut leaves of that,
                # no older record can be the last. The cut is synced, or the next record could stand before the old end.
                write_at(descriptor, pack_log(root, contract, 0).ljust(at, b"\0"), layout.log)
                sync_data(descriptor)
                os.ftruncate(descriptor, layout.log + LOG_START_BYTES)
                sync_file(descriptor)

    def erase(self, root: ShardRoot) -> int:
        """Remove the shard, published or partial, durably; the bytes freed (0: there was none). Ends an open writer."""
        with self._stripe(root), faults(f"erasing the shard {root.hex()}"):
            with self._guard:
                writer = self._writers.get(root)
            freed = writer.abandon(keep=False) if writer else 0
            freed += remove(self._partial_path(root))
            path = self.path_of(root)
            published = remove(path)
            if published:
                sync_directory(path.parent)
            return freed + published

    def quarantine(self, damage: Damage) -> Path:
        """Move a damaged file out of the store's sight, durably; where it is now. Raises `EnvironmentFault`."""
        target, count = self._quarantine / damage.path.name, 0
        while target.exists():
            count += 1
            target = self._quarantine / f"{damage.path.name}.{count}"
        with self._stripes[damage.root[0] if damage.root else 0], faults(f"setting aside {damage.path}"):
            os.rename(damage.path, target)
            sync_directory(self._quarantine)
            sync_directory(damage.path.parent)
        return target

    def restore_head(self, root: ShardRoot, size_hint_bytes: int | None = None) -> bool:
        """Make a damaged header and leaf list again from the data, if the data still leads to `root`.

        The size is taken from the header, else from the hint. False, changing nothing, when the root does not come out.
        Raises `NotFoundError`, `EnvironmentFault`.
        """
        with self._stripe(root), self._descriptor(root, os.O_RDWR) as descriptor:
            try:
                size_bytes: int | None = parse_header(os.pread(descriptor, HEADER_BYTES, 0), root).size_bytes
            except CorruptionError:
                size_bytes = size_hint_bytes
            if size_bytes is None or size_bytes > os.fstat(descriptor).st_size:
                return False
            layout = Layout.of(size_bytes)
            leaves = leaves_from_data(descriptor, layout)
            if not leaves_lead_to(root, size_bytes, leaves):
                return False
            write_at(descriptor, pack_header(root, size_bytes) + leaves, 0)
            sync_data(descriptor)
            return True

    # -- inside

    def _make_directories(self) -> None:
        for directory in (self.directory, self._shards, self._incoming, self._quarantine):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        missing = {f"{index:02x}" for index in range(256)} - set(os.listdir(self._shards))
        for name in sorted(missing):
            (self._shards / name).mkdir(mode=0o700)
        if missing:
            sync_directory(self._shards)
            sync_directory(self.directory)

    def _take_lock(self) -> int:
        descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConflictError(f"another process uses the shard store {self.directory}") from None
        return descriptor

    def _require_disk(self) -> None:
        """A shard that is absent is a loss; a disk that was taken away is none. Raises `EnvironmentFault`."""
        if self._lock_descriptor < 0:
            return
        try:
            there = os.path.samestat(os.stat(self.directory / "lock"), os.fstat(self._lock_descriptor))
        except FileNotFoundError:
            there = False
        if not there:
            raise EnvironmentFault(f"{self.directory} is not what it was at the start: is its disk mounted?")

    def _forget_writer(self, root: ShardRoot) -> None:
        with self._guard:
            self._writers.pop(root, None)

    def _stripe(self, root: ShardRoot) -> threading.Lock:
        if self._read_only:
            raise BugError("a store that was opened to read is not changed")
        return self._stripes[root[0]]

    def _partial_path(self, root: ShardRoot) -> str:
        return f"{self._incoming}/{root.hex()}{_PARTIAL}"

    @contextmanager
    def _descriptor(self, root: ShardRoot, flags: int) -> Iterator[int]:
        with faults(f"using the shard {root.hex()}"):
            try:
                descriptor = os.open(self.path_of(root), flags | os.O_CLOEXEC)
            except FileNotFoundError:
                self._require_disk()
                raise NotFoundError(f"no shard {root.hex()} is stored here") from None
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    @contextmanager
    def _opened(self, root: ShardRoot, flags: int = os.O_RDONLY) -> Iterator[tuple[int, Layout]]:
        with self._descriptor(root, flags) as descriptor:
            layout = parse_header(_head(descriptor, HEADER_BYTES, 0, root), root)
            if os.fstat(descriptor).st_size < layout.data:
                # Also keeps a size that somebody made up from being believed when memory is taken for the leaf list.
                raise CorruptionError(f"shard {root.hex()}: the file is shorter than its leaf list")
            yield descriptor, layout

    def _examine(self, path: Path, index: int) -> StoredShard | Damage | None:
        root = root_from_name(path.name, _PUBLISHED)
        if root is None or root[0] != index:
            return Damage(path, DamageKind.FOREIGN, None)
        try:
            with opened(path, os.O_RDONLY) as descriptor:
                try:
                    layout = parse_header(os.pread(descriptor, HEADER_BYTES, 0), root)
                except CorruptionError:
                    return Damage(path, DamageKind.HEADER, root)
                if os.fstat(descriptor).st_size < layout.data + layout.size_bytes:
                    return Damage(path, DamageKind.SHORT, root)
                try:
                    _leaves(descriptor, layout, root)
                except CorruptionError:
                    return Damage(path, DamageKind.LEAVES, root)
                shard = _stored(descriptor, layout, root)
        except FileNotFoundError:
            return None
        except OSError:
            return Damage(path, DamageKind.UNREADABLE, root)
        return shard if shard.contract else Damage(path, DamageKind.NO_CONTRACT, root)


def _log(descriptor: int, layout: Layout) -> bytes:
    length = os.fstat(descriptor).st_size - layout.log
    # Far beyond the limit there is nothing we wrote.
    return os.pread(descriptor, max(0, min(length, LOG_LIMIT_BYTES + 2 * BLOCK_BYTES)), layout.log)


def _head(descriptor: int, size: int, offset: int, root: ShardRoot) -> bytes:
    """A part of a file's head. One behind a bad sector is as damaged as one with other bytes."""
    try:
        return os.pread(descriptor, size, offset)
    except OSError as error:
        if error.errno == errno.EIO:
            raise CorruptionError(f"shard {root.hex()}: the disk cannot read the head of the file") from error
        raise


def _leaves(descriptor: int, layout: Layout, root: ShardRoot) -> bytes:
    leaves = _head(descriptor, layout.leaf_bytes, HEADER_BYTES, root)
    if not leaves_lead_to(root, layout.size_bytes, leaves):
        raise CorruptionError(f"shard {root.hex()}: the leaf list on the disk does not lead to the root")
    return leaves


def _stored(descriptor: int, layout: Layout, root: ShardRoot) -> StoredShard:
    contract = read_log(root, _log(descriptor, layout)).contract
    return StoredShard(root, layout.size_bytes, disk_bytes(os.fstat(descriptor)), contract)
