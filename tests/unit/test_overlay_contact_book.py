import msgspec
import pytest

from stook.codec import encode
from stook.contracts.announcement import Announcement, SignedAnnouncement
from stook.errors import MisbehaviourError, ReasonCode, RefusedError
from stook.identity.contact import Address, AddressKind, sign_contact
from stook.identity.envelope import MAX_PAYLOAD_BYTES
from stook.identity.keys import NodeKey
from stook.identity.pow import solve_puzzle
from stook.overlay.contact_book import BookLimits, ContactBook, Outcome, network_group

NOW = 1_700_000_000_000
DAY = 24 * 3_600_000


def key(number: int) -> NodeKey:
    return NodeKey.from_secret(number.to_bytes(32, "big"))


def at(host: str, kind: AddressKind = AddressKind.DIRECT) -> Address:
    return Address(kind, host, 7000)


def announce(number=1, host="192.0.2.1", *, hosts=None, signer=None, **changes) -> SignedAnnouncement:
    node = key(number)
    contact = {"network": "local", "sequence": 1, "issued_ms": NOW, "addresses": [at(h) for h in hosts or [host]]}
    contact |= {
        name: changes.pop(name) for name in ("network", "sequence", "puzzle_nonce", "addresses") if name in changes
    }
    if "contact_issued_ms" in changes:
        contact["issued_ms"] = changes.pop("contact_issued_ms")
    fields = {
        "contact": sign_contact(node, **contact),
        "issued_ms": NOW,
        "capacity_bytes": 1000,
        "free_bytes": 900,
        "storage_price_per_gib_hour": 5,
        "download_price_per_gib": 6,
        "min_duration_ms": 1,
        "max_duration_ms": 2,
        "max_shard_bytes": 4096,
        "settlements": (0,),
        "operator": "",
        "failure_domain": "",
    }
    announcement = Announcement(**(fields | changes))
    return SignedAnnouncement(announcement, (signer or node).sign(announcement.digest))


def node(number: int) -> bytes:
    return key(number).node_id


def names(listed) -> list[bytes]:
    return [one.announcement.contact.node_id for one in listed]


def test_a_good_announcement_is_kept():
    book = ContactBook("local")
    signed = announce()
    decision = book.offer(signed, now_ms=NOW)
    assert (decision.outcome, decision.code, decision.evicted) == (Outcome.ADDED, None, ())
    assert book.get(node(1), now_ms=NOW) == signed
    assert book.some(10, now_ms=NOW) == (signed,)
    assert len(book) == 1


@pytest.mark.parametrize(
    ("signed", "code"),
    [
        (announce(network="other"), ReasonCode.WRONG_NETWORK),
        (announce(signer=key(2)), ReasonCode.BAD_SIGNATURE),
        (announce(contact=announce(2).announcement.contact), ReasonCode.BAD_SIGNATURE),
        (announce(issued_ms=NOW + 300_001), ReasonCode.CLOCK_SKEW),
        (announce(contact_issued_ms=NOW + 300_001), ReasonCode.CLOCK_SKEW),
        (announce(issued_ms=NOW - DAY), ReasonCode.STALE),
        (announce(addresses=[]), ReasonCode.MALFORMED),
        (announce(addresses=[at("relay.example.org", AddressKind.RELAY)]), ReasonCode.MALFORMED),
        (announce(free_bytes=1001), ReasonCode.MALFORMED),
        (announce(min_duration_ms=3), ReasonCode.MALFORMED),
    ],
)
def test_each_refusal_has_its_reason_and_changes_nothing(signed, code):
    book = ContactBook("local")
    decision = book.offer(signed, now_ms=NOW)
    assert (decision.outcome, decision.code) == (Outcome.REFUSED, code)
    assert decision.reason
    assert len(book) == 0
    with pytest.raises(MisbehaviourError) as caught:
        book.add(signed, now_ms=NOW)
    assert caught.value.code is code


def test_a_contact_with_a_forged_signature_is_refused():
    good = announce()
    contact = type(good.announcement.contact)(good.announcement.contact.contact, key(2).sign(bytes(32)))
    assert ContactBook("local").offer(announce(contact=contact), now_ms=NOW).code is ReasonCode.BAD_SIGNATURE


def test_other_versions_are_refused():
    contact = msgspec.structs.replace(announce().announcement.contact.contact, version=2)
    signed = type(announce().announcement.contact)(contact, key(1).sign(contact.digest))
    assert ContactBook("local").offer(announce(contact=signed), now_ms=NOW).code is ReasonCode.WRONG_VERSION


def test_the_puzzle_is_asked_for():
    book = ContactBook("local", BookLimits(puzzle_bits=6))
    nonce = solve_puzzle(key(1).public_key, 6, attempts=10_000)
    wrong = next(n for n in range(100) if solve_puzzle(key(1).public_key, 6, first_nonce=n, attempts=1) is None)
    assert book.offer(announce(puzzle_nonce=wrong), now_ms=NOW).code is ReasonCode.PUZZLE_UNSOLVED
    assert book.offer(announce(puzzle_nonce=nonce), now_ms=NOW).outcome is Outcome.ADDED


