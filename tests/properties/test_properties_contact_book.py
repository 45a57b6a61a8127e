"""Whatever is offered in whatever order, the book keeps its promises, and agrees with a naive one on who is newest."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from stook.contracts.announcement import Announcement, SignedAnnouncement
from stook.identity.contact import Address, AddressKind, sign_contact
from stook.identity.keys import NodeKey
from stook.overlay.contact_book import BookLimits, ContactBook, Outcome, network_group

NOW = 1_700_000_000_000
AGE = 1_000_000
HOSTS = ("192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1", "a.example.org", "b.example.org")
KEYS = [NodeKey.from_secret(bytes((number,)) * 32) for number in range(1, 9)]

offers = st.lists(
    st.tuples(
        st.integers(0, len(KEYS) - 1),
        st.integers(1, 3),  # sequence
        st.integers(-AGE, AGE // 4),  # issued, relative to the start
        st.lists(st.sampled_from(HOSTS), min_size=1, max_size=3, unique=True),
        st.booleans(),  # signed by the right key
        st.booleans(),  # reached at its first address
        st.integers(0, AGE // 4),  # time that passes before it
    ),
    max_size=25,
)


def announcement(key, sequence, issued_ms, hosts, good) -> SignedAnnouncement:
    addresses = [Address(AddressKind.DIRECT, host, 7000) for host in hosts]
    contact = sign_contact(key, network="local", addresses=addresses, sequence=sequence, issued_ms=NOW)
    text = Announcement(contact, issued_ms, 10, 5, 1, 1, 1, 2, 4096, (0,), "", "")
    signer = key if good else KEYS[(KEYS.index(key) + 1) % len(KEYS)]
    return SignedAnnouncement(text, signer.sign(text.digest))


@given(offers, st.integers(1, 6), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_bounds_freshness_and_consistency(steps, max_nodes, cap):
    book = ContactBook("local", BookLimits(max_nodes=max_nodes, max_per_network=cap, max_age_ms=AGE))
    now, members, ranks = NOW, {}, {}
    for number, sequence, issued, hosts, good, reached, passed in steps:
        now += passed
        signed = announcement(KEYS[number], sequence, NOW + issued, hosts, good)
        address = signed.announcement.contact.contact.addresses[0] if reached else None
        decision = book.offer(signed, now_ms=now, reached_at=address)
        node_id, rank = KEYS[number].node_id, (sequence, NOW + issued)
        if decision.outcome in (Outcome.ADDED, Outcome.UPDATED):
            assert good
            assert rank > ranks.get(node_id, (0, 0))
            assert (decision.outcome is Outcome.UPDATED) == (node_id in members)
            for gone in decision.evicted:
                del members[gone], ranks[gone]
            members[node_id], ranks[node_id] = signed, rank
        elif decision.outcome is Outcome.KNOWN:
            assert rank <= ranks[node_id]
        else:
            assert decision.reason
            assert not decision.evicted
        assert len(book) == len(members) <= max_nodes
        counted = Counter(
            group
            for one in members.values()
            for group in {network_group(a.host) for a in one.announcement.contact.contact.addresses}
        )
        assert all(count <= cap for count in counted.values())
        fresh = [one for one in members.values() if now - one.announcement.issued_ms < AGE]
        listed = book.some(100, now_ms=now, skip=number)
        assert len(listed) == len(fresh)
        assert all(one in fresh for one in listed)
        for known_id, one in members.items():
            assert book.get(known_id, now_ms=now) == (one if one in fresh else None)


@given(offers)
@settings(max_examples=80, deadline=None)
def test_a_roomy_book_ends_the_same_whatever_the_order(steps):
    good = [announcement(KEYS[n], seq, NOW + issued, hosts, True) for n, seq, issued, hosts, *_ in steps]
    # Two different texts of equal rank are the node's own lie; the first one stays, so leave those out.
    unique = {}
    for one in good:
        text = one.announcement
        unique.setdefault((text.contact.node_id, text.contact.contact.sequence, text.issued_ms), one)
    results = []
    for order in (list(unique.values()), list(reversed(unique.values()))):
        book = ContactBook("local", BookLimits(max_per_network=None, max_age_ms=AGE))
        for one in order:
            book.offer(one, now_ms=NOW)
        results.append(book.some(1000, now_ms=NOW))
    assert results[0] == results[1]
    naive = {}
    for one in unique.values():
        if NOW - AGE < one.announcement.issued_ms <= NOW + 300_000:
            text = one.announcement
            naive[text.contact.node_id] = max(
                naive.get(text.contact.node_id, (0, 0)), (text.contact.contact.sequence, text.issued_ms)
            )
    assert {
        one.announcement.contact.node_id: (one.announcement.contact.contact.sequence, one.announcement.issued_ms)
        for one in results[0]
    } == naive
