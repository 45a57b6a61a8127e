"""Targets: every record type, and what is done with a stranger's records once they have decoded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import structs

import contract_samples as contracts
import wire_samples as wires
from fuzz_base import TARGETS, Tape, Target, check_text, target, vary
from fuzz_samples import encoded_samples, record_types
from stook.codec import Record, decode, encode
from stook.contracts.announcement import SignedAnnouncement, is_fresh, known_settlements, sign_announcement
from stook.contracts.contract import Contract, Terms
from stook.contracts.grant import (
    GRANT_VERSION,
    MAX_CHAIN,
    Grant,
    Operation,
    SignedGrant,
    chain_of,
    check_grant,
    spendings,
)
from stook.contracts.messages import ClaimAnswer, ClaimReply, Renew
from stook.contracts.negotiation import (
    DAY_MS,
    accept_offer,
    check_draft,
    check_terms,
    read_claim_reply,
    sign_offer,
    verify_contract,
)
from stook.contracts.receipt import (
    sign_erase_receipt,
    sign_storage_receipt,
    verify_erase_receipt,
    verify_storage_receipt,
)
from stook.contracts.renewal import check_renewal
from stook.contracts.topics import describes, matches, parse_criteria, topic_of
from stook.errors import MisbehaviourError, ReasonCode, StookError
from stook.identity.contact import sign_contact
from stook.identity.envelope import Envelope, Kind, Refusal, ReplayWindow, check_reply, open_envelope, seal
from stook.identity.keys import node_id_of
from stook.ids import SessionNonce
from stook.merkle import merkle_path, path_top, shard_root, split_leaves, tree_top
from stook.overlay.contact_book import ContactBook, network_group
from stook.wire.hello import Expected, Role, SignedHello, check_hello, make_hello

NOW_MS = wires.NOW_MS
ALICE, BOB = wires.ALICE, wires.BOB
NONCE = SessionNonce(b"n" * 16)


# --- every record ----------------------------------------------------------------------------------------------------


def _record_body(kind: type[Record]) -> Callable[[bytes], None]:
    derived = [name for name in dir(kind) if isinstance(getattr(kind, name, None), property)]

    def body(data: bytes) -> None:
        value = decode(kind, data)
        assert encode(value) == data
        assert decode(kind, memoryview(data), max_bytes=len(data)) == value
        assert str(value).isprintable()
        hash(value)
        for name in derived:
            getattr(value, name)

    return body


def record_target(kind: type[Record]) -> Target:
    """The target of one record type."""
    module = kind.__module__.removeprefix("stook.")
    return Target(
        f"record.{module}.{kind.__name__}",
        _record_body(kind),
        lambda: encoded_samples(kind),
        ("stook.codec.decode",),
    )


for _kind in record_types():
    TARGETS[record_target(_kind).name] = record_target(_kind)


# --- envelope and hello ----------------------------------------------------------------------------------------------


def _envelope_seeds() -> list[bytes]:
    made = []
    for kind in Kind:
        payload = encode(Refusal.of(ReasonCode.BUSY, "later", now_ms=NOW_MS)) if kind is Kind.REFUSAL else b"payload"
        sealed = seal(
            key=ALICE,
            network=wires.NETWORK,
            kind=kind,
            method="CLAIM",
            message_id=wires.message_id(1),
            session=NONCE,
            recipient=BOB.node_id,
            sent_at_ms=NOW_MS,
            payload=payload,
            reply_to=b"" if kind is Kind.REQUEST else bytes(32),
        )
        made.append(sealed.data)
    return made


@target(
    "identity.envelope",
    seeds=_envelope_seeds,
    covers=(
        "stook.identity.envelope.open_envelope",
        "stook.identity.envelope.check_reply",
        "stook.identity.keys.verify",
    ),
    weight=4,
)
def envelope(data: bytes) -> None:
    """As it came; then signed again, addressed and dated right, so that every later check is reached."""
    replay = ReplayWindow(capacity=4)

    def open_it(sealed: bytes) -> Envelope:
        return open_envelope(
            sealed,
            network=wires.NETWORK,
            me=BOB.node_id,
            session=NONCE,
            claimed_sender=ALICE.node_id,
            now_ms=NOW_MS,
            replay=replay,
        )

    try:
        opened = open_it(data)
    except StookError:
        decoded = decode(Envelope, data)
        mended = structs.replace(
            decoded, network=wires.NETWORK, session=NONCE, recipient=BOB.node_id, sender_key=ALICE.public_key
        )
        data = encode(structs.replace(mended, signature=ALICE.sign(mended.digest)))
        opened = open_it(data)
    assert encode(opened) == data
    assert opened.sender == ALICE.node_id
    with pytest.raises(MisbehaviourError, match="REPLAYED"):
        open_it(data)
    if opened.kind is Kind.REFUSAL:
        decode(Refusal, opened.payload).error(peer=ALICE.node_id.hex())
    check_reply(opened, method="CLAIM", request_digest=bytes(32))


def _hello_seeds() -> list[bytes]:
    contact = sign_contact(
        ALICE, network=wires.NETWORK, addresses=wires_addresses(), sequence=1, issued_ms=NOW_MS, puzzle_nonce=5
    )
    return [
        make_hello(
            wires.party(ALICE, contact=contact if role is Role.INITIATOR else None),
            role=role,
            recipient=BOB.node_id,
            nonce=SessionNonce(b"a" * 16),
            answers=b"" if role is Role.INITIATOR else NONCE,
            channel=wires.CHANNEL,
            now_ms=NOW_MS,
        )
        for role in Role
    ]


def wires_addresses() -> tuple[wires.Address, ...]:
    """An address of each kind of host."""
    return tuple(wires.Address(wires.AddressKind.DIRECT, host, 4000) for host in ("192.0.2.1", "2001:db8::1", "a.b.c"))


@target("wire.hello", seeds=_hello_seeds, covers=("stook.wire.hello.check_hello",), weight=4)
def hello(data: bytes) -> None:
    """Judged as both ends would, as it came and signed again."""
    party = wires.party(BOB)
    for role in Role:
        expected = Expected(
            role=role,
            channel=wires.CHANNEL,
            node_id=ALICE.node_id if role is Role.RESPONDER else None,
            answers=NONCE if role is Role.RESPONDER else b"",
            may_probe=role is Role.INITIATOR,
        )
        try:
            check_hello(data, party=party, expected=expected, now_ms=NOW_MS)
        except StookError:
            told = decode(SignedHello, data, max_bytes=4096).hello
            mended = structs.replace(
                told,
                public_key=ALICE.public_key,
                channel=wires.CHANNEL,
                role=role,
                answers=expected.answers,
                network=wires.NETWORK,
                issued_ms=NOW_MS,
            )
            again = encode(SignedHello(mended, ALICE.sign(mended.digest)))
            told, version = check_hello(again, party=party, expected=expected, now_ms=NOW_MS)
            assert version == 1
            assert told.recipient in (BOB.node_id, b"")


# --- announcements ---------------------------------------------------------------------------------------------------


def _announcement_seeds() -> list[bytes]:
    here = sign_contact(
        contracts.FARMER,
        network=contracts.NETWORK,
        addresses=wires_addresses(),
        sequence=2,
        issued_ms=contracts.NOW_MS,
    )
    return [
        encode(contracts.signed_announcement()),
        encode(contracts.signed_announcement(contact=here, settlements=(0, 1, 7))),
    ]


@target(
    "overlay.contact_book",
    seeds=_announcement_seeds,
    covers=(
        "stook.contracts.announcement.verify_announcement",
        "stook.overlay.contact_book.network_group",
        "stook.overlay.contact_book.ContactBook.offer",
    ),
    weight=4,
)
def announcement(data: bytes) -> None:
    """Offered as it came, then signed again; asked for afterwards."""
    signed = decode(SignedAnnouncement, data)
    told = signed.announcement
    contact = structs.replace(told.contact.contact, public_key=contracts.FARMER.public_key, network=contracts.NETWORK)
    own = structs.replace(told, contact=structs.replace(told.contact, contact=contact))
    own = structs.replace(own, contact=structs.replace(own.contact, signature=contracts.FARMER.sign(contact.digest)))
    book = ContactBook(contracts.NETWORK)
    for offered in (signed, sign_announcement(own, contracts.FARMER)):
        for reached in (None, *told.contact.contact.addresses):
            decision = book.offer(offered, now_ms=contracts.NOW_MS, reached_at=reached)
            assert decision.reason.isprintable()
            assert len(decision.reason) < 400
    assert len(book) <= 2
    for one in book.some(10, now_ms=contracts.NOW_MS):
        assert is_fresh(one.announcement, contracts.NOW_MS)
        known_settlements(one.announcement)
        assert book.get(one.node_id, now_ms=contracts.NOW_MS) == one
        for address in one.announcement.contact.contact.addresses:
            assert network_group(address.host).isprintable()
    book.expire(now_ms=2**63 - 1)
    assert not len(book)


# --- grants ----------------------------------------------------------------------------------------------------------

_KEYS = (contracts.RENTER, contracts.CLIENT, contracts.OTHER)


def _tape_of_chain(depth: int) -> bytes:
    """A tape from which `grants` makes a good chain of `depth`."""
    link = bytes(2)
    return bytes([depth - 1]) + link * depth


@target(
    "contracts.grant_chain",
    seeds=lambda: [_tape_of_chain(depth) for depth in range(1, 7)] + [b"\x03" + bytes(range(1, 90))],
    covers=("stook.contracts.grant.chain_of", "stook.contracts.grant.check_grant", "stook.contracts.grant.spendings"),
    weight=8,
)
def grants(data: bytes) -> None:
    """Chains of up to eight grants, each truly signed, each with some fields changed or its parent's bytes spoiled."""
    tape = Tape(data)
    contract = contracts.contract()
    terms = contract.terms
    parent = b""
    issuer = contracts.RENTER
    for level in range(1 + tape.number(7)):
        grantee = _KEYS[(level + 1) % len(_KEYS)]
        grant = Grant(
            version=GRANT_VERSION,
            network=terms.network,
            contract_id=terms.contract_id,
            shard_root=terms.shard_root,
            farmer=node_id_of(terms.farmer_key),
            issuer_key=issuer.public_key,
            grantee_key=grantee.public_key,
            operation=Operation.RETRIEVE,
            begin_byte=0,
            end_byte=terms.shard_size_bytes,
            budget_bytes=terms.shard_size_bytes,
            expires_ms=contracts.NOW_MS + DAY_MS,
            serial=contracts.SERIAL,
            parent=parent,
        )
        if tape.number(1):
            grant = vary(grant, tape)
        signed = SignedGrant(grant, issuer.sign(grant.digest))
        parent, issuer = encode(signed), grantee
        if tape.number(1):
            parent = tape.spoiled(parent)
    signed = decode(SignedGrant, parent)
    assert encode(signed) == parent
    chain = chain_of(signed)
    assert len(spendings(signed)) == len(chain) <= MAX_CHAIN
    begin, end = tape.number(2**21), tape.number(2**21)
    check_grant(
        signed,
        network=contracts.NETWORK,
        farmer=contracts.FARMER.node_id,
        contract=contract,
        caller_key=issuer.public_key,
        operation=Operation.RETRIEVE,
        begin=begin,
        end=end,
        now_ms=contracts.NOW_MS,
    )
    # Allowed: then every grant of the chain allows it, and the first is the renter's.
    assert chain[0].grant.issuer_key == terms.renter_key
    for link in chain:
        assert link.grant.begin_byte <= begin <= end <= link.grant.end_byte
        assert link.grant.contract_id == terms.contract_id
        assert link.grant.expires_ms > contracts.NOW_MS


