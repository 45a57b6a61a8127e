"""Endpoints over a memory network in virtual time: calls, transfers, deadlines, cuts, and what a rude peer can do."""

import asyncio

import pytest

from stook.errors import (
    DeadlineError,
    MisbehaviourError,
    NotFoundError,
    ReasonCode,
    RefusedError,
    UnreachableError,
)
from stook.identity.contact import Address, AddressKind, Contact, SignedContact
from stook.identity.keys import NodeKey
from stook.wire.endpoint import Endpoint, Limits, Peer, Reached
from stook.wire.frames import INITIAL_CREDIT_BYTES
from wire_samples import BOB, CAROL, NETWORK, NOW_MS, LoopClock, Wind, World, listening, run_virtual

DATA = bytes(i * 7 % 256 for i in range(300_000))


def loop_time():
    return asyncio.get_running_loop().time()


async def settle(seconds=3.0):
    await asyncio.sleep(seconds)


async def echo(exchange, payload):
    await exchange.reply(payload)


async def take(exchange, payload):
    """Receive as many bytes as the payload says and tell how many came."""
    await exchange.reply(b"ready")
    buffer = bytearray(int(payload))
    await exchange.receive_into(memoryview(buffer))
    await exchange.expect_end()
    await exchange.reply(b"good" if bytes(buffer) == DATA[: len(buffer)] else b"bad")


async def give(exchange, payload):
    await exchange.reply(b"ready")
    await exchange.send(DATA[: int(payload)])
    await exchange.finish()


async def push(caller, to, size, deadline=60.0):
    async with caller.exchange(to, "TAKE", str(size).encode(), deadline_seconds=deadline) as exchange:
        assert await exchange.next_reply() == b"ready"
        await exchange.send(DATA[:size])
        await exchange.finish()
        return await exchange.next_reply()


def scene(weather=None, **changes):
    """Run a coroutine function with a caller, a callee serving ECHO, TAKE and GIVE, and how to reach it."""

    def decorate(story):
        def test():
            async def main():
                world = World(weather() if weather else None)
                caller, callee, to = await world.pair(**changes)
                for node in (caller, callee):
                    node.handle("ECHO", echo)
                    node.handle("TAKE", take)
                    node.handle("GIVE", give)
                try:
                    await story(world, caller, callee, to)
                finally:
                    await world.close()

            run_virtual(main())

        test.__name__ = story.__name__
        test.__doc__ = story.__doc__
        return test

    return decorate


# --- the good road ---------------------------------------------------------------------------------------------------


@scene()
async def test_a_call_and_its_reply(world, caller, callee, to):
    assert await caller.call(to, "ECHO", b"hello", deadline_seconds=1) == b"hello"
    assert caller.connected_peers == (callee.node_id,)


@scene()
async def test_either_end_may_call_over_the_session_the_other_opened(world, caller, callee, to):
    with pytest.raises(UnreachableError):
        await callee.call(Peer(caller.node_id), "ECHO", b"", deadline_seconds=1)
    await caller.ping(to, deadline_seconds=1)
    assert await callee.call(Peer(caller.node_id), "ECHO", b"back", deadline_seconds=1) == b"back"
    assert await push(callee, Peer(caller.node_id), 300_000) == b"good"


@scene(lambda: Wind(delay_seconds=0.05))
async def test_a_ping_takes_a_round_trip(world, caller, callee, to):
    await caller.ping(to, deadline_seconds=1)
    assert await caller.ping(to, deadline_seconds=1) == pytest.approx(0.1)


@pytest.mark.parametrize("size", [1, INITIAL_CREDIT_BYTES, INITIAL_CREDIT_BYTES + 1, 300_000])
def test_raw_bytes_both_ways(size):
    @scene(lambda: Wind(delay_seconds=0.02, bytes_per_second=10e6))
    async def story(world, caller, callee, to):
        assert await push(caller, to, size) == b"good"
        async with caller.exchange(to, "GIVE", str(size).encode(), deadline_seconds=9) as exchange:
            assert await exchange.next_reply() == b"ready"
            buffer = bytearray(size)
            await exchange.receive_into(memoryview(buffer))
            await exchange.expect_end()
        assert bytes(buffer) == DATA[:size]
        assert exchange.progress == size

    story()


