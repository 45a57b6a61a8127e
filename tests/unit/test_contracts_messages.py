from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stook.codec import Record, decode, encode
from stook.contracts import messages
from stook.contracts.contract import MAX_CONTRACT_BYTES, Contract
from stook.contracts.grant import SignedGrant
from stook.identity.envelope import MAX_PAYLOAD_BYTES

MESSAGES = [
    kind
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == messages.__name__
]


def largest(info: Any) -> Any:
    """The value of a type that takes the most bytes; every text and list must have a bound to have one."""
    kinds = msgspec.inspect
    match info:
        case kinds.StructType():
            return info.cls(*(largest(field.type) for field in info.fields))
        case kinds.VarTupleType():
            return (largest(info.item_type),) * info.max_length
        case kinds.BytesType():
            return b"\xff" * info.max_length
        case kinds.StrType():
            return ("a" if info.pattern else "\U0001f33e") * info.max_length
        case kinds.IntType():
            return 2**64 - 1 if info.le is None else info.le
        case kinds.EnumType():
            return max(info.cls)
        case kinds.BoolType():
            return True
        case kinds.UnionType():
            return largest(next(part for part in info.types if not isinstance(part, kinds.NoneType)))
    raise AssertionError(info)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_every_message_filled_to_its_bounds_fits_a_payload(kind: type[Record]) -> None:
    value = largest(msgspec.inspect.type_info(kind))
    data = encode(value)
    assert len(data) <= MAX_PAYLOAD_BYTES
    assert decode(kind, data) == value


def test_the_largest_contract_fits_its_bound() -> None:
    assert len(encode(largest(msgspec.inspect.type_info(Contract)))) <= MAX_CONTRACT_BYTES


def test_a_chain_cannot_grow_by_what_one_grant_adds() -> None:
    alone = largest(msgspec.inspect.type_info(SignedGrant))
    one = len(encode(msgspec.structs.replace(alone, grant=msgspec.structs.replace(alone.grant, parent=b""))))
    # Three parents, each wrapped in the next, with three bytes of length before each.
    assert 3 * (one + 3) <= 2048
