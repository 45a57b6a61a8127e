"""What the wire costs: CPU seconds per gigabyte at each end and MB/s over TLS loopback, and signed messages a second.

    python -m bench.wire [--gigabytes 1] [--runs 5] [--only plain ...]

Two processes, one per end, fresh for each run; the roads take turns, so that a busy spell hits all alike. Three
yardsticks in the same run, because absolute rates of a machine say little: plain blocking sockets, asyncio's own TLS
(bytes thrown away as they come), and OpenSSL's record layer alone, in memory. `wire_stream` is one exchange for
everything; `wire_shards_of_4_mib` opens one for each shard, with three signed messages, one after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import socket
import ssl
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe
from typing import Any

from bench.common import report, spread
from stook.identity.contact import Address, AddressKind
from stook.identity.keys import NodeKey
from stook.ids import NetworkId
from stook.wire.endpoint import Endpoint, Peer
from stook.wire.tcp import TcpCarrier
from stook.wire.tls import TlsStream, new_tls_identity

PIECE = 1 << 20
SHARD = 4 << 20
HOST = "127.0.0.1"
CALLER = NodeKey.from_secret(b"\x01" * 32)
CALLEE = NodeKey.from_secret(b"\x02" * 32)


class Clock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


class Meter:
    """CPU and wall seconds since it was made, all threads."""

    def __init__(self) -> None:
        self.cpu, self.wall = time.process_time(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        return time.process_time() - self.cpu, time.perf_counter() - self.wall


def endpoint(key: NodeKey) -> Endpoint:
    return Endpoint(key=key, network=NetworkId("bench"), clock=Clock(), entropy=os.urandom, carrier=TcpCarrier())


def peer_at(port: int) -> Peer:
    return Peer(CALLEE.node_id, (Address(AddressKind.DIRECT, HOST, port),))


# --- yardstick: plain blocking sockets -------------------------------------------------------------------------------


def plain_receiver(pipe: Pipe, size: int) -> None:
    with socket.create_server((HOST, 0)) as server:
        pipe.send(server.getsockname()[1])
        connection, _ = server.accept()
    buffer = memoryview(bytearray(PIECE))
    meter, left = Meter(), size
    with connection:
        while left:
            left -= connection.recv_into(buffer)
    pipe.send(meter.read())


def plain_sender(port: int, size: int) -> tuple[float, float]:
    data = memoryview(os.urandom(PIECE))
    with socket.create_connection((HOST, port)) as connection:
        meter = Meter()
        for _ in range(size // PIECE):
            connection.sendall(data)
        return meter.read()


# --- asyncio's own TLS -----------------------------------------------------------------------------------------------


def asyncio_tls_receiver(pipe: Pipe, size: int) -> None:
    class Sink(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.left, self.meter = size, Meter()

        def data_received(self, data: bytes) -> None:
            self.left -= len(data)
            if self.left <= 0:
                pipe.send(self.meter.read())
                self.transport.close()
                done.set_result(None)

    async def main() -> None:
        nonlocal done
        done = asyncio.get_running_loop().create_future()
        server = await asyncio.get_running_loop().create_server(Sink, HOST, 0, ssl=new_tls_identity().server)
        pipe.send(server.sockets[0].getsockname()[1])
        await done
        server.close()

    done: Any = None
    asyncio.run(main())


def asyncio_tls_sender(port: int, size: int) -> tuple[float, float]:
    async def main() -> tuple[float, float]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        _, writer = await asyncio.open_connection(HOST, port, ssl=context)
        data = os.urandom(PIECE)
        meter = Meter()
        for _ in range(size // PIECE):
            writer.write(data)
            await writer.drain()
        reading = meter.read()
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
        return reading

    return asyncio.run(main())


# --- our wire --------------------------------------------------------------------------------------------------------


def shard_receiver(pipe: Pipe, size: int) -> None:
    async def main() -> None:
        callee = endpoint(CALLEE)
        done = asyncio.Event()
        blocks = [memoryview(bytearray(PIECE)) for _ in range(4)]
        meter = Meter()

        async def put(exchange: Any, payload: bytes) -> None:
            nonlocal meter
            if payload == b"start":
                meter = Meter()
            if payload == b"stop":
                pipe.send(meter.read())
                done.set()
            else:
                await exchange.reply(b"ready")
                for posted in [exchange.post(block) for block in blocks]:
                    await exchange.filled(posted)
                await exchange.expect_end()
            await exchange.reply(b"")

        callee.handle("PUT", put)
        _, port = await callee.listen(HOST, 0)
        pipe.send(port)
        await done.wait()
        await callee.close()

    asyncio.run(main())


def shard_sender(port: int, size: int) -> tuple[float, float]:
    async def main() -> tuple[float, float]:
        caller = endpoint(CALLER)
        to = peer_at(port)
        data = memoryview(os.urandom(SHARD))
        await caller.ping(to, deadline_seconds=10)
        meter = Meter()
        for number in range(size // SHARD):
            async with caller.exchange(to, "PUT", b"" if number else b"start", deadline_seconds=60) as exchange:
                await exchange.next_reply()
                await exchange.send(data)
                await exchange.finish()
                await exchange.next_reply()
        reading = meter.read()
        await caller.call(to, "PUT", b"stop", deadline_seconds=10)
        await caller.close()
        return reading

    return asyncio.run(main())


def stream_receiver(pipe: Pipe, size: int) -> None:
    """One exchange for everything, two blocks in turn, as a farmer takes a shard to disk."""

    async def main() -> None:
        callee = endpoint(CALLEE)
        done = asyncio.Event()
        blocks = [memoryview(bytearray(PIECE)) for _ in range(2)]

        async def put(exchange: Any, payload: bytes) -> None:
            meter = Meter()
            await exchange.reply(b"ready")
            posted = [exchange.post(block) for block in blocks]
            for number in range(size // PIECE):
                await exchange.filled(posted[number % 2])
                if number + 2 < size // PIECE:
                    posted[number % 2] = exchange.post(blocks[number % 2])
            await exchange.expect_end()
            pipe.send(meter.read())
            await exchange.reply(b"")
            done.set()

        callee.handle("PUT", put)
        _, port = await callee.listen(HOST, 0)
        pipe.send(port)
        await done.wait()
        await callee.close()

    asyncio.run(main())


def stream_sender(port: int, size: int) -> tuple[float, float]:
    async def main() -> tuple[float, float]:
        caller = endpoint(CALLER)
        to = peer_at(port)
        await caller.ping(to, deadline_seconds=10)
        data = memoryview(os.urandom(PIECE))
        async with caller.exchange(to, "PUT", b"", deadline_seconds=60) as exchange:
            await exchange.next_reply()
            meter = Meter()
            for _ in range(size // PIECE):
                await exchange.send(data)
            await exchange.finish()
            await exchange.next_reply()
            reading = meter.read()
        await caller.close()
        return reading

    return asyncio.run(main())


# --- messages --------------------------------------------------------------------------------------------------------


def message_receiver(pipe: Pipe, count: int) -> None:
    async def main() -> None:
        callee = endpoint(CALLEE)
        done = asyncio.Event()
        served, meter = 0, Meter()

        async def ask(exchange: Any, payload: bytes) -> None:
            nonlocal served, meter
            if not served:
                meter = Meter()
            served += 1
            await exchange.reply(payload)
            if served == count:
                pipe.send(meter.read())
                done.set()

        callee.handle("ASK", ask)
        _, port = await callee.listen(HOST, 0)
        pipe.send(port)
        await done.wait()
        await callee.close()

    asyncio.run(main())


def message_sender(port: int, count: int) -> tuple[float, float]:
    async def main() -> tuple[float, float]:
        caller = endpoint(CALLER)
        to = peer_at(port)
        await caller.ping(to, deadline_seconds=10)
        left = iter(range(count))
        payload = os.urandom(200)

        async def worker() -> None:
            for _ in left:
                await caller.call(to, "ASK", payload, deadline_seconds=30)

        meter = Meter()
        await asyncio.gather(*(worker() for _ in range(32)))
        reading = meter.read()
        await caller.close()
        return reading

    return asyncio.run(main())


# --- running ---------------------------------------------------------------------------------------------------------

Receiver = Callable[[Pipe, int], None]
Sender = Callable[[int, int], tuple[float, float]]


def measure(receiver: Receiver, sender: Sender, amount: int) -> tuple[float, float, float]:
    """CPU seconds of sender and receiver, and the sender's wall seconds, of one run in two fresh processes."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=receiver, args=(there, amount))
    process.start()
    there.close()  # so that a failing end is the end of its pipe, not a wait without end
    port = here.recv()
    out, inner = context.Pipe()
    other = context.Process(target=_send_and_tell, args=(inner, sender, port, amount))
    other.start()
    inner.close()
    sender_cpu, wall = out.recv()
    receiver_cpu, _ = here.recv()
    process.join()
    other.join()
    return sender_cpu, receiver_cpu, wall