@scene()
async def test_many_callers_share_one_session(world, caller, callee, to):
    answers = await asyncio.gather(*(caller.call(to, "ECHO", str(i).encode(), deadline_seconds=5) for i in range(200)))
    assert answers == [str(i).encode() for i in range(200)]
    assert len(caller._pool.links) == 1


@scene(limits=Limits(max_exchanges_per_session=3))
async def test_callers_wait_for_a_free_exchange(world, caller, callee, to):
    running, most = 0, 0

    async def slow(exchange, payload):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        await exchange.reply(b"")

    callee.handle("SLOW", slow)
    begun = loop_time()
    await asyncio.gather(*(caller.call(to, "SLOW", b"", deadline_seconds=60) for _ in range(9)))
    assert most == 3
    assert loop_time() - begun == pytest.approx(3, abs=0.1)


@scene()
async def test_several_replies(world, caller, callee, to):
    async def count(exchange, payload):
        for i in range(3):
            await exchange.reply(bytes([i]))

    callee.handle("COUNT", count)
    async with caller.exchange(to, "COUNT", b"", deadline_seconds=1) as exchange:
        assert [await exchange.next_reply() for _ in range(3)] == [b"\0", b"\1", b"\2"]
        with pytest.raises(MisbehaviourError) as caught:
            await exchange.next_reply()
    assert caught.value.code is ReasonCode.TRUNCATED


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "code", "reported"),
    [
        (RefusedError(ReasonCode.NO_SPACE, "full", retry_after_ms=5), ReasonCode.NO_SPACE, False),
        (MisbehaviourError(ReasonCode.HASH_MISMATCH, "unit 3"), ReasonCode.HASH_MISMATCH, False),
        (NotFoundError("secret path"), ReasonCode.INTERNAL, False),
        (KeyError("secret"), ReasonCode.INTERNAL, True),
    ],
)
def test_what_a_handler_raises_is_a_signed_refusal(raised, code, reported):
    @scene()
    async def story(world, caller, callee, to):
        async def fail(exchange, payload):
            raise raised

        callee.handle("FAIL", fail)
        with pytest.raises(RefusedError) as caught:
            await caller.call(to, "FAIL", b"", deadline_seconds=1)
        assert caught.value.code is code
        assert "secret" not in str(caught.value)
        assert caught.value.retry_after_ms == getattr(raised, "retry_after_ms", 0)
        assert world.errors == ([("FAIL", raised)] if reported else [])

    story()


@scene()
async def test_a_method_nobody_serves(world, caller, callee, to):
    with pytest.raises(RefusedError) as caught:
        await caller.call(to, "NOPE", b"", deadline_seconds=1)
    assert caught.value.code is ReasonCode.UNKNOWN_METHOD


@scene()
async def test_a_handler_that_says_nothing(world, caller, callee, to):
    async def mute(exchange, payload):
        return None

    callee.handle("MUTE", mute)
    with pytest.raises(RefusedError) as caught:
        await caller.call(to, "MUTE", b"", deadline_seconds=1)
    assert caught.value.code is ReasonCode.INTERNAL


@scene()
async def test_a_refusal_stops_a_sender(world, caller, callee, to):
    async def full(exchange, payload):
        await exchange.reply(b"ready")
        await exchange.receive_into(memoryview(bytearray(1000)))
        await exchange.refuse(ReasonCode.DISK_LOW, "no more")

    callee.handle("FULL", full)
    async with caller.exchange(to, "FULL", b"", deadline_seconds=9) as exchange:
        await exchange.next_reply()
        with pytest.raises(RefusedError) as caught:
            await exchange.send(bytes(10_000_000))
    assert caught.value.code is ReasonCode.DISK_LOW
    await settle()
    assert all(link.idle for node in (caller, callee) for link in node._pool.links)
    await caller.ping(to, deadline_seconds=1)


