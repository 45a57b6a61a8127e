"""Cheap signatures change what a simulation costs, and nothing that happens in it."""

from __future__ import annotations

import contextlib

import pytest

from sim_objects import assert_all_there, put_all, some_objects
from stook.hashing import Tag, tagged_hash
from stook.identity import keys
from stook.identity.keys import NodeKey, verify
from stook.ids import Signature
from stook.shards.geometry import Policy
from stook.sim.adversaries import SignsNonsense
from stook.sim.dice import Dice
from stook.sim.factories import node_key
from stook.sim.loop import run
from stook.sim.network import ROUGH
from stook.sim.signatures import REAL_BELOW, CheapSignatures, Signatures
from stook.sim.testnet import Testnet
from stook.storage.renter_ports import OutcomeKind

DIGEST = tagged_hash(Tag.CONTENT, b"a text")
OTHER = tagged_hash(Tag.CONTENT, b"another text")
REAL = vars(keys)["_verified"]


def real_key(name: str = "key") -> NodeKey:
    return node_key(Dice(1).child(name))


def test_a_cheap_key_is_the_same_node_and_signs_what_only_it_can_sign():
    real, stranger = real_key(), real_key("stranger")
    with CheapSignatures() as signatures:
        cheap = signatures.cheapen(real)
        assert (cheap.public_key, cheap.node_id) == (real.public_key, real.node_id)
        signature = cheap.sign(DIGEST)
        assert verify(cheap.public_key, DIGEST, signature)
        assert signature == cheap.sign(DIGEST)
        assert not verify(cheap.public_key, OTHER, signature)
        assert not verify(stranger.public_key, DIGEST, signature)
        assert not verify(cheap.public_key, DIGEST, signatures.cheapen(stranger).sign(DIGEST))
        assert not verify(cheap.public_key, DIGEST, Signature(signature[:-1]))
        assert not verify(cheap.public_key, DIGEST[:31], signature)
        with pytest.raises(ValueError, match="32 bytes"):
            cheap.sign(b"short")


def test_keys_that_were_not_made_cheap_are_checked_by_the_curve():
    real = real_key()
    with CheapSignatures() as signatures:
        signatures.cheapen(real_key("another"))
        assert verify(real.public_key, DIGEST, real.sign(DIGEST))
        assert not verify(real.public_key, OTHER, real.sign(DIGEST))


def test_afterwards_all_is_as_before_whatever_happened():
    with contextlib.suppress(LookupError), CheapSignatures() as outer:
        cheap = outer.cheapen(real_key())
        with CheapSignatures():
            assert verify(cheap.public_key, DIGEST, cheap.sign(DIGEST))
        assert vars(keys)["_verified"] is not REAL
        raise LookupError
    assert vars(keys)["_verified"] is REAL
    assert not verify(cheap.public_key, DIGEST, cheap.sign(DIGEST))


def test_one_seed_gives_the_same_history_with_either():
    async def history(signatures: Signatures) -> str:
        async with Testnet(
            farmers=8, seed=3, path=ROUGH, policy=Policy(k=3, r=5, o=6, n=7), signatures=signatures
        ) as net:
            objects = some_objects(net)
            await put_all(net, objects)
            await net.kill(0)
            await assert_all_there(net, objects)
            return net.network.traffic.digest

    assert run(history(Signatures.REAL)) == run(history(Signatures.CHEAP))


def test_who_signs_nonsense_is_found_out_all_the_same():
    async def main() -> None:
        async with Testnet(
            farmers=8,
            seed=3,
            policy=Policy(k=3, r=5, o=6, n=7),
            cast={2: SignsNonsense},
            signatures=Signatures.CHEAP,
        ) as net:
            objects = some_objects(net)
            await put_all(net, objects)
            await assert_all_there(net, objects)
            assert (await net.renter.blame())[2][OutcomeKind.CONSIGN]

    run(main(), within_seconds=3600)


@pytest.mark.parametrize(("farmers", "expected"), [(REAL_BELOW - 1, Signatures.REAL), (REAL_BELOW, Signatures.CHEAP)])
def test_small_networks_sign_truly_and_every_story_says_which(farmers: int, expected: Signatures):
    async def main() -> None:
        async with Testnet(farmers=farmers, seed=1) as net:
            assert net.signatures is expected
            assert f"{expected} signatures" in net.story()

    run(main())
