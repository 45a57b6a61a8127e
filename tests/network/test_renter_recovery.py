"""The laptop is lost: what was recoverable comes back from 24 words and one farmer, and nothing else is trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recovery_net import everything, give, laptop_lost, other_machine, recover, saving
from renter_sources import item
from stook.contracts.recovery import SignedRecoveryRecord
from stook.errors import ConflictError, NotEnoughError, NotFoundError
from stook.ids import PublicKey, SegmentId, ShardRoot
from stook.renter.journal_seal import JournalKeys
from stook.renter.pointers import Left
from stook.renter.recover import Wanted, newest_save, unnamed_segments
from stook.renter.saver import Saver
from stook.shards.geometry import Policy
from stook.sim.loop import run
from stook.sim.nodes import SimFarmer, SimRenter
from stook.sim.testnet import Testnet
from stook.storage.catalog import SqlCatalog
from stook.storage.database import copy_database
from stook.storage.journal_records import epoch_of
from stook.storage.renter_ports import SegmentEntry
from stook.wire.endpoint import Peer

POLICY = Policy(k=2, r=3, o=4, n=5)


def net_of(seed: int = 1, farmers: int = 8, **rest: object) -> Testnet:
    return Testnet(farmers=farmers, seed=seed, policy=POLICY, **rest)  # type: ignore[arg-type]


def test_every_bucket_name_version_and_byte_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        net = net_of()
        saving(net, tmp_path / "first.db")
        async with net:
            client = net.renter.client
            await client.make_bucket("photos")
            await client.make_bucket("empty")
            await client.put_many("photos", [item(f"a/{n}", net.dice(100 + n)) for n in range(40)])
            await client.put("photos", item("large", net.dice(3_000_000)))
            assert client.saver is not None
            await client.saver.recoverable()
            await client.put("photos", item("a/3", b"again"))
            await client.remove("photos", ["a/7"])
            saved = await client.saver.recoverable()
            assert saved is not None
            assert await client.saver.recoverable() is None
            before = await everything(client)
            assert len(before) == 40
            await client.settle()
            await laptop_lost(net.renter)

            other = other_machine(net)
            came = await recover(other, tmp_path / "second.db")
            assert (came.buckets, came.objects, came.missing_segments, came.unnamed_segments) == (2, 40, 0, 0)
            assert came.settings
            await other.start(chores=False)
            assert await everything(other.client) == before
            assert {b.name for b in await other.client.buckets()} == {"photos", "empty"}
            # And it goes on from there.
            await other.client.put("photos", item("new", net.dice(9000)))
            assert other.client.saver is not None
            again = await other.client.saver.recoverable()
            assert again is not None
            assert again.sequence > saved.sequence
            await other.stop()

    run(main(), within_seconds=3600)


class Unplugged:
    """Recovery records go nowhere."""

    async def put(self, record: SignedRecoveryRecord) -> Left:
        return Left(0, 8)

    async def get(self, key: PublicKey) -> list[SignedRecoveryRecord]:
        return []

    async def places(self) -> list[Peer]:
        return []


def shards_of(net: Testnet) -> set[ShardRoot]:
    return {shard.root for farmer in net.farmers for shard in farmer.disk.scan()}


def saver_of(renter: SimRenter) -> Saver:
    saver = renter.client.saver
    assert saver is not None
    return saver


def test_what_is_only_durable_is_named_while_it_can_be_and_counted_when_it_cannot(tmp_path: Path) -> None:
    async def main() -> None:
        net = net_of()
        saving(net, tmp_path / "first.db")
        async with net:
            client, saver = net.renter.client, saver_of(net.renter)
            await client.make_bucket("b")
            await client.put("b", item("safe", net.dice(9000)))
            await saver.recoverable()
            await client.put("b", item("loose", net.dice(9000)))
            unsaved = await saver.unsaved()
            assert (unsaved.objects, unsaved.size_bytes, unsaved.names) == (1, 9000, (("b", "loose"),))
            await laptop_lost(net.renter)
            other = other_machine(net)
            came = await recover(other, tmp_path / "second.db")
            assert (came.objects, came.missing_segments) == (1, 0)
            assert came.unnamed_segments == 1
            assert came.unnamed_shards >= POLICY.o

    run(main(), within_seconds=3600)


def test_a_stale_record_gains_nothing_for_contracts_tell_of_the_newest_head(tmp_path: Path) -> None:
    """Every farmer but offers yesterday's record: our own contracts name the head that came after it."""

    async def main() -> None:
        net = net_of()
        saving(net, tmp_path / "first.db")
        async with net:
            client, saver = net.renter.client, saver_of(net.renter)
            await client.make_bucket("b")
            await client.put("b", item("old", net.dice(9000)))
            await saver.recoverable()
            stale = [dict(farmer.records._records) for farmer in net.farmers]
            await client.put("b", item("new", net.dice(9000)))
            await saver.recoverable()
            await laptop_lost(net.renter)
            for farmer, records in zip(net.farmers, stale, strict=True):
                farmer.records._records = records
            other = other_machine(net)
            came = await recover(other, tmp_path / "second.db")
            assert came.objects == 2

    run(main(), within_seconds=3600)