@scene(limits=Limits(max_request_bytes_per_session=100_000))
async def test_requests_that_pile_up_are_refused(world, caller, callee, to):
    gate = asyncio.Event()

    async def slow(exchange, payload):
        await gate.wait()
        await exchange.reply(b"")

    callee.handle("SLOW", slow)
    calls = [asyncio.create_task(caller.call(to, "SLOW", bytes(60_000), deadline_seconds=9)) for _ in range(2)]
    await asyncio.sleep(1)
    gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(str(getattr(result, "code", result)) for result in results) == ["500", "b''"]


# --- unaddressed sessions --------------------------------------------------------------------------------------------


def contact_of(key: NodeKey, peer: Peer) -> SignedContact:
    contact = Contact(
        version=1,
        network=NETWORK,
        public_key=key.public_key,
        puzzle_nonce=0,
        sequence=1,
        issued_ms=NOW_MS,
        hd_index=0,
        addresses=peer.addresses,
    )
    return SignedContact(contact, key.sign(contact.digest))


@scene()
async def test_a_probe_tells_who_lives_at_an_address(world, caller, callee, to):
    address = to.addresses[0]
    with pytest.raises(RefusedError):
        await caller.probe(address.host, address.port, deadline_seconds=1)
    callee.contact = contact_of(BOB, to)
    assert await caller.probe(address.host, address.port, deadline_seconds=1) == callee.contact
    callee.contact = contact_of(CAROL, to)
    with pytest.raises(MisbehaviourError):
        await caller.probe(address.host, address.port, deadline_seconds=1)


@scene()
async def test_an_unaddressed_session_serves_probe_alone(world, caller, callee, to):
    address = to.addresses[0]
    link = await caller._connect(address.host, address.port, None)
    for method in ("PING", "ECHO"):
        exchange = await link.open(method, b"", alone=True)
        with pytest.raises(RefusedError) as caught:
            await exchange.next_reply()
        assert caught.value.code is ReasonCode.UNADDRESSED_SESSION
    assert callee.connected_peers == ()


# --- who is there ----------------------------------------------------------------------------------------------------


@scene()
async def test_another_node_at_the_address(world, caller, callee, to):
    wrong = Peer(CAROL.node_id, to.addresses)
    with pytest.raises(RefusedError) as caught:
        await caller.call(wrong, "ECHO", b"", deadline_seconds=5)
    assert caught.value.code is ReasonCode.WRONG_RECIPIENT


@scene()
async def test_the_next_address_is_tried(world, caller, callee, to):
    nobody = Address(AddressKind.DIRECT, "h9", 1)
    relay = Address(AddressKind.RELAY, "h9", 1)
    assert await caller.call(Peer(to.node_id, (relay, nobody, *to.addresses)), "ECHO", b"x", deadline_seconds=5) == b"x"
    with pytest.raises(UnreachableError):
        await caller.call(Peer(CAROL.node_id, (nobody, relay)), "ECHO", b"", deadline_seconds=5)
    with pytest.raises(UnreachableError):
        await caller.call(Peer(caller.node_id, to.addresses), "ECHO", b"", deadline_seconds=5)


@scene()
async def test_a_clock_that_is_off_is_told_so(world, caller, callee, to):
    late = world.node(3, clock=LoopClock(skew_ms=-400_000))
    with pytest.raises(RefusedError) as caught:
        await late.call(to, "ECHO", b"", deadline_seconds=5)
    assert caught.value.code is ReasonCode.CLOCK_SKEW
    assert str(NOW_MS)[:8] in str(caught.value)


@scene()
async def test_a_contact_in_the_hello_is_told(world, caller, callee, to):
    seen = []
    listener = world.node(3, on_contact=lambda contact, reached: seen.append((contact, reached)))
    peer = await listening(listener)
    callee.contact = contact_of(BOB, to)
    await callee.ping(peer, deadline_seconds=1)
    assert seen == [(callee.contact, None)]


@scene()
async def test_a_contact_is_told_with_the_address_that_led_to_it(world, caller, callee, to):
    seen = []
    caller.on_contact = lambda contact, reached: seen.append((contact, reached))
    callee.contact = contact_of(BOB, to)
    await caller.ping(to, deadline_seconds=1)
    address = to.addresses[0]
    assert seen == [(callee.contact, Reached(address.host, address.port, address.host))]


