"""Homes on real sockets: farmers find each other through one seed, and a renter finds them when it is gone."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from stook import config
from stook.assembly import AGENT_FILE, OVERLAY_FOLDER, create_farmer_home, create_renter_home, open_renter, run_farmer
from stook.config import FarmSettings, NodeSettings, RentSettings
from stook.overlay.records import announcement_key

pytestmark = pytest.mark.system
FARMERS = 5


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_one_seed_is_enough_and_then_it_may_go(tmp_path: Path) -> None:
    async def main() -> None:
        seeds: tuple[str, ...] = ()
        homes = []
        for number in range(FARMERS):
            home = tmp_path / f"farmer-{number}"
            node = NodeSettings(listen=f"127.0.0.1:{free_port()}", seeds=seeds, log_level="error")
            uri = create_farmer_home(home, node, FarmSettings(capacity="1 GiB", min_free_disk="0"))
            seeds = seeds or (uri,)
            homes.append(home)
        renter_home = tmp_path / "renter"
        create_renter_home(renter_home, NodeSettings(seeds=seeds, log_level="error"), RentSettings(spread="farmers"))
        async with AsyncExitStack() as rest:
            async with run_farmer(homes[0]):
                running = [await rest.enter_async_context(run_farmer(home)) for home in homes[1:]]
                overlays = [one.overlay for one in running if one.overlay is not None]
                for overlay in overlays:
                    await overlay.join()
                for overlay in overlays:
                    assert len(await overlay.sample(64)) == FARMERS - 1
                    await overlay.publish()
                found = await overlays[0].find_value(announcement_key(overlays[2].node_id))
                assert [record.publisher for record in found] == [overlays[2].node_id]
                async with open_renter(renter_home, refresh=False) as renter:
                    assert await renter.agent.discover() == FARMERS
            assert (renter_home / OVERLAY_FOLDER / "contacts").is_file()
            # The seed is gone, and so is what the agent had written down: only the overlay can help.
            (renter_home / AGENT_FILE).unlink()
            async with open_renter(renter_home) as renter:
                alive = {candidate.node_id for candidate in renter.agent.candidates()}
                assert alive == {overlay.node_id for overlay in overlays}
                await renter.client.make_bucket("b")
            await overlays[1].remember()
        assert (homes[2] / OVERLAY_FOLDER / "contacts").is_file()
        assert config.load_settings(homes[1], "farm").node.seeds == seeds
        async with run_farmer(homes[1]) as one, run_farmer(homes[2]) as two:
            assert one.overlay is not None
            assert two.overlay is not None
            assert await one.overlay.join() >= 1, "both remember each other, and the seed is dead"

    asyncio.run(asyncio.wait_for(main(), 120))


def test_who_takes_no_part_is_not_found(tmp_path: Path) -> None:
    async def main() -> None:
        home = tmp_path / "farmer"
        node = NodeSettings(listen=f"127.0.0.1:{free_port()}", overlay=False, log_level="error")
        uri = create_farmer_home(home, node, FarmSettings(capacity="1 GiB", min_free_disk="0"))
        other = tmp_path / "other"
        node = NodeSettings(listen=f"127.0.0.1:{free_port()}", seeds=(uri,), log_level="error")
        create_farmer_home(other, node, FarmSettings(capacity="1 GiB", min_free_disk="0"))
        async with run_farmer(home) as quiet, run_farmer(other) as running:
            assert quiet.overlay is None
            assert running.overlay is not None
            assert await running.overlay.join() == 0

    asyncio.run(asyncio.wait_for(main(), 60))
