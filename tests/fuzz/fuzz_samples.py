"""Every record type of the package, found by looking, with valid values made from its own description.

A new type is fuzzed from the moment it exists. Only types whose fields must agree with each other need a line in
`AGREEING`; `test_properties_hostile_bytes` fails when the values made here do not decode.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

import audit_samples as audits
import payment_samples as payments
import recovery_samples as saved
import stook
from certificate_samples import chain
from contract_samples import RENTER
from stook.audits.challenge import Ask, Challenge, SaltedAsk, repeat_challenge
from stook.audits.evidence import ReceiptFile
from stook.audits.receipt import BatchReceipt, settle
from stook.codec import Record
from stook.contracts.loss import LossNote
from stook.payments.batch import Batch
from stook.renter.certificate import Certificate
from stook.renter.journal_seal import RecoveryContent
from stook.shards.pointer import Extent, InlineRecord, ObjectRecord, SegmentRecord
from stook.storage.journal_records import Block, PartRef, SaveHead, SaveRef

MOST_ITEMS = 3
"""How many items a large sample has; a type's own bound would make samples of a megabyte."""
WORDS = ("local", "CLAIM", "127.0.0.1", "stook-keys", "Über\u202e\x01")
"""Text to fill in; of these the first that the field's pattern and length allow."""

_KEPT = audits.keeper((100, 2 * 16384, 16384))
_DRAWN = audits.drawn(_KEPT.holding, 2)
_ANSWERS = audits.answered(_DRAWN.challenge, _KEPT)
_SETTLED = settle(_DRAWN.challenge, _ANSWERS, {}, RENTER, audits.NOW_MS + 9)
_SALTED = SaltedAsk(0, 1, bytes(32), bytes(32))

AGREEING: dict[type[Record], tuple[Record, ...]] = {
    LossNote: (LossNote(bytes(32), 0, bytes(33), b""), LossNote(b"l" * 32, 2**63 - 1, b"k" * 33, b"c" * 32)),
    SaltedAsk: (_SALTED, SaltedAsk(4095, 4096, bytes(32), b"s" * 32)),
    Ask: (Ask(b"c" * 32, b"r" * 32, 1, (), _SALTED), Ask(b"c" * 32, b"r" * 32, 1 << 46, (0, 2**32 - 1), None)),
    Challenge: (
        _DRAWN.challenge,
        repeat_challenge(
            _DRAWN.challenge,
            {ask.contract_id for ask in _DRAWN.challenge.asks},
            RENTER,
            nonce=bytes(32),
            now_ms=audits.NOW_MS + 1,
            answer_within_ms=1,
        ).challenge,
    ),
    BatchReceipt: (_SETTLED.signed.receipt, settle(_DRAWN.challenge, {}, {}, RENTER, 2**63 - 1).signed.receipt),
    ReceiptFile: (
        ReceiptFile(1, _SETTLED.signed, (), None, (), (), b"", ()),
        ReceiptFile(
            1,
            _SETTLED.signed,
            _SETTLED.lines,
            _DRAWN,
            # Without the units a sample stays small enough to be cut and spoiled everywhere.
            (),
            (),
            _KEPT.holding.encoded(),
            (),
        ),
    ),
    Batch: payments.batch_samples(),
    Certificate: (chain()[0].certificate, chain()[-1].certificate),
    SegmentRecord: (
        SegmentRecord(1, b"s" * 16, b"k" * 32, 2, 3, 16384, 20_000, b"h" * 32, (b"r" * 32,) * 3),
        SegmentRecord(255, bytes(16), bytes(32), 1, 255, 16384, 1, bytes(32), (bytes(32),) * 255),
    ),
    ObjectRecord: (
        ObjectRecord(1, 0, b"c" * 32, (), -1, 0, ()),
        ObjectRecord(
            1,
            30,
            b"c" * 32,
            (Extent(b"s" * 16, 5, 10, b"h" * 32), Extent(b"s" * 16, 0, 20, b"h" * 32)),
            2**63 - 1,
            0o7777,
            (("a", "Ü"), ("b", "")),
        ),
    ),
    InlineRecord: (InlineRecord(2, b"x", -1, 0, ()), saved.INLINE),
    PartRef: (saved.part_ref(1, 1), saved.part_ref(2)),
    SaveRef: (saved.BEFORE, SaveRef(2**40 + 1, 0, 0, False, 0, (saved.part_ref(3),))),
    SaveHead: (saved.HEAD, saved.HEAD),
    Block: saved.BLOCKS,
    RecoveryContent: (saved.CONTENT, saved.CONTENT),
}


