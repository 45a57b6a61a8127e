"""The overlay at work, in virtual time: joining, finding, keeping, losing seeds and lines, and what peers may do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from stook.codec import decode, encode
from stook.errors import MalformedError, MisbehaviourError, ReasonCode, RefusedError
from stook.identity.contact import SignedContact, sign_contact
from stook.ids import NodeId
from stook.overlay.messages import FindNode, FindValue, NodesReply, OverlayMethod, Store, StoreReply
from stook.overlay.ports import Overlay
from stook.overlay.records import (
    HOUR_MS,
    RecordKind,
    SignedRecord,
    contact_record,
    sign_record,
)
from stook.overlay.service import OverlayNode, OverlaySettings
from stook.sim.factories import NETWORK
from stook.sim.loop import run
from stook.sim.overlay_net import OverlayNet, OverlayPeer, address_of
from stook.wire.endpoint import Peer


def scene(nodes: int = 12, **options: Any) -> Callable[[Callable[[OverlayNet], Coroutine[Any, Any, None]]], Any]:
    """A test inside a network that has joined."""

    def wrap(test: Callable[[OverlayNet], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        def inner() -> None:
            async def main() -> None:
                async with OverlayNet(nodes, seed=7, **options) as net:
                    await net.join_all()
                    await test(net)

            run(main(), within_seconds=40 * 86_400)

        inner.__name__ = test.__name__
        inner.__doc__ = test.__doc__
        return inner

    return wrap


def nearest(net: OverlayNet, target: bytes, without: OverlayPeer) -> list[NodeId]:
    aim = int.from_bytes(target, "big")
    others = [node.node_id for node in net.living if node is not without and node.settings.member]
    return sorted(others, key=lambda one: int.from_bytes(one, "big") ^ aim)[:20]


def pointer(owner: OverlayPeer, sequence: int = 1, body: bytes = b"sealed") -> SignedRecord:
    now_ms = owner.clock.now_ms()
    network = owner.contact().contact.network
    return sign_record(
        owner.key, network=network, kind=RecordKind.POINTER, body=body, sequence=sequence, issued_ms=now_ms
    )


async def call(by: OverlayPeer, to: OverlayPeer, method: str, payload: bytes) -> bytes:
    return await by.endpoint.call(to.peer, method, payload, deadline_seconds=10)


def test_the_service_fulfils_its_port() -> None:
    def takes(_: Overlay) -> None: ...

    check: Callable[[OverlayNode], None] = takes
    assert check is takes


@scene(30)
async def test_one_seed_is_enough_to_find_everybody(net: OverlayNet) -> None:
    for node in net.nodes[::7]:
        target = net.dice(20)
        found = await node.overlay.find_node(NodeId(target))
        assert [contact.node_id for contact in found] == nearest(net, target, node)
    sampled = await net.nodes[4].overlay.sample(64)
    assert len(sampled) >= 25


@scene(20)
async def test_the_seed_may_die_and_nodes_may_restart(net: OverlayNet) -> None:
    await net.nodes[0].die()
    restarted = net.nodes[7]
    await restarted.stop()
    await restarted.start()
    assert await restarted.overlay.join() >= 15, "from the contacts that it remembered"
    newcomer = net.add(address_of(500))
    newcomer.seeds = [net.nodes[3].peer]
    await newcomer.start()
    assert await newcomer.overlay.join() >= 15
    assert await newcomer.overlay.join([Peer(net.nodes[0].node_id, net.nodes[0].peer.addresses)]) >= 15


@scene(12)
async def test_a_contact_that_was_only_named_or_only_called_us_is_in_no_table(net: OverlayNet) -> None:
    liar = net.add(address_of(600))
    liar.seeds = []
    await liar.start()
    victim = net.nodes[4]
    # It listens at another address than the one that it names.
    elsewhere = net.add(address_of(601))
    contact = liar.contact()
    address = replace_host(contact.contact.addresses[0], elsewhere.host)
    liar.peer = Peer(liar.node_id, (address,))
    liar.endpoint.contact = liar.contact()
    await liar.endpoint.ping(victim.peer, deadline_seconds=10)
    await net.step("check")
    assert victim.overlay.table.get(liar.node_id) is None
    honest = net.add(address_of(602))
    honest.seeds = []
    await honest.start()
    await honest.endpoint.ping(victim.peer, deadline_seconds=10)
    assert victim.overlay.table.get(honest.node_id) is None, "not before it was called at its own address"
    await net.pass_seconds(10)
    assert victim.overlay.table.get(honest.node_id) is not None


@scene(8)
async def test_who_calls_us_counts_in_the_network_that_it_calls_from(net: OverlayNet) -> None:
    victim = net.nodes[4].overlay
    # All in one /24; each names an address elsewhere as its own, and answers over the session that it opened.
    named: list[SignedContact] = []
    for number in range(8):
        liar = net.add(f"45.9.9.{number + 1}")
        liar.seeds = []
        await liar.start()
        address = replace_host(liar.contact().contact.addresses[0], address_of(700 + number))
        named.append(sign_contact(liar.key, network=NETWORK, addresses=[address], sequence=9, issued_ms=1))
        liar.endpoint.contact = None if number % 2 else named[-1]
        await liar.endpoint.ping(net.nodes[4].peer, deadline_seconds=10)
    start = victim._searcher.acceptable(named)
    found = await victim._searcher.search(named[0].node_id, victim._lookup_rules, start=start)
    assert len({node.node_id for node in found.nodes} & {contact.node_id for contact in named}) == 3


def replace_host(address: Any, host: str) -> Any:
    return type(address)(address.kind, host, address.port)


@scene(6)
async def test_a_node_is_called_at_its_second_address_too(net: OverlayNet) -> None:
    newcomer = net.add(address_of(603))
    newcomer.seeds = []
    at_home = newcomer.peer.addresses[0]
    newcomer.peer = Peer(newcomer.node_id, (replace_host(at_home, "192.168.1.7"), at_home))
    await newcomer.start()
    await newcomer.endpoint.ping(net.nodes[4].peer, deadline_seconds=10)
    await net.pass_seconds(20)
    assert net.nodes[4].overlay.table.get(newcomer.node_id) is not None


@scene(12)
async def test_records_are_found_replaced_and_withdrawn(net: OverlayNet) -> None:
    owner, reader = net.nodes[2], net.nodes[9]
    first = pointer(owner)
    assert await owner.overlay.store(first) == 12, "eleven others, and the owner itself"
    assert await reader.overlay.find_value(first.key) == (first,)
    second = pointer(owner, 2, b"newer")
    await owner.overlay.store(second)
    assert await reader.overlay.find_value(first.key) == (second,)
    answer = await call(reader, net.nodes[5], OverlayMethod.STORE, encode(Store((first,))))
    assert decode(StoreReply, answer).answers[0].code == ReasonCode.STALE
    await owner.overlay.store(pointer(owner, 3, b""))
    assert await reader.overlay.find_value(first.key) == ()
    with pytest.raises(MisbehaviourError):
        await owner.overlay.store(SignedRecord(second.record, first.signature))


@scene(12)
async def test_two_pointers_of_one_sequence_are_both_shown(net: OverlayNet) -> None:
    owner = net.nodes[2]
    one, other = pointer(owner, 4, b"at home"), pointer(owner, 4, b"on the road")
    await call(owner, net.nodes[5], OverlayMethod.STORE, encode(Store((one,))))
    await call(owner, net.nodes[6], OverlayMethod.STORE, encode(Store((other,))))
    found = await net.nodes[9].overlay.find_value(one.key)
    assert set(found) == {one, other}


@scene(12)
async def test_a_reader_mends_what_holders_lack(net: OverlayNet) -> None:
    owner, reader = net.nodes[2], net.nodes[9]
    record = pointer(owner)
    await call(owner, net.nodes[5], OverlayMethod.STORE, encode(Store((record,))))
    await reader.overlay.find_value(record.key)
    await net.pass_seconds(5)
    assert sum(len(node.overlay.records) for node in net.living) == 3


@scene(14)
async def test_records_outlive_most_of_their_holders(net: OverlayNet) -> None:
    owner = net.nodes[2]
    record = pointer(owner)
    await owner.overlay.store(record)
    for _ in range(2):
        newcomers = [net.add(address_of(700 + len(net.nodes))) for _ in range(3)]
        for newcomer in newcomers:
            newcomer.seeds = [net.living[-1].peer]
            await newcomer.start()
            await newcomer.overlay.join()
        await net.pass_seconds(HOUR_MS / 1000 + 60)
        await net.step("replicate")
        for newcomer in newcomers:
            assert len(newcomer.overlay.records) == 1, "brought to it because it is near"
        for node in net.living[:7]:
            await node.die()
    assert await net.living[-1].overlay.find_value(record.key) == (record,)


@scene(8)
async def test_pointers_survive_the_death_of_everybody_other_kinds_do_not(net: OverlayNet) -> None:
    owner = net.nodes[2]
    record, contact = pointer(owner), contact_record(owner.key, owner.contact(), now_ms=owner.clock.now_ms())
    await owner.overlay.store(record)
    await owner.overlay.store(contact)
    await net.step("remember")
    for node in net.nodes:
        await node.die()
    for node in net.nodes:
        await node.start()
    await net.nodes[5].overlay.join()
    assert await net.nodes[5].overlay.find_value(record.key) == (record,)
    assert await net.nodes[5].overlay.find_value(contact.key) == ()


@scene(40)
async def test_a_far_copy_lives_no_longer_for_a_restart(net: OverlayNet) -> None:
    owner = net.nodes[2]
    record = pointer(owner)
    far = max((node for node in net.nodes[3:]), key=lambda node: node.overlay.table.nearer_than(record.key, 40))
    await call(owner, far, OverlayMethod.STORE, encode(Store((record,))))
    await far.die()
    await far.start()
    await far.overlay.join()
    assert far.overlay.table.nearer_than(record.key, 40) >= 20
    assert far.overlay.records.get(record.key, now_ms=far.clock.now_ms()) == (record,)
    assert far.overlay.records.get(record.key, now_ms=far.clock.now_ms() + HOUR_MS) == ()


@scene(8)
async def test_records_end(net: OverlayNet) -> None:
    owner, network = net.nodes[2], net.nodes[2].contact().contact.network
    record = contact_record(owner.key, owner.contact(), now_ms=owner.clock.now_ms())
    lasting = sign_record(
        owner.key,
        network=network,
        kind=RecordKind.POINTER,
        body=b"x",
        sequence=1,
        issued_ms=owner.clock.now_ms(),
        life_ms=HOUR_MS,
    )
    await owner.overlay.store(record)
    await owner.overlay.store(lasting)
    await net.pass_seconds(3601)
    assert await net.nodes[4].overlay.find_value(lasting.key) == ()
    assert await net.nodes[4].overlay.find_value(record.key) == (record,)
    await net.pass_seconds(86_400)
    await net.step("replicate")
    assert not any(len(node.overlay.records) for node in net.nodes)
    assert all(set(node.blobs.names()) <= {"contacts"} for node in net.nodes)


@scene(8)
async def test_sources_are_published_and_again_when_they_change(net: OverlayNet) -> None:
    farmer, reader = net.nodes[3], net.nodes[6]
    body = [b"one"]

    async def source() -> list[SignedRecord]:
        return [pointer(farmer, farmer.clock.now_ms(), body[0])]

    farmer.overlay.add_source(source)
    await farmer.overlay.publish()
    key = (await source())[0].key
    (found,) = await reader.overlay.find_value(key)
    assert found.record.body == b"one"
    sent = farmer.overlay.requests_sent
    await farmer.overlay.publish()
    assert farmer.overlay.requests_sent == sent, "nothing changed"
    body[0] = b"two"
    await farmer.overlay.publish()
    (found,) = await reader.overlay.find_value(key)
    assert found.record.body == b"two"
    await net.pass_seconds(6 * 3600 + 1)
    sent = farmer.overlay.requests_sent
    await farmer.overlay.publish()
    assert farmer.overlay.requests_sent > sent, "due again"


@scene(10)
async def test_a_guest_finds_and_stores_and_is_in_no_table(net: OverlayNet) -> None:
    guest = net.add("guest.example", member=False)
    await guest.start()
    record = pointer(guest)
    assert await guest.overlay.store(record) == 10, "it joins when it first looks for something"
    assert await net.nodes[4].overlay.find_value(record.key) == (record,)
    assert all(node.overlay.table.get(guest.node_id) is None for node in net.nodes[:10])
    await guest.stop()
    await guest.start()
    guest.seeds = []
    assert await guest.overlay.find_value(record.key) == (record,), "through the contacts that it remembered"


@scene(10)
async def test_the_dead_leave_the_tables(net: OverlayNet) -> None:
    dead = net.nodes[4]
    await dead.die()
    await net.pass_seconds(1900)
    for _ in range(5):
        await net.pass_seconds(30)
        await net.step("check")
    assert all(node.overlay.table.get(dead.node_id) is None for node in net.living)
    assert all(len(node.overlay.table) == 8 for node in net.living)


@scene(10)
async def test_a_node_cut_off_keeps_its_table_and_comes_back(net: OverlayNet) -> None:
    lonely = net.nodes[4]
    before = len(lonely.overlay.table)
    net.network.partition([lonely.host])
    await net.pass_seconds(120)
    for _ in range(4):
        await net.pass_seconds(1900)
        await lonely.overlay.check()
    assert len(lonely.overlay.table) >= before - 1, "it is our line, not all of them"
    net.network.heal()
    await lonely.overlay.rejoin()
    target = net.dice(20)
    found = await lonely.overlay.find_node(NodeId(target))
    assert [contact.node_id for contact in found] == nearest(net, target, lonely)


@scene(6)
async def test_a_peer_has_an_allowance(net: OverlayNet) -> None:
    asker, asked = net.nodes[2], net.nodes[4]
    payload = encode(FindNode(asker.node_id, 20))

    async def ask_and_ask(method: str, payload: bytes) -> None:
        for _ in range(400):
            await call(asker, asked, method, payload)

    with pytest.raises(RefusedError) as caught:
        await ask_and_ask(OverlayMethod.FIND_NODE, payload)
    assert caught.value.code is ReasonCode.RATE_LIMITED
    assert 0 < caught.value.retry_after_ms <= 1000
    await net.pass_seconds(1)
    await call(asker, asked, OverlayMethod.FIND_NODE, payload)
    await call(net.nodes[3], asked, OverlayMethod.FIND_NODE, payload)
    records = Store(tuple(pointer(asker) for _ in range(16)))
    with pytest.raises(RefusedError):
        await ask_and_ask(OverlayMethod.STORE, encode(records))


@scene(6)
async def test_what_is_malformed_is_refused(net: OverlayNet) -> None:
    asker, asked = net.nodes[2], net.nodes[4]
    for method in OverlayMethod:
        with pytest.raises(RefusedError) as caught:
            await call(asker, asked, method, b"\x93\x01")
        assert caught.value.code is ReasonCode.MALFORMED
    found = decode(NodesReply, await call(asker, asked, OverlayMethod.FIND_NODE, encode(FindNode(asker.node_id, 3))))
    assert len(found.contacts) == 3
    assert asker.node_id not in {contact.node_id for contact in found.contacts}
    with pytest.raises(MalformedError):
        decode(FindValue, encode(FindNode(asker.node_id, 20))[:-1])


@scene(12)
async def test_what_others_answer_is_believed_as_far_as_it_is_signed(net: OverlayNet) -> None:
    victim, liar = net.nodes[3], net.nodes[8]
    wanted = net.nodes[5]
    genuine = wanted.contact()
    bent = type(genuine)(genuine.contact, type(genuine.signature)(bytes([1]) * 64))

    async def lie(exchange: Any, _payload: bytes) -> None:
        await exchange.reply(encode(NodesReply((bent,) * 40)))

    liar.endpoint.handle(OverlayMethod.FIND_NODE, lie)
    found = await victim.overlay.find_node(wanted.node_id)
    assert found[0].node_id == wanted.node_id
    assert all(contact.verifies() for contact in found)

    async def babble(exchange: Any, _payload: bytes) -> None:
        await exchange.reply(b"\xff" * 100)

    liar.endpoint.handle(OverlayMethod.FIND_NODE, babble)
    assert len(await victim.overlay.find_node(wanted.node_id)) == 10


@scene(10)
async def test_a_node_that_serves_no_overlay_is_left_out(net: OverlayNet) -> None:
    async def refuse(exchange: Any, _payload: bytes) -> None:
        raise RefusedError(ReasonCode.UNKNOWN_METHOD, "no such thing")

    other = net.nodes[6]
    other.endpoint.handle(OverlayMethod.FIND_NODE, refuse)
    found = await net.nodes[2].overlay.find_node(other.node_id)
    assert other.node_id not in {contact.node_id for contact in found}
    assert net.nodes[2].overlay.table.get(other.node_id) is None


def test_a_network_left_to_itself_heals() -> None:
    async def main() -> None:
        async with OverlayNet(6, seed=3, chores=True) as net:
            await net.pass_seconds(600)
            assert all(len(node.overlay.table) == 5 for node in net.nodes)
            record = pointer(net.nodes[1])
            assert await net.nodes[1].overlay.store(record) == 6
            await net.nodes[5].die()
            await net.pass_seconds(6 * 3600)
            assert all(len(node.overlay.table) == 4 for node in net.living)
            await net.nodes[5].start()
            await net.pass_seconds(600)
            assert all(len(node.overlay.table) == 5 for node in net.nodes)
            assert await net.nodes[5].overlay.find_value(record.key) == (record,)

    run(main(), within_seconds=3 * 86_400)


def test_a_puzzle_keeps_unsolved_ids_out() -> None:
    async def main() -> None:
        async with OverlayNet(4, seed=3, settings=OverlaySettings(puzzle_bits=40)) as net:
            await net.join_all()
            assert all(not len(node.overlay.table) for node in net.nodes)
            with pytest.raises(MisbehaviourError) as caught:
                await net.nodes[1].overlay.store(pointer(net.nodes[1]))
            assert caught.value.code is ReasonCode.PUZZLE_UNSOLVED

    run(main(), within_seconds=86_400)


def test_one_host_may_be_a_whole_network_where_that_is_allowed() -> None:
    async def main(private: bool) -> int:
        async with OverlayNet(8, seed=3, host_of=lambda n: f"{'10.0.0' if private else '45.0.0'}.{n + 1}") as net:
            await net.join_all()
            await net.pass_seconds(5)
            return min(len(node.overlay.table) for node in net.nodes)

    assert run(main(True), within_seconds=86_400) == 7, "a LAN"
    assert run(main(False), within_seconds=86_400) < 7, "a /24 of the internet"


def test_waiting_for_nobody_ends() -> None:
    async def main() -> None:
        async with OverlayNet(1, seed=1) as net:
            assert await net.nodes[0].overlay.join() == 0
            assert await net.nodes[0].overlay.find_node(NodeId(bytes(20))) == ()
            assert await net.nodes[0].overlay.sample(3) == ()
            await net.step("check", "refresh", "rejoin", "replicate", "publish", "remember")
            assert asyncio.get_running_loop().time() < 60

    run(main(), within_seconds=600)