# --- deadlines, cuts, loss -------------------------------------------------------------------------------------------


@scene()
async def test_a_call_has_a_deadline(world, caller, callee, to):
    async def stuck(exchange, payload):
        await asyncio.sleep(1000)

    callee.handle("STUCK", stuck)
    begun = loop_time()
    with pytest.raises(DeadlineError):
        await caller.call(to, "STUCK", b"", deadline_seconds=7)
    assert loop_time() - begun == pytest.approx(7)


@scene()
async def test_a_slow_handler_does_not_cost_the_session(world, caller, callee, to):
    """After a missed deadline the session is doubted, not cut: what else is under way on it goes on."""

    async def slow(exchange, payload):
        await asyncio.sleep(int(payload))
        await exchange.reply(b"at last")

    callee.handle("SLOW", slow)
    patient = asyncio.create_task(caller.call(to, "SLOW", b"60", deadline_seconds=90))
    with pytest.raises(DeadlineError):
        await caller.call(to, "SLOW", b"60", deadline_seconds=5)
    assert await caller.call(to, "ECHO", b"meanwhile", deadline_seconds=5) == b"meanwhile"
    assert await patient == b"at last"
    assert caller.connected_peers == (callee.node_id,)


@scene(limits=Limits(max_exchanges_per_session=2))
async def test_waiting_callers_may_leave(world, caller, callee, to):
    """A slot that comes free for somebody who has just left goes to the next."""

    async def slow(exchange, payload):
        await asyncio.sleep(1)
        await exchange.reply(b"")

    callee.handle("SLOW", slow)
    calls = [asyncio.create_task(caller.call(to, "SLOW", b"", deadline_seconds=60)) for _ in range(12)]
    await asyncio.sleep(1)
    for call in calls[3:9]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(result == b"" for result in results) == 6
    assert loop_time() < 5


@scene()
async def test_the_deadline_of_somebody_else_is_not_ours(world, caller, callee, to):
    async def impatient():
        async with caller.exchange(to, "TAKE", b"5", deadline_seconds=9):
            async with asyncio.timeout(1):
                await asyncio.sleep(2)

    with pytest.raises(TimeoutError):
        await impatient()


@scene()
async def test_a_partition_is_noticed_and_healed(world, caller, callee, to):
    await caller.ping(to, deadline_seconds=1)
    world.weather.cut_off.add("h2")
    with pytest.raises(DeadlineError):
        await caller.ping(to, deadline_seconds=5)
    assert caller.connected_peers == ()  # nothing came at all: the session is doubted
    with pytest.raises(UnreachableError):
        await caller.ping(to, deadline_seconds=50)
    world.weather.cut_off.clear()
    assert await caller.ping(to, deadline_seconds=5) < 1


@scene()
async def test_a_cut_connection_fails_what_is_under_way_and_is_replaced(world, caller, callee, to):
    async def cut_soon():
        await asyncio.sleep(0.5)
        assert world.network.cut("h1", "h2") == 2

    async def hang(exchange, payload):
        await asyncio.sleep(5)

    callee.handle("HANG", hang)
    task = asyncio.create_task(cut_soon())
    with pytest.raises(UnreachableError):
        await caller.call(to, "HANG", b"", deadline_seconds=9)
    await task
    assert await caller.call(to, "ECHO", b"again", deadline_seconds=1) == b"again"


@scene(lambda: Wind(delay_seconds=0.1))
async def test_a_peer_that_leaves_as_we_call_is_called_again(world, caller, callee, to):
    """Its GOODBYE crosses our request and says that it was never looked at."""
    await caller.ping(to, deadline_seconds=1)
    (link,) = callee._pool.links
    call = asyncio.create_task(caller.call(to, "ECHO", b"crossing", deadline_seconds=5))
    await asyncio.sleep(0.05)
    link.retire()
    assert await call == b"crossing"


