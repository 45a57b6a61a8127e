"""Invite codes: what people type, and every way to mistype it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import joining_samples as samples
from stook.errors import ConfigError
from stook.identity.contact import Address, AddressKind
from stook.identity.invite import MAX_CODE_CHARS, PREFIX, Invite

CODE = samples.invite().code()


def test_a_code_comes_back_however_it_was_pasted() -> None:
    for text in (CODE, CODE.upper(), f"  {CODE[:40]}\n {CODE[40:]} ", "\t".join(CODE)):
        assert Invite.parse(text) == samples.invite()


def test_the_longest_code_is_within_its_bound() -> None:
    address = Address(AddressKind.DIRECT, "a" * 255, 65535)
    longest = samples.invite(addresses=(address,) * 3, network="n" * 32, expires_ms=2**63 - 1, puzzle_bits=40)
    assert len(longest.code()) <= MAX_CODE_CHARS
    assert Invite.parse(longest.code()) == longest


@given(st.integers(len(PREFIX), len(CODE) - 1), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_one_wrong_letter_is_noticed(place: int, letter: str) -> None:
    mistyped = CODE[:place] + letter + CODE[place + 1 :]
    if mistyped != CODE:
        with pytest.raises(ConfigError):
            Invite.parse(mistyped)


@given(st.text(max_size=64))
def test_anything_else_is_refused_in_words(text: str) -> None:
    for code in (text, PREFIX + text):
        with pytest.raises(ConfigError):
            Invite.parse(code)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"owner_id": b"short"},
        {"addresses": (Address(AddressKind.RELAY, "relay.example.org", 1),)},
    ],
)
def test_what_this_version_does_not_know_is_refused(changes: dict) -> None:
    with pytest.raises(ConfigError, match="this version"):
        Invite.parse(samples.invite(**changes).code())


def test_the_cut_and_the_endless_are_refused() -> None:
    for text in (CODE[:-1], CODE[: len(PREFIX)], CODE + "a" * 8, PREFIX + "a" * 3000, ""):
        with pytest.raises(ConfigError):
            Invite.parse(text)
