"""The memory of transfers in flight: never above its budget, never stuck, never lost."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stook.renter.slots import Slot, SlotPool
from stook.shards.arena import Scratch
from stook.shards.geometry import LADDER, SegmentShape, largest_shape

SMALL = SegmentShape(2, 3, LADDER[0])
LARGE = SegmentShape(2, 3, LADDER[3])


def cost(shape: SegmentShape) -> int:
    return shape.coded_bytes + shape.capacity


def memory(slot: Slot) -> set[object]:
    return set(slot.buffers.values())


def test_memory_is_used_again():
    async def main() -> None:
        pool = SlotPool(cost(LARGE))
        async with pool.leased(LARGE) as slot:
            first = memory(slot)
        async with pool.leased(LARGE) as slot:
            assert memory(slot) == first
        async with pool.leased(SegmentShape(2, 3, LADDER[2])) as slot:
            assert memory(slot) <= first

    asyncio.run(main())


def test_a_slot_has_room_for_what_it_was_leased_for():
    async def main() -> None:
        pool = SlotPool(cost(LARGE))
        async with pool.leased(LARGE) as slot:
            laid = slot.arena(Scratch()).lay(LARGE)
            assert len(slot.plain) == LARGE.capacity
            assert [len(row) for row in laid.rows] == [LARGE.shard_bytes] * 3
            assert [len(row) for row in slot.rows(9)] == [9] * 3
            with pytest.raises(ValueError):
                slot.arena(Scratch()).lay(SegmentShape(2, 4, LADDER[0]))
            with pytest.raises(ValueError):
                slot.arena(Scratch()).lay(SegmentShape(2, 3, LADDER[4]))
        async with pool.leased(LARGE, 0) as slot:
            assert not len(slot.plain)

    asyncio.run(main())


def test_what_comes_back_in_parts_is_there_for_the_next():
    async def main() -> None:
        pool = SlotPool(cost(LARGE) + LARGE.coded_bytes)
        first = await pool.lease(LARGE)
        second = asyncio.create_task(pool.lease(LARGE))
        await asyncio.sleep(0)
        assert not second.done()
        pool.give_back_plain(first)
        got = await second
        third = asyncio.create_task(pool.lease(LARGE))
        pool.give_back_plain(got)
        pool.give_back_shards(first, [2, 0])
        pool.give_back_shards(first, [0])
        await asyncio.sleep(0)
        assert not third.done()
        pool.give_back_shards(first)
        pool.give_back(await third)
        assert pool.held_bytes == pool.budget_bytes
        for slot in (first, got):
            pool.give_back(slot)
        async with asyncio.timeout(1), pool.leased(LARGE) as one, pool.leased(LARGE, 0) as other:
            assert not memory(one) & memory(other)

    asyncio.run(main())


def test_a_much_too_large_buffer_is_not_wasted_on_a_small_need():
    async def main() -> None:
        large = SegmentShape(2, 3, LADDER[5])
        pool = SlotPool(cost(large))
        async with pool.leased(large) as slot:
            first = memory(slot)
        async with pool.leased(SMALL) as slot:
            assert not memory(slot) & first
        assert cost(SMALL) < pool.held_bytes <= pool.budget_bytes

    asyncio.run(main())


def test_who_waits_first_is_served_first_though_a_later_need_would_fit():
    async def main() -> None:
        pool = SlotPool(cost(LARGE) + cost(SMALL))
        held = await pool.lease(LARGE)
        order: list[str] = []

        async def take(name: str, shape: SegmentShape) -> None:
            async with pool.leased(shape):
                order.append(name)

        tasks = [asyncio.create_task(take("large", LARGE)), asyncio.create_task(take("small", SMALL))]
        await asyncio.sleep(0)
        pool.give_back(held)
        await asyncio.gather(*tasks)
        assert order == ["large", "small"]

    asyncio.run(main())


def test_a_need_above_the_budget_is_served_when_it_is_alone():
    async def main() -> None:
        pool = SlotPool(1)
        first = await pool.lease(SMALL)
        second = asyncio.create_task(pool.lease(SMALL))
        await asyncio.sleep(0)
        assert not second.done()
        pool.give_back(first)
        pool.give_back(await second)

    asyncio.run(main())


def test_a_cancelled_wait_takes_nothing_and_holds_nobody_up():
    async def main() -> None:
        pool = SlotPool(cost(SMALL))
        held = await pool.lease(SMALL)
        gone, patient = asyncio.create_task(pool.lease(SMALL)), asyncio.create_task(pool.lease(SMALL))
        await asyncio.sleep(0)
        gone.cancel()
        pool.give_back(held)
        pool.give_back(await patient)
        assert gone.cancelled()

    asyncio.run(main())


def test_a_slot_given_to_someone_who_is_cancelled_at_that_moment_comes_back():
    async def main() -> None:
        pool = SlotPool(cost(SMALL))
        held = await pool.lease(SMALL)
        unlucky = asyncio.create_task(pool.lease(SMALL))
        await asyncio.sleep(0)
        pool.give_back(held)  # its turn has come, but it has not run since
        unlucky.cancel()
        await asyncio.gather(unlucky, return_exceptions=True)
        async with asyncio.timeout(1), pool.leased(SMALL):
            pass

    asyncio.run(main())


@pytest.mark.parametrize("holders", [1, 2, 3])
def test_when_everybody_holds_a_slot_and_waits_for_another_one_lets_go(holders: int):
    async def main() -> None:
        pool = SlotPool(holders * cost(SMALL))
        asked = 0

        async def greedy() -> None:
            nonlocal asked
            first = await pool.lease(SMALL)
            await asyncio.sleep(0)

            def let_go() -> None:
                nonlocal asked
                asked += 1
                asyncio.get_running_loop().call_soon(pool.give_back, first)

            before = asked
            second = await pool.lease(SMALL, let_go=let_go)
            pool.give_back(second)
            if asked == before:
                pool.give_back(first)

        async with asyncio.timeout(5):
            await asyncio.gather(*(greedy() for _ in range(holders)))
        assert asked >= 1

    asyncio.run(main())


@dataclass
class Worker:
    shape: SegmentShape
    hold: int
    cancel_after: int | None
    slots: list[Slot] = field(default_factory=list)


workers = st.builds(
    Worker,
    st.sampled_from([SMALL, LARGE, SegmentShape(1, 1, LADDER[1]), largest_shape(1, 200)]),
    st.integers(0, 4),
    st.none() | st.integers(0, 4),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(workers, min_size=1, max_size=12), st.integers(0, 6))
def test_all_together_stay_within_the_budget(crowd: list[Worker], room: int):
    async def main() -> None:
        largest = max(cost(worker.shape) for worker in crowd)
        budget = largest + room * cost(SMALL)
        pool, out = SlotPool(budget), set()

        async def work(worker: Worker) -> None:
            async with pool.leased(worker.shape) as slot:
                assert slot not in out
                assert len(slot.plain) >= worker.shape.capacity
                slot.arena(Scratch()).lay(worker.shape)
                out.add(slot)
                try:
                    assert pool.held_bytes <= budget
                    for _ in range(worker.hold):
                        await asyncio.sleep(0)
                finally:
                    out.discard(slot)

        async def stop(task: asyncio.Task[None], turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()

        async with asyncio.timeout(10):
            tasks = [asyncio.create_task(work(worker)) for worker in crowd]
            stops = [
                asyncio.create_task(stop(task, worker.cancel_after))
                for task, worker in zip(tasks, crowd, strict=True)
                if worker.cancel_after is not None
            ]
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.gather(*stops)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
        async with asyncio.timeout(1):  # nothing was lost: the whole budget can be had again
            for worker in crowd:
                async with pool.leased(worker.shape):
                    assert pool.held_bytes <= budget

    asyncio.run(main())
