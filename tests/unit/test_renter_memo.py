import pytest

from stook.contracts.contract import MAX_MEMO_BYTES
from stook.errors import MalformedError
from stook.ids import NetworkId, SegmentId
from stook.renter.memo import Memo, MemoSealer

MEMO = Memo(1, SegmentId(bytes(range(16))), 7, 0, 4, 5, 7, 8, 9, 4 << 20, 1_700_000_000_000)


def test_a_memo_comes_back_and_fits_the_contract() -> None:
    sealer = MemoSealer(b"m" * 32, NetworkId("local"))
    sealed = sealer.seal(MEMO)
    assert sealer.open(sealed) == MEMO
    assert len(sealed) <= MAX_MEMO_BYTES
    assert MEMO.segment_id not in sealed
    assert sealer.seal(MEMO) == sealed


def test_any_flipped_bit_any_other_key_or_network_is_refused() -> None:
    sealer = MemoSealer(b"m" * 32, NetworkId("local"))
    sealed = sealer.seal(MEMO)
    for at in range(len(sealed)):
        with pytest.raises(MalformedError):
            sealer.open(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
    for other in (MemoSealer(b"n" * 32, NetworkId("local")), MemoSealer(b"m" * 32, NetworkId("other"))):
        with pytest.raises(MalformedError):
            other.open(sealed)
    for size in (0, 16, MAX_MEMO_BYTES + 1):
        with pytest.raises(MalformedError):
            sealer.open(bytes(size))
