"""The wire over real TLS sockets, with the people who would like to be in between."""

import asyncio
import contextlib
import ssl
import time

import pytest

from stook.errors import MisbehaviourError, ReasonCode, RefusedError, UnreachableError
from stook.identity.contact import Address, AddressKind
from stook.identity.keys import NodeKey
from stook.wire import frames
from stook.wire.endpoint import Endpoint, Limits, Peer
from stook.wire.frames import INITIAL_CREDIT_BYTES, FrameType
from stook.wire.tcp import TcpCarrier
from stook.wire.tls import new_tls_identity
from wire_samples import NETWORK, Dice, listening

pytestmark = pytest.mark.system


class RealClock:
    def now_ms(self):
        return time.time_ns() // 1_000_000

    def monotonic(self):
        return time.monotonic()


def node(number, **changes):
    values = {
        "key": NodeKey.from_secret(bytes([number]) * 32),
        "network": NETWORK,
        "clock": RealClock(),
        "entropy": Dice(number),
        "carrier": TcpCarrier(),
    }
    return Endpoint(**(values | changes))


def scene(story):
    """Run a story with a caller and a listening callee, and wait until everything is closed."""

    def test():
        async def main():
            caller, callee = node(1), node(2, limits=Limits(handshake_seconds=0.5))
            to = await listening(callee)
            try:
                async with asyncio.timeout(30):
                    await story(caller, callee, to)
            finally:
                await caller.close(grace_seconds=1)
                await callee.close(grace_seconds=1)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left

        asyncio.run(main())

    test.__name__, test.__doc__ = story.__name__, story.__doc__
    return test