def test_without_any_record_contracts_are_enough(tmp_path: Path) -> None:
    async def main() -> None:
        net = net_of()
        saving(net, tmp_path / "first.db")
        async with net:
            await net.renter.client.make_bucket("b")
            await net.renter.client.put("b", item("tiny", b"inside the catalog"))
            await laptop_lost(net.renter)
            for farmer in net.farmers:
                farmer.records._records.clear()
            other = other_machine(net)
            came = await recover(other, tmp_path / "second.db")
            assert (came.records, came.objects) == (0, 1)
            await other.start(chores=False)
            assert await other.client.read("b", "tiny") == b"inside the catalog"
            await other.stop()

    run(main(), within_seconds=3600)


def test_a_later_state_that_does_not_open_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    async def main() -> None:
        net = net_of(farmers=8)
        saving(net, tmp_path / "first.db")
        async with net:
            client, saver = net.renter.client, saver_of(net.renter)
            await client.make_bucket("b")
            await client.put("b", item("old", net.dice(9000)))
            await saver.recoverable()
            # The next save is interrupted before its record, and then its farmers lose what they have of it.
            await client.put("b", item("new", net.dice(9000)))
            before = shards_of(net)
            saver._pointers = Unplugged()
            with pytest.raises(NotEnoughError, match="keep the record"):
                await saver.recoverable()
            await client.drain()
            head = shards_of(net) - before
            assert head
            await laptop_lost(net.renter)
            for farmer in net.farmers:
                for root in head:
                    farmer.disk.erase(root)
            other = other_machine(net)
            with pytest.raises(NotEnoughError, match="later state"):
                await recover(other, tmp_path / "second.db")
            assert not (tmp_path / "second.db").exists()
            other = other_machine(net, "renter-3")
            came = await recover(other, tmp_path / "second.db", Wanted(accept_older=True))
            assert came.skipped
            assert came.objects == 1

    run(main(), within_seconds=3600)


def test_the_device_that_saved_before_is_told_and_stops(tmp_path: Path) -> None:
    async def main() -> None:
        net = net_of()
        saving(net, tmp_path / "first.db")
        async with net:
            client, saver = net.renter.client, saver_of(net.renter)
            await client.make_bucket("b")
            await client.put("b", item("one", net.dice(9000)))
            await saver.recoverable()
            other = other_machine(net)
            await recover(other, tmp_path / "second.db")
            await other.start(chores=False)
            await client.put("b", item("two", net.dice(9000)))
            with pytest.raises(ConflictError, match="another device has recovered"):
                await saver.recoverable()
            assert (await saver.state()).alarm
            with pytest.raises(ConflictError, match="another device"):
                await saver.recoverable()
            assert await saver.save_due() is None
            # A tiny object is stored the long way then, for nothing may hang on a catalog that is not saved.
            await client.put("b", item("tiny", b"tiny"))
            assert (await client.stat("b", "tiny")).segments
            # The other one goes on undisturbed, until the first says that it is the right one.
            await other.client.put("b", item("three", net.dice(9000)))
            assert await saver_of(other).recoverable() is not None
            taken = await saver.take_over()
            assert taken.base
            await other.client.put("b", item("four", net.dice(9000)))
            with pytest.raises(ConflictError, match="another device has recovered"):
                await saver_of(other).recoverable()
            await other.stop()
            last = other_machine(net, "renter-3")
            came = await recover(last, tmp_path / "third.db")
            assert came.objects == 3  # one, two, tiny

    run(main(), within_seconds=3600)


