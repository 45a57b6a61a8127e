"""Laws of restore drills: in the long run every byte is proved, and never for more than was allowed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from certificate_samples import DAY_MS, MIB, certify, target
from stook.audits.allowance import Allowance
from stook.renter.certificate import verify_certificate
from stook.renter.drill_plan import affordable_ms, choose, choose_rows, largest_bytes, rows_after
from stook.sim.dice import Dice

SIZES = st.lists(st.integers(1, 64), min_size=1, max_size=25)


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(0, 2**32), st.integers(1, 200))
def test_everything_is_proved_in_the_long_run_and_the_budget_holds(sizes: list[int], seed: int, daily: int) -> None:
    """As the continuous mode runs it; objects come in between."""
    dice, now = Dice(seed), DAY_MS
    pool = {each.segment_id: each for each in (target(number, mib) for number, mib in enumerate(sizes))}
    allowance = Allowance.full(daily * MIB, now)
    spent = largest = 0
    begun = now
    rounds = 0
    while any(each.proved_ms == 0 for each in pool.values()):
        rounds += 1
        assert rounds < 3000, "some segment is never drawn"
        now += affordable_ms(allowance, largest_bytes(pool.values()), now)
        pick = choose(list(pool.values()), now, dice)
        if pick is None:
            now += 3_600_000
            continue
        cost = pick.target.fetch_bytes
        allowance = allowance.spend(cost, now)
        spent, largest = spent + cost, max(largest, cost)
        assert spent <= daily * MIB * (1 + (now - begun) / DAY_MS) + max(0, largest - daily * MIB) + 1
        now += 1
        proved = replace(pick.target, tried_ms=now, proved_ms=now)
        pool[proved.segment_id] = replace(proved, spot_ms=now) if pick.spot else proved
        if rounds == 5:
            late = target(999, 7, since_ms=now)
            pool[late.segment_id] = late
    verify_certificate(certify(*pool.values(), now_ms=now))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_row_is_asked_for_within_a_time_around(data: st.DataObject) -> None:
    stored = data.draw(st.sets(st.integers(0, 254), min_size=1, max_size=60))
    k = data.draw(st.integers(1, len(stored)))
    dice, seen = Dice(data.draw(st.integers(0, 999))), bytes(32)
    for _ in range(3):
        given: set[int] = set()
        for _ in range(-(-len(stored) // k)):
            rows = choose_rows(k, stored, seen, dice)
            assert len(set(rows)) == k
            assert stored.issuperset(rows)
            given.update(rows)
            seen = rows_after(seen, stored, rows)
        assert given == stored
        assert seen == bytes(32), "the next time around begins"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.005, 0.2))
def test_the_claim_holds_at_its_confidence(seed: int, bad_share: float) -> None:
    """Liars chosen beforehand, spot checks as drawn: a claim that is too low without any failure is rare."""
    dice, wrong, trials = Dice(seed), 0, 40
    for _ in range(trials):
        pool = {each.segment_id: each for each in (target(number, 1 + number % 4) for number in range(200))}
        total = sum(each.plain_bytes for each in pool.values())
        bad, bad_bytes = set(), 0
        for number, each in enumerate(pool.values()):
            if number % 7 == 3 and bad_bytes < bad_share * total:
                bad.add(each.segment_id)
                bad_bytes += each.plain_bytes
        now = 2000
        for _ in range(60):
            pick = choose(list(pool.values()), now, dice, rest_ms=0)
            assert pick is not None
            if pick.target.segment_id in bad:
                break
            now += 1
            proved = replace(pick.target, tried_ms=now, proved_ms=now)
            pool[proved.segment_id] = replace(proved, spot_ms=now) if pick.spot else proved
        else:
            claimed = certify(*pool.values(), now_ms=now).certificate.unreadable_ppm
            wrong += claimed < 1e6 * bad_bytes / total
    assert wrong <= 10, "at 95 %, more than 10 of 40 has a chance of about one in a hundred thousand"