def test_the_newest_wins_by_sequence_then_by_date():
    book = ContactBook("local")
    first = announce(sequence=5, issued_ms=NOW)
    assert book.add(first, now_ms=NOW)
    for older in (
        first,
        announce(sequence=5, issued_ms=NOW, free_bytes=1),
        announce(sequence=5, issued_ms=NOW - 1),
        announce(sequence=4, issued_ms=NOW + 5),
    ):
        assert book.offer(older, now_ms=NOW).outcome is Outcome.KNOWN
        assert not book.add(older, now_ms=NOW)
        assert book.get(node(1), now_ms=NOW) == first
    for newer in (announce(sequence=5, issued_ms=NOW + 1), announce(sequence=6, issued_ms=NOW - 1)):
        assert book.offer(newer, now_ms=NOW).outcome is Outcome.UPDATED
        assert book.get(node(1), now_ms=NOW) == newer
    assert len(book) == 1


def test_a_forged_newer_one_replaces_nothing():
    book = ContactBook("local")
    book.add(announce(), now_ms=NOW)
    assert book.offer(announce(sequence=9, signer=key(2)), now_ms=NOW).code is ReasonCode.BAD_SIGNATURE
    assert book.get(node(1), now_ms=NOW) == announce()


def test_entries_age_out():
    book = ContactBook("local")
    book.add(announce(1), now_ms=NOW)
    book.add(announce(2, issued_ms=NOW + 1000), now_ms=NOW)
    assert book.get(node(1), now_ms=NOW + DAY - 1) is not None
    late = NOW + DAY
    assert book.get(node(1), now_ms=late) is None
    assert names(book.some(10, now_ms=late)) == [node(2)]
    assert book.expire(now_ms=late) == (node(1),)
    assert book.expire(now_ms=late) == ()
    assert len(book) == 1


def test_forget():
    book = ContactBook("local", BookLimits(max_per_network=1))
    book.add(announce(1), now_ms=NOW)
    assert book.forget(node(1))
    assert not book.forget(node(1))
    assert book.add(announce(2), now_ms=NOW)


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("::ffff:192.0.2.9", "192.0.2.0/24"),
        ("a.b.Example.org.", "example.org"),
        ("localhost", "localhost"),
        *(
            (odd, "odd")
            for odd in ("16909060", "1.2.772", "0x1.2.3.0X4", "001.2.3.4", "1.2.3.4.", "0x", "a.0x1f.", ".")
        ),
        ("1.2.3.4x", "3.4x"),
    ],
)
def test_network_groups(host, group):
    assert network_group(host) == group


@pytest.mark.parametrize("hosts", [[f"192.0.2.{n}" for n in range(9)], [f"h{n}.evil.example" for n in range(9)]])
def test_one_network_cannot_flood_the_book(hosts):
    book = ContactBook("local", BookLimits(max_per_network=3))
    outcomes = [book.offer(announce(n + 1, host), now_ms=NOW) for n, host in enumerate(hosts)]
    assert [one.outcome for one in outcomes] == [Outcome.ADDED] * 3 + [Outcome.REFUSED] * 6
    assert {one.code for one in outcomes[3:]} == {ReasonCode.RATE_LIMITED}
    with pytest.raises(RefusedError) as caught:
        book.add(announce(9, hosts[-1]), now_ms=NOW)
    assert caught.value.retryable
    assert book.add(announce(50, "198.51.100.1"), now_ms=NOW)


def test_the_cap_can_be_lifted_where_all_share_one_machine():
    book = ContactBook("local", BookLimits(max_per_network=None))
    for number in range(1, 60):
        assert book.add(announce(number, "127.0.0.1"), now_ms=NOW)


def test_a_full_book_takes_nobody_in_until_somebody_is_too_old():
    book = ContactBook("local", BookLimits(max_nodes=2))
    book.add(announce(1, "192.0.2.1"), now_ms=NOW)
    book.add(announce(2, "198.51.100.1", issued_ms=NOW + 10), now_ms=NOW)
    third = announce(3, "203.0.113.1", issued_ms=NOW + DAY)
    for _ in range(2):
        assert book.offer(announce(3, "203.0.113.1"), now_ms=NOW).code is ReasonCode.RATE_LIMITED
    assert book.offer(third, now_ms=NOW + DAY - 1).code is ReasonCode.RATE_LIMITED
    decision = book.offer(third, now_ms=NOW + DAY)
    assert (decision.outcome, decision.evicted) == (Outcome.ADDED, (node(1),))
    assert len(book) == 2


