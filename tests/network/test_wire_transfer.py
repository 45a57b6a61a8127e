"""Shards over an exchange: verified as they come, resumed where they broke off."""

import asyncio

import pytest

from stook.errors import BugError, ReasonCode, RefusedError
from stook.merkle import UNIT_BYTES, leaves_of, shard_root, unit_count
from stook.wire.endpoint import Limits
from stook.wire.transfer import push_shard, receive_leaves, receive_units
from wire_samples import Dice, Wind, World, run_virtual

SHARD = Dice(7)(20 * UNIT_BYTES + 777)
LEAVES = leaves_of(memoryview(SHARD))
BLOB = b"".join(LEAVES)
ROOT = shard_root(len(SHARD), LEAVES)


async def inline(work):
    return work()


class Farmer:
    """Receives the shard into a few small blocks, from the first unit it does not have."""

    def __init__(self, first_unit=0, block_units=4, blocks=2):
        self.held = bytearray(SHARD[: first_unit * UNIT_BYTES])
        self.first_unit = first_unit
        self.blocks = [memoryview(bytearray(block_units * UNIT_BYTES)) for _ in range(blocks)]
        self.seen = []

    def keep(self, block, unit):
        assert len(self.held) == unit * UNIT_BYTES
        self.held += block
        self.seen.append(unit)

    async def serve(self, exchange, payload):
        await exchange.reply(b"%d" % self.first_unit)
        leaves = await receive_leaves(exchange, ROOT, len(SHARD))
        await receive_units(
            exchange,
            leaves=leaves,
            first_unit=self.first_unit,
            size_bytes=len(SHARD) - self.first_unit * UNIT_BYTES,
            blocks=self.blocks,
            offload=inline,
            on_block=self.keep,
        )
        await exchange.expect_end()
        await exchange.reply(b"receipt")


def consign(farmer, shard=SHARD, leaves=BLOB, weather=None, limits=Limits()):  # noqa: B008 - a frozen value
    """Push a shard to `farmer` and return the last reply."""

    async def main():
        world = World(weather or Wind(delay_seconds=0.01, bytes_per_second=5e6))
        caller, callee, to = await world.pair(limits=limits)
        callee.handle("CONSIGN", farmer.serve)
        try:
            async with caller.exchange(to, "CONSIGN", b"", deadline_seconds=100) as exchange:
                first_unit = int(await exchange.next_reply())
                await push_shard(exchange, leaves, memoryview(shard), first_unit)
                return await exchange.next_reply()
        finally:
            await world.close()
            assert world.errors == []

    return run_virtual(main())


@pytest.mark.parametrize(
    ("first_unit", "block_units", "blocks"), [(0, 4, 2), (0, 64, 1), (7, 3, 2), (20, 1, 1), (5, 1, 8)]
)
def test_a_shard_arrives_whole_or_from_where_it_broke_off(first_unit, block_units, blocks):
    farmer = Farmer(first_unit, block_units, blocks)
    assert consign(farmer) == b"receipt"
    assert farmer.held == SHARD
    assert farmer.seen[0] == first_unit


@pytest.mark.parametrize("cap", ["upload_bytes_per_second", "download_bytes_per_second"])
def test_bandwidth_caps_do_not_disturb_the_order(cap):
    farmer = Farmer(0, 4, 2)
    assert consign(farmer, limits=Limits(**{cap: 300_000})) == b"receipt"
    assert farmer.held == SHARD


def test_a_leaf_list_that_leads_elsewhere():
    farmer = Farmer()
    with pytest.raises(RefusedError) as caught:
        consign(farmer, leaves=b"\0" * 32 + BLOB[32:])
    assert caught.value.code is ReasonCode.HASH_MISMATCH
    assert farmer.seen == []


def test_a_damaged_unit_stops_at_its_block():
    damaged = bytearray(SHARD)
    damaged[9 * UNIT_BYTES + 5] ^= 1
    farmer = Farmer(0, 4, 2)
    with pytest.raises(RefusedError) as caught:
        consign(farmer, shard=damaged)
    assert caught.value.code is ReasonCode.HASH_MISMATCH
    assert "unit 9" in str(caught.value)
    assert farmer.held == SHARD[: 8 * UNIT_BYTES]


def test_too_few_and_too_many_bytes():
    for shard, code in ((SHARD[:-1], ReasonCode.TRUNCATED), (SHARD + b"x", ReasonCode.TOO_LARGE)):
        with pytest.raises(RefusedError) as caught:
            consign(Farmer(), shard=shard)
        assert caught.value.code is code


def test_hashing_and_receiving_overlap():
    """With two blocks the second fills while the first is worked on: most of the work costs no time of its own."""

    def seconds(blocks):
        async def slow(work):
            await asyncio.sleep(0.12)
            return work()

        async def main():
            world = World(Wind(bytes_per_second=1e6))
            caller, callee, to = await world.pair()

            async def give(exchange, payload):
                await exchange.reply(b"")
                await exchange.send(SHARD)

            callee.handle("GIVE", give)
            begun = asyncio.get_running_loop().time()
            async with caller.exchange(to, "GIVE", b"", deadline_seconds=100) as exchange:
                await receive_units(
                    exchange,
                    leaves=BLOB,
                    first_unit=0,
                    size_bytes=len(SHARD),
                    blocks=[memoryview(bytearray(8 * UNIT_BYTES)) for _ in range(blocks)],
                    offload=slow,
                )
            taken = asyncio.get_running_loop().time() - begun
            await world.close()
            return taken

        return run_virtual(main())

    assert seconds(3) < seconds(1)


def test_a_failed_transfer_gives_its_buffers_back():
    """Nothing lands in a block after `receive_units` has raised."""
    block = memoryview(bytearray(len(SHARD) // UNIT_BYTES * UNIT_BYTES + UNIT_BYTES))

    async def main():
        world = World(Wind(bytes_per_second=1e5))
        caller, callee, to = await world.pair()

        async def give(exchange, payload):
            await exchange.reply(b"")
            await exchange.send(SHARD)

        callee.handle("GIVE", give)
        with pytest.raises(TimeoutError):
            await impatient(caller, to)
        kept = bytes(block)
        await asyncio.sleep(20)
        assert bytes(block) == kept
        assert await caller.ping(to, deadline_seconds=5) < 5
        await world.close()

    async def impatient(caller, to):
        async with caller.exchange(to, "GIVE", b"", deadline_seconds=100) as exchange:
            async with asyncio.timeout(1.5):
                await receive_units(
                    exchange, leaves=BLOB, first_unit=0, size_bytes=len(SHARD), blocks=[block], offload=inline
                )

    run_virtual(main())
    assert any(block)


def test_blocks_are_whole_units():
    async def main(blocks):
        with pytest.raises(BugError):
            await receive_units(None, leaves=BLOB, first_unit=0, size_bytes=1, blocks=blocks, offload=inline)

    run_virtual(main([]))
    run_virtual(main([memoryview(bytearray(UNIT_BYTES + 1))]))
    assert unit_count(len(SHARD)) == 21