@scene()
async def test_a_peer_that_never_says_hello(world, caller, callee, to):
    class Silent:
        def receive_buffer(self):
            return memoryview(bytearray(100))

        def received(self, size_bytes):
            pass

        def pause_writing(self):
            pass

        def resume_writing(self):
            pass

        def connection_lost(self, reason):
            lost.append(loop_time())

    lost = []
    carrier = world.network.carrier("h8")
    listener = await carrier.listen("", 0, lambda connection: Silent())
    begun = loop_time()
    address = Address(AddressKind.DIRECT, *listener.address)
    with pytest.raises(UnreachableError):
        await caller.call(Peer(CAROL.node_id, (address,)), "ECHO", b"", deadline_seconds=60)
    assert loop_time() - begun == pytest.approx(10)
    # And the other way round: a silent caller is dropped after the handshake deadline.
    lost.clear()
    begun = loop_time()
    host, port = to.addresses[0].host, to.addresses[0].port
    await carrier.connect(host, port, lambda connection: Silent())
    assert len(callee._pool.links) == 1
    await settle(11)
    assert lost == [pytest.approx(begun + 10)]
    assert callee._pool.links == ()
    await listener.close()


@scene(limits=Limits(max_handshakes=3))
async def test_silent_callers_are_bounded_and_keep_nobody_out(world, caller, callee, to):
    from stook.wire.reader import FrameReader

    lost = []

    class Silent(FrameReader):
        def __init__(self, name):
            self.name = name

        def received(self, size_bytes):
            pass

        def connection_lost(self, reason):
            lost.append(self.name)

    host, port = to.addresses[0].host, to.addresses[0].port

    async def say_nothing(origin, name):
        await world.network.carrier(origin).connect(host, port, lambda connection: Silent(name))

    await say_nothing("h9", "another host's only one")
    for number in range(5):
        await say_nothing("h8", number)
        await settle(0.1)
    assert lost == [0, 1, 2]
    assert sum(link.greeting for link in callee._pool.links) == 3
    await caller.ping(to, deadline_seconds=1)
    assert lost == [0, 1, 2, 3]


# --- slow peers ------------------------------------------------------------------------------------------------------


@scene()
async def test_a_sender_that_stops_half_way_is_cut_off(world, caller, callee, to):
    outcome = []

    async def patient(exchange, payload):
        begun = loop_time()
        try:
            await exchange.receive_into(memoryview(bytearray(1000)))
        except DeadlineError:
            outcome.append(loop_time() - begun)
            raise

    callee.handle("PATIENT", patient)
    async with caller.exchange(to, "PATIENT", b"", deadline_seconds=500) as exchange:
        await exchange.send(bytes(500))
        with pytest.raises(RefusedError) as caught:
            await exchange.next_reply()
    assert caught.value.code is ReasonCode.TOO_SLOW
    assert outcome == [pytest.approx(30)]
    await caller.ping(to, deadline_seconds=1)


@scene()
async def test_a_receiver_that_reads_nothing_stops_the_sender(world, caller, callee, to):
    """Credit bounds what is kept for a consumer that does not read; the sender waits, then gives up."""

    async def lazy(exchange, payload):
        lazies.append(exchange)
        await asyncio.sleep(500)

    lazies = []
    callee.handle("LAZY", lazy)
    async with caller.exchange(to, "LAZY", b"", deadline_seconds=500) as exchange:
        with pytest.raises(DeadlineError):
            await exchange.send(bytes(10_000_000))
    assert exchange.sent == INITIAL_CREDIT_BYTES
    assert lazies[0].progress <= INITIAL_CREDIT_BYTES
    assert caller._pool.links[0]._connection.backlog_bytes == 0
    await caller.ping(to, deadline_seconds=1)


@scene(lambda: Wind(bytes_per_second=5000))
async def test_slow_but_above_the_limit_is_fine(world, caller, callee, to):
    async def swallow(exchange, payload):
        await exchange.receive_into(memoryview(bytearray(3_000_000)))
        await exchange.reply(b"good")

    callee.handle("SWALLOW", swallow)
    assert await push(caller, to, 200_000, deadline=500) == b"good"
    async with caller.exchange(to, "SWALLOW", b"", deadline_seconds=900) as exchange:
        await exchange.send(bytes(3_000_000))  # the network alone holds the sender up for minutes
        assert await exchange.next_reply() == b"good"


