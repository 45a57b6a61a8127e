"""What every carrier promises, over sockets and in memory."""

import asyncio
import contextlib

import pytest

from stook.errors import EnvironmentFault, UnreachableError
from stook.wire.memory import Network
from stook.wire.tcp import TcpCarrier
from wire_samples import Dice


class Recorder:
    """A receiver that keeps everything, in buffers of a size the test chooses."""

    def __init__(self, connection, room=5000):
        self.connection = connection
        self.data = bytearray()
        self.ends = []
        self.paused = 0
        self.changed = asyncio.Event()
        self._room = bytearray(room)

    def receive_buffer(self):
        return memoryview(self._room)

    def received(self, size_bytes):
        assert 0 < size_bytes <= len(self._room)
        self.data += self._room[:size_bytes]
        self.changed.set()

    def pause_writing(self):
        self.paused += 1
        self.changed.set()

    def resume_writing(self):
        self.paused -= 1
        self.changed.set()

    def connection_lost(self, reason):
        self.ends.append(reason)
        self.changed.set()

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Place:
    """Two carriers that reach each other."""

    def __init__(self, kind):
        if kind == "memory":
            network = Network(Dice(1))
            self.carriers = network.carrier("a"), network.carrier("b")
        else:
            self.carriers = TcpCarrier(), TcpCarrier()
        self.accepted = []
        self.arrival = asyncio.Event()

    async def listen(self, turn_away=False, room=5000):
        def accept(connection):
            if turn_away:
                return None
            self.accepted.append(Recorder(connection, room))
            self.arrival.set()
            return self.accepted[-1]

        return await self.carriers[1].listen("127.0.0.1", 0, accept)

    async def join(self, listener, room=5000):
        made = []

        def accept(connection):
            made.append(Recorder(connection, room))
            return made[-1]

        connection = await self.carriers[0].connect(*listener.address, accept)
        assert made[0].connection is connection
        async with asyncio.timeout(10):
            await self.arrival.wait()
        return made[0], self.accepted[-1]


def both(story):
    """Run a story over each carrier."""

    def test(kind):
        async def main():
            async with asyncio.timeout(20):
                await story(Place(kind))

        asyncio.run(main())

    test.__name__, test.__doc__ = story.__name__, story.__doc__
    return pytest.mark.parametrize("kind", ["memory", "tcp"])(test)


async def part(*recorders):
    """Close everything and wait until it is over."""
    for recorder in recorders:
        recorder.connection.close()
    for recorder in recorders:
        await recorder.until(lambda recorder=recorder: recorder.ends)


@both
async def test_bytes_arrive_whole_and_in_order(place):
    listener = await place.listen()
    here, there = await place.join(listener)
    data = bytes(i * 31 % 256 for i in range(1_000_003))
    reused = bytearray(data[:70_000])
    here.connection.write([reused, b"", memoryview(data)[70_000:]])
    reused[:] = bytes(70_000)  # ours again as soon as `write` returns
    there.connection.write([b"and back"])
    await there.until(lambda: len(there.data) >= len(data))
    await here.until(lambda: len(here.data) >= 8)
    assert there.data == data
    assert here.data == b"and back"
    await part(here, there)
    await listener.close()


@both
async def test_both_ends_see_the_same_channel(place):
    listener = await place.listen()
    here, there = await place.join(listener)
    assert here.connection.channel == there.connection.channel
    assert len(here.connection.channel) == 32
    assert here.connection.remote == listener.address
    assert there.connection.remote[1] > 0
    await part(here, there)
    await listener.close()


@both
async def test_close_sends_what_was_written(place):
    listener = await place.listen()
    here, there = await place.join(listener, room=16384)
    here.connection.write([bytes(500_000)])
    here.connection.close()
    here.connection.write([b"too late"])
    here.connection.close()
    await there.until(lambda: there.ends)
    assert len(there.data) == 500_000
    assert there.ends == [None]
    await here.until(lambda: here.ends)
    await listener.close()


@both
async def test_abort_ends_both_sides_once(place):
    listener = await place.listen()
    here, there = await place.join(listener)
    here.connection.abort()
    here.connection.abort()
    await here.until(lambda: here.ends)
    await there.until(lambda: there.ends)
    there.connection.write([b"nobody hears this"])
    there.connection.abort()
    there.connection.close()
    await asyncio.sleep(0)
    assert len(here.ends) == len(there.ends) == 1
    await listener.close()


@both
async def test_a_writer_is_told_to_pause_and_to_go_on(place):
    listener = await place.listen()
    here, there = await place.join(listener)
    sent = 0
    while not here.paused:
        here.connection.write([bytes(1 << 20)])
        sent += 1 << 20
        assert sent < 64 << 20
    assert here.connection.backlog_bytes > 0
    await here.until(lambda: not here.paused)
    await there.until(lambda: len(there.data) == sent)
    assert here.connection.backlog_bytes == 0
    await part(here, there)
    await listener.close()


@both
async def test_nobody_there(place):
    listener = await place.listen()
    address = listener.address
    await listener.close()
    with pytest.raises(UnreachableError):
        await place.carriers[0].connect(*address, lambda connection: Recorder(connection))


@both
async def test_a_port_is_taken_once(place):
    listener = await place.listen()
    with pytest.raises(EnvironmentFault):
        await place.carriers[1].listen(*listener.address, lambda connection: None)
    await listener.close()


@both
async def test_a_newcomer_turned_away(place):
    listener = await place.listen(turn_away=True)
    ours = []

    def accept(connection):
        ours.append(Recorder(connection))
        return ours[0]

    try:
        connection = await place.carriers[0].connect(*listener.address, accept)
    except UnreachableError:
        assert not ours
    else:
        assert connection is ours[0].connection
        await ours[0].until(lambda: ours[0].ends)
    await listener.close()


@both
async def test_turning_our_own_connection_away(place):
    listener = await place.listen()
    with contextlib.suppress(UnreachableError):
        await place.carriers[0].connect(*listener.address, lambda connection: None)
    if place.accepted:
        await place.accepted[0].until(lambda: place.accepted[0].ends)
    await listener.close()
