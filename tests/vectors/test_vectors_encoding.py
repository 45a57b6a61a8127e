"""Golden vectors of the canonical encoding: what it is, and what is refused. Never delete a file in `data/`."""

import enum
import json
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta

from stook.codec import Record, decode, encode
from stook.errors import MalformedError
from stook.ids import U63Field

VECTORS = json.loads((Path(__file__).parent / "data" / "encoding-v1.json").read_text())


class Kind(enum.IntEnum):
    ONE = 1
    TWO = 2


class Inner(Record):
    whole: U63Field


class Sample(Record):
    whole: U63Field
    text: Annotated[str, Meta(max_length=8)]
    raw: Annotated[bytes, Meta(max_length=4)]
    kind: Kind
    flag: bool
    maybe: U63Field | None
    items: Annotated[tuple[U63Field, ...], Meta(max_length=3)]
    inner: Inner


@pytest.mark.parametrize("vector", VECTORS["canonical"], ids=lambda v: v["encoded"][:12])
def test_the_canonical_encoding(vector):
    whole, text, raw, kind, flag, maybe, items, inner = vector["values"]
    value = Sample(whole, text, bytes.fromhex(raw), Kind(kind), flag, maybe, tuple(items), Inner(*inner))
    assert encode(value).hex() == vector["encoded"]
    assert decode(Sample, bytes.fromhex(vector["encoded"])) == value
    assert decode(Sample, memoryview(bytearray.fromhex(vector["encoded"]))) == value


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda v: v["why"])
def test_anything_else_is_refused(vector):
    with pytest.raises(MalformedError):
        decode(Sample, bytes.fromhex(vector["encoded"]))
