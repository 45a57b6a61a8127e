import copy
import logging
import pickle

import pytest

from stook.codec import decode, encode
from stook.errors import MalformedError, UserError
from stook.identity.keys import (
    CURVE_ORDER,
    AgentCredential,
    KeyTree,
    NodeKey,
    PhraseError,
    SigningKey,
    is_public_key,
    new_phrase,
    parse_phrase,
    verify,
)

WORDS = ["abandon"] * 23 + ["art"]
PHRASE = " ".join(WORDS)
DIGEST = bytes(range(32))


def key(number: int = 1) -> NodeKey:
    return NodeKey.from_secret(number.to_bytes(32, "big"))


@pytest.mark.parametrize("secret", [0, CURVE_ORDER, CURVE_ORDER + 1, 2**256 - 1])
def test_a_secret_outside_the_curve_is_no_key(secret):
    with pytest.raises(ValueError, match="below the curve's order"):
        NodeKey.from_secret(secret.to_bytes(32, "big"))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_secret_of_another_length_is_no_key(size):
    with pytest.raises(ValueError, match="32 bytes"):
        NodeKey.from_secret(b"\1" * size)


def test_no_text_form_shows_a_secret():
    node = key(7)
    tree = KeyTree.from_phrase(PHRASE)
    credential = tree.agent_credential("local")
    secrets = [node.reveal_secret(), tree.node_key().reveal_secret(), credential.mask_root, credential.node_secret]
    shown = f"{node!r} {node} {tree!r} {tree} {credential!r} {credential} {[credential]} {tree.payment_key()}"
    shown += logging.Formatter().format(logging.makeLogRecord({"msg": "%s", "args": (credential,)}))
    for secret in secrets:
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
    assert "abandon" not in shown


@pytest.mark.parametrize("secret", [key(7), KeyTree.from_phrase(PHRASE), KeyTree.from_phrase(PHRASE).payment_key()])
def test_private_keys_are_neither_pickled_nor_copied(secret):
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            act(secret)


def test_keys_compare_by_public_key():
    assert key(7) == key(7)
    assert hash(key(7)) == hash(key(7))
    assert key(7) != key(8)
    assert key(7) != key(7).public_key
    assert isinstance(key(7), SigningKey)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_only_digests_are_signed(size):
    with pytest.raises(ValueError, match="32 bytes"):
        key().sign(bytes(size))


def test_signatures_are_repeatable_and_low():
    for number in range(1, 60):
        signature = key(number).sign(DIGEST)
        assert signature == key(number).sign(DIGEST)
        assert int.from_bytes(signature[32:], "big") <= CURVE_ORDER // 2


def test_the_second_form_of_a_signature_is_refused():
    signature = key().sign(DIGEST)
    high = CURVE_ORDER - int.from_bytes(signature[32:], "big")
    assert verify(key().public_key, DIGEST, signature)
    assert not verify(key().public_key, DIGEST, signature[:32] + high.to_bytes(32, "big"))


def test_verify_answers_no_and_never_raises():
    public, signature = key().public_key, key().sign(DIGEST)
    zero, order = bytes(32), CURVE_ORDER.to_bytes(32, "big")
    bad = [
        (public[:-1], DIGEST, signature),
        (public + b"\0", DIGEST, signature),
        (b"\4" + public[1:], DIGEST, signature),
        (b"\6" + public[1:], DIGEST, signature),
        (b"\2" + b"\xff" * 32, DIGEST, signature),
        (bytes(33), DIGEST, signature),
        (b"", DIGEST, signature),
        (key(2).public_key, DIGEST, signature),
        (public, DIGEST[:-1], signature),
        (public, bytes(32), signature),
        (public, DIGEST, signature[:-1]),
        (public, DIGEST, signature + b"\0"),
        (public, DIGEST, b""),
        (public, DIGEST, bytes(64)),
        (public, DIGEST, b"\xff" * 64),
        (public, DIGEST, zero + signature[32:]),
        (public, DIGEST, signature[:32] + zero),
        (public, DIGEST, order + signature[32:]),
        (public, DIGEST, signature[:32] + order),
    ]
    for case in bad:
        assert verify(*case) is False