def _send_and_tell(pipe: Pipe, sender: Sender, port: int, amount: int) -> None:
    pipe.send(sender(port, amount))


def data_figures(results: list[tuple[float, float, float]], size: int) -> dict[str, Any]:
    gigabytes = size / 1e9
    return {
        "sender_cpu_s_per_gb": spread([one[0] / gigabytes for one in results]),
        "receiver_cpu_s_per_gb": spread([one[1] / gigabytes for one in results]),
        "mb_s": spread([size / 1e6 / one[2] for one in results]),
    }


def message_figures(count: int, runs: int) -> dict[str, Any]:
    results = [measure(message_receiver, message_sender, count) for _ in range(runs)]
    return {
        "calls": count,
        "calls_per_s": spread([count / one[2] for one in results]),
        "caller_cpu_us_per_call": spread([one[0] / count * 1e6 for one in results]),
        "callee_cpu_us_per_call": spread([one[1] / count * 1e6 for one in results]),
    }


def record_layer(runs: int) -> dict[str, Any]:
    """CPU seconds per gigabyte of OpenSSL alone, in memory, in pieces of 1 MiB."""
    identity = new_tls_identity()
    client, server = TlsStream(identity.client, server=False), TlsStream(identity.server, server=True)
    while not (client.shake() and server.shake()):
        server.put_ciphertext(client.take_ciphertext())
        server.shake()
        client.put_ciphertext(server.take_ciphertext())
    server.put_ciphertext(client.take_ciphertext())
    data, buffer = os.urandom(PIECE), memoryview(bytearray(PIECE))
    sealing, opening = [], []
    for _ in range(runs):
        seal_seconds = open_seconds = 0.0
        for _ in range(200):
            meter = Meter()
            client.write([data])
            ciphertext = client.take_ciphertext()
            seal_seconds += meter.read()[0]
            meter = Meter()
            server.put_ciphertext(ciphertext)
            at = 0
            while at < PIECE:
                at += server.read_into(buffer[at:])
            open_seconds += meter.read()[0]
        sealing.append(seal_seconds / (200 * PIECE) * 1e9)
        opening.append(open_seconds / (200 * PIECE) * 1e9)
    return {"seal_cpu_s_per_gb": spread(sealing), "open_cpu_s_per_gb": spread(opening)}


