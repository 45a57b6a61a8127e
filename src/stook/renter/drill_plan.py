"""Which segment is drilled next, by which of its shards, and when it may be afforded. Pure.

Never drilled first, then the oldest, weighted by bytes and drawn, so that no farmer can tell when it will be asked;
and again and again a spot check over everything, which is what a certificate's confidence rests on
(`docs/protocol/drills.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from stook.audits.allowance import DAY_MS, Allowance
from stook.ids import SegmentId
from stook.storage.drill_ports import ROWS_BYTES, DrillTarget

Dice = Callable[[int], bytes]
"""Random bytes of the given length."""

SPOT_SHARE = 4
"""One draw in so many is over everything."""
REST_MS = DAY_MS
"""What was drilled as lately is left alone, but for failures that are due again."""
FIRST_RETRY_MS = 3_600_000
LAST_RETRY_MS = 7 * DAY_MS
REPORTED_AT = 3
"""So many failures in a row are no passing trouble any more: drilling without end names the segment."""


@dataclass(frozen=True, slots=True)
class Pick:
    """The segment to drill next. `spot` says that it was drawn over everything."""

    target: DrillTarget
    spot: bool


def below(bound: int, dice: Dice) -> int:
    """A number from 0 up to `bound`, each equally likely. Raises `ValueError` below 1."""
    if bound < 1:
        raise ValueError("there is nothing to choose from")
    size = (bound.bit_length() + 7) // 8
    ceiling = (256**size // bound) * bound
    while True:
        rolled = int.from_bytes(dice(size), "big")
        if rolled < ceiling:  # what is above would make small numbers likelier
            return rolled % bound


def shuffled(items: Iterable[int], dice: Dice) -> list[int]:
    """The items in random order."""
    order = sorted(items)
    for last in range(len(order) - 1, 0, -1):
        other = below(last + 1, dice)
        order[last], order[other] = order[other], order[last]
    return order


def retry_ms(failures: int) -> int:
    """How long after this many failures in a row a segment is tried again."""
    return min(LAST_RETRY_MS, FIRST_RETRY_MS << min(max(failures, 1) - 1, 20))


def due_again_ms(target: DrillTarget) -> int:
    """When a failed segment is due again."""
    return target.tried_ms + retry_ms(target.failures)


def choose(
    targets: Sequence[DrillTarget],
    now_ms: int,
    dice: Dice,
    *,
    done: Collection[SegmentId] = (),
    rest_ms: int = REST_MS,
    retry_now: bool = False,
) -> Pick | None:
    """The next segment, or None while everything rests. Those in `done` are passed over.

    With `retry_now` failures are due at once, as when a person asks.
    """
    open_ = [target for target in targets if target.segment_id not in done]
    failed = [target for target in open_ if target.failures]
    due = [target for target in failed if retry_now or due_again_ms(target) <= now_ms]
    if due:
        return Pick(min(due, key=lambda target: (due_again_ms(target), target.segment_id)), spot=False)
    rested = [
        target
        for target in open_
        if not target.failures and (target.tried_ms == 0 or target.tried_ms + rest_ms <= now_ms)
    ]
    if not rested:
        return None
    if below(SPOT_SHARE, dice) == 0:
        return Pick(_by_bytes(rested, dice), spot=True)
    never = [target for target in rested if target.tried_ms == 0]
    if never:
        return Pick(_by_bytes(never, dice), spot=False)
    rested.sort(key=lambda target: (target.tried_ms, target.segment_id))
    return Pick(_by_bytes(rested[: (len(rested) + 1) // 2], dice), spot=False)


def largest_bytes(targets: Iterable[DrillTarget], done: Collection[SegmentId] = ()) -> int:
    """What the next drill may fetch at most, whatever is drawn; 0 when nothing is left."""
    return max((target.fetch_bytes for target in targets if target.segment_id not in done), default=0)


def _by_bytes(targets: Sequence[DrillTarget], dice: Dice) -> DrillTarget:
    at = below(sum(target.plain_bytes for target in targets), dice)
    for target in targets:
        at -= target.plain_bytes
        if at < 0:
            return target
    raise AssertionError("unreachable")


# --- which shards ----------------------------------------------------------------------------------------------------


def rows_of(bits: bytes) -> set[int]:
    """The rows whose bits are set."""
    number = int.from_bytes(bits, "little")
    return {row for row in range(8 * len(bits)) if number >> row & 1}


def bits_of(rows: Iterable[int]) -> bytes:
    """The inverse of `rows_of`."""
    return sum(1 << row for row in set(rows)).to_bytes(ROWS_BYTES, "little")


def choose_rows(k: int, stored: Collection[int], seen: bytes, dice: Dice) -> tuple[int, ...]:
    """The k rows to ask for: those not given back since the last time around first, at random; all if fewer than k."""
    known = rows_of(seen)
    fresh = shuffled((row for row in stored if row not in known), dice)
    again = shuffled((row for row in stored if row in known), dice)
    return tuple((fresh + again)[:k])


def rows_after(seen: bytes, stored: Collection[int], given: Collection[int]) -> bytes:
    """`DrillTarget.rows` after these were given back: emptied once all that are stored have been."""
    rows = rows_of(seen) | set(given)
    return bits_of(()) if rows.issuperset(stored) else bits_of(rows)


# --- what it may cost ------------------------------------------------------------------------------------------------


def affordable_ms(allowance: Allowance, cost_bytes: int, now_ms: int) -> int:
    """How long to wait until `cost_bytes` may be spent; what costs more than a full bucket waits for a full one.

    Raises `ValueError` for an allowance of nothing.
    """
    if allowance.per_day < 1:
        raise ValueError("an allowance of nothing is never enough")
    here = allowance.at(now_ms)
    lacking = min(cost_bytes, here.burst) * DAY_MS - here.level
    return max(0, -(-lacking // here.per_day))
