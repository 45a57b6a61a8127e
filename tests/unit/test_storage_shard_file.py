"""The shard file's bytes: where parts lie, which header is refused, which record wins."""

import itertools

import pytest

from stook.errors import BugError, CorruptionError
from stook.hashing import Tag, tagged_hash
from stook.ids import ShardRoot
from stook.merkle import UNIT_BYTES
from stook.storage.shard_file import (
    BLOCK_BYTES,
    HEADER_BYTES,
    SLOT_BYTES,
    Layout,
    LogView,
    leaves_lead_to,
    pack_header,
    pack_log,
    pack_record,
    parse_header,
    read_log,
    root_from_name,
    whole_units,
)
from storage_samples import sample

ROOT = sample().root
OTHER = sample(seed=1).root


def log_of(*contracts):
    log = b""
    for contract in contracts:
        log = log[: read_log(ROOT, log).next_slot_at]
        log += pack_log(ROOT, contract, len(log))
    return log


@pytest.mark.parametrize("size", [1, 4096, UNIT_BYTES, UNIT_BYTES + 1, 124 * UNIT_BYTES, 126 * UNIT_BYTES, 1 << 22])
def test_parts_follow_one_another_on_block_boundaries(size):
    layout = Layout.of(size)
    assert layout.units == -(-size // UNIT_BYTES)
    assert layout.leaf_bytes == 32 * layout.units
    assert 0 <= layout.data - (HEADER_BYTES + layout.leaf_bytes) < BLOCK_BYTES
    assert 0 <= layout.log - (layout.data + size) < BLOCK_BYTES
    assert layout.data % BLOCK_BYTES == layout.log % BLOCK_BYTES == layout.file_bytes % BLOCK_BYTES == 0
    assert layout.unit_at(layout.units - 1) < layout.log


def test_a_header_says_the_size_back():
    header = pack_header(ROOT, 12345)
    assert len(header) == HEADER_BYTES
    assert parse_header(header, ROOT) == Layout.of(12345)


@pytest.mark.parametrize("at", range(HEADER_BYTES))
def test_every_damaged_byte_of_a_header_is_noticed(at):
    header = bytearray(pack_header(ROOT, 12345))
    header[at] ^= 0x10
    with pytest.raises(CorruptionError):
        parse_header(bytes(header), ROOT)


def test_headers_of_other_shards_sizes_and_lengths_are_refused():
    with pytest.raises(CorruptionError, match="holds shard"):
        parse_header(pack_header(ROOT, 12345), OTHER)
    for size in (0, 2**63):
        with pytest.raises(CorruptionError, match="cannot be"):
            parse_header(pack_header(ROOT, size), ROOT)
    for length in (0, 7, 63):
        with pytest.raises(CorruptionError):
            parse_header(pack_header(ROOT, 1)[:length], ROOT)


def test_another_version_is_named():
    body = bytearray(pack_header(ROOT, 1)[:56])
    body[11] = 2
    with pytest.raises(CorruptionError, match="version 2"):
        parse_header(bytes(body) + tagged_hash(Tag.SHARD_FILE, body)[:8], ROOT)


def test_leaves_are_judged_with_the_size():
    shard = sample()
    assert leaves_lead_to(shard.root, shard.size, shard.leaves)
    assert not leaves_lead_to(shard.root, shard.size - 1, shard.leaves)
    assert not leaves_lead_to(shard.root, shard.size, shard.leaves[:-1])
    assert not leaves_lead_to(OTHER, shard.size, shard.leaves)


def test_the_last_record_wins_and_the_next_goes_behind_it():
    assert read_log(ROOT, b"") == LogView(b"", 0)
    assert read_log(ROOT, bytes(4096)) == LogView(b"", 0)
    assert read_log(ROOT, log_of(b"a")) == LogView(b"a", 512)
    assert read_log(ROOT, log_of(b"a", b"b" * 473)) == LogView(b"b" * 473, 512 + 1024)
    assert read_log(ROOT, log_of(*[b"%d" % number for number in range(20)])).contract == b"19"
    assert len(log_of(b"a")) == 4096
    assert len(log_of(*[b"x" * 2048] * 2)) == 8192


def test_a_record_of_another_shard_is_none():
    assert read_log(OTHER, log_of(b"a")) == LogView(b"", 0)


def test_records_have_bounds():
    for wrong in (b"", bytes(2049)):
        with pytest.raises(BugError):
            pack_record(ROOT, wrong)
    assert read_log(ROOT, log_of(bytes(2048))).contract == bytes(2048)


@pytest.mark.parametrize("length", [1, 400, 472, 473, 1200, 2048])
def test_a_record_torn_anywhere_leaves_the_one_before(length):
    before, new = log_of(b"old"), log_of(b"old", b"n" * length)
    end = 512 + 40 + length
    for cut in sorted({513, 516, 520, 551, 552, 512 + 512, end - 1, (512 + end) // 2}):
        if cut >= end:
            continue
        torn = new[:cut]
        assert read_log(ROOT, torn) == LogView(b"old", 512)
        assert read_log(ROOT, torn + bytes(4096 - cut % 4096)) == LogView(b"old", 512)
        assert read_log(ROOT, torn + before[cut:]) == LogView(b"old", 512)
    assert read_log(ROOT, new[:end]).contract == b"n" * length


def test_sectors_written_out_of_order_leave_one_of_the_two():
    before = log_of(b"old").ljust(4096, b"\0")
    new = log_of(b"old", b"n" * 2048)
    sectors = range(1, 1 + -(-2088 // SLOT_BYTES))
    for count in range(len(sectors) + 1):
        for written in itertools.combinations(sectors, count):
            mixed = bytearray(before)
            for sector in written:
                mixed[sector * SLOT_BYTES : (sector + 1) * SLOT_BYTES] = new[
                    sector * SLOT_BYTES : (sector + 1) * SLOT_BYTES
                ]
            expected = b"n" * 2048 if count == len(sectors) else b"old"
            assert read_log(ROOT, bytes(mixed)).contract == expected


def test_damage_inside_the_log_does_not_hide_what_follows():
    log = bytearray(log_of(b"a" * 600, b"b" * 600, b"c" * 600))
    for at in (0, 5, 41, 600, 1024, 1030, 1500):
        damaged = bytearray(log)
        damaged[at] ^= 0xFF
        assert read_log(ROOT, bytes(damaged)) == read_log(ROOT, bytes(log))
    log[2048 + 300] ^= 1
    assert read_log(ROOT, bytes(log)) == LogView(b"b" * 600, 2048)


def test_a_record_inside_a_contract_is_not_one():
    inner = pack_record(ROOT, b"forged")
    outer = bytearray(2000)
    outer[512 - 40 : 512 - 40 + len(inner)] = inner
    assert read_log(ROOT, log_of(bytes(outer))).contract == bytes(outer)


def test_names():
    assert root_from_name(ROOT.hex() + ".shard", ".shard") == ROOT
    for name in ("", ".shard", ROOT.hex(), ROOT.hex() + ".part", ROOT.hex().upper() + ".shard", "z" * 64 + ".shard"):
        assert root_from_name(name, ".shard") is None
    assert isinstance(root_from_name("0" * 64 + ".part", ".part"), bytes)
    assert ShardRoot(bytes(32)) == root_from_name("0" * 64 + ".part", ".part")


def test_whole_units_only():
    size = 2 * UNIT_BYTES + 5
    assert whole_units(0, size, 0) == 0
    assert whole_units(0, size, UNIT_BYTES) == 1
    assert whole_units(0, size, size) == 3
    assert whole_units(2, size, 5) == 1
    assert whole_units(3, size, 0) == 0
    for first, length in ((0, 5), (2, 4), (2, 6), (3, 1), (0, size + 1)):
        with pytest.raises(BugError):
            whole_units(first, size, length)