def test_two_devices_that_save_at_the_same_time_are_not_mixed(tmp_path: Path) -> None:
    """The same epoch and number, told apart by nothing but the writer: somebody copied a home, and used both."""

    async def main() -> None:
        net = net_of()
        saving(net, tmp_path / "first.db")
        async with net:
            client, saver = net.renter.client, saver_of(net.renter)
            await client.make_bucket("b")
            await client.put("b", item("one", net.dice(9000)))
            await saver.recoverable()
            copy_database(tmp_path / "first.db", tmp_path / "copy.db")
            twin = other_machine(net, "twin")
            twin.seeds = None
            give(twin, tmp_path / "copy.db")
            await twin.start(chores=False)
            await twin.agent.sync()
            await client.put("b", item("mine", net.dice(9000)))
            await twin.client.put("b", item("theirs", net.dice(9000)))
            await saver.recoverable()
            with pytest.raises(ConflictError, match="at the same time"):
                await saver_of(twin).recoverable()
            await twin.stop()
            assert not (await saver.state()).alarm
            # Both heads are at farmers under one number: whoever recovers is asked which one is right.
            await laptop_lost(net.renter)
            last = other_machine(net, "renter-3")
            with pytest.raises(ConflictError, match="two devices"):
                await recover(last, tmp_path / "third.db")

    run(main(), within_seconds=3600)


def test_an_old_copy_of_the_catalog_does_not_overwrite_what_came_after(tmp_path: Path) -> None:
    async def main() -> None:
        net = net_of()
        saving(net, tmp_path / "first.db")
        async with net:
            client = net.renter.client
            await client.make_bucket("b")
            await client.put("b", item("one", net.dice(9000)))
            await saver_of(net.renter).recoverable()
            copy_database(tmp_path / "first.db", tmp_path / "backup.db")
            for number in range(3):
                await client.put("b", item(f"later-{number}", net.dice(9000)))
                await saver_of(net.renter).recoverable()
            await net.renter.die()
            give(net.renter, tmp_path / "backup.db")
            await net.renter.start(chores=False)
            await net.renter.client.put("b", item("two", net.dice(9000)))
            with pytest.raises(ConflictError, match="a later state of the catalog is saved already"):
                await saver_of(net.renter).recoverable()

    run(main(), within_seconds=3600)


def test_a_new_catalog_under_old_words_is_not_saved_over_the_old_one(tmp_path: Path) -> None:
    async def main() -> None:
        net = net_of()
        saving(net, tmp_path / "first.db")
        async with net:
            await net.renter.client.make_bucket("b")
            await net.renter.client.put("b", item("one", net.dice(9000)))
            await saver_of(net.renter).recoverable()
            await net.renter.client.put("b", item("two", net.dice(9000)))
            await saver_of(net.renter).recoverable()
            fresh = other_machine(net)
            fresh.seeds = None
            give(fresh, tmp_path / "fresh.db")
            await fresh.start(chores=False)
            await fresh.client.make_bucket("c")
            with pytest.raises(ConflictError):
                await saver_of(fresh).recoverable()
            await fresh.stop()

    run(main(), within_seconds=3600)


def test_words_that_stored_nothing_find_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with net_of() as net:
            with pytest.raises(NotFoundError, match="nothing is saved under these words"):
                await recover(other_machine(net), tmp_path / "none.db")

    run(main(), within_seconds=3600)


def test_cheques_are_asked_for_before_anything_is_signed(tmp_path: Path) -> None:
    async def main() -> None:
        net = net_of()
        saving(net, tmp_path / "first.db")
        async with net:
            await net.renter.client.make_bucket("b")
            await net.renter.client.put("b", item("one", net.dice(9000)))
            await saver_of(net.renter).recoverable()
            await laptop_lost(net.renter)
            asked: list[int] = []

            async def ask() -> None:
                asked.append(len(await other.agent.holders()))
                assert not any(farmer.records._records for farmer in net.farmers if epochs(farmer) > {1})

            def epochs(farmer: SimFarmer) -> set[int]:
                return {epoch_of(kept[0].body.sequence) for kept in farmer.records._records.values()}

            other = other_machine(net)
            await recover(other, tmp_path / "second.db", before_paying=ask)
            assert asked
            assert asked[0] >= POLICY.o
            assert any(2 in epochs(farmer) for farmer in net.farmers)

    run(main(), within_seconds=3600)