async def raw_tls(to, version=ssl.TLSVersion.TLSv1_3):
    """A TLS connection to a node, in the hands of a stranger."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    address = to.addresses[0]
    return await asyncio.open_connection(address.host, address.port, ssl=context)


async def hang_up(writer):
    writer.close()
    try:
        await writer.wait_closed()
    except (OSError, ssl.SSLError):
        return


class Middleman:
    """Terminates TLS with a certificate of its own on one side and as a client on the other."""

    def __init__(self, target):
        self.target = target
        self.tasks = set()
        self.plain_bytes = 0

    async def start(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=new_tls_identity().server)
        return self.server.sockets[0].getsockname()[:2]

    async def _serve(self, reader, writer):
        there, back = await raw_tls(self.target)
        self.tasks |= {asyncio.current_task()}
        await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    async def _carry(self, reader, writer):
        try:
            while data := await reader.read(65536):
                self.plain_bytes += len(data)
                writer.write(data)
                await writer.drain()
        except (OSError, ssl.SSLError):
            pass
        await hang_up(writer)

    async def stop(self):
        self.server.close()
        await self.server.wait_closed()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@scene
async def test_a_man_in_the_middle_is_refused(caller, callee, to):
    middle = Middleman(to)
    host, port = await middle.start()
    with pytest.raises((RefusedError, MisbehaviourError)) as caught:
        await caller.ping(Peer(to.node_id, (Address(AddressKind.DIRECT, host, port),)), deadline_seconds=5)
    assert caught.value.code is ReasonCode.WRONG_CHANNEL
    assert middle.plain_bytes > 0  # he did read both hellos, and they were of no use to him
    assert callee.connected_peers == caller.connected_peers == ()
    await middle.stop()
    assert await caller.ping(to, deadline_seconds=5) < 5


@scene
async def test_a_man_in_the_middle_cannot_probe_either(caller, callee, to):
    middle = Middleman(to)
    host, port = await middle.start()
    with pytest.raises((RefusedError, MisbehaviourError)) as caught:
        await caller.probe(host, port, deadline_seconds=5)
    assert caught.value.code is ReasonCode.WRONG_CHANNEL
    await middle.stop()


@scene
async def test_megabytes_both_ways_at_once(caller, callee, to):
    data = Dice(5)(6_000_000)

    async def swap(exchange, payload):
        buffer = bytearray(len(data))
        await exchange.reply(b"")
        await asyncio.gather(exchange.send(data), exchange.receive_into(memoryview(buffer)))
        await exchange.expect_end()
        if buffer != data:
            raise RefusedError(ReasonCode.HASH_MISMATCH)
        await exchange.reply(b"same")

    callee.handle("SWAP", swap)

    async def once():
        async with caller.exchange(to, "SWAP", b"", deadline_seconds=20) as exchange:
            await exchange.next_reply()
            buffer = bytearray(len(data))
            await asyncio.gather(exchange.receive_into(memoryview(buffer)), exchange.send(data))
            await exchange.finish()
            assert buffer == data
            return await exchange.next_reply()

    assert await asyncio.gather(once(), once(), once()) == [b"same"] * 3
    assert len(caller._pool.links) == 1


@scene
async def test_what_nobody_reads_is_not_sent(caller, callee, to):
    gate = asyncio.Event()

    async def lazy(exchange, payload):
        await gate.wait()
        await exchange.refuse(ReasonCode.BUSY)

    callee.handle("LAZY", lazy)
    async with caller.exchange(to, "LAZY", b"", deadline_seconds=20) as exchange:
        sending = asyncio.create_task(exchange.send(bytes(50_000_000)))
        for _ in range(5):
            await caller.ping(to, deadline_seconds=5)
        assert exchange.sent == INITIAL_CREDIT_BYTES
        gate.set()
        with pytest.raises(RefusedError):
            await sending


@scene
async def test_a_stranger_who_stays_silent_after_tls(caller, callee, to):
    reader, writer = await raw_tls(to)
    said = await reader.readexactly(9 + 14)  # after the handshake deadline of half a second
    assert frames.parse_goodbye(said[9:])[0] is ReasonCode.TOO_SLOW
    with contextlib.suppress(OSError, ssl.SSLError):
        await reader.read()
    await hang_up(writer)
    assert callee._pool.links == ()


@scene
async def test_a_stranger_who_stays_silent_before_tls(caller, callee, to):
    address = to.addresses[0]
    reader, writer = await asyncio.open_connection(address.host, address.port)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""  # the handshake deadline of half a second ends it
    await hang_up(writer)
    assert callee._pool.links == ()


@scene
async def test_a_stranger_who_speaks_no_tls(caller, callee, to):
    address = to.addresses[0]
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n" * 100)
    with contextlib.suppress(ConnectionError):
        assert b"HTTP" not in await reader.read()
    await hang_up(writer)
    await caller.ping(to, deadline_seconds=5)


@scene
async def test_older_tls_is_refused(caller, callee, to):
    with pytest.raises((ssl.SSLError, OSError)):
        await raw_tls(to, ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frames.header(FrameType.HELLO, 0, 4096)[:5] + b"\0\0\0\1" + bytes(100), ReasonCode.MALFORMED),
        ((1 << 31).to_bytes(4, "big") + bytes([FrameType.HELLO]) + bytes(4), ReasonCode.TOO_LARGE),
        (b"\xff" * 100, ReasonCode.MALFORMED),
        (frames.header(FrameType.HELLO, 0, 64) + bytes(64), ReasonCode.MALFORMED),
    ],
)
def test_a_stranger_who_speaks_nonsense(data, code):
    @scene
    async def story(caller, callee, to):
        reader, writer = await raw_tls(to)
        writer.write(data)
        said = await reader.readexactly(9 + 14)
        assert frames.parse_goodbye(said[9:])[0] is code
        await hang_up(writer)

    story()


@scene
async def test_a_server_that_is_no_node(caller, callee, to):
    async def shout(reader, writer):
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await hang_up(writer)

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    address = Address(AddressKind.DIRECT, *server.sockets[0].getsockname()[:2])
    with pytest.raises(UnreachableError):
        await caller.ping(Peer(to.node_id, (address,)), deadline_seconds=5)
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("host", ["a" * 255, "a..b", "-", "1.2.3.4.5", "::::"])
def test_addresses_that_lead_nowhere(host):
    @scene
    async def story(caller, callee, to):
        with pytest.raises(UnreachableError):
            await caller.ping(Peer(to.node_id, (Address(AddressKind.DIRECT, host, 9),)), deadline_seconds=5)

    story()


def test_a_server_that_never_answers():
    async def main():
        caller = node(1, limits=Limits(handshake_seconds=0.3))
        open_ends = []
        server = await asyncio.start_server(lambda reader, writer: open_ends.append(writer), "127.0.0.1", 0)
        address = Address(AddressKind.DIRECT, *server.sockets[0].getsockname()[:2])
        with pytest.raises(UnreachableError):
            await caller.ping(Peer(NodeKey.from_secret(b"\x02" * 32).node_id, (address,)), deadline_seconds=5)
        await caller.close()
        for writer in open_ends:
            await hang_up(writer)
        server.close()
        await server.wait_closed()

    asyncio.run(main())


@scene
async def test_cancelling_and_calling_again(caller, callee, to):
    async def pour(exchange, payload):
        await exchange.send(bytes(30_000_000))

    callee.handle("POUR", pour)
    buffer = bytearray(30_000_000)

    async def drink():
        async with caller.exchange(to, "POUR", b"", deadline_seconds=20) as exchange:
            head = exchange.post(memoryview(buffer)[:100_000])
            rest = exchange.post(memoryview(buffer)[100_000:])
            await exchange.filled(head)
            begun.set()
            await exchange.filled(rest)

    for _ in range(3):
        begun = asyncio.Event()
        task = asyncio.create_task(drink())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await caller.ping(to, deadline_seconds=5)
    assert len(caller._pool.links) == 1
