"""One shard on its way to a farmer's disk: reserved, verified unit by unit, resumed, published.

Used through `stook.storage.shard_store.FileShardStore`. A writer keeps one file descriptor open from its first unit to
its last, because the system tells a failed write-back only to descriptors that were open when it happened.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from stook.errors import BugError, ConflictError, EnvironmentFault, MisbehaviourError, ReasonCode
from stook.hashing import DIGEST_BYTES
from stook.ids import ShardRoot
from stook.merkle import UNIT_BYTES, leaves_of
from stook.storage.durable import (
    disk_bytes,
    faults,
    opened,
    read_at,
    remove,
    reserve,
    sync_data,
    sync_directory,
    write_at,
    write_past_cache,
)
from stook.storage.ports import StoredShard
from stook.storage.shard_file import HEADER_BYTES, Layout, leaves_lead_to, pack_header, pack_log, whole_units

READ_UNITS = 16
"""Units read and hashed at a time: 256 KiB stay in the processor's cache."""


def good_units(data: memoryview, leaves: bytes, first_unit: int) -> int:
    """How many units at the head of `data` are those of the leaf list from `first_unit` on."""
    found = leaves_of(data)
    at = first_unit * DIGEST_BYTES
    if leaves[at : at + len(found) * DIGEST_BYTES] == b"".join(found):
        return len(found)
    return next(i for i, leaf in enumerate(found) if leaf != leaves[at + i * DIGEST_BYTES :][:DIGEST_BYTES])


