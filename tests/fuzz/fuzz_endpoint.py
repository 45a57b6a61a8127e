"""Targets: a whole endpoint in virtual time, called by an attacker, and calling one.

The attacker holds a valid key and says what its script says (`fuzz_session.HostilePeer`). Whatever that is: nothing
reaches the hook for unexpected errors, every call ends in time, no task is left behind, and closing comes to an end.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import wire_samples as wires
from fuzz_base import Memory, Tape, check_text, target
from fuzz_session import MAX_EXCHANGES, HostilePeer, scripts
from stook.codec import decode
from stook.errors import BugError, StookError
from stook.identity.envelope import Envelope
from stook.wire.carrier import Connection
from stook.wire.endpoint import Endpoint, Exchange, Limits, Peer
from stook.wire.frames import HEADER_BYTES, FrameType, parse_header
from stook.wire.hello import Hello, Role, SignedHello


class RawEnd:
    """The attacker's end of a connection: keeps what comes, up to a megabyte."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self._room = memoryview(bytearray(65536))

    def receive_buffer(self) -> memoryview:
        return self._room

    def received(self, size_bytes: int) -> None:
        self.heard += self._room[: size_bytes if len(self.heard) < 1 << 20 else 0]

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def connection_lost(self, reason: Exception | None) -> None: ...

    def frames(self) -> list[tuple[FrameType, int, bytes]]:
        """Type, exchange and body of every whole frame heard so far."""
        found, at = [], 0
        while at + HEADER_BYTES <= len(self.heard):
            frame, exchange_id, body_bytes = parse_header(memoryview(self.heard)[at : at + HEADER_BYTES])
            at += HEADER_BYTES + body_bytes
            if at <= len(self.heard):
                found.append((frame, exchange_id, bytes(self.heard[at - body_bytes : at])))
        return found

    def greeting(self) -> Hello:
        """What the other end said first."""
        frame, _, body = self.frames()[0]
        assert frame is FrameType.HELLO
        return decode(SignedHello, body).hello


async def _put(exchange: Exchange, payload: bytes) -> None:
    await exchange.receive_into(memoryview(bytearray(1 + 300 * len(payload))))
    await exchange.reply(b"stored")


async def _get(exchange: Exchange, payload: bytes) -> None:
    await exchange.reply(b"here")
    await exchange.send(bytes(1 + 3000 * len(payload)))
    await exchange.expect_end()


async def _wait(exchange: Exchange, payload: bytes) -> None:
    await asyncio.sleep(len(payload))
    await exchange.reply(payload)


@target(
    "wire.endpoint",
    seeds=scripts,
    covers=("stook.wire.endpoint.Endpoint.listen",),
    memory=Memory(64, 24 << 20),
    weight=100,
)
def endpoint(data: bytes) -> None:
    """A listening node with handlers that move bytes."""
    wires.run_virtual(_attack(Tape(data)))


def _node(tape: Tape) -> tuple[wires.World, Endpoint]:
    """A node in a world of its own; some have caps on their bandwidth, which change how buffers are posted."""
    world = wires.World()
    limits = Limits(
        max_exchanges_per_session=MAX_EXCHANGES,
        max_request_bytes_per_session=100,
        upload_bytes_per_second=tape.pick((0, 0, 2000)),
        download_bytes_per_second=tape.pick((0, 0, 2000)),
    )
    node = world.node(2, limits=limits)
    for method, handler in (("PUT", _put), ("GET", _get), ("WAIT", _wait)):
        node.handle(method, handler)
    return world, node


async def _attack(tape: Tape) -> None:
    world, node = _node(tape)
    _, port = await node.listen("h2", 0)
    end = RawEnd()
    connection = await world.network.carrier("h1").connect("h2", port, lambda _: end)
    peer = HostilePeer(tape, ours=wires.BOB, peer=wires.ALICE, role=Role.RESPONDER, channel=connection.channel)
    connection.write([peer.hello()])
    await asyncio.sleep(1)
    peer.nonce = end.greeting().nonce
    for _ in range(40):
        if tape.over:
            break
        peer.now_ms = node.clock.now_ms()
        peer.peer_acts()
        if tape.number(1):
            connection.write([bytes(peer.wire)])
            peer.wire.clear()
            await asyncio.sleep(tape.pick((0, 0, 1, 40, 400)))
    if tape.number(1):
        connection.close() if tape.number(1) else connection.abort()
        await asyncio.sleep(tape.pick((0, 100)))
    await world.close()
    connection.abort()
    await asyncio.sleep(300)
    assert not world.errors, world.errors


