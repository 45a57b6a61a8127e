"""Going back to what a catalog named earlier."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from recovery_net import saving
from renter_sources import item
from stook.renter.objects import NewObject
from stook.shards.geometry import Policy
from stook.sim.loop import run
from stook.sim.testnet import Testnet
from stook.storage.catalog import SqlCatalog
from stook.storage.database import copy_database
from stook.storage.renter_ports import Bucket
from stook.storage.s3_ports import Lock, LockedError, Retention, StoredObject, Versioning, Wanted, make_facts


def net_of() -> Testnet:
    return Testnet(farmers=8, seed=1, policy=Policy(k=2, r=3, o=4, n=5))


def test_what_is_removed_on_the_way_back_is_removed_now_and_not_in_1970(tmp_path: Path) -> None:
    async def main() -> None:
        net = net_of()
        catalog = saving(net, tmp_path / "catalog.db")
        async with net:
            client = net.renter.client
            await client.make_bucket("b")
            catalog.s3.set_versioning("b", Versioning.ENABLED)
            copy_database(tmp_path / "catalog.db", tmp_path / "then.db")
            await client.put("b", item("newer", net.dice(9000)))
            before_ms = net.renter.clock.now_ms()
            then = SqlCatalog.open(tmp_path / "then.db")
            assert (await client.bring_back(then, exactly=True)).removed == 1
            then.close()
            page = catalog.s3.list_versions("b", prefix="", delimiter="", after="", after_version=0, limit=9)
            assert [
                each.modified_ms >= before_ms for each in page.items if not isinstance(each, str) and each.marker
            ] == [True]

    run(main(), within_seconds=3600)


def test_what_s3_clients_said_comes_back_and_no_version_twice(tmp_path: Path) -> None:
    async def main() -> None:
        net = net_of()
        catalog = saving(net, tmp_path / "catalog.db")
        async with net:
            client, store, now_ms = net.renter.client, catalog.s3, net.renter.clock.now_ms()
            of = Bucket("b", b"b" * 16, b"s" * 32, now_ms)
            store.make_bucket(of, lockable=True)
            store.set_setting("b", "policy", b"{}")
            await client.put("b", item("source", net.dice(9000)))
            objects = client.objects(store)
            await objects.open()
            source = store.find("b", "source")
            assert isinstance(source, StoredObject)
            facts = make_facts(metadata=(("who", "me"),))
            lock = Lock(Retention.COMPLIANCE, now_ms + 10**9)
            new = NewObject(of, "x", "etag", facts, (("t", "1"),), lock=lock)
            made = await objects.copy(new, objects.open_record(of, source))
            copy_database(tmp_path / "catalog.db", tmp_path / "then.db")
            # Another machine's catalog, that lost the bucket.
            await objects.aclose()
            raw = sqlite3.connect(tmp_path / "catalog.db")
            for table in ("object_facts", "object_segments", "objects", "bucket_settings", "buckets"):
                raw.execute(f"DELETE FROM {table}")
            raw.commit()
            raw.close()
            then = SqlCatalog.open(tmp_path / "then.db")
            undone = await client.bring_back(then, exactly=False, stores=(then.s3, store))
            assert (undone.restored, undone.lost) == (2, 0)
            assert store.bucket("b") == then.s3.bucket("b")
            assert store.settings("b") == {"policy": b"{}"}
            then.close()
            back = store.find("b", "x")
            assert isinstance(back, StoredObject)
            assert (back.facts, back.tags, back.lock, back.version.etag) == (facts, (("t", "1"),), lock, "etag")
            assert back.version.version > made.version + 2**31
            (refused,) = store.delete("b", [Wanted("x", back.version.version_id)], now_ms=now_ms, bypass=True)
            assert isinstance(refused, LockedError)
            assert await client.read("b", "x") == await client.read("b", "source")

    run(main(), within_seconds=3600)