def bad_units_of(descriptor: int, layout: Layout, leaves: bytes, *, stop_at_first: bool = False) -> list[int]:
    """Read a file's data and hash it; the units that are not their leaves, missing and unreadable ones among them."""
    buffer = memoryview(bytearray(min(READ_UNITS * UNIT_BYTES, layout.size_bytes)))
    bad: list[int] = []
    for first in range(0, layout.units, READ_UNITS):
        block = buffer[: min(len(buffer), layout.size_bytes - first * UNIT_BYTES)]
        done, units = 0, -(-len(block) // UNIT_BYTES)
        unread = _fill(descriptor, block, layout.unit_at(first))
        while done < units:
            if done not in unread:
                stop = min((unit for unit in unread if unit > done), default=units)
                done += good_units(block[done * UNIT_BYTES : stop * UNIT_BYTES], leaves, first + done)
                if done == stop:
                    continue
            bad.append(first + done)
            done += 1
            if stop_at_first:
                return bad
    return bad


def _fill(descriptor: int, block: memoryview, offset: int) -> frozenset[int]:
    """Read a block; the units of it that could not be read whole. One bad sector (EIO) hides one unit only."""
    try:
        count = read_at(descriptor, block, offset)
        return frozenset(range(count // UNIT_BYTES, -(-len(block) // UNIT_BYTES)) if count < len(block) else ())
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    if len(block) <= UNIT_BYTES:
        return frozenset({0})
    units = range(-(-len(block) // UNIT_BYTES))
    return frozenset(
        unit
        for unit in units
        if _fill(descriptor, block[unit * UNIT_BYTES : (unit + 1) * UNIT_BYTES], offset + unit * UNIT_BYTES)
    )


def leaves_from_data(descriptor: int, layout: Layout) -> bytes:
    """The leaf list of the data as it stands. Raises `OSError`."""
    buffer = memoryview(bytearray(min(READ_UNITS * UNIT_BYTES, layout.size_bytes)))
    leaves: list[bytes] = []
    for first in range(0, layout.units, READ_UNITS):
        block = buffer[: min(len(buffer), layout.size_bytes - first * UNIT_BYTES)]
        count = read_at(descriptor, block, layout.unit_at(first))
        leaves += leaves_of(block[:count])
    return b"".join(leaves)


def partial_units(path: str, root: ShardRoot, size_bytes: int) -> int:
    """How many units from the first on a partial file holds, by hashing them; 0 for what is no partial of it."""
    layout = Layout.of(size_bytes)
    with faults(f"reading the partial shard {root.hex()}"), suppress(FileNotFoundError):
        with opened(path, os.O_RDONLY) as descriptor:
            head = os.pread(descriptor, HEADER_BYTES + layout.leaf_bytes, 0)
            leaves = head[HEADER_BYTES:]
            if head[:HEADER_BYTES] == pack_header(root, size_bytes) and leaves_lead_to(root, size_bytes, leaves):
                return _verified(descriptor, layout, leaves)
    return 0


def _verified(descriptor: int, layout: Layout, leaves: bytes) -> int:
    bad = bad_units_of(descriptor, layout, leaves, stop_at_first=True)
    return bad[0] if bad else layout.units


def open_partial(path: str, root: ShardRoot, layout: Layout, leaves: bytes) -> tuple[int, int]:
    """Begin or resume a partial file, its whole room reserved: a descriptor and the first unit missing.

    Raises `EnvironmentFault` (disk full, no permission); a file without verified units is gone then.
    """
    head = pack_header(root, layout.size_bytes) + leaves
    next_unit = 0
    with faults(f"making room for the shard {root.hex()}"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.pread(descriptor, len(head), 0) == head:
                next_unit = _verified(descriptor, layout, leaves)
                os.ftruncate(descriptor, layout.log)  # a record of a publish that failed must not stay
            else:
                os.ftruncate(descriptor, 0)
            reserve(descriptor, layout.file_bytes)
            if not next_unit:
                write_at(descriptor, head, 0)
        except BaseException:
            os.close(descriptor)
            if not next_unit:
                remove(path)
            raise
    return descriptor, next_unit


class FileShardWriter:
    """The `ShardWriter` on files. Calls may come from any thread; `erase` of the store ends it from outside."""

    def __init__(
        self,
        root: ShardRoot,
        layout: Layout,
        leaves: bytes,
        *,
        partial: str,
        published: Path,
        stripe: threading.Lock,
        on_end: Callable[[ShardRoot], None],
    ) -> None:
        self._root, self._layout, self._leaves = root, layout, leaves
        self._partial, self._published = partial, published
        self._stripe, self._on_end = stripe, on_end
        self._lock = threading.Lock()  # taken inside the stripe, never around it
        self._ended = False
        self._descriptor, self._next_unit = open_partial(partial, root, layout, leaves)

    @property
    def next_unit(self) -> int:
        """The first unit not yet verified and held."""
        return self._next_unit

    def write(self, data: memoryview) -> None:
        """Verify and keep whole units from `next_unit` on; the bytes go from `data` to the file without a copy.

        Raises `MisbehaviourError` (HASH_MISMATCH) at the first unit that is not its leaf, earlier ones being kept;
        `EnvironmentFault` when the disk refuses; `ConflictError` when the shard was erased meanwhile; `BugError` when
        `data` is no whole units.
        """
        data = data.cast("B")
        with self._lock:
            self._check_open()
            whole_units(self._next_unit, self._layout.size_bytes, len(data))
            good = good_units(data, self._leaves, self._next_unit)
            kept = data[: good * UNIT_BYTES]
            with faults(f"writing the shard {self._root.hex()}"):
                write_past_cache(self._descriptor, kept, self._layout.unit_at(self._next_unit))
            self._next_unit += good
            if len(kept) < len(data):
                raise MisbehaviourError(
                    ReasonCode.HASH_MISMATCH, f"unit {self._next_unit} of shard {self._root.hex()} is not its leaf"
                )

    def publish(self, contract: bytes) -> StoredShard:
        """Sync everything, then make the shard visible atomically together with `contract`; ends the writer.

        One data sync, one rename, one directory sync. Raises `BugError` when units are missing, `EnvironmentFault` when
        the disk refuses: the shard is not visible then, and erased if a sync failed, for after a failed sync the system
        may show bytes that never reached the disk.
        """
        with self._stripe, self._lock:
            self._check_open()
            if self._next_unit < self._layout.units:
                raise BugError(f"shard {self._root.hex()}: {self._next_unit} of {self._layout.units} units are there")
            record = pack_log(self._root, contract, 0)
            with faults(f"publishing the shard {self._root.hex()}"):
                write_at(self._descriptor, record, self._layout.log)
                try:
                    sync_data(self._descriptor)
                    size = disk_bytes(os.fstat(self._descriptor))
                    os.rename(self._partial, self._published)
                    sync_directory(self._published.parent)
                except OSError:
                    with suppress(OSError):
                        remove(self._published)
                    self._end(erase=True)
                    raise
            self._end(erase=False)
            return StoredShard(self._root, self._layout.size_bytes, size, contract)

    def close(self, *, keep: bool) -> None:
        """Stop writing; with `keep` the verified units stay for a resume, else they are erased. Idempotent."""
        with self._stripe:
            self.abandon(keep=keep)

    def abandon(self, *, keep: bool) -> int:
        """As `close`, for a caller that holds the stripe; the bytes freed."""
        with self._lock:
            return 0 if self._ended else self._end(erase=not (keep and self._next_unit))

    def _check_open(self) -> None:
        if self._ended:
            raise ConflictError(f"shard {self._root.hex()} was closed or erased while it was being received")

    def _end(self, *, erase: bool) -> int:
        self._ended = True
        os.close(self._descriptor)
        self._on_end(self._root)
        if not erase:
            return 0
        try:
            return remove(self._partial)
        except OSError as error:
            raise EnvironmentFault(f"erasing the partial shard {self._root.hex()}: {error}") from error