# --- contracts -------------------------------------------------------------------------------------------------------


@target(
    "contracts.judges",
    seeds=lambda: [b"", bytes(20), bytes(range(40)), bytes(range(200, 256)) * 2],
    covers=(
        "stook.contracts.negotiation.check_terms",
        "stook.contracts.negotiation.check_draft",
        "stook.contracts.negotiation.check_tariff",
        "stook.contracts.negotiation.verify_contract",
        "stook.contracts.negotiation.read_claim_reply",
        "stook.contracts.receipt.verify_storage_receipt",
        "stook.contracts.receipt.verify_erase_receipt",
        "stook.contracts.renewal.check_renewal",
    ),
    weight=8,
)
def judges(data: bytes) -> None:
    """Terms with any fields changed, before every judge of terms, offers, replies and receipts."""
    tape = Tape(data)
    terms = _decoded(vary(contracts.draft(), tape)) if tape.number(3) else contracts.draft()
    offer = contracts.announcement()

    def judge(check: Callable[[], object]) -> bool:
        try:
            check()
        except StookError as error:
            check_text(error)
            return False
        return True

    renter, now_ms = contracts.RENTER.public_key, contracts.NOW_MS
    good = judge(lambda: check_draft(terms, announcement=offer, renter_key=renter, now_ms=now_ms))
    assert not good or judge(lambda: check_terms(terms))
    signature = contracts.FARMER.sign(terms.digest)
    contract = Contract(terms, signature, contracts.RENTER.sign(terms.digest))
    judge(lambda: verify_contract(contract, contracts.NETWORK))
    judge(lambda: accept_offer(terms, signature))
    if terms.farmer_key == contracts.FARMER.public_key:
        sign_offer(terms, contracts.FARMER)
        stored = vary(sign_storage_receipt(terms, contracts.FARMER, now_ms), tape)
        judge(lambda: verify_storage_receipt(stored, contract))
        erased = vary(sign_erase_receipt(terms, contracts.FARMER, 1, now_ms), tape)
        judge(lambda: verify_erase_receipt(erased, contract))
    reply = vary(ClaimReply((ClaimAnswer(terms.contract_id, 0, "", signature),) * (1 + tape.number(2))), tape)
    judge(lambda: read_claim_reply((terms,), decode(ClaimReply, encode(reply))))
    old = contracts.contract()
    plain = structs.replace(old.terms, revision=1, origin=old.contract_id, end_ms=old.terms.end_ms + DAY_MS)
    newer = _decoded(vary(plain, tape)) if tape.number(3) else plain
    owner = tape.pick((contracts.RENTER, contracts.OTHER))
    request = Renew(newer, owner.sign(newer.digest), tape.pick((b"", contracts.RENTER.sign(newer.consent_digest))))
    judge(
        lambda: check_renewal(
            old, request, announcement=offer, caller_key=owner.public_key, now_ms=now_ms + tape.number(90) * DAY_MS
        )
    )