def test_is_public_key():
    assert is_public_key(key().public_key)
    for bad in (b"", bytes(33), b"\2" + b"\xff" * 32, key().public_key[:-1], b"\5" + key().public_key[1:]):
        assert not is_public_key(bad)


@pytest.mark.parametrize(
    "typed",
    [
        PHRASE,
        PHRASE.upper(),
        f"  {PHRASE}\n",
        "\n".join(WORDS),
        "\t".join(word.capitalize() for word in WORDS),
        "  ".join(WORDS),
        "\u00a0".join(WORDS),
    ],
)
def test_spaces_lines_and_capitals_do_not_matter(typed):
    assert parse_phrase(typed) == PHRASE
    assert KeyTree.from_phrase(typed).node_key() == KeyTree.from_phrase(PHRASE).node_key()


def test_an_unknown_word_is_named_with_its_place_and_its_neighbour():
    words = WORDS.copy()
    words[4] = "abandn"
    with pytest.raises(PhraseError, match=r"word 5, 'abandn', is not in the list; did you mean 'abandon'\?"):
        parse_phrase(" ".join(words))
    words[6] = "zzzzzz"
    with pytest.raises(PhraseError, match=r"word 5.*; word 7, 'zzzzzz', is not in the list$"):
        parse_phrase(" ".join(words))


def test_a_phrase_error_never_repeats_a_right_word():
    words = new_phrase(bytes(range(32))).split()
    words[3] = "qqqqqq"
    with pytest.raises(PhraseError) as caught:
        parse_phrase(" ".join(words))
    assert not set(str(caught.value).split()) & (set(words) - {"qqqqqq"})


@pytest.mark.parametrize("count", [0, 1, 12, 23, 25])
def test_the_number_of_words_is_checked(count):
    with pytest.raises(PhraseError, match=rf"has 24 words; these are {count}$"):
        parse_phrase(" ".join((WORDS * 2)[:count]))


def test_a_wrong_checksum_says_so():
    with pytest.raises(PhraseError, match="checksum"):
        parse_phrase(" ".join(["abandon"] * 24))
    words = new_phrase(bytes(range(32))).split()
    words[0], words[1] = words[1], words[0]
    with pytest.raises(PhraseError, match="changed places"):
        parse_phrase(" ".join(words))
    assert issubclass(PhraseError, UserError)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_new_phrase_takes_32_bytes(size):
    with pytest.raises(ValueError, match="32 bytes"):
        new_phrase(bytes(size))


def test_a_passphrase_gives_another_tree():
    plain, other = KeyTree.from_phrase(PHRASE), KeyTree.from_phrase(PHRASE, "x")
    assert plain.node_key() != other.node_key()
    assert plain.content_root() != other.content_root()


def test_all_branches_differ():
    tree = KeyTree.from_phrase(PHRASE)
    secrets = [
        tree.content_root(),
        tree.recovery_root(),
        tree.mask_root(),
        tree.payment_key().reveal_secret(),
        *(tree.node_key(group, index).reveal_secret() for group in range(3) for index in range(3)),
    ]
    assert len(set(secrets)) == len(secrets)


@pytest.mark.parametrize(("group", "index"), [(-1, 0), (0, -1), (1 << 31, 0), (0, 1 << 31)])
def test_node_numbers_stay_below_the_hardened_half(group, index):
    with pytest.raises(ValueError, match="0 to 2\\*\\*31"):
        KeyTree.from_phrase(PHRASE).node_key(group, index)


@pytest.mark.parametrize("size", [0, 15, 65])
def test_a_seed_has_16_to_64_bytes(size):
    with pytest.raises(ValueError, match="16 to 64"):
        KeyTree(bytes(size))


def test_an_agent_credential_holds_node_and_mask_secrets_only():
    tree = KeyTree.from_phrase(PHRASE)
    credential = tree.agent_credential("local", group=2, index=5)
    assert credential.node_key() == tree.node_key(2, 5)
    assert credential.mask_root == tree.mask_root()
    data = encode(credential)
    assert decode(AgentCredential, data) == credential
    for kept in (tree.content_root(), tree.recovery_root(), tree.payment_key().reveal_secret(), tree.secret_at(())):
        assert kept not in data
    with pytest.raises(MalformedError):
        decode(AgentCredential, data[:-1])