@scene(lambda: Wind(bytes_per_second=500))
async def test_slower_than_the_limit_is_not(world, caller, callee, to):
    with pytest.raises((DeadlineError, RefusedError)):
        await push(caller, to, 200_000, deadline=500)


@pytest.mark.parametrize("direction", ["upload", "download"])
def test_bandwidth_caps(direction):
    @scene()
    async def story(world, caller, callee, to):
        limits = Limits(**{f"{direction}_bytes_per_second": 100_000})
        capped = world.node(3, limits=limits)
        capped.handle("TAKE", take)
        peer = await listening(capped)
        begun = loop_time()
        source, target = (capped, to) if direction == "upload" else (caller, peer)
        assert await push(source, target, 300_000) == b"good"
        assert 2 < loop_time() - begun < 3.5

    story()


# --- leaving early ---------------------------------------------------------------------------------------------------


@scene(lambda: Wind(delay_seconds=0.1, bytes_per_second=1e6))
async def test_cancelling_a_receiver_leaves_the_session_usable(world, caller, callee, to):
    """Late DATA frames of the cancelled exchange are drained, and none lands in the buffer that was given back."""
    buffer = bytearray(300_000)

    async def fetch():
        async with caller.exchange(to, "GIVE", b"300000", deadline_seconds=60) as exchange:
            await exchange.next_reply()
            await exchange.receive_into(memoryview(buffer))

    task = asyncio.create_task(fetch())
    await asyncio.sleep(0.75)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 0 < buffer.count(0) < len(buffer)
    kept = bytes(buffer)
    assert await caller.call(to, "ECHO", b"still here", deadline_seconds=5) == b"still here"
    await settle()
    assert bytes(buffer) == kept
    assert len(caller._pool.links) == 1
    assert all(link.idle for node in (caller, callee) for link in node._pool.links)
    assert not callee._tasks


@scene(lambda: Wind(delay_seconds=0.1, bytes_per_second=1e6))
async def test_cancelling_a_sender_tells_the_receiver(world, caller, callee, to):
    seen = []

    async def watch(exchange, payload):
        try:
            await exchange.receive_into(memoryview(bytearray(5_000_000)))
        except RefusedError as error:
            seen.append(error.code)
            raise

    callee.handle("WATCH", watch)

    async def send():
        async with caller.exchange(to, "WATCH", b"", deadline_seconds=60) as exchange:
            await exchange.send(bytes(5_000_000))

    task = asyncio.create_task(send())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert seen == [ReasonCode.CANCELLED]
    assert await push(caller, to, 1000) == b"good"
    assert world.errors == []


@scene()
async def test_ending_before_all_bytes(world, caller, callee, to):
    seen = []

    async def watch(exchange, payload):
        try:
            await exchange.receive_into(memoryview(bytearray(1000)))
        except MisbehaviourError as error:
            seen.append(error.code)
            raise

    callee.handle("WATCH", watch)
    async with caller.exchange(to, "WATCH", b"", deadline_seconds=60) as exchange:
        await exchange.send(bytes(999))
        await exchange.finish()
        with pytest.raises(RefusedError) as caught:
            await exchange.next_reply()
    assert seen == [ReasonCode.TRUNCATED]
    assert caught.value.code is ReasonCode.TRUNCATED


@scene()
async def test_more_bytes_than_expected(world, caller, callee, to):
    async with caller.exchange(to, "TAKE", b"1000", deadline_seconds=60) as exchange:
        await exchange.next_reply()
        await exchange.send(DATA[:1001])
        await exchange.finish()
        with pytest.raises(RefusedError) as caught:
            await exchange.next_reply()
    assert caught.value.code is ReasonCode.TOO_LARGE


@scene()
async def test_leaving_the_block_early_resets(world, caller, callee, to):
    seen = []

    async def wait(exchange, payload):
        try:
            await exchange.expect_end()
        except RefusedError as error:
            seen.append(error.code)

    callee.handle("WAIT", wait)
    async with caller.exchange(to, "WAIT", b"", deadline_seconds=60):
        pass
    await settle()
    assert seen == [ReasonCode.CANCELLED]