def _decoded(terms: Terms) -> Terms:
    """The terms if they would decode; else this raises, as for a peer."""
    return decode(Terms, encode(terms))


@target(
    "contracts.criteria",
    seeds=lambda: [b"\x01\x02\x02\x02", bytes(4), b"\x0f\x01\x02\x02\x02"],
    covers=("stook.contracts.topics.parse_criteria",),
    documented=(ValueError,),
)
def criteria(data: bytes) -> None:
    """Read, and said again."""
    describes(data, 1 << 20, DAY_MS)
    assert bytes(parse_criteria(data)) == data
    assert matches(data, data)
    assert topic_of(data)[1:] == data


# --- the tree --------------------------------------------------------------------------------------------------------


@target(
    "merkle.path",
    seeds=lambda: [bytes([5, 2, 0, 0, 0]), bytes([1, 0]), bytes([32, 31]) + bytes(40)],
    covers=("stook.merkle.split_leaves", "stook.merkle.path_top", "stook.merkle.shard_root"),
    documented=(ValueError,),
)
def merkle(data: bytes) -> None:
    """A path that leads to the top is the path of that very leaf; nothing else does."""
    tape = Tape(data)
    count = 1 + tape.number(32)
    leaves = [bytes([number]) * 32 for number in range(count)]
    index, claimed = tape.number(count + 1), tape.pick((count, count + 1, count - 1, 2**63, 0))
    path = merkle_path(leaves, min(index, count - 1))
    blob = tape.spoiled(b"".join(path))
    leaf = tape.pick((leaves[min(index, count - 1)], bytes(32)))
    forged = split_leaves(blob)
    top = path_top(leaf, index, claimed, forged)
    if top == tree_top(leaves) and claimed == count:
        assert (forged, leaf) == (path, leaves[index])
    shard_root(tape.number(2**64 - 1), forged)
