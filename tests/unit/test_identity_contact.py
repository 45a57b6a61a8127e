import pytest

from stook.codec import decode, encode
from stook.errors import ConfigError, MalformedError
from stook.identity.contact import (
    MAX_ADDRESSES,
    MAX_CONTACT_BYTES,
    Address,
    AddressKind,
    ContactUri,
    SignedContact,
    sign_contact,
)
from stook.identity.keys import NodeKey

KEY = NodeKey.from_secret(b"\7" * 32)
ID = KEY.node_id.hex()
HERE = Address(AddressKind.DIRECT, "127.0.0.1", 7000)


def contact(**changes) -> SignedContact:
    fields = {"network": "local", "addresses": [HERE], "sequence": 1, "issued_ms": 5} | changes
    return sign_contact(KEY, **fields)


def test_a_contact_is_signed_by_its_node():
    signed = contact()
    assert signed.verifies()
    assert signed.node_id == KEY.node_id
    assert decode(SignedContact, encode(signed)) == signed


@pytest.mark.parametrize("changes", [{"network": "other"}, {"sequence": 2}, {"issued_ms": 6}, {"addresses": []}])
def test_a_signature_is_for_one_contact_only(changes):
    assert not SignedContact(contact(**changes).contact, contact().signature).verifies()


def test_another_key_cannot_sign_for_it():
    other = NodeKey.from_secret(b"\6" * 32)
    signed = contact()
    assert not SignedContact(signed.contact, other.sign(signed.contact.digest)).verifies()


def test_the_largest_contact_fits_its_bound():
    longest = Address(AddressKind.DIRECT, "a" * 255, 65535)
    signed = contact(
        network="n" * 32,
        addresses=[longest] * MAX_ADDRESSES,
        sequence=2**63 - 1,
        issued_ms=2**63 - 1,
        puzzle_nonce=2**63 - 1,
        hd_index=2**32 - 1,
    )
    assert decode(SignedContact, encode(signed), max_bytes=MAX_CONTACT_BYTES) == signed
    with pytest.raises(ValueError, match="at most 8"):
        contact(addresses=[HERE] * (MAX_ADDRESSES + 1))


@pytest.mark.parametrize(
    "address",
    [
        Address(AddressKind.DIRECT, "", 7000),
        Address(AddressKind.DIRECT, "a b", 7000),
        Address(AddressKind.DIRECT, "host\n", 7000),
        Address(AddressKind.DIRECT, "ho\u00e9st", 7000),
        Address(AddressKind.DIRECT, "a" * 256, 7000),
        Address(AddressKind.DIRECT, "host", 0),
        Address(AddressKind.DIRECT, "host", 65536),
        Address(9, "host", 1),
    ],
)
def test_a_bad_address_does_not_decode(address):
    with pytest.raises(MalformedError):
        decode(SignedContact, encode(contact(addresses=[address])))


@pytest.mark.parametrize(
    ("typed", "host", "shown"),
    [
        (f"stook://127.0.0.1:7000/{ID}", "127.0.0.1", f"stook://127.0.0.1:7000/{ID}"),
        (
            f"  stook://Farm.Example.org:7000/{ID.upper()}/ \n",
            "farm.example.org",
            f"stook://farm.example.org:7000/{ID}",
        ),
        (f"stook://[2001:DB8:0:0::7]:7000/{ID}", "2001:db8::7", f"stook://[2001:db8::7]:7000/{ID}"),
    ],
)
def test_a_contact_uri_has_one_written_form(typed, host, shown):
    uri = ContactUri.parse(typed)
    assert (uri.address.host, uri.address.port, uri.node_id) == (host, 7000, KEY.node_id)
    assert str(uri) == shown
    assert ContactUri.parse(shown) == uri


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "127.0.0.1:7000",
        f"http://127.0.0.1:7000/{ID}",
        f"stook://127.0.0.1/{ID}",
        f"stook://127.0.0.1:7000/{ID[:-1]}",
        f"stook://127.0.0.1:7000/{ID}0",
        f"stook://127.0.0.1:7000/{ID[:-1]}g",
        f"stook://127.0.0.1:0/{ID}",
        f"stook://127.0.0.1:65536/{ID}",
        f"stook://user@host:7000/{ID}",
        f"stook://::1:7000/{ID}",
        f"stook://[::1%eth0]:7000/{ID}",
        f"stook://[1.2.3.4]:7000/{ID}",
        f"stook://host:7000/{ID}?x=1",
        f"stook://host:\u0667\u0660/{ID}",
    ],
)
def test_anything_else_is_no_contact_uri(typed):
    with pytest.raises(ConfigError):
        ContactUri.parse(typed)
