"""Objects that come in from a stream, and go out in one."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from recovery_net import saving
from renter_sources import item
from stook.renter.objects import NewObject
from stook.shards.geometry import Policy
from stook.sim.loop import run
from stook.sim.testnet import Testnet
from stook.storage.s3_ports import StoredObject

SIZE = 6 << 20


class Copied:
    """A body that is read from another object while it comes in."""

    def __init__(self, stream: AsyncIterator[memoryview]) -> None:
        self._stream = stream
        self._rest = memoryview(b"")

    async def fill(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer):
            if not self._rest:
                try:
                    self._rest = await anext(self._stream)
                except StopAsyncIteration:
                    break
            part, self._rest = self._rest[: len(buffer) - filled], self._rest[len(buffer) - filled :]
            buffer[filled : filled + len(part)] = part
            filled += len(part)
        return filled


def test_many_copies_of_ranges_do_not_wait_for_each_other_for_ever(tmp_path: Path) -> None:
    async def main() -> None:
        net = Testnet(farmers=8, seed=1, policy=Policy(k=2, r=3, o=4, n=5))
        catalog = saving(net, tmp_path / "catalog.db")
        net.renter.memory_budget_bytes = 48 << 20
        async with net:
            client = net.renter.client
            await client.make_bucket("b")
            data = net.dice(SIZE + 1)
            await client.put("b", item("source", data))
            objects = client.objects(catalog.s3)
            await objects.open()
            of = catalog.s3.bucket("b").bucket
            source = catalog.s3.find("b", "source")
            assert isinstance(source, StoredObject)

            async def copy(number: int) -> None:
                async with objects.read(of, source, 1, SIZE + 1) as stream:
                    async with objects.land(of, f"copy{number}", Copied(stream), SIZE) as landed:
                        etag = hashlib.md5(data[1:]).hexdigest()
                        await objects.commit(NewObject(of, f"copy{number}", etag), landed)

            await asyncio.gather(*(copy(number) for number in range(12)))
            assert await client.read("b", "copy7") == data[1:]
            await objects.aclose()

    run(main(), within_seconds=3600)
