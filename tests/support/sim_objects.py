"""Objects out and back through a testnet's client."""

from __future__ import annotations

from collections.abc import Mapping

from stook.renter.files import BytesSource
from stook.renter.ports import Item
from stook.renter.upload import Uploaded
from stook.sim.testnet import Testnet
from stook.storage.renter_ports import PlacementState

BUCKET = "things"
SIZES = (0, 1, 5_000, 16_384, 120_000, 1_300_000)


def some_objects(net: Testnet, sizes: tuple[int, ...] = SIZES) -> dict[str, bytes]:
    return {f"dir/{number}": net.dice(size) for number, size in enumerate(sizes)}


def items(objects: Mapping[str, bytes]) -> list[Item]:
    return [
        Item(name, (lambda data=data: BytesSource(data, 1)), len(data), modified_ms=1) for name, data in objects.items()
    ]


async def put_all(net: Testnet, objects: Mapping[str, bytes]) -> Uploaded:
    client = net.renter.client
    if BUCKET not in {bucket.name for bucket in await client.buckets()}:
        await client.make_bucket(BUCKET)
    return await client.put_many(BUCKET, items(objects))


async def assert_all_there(net: Testnet, objects: Mapping[str, bytes]) -> None:
    for name, data in objects.items():
        assert await net.renter.client.read(BUCKET, name) == data, name


def assert_spread(net: Testnet) -> None:
    """No farmer holds, or is promised, two shards of one segment."""
    store = net.renter.store
    for segment_id, placements in store.placements(store.segment_ids(2**62, b"", 10_000)).items():
        held = [
            placement.farmer
            for placement in placements
            if placement.state in (PlacementState.CLAIMED, PlacementState.STORED)
        ]
        assert len(held) == len(set(held)), f"segment {segment_id.hex()}"
