"""Tags, codes, errors and ids: the words every room uses."""

import inspect

import pytest

from stook import errors
from stook.codec import Record, decode, encode
from stook.errors import RETRYABLE, MalformedError, MisbehaviourError, PeerError, ReasonCode, RefusedError, StookError
from stook.hashing import DIGEST_BYTES, Tag, tagged_hash
from stook.ids import NetworkIdField

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, StookError)]


def test_no_two_tags_share_a_name_or_a_key():
    assert len({tag.value for tag in Tag}) == len({tag.key for tag in Tag}) == len(Tag.__members__)


def test_one_text_has_another_hash_for_each_tag():
    digests = {tagged_hash(tag, b"text") for tag in Tag}
    assert len(digests) == len(Tag)
    assert {len(digest) for digest in digests} == {DIGEST_BYTES}
    assert tagged_hash(Tag.LEAF, memoryview(b"text")) == tagged_hash(Tag.LEAF, bytearray(b"text"))


def test_reason_codes_are_unique_three_digit_numbers():
    assert len({code.value for code in ReasonCode}) == len(ReasonCode.__members__)
    assert all(100 <= code <= 999 for code in ReasonCode)
    assert set(ReasonCode) >= RETRYABLE


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_an_exit_code_and_says_what_it_means(kind):
    assert 0 < kind.exit_code < 126
    assert inspect.getdoc(kind)
    assert kind.__name__ in errors.__doc__


def test_peer_errors_name_the_peer_in_short():
    peer = "ab" * 20
    for error in (
        PeerError("gone", peer=peer),
        MalformedError("gone", peer=peer),
        MisbehaviourError(ReasonCode.REPLAYED, "gone", peer=peer),
        RefusedError(ReasonCode.BUSY, "gone", peer=peer),
    ):
        assert error.peer == peer
        assert "gone" in str(error)
        assert str(error).endswith(f"(node {peer[:16]})")
    assert str(PeerError("gone")) == "gone"


@pytest.mark.parametrize("code", list(ReasonCode))
def test_a_refusal_may_be_tried_again_only_when_its_code_says_so(code):
    assert RefusedError(code).retryable is (code in RETRYABLE)
    assert code.name in str(RefusedError(code))


class Named(Record):
    network: NetworkIdField


@pytest.mark.parametrize("name", ["a", "local", "stook.example-1", "0", "x" * 32])
def test_network_names(name):
    assert decode(Named, encode(Named(name))).network == name


@pytest.mark.parametrize("name", ["", "Local", "a b", "a\n", "x" * 33, "ü", "a/b"])
def test_bad_network_names(name):
    with pytest.raises(MalformedError):
        decode(Named, encode(Named(name)))
