"""What a peer sends in one piece: everything in it is judged before anybody acts on the first of it."""

import asyncio

import pytest

from stook.errors import ReasonCode
from stook.wire import frames
from stook.wire.events import Broken, GoodbyeReceived, ReplyReceived
from wire_samples import NOW_MS, World, initiator, listening, message_id, outgoing, run_virtual


class Caller:
    """A session whose bytes a test may hold back and join."""

    def __init__(self, channel: bytes) -> None:
        self.session = initiator(channel=channel)
        self.events = []
        self.over = False
        self._room = memoryview(bytearray(65536))

    def receive_buffer(self):
        return self._room

    def received(self, size_bytes):
        self.events += self.session.feed(bytes(self._room[:size_bytes]), NOW_MS)

    def pause_writing(self): ...

    def resume_writing(self): ...

    def connection_lost(self, reason):
        self.over = True

    def heard(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


async def called(world):
    """A node that answers WAIT, a raw caller that has said hello, and what the handler got."""
    served = []
    node = world.node(2)

    async def wait(exchange, payload):
        served.append(payload)
        await exchange.reply(payload)

    node.handle("WAIT", wait)
    peer = await listening(node)
    callers = []

    def accept(connection):
        callers.append(Caller(connection.channel))
        return callers[0]

    address = peer.addresses[0]
    connection = await world.network.carrier("h1").connect("h2", address.port, accept)
    caller = callers[0]
    caller.session.greet(NOW_MS)
    connection.write([outgoing(caller.session)])
    await asyncio.sleep(1)
    return caller, connection, served


def ask(caller, number):
    return caller.session.request("WAIT", b"%d" % number, now_ms=NOW_MS, message_id=message_id(number), alone=False)


@pytest.mark.parametrize("code", [ReasonCode.CANCELLED, ReasonCode.BUSY])
def test_a_request_given_up_in_the_same_piece_is_not_served_and_harms_nothing(code):
    """Found by fuzzing: the exchange was over before the link looked for it."""

    async def story():
        world = World()
        caller, connection, served = await called(world)
        caller.session.reset(ask(caller, 1), code)
        ask(caller, 2)
        connection.write([outgoing(caller.session)])
        await asyncio.sleep(1)
        assert served == [b"2"]
        assert [event.payload for event in caller.heard(ReplyReceived)] == [b"2"]
        connection.close()
        await world.close()
        assert not world.errors

    run_virtual(story())


def test_a_request_before_a_broken_rule_in_the_same_piece_is_not_served():
    async def story():
        world = World()
        caller, connection, served = await called(world)
        ask(caller, 1)
        connection.write([outgoing(caller.session) + frames.end_frame(99)])
        await asyncio.sleep(10)
        assert served == []
        assert [event.code for event in caller.heard(GoodbyeReceived)] == [ReasonCode.UNKNOWN_EXCHANGE]
        assert not caller.heard(Broken)
        assert caller.over, "the node hangs up on who breaks a rule"
        await world.close()
        assert not world.errors

    run_virtual(story())