@scene()
async def test_posted_buffers_fill_in_order(world, caller, callee, to):
    async with caller.exchange(to, "GIVE", b"300000", deadline_seconds=60) as exchange:
        parts = [bytearray(100_000) for _ in range(3)]
        posted = [exchange.post(memoryview(part)) for part in parts]
        await exchange.next_reply()
        for future in posted:
            await exchange.filled(future)
        empty = exchange.post(memoryview(bytearray()))
        await empty
        with pytest.raises(MisbehaviourError):
            await exchange.receive_into(memoryview(bytearray(1)))
    assert b"".join(parts) == DATA


# --- ends ------------------------------------------------------------------------------------------------------------


@scene(limits=Limits(idle_seconds=50))
async def test_an_idle_session_is_closed_at_both_ends(world, caller, callee, to):
    await caller.ping(to, deadline_seconds=1)
    await settle(40)
    await caller.ping(to, deadline_seconds=1)
    await settle(40)
    assert len(caller._pool.links) == 1
    await settle(20)
    assert caller._pool.links == callee._pool.links == ()
    await caller.ping(to, deadline_seconds=1)


@scene()
async def test_closing_lets_exchanges_finish(world, caller, callee, to):
    async def slow(exchange, payload):
        await asyncio.sleep(2)
        await exchange.reply(b"done")

    callee.handle("SLOW", slow)
    call = asyncio.create_task(caller.call(to, "SLOW", b"", deadline_seconds=9))
    await asyncio.sleep(1)
    await callee.close(grace_seconds=5)
    assert await call == b"done"
    with pytest.raises(UnreachableError):
        await caller.call(to, "ECHO", b"", deadline_seconds=3)
    with pytest.raises(UnreachableError):
        await callee.call(Peer(caller.node_id), "ECHO", b"", deadline_seconds=3)


@scene()
async def test_closing_does_not_wait_for_ever(world, caller, callee, to):
    async def stuck(exchange, payload):
        await asyncio.sleep(1000)

    callee.handle("STUCK", stuck)
    call = asyncio.create_task(caller.call(to, "STUCK", b"", deadline_seconds=900))
    await asyncio.sleep(1)
    begun = loop_time()
    await callee.close(grace_seconds=5)
    assert loop_time() - begun < 11
    with pytest.raises(UnreachableError):
        await call


@scene(limits=Limits(max_sessions=3))
async def test_sessions_are_bounded_and_idle_ones_make_room(world, caller, callee, to):
    nodes = [world.node(10 + i) for i in range(6)]
    for node in nodes:
        await node.ping(to, deadline_seconds=5)
        await settle(0.5)
    assert len(callee._pool.links) <= 3
    await nodes[0].ping(to, deadline_seconds=5)


@scene(limits=Limits(max_sessions_per_peer=2))
async def test_sessions_of_one_peer_are_bounded(world, caller, callee, to):
    address = to.addresses[0]
    for _ in range(5):
        await caller._connect(address.host, address.port, to.node_id)
    await settle()
    assert len(callee._pool.links) == 2


@scene()
async def test_a_worn_session_is_replaced_unnoticed(world, caller, callee, to):
    await caller.ping(to, deadline_seconds=1)
    callee._pool.links[0].session._replay.capacity = 40
    for _ in range(60):
        await caller.ping(to, deadline_seconds=1)
    await settle()
    assert len(caller._pool.links) == 1


def test_a_session_that_both_open_at_once():
    async def main():
        world = World(Wind(delay_seconds=0.05))
        nodes = [world.node(1), world.node(2)]
        peers = [await listening(node) for node in nodes]
        await asyncio.gather(nodes[0].ping(peers[1], deadline_seconds=5), nodes[1].ping(peers[0], deadline_seconds=5))
        await world.close()

    run_virtual(main())


def test_the_same_seed_gives_the_same_story():
    def story():
        async def main():
            world = World(Wind(delay_seconds=0.03, bytes_per_second=1e6), seed=9)
            caller, callee, to = await world.pair()
            callee.handle("TAKE", take)
            await push(caller, to, 200_000)
            await world.close()
            return loop_time(), world.dice(8)

        return run_virtual(main())

    assert story() == story()


def test_defaults_are_sound():
    assert isinstance(Limits(), Limits)
    assert Endpoint.__doc__
