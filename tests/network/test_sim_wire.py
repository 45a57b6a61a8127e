"""What simulated networks found in the wire, each in its smallest form."""

from __future__ import annotations

import asyncio

import pytest

from stook.errors import DeadlineError, PeerError
from stook.sim.loop import run
from stook.sim.network import Path
from stook.sim.testnet import Testnet
from stook.wire.endpoint import Endpoint, Exchange, Peer

MIB = 1 << 20


def ends(net: Testnet) -> tuple[Endpoint, Endpoint, Peer]:
    """The renter's endpoint, the first farmer's, and how to reach that."""
    farmer = net.farmers[0]
    return net.renter.endpoint, farmer.endpoint, farmer.peer


def test_credit_and_reset_in_one_packet_stop_the_sender():
    """The sender, woken by the credit, used to run into the end of the exchange as if that were its own bug."""
    stopped: list[Exception] = []

    async def main() -> None:
        async with Testnet(farmers=1, seed=1) as net:
            caller, callee, peer = ends(net)

            async def pour(exchange: Exchange, payload: bytes) -> None:
                await exchange.reply(b"")
                try:
                    await exchange.send(bytes(4 * MIB))
                except PeerError as error:
                    stopped.append(error)
                    raise

            callee.handle("POUR", pour)
            async with caller.exchange(peer, "POUR", b"", deadline_seconds=60) as exchange:
                await exchange.next_reply()
                await exchange.receive_into(memoryview(bytearray(64 * 1024)))
                await asyncio.sleep(1)
                exchange.post(memoryview(bytearray(MIB)))  # and leave at once
            await asyncio.sleep(1)
            assert len(stopped) == 1

    run(main(), within_seconds=100)


def test_a_caller_may_leave_before_its_request_has_left():
    async def main() -> None:
        async with Testnet(farmers=1, seed=1) as net:
            caller, callee, peer = ends(net)
            served: list[bytes] = []

            async def serve(exchange: Exchange, payload: bytes) -> None:
                served.append(payload)
                await exchange.reply(payload)

            callee.handle("ECHO", serve)
            await caller.ping(peer, deadline_seconds=10)
            for number in range(3):
                async with caller.exchange(peer, "ECHO", bytes([number]), deadline_seconds=60):
                    pass
            assert await caller.call(peer, "ECHO", b"still here", deadline_seconds=60) == b"still here"
            await asyncio.sleep(1)
            assert served[-1] == b"still here"

    run(main(), within_seconds=100)


def test_bytes_on_their_way_when_a_line_breaks_do_not_keep_a_dead_session():
    async def main() -> None:
        async with Testnet(farmers=1, seed=1, path=Path(delay_seconds=0.1, jitter_seconds=0.0)) as net:
            caller, callee, peer = ends(net)

            async def late(exchange: Exchange, payload: bytes) -> None:
                await exchange.reply(b"")
                await asyncio.sleep(0.35)
                await exchange.reply(b"on its way")

            callee.handle("LATE", late)
            async with caller.exchange(peer, "LATE", b"", deadline_seconds=60) as exchange:
                await exchange.next_reply()
                await asyncio.sleep(0.3)
                net.network.unplug(net.farmers[0].host)
                with pytest.raises(DeadlineError):
                    await caller.ping(peer, deadline_seconds=10)
            net.network.plug_in(net.farmers[0].host)
            assert await caller.ping(peer, deadline_seconds=10) < 1

    run(main(), within_seconds=200)


def test_a_dead_session_with_an_exchange_given_up_is_not_kept_for_ever():
    """The peer's END never came, so the session was never idle, and the first call a day later waited in vain."""

    async def main() -> None:
        async with Testnet(farmers=1, seed=1) as net:
            caller, callee, peer = ends(net)

            async def mute(exchange: Exchange, payload: bytes) -> None:
                await exchange.reply(b"")
                await asyncio.get_running_loop().create_future()

            callee.handle("MUTE", mute)
            async with caller.exchange(peer, "MUTE", b"", deadline_seconds=60) as exchange:
                await exchange.next_reply()
                net.network.unplug("renter")
            await asyncio.sleep(600)
            net.network.plug_in("renter")
            assert await caller.ping(peer, deadline_seconds=10) < 1

    run(main(), within_seconds=2_000)
