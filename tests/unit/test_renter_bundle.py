"""Small objects side by side in one segment."""

import asyncio

import pytest

from stook.renter.bundle import Bundle
from stook.renter.slots import Slot, SlotPool
from stook.shards.geometry import LADDER, SegmentShape

SHAPE = SegmentShape(2, 3, LADDER[1])


def bundle() -> Bundle[str]:
    return Bundle(slot_of(SHAPE.capacity), SHAPE)


def slot_of(plain_bytes: int) -> Slot:
    return asyncio.run(SlotPool().lease(SHAPE, plain_bytes))


def filler(byte: int, most: int = 1 << 30):
    def fill(room: memoryview) -> int:
        size = min(len(room), most)
        room[:size] = bytes([byte]) * size
        return size

    return fill


def test_members_lie_side_by_side():
    shared = bundle()
    assert shared.add("a", 3, filler(1)) == 3
    assert shared.add("b", 5, filler(2)) == 5
    assert shared.members == [("a", 0, 3), ("b", 3, 5)]
    assert bytes(shared.slot.plain[:8]) == b"\1\1\1\2\2\2\2\2"


def test_what_ends_early_takes_only_what_it_gave():
    shared = bundle()
    assert shared.add("short", 10, filler(1, most=4)) == 4
    assert shared.add("nothing", 10, filler(2, most=0)) == 0
    assert shared.add("next", 2, filler(3)) == 2
    assert shared.members == [("short", 0, 4), ("next", 4, 2)]


def test_a_reader_that_fails_adds_nothing():
    shared = bundle()

    def fill(room: memoryview) -> int:
        room[:2] = b"xx"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        shared.add("a", 10, fill)
    assert (shared.used_bytes, shared.members) == (0, [])


def test_room_ends_at_the_capacity_and_not_at_the_buffer():
    shared = bundle()
    shared.slot = slot_of(2 * SHAPE.capacity)
    assert shared.room_for(SHAPE.capacity)
    assert not shared.room_for(SHAPE.capacity + 1)
    shared.add("a", 1, filler(1))
    assert shared.room_for(SHAPE.capacity - 1)
    assert not shared.room_for(SHAPE.capacity)


@pytest.mark.parametrize(("used", "step"), [(1, 0), (2 * LADDER[0], 0), (2 * LADDER[0] + 1, 1), (SHAPE.capacity, 1)])
def test_it_is_sealed_in_the_smallest_shape_that_holds_it(used: int, step: int):
    shared = bundle()
    shared.add("a", used, filler(1))
    assert shared.final_shape() == SegmentShape(2, 3, LADDER[step])
