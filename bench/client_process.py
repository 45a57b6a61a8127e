"""A long-running Stook client in a process of its own, told what to do by JSON lines on its standard input.

    python -m bench.client_process HOME FARMERS

One answer, a line of JSON, for each request; the first line it prints says that it is ready. It ends with its standard
input. Benchmarks that want the client's CPU and memory apart from their own use it through `bench.stook_grid`.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from stook.assembly import Renter, open_renter
from stook.cli.run import configure_logging
from stook.errors import StookError
from stook.renter.files import FileSink, FileSource
from stook.renter.ports import Item

BUCKET = "bench"
MEET_DEADLINE_SECONDS = 60.0
FORGET_DEADLINE_SECONDS = 60.0
LINE_LIMIT_BYTES = 1 << 25
"""A request may name 20,000 files."""


class NullSink:
    """Counts verified bytes and drops them."""

    def __init__(self) -> None:
        self.size_bytes = 0

    def begin(self, size_bytes: int) -> None:
        pass

    def write_at(self, offset: int, data: memoryview) -> None:
        self.size_bytes += len(data)

    def commit(self, modified_ms: int) -> None:
        pass

    def abort(self) -> None:
        pass


class SocketSource:
    """An object that comes through a plain loopback connection, as from a program that uses a gateway."""

    def __init__(self, port: int, size_bytes: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self.size_bytes: int | None = size_bytes
        self.modified_ms = 0

    def read_into(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer):
            count = self._socket.recv_into(buffer[filled:])
            if count == 0:
                break
            filled += count
        return filled

    def close(self) -> None:
        self._socket.close()


class SocketSink:
    """The way back: bytes in their order into a plain loopback connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))

    def begin(self, size_bytes: int) -> None:
        pass

    def write_at(self, offset: int, data: memoryview) -> None:
        self._socket.sendall(data)

    def commit(self, modified_ms: int) -> None:
        self._socket.close()

    def abort(self) -> None:
        self._socket.close()


class Commands:
    """What may be asked. Each takes the request and gives the answer's fields."""

    def __init__(self, renter: Renter) -> None:
        self._renter = renter
        self._client = renter.client

    async def put(self, request: dict[str, Any]) -> dict[str, Any]:
        """Store files under their names; answers when every segment has all its shards."""
        items = [
            Item(name, lambda path=path: FileSource(Path(path)), size_bytes)  # type: ignore[misc]
            for name, path, size_bytes in request["files"]
        ]
        return await self._put(items)

    async def put_socket(self, request: dict[str, Any]) -> dict[str, Any]:
        """Store one object that comes through a connection to the port named."""
        port, size = request["port"], request["size_bytes"]
        return await self._put([Item(request["name"], lambda: SocketSource(port, size), size)])

    async def _put(self, items: list[Item]) -> dict[str, Any]:
        began = time.perf_counter()
        await self._client.put_many(BUCKET, items, again=True)
        durable = time.perf_counter() - began
        await self._client.settle()
        status = (await self._client.status()).agent
        return {"durable_seconds": durable, "segments_below_n": status.segments_below_n}

    async def get(self, request: dict[str, Any]) -> dict[str, Any]:
        """Fetch objects into a folder, or nowhere."""
        names, folder, null = request["names"], request["folder"], NullSink()
        if folder is None:
            await self._client.get_many(BUCKET, names, lambda _: null)
        else:
            await self._client.get_many(BUCKET, names, lambda name: FileSink(Path(folder, name)))
        return {"size_bytes": null.size_bytes}

    async def get_socket(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one object, in order, into a connection to the port named."""
        await self._client.stream(BUCKET, request["name"], SocketSink(request["port"]))
        return {}

    async def lose(self, request: dict[str, Any]) -> dict[str, Any]:
        """Write down as lost whatever some farmers hold, as audits would; which farmers."""
        store, farmers = self._renter.agent._store, []
        for announced in self._renter.agent.candidates():
            held = [placement.contract_id for placement in store.placements_at(announced.node_id, b"", 10_000)]
            if held and len(farmers) < request["count"]:
                store.mark_lost(held)
                farmers.append(announced.node_id.hex())
        return {"farmers": farmers}

    async def repair(self, request: dict[str, Any]) -> dict[str, Any]:
        """Repair every segment up to n."""
        await self._renter.agent.repairer.repair_all()
        return {"segments_below_n": (await self._client.status()).agent.segments_below_n}

    async def forget(self, request: dict[str, Any]) -> dict[str, Any]:
        """Remove objects and wait, within a deadline, until farmers have erased their shards."""
        await self._client.remove(BUCKET, request["names"])
        deadline = time.monotonic() + FORGET_DEADLINE_SECONDS
        while True:
            await self._client.settle()
            left = (await self._client.status()).agent.shards_to_cancel
            if not left or time.monotonic() > deadline:
                return {"left": left}
            await asyncio.sleep(0.2)


async def meet(renter: Renter, farmers: int) -> None:
    """Wait until so many farmers are known. Raises `TimeoutError`."""
    deadline = time.monotonic() + MEET_DEADLINE_SECONDS
    while await renter.agent.refresh() < farmers:
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {len(renter.agent.candidates())} of {farmers} farmers announced")
        await asyncio.sleep(0.1)


async def serve(home: Path, farmers: int) -> None:
    """Answer requests until standard input ends."""
    async with open_renter(home) as renter:
        await meet(renter, farmers)
        if BUCKET not in {bucket.name for bucket in await renter.client.buckets()}:
            await renter.client.make_bucket(BUCKET)
        commands = Commands(renter)
        reader = asyncio.StreamReader(limit=LINE_LIMIT_BYTES)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        print(json.dumps({"ok": True}), flush=True)
        while line := await reader.readline():
            request = json.loads(line)
            work: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]] = getattr(commands, request["do"])
            try:
                answer = {"ok": True, **await work(request)}
            except (StookError, OSError) as error:
                answer = {"ok": False, "why": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
        transport.close()


def main() -> None:
    configure_logging("error")
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    main()
