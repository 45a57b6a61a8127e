"""Recovery records in the overlay: under a key that follows from the phrase, and only the owner's word counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from stook.codec import encode
from stook.contracts.recovery import SignedRecoveryRecord, sign_record
from stook.ids import NetworkId
from stook.overlay.ports import Overlay
from stook.overlay.records import OverlayKey, RecordKind, SignedRecord, check_record, key_of, pointer_key
from stook.overlay.records import sign_record as sign_overlay_record
from stook.renter.journal_seal import JournalKeys
from stook.renter.overlay_pointers import OverlayPointers
from stook.renter.pointers import AllPointers, Left
from stook.sim.loop import InlineOffload, VirtualClock, run
from stook.wire.endpoint import Peer

NETWORK = NetworkId("local")
KEYS = JournalKeys(bytes(32))
BITS = 4


class Shelf:
    """As much of an overlay as one honest node: it checks what it is brought, and keeps the highest."""

    def __init__(self) -> None:
        self.kept: dict[OverlayKey, SignedRecord] = {}
        self.clock = VirtualClock()

    async def find_value(self, key: OverlayKey) -> tuple[SignedRecord, ...]:
        return (self.kept[key],) if key in self.kept else ()

    async def store(self, record: SignedRecord) -> int:
        check_record(record, network=NETWORK, now_ms=self.clock.now_ms(), puzzle=BITS)
        key = key_of(record.record.kind, record.record.subject)
        known = self.kept.get(key)
        if known is None or known.record.sequence < record.record.sequence:
            self.kept[key] = record
        return int(self.kept[key] == record)


def pointers(shelf: Shelf) -> OverlayPointers:
    overlay = cast("Overlay", shelf)
    return OverlayPointers(overlay, KEYS.record_key, NETWORK, shelf.clock, InlineOffload(), BITS)


def record(sequence: int, sealed: bytes = b"sealed") -> SignedRecoveryRecord:
    return sign_record(KEYS.record_key, NETWORK, sequence, sealed)


def test_what_is_put_is_found_and_what_is_higher_is_told() -> None:
    async def main() -> None:
        shelf = Shelf()
        mine = pointers(shelf)
        assert await mine.get(KEYS.record_key.public_key) == []
        assert await mine.put(record(5)) == Left(1, 1)
        assert await mine.get(KEYS.record_key.public_key) == [record(5)]
        assert await mine.put(record(6)) == Left(1, 1, (record(5),))
        refused = await mine.put(record(4))
        assert (refused.accepted, refused.others) == (0, (record(6),))
        assert list(shelf.kept) == [pointer_key(KEYS.record_key.public_key)]

    run(main(), within_seconds=60)


def test_rubbish_under_the_key_is_passed_over() -> None:
    async def main() -> None:
        shelf = Shelf()
        rubbish = sign_overlay_record(
            KEYS.record_key, network=NETWORK, kind=RecordKind.POINTER, body=b"no record", sequence=9, issued_ms=1
        )
        shelf.kept[pointer_key(KEYS.record_key.public_key)] = rubbish
        assert await pointers(shelf).get(KEYS.record_key.public_key) == []

    run(main(), within_seconds=60)


def test_the_largest_record_fits_into_the_overlay() -> None:
    async def main() -> None:
        largest = record(5, bytes(8000))
        assert len(encode(largest)) <= 8192
        assert (await pointers(Shelf()).put(largest)).accepted == 1

    run(main(), within_seconds=60)


class Fixed:
    """A way that says what it is told to."""

    def __init__(self, left: Left, found: Sequence[SignedRecoveryRecord]) -> None:
        self.left, self.found = left, found

    async def put(self, _record: Any) -> Left:
        return self.left

    async def get(self, _key: Any) -> list[SignedRecoveryRecord]:
        return list(self.found)

    async def places(self) -> Sequence[Peer]:
        return ()


def test_several_ways_count_as_the_first_and_tell_what_all_saw() -> None:
    async def main() -> None:
        farmers = Fixed(Left(2, 5), [record(5)])
        overlay = Fixed(Left(20, 20, (record(7),)), [record(5), record(7)])
        both = AllPointers(farmers, overlay)
        assert await both.put(record(6)) == Left(2, 5, (record(7),))
        assert await both.get(KEYS.record_key.public_key) == [record(5), record(7)]

    run(main(), within_seconds=60)