class HostileCallee(HostilePeer):
    """Answers what it is asked, so to speak."""

    def __init__(self, tape: Tape, end: RawEnd, channel: bytes) -> None:
        super().__init__(tape, ours=wires.BOB, peer=wires.ALICE, role=Role.INITIATOR, channel=channel)
        self.end = end

    def exchanges(self) -> list[int]:
        return sorted({number for _, number, _ in self.end.frames()} | set(self.opened))

    def find(self, exchange_id: int) -> Any:
        for frame, number, body in self.end.frames():
            if frame is FrameType.MESSAGE and number == exchange_id:
                asked = decode(Envelope, body)
                return SimpleNamespace(method=asked.method, request_digest=asked.digest)
        return None


@target(
    "wire.caller",
    seeds=scripts,
    covers=("stook.wire.endpoint.Endpoint.call", "stook.wire.endpoint.Endpoint.probe"),
    memory=Memory(64, 24 << 20),
    weight=100,
)
def caller(data: bytes) -> None:
    """A node that calls an attacker and is answered by the tape: each call ends with bytes or a typed error."""
    wires.run_virtual(_be_called(Tape(data)))


async def _be_called(tape: Tape) -> None:
    world, node = _node(tape)
    ends: list[tuple[RawEnd, Connection]] = []

    def accept(connection: Connection) -> RawEnd:
        ends.append((RawEnd(), connection))
        return ends[-1][0]

    listener = await world.network.carrier("h1").listen("h1", 0, accept)
    address = wires.Address(wires.AddressKind.DIRECT, *listener.address)
    peer = Peer(wires.ALICE.node_id, (address,))
    calls = [asyncio.create_task(_call(node, peer, tape.number(3))) for _ in range(1 + tape.number(3))]
    await asyncio.sleep(0.1)
    callees: dict[int, HostileCallee] = {}
    for _ in range(40):
        if tape.over:
            break
        for number, (end, connection) in enumerate(ends):
            if number not in callees and end.heard:
                callee = callees[number] = HostileCallee(tape, end, connection.channel)
                callee.nonce = end.greeting().nonce
                connection.write([callee.hello() if tape.number(7) else tape.spoiled(callee.hello())])
        await asyncio.sleep(tape.pick((0, 0, 0.5, 20)))
        if callees:
            number = tape.pick(sorted(callees))
            callees[number].now_ms = node.clock.now_ms()
            callees[number].peer_acts()
            if tape.number(1):
                ends[number][1].write([bytes(callees[number].wire)])
                callees[number].wire.clear()
    for _, connection in ends[tape.number(1) :]:
        connection.close() if tape.number(1) else connection.abort()
    await asyncio.gather(*calls)
    await world.close()
    for _, connection in ends:
        connection.abort()
    await listener.close()
    await asyncio.sleep(300)
    assert not world.errors, world.errors


async def _call(node: Endpoint, peer: Peer, what: int) -> None:
    """One call of one kind. Raises what is no typed error."""
    try:
        match what:
            case 0:
                await node.call(peer, "PUT", b"payload", deadline_seconds=50)
            case 1:
                async with node.exchange(peer, "GET", b"payload", deadline_seconds=50) as exchange:
                    await exchange.send(bytes(100_000))
                    await exchange.next_reply()
                    await exchange.receive_into(memoryview(bytearray(200)))
                    await exchange.finish()
                    await exchange.expect_end()
            case 2:
                await node.ping(peer, deadline_seconds=50)
            case _:
                await node.probe(peer.addresses[0].host, peer.addresses[0].port, deadline_seconds=50)
    except BugError:
        raise
    except StookError as error:
        check_text(error)