def test_a_known_node_is_updated_in_a_full_book():
    book = ContactBook("local", BookLimits(max_nodes=1, max_per_network=1))
    book.add(announce(1), now_ms=NOW)
    assert book.offer(announce(1, sequence=2), now_ms=NOW).outcome is Outcome.UPDATED
    assert book.offer(announce(1, "198.51.100.1", sequence=3), now_ms=NOW).outcome is Outcome.UPDATED


def test_a_node_that_was_reached_displaces_one_that_was_not():
    book = ContactBook("local", BookLimits(max_per_network=2))
    book.add(announce(1, "192.0.2.1"), now_ms=NOW)
    book.add(announce(2, "192.0.2.2", issued_ms=NOW - 5), now_ms=NOW)
    decision = book.offer(announce(3, "192.0.2.3"), now_ms=NOW, reached_at=at("192.0.2.3"))
    assert decision.evicted == (node(2),)
    assert book.offer(announce(4, "192.0.2.4"), now_ms=NOW, reached_at=at("192.0.2.4")).evicted == (node(1),)
    assert book.offer(announce(5, "192.0.2.5"), now_ms=NOW, reached_at=at("192.0.2.5")).code is ReasonCode.RATE_LIMITED


def test_the_right_to_a_place_holds_only_where_a_node_was_reached():
    """A node reached at home that also names strangers' networks neither displaces nor outlasts anybody there."""
    book = ContactBook("local", BookLimits(max_per_network=1))
    book.add(announce(1, "192.0.2.1"), now_ms=NOW)
    greedy = announce(2, hosts=["203.0.113.9", "192.0.2.9"])
    assert book.offer(greedy, now_ms=NOW, reached_at=at("203.0.113.9")).code is ReasonCode.RATE_LIMITED
    squat = announce(3, hosts=["203.0.113.9", "198.51.100.9"])
    assert book.offer(squat, now_ms=NOW, reached_at=at("203.0.113.9")).outcome is Outcome.ADDED
    native = announce(4, "198.51.100.4")
    assert book.offer(native, now_ms=NOW, reached_at=at("198.51.100.4")).evicted == (node(3),)


def test_an_address_the_node_does_not_name_proves_nothing():
    book = ContactBook("local", BookLimits(max_per_network=1))
    book.add(announce(1, "192.0.2.1"), now_ms=NOW)
    refused = book.offer(announce(2, "192.0.2.2"), now_ms=NOW, reached_at=at("192.0.2.99"))
    assert refused.code is ReasonCode.RATE_LIMITED


def test_being_reached_is_learned_later_and_kept_while_the_network_stays():
    book = ContactBook("local", BookLimits(max_per_network=1))
    book.add(announce(1, "192.0.2.1"), now_ms=NOW)
    assert book.offer(announce(1, "192.0.2.1"), now_ms=NOW, reached_at=at("192.0.2.1")).outcome is Outcome.KNOWN
    book.add(announce(1, "192.0.2.200", sequence=2), now_ms=NOW)
    rival = announce(2, "192.0.2.2")
    assert book.offer(rival, now_ms=NOW, reached_at=at("192.0.2.2")).code is ReasonCode.RATE_LIMITED
    book.add(announce(1, "198.51.100.1", sequence=3), now_ms=NOW)
    assert book.offer(announce(3, "198.51.100.3"), now_ms=NOW, reached_at=at("198.51.100.3")).evicted == (node(1),)


def test_the_list_takes_one_of_each_network_in_turn_and_the_reached_first():
    book = ContactBook("local", BookLimits(max_per_network=None))
    for number in range(1, 6):
        book.add(announce(number, "192.0.2.1", issued_ms=NOW + number), now_ms=NOW)
    book.add(announce(6, "198.51.100.1"), now_ms=NOW)
    book.offer(announce(7, "203.0.113.1"), now_ms=NOW, reached_at=at("203.0.113.1"))
    listed = names(book.some(10, now_ms=NOW))
    assert listed == [node(7), node(5), node(6), node(4), node(3), node(2), node(1)]
    assert names(book.some(3, now_ms=NOW)) == listed[:3]
    assert names(book.some(3, now_ms=NOW, skip=6 + 7)) == [listed[6], *listed[:2]]
    assert book.some(0, now_ms=NOW) == ()
    assert ContactBook("local").some(3, now_ms=NOW, skip=5) == ()


def test_a_list_fits_one_message():
    book = ContactBook("local", BookLimits(max_per_network=None))
    hosts = [f"{'a' * 240}.example{n}" for n in range(8)]
    signed = [announce(number, hosts=hosts) for number in range(1, 520)]
    for one in signed:
        book.add(one, now_ms=NOW)
    listed = book.some(512, now_ms=NOW)
    assert 300 < len(listed) < 512
    assert len(encode(listed)) < MAX_PAYLOAD_BYTES - 8192


@pytest.mark.parametrize("bad", [{"max_nodes": 0}, {"max_age_ms": 0}, {"max_per_network": 0}])
def test_limits_are_checked(bad):
    with pytest.raises(ValueError, match="at least"):
        BookLimits(**bad)
