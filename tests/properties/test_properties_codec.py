"""One value, one encoding: no two byte strings decode to the same value, and every record type keeps to that."""

import importlib
import pkgutil
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Meta

import stook
from stook.codec import Record, decode, encode
from stook.contracts.announcement import SignedAnnouncement
from stook.contracts.contract import Contract
from stook.contracts.grant import SignedGrant
from stook.contracts.messages import Claim, ClaimReply, Consign, ContractPage
from stook.errors import MalformedError
from stook.identity.contact import SignedContact
from stook.identity.envelope import Envelope, Refusal
from stook.identity.keys import AgentCredential
from stook.identity.keystore import KeyFile
from stook.ids import Bytes32Field, U32Field
from stook.shards.cipher import RecordContext

KINDS = [
    AgentCredential,
    Claim,
    ClaimReply,
    Consign,
    Contract,
    ContractPage,
    Envelope,
    KeyFile,
    Refusal,
    SignedAnnouncement,
    SignedContact,
    SignedGrant,
]


ENCODED_ONLY = {RecordContext}
"""Never decoded: associated data of a cipher. Its caller bounds it."""
BOUNDED_AS_A_WHOLE = {
    "ObjectRecord.metadata: bytes or text without a bound",
    "InlineRecord.metadata: bytes or text without a bound",
    "Block.rows: AnyType is not canonical",
}
"""The client's own words, never a peer's: the size of the sealed record, or of a frame, bounds them. What may stand in
a row is checked by `Block` itself: whole numbers, text and bytes, each of which has one encoding."""


class Stored(Record):
    """Shaped like what nodes keep for others: a version, an address, a bounded value, a signature."""

    version: Annotated[int, Meta(ge=1, le=255)]
    address: Bytes32Field
    sequence: U32Field
    value: Annotated[bytes, Meta(max_length=512)]
    notes: Annotated[tuple[Annotated[str, Meta(max_length=8)], ...], Meta(max_length=2)]


stored = st.builds(
    Stored,
    st.integers(1, 255),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=512),
    st.lists(st.text(max_size=8), max_size=2).map(tuple),
)


@given(stored)
def test_a_value_survives_the_round_trip(value):
    data = encode(value)
    assert decode(Stored, data) == value
    assert decode(Stored, data, max_bytes=len(data)) == value
    with pytest.raises(MalformedError, match="at most"):
        decode(Stored, data, max_bytes=len(data) - 1)


@given(stored, st.data())
@settings(max_examples=300)
def test_changed_bytes_are_another_value_or_none(value, data):
    good = encode(value)
    begin = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(begin, min(len(good), begin + 6)))
    changed = good[:begin] + data.draw(st.binary(max_size=6)) + good[end:]
    try:
        read = decode(Stored, changed)
    except MalformedError:
        return
    assert (read == value) == (changed == good)
    assert encode(read) == changed


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_random_bytes_decode_to_nothing_or_to_their_own_value(kind):
    @given(st.binary(max_size=300))
    @example(b"\xdd\xff\xff\xff\xff")
    @example(b"\x91" * 300)
    @settings(max_examples=60)
    def run(data):
        try:
            value = decode(kind, data)
        except MalformedError:
            return
        assert encode(value) == data

    run()


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({"version": 0}, False),
        ({"version": 255}, True),
        ({"version": 256}, False),
        ({"address": bytes(31)}, False),
        ({"address": bytes(33)}, False),
        ({"sequence": 2**32 - 1}, True),
        ({"sequence": 2**32}, False),
        ({"sequence": -1}, False),
        ({"value": bytes(512)}, True),
        ({"value": bytes(513)}, False),
        ({"notes": ("12345678", "漢" * 8)}, True),
        ({"notes": ("123456789",)}, False),
        ({"notes": ("", "", "")}, False),
    ],
)
def test_limits_hold_on_both_sides_of_the_edge(changes, fits):
    value = msgspec.structs.replace(Stored(1, bytes(32), 0, b"", ()), **changes)
    if fits:
        assert decode(Stored, encode(value)) == value
    else:
        with pytest.raises(MalformedError):
            decode(Stored, encode(value))


def all_records() -> list[type[Record]]:
    for module in pkgutil.walk_packages(stook.__path__, "stook."):
        if not module.name.startswith(("stook.cli", "stook.storage.migrations")) and "__main__" not in module.name:
            importlib.import_module(module.name)
    found, queue = [], [Record]
    while queue:
        children = queue.pop().__subclasses__()
        queue += children
        found += [child for child in children if child.__module__.startswith("stook.")]
    return found


def unsuited(kind: msgspec.inspect.Type, seen: set[Any]) -> list[str]:
    """The parts of a type that have more than one encoding, or no bound."""
    inspect = msgspec.inspect
    if isinstance(kind, inspect.Metadata):
        return unsuited(kind.type, seen)
    if isinstance(kind, inspect.StructType):
        if kind.cls in seen:
            return []
        seen.add(kind.cls)
        faults = [] if kind.array_like and kind.forbid_unknown_fields else [f"{kind.cls.__name__} is no Record"]
        for field in kind.fields:
            if not field.required:
                faults.append(f"{kind.cls.__name__}.{field.name} has a default")
            faults += [f"{kind.cls.__name__}.{field.name}: {fault}" for fault in unsuited(field.type, seen)]
        return faults
    if isinstance(kind, inspect.UnionType):
        return [fault for part in kind.types for fault in unsuited(part, seen)]
    if isinstance(kind, inspect.VarTupleType):
        unbounded = [] if kind.max_length is not None else ["a tuple without a bound"]
        return unbounded + unsuited(kind.item_type, seen)
    if isinstance(kind, inspect.BytesType | inspect.StrType):
        return [] if kind.max_length is not None else ["bytes or text without a bound"]
    if isinstance(kind, inspect.TupleType):
        return [fault for part in kind.item_types for fault in unsuited(part, seen)]
    if isinstance(kind, inspect.IntType | inspect.BoolType | inspect.NoneType | inspect.EnumType):
        return []  # MessagePack itself bounds whole numbers at 64 bits
    return [f"{type(kind).__name__} is not canonical"]


def test_every_record_of_the_package_is_bounded_and_canonical():
    """No map, set, float, date or default anywhere: each gives one value two encodings (`docs/formats/encoding.md`)."""
    records = [record for record in all_records() if record not in ENCODED_ONLY]
    assert len(records) > 30
    faults = [fault for record in records for fault in unsuited(msgspec.inspect.type_info(record), set())]
    assert sorted(set(faults) - BOUNDED_AS_A_WHOLE) == []
