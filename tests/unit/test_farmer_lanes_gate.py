from __future__ import annotations

import asyncio

import pytest

from stook.errors import ReasonCode, RefusedError
from stook.farmer.gate import ShardGate
from stook.farmer.lanes import Lanes
from stook.farmer.readback import Block, blocks_of
from stook.farmer.settings import TransferLimits
from stook.ids import ShardRoot

ROOT = ShardRoot(bytes(32))
UNIT = 16 * 1024


def test_lanes_are_bounded_reused_and_given_in_order() -> None:
    async def scene() -> list[str]:
        lanes = Lanes(TransferLimits(max_transfers=2, max_waiting=2, block_bytes=UNIT))
        said: list[str] = []
        gates = {name: asyncio.Event() for name in "abcd"}
        buffers = set()

        async def transfer(name: str) -> None:
            async with lanes.lane() as lane:
                buffers.add(id(lane[0].obj))
                said.append(name)
                await gates[name].wait()

        tasks = [asyncio.create_task(transfer(name)) for name in "abcd"]
        await asyncio.sleep(0)
        assert said == ["a", "b"]
        assert (lanes.running, lanes.waiting) == (2, 2)
        with pytest.raises(RefusedError) as refused:
            async with lanes.lane():
                pass
        assert refused.value.code is ReasonCode.BUSY
        assert refused.value.retry_after_ms > 0
        for event in gates.values():
            event.set()
        await asyncio.gather(*tasks)
        assert len(buffers) == 2
        assert (lanes.running, lanes.waiting) == (0, 0)
        return said

    assert asyncio.run(scene()) == ["a", "b", "c", "d"]


def test_peers_take_turns_and_a_crowd_makes_room() -> None:
    async def scene() -> tuple[list[str], list[str]]:
        lanes = Lanes(TransferLimits(max_transfers=2, max_waiting=3, block_bytes=UNIT))
        said: list[str] = []
        refused: list[str] = []
        gates: dict[str, asyncio.Event] = {}

        async def transfer(name: str) -> None:
            gates[name] = asyncio.Event()
            try:
                async with lanes.lane(name[0].encode()):
                    said.append(name)
                    await gates[name].wait()
            except RefusedError:
                refused.append(name)

        async with asyncio.TaskGroup() as group:
            for name in ("a1", "a2", "a3", "a4", "a5", "a6", "b1", "c1"):
                group.create_task(transfer(name))
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            # The line holds three: a6 found it full of its own; b1 pushed a5 out, c1 pushed a4 out.
            assert refused == ["a6", "a5", "a4"]
            for name in ("a1", "b1", "a2", "c1", "a3"):
                gates[name].set()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        assert (lanes.running, lanes.waiting) == (0, 0)
        return said, refused

    said, _ = asyncio.run(scene())
    assert said == ["a1", "a2", "b1", "c1", "a3"]


def test_who_leaves_the_line_takes_no_lane_with_them() -> None:
    async def scene() -> None:
        lanes = Lanes(TransferLimits(max_transfers=1, max_waiting=4, block_bytes=UNIT))

        async def transfer() -> None:
            async with lanes.lane():
                pass

        async with lanes.lane():
            waiting = [asyncio.create_task(transfer()) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            await asyncio.sleep(0)
            assert lanes.waiting == 2
        # Now the lane is handed to the second in line, who is cancelled in the very same moment.
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert (lanes.running, lanes.waiting) == (0, 0)
        async with lanes.lane():
            assert lanes.running == 1

    asyncio.run(scene())


def test_the_gate_lets_one_in_at_a_time_and_forgets_who_left() -> None:
    async def scene() -> None:
        gate = ShardGate()
        inside = 0

        async def visit() -> None:
            nonlocal inside
            async with gate.hold(ROOT, deadline_seconds=10):
                inside += 1
                assert inside == 1
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(visit() for _ in range(5)))
        assert not gate.busy(ROOT)

    asyncio.run(scene())


def test_a_newer_request_pushes_the_running_one_aside() -> None:
    async def scene() -> list[str]:
        gate, said = ShardGate(), []

        async def first() -> None:
            async with gate.hold(ROOT, deadline_seconds=1000):
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0)
                    said.append("cleaned up")

        async def second() -> None:
            async with gate.hold(ROOT, deadline_seconds=1000, supersede=True):
                said.append("in")

        old = asyncio.create_task(first())
        await asyncio.sleep(0)
        await second()
        with pytest.raises(RefusedError) as refused:
            await old
        assert refused.value.code is ReasonCode.CANCELLED
        assert not gate.busy(ROOT)
        return said

    assert asyncio.run(scene()) == ["cleaned up", "in"]


def test_the_gate_has_a_deadline() -> None:
    async def scene() -> None:
        with pytest.raises(RefusedError) as refused:
            async with ShardGate().hold(ROOT, deadline_seconds=0.001):
                await asyncio.Event().wait()
        assert refused.value.code is ReasonCode.TOO_SLOW

    asyncio.run(scene())


def test_blocks_cover_the_missing_units_and_nothing_else() -> None:
    assert list(blocks_of(0, UNIT, 4 * UNIT)) == [Block(0, UNIT)]
    assert list(blocks_of(1, 6 * UNIT, 2 * UNIT)) == [Block(1, 2 * UNIT), Block(3, 2 * UNIT), Block(5, UNIT)]
    assert list(blocks_of(2, 2 * UNIT, UNIT)) == []