def main() -> None:
    roads: dict[str, tuple[str, Receiver, Sender]] = {
        "plain": ("plain_blocking_sockets", plain_receiver, plain_sender),
        "asyncio": ("asyncio_tls", asyncio_tls_receiver, asyncio_tls_sender),
        "stream": ("wire_stream", stream_receiver, stream_sender),
        "shards": ("wire_shards_of_4_mib", shard_receiver, shard_sender),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=["records", *roads, "messages"], action="append")
    chosen = parser.parse_args()
    size = int(chosen.gigabytes * 1e9) // SHARD * SHARD
    wanted = chosen.only or ["records", *roads, "messages"]
    result: dict[str, Any] = {"openssl": ssl.OPENSSL_VERSION, "bytes": size, "runs": chosen.runs}
    if "records" in wanted:
        result["openssl_record_layer"] = record_layer(chosen.runs)
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in roads if name in wanted}
    for _ in range(chosen.runs):
        for name, taken in results.items():
            taken.append(measure(roads[name][1], roads[name][2], size))
    for name, taken in results.items():
        result[roads[name][0]] = data_figures(taken, size)
    if "messages" in wanted:
        result["messages"] = message_figures(chosen.messages, chosen.runs)
    report("wire", result)


if __name__ == "__main__":
    main()
