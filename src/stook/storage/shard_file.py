"""The bytes of a shard file, without any file: header, where each part lies, and the log of contracts.

Everything here takes and returns bytes; `stook.storage.shard_store` does the reading and writing. The format, with its
reasons, is `docs/formats/shard-file.md`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from typing_extensions import Buffer

from stook.contracts.contract import MAX_CONTRACT_BYTES
from stook.errors import BugError, CorruptionError, MisbehaviourError, ReasonCode
from stook.hashing import DIGEST_BYTES, Tag, tagged_hash
from stook.ids import ROOT_BYTES, ShardRoot
from stook.merkle import UNIT_BYTES, shard_root, split_leaves, unit_count

FORMAT_VERSION = 1
HEADER_BYTES = 64
BLOCK_BYTES = 4096
SLOT_BYTES = 512
LOG_START_BYTES = BLOCK_BYTES
"""What the log has from the beginning; one record of any allowed length fits."""
LOG_LIMIT_BYTES = 64 * 1024
"""Longer logs are drawn together."""

_MAGIC = b"\x89STOOK\r\n"
_HEADER = struct.Struct(">8sIIQ32s")
_RECORD = struct.Struct(">4sI32s")
_RECORD_MAGIC = b"CTR1"
_CHECK_BYTES = 8


def round_up(value: int, step: int) -> int:
    """The least multiple of `step` that is not below `value`."""
    return -(-value // step) * step


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a shard file lie, in bytes from its start. All of it follows from the size of the shard."""

    size_bytes: int
    units: int
    data: int
    log: int

    @classmethod
    def of(cls, size_bytes: int) -> Layout:
        """The layout for a shard of `size_bytes`. Raises `ValueError` below one byte."""
        units = unit_count(size_bytes)
        data = round_up(HEADER_BYTES + units * DIGEST_BYTES, BLOCK_BYTES)
        return cls(size_bytes, units, data, data + round_up(size_bytes, BLOCK_BYTES))

    @property
    def leaf_bytes(self) -> int:
        """Length of the leaf list."""
        return self.units * DIGEST_BYTES

    @property
    def file_bytes(self) -> int:
        """Length of the file when it is made."""
        return self.log + LOG_START_BYTES

    def unit_at(self, unit: int) -> int:
        """Where `unit` begins."""
        return self.data + unit * UNIT_BYTES


def pack_header(root: ShardRoot, size_bytes: int) -> bytes:
    """The header of a shard file."""
    body = _HEADER.pack(_MAGIC, FORMAT_VERSION, 0, size_bytes, root)
    return body + tagged_hash(Tag.SHARD_FILE, body)[:_CHECK_BYTES]


def parse_header(data: bytes, root: ShardRoot) -> Layout:
    """The layout of the file that begins with `data`.

    Raises `CorruptionError` when that is no whole header of this version, or belongs to another root than the file's
    name says.
    """
    name = root.hex()
    if len(data) < HEADER_BYTES or data[: len(_MAGIC)] != _MAGIC:
        raise CorruptionError(f"shard {name}: no shard file")
    body = data[: _HEADER.size]
    _, version, zero, size_bytes, named = _HEADER.unpack(body)
    if data[_HEADER.size : HEADER_BYTES] != tagged_hash(Tag.SHARD_FILE, body)[:_CHECK_BYTES]:
        raise CorruptionError(f"shard {name}: the header is damaged")
    if version != FORMAT_VERSION or zero:
        raise CorruptionError(f"shard {name}: format version {version}, this program knows {FORMAT_VERSION}")
    if named != root:
        raise CorruptionError(f"shard {name}: the file holds shard {named.hex()}")
    if not 1 <= size_bytes < 2**63:
        raise CorruptionError(f"shard {name}: a size of {size_bytes} bytes cannot be")
    return Layout.of(size_bytes)


def leaves_lead_to(root: ShardRoot, size_bytes: int, leaves: bytes) -> bool:
    """Whether `leaves` is the leaf list of `root`."""
    try:
        return shard_root(size_bytes, split_leaves(leaves)) == root
    except ValueError:
        return False


def require_leaves(root: ShardRoot, size_bytes: int, leaves: bytes) -> None:
    """Raise `MisbehaviourError` (HASH_MISMATCH) when a sender's leaf list does not lead to `root`."""
    if not leaves_lead_to(root, size_bytes, leaves):
        raise MisbehaviourError(ReasonCode.HASH_MISMATCH, f"the leaf list does not lead to {root.hex()}")


def whole_units(first_unit: int, size_bytes: int, length: int) -> int:
    """How many units `length` bytes from `first_unit` on are.

    Raises `BugError` when they go past the end of the shard, or end inside a unit.
    """
    left = max(0, size_bytes - first_unit * UNIT_BYTES)
    if length > left or (length % UNIT_BYTES and length != left):
        raise BugError(f"{length} bytes are no whole units of the {left} that are left of the shard")
    return -(-length // UNIT_BYTES)


def pack_record(root: ShardRoot, contract: bytes) -> bytes:
    """One log record, without the zeros behind it. Raises `BugError` when `contract` is empty or too long."""
    if not 1 <= len(contract) <= MAX_CONTRACT_BYTES:
        raise BugError(f"a contract record holds 1 to {MAX_CONTRACT_BYTES} bytes, not {len(contract)}")
    return _RECORD.pack(_RECORD_MAGIC, len(contract), _record_check(root, contract)) + contract


def pack_log(root: ShardRoot, contract: bytes, slot_at: int) -> bytes:
    """A record for the place `slot_at` in the log, with zeros up to the end of its last block."""
    record = pack_record(root, contract)
    return record.ljust(round_up(slot_at + len(record), BLOCK_BYTES) - slot_at, b"\0")


@dataclass(frozen=True, slots=True)
class LogView:
    """What a contract log says: the newest contract (empty: none is readable) and where the next record goes."""

    contract: bytes
    next_slot_at: int


def read_log(root: ShardRoot, log: bytes) -> LogView:
    """Find the last valid record; damaged and torn ones are passed over slot by slot."""
    newest, end, at = b"", 0, 0
    while at + _RECORD.size <= len(log):
        contract = _record_at(root, log, at)
        if contract is None:
            at += SLOT_BYTES
        else:
            newest = contract
            end = at = round_up(at + _RECORD.size + len(contract), SLOT_BYTES)
    return LogView(newest, end)


def _record_check(root: ShardRoot, contract: Buffer) -> bytes:
    payload = bytes(contract)
    return tagged_hash(Tag.CONTRACT_RECORD, root + len(payload).to_bytes(4, "big") + payload)


def _record_at(root: ShardRoot, log: bytes, at: int) -> bytes | None:
    magic, length, check = _RECORD.unpack_from(log, at)
    if magic != _RECORD_MAGIC or not 1 <= length <= MAX_CONTRACT_BYTES:
        return None
    begin = at + _RECORD.size
    contract = log[begin : begin + length]
    if len(contract) != length or _record_check(root, contract) != check:
        return None
    return contract


def root_from_name(name: str, suffix: str) -> ShardRoot | None:
    """The root that a file's name says, or None when it is no name of ours."""
    stem = name.removesuffix(suffix)
    if stem == name or len(stem) != 2 * ROOT_BYTES or not set(stem) <= _HEX:
        return None
    return ShardRoot(bytes.fromhex(stem))


_HEX = frozenset("0123456789abcdef")