def record_types() -> list[type[Record]]:
    """Every subclass of `Record` in the package, by name."""
    for module in pkgutil.walk_packages(stook.__path__, "stook."):
        # Alembic runs migrations itself; `__main__` would start the program.
        if not module.name.startswith("stook.storage.migrations") and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: set[type[Record]] = set()
    queue: list[type[Record]] = [Record]
    while queue:
        children = queue.pop().__subclasses__()
        queue += children
        found.update(child for child in children if child.__module__.startswith("stook."))
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


@cache
def samples(kind: type[Record]) -> tuple[Record, ...]:
    """Valid values of a type: with everything as small, and as large, as its description allows."""
    return AGREEING.get(kind) or (_record(kind, False), _record(kind, True))


def _record(kind: type[Record], large: bool) -> Record:
    described = inspect.type_info(kind)
    assert isinstance(described, inspect.StructType)
    return kind(*(_value(field.type, large) for field in described.fields))


def _value(kind: inspect.Type, large: bool) -> Any:
    match kind:
        case inspect.Metadata():
            return _value(kind.type, large)
        case inspect.StructType():
            return samples(kind.cls)[-1 if large else 0]
        case inspect.UnionType():
            ordered = sorted(kind.types, key=lambda part: isinstance(part, inspect.NoneType))
            return _value(ordered[0 if large else -1], large)
        case inspect.EnumType():
            return list(kind.cls)[-1 if large else 0]
        case inspect.IntType():
            least = kind.ge if kind.ge is not None else 0 if kind.gt is None else kind.gt + 1
            most = kind.le if kind.le is not None else 2**63 - 1 if kind.lt is None else kind.lt - 1
            return most if large else least
        case inspect.FloatType():
            return float(kind.le if large and kind.le is not None else kind.ge or 0.0)
        case inspect.BytesType():
            return bytes(range(256))[: _length(kind, large)].ljust(_length(kind, large), b"\xc1")
        case inspect.StrType():
            return _text(kind, large)
        case inspect.VarTupleType():
            least, most = kind.min_length or 0, MOST_ITEMS if kind.max_length is None else kind.max_length
            return (_value(kind.item_type, large),) * (max(least, min(most, MOST_ITEMS)) if large else least)
        case inspect.TupleType():
            return tuple(_value(part, large) for part in kind.item_types)
        case inspect.BoolType():
            return large
        case inspect.NoneType():
            return None
    raise AssertionError(f"no sample of {kind}: teach tests/fuzz/fuzz_samples.py")


def _length(kind: inspect.BytesType, large: bool) -> int:
    least = kind.min_length or 0
    most = 100 if kind.max_length is None else kind.max_length
    return max(least, min(most, 100)) if large else least


def _text(kind: inspect.StrType, large: bool) -> str:
    least, most = kind.min_length or 0, 20 if kind.max_length is None else kind.max_length
    candidates = ("", *WORDS) if not large else WORDS
    for word in (*candidates, *(word[0] for word in WORDS)):
        if least <= len(word) <= most and (kind.pattern is None or re.search(kind.pattern, word)):
            return word
    raise AssertionError(f"no text fits {kind}: add a word to tests/fuzz/fuzz_samples.py")


def encoded_samples(kind: type[Record]) -> list[bytes]:
    """The samples as bytes."""
    return [msgspec.msgpack.encode(value) for value in samples(kind)]
