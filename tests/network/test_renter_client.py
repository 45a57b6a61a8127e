"""The client's promises, one by one, on a simulated network: what goes in comes out, once, whole or not at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renter_sources import Broken, Stream, Told, Watch, item, item_of
from sim_objects import BUCKET, assert_all_there, put_all
from stook.contracts.messages import Method
from stook.errors import ConflictError, EnvironmentFault, NotEnoughError, NotFoundError, StookError, UserError
from stook.ids import SegmentId
from stook.merkle import UNIT_BYTES
from stook.renter.files import BytesSink
from stook.renter.pace import Patience
from stook.renter.ports import Item
from stook.renter.slots import SlotPool, segment_bytes
from stook.shards.geometry import SMALL_OBJECT_BYTES, Policy, largest_shape
from stook.shards.pointer import SegmentRecord
from stook.sim.adversaries import RefusesAfterAccepting, ServesOtherBytes, Slow, Stalls
from stook.sim.loop import InlineOffload, run
from stook.sim.network import Rate
from stook.sim.testnet import Testnet
from stook.storage.renter_ports import ObjectEntry, SegmentEntry, VersionConflictError

POLICY = Policy(k=2, r=3, o=4, n=5)
CAPACITY = largest_shape(2, 6, segment_bytes(80 << 20)).capacity
SLOW_WORK = 0.002


def net_of(seed: int = 1, farmers: int = 7, **rest: object) -> Testnet:
    return Testnet(farmers=farmers, seed=seed, policy=POLICY, **rest)  # type: ignore[arg-type]


async def put(net: Testnet, *wanted: Item, again: bool = False, watch: Watch | None = None):
    client = net.renter.client
    if BUCKET not in {bucket.name for bucket in await client.buckets()}:
        await client.make_bucket(BUCKET)
    return await client.put_many(BUCKET, wanted, again=again, on_progress=watch)


def pool_of(net: Testnet) -> SlotPool:
    return net.renter.client._mill._slots


def assert_nothing_runs(net: Testnet) -> None:
    """No push is left, and every slot came back."""
    assert not net.renter.client._mill._pushes
    assert pool_of(net)._leased == 0
    assert not pool_of(net)._waiting


def segments_in_catalog(net: Testnet) -> dict[SegmentId, SegmentEntry]:
    return dict(net.renter.catalog._segments)


def record(net: Testnet, entry: SegmentEntry) -> SegmentRecord:
    return net.renter.client._vault.open_segment(entry)


def sent_bytes(net: Testnet) -> int:
    return net.network.traffic.bytes_between("renter")


def got_bytes(net: Testnet) -> int:
    return net.network.traffic.bytes_between(None, "renter")


# --- sizes -----------------------------------------------------------------------------------------------------------

SIZES = [
    0,
    1,
    UNIT_BYTES - 1,
    UNIT_BYTES,
    UNIT_BYTES + 1,
    SMALL_OBJECT_BYTES - 1,
    SMALL_OBJECT_BYTES,
    SMALL_OBJECT_BYTES + 1,
    CAPACITY - 1,
    CAPACITY,
    CAPACITY + 1,
    2 * CAPACITY + 300_001,
]


@pytest.mark.parametrize("size", SIZES)
def test_what_goes_in_comes_out_with_or_without_a_known_size(size: int):
    async def main() -> None:
        async with net_of() as net:
            data, watch = net.dice(size), Watch()
            stored = await put(net, item("known", data), watch=watch)
            assert (stored.stored, stored.unchanged, stored.size_bytes) == (1, 0, size)
            assert watch.last is None or watch.last.bytes_durable == size
            for name, sip in (("stream", 1 << 30), ("sips", max(1, size // 7))):
                source = Stream(data, sip=sip)
                await put(net, item_of(name, source))
                assert source.closed == 1
            hashes = set()
            for name in ("known", "stream", "sips"):
                assert await net.renter.client.read(BUCKET, name) == data
                ordered = Told()
                await net.renter.client.stream(BUCKET, name, ordered)
                assert bytes(ordered.data) == data
                stat = await net.renter.client.stat(BUCKET, name)
                assert stat.size_bytes == size
                hashes.add(stat.content_hash)
            assert len(hashes) == 1, "the same bytes have one content hash, however they came"
            await net.renter.client.settle()
            assert_nothing_runs(net)

    run(main(), within_seconds=600)


@pytest.mark.parametrize("truth", [0, 1, 400_000, CAPACITY, CAPACITY + 5])
@pytest.mark.parametrize("promised", [500_000, CAPACITY + 700_000])
def test_a_source_that_ends_early_is_stored_as_long_as_it_was(truth: int, promised: int):
    async def main() -> None:
        async with net_of() as net:
            data = net.dice(truth)
            await put(net, item_of("early", Stream(data, promised=promised)), item("beside", b"x" * 1000))
            await assert_all_there(net, {"early": data[:promised], "beside": b"x" * 1000})

    run(main(), within_seconds=600)


def test_codes_so_wide_that_a_segment_holds_less_than_a_small_object():
    policy = Policy(k=1, r=1, o=2, n=3)

    async def main() -> None:
        async with Testnet(farmers=4, seed=1, policy=policy) as net:
            # So little memory has the same effect: no test has the patience for as many farmers.
            net.renter.memory_budget_bytes = 2 << 20
            await net.restart_renter()
            narrow = largest_shape(1, 4, segment_bytes(net.renter.memory_budget_bytes))
            assert narrow.capacity < SMALL_OBJECT_BYTES
            objects = {"a": net.dice(SMALL_OBJECT_BYTES), "b": net.dice(narrow.capacity), "c": net.dice(5)}
            await put_all(net, objects)
            await assert_all_there(net, objects)

    run(main(), within_seconds=600)


# --- ranges ----------------------------------------------------------------------------------------------------------


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 2**32))
def test_ranges_are_those_of_the_bytes(seed: int):
    async def main() -> None:
        async with net_of(seed % 1000) as net:
            objects = {
                "large": net.dice(CAPACITY + 3 * 131_072 + 77),
                "small": net.dice(50_000),
                "tiny": net.dice(3),
                "none": b"",
            }
            await put_all(net, objects)
            client, stripe = net.renter.client, 2 * UNIT_BYTES
            for name, data in objects.items():
                marks = [0, 1, UNIT_BYTES, stripe, CAPACITY, CAPACITY + stripe, len(data)]
                ends = sorted({min(max(mark + by, 0), len(data)) for mark in marks for by in (-1, 0, 1)})
                for _ in range(12):
                    begin, end = sorted((net.dice.whole(0, len(ends) - 1), net.dice.whole(0, len(ends) - 1)))
                    low, high = ends[begin], ends[end]
                    assert await client.read(BUCKET, name, begin=low, end=high) == data[low:high], (name, low, high)
                low = net.dice.whole(0, len(data))
                assert await client.read(BUCKET, name, begin=low) == data[low:]
                with pytest.raises(NotFoundError, match=f"has {len(data)} bytes"):
                    await client.read(BUCKET, name, begin=len(data) + 1)

    run(main(), within_seconds=900)


@pytest.mark.parametrize(
    ("begin", "end", "units"),
    [
        (0, 1, 1),
        (UNIT_BYTES - 1, UNIT_BYTES + 1, 2),
        (UNIT_BYTES, 2 * UNIT_BYTES, 1),
        (2 * UNIT_BYTES - 1, 2 * UNIT_BYTES + 1, 4),
        (40 * UNIT_BYTES, 48 * UNIT_BYTES, 8),
        (7, 7, 0),
    ],
)
def test_only_the_units_of_a_range_travel(begin: int, end: int, units: int):
    async def main() -> None:
        async with net_of() as net:
            data = net.dice(CAPACITY)
            await put_all(net, {"large": data})
            await net.renter.client.settle()
            before, sink, watch = got_bytes(net), BytesSink(), Watch(upload=False)
            await net.renter.client.get(BUCKET, "large", sink, begin=begin, end=end, on_progress=watch)
            assert sink.data == data[begin:end]
            moved = watch.last.shard_bytes_moved if watch.last is not None else 0
            assert moved == units * UNIT_BYTES
            # Beside the units: a leaf list per farmer (32 bytes a unit of its shard), signatures, hellos.
            leaves = 32 * CAPACITY // 2 // UNIT_BYTES
            assert got_bytes(net) - before <= units * UNIT_BYTES + 2 * (leaves + 6_000)

    run(main(), within_seconds=600)


# --- bundles ---------------------------------------------------------------------------------------------------------


def test_three_hundred_small_files_share_a_segment_and_part_in_peace():
    async def main() -> None:
        async with net_of() as net:
            client = net.renter.client
            objects = {f"f/{number:03}": net.dice(net.dice.whole(1, 9_000)) for number in range(300)}
            await put_all(net, objects)
            await client.settle()
            assert len(segments_in_catalog(net)) == 1
            assert net.stored_bytes() < 2 * sum(map(len, objects.values())) * POLICY.n / POLICY.k
            await assert_all_there(net, {name: objects[name] for name in list(objects)[::37]})
            before = net.stored_bytes()
            gone = await client.remove(BUCKET, ["f/000", "never was"])
            assert gone == {"f/000"}
            await net.step_chores("cancel")
            assert net.stored_bytes() == before, "the others still need it"
            with pytest.raises(NotFoundError, match="no things/f/000"):
                await client.read(BUCKET, "f/000")
            del objects["f/000"]
            sinks: dict[str, Told] = {}
            watch = Watch(upload=False)
            count = await client.get_many(
                BUCKET, objects, lambda name: sinks.setdefault(name, Told()), on_progress=watch
            )
            assert count == 299
            assert {name: bytes(sink.data) for name, sink in sinks.items()} == objects
            assert all(sink.calls == ["begin", "write", "commit"] for sink in sinks.values())
            assert watch.last is not None
            assert watch.last.objects_done == 299
            assert watch.last.shards_done == POLICY.k, "the segment was fetched once for all"
            await client.remove(BUCKET, objects)
            await net.step_chores("cancel")
            assert net.stored_bytes() == 0
            assert segments_in_catalog(net) == {}
            assert (await net.renter.agent.status()).shards_to_cancel == 0

    run(main(), within_seconds=600)


def test_one_sink_is_open_at_a_time_in_a_bundle_and_few_of_large_files():
    async def main() -> None:
        async with net_of() as net:
            objects = {f"s/{number:03}": bytes([number % 250]) * 100 for number in range(200)}
            # Each with a tail in a bundle.
            objects |= {f"t/{number}": net.dice(1_200_000) for number in range(4)}
            await put_all(net, objects)
            assert len(segments_in_catalog(net)) > 4
            sinks: dict[str, Told] = {}
            most = 0

            class Counting(Told):
                def begin(self, size_bytes: int) -> None:
                    nonlocal most
                    super().begin(size_bytes)
                    most = max(most, sum(sink.open for sink in sinks.values()))

            await net.renter.client.get_many(BUCKET, objects, lambda name: sinks.setdefault(name, Counting()))
            assert {name: bytes(sink.data) for name, sink in sinks.items()} == objects
            assert most <= 5

    run(main(), within_seconds=600)


def test_names_asked_for_twice_are_fetched_once():
    async def main() -> None:
        async with net_of() as net:
            await put_all(net, {"a": b"1", "b": b"2"})
            asked: Counter[str] = Counter()

            def sink_of(name: str) -> Told:
                asked[name] += 1
                return Told()

            assert await net.renter.client.get_many(BUCKET, ["a", "b", "a"], sink_of) == 2
            assert asked == {"a": 1, "b": 1}
            with pytest.raises(NotFoundError, match="no things/c"):
                await net.renter.client.get_many(BUCKET, ["a", "c"], sink_of)
            assert asked == {"a": 1, "b": 1}, "no sink was made in vain"

    run(main(), within_seconds=600)


# --- again -----------------------------------------------------------------------------------------------------------


def test_an_overwrite_releases_what_was_there():
    async def main() -> None:
        async with net_of() as net:
            client = net.renter.client
            await put_all(net, {"a": net.dice(1_500_000)})
            await client.settle()
            old = set(segments_in_catalog(net))
            first = await client.stat(BUCKET, "a")
            fresh = net.dice(1_500_000)
            await put(net, item("a", fresh, modified_ms=2))
            await client.settle()
            assert not old & set(segments_in_catalog(net))
            assert (await client.stat(BUCKET, "a")).version > first.version
            assert net.stored_bytes() == (await net.renter.agent.status()).stored_bytes
            await assert_all_there(net, {"a": fresh})

    run(main(), within_seconds=600)


def test_what_did_not_change_is_left_alone():
    async def main() -> None:
        async with net_of() as net:
            one, two = item("one", b"1" * 2_000), item("two", b"2" * 3_000)
            await put(net, one, two)
            opened = []

            def spy(of: Item) -> Item:
                def open_it() -> object:
                    opened.append(of.name)
                    return of.open()

                return Item(of.name, open_it, of.size_bytes, of.modified_ms)  # type: ignore[arg-type]

            watch = Watch()
            result = await put(net, spy(one), spy(item("two", b"3" * 3_000, modified_ms=2)), watch=watch)
            assert (result.stored, result.unchanged, opened) == (1, 1, ["two"])
            assert watch.last is not None
            assert (watch.last.objects_done, watch.last.bytes_durable) == (2, 5_000)
            result = await put(net, spy(one), again=True)
            assert result.stored == 1

    run(main(), within_seconds=600)


@pytest.mark.parametrize("size", [0, 2_000, 1_500_000])
def test_a_name_that_comes_twice_in_a_batch_ends_as_the_later_one(size: int):
    async def main() -> None:
        async with net_of() as net:
            first, second = net.dice(size), net.dice(size)
            result = await put(net, item("a", first), item("b", b"b"), item("a", second, modified_ms=2))
            assert result.stored == 3
            await assert_all_there(net, {"a": second, "b": b"b"})
            assert (await net.renter.client.stat(BUCKET, "a")).modified_ms == 2

    run(main(), within_seconds=600)


def test_two_clients_of_one_catalog_may_store_the_same_name_at_once():
    """Small ones meet at the commit only: the second finds a version taken and seals its record anew."""

    async def main() -> None:
        async with net_of() as net:
            client, catalog = net.renter.client, net.renter.catalog
            await client.make_bucket(BUCKET)
            commit, conflicts = catalog.commit, 0

            def rivalled(entries: Sequence[ObjectEntry], *rest: object, **more: object) -> None:
                nonlocal conflicts
                if conflicts < 2:
                    conflicts += 1
                    raise VersionConflictError([(entry.bucket, entry.name) for entry in entries])
                commit(entries, *rest, **more)  # type: ignore[arg-type]

            catalog.commit = rivalled  # type: ignore[method-assign, assignment]
            await put(net, item("a", b"mine"))
            assert conflicts == 2
            assert await client.read(BUCKET, "a") == b"mine"

            conflicts = -10
            with pytest.raises(ConflictError, match="changed meanwhile: things/a"):
                await put(net, item("a", b"other", modified_ms=2))
            assert await client.read(BUCKET, "a") == b"mine"
            await client.collect_garbage()
            assert len(segments_in_catalog(net)) == 1, "what lost was given up"

    run(main(), within_seconds=600)


@pytest.mark.parametrize("size", [3_000, 2_500_000])
def test_two_puts_of_one_name_at_once_leave_one_of_both_whole(size: int):
    async def main() -> None:
        async with net_of(offload=InlineOffload(lambda: SLOW_WORK)) as net:
            client = net.renter.client
            await client.make_bucket(BUCKET)
            versions = [net.dice(size), net.dice(size)]
            await asyncio.gather(*(put(net, item("a", data), again=True) for data in versions))
            assert await client.read(BUCKET, "a") in versions
            await client.settle()
            await client.collect_garbage()
            await net.step_chores("cancel")
            status = await net.renter.agent.status()
            assert net.stored_bytes() == status.stored_bytes
            stat = await client.stat(BUCKET, "a")
            assert status.segments == len(stat.segments)

    run(main(), within_seconds=600)


def test_a_bucket_that_was_made_anew_meanwhile_takes_nothing_sealed_for_the_old_one():
    async def main() -> None:
        async with net_of() as net:
            client = net.renter.client
            await client.make_bucket(BUCKET)

            def items_of() -> Iterable[Item]:
                yield item("empty", b"")
                net.renter.catalog.delete_bucket(BUCKET)
                net.renter.catalog.create_bucket(type(bucket)(BUCKET, b"i" * 16, b"s" * 32, 1))

            (bucket,) = await client.buckets()
            with pytest.raises(ConflictError, match="made anew"):
                await client.put_many(BUCKET, items_of())
            assert [summary.name async for summary in client.walk(BUCKET)] == []

    run(main(), within_seconds=600)


def test_a_reader_of_what_is_replaced_is_told_so():
    async def main() -> None:
        async with net_of() as net:
            client = net.renter.client
            data = net.dice(6 * CAPACITY)
            await put_all(net, {"a": data})
            net.network.set_rate("renter", Rate(down=4_000_000))
            sink = Told()
            reading = asyncio.create_task(client.get(BUCKET, "a", sink))
            await asyncio.sleep(1)
            await client.remove(BUCKET, ["a"])
            await net.step_chores("cancel")
            with pytest.raises(ConflictError, match="things/a was removed while it was read"):
                await reading
            assert sink.calls[-1] == "abort"

    run(main(), within_seconds=900)


# --- resume ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.9])
def test_an_interrupted_put_goes_on_where_it_stopped(part: float):
    async def main() -> None:
        async with net_of(seed=5) as net:
            net.network.set_rate("renter", Rate(up=4_000_000))
            data = net.dice(5 * CAPACITY // 4 * 4)
            whole = len(data) * POLICY.n // POLICY.k
            before = sent_bytes(net)
            upload = asyncio.create_task(put(net, item("large", data)))
            while sent_bytes(net) - before < part * whole:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.05)
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)
            assert_nothing_runs(net)
            with pytest.raises(NotFoundError):
                await net.renter.client.read(BUCKET, "large")
            keys = {id_: record(net, entry).key for id_, entry in segments_in_catalog(net).items()}
            await net.restart_renter()
            await put(net, item("large", data), watch=Watch())
            await net.renter.client.settle()
            assert sent_bytes(net) - before < 1.2 * whole
            assert (await net.renter.agent.status()).segments_below_n == 0
            now = {id_: record(net, entry).key for id_, entry in segments_in_catalog(net).items()}
            assert keys.items() & now.items() == {(i, k) for i, k in keys.items() if i in now}
            if part >= 0.3:
                assert keys.items() & now.items(), "some sealing was used again"
            await assert_all_there(net, {"large": data})

    run(main(), within_seconds=900)


def test_receipts_of_a_stopped_upload_are_kept():
    async def main() -> None:
        async with net_of(cast=dict.fromkeys((0, 1, 2), Slow)) as net:
            upload = asyncio.create_task(put(net, item("large", net.dice(CAPACITY))))
            await asyncio.sleep(3)
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)
            held = sum(1 for farmer in net.farmers for _ in farmer.disk.scan())
            assert held > 0
            assert (await net.renter.agent.status()).shards_stored == held

    run(main(), within_seconds=900)


def test_no_key_ever_seals_other_bytes():
    async def main() -> None:
        async with net_of(seed=6) as net:
            net.network.set_rate("renter", Rate(up=4_000_000))
            seen: dict[bytes, tuple[SegmentId, bytes]] = {}
            catalog, add = net.renter.catalog, net.renter.catalog.add_upload_segment

            def spy(upload_id: bytes, ordinal: int, segment: SegmentEntry, at_ms: int) -> None:
                opened = record(net, segment)
                assert opened.key not in seen, "a key is fresh per sealing"
                seen[opened.key] = (segment.segment_id, opened.plain_hash)
                add(upload_id, ordinal, segment, at_ms)

            catalog.add_upload_segment = spy  # type: ignore[method-assign]
            data = bytearray(net.dice(3 * CAPACITY))
            for round_ in range(4):
                data[(round_ % 3) * CAPACITY + round_] ^= 1
                upload = asyncio.create_task(
                    put(net, item("large", bytes(data)), item("s", bytes(data[:99])), again=True)
                )
                await asyncio.sleep(net.dice.between(3.0, 9.0))
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)
                await net.restart_renter()
            await put(net, item("large", bytes(data)), again=True)
            await assert_all_there(net, {"large": bytes(data)})
            for entry in segments_in_catalog(net).values():
                opened = record(net, entry)
                assert seen[opened.key] == (entry.segment_id, opened.plain_hash)
            assert len({id_ for id_, _ in seen.values()}) == len(seen)

    run(main(), within_seconds=900)


# --- trouble ---------------------------------------------------------------------------------------------------------


def test_farmers_that_refuse_or_lie_are_gone_around():
    async def main() -> None:
        cast = {0: RefusesAfterAccepting, 1: ServesOtherBytes}
        async with net_of(farmers=9, cast=cast) as net:
            objects = {"large": net.dice(CAPACITY + 5), "small": net.dice(5_000)}
            await put_all(net, objects)
            await assert_all_there(net, objects)
            await net.kill(2)
            await assert_all_there(net, objects)

    run(main(), within_seconds=900)


def test_no_more_is_fetched_than_needed_unless_somebody_is_late():
    async def main() -> None:
        async with net_of(farmers=6) as net:
            data = net.dice(CAPACITY)
            await put_all(net, {"a": data})
            await net.renter.client.settle()
            before, watch = got_bytes(net), Watch(upload=False)
            sink = BytesSink()
            await net.renter.client.get(BUCKET, "a", sink, on_progress=watch)
            assert watch.last is not None
            assert watch.last.shards_done == POLICY.k
            assert got_bytes(net) - before < CAPACITY * 1.02

    run(main(), within_seconds=900)


def test_one_that_stalls_is_overtaken_and_costs_little():
    async def main() -> None:
        cast = {number: lambda role: Stalls(role, (Method.RETRIEVE,)) for number in (0, 1)}
        async with net_of(farmers=6, cast=cast) as net:
            data = net.dice(CAPACITY)
            await put_all(net, {"a": data})
            await net.renter.client.settle()
            begun = asyncio.get_running_loop().time()
            await assert_all_there(net, {"a": data})
            assert asyncio.get_running_loop().time() - begun <= 3 * Patience().blind_seconds

    run(main(), within_seconds=900)


@pytest.mark.parametrize("size", [1, 5_000])
def test_a_single_unit_at_a_farmer_that_stalls_is_rebuilt_from_others_in_time(size: int):
    """Nothing else runs then, so nothing but the clock can say that it is late."""

    async def main() -> None:
        async with net_of(farmers=6) as net:
            data = net.dice(size)
            await put_all(net, {"a": data})
            await net.renter.client.settle()
            (segment_id,) = segments_in_catalog(net)
            located = await net.renter.agent.locate([segment_id], net.renter.key.public_key)
            holder = next(t.peer.node_id for t in located[segment_id].tickets if t.index == 0)
            (number,) = (farmer.number for farmer in net.farmers if farmer.node_id == holder)
            net.network.unplug(net.farmers[number].host)
            begun = asyncio.get_running_loop().time()
            await assert_all_there(net, {"a": data})
            assert asyncio.get_running_loop().time() - begun < 10

    run(main(), within_seconds=900)


def test_the_slowest_are_cut_off_and_cancelled():
    async def main() -> None:
        async with net_of(farmers=7, cast={0: Slow, 1: Slow}) as net:
            data = net.dice(CAPACITY)
            watch = Watch()
            await put(net, item("a", data), watch=watch)
            assert asyncio.get_running_loop().time() < 120
            await net.renter.client.settle()
            for _ in range(3):
                await asyncio.sleep(600)
                await net.step_chores("repair", "cancel")
            status = await net.renter.agent.status()
            assert status.shards_to_cancel == 0
            assert net.stored_bytes() == status.stored_bytes
            assert status.shards_stored <= POLICY.n
            await assert_all_there(net, {"a": data})

    run(main(), within_seconds=9_000)


def test_too_few_farmers_is_a_sentence_and_leaves_nothing_behind():
    async def main() -> None:
        async with net_of(farmers=3) as net:
            small, large = item("small", b"x" * 5_000), item("large", net.dice(2_000_000))
            for wanted in (small, large):
                with pytest.raises(NotEnoughError, match=r"more farmers? (is|are) needed and"):
                    await put(net, wanted)
                assert_nothing_runs(net)
            assert [summary.name async for summary in net.renter.client.walk(BUCKET)] == []
            await asyncio.sleep(8 * 86_400)
            await net.renter.client.collect_garbage()
            for _ in range(2):
                await net.step_chores("repair", "cancel", "reaper")
            assert net.stored_bytes() == 0
            assert (await net.renter.agent.status()).segments == 0
        async with Testnet(farmers=0, seed=1) as net:
            with pytest.raises(NotEnoughError, match="no farmer is known yet"):
                await put(net, item("a", b"x"))

    run(main(), within_seconds=10 * 86_400)


def test_a_source_that_breaks_is_told_as_it_is_and_others_before_it_stay():
    async def main() -> None:
        async with net_of() as net:
            for broken in (Broken(bytes(90_000), 50_000), Broken(bytes(2 * CAPACITY), CAPACITY + 9)):
                with pytest.raises(OSError, match="the disk is gone"):
                    await put(net, item("good", net.dice(3 * CAPACITY)), item_of("bad", broken))
                assert broken.closed == 1
                assert_nothing_runs(net)
            assert "bad" not in {summary.name async for summary in net.renter.client.walk(BUCKET)}
            await put(net, item("good", b"yes", modified_ms=5))
            await assert_all_there(net, {"good": b"yes"})

    run(main(), within_seconds=900)


def test_no_trouble_with_garbage_hides_what_happened():
    async def main() -> None:
        async with net_of() as net:
            await put(net, item("a", b"1" * 100))

            async def release(ids: Sequence[SegmentId]) -> None:
                raise EnvironmentFault("the agent is away")

            agent = net.renter.agent
            original, agent.release = agent.release, release  # type: ignore[method-assign]
            await put(net, item("a", b"2" * 100, modified_ms=2))
            with pytest.raises(OSError, match="the disk is gone"):
                await put(net, item_of("b", Broken(bytes(100), 50)))
            assert await net.renter.client.remove(BUCKET, ["a"]) == {"a"}
            agent.release = original  # type: ignore[method-assign]
            assert await net.renter.client.collect_garbage() >= 2

    run(main(), within_seconds=900)


def test_a_fault_of_our_own_while_sending_is_never_taken_for_success():
    async def main() -> None:
        async with net_of() as net:
            await put(net, item("a", b"1" * 100))
            await net.renter.client.settle()

            async def confirm(receipts: object) -> frozenset[bytes]:
                raise RuntimeError("the database broke")

            net.renter.agent.confirm = confirm  # type: ignore[method-assign, assignment]
            for wanted in (item("b", b"2" * 100), item("c", net.dice(2_000_000))):
                with pytest.raises(RuntimeError, match="the database broke"):
                    await put(net, wanted)
                assert_nothing_runs(net)

    run(main(), within_seconds=900)


@pytest.mark.parametrize("moment", [0.0, 0.003, 0.01, 0.05, 0.3, 0.8, 1.5])
@pytest.mark.parametrize("way", ["cancel", "close"])
def test_whenever_a_put_is_stopped_nothing_runs_on_and_all_memory_comes_back(moment: float, way: str):
    async def main() -> None:
        async with net_of(seed=3, offload=InlineOffload(lambda: SLOW_WORK)) as net:
            net.network.set_rate("renter", Rate(up=8_000_000))
            wanted = [item(f"s{number}", net.dice(30_000)) for number in range(20)]
            wanted[10:10] = [item("large", net.dice(2 * CAPACITY)), item_of("stream", Stream(net.dice(1_500_000)))]
            upload = asyncio.create_task(put(net, *wanted))
            await asyncio.sleep(0.05 + moment)
            client, begun = net.renter.client, asyncio.get_running_loop().time()
            if way == "cancel":
                upload.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await upload
            else:
                await client.aclose()
                with pytest.raises(ConflictError, match="the client was closed"):
                    await upload
            assert asyncio.get_running_loop().time() - begun < 1, "it does not hang"
            assert_nothing_runs(net)
            names = {summary.name async for summary in client.walk(BUCKET)}
            whole = {each.name: each.open() for each in wanted if each.name in names}
            for name, source in whole.items():
                size = source.size_bytes if source.size_bytes is not None else 1_500_000
                buffer = bytearray(size)
                if name != "stream":
                    source.read_into(memoryview(buffer))
                    assert await client.read(BUCKET, name) == buffer

    run(main(), within_seconds=900)


def test_memory_for_one_segment_is_enough_for_everything_at_once():
    async def main() -> None:
        async with net_of() as net:
            net.renter.memory_budget_bytes = 8 << 20
            shape = largest_shape(2, 7, segment_bytes(net.renter.memory_budget_bytes))
            assert 2 * (shape.coded_bytes + shape.capacity) > net.renter.memory_budget_bytes
            await net.restart_renter()
            await net.renter.client.make_bucket(BUCKET)
            objects: list[dict[str, bytes]] = [
                {
                    f"{batch}/s": net.dice(9_000),
                    f"{batch}/l": net.dice(CAPACITY + 1_300_000),
                    f"{batch}/t": net.dice(900_000),
                    f"{batch}/m": net.dice(1_100_000),
                }
                for batch in range(3)
            ]
            await asyncio.gather(*(put(net, *(item(n, d) for n, d in batch.items())) for batch in objects))
            for batch in objects:
                await assert_all_there(net, batch)
            assert pool_of(net).held_bytes <= pool_of(net).budget_bytes

    run(main(), within_seconds=900)


# --- sinks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fail_at", ["begin", "write", "commit", "abort"])
def test_a_sink_that_fails_is_aborted_and_spoils_no_other(fail_at: str):
    async def main() -> None:
        async with net_of() as net:
            objects = {"a": net.dice(500), "b": net.dice(600), "c": net.dice(CAPACITY + 70_000), "d": b""}
            await put_all(net, objects)
            if fail_at == "abort":
                await net.kill(*range(7))
            sinks = {name: Told(fail_at if name == "b" else "") for name in objects}
            expected = NotEnoughError if fail_at == "abort" else OSError
            with pytest.raises(expected, match="of the 2 shards" if fail_at == "abort" else f"no {fail_at}"):
                await net.renter.client.get_many(BUCKET, objects, sinks.__getitem__)
            for name, sink in sinks.items():
                if name == "b":
                    assert sink.calls[-1] == "abort"
                elif "commit" in sink.calls:
                    assert sink.calls[-1] == "commit"
                    assert sink.data == objects[name]
                else:
                    assert sink.calls[-1] == "abort"
            assert pool_of(net)._leased == 0

    run(main(), within_seconds=900)


def test_a_cancelled_get_aborts_its_sink():
    async def main() -> None:
        async with net_of() as net:
            await put_all(net, {"a": net.dice(4 * CAPACITY)})
            net.network.set_rate("renter", Rate(down=2_000_000))
            for method in (net.renter.client.get, net.renter.client.stream):
                sink = Told()
                task = asyncio.create_task(method(BUCKET, "a", sink))
                await asyncio.sleep(4)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert sink.calls[-1] == "abort"
                assert pool_of(net)._leased == 0

    run(main(), within_seconds=900)


# --- names, times, modes ---------------------------------------------------------------------------------------------

ODD = [
    "a b",
    "ü/ö",
    "u\u0308",
    "\u00fc",
    "x\n\t\0y",
    "../../etc",
    "/",
    "//",
    ".",
    "日本",
    "🦆",
    "n" * 1024,
    "a\\b",
    "-rf",
]


def test_odd_names_are_names():
    async def main() -> None:
        async with net_of() as net:
            objects = {name: name.encode() for name in ODD}
            await put_all(net, objects)
            await assert_all_there(net, objects)
            assert {summary.name async for summary in net.renter.client.walk(BUCKET)} == set(ODD)
            assert await net.renter.client.remove(BUCKET, ODD) == set(ODD)

    run(main(), within_seconds=600)


@pytest.mark.parametrize("name", ["", "n" * 1025, "\ud800"])
@pytest.mark.parametrize("again", [False, True])
def test_a_name_that_cannot_be_is_told_before_anything_is_sent(name: str, again: bool):
    async def main() -> None:
        async with net_of() as net:
            await net.renter.client.make_bucket(BUCKET)
            before = sent_bytes(net)
            with pytest.raises(UserError, match="name"):
                await put(net, item(name, b"x" * 5_000), again=again)
            assert sent_bytes(net) == before

    run(main(), within_seconds=600)


@pytest.mark.parametrize("modified_ms", [-(10**9), 0, 2**62, -(2**62)])
def test_absurd_times_and_modes_never_make_an_object_unreadable(modified_ms: int):
    async def main() -> None:
        async with net_of() as net:
            client = net.renter.client
            await put(net, item("a", b"x", modified_ms=modified_ms, mode=0o100_644))
            assert await client.read(BUCKET, "a") == b"x"
            assert await client.modes(BUCKET, ["a", "b"]) == {"a": 0o644}

    run(main(), within_seconds=600)


def test_an_unknown_bucket_is_a_sentence():
    async def main() -> None:
        async with net_of() as net:
            client = net.renter.client
            for work in (
                client.put("none", item("a", b"")),
                client.read("none", "a"),
                client.remove("none", ["a"]),
                client.get_many("none", ["a"], lambda name: Told()),
                client.stat("none", "a"),
            ):
                with pytest.raises(NotFoundError, match="no bucket 'none'"):
                    await work
            assert isinstance(StookError(), Exception)

    run(main(), within_seconds=600)