def test_what_was_overwritten_comes_back_when_the_machine_is_lost_before_the_next_save(tmp_path: Path) -> None:
    async def main() -> None:
        net = net_of()
        saving(net, tmp_path / "first.db")
        async with net:
            client, saver = net.renter.client, saver_of(net.renter)
            await client.make_bucket("b")
            old = net.dice(9000)
            await client.put("b", item("x", old))
            await saver.recoverable()
            await client.drain()
            before = shards_of(net)
            await client.put("b", item("x", net.dice(9000)))
            await client.drain()
            await net.renter.agent.caretaker.cancel_due()
            assert before <= shards_of(net), "nothing that the saved catalog names is erased"
            await laptop_lost(net.renter)
            other = other_machine(net)
            came = await recover(other, tmp_path / "second.db")
            assert (came.objects, came.missing_segments) == (1, 0)
            await other.start(chores=False)
            assert await other.client.read("b", "x") == old
            # And where it is saved, the old ones go.
            await other.client.put("b", item("x", b"n" * 9000))
            await saver_of(other).recoverable()
            await other.client.tidy()
            await other.agent.caretaker.cancel_due()
            assert not before <= shards_of(net)
            # In an alarm the true catalog is somebody else's, and what it names is not erased from here.
            third = other_machine(net, "renter-3")
            await recover(third, tmp_path / "third.db")
            await other.client.remove("b", ["x"])
            with pytest.raises(ConflictError):
                await saver_of(other).recoverable()
            await other.client.tidy()
            await other.agent.caretaker.cancel_due()
            await other.stop()
            await third.start(chores=False)
            assert await third.client.read("b", "x") == b"n" * 9000
            await third.stop()

    run(main(), within_seconds=3600)


def test_parts_of_a_save_that_was_interrupted_are_given_up_when_a_newer_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        net = net_of()
        saving(net, tmp_path / "first.db")
        async with net:
            client, saver = net.renter.client, saver_of(net.renter)
            await client.make_bucket("b")
            await client.put("b", item("x", net.dice(9000)))
            await saver.recoverable()
            await client.put_many("b", [item(f"o{n}", net.dice(100)) for n in range(300)])
            monkeypatch.setattr("stook.renter.saver.MAX_PART_BYTES", 20_000)
            send, sent = saver._mill.send, 0

            async def interrupted(*args: Any, **rest: Any) -> SegmentEntry:
                nonlocal sent
                sent += 1
                if sent == 3:
                    raise NotEnoughError("the machine dies here")
                return await send(*args, **rest)

            monkeypatch.setattr(saver._mill, "send", interrupted)
            with pytest.raises(NotEnoughError):
                await saver.recoverable()
            await client.drain()
            begun = await saver.segments()
            await laptop_lost(net.renter)

            other = other_machine(net)
            await recover(other, tmp_path / "second.db")
            await other.start(chores=False)
            catalog, keys = other.catalog, JournalKeys(other.keys.recovery_root())
            assert isinstance(catalog, SqlCatalog)

            async def parts() -> set[SegmentId]:
                finished = newest_save(catalog.journal)
                all_of_them, offload = other.agent.all_segments(100), other._world.offload
                pages = unnamed_segments(all_of_them, catalog, keys, offload, finished=finished)
                return {each async for page in pages for each in page if keys.name_of(each) is not None}

            left = begun - catalog.journal.segments()
            assert len(left) == 2
            assert await parts() == set(), "another device might be about to finish that save"
            await other.client.put("b", item("y", net.dice(9000)))
            assert await saver_of(other).recoverable() is not None
            assert await parts() == left
            await other.agent.release(list(left))
            assert await parts() == set()
            catalog.journal.sound("somebody else saves")
            assert newest_save(catalog.journal) == 0
            await other.stop()

    run(main(), within_seconds=3600)
