"""Going back to what a catalog named earlier."""

from __future__ import annotations

from pathlib import Path

from recovery_net import saving
from renter_sources import item
from stook.shards.geometry import Policy
from stook.sim.loop import run
from stook.sim.testnet import Testnet
from stook.storage.catalog import SqlCatalog
from stook.storage.database import copy_database
from stook.storage.s3_ports import Versioning


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
