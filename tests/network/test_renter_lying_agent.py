"""The client believes its agent about where shards are, not about what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest

from renter_sources import item
from sim_objects import BUCKET
from stook.errors import CorruptionError
from stook.ids import PublicKey, SegmentId
from stook.renter.files import BytesSink
from stook.renter.ports import Located
from stook.shards.geometry import Policy
from stook.sim.loop import run
from stook.sim.testnet import Testnet


@pytest.mark.parametrize("size", [5_000, 3_000_000])
def test_a_wrong_mask_key_gives_an_error_and_never_other_bytes(size: int) -> None:
    async def main() -> None:
        async with Testnet(farmers=7, seed=1, policy=Policy(k=2, r=3, o=4, n=5)) as net:
            client, agent = net.renter.client, net.renter.agent
            await client.make_bucket(BUCKET)
            await client.put(BUCKET, item("a", bytes(size)))
            true = agent.locate

            async def lie(segment_ids: Iterable[SegmentId], grantee: PublicKey) -> Mapping[SegmentId, Located]:
                located = await true(segment_ids, grantee)
                return {segment_id: replace(where, mask_key=bytes(32)) for segment_id, where in located.items()}

            agent.locate = lie  # type: ignore[method-assign]
            sink = BytesSink()
            with pytest.raises(CorruptionError, match="mask key"):
                await client.get(BUCKET, "a", sink)
            assert sink.data is None
            agent.locate = true  # type: ignore[method-assign]
            assert await client.read(BUCKET, "a") == bytes(size)

    run(main())
